/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PCI_BENCH_H
#define PCI_BENCH_H

/* A PCI host bridge and one function behind it, in a slot of its own; a second may be plugged in.
 */

#include "fake_function.h"

#define BENCH_SLOT 3

extern struct pci_bench {
    struct fake_platform fake;
    struct device *host, *dev, *other;
    struct fake_function *fun;
    struct error err;
} bench;

/* For cmocka. Teardown fails when something is mapped, or routed, that was. */
int pci_bench_setup(void **state);
int pci_bench_teardown(void **state);

struct fake_function *bench_plug(int slot);

/* Configuration space of the function in BENCH_SLOT. */
uint32_t bench_get(unsigned offset, unsigned size);
void bench_set(unsigned offset, unsigned size, uint32_t value);

bool bench_is_mapped(uint64_t address);

#endif
