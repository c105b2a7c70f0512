/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bus: a sorted array of ranges, found by bisection.
 *
 * The one thing to know: the table's lock is let go before a device is called,
 * because a device may change the table from inside the call. What keeps the
 * device alive meanwhile is the rule that devices are freed only while the
 * machine is paused, when no vCPU is inside here.
 */
#include "vmrun/bus.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct range {
    uint64_t base, last; /* both inside */
    struct device *dev;
    unsigned region;
};

struct bus {
    uint64_t last_address;
    pthread_rwlock_t lock; /* guards ranges and count */
    struct range *ranges;  /* ascending */
    unsigned count;
    atomic_uint_fast64_t unmapped;
};

int bus_create(enum bus_kind kind, struct bus **ret_bus, struct error *err)
{
    struct bus *bus = calloc(1, sizeof(*bus));

    if (!bus)
        return error_set(err, ENOMEM, "bus: out of memory");
    bus->last_address = kind == BUS_PIO ? UINT16_MAX : UINT64_MAX;
    pthread_rwlock_init(&bus->lock, NULL);
    *ret_bus = bus;
    return 0;
}

void bus_destroy(struct bus *bus)
{
    if (!bus)
        return;
    pthread_rwlock_destroy(&bus->lock);
    free(bus->ranges);
    free(bus);
}

/* Index of the first range that ends at or after addr; count if there is none. */
static unsigned first_at_or_after(const struct bus *bus, uint64_t addr)
{
    unsigned low = 0, high = bus->count;

    while (low < high) {
        unsigned middle = (low + high) / 2;

        if (bus->ranges[middle].last < addr)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static int insert(struct bus *bus, const struct range *new, struct error *err)
{
    unsigned at = first_at_or_after(bus, new->base);

    if (at < bus->count && bus->ranges[at].base <= new->last)
        return error_set(err, EEXIST, "%s: address 0x%llx is taken by %s", new->dev->id,
                         (unsigned long long)new->base, bus->ranges[at].dev->id);

    struct range *grown = realloc(bus->ranges, (bus->count + 1) * sizeof(*grown));
    if (!grown)
        return error_set(err, ENOMEM, "%s: out of memory", new->dev->id);
    memmove(grown + at + 1, grown + at, (bus->count - at) * sizeof(*grown));
    grown[at] = *new;
    bus->ranges = grown;
    bus->count++;
    return 0;
}

int bus_map(struct bus *bus, uint64_t base, uint64_t len, struct device *dev, unsigned region,
            struct error *err)
{
    if (len == 0 || base > bus->last_address || len - 1 > bus->last_address - base)
        return error_set(err, EINVAL, "%s: 0x%llx bytes at 0x%llx are past the end of the bus",
                         dev->id, (unsigned long long)len, (unsigned long long)base);

    struct range new = {.base = base, .last = base + (len - 1), .dev = dev, .region = region};
    pthread_rwlock_wrlock(&bus->lock);
    int r = insert(bus, &new, err);
    pthread_rwlock_unlock(&bus->lock);
    return r;
}

void bus_unmap(struct bus *bus, struct device *dev)
{
    unsigned kept = 0;

    pthread_rwlock_wrlock(&bus->lock);
    for (unsigned i = 0; i < bus->count; i++)
        if (bus->ranges[i].dev != dev)
            bus->ranges[kept++] = bus->ranges[i];
    bus->count = kept;
    pthread_rwlock_unlock(&bus->lock);
}

void bus_unmap_range(struct bus *bus, uint64_t base, struct device *dev)
{
    pthread_rwlock_wrlock(&bus->lock);
    unsigned at = first_at_or_after(bus, base);
    if (at < bus->count && bus->ranges[at].base == base && bus->ranges[at].dev == dev) {
        bus->count--;
        memmove(bus->ranges + at, bus->ranges + at + 1, (bus->count - at) * sizeof(bus->ranges[0]));
    }
    pthread_rwlock_unlock(&bus->lock);
}

/* Find the range that holds addr. */
static bool lookup(struct bus *bus, uint64_t addr, struct range *ret_range)
{
    pthread_rwlock_rdlock(&bus->lock);
    unsigned at = first_at_or_after(bus, addr);
    bool found = at < bus->count && bus->ranges[at].base <= addr;
    if (found)
        *ret_range = bus->ranges[at];
    pthread_rwlock_unlock(&bus->lock);
    return found;
}

/* Whether the device can be asked for the access as it is. */
static bool takes(const struct range *range, uint64_t addr, unsigned size)
{
    return range->last - addr >= size - 1 && (size & (size - 1)) == 0;
}

static uint64_t ones(unsigned size)
{
    return UINT64_MAX >> (64 - 8 * size);
}

static void count_unmapped(struct bus *bus)
{
    atomic_fetch_add_explicit(&bus->unmapped, 1, memory_order_relaxed);
}

static uint64_t read_range(const struct range *range, uint64_t addr, unsigned size)
{
    struct device *dev = range->dev;

    pthread_mutex_lock(&dev->lock);
    uint64_t value = dev->ops->read(dev, range->region, addr - range->base, size);
    pthread_mutex_unlock(&dev->lock);
    return value & ones(size);
}

static void write_range(const struct range *range, uint64_t addr, unsigned size, uint64_t value)
{
    struct device *dev = range->dev;

    pthread_mutex_lock(&dev->lock);
    dev->ops->write(dev, range->region, addr - range->base, size, value & ones(size));
    pthread_mutex_unlock(&dev->lock);
}

uint64_t bus_read(struct bus *bus, uint64_t addr, unsigned size)
{
    struct range range;
    uint64_t value = 0;
    bool met = false;

    if (lookup(bus, addr, &range) && takes(&range, addr, size))
        return read_range(&range, addr, size);
    for (unsigned i = 0; i < size; i++) {
        uint64_t at = (addr + i) & bus->last_address;
        bool found = lookup(bus, at, &range);

        value |= (found ? read_range(&range, at, 1) : 0xff) << (8 * i);
        met |= found;
    }
    if (!met)
        count_unmapped(bus);
    return value;
}

void bus_write(struct bus *bus, uint64_t addr, unsigned size, uint64_t value)
{
    struct range range;
    bool met = false;

    if (lookup(bus, addr, &range) && takes(&range, addr, size)) {
        write_range(&range, addr, size, value);
        return;
    }
    for (unsigned i = 0; i < size; i++) {
        uint64_t at = (addr + i) & bus->last_address;

        if (!lookup(bus, at, &range))
            continue;
        write_range(&range, at, 1, value >> (8 * i));
        met = true;
    }
    if (!met)
        count_unmapped(bus);
}

uint64_t bus_unmapped_count(const struct bus *bus)
{
    return atomic_load_explicit(&bus->unmapped, memory_order_relaxed);
}
