/* SPDX-License-Identifier: Apache-2.0 */
#ifndef FAKE_GUEST_H
#define FAKE_GUEST_H

/*
 * A guest's RAM in two regions with a log of what the guest writes, which is what a fake machine
 * answers migration's questions with. Pages count from 0 through both regions. It has one CPU:
 * machine_cpus() is here too.
 */
#include <stdbool.h>
#include <stdint.h>

#include "vmrun/memory.h"

struct fake_guest {
    struct guest_memory *memory;
    uint64_t pages;
    bool logging;
    uint64_t *log[2];
    unsigned stamp; /* no two writes in a row are of the same bytes */
};

/* Failures are the test's. `low` bytes are below a hole that ends at 4 GiB. */
void fake_guest_create(struct fake_guest *g, uint64_t size, uint64_t low);
void fake_guest_destroy(struct fake_guest *g); /* also one of zeros */

uint64_t fake_guest_gpa(const struct fake_guest *g, uint64_t page);
uint8_t *fake_guest_page(const struct fake_guest *g, uint64_t page);
void fake_guest_write(struct fake_guest *g, uint64_t page);
/* Two of three, so that there are runs and gaps; the others after them. */
void fake_guest_write_many(struct fake_guest *g, unsigned count);

/* What KVM does with its log; a look at it takes nothing away. */
void fake_guest_log(struct fake_guest *g, bool on);
void fake_guest_log_look(const struct fake_guest *g, unsigned region, uint64_t *bitmap);
void fake_guest_log_clear(struct fake_guest *g, unsigned region, uint64_t first_page,
                          uint64_t pages, const uint64_t *bitmap);

#endif
