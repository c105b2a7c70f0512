/* SPDX-License-Identifier: Apache-2.0 */
#ifndef FAKE_PLATFORM_H
#define FAKE_PLATFORM_H

/*
 * A machine for devices under test: remembers what they asked of it, and plays
 * the bus, lock included. Its calls can be made to fail.
 */

#include <stdbool.h>

#include "vmrun/device.h"

#define FAKE_MAX_MAPS 32
#define FAKE_GSIS 24

struct fake_map {
    enum bus_kind bus;
    uint64_t base, len;
    struct device *dev;
    unsigned region;
};

struct fake_irq {
    struct irq irq;
    bool taken, level;
    unsigned sets, rises, falls; /* calls; changes up and down */
};

struct fake_platform {
    struct platform platform;
    unsigned map_count;
    struct fake_map maps[FAKE_MAX_MAPS];
    struct fake_irq irqs[FAKE_GSIS];

    unsigned requests; /* how many; the last one: */
    enum guest_request request;
    int argument;

    int calls_until_failure; /* map() and irq() calls that still succeed; negative: all */
};

/* An empty machine whose calls all succeed. */
void fake_platform_init(struct fake_platform *fake);

/* One access as the bus makes it. A range that straddles, or is not mapped, fails the test. */
uint64_t fake_read(struct fake_platform *fake, enum bus_kind bus, uint64_t addr, unsigned size);
void fake_write(struct fake_platform *fake, enum bus_kind bus, uint64_t addr, unsigned size,
                uint64_t value);

/* The guest's inb and outb. */
uint8_t fake_inb(struct fake_platform *fake, uint16_t port);
void fake_outb(struct fake_platform *fake, uint16_t port, uint8_t value);

#endif
