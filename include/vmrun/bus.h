/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMRUN_BUS_H
#define VMRUN_BUS_H

#include "vmrun/device.h"

/*
 * An address space of devices: port I/O or memory-mapped I/O.
 *
 * Any vCPU may read and write at any time; the bus takes the device's lock
 * around the call and no other lock is held then, so a device may map and
 * unmap ranges (its own, say: a BAR that moves) from inside a call. A device is
 * freed only while the machine is paused.
 */
struct bus;

int bus_create(enum bus_kind kind, struct bus **ret_bus, struct error *err);
void bus_destroy(struct bus *bus); /* NULL is fine; devices are not touched */

/* Errors: -EEXIST overlaps a range that is mapped; -EINVAL empty or past the end; -ENOMEM. */
int bus_map(struct bus *bus, uint64_t base, uint64_t len, struct device *dev, unsigned region,
            struct error *err);
void bus_unmap(struct bus *bus, struct device *dev); /* all its ranges */
/* The range of dev that begins at base; nothing happens when there is none. */
void bus_unmap_range(struct bus *bus, uint64_t base, struct device *dev);

/*
 * One guest access of 1 to 8 bytes. An access that straddles ranges, or the end
 * of one, or is of an odd width (a part of one that crossed a page), is split
 * into bytes, as a bus would run it as several cycles; it wraps at the end of
 * the address space. Where nothing is mapped a read gives ones and a write is
 * dropped.
 */
uint64_t bus_read(struct bus *bus, uint64_t addr, unsigned size);
void bus_write(struct bus *bus, uint64_t addr, unsigned size, uint64_t value);

/* Accesses that met no device, since creation. */
uint64_t bus_unmapped_count(const struct bus *bus);

#endif
