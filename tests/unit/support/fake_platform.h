/* SPDX-License-Identifier: Apache-2.0 */
#ifndef FAKE_PLATFORM_H
#define FAKE_PLATFORM_H

/*
 * A machine for devices under test: remembers what they asked of it, and plays
 * the bus, lock included. Its calls can be made to fail.
 */

#include <stdbool.h>

#include "vmrun/device.h"

#define FAKE_MAX_MAPS 128
#define FAKE_GSIS 24
#define FAKE_MSIS 256
#define FAKE_MAX_DOORBELLS 128

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

/* Its fd is a real eventfd: fake_msi_fires() looks what was written to it. */
struct fake_msi {
    struct msi msi;
    struct fake_platform *fake;
    bool taken, routed;
    uint64_t address; /* the last route */
    uint32_t data;
    unsigned routes; /* calls of route() */
    unsigned fires;  /* as of the last fake_msi_fires() */
};

struct fake_platform {
    struct platform platform; /* memory: NULL until the test sets it */
    unsigned map_count;
    struct fake_map maps[FAKE_MAX_MAPS]; /* ascending, ports first */
    struct fake_irq irqs[FAKE_GSIS];
    unsigned msi_count; /* that are taken */
    struct fake_msi msis[FAKE_MSIS];
    unsigned doorbell_count;
    struct doorbell doorbells[FAKE_MAX_DOORBELLS];
    bool routes_fail; /* every route() does, until the test clears it */

    unsigned requests; /* how many; the last one: */
    enum guest_request request;
    int argument;

    /* Calls of map(), irq(), msi() and doorbell() to attach that still succeed; negative: all. */
    int calls_until_failure;
};

/* An empty machine whose calls all succeed. */
void fake_platform_init(struct fake_platform *fake);

/*
 * One access as KVM and the bus make it: a write that a doorbell is for signals
 * its eventfd and reaches no device. A range that straddles, or is not mapped, fails the test.
 */
uint64_t fake_read(struct fake_platform *fake, enum bus_kind bus, uint64_t addr, unsigned size);
void fake_write(struct fake_platform *fake, enum bus_kind bus, uint64_t addr, unsigned size,
                uint64_t value);

/* Whether a device has all of it. */
bool fake_is_mapped(const struct fake_platform *fake, enum bus_kind bus, uint64_t addr,
                    unsigned size);

/* How often it was raised since it was made, routed or not. */
unsigned fake_msi_fires(struct fake_msi *msi);
/* The first message that is routed there, or NULL. */
struct fake_msi *fake_msi_find(struct fake_platform *fake, uint64_t address, uint32_t data);

/* The guest's inb and outb. */
uint8_t fake_inb(struct fake_platform *fake, uint16_t port);
void fake_outb(struct fake_platform *fake, uint16_t port, uint8_t value);

#endif
