/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layout: what of RAM is free while a kernel is placed, and the memory map
 * that the guest is told.
 *
 * Everything that is loaded goes into the region below the hole under 4 GiB:
 * there every protocol and the early page tables reach it.
 */
#include "loader.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define E820_RAM 1u
#define PC_HOLE_START UINT64_C(0xa0000) /* video memory and firmware, up to 1 MiB */
#define PC_HOLE_END UINT64_C(0x100000)

static int compare_reserved(const void *a, const void *b)
{
    uint64_t left = ((const struct boot_reserved *)a)->gpa;
    uint64_t right = ((const struct boot_reserved *)b)->gpa;

    return left < right ? -1 : left > right;
}

static int sort_reserved(const struct boot_reserved *reserved, unsigned count,
                         struct boot_reserved sorted[BOOT_MAX_RESERVED], struct error *err)
{
    if (count > BOOT_MAX_RESERVED)
        return error_set(err, EINVAL, "memory map: %u reserved ranges are more than %u", count,
                         BOOT_MAX_RESERVED);
    if (count)
        memcpy(sorted, reserved, count * sizeof(*sorted));
    qsort(sorted, count, sizeof(*sorted), compare_reserved);
    for (unsigned i = 0; i < count; i++) {
        if (sorted[i].size == 0 || sorted[i].gpa + sorted[i].size < sorted[i].gpa)
            return error_set(err, EINVAL, "memory map: reserved range at 0x%llx has a bad size",
                             (unsigned long long)sorted[i].gpa);
        if (i && sorted[i - 1].gpa + sorted[i - 1].size > sorted[i].gpa)
            return error_set(err, EINVAL, "memory map: reserved ranges overlap at 0x%llx",
                             (unsigned long long)sorted[i].gpa);
    }
    return 0;
}

/* Usable RAM in [start, end): what the sorted reserved ranges leave of it. */
static unsigned add_ram(struct memory_map_entry *map, unsigned n, uint64_t start, uint64_t end,
                        const struct boot_reserved *sorted, unsigned count)
{
    for (unsigned i = 0; i < count && start < end; i++) {
        uint64_t from = sorted[i].gpa, to = from + sorted[i].size;

        if (to <= start || from >= end)
            continue;
        if (from > start)
            map[n++] = (struct memory_map_entry){start, from - start, E820_RAM};
        start = to;
    }
    if (start < end)
        map[n++] = (struct memory_map_entry){start, end - start, E820_RAM};
    return n;
}

static int compare_entries(const void *a, const void *b)
{
    uint64_t left = ((const struct memory_map_entry *)a)->gpa;
    uint64_t right = ((const struct memory_map_entry *)b)->gpa;

    return left < right ? -1 : left > right;
}

int memory_map_build(const struct guest_memory *mem, const struct boot_reserved *reserved,
                     unsigned count, struct memory_map_entry ret_map[MEMORY_MAP_MAX],
                     struct error *err)
{
    struct boot_reserved sorted[BOOT_MAX_RESERVED] = {{0}};
    unsigned n = 0;
    int r = sort_reserved(reserved, count, sorted, err);

    if (r < 0)
        return r;
    for (unsigned i = 0; i < mem->count; i++) {
        uint64_t start = mem->regions[i].gpa, end = start + mem->regions[i].size;

        if (start < PC_HOLE_START) {
            n = add_ram(ret_map, n, start, end < PC_HOLE_START ? end : PC_HOLE_START, sorted,
                        count);
            start = PC_HOLE_END;
        }
        n = add_ram(ret_map, n, start, end, sorted, count);
    }
    for (unsigned i = 0; i < count; i++)
        ret_map[n++] =
            (struct memory_map_entry){sorted[i].gpa, sorted[i].size, sorted[i].e820_type};
    qsort(ret_map, n, sizeof(*ret_map), compare_entries);
    return (int)n;
}

int layout_init(struct layout *layout, const struct guest_memory *mem,
                const struct boot_reserved *reserved, unsigned count, struct error *err)
{
    struct boot_reserved sorted[BOOT_MAX_RESERVED] = {{0}};
    int r = sort_reserved(reserved, count, sorted, err);

    if (r < 0)
        return r;
    *layout = (struct layout){.end = mem->regions[0].size};
    if (!guest_memory_at(mem, 0, LOW_KERNEL))
        return error_set(err, E2BIG, "a kernel cannot start with less than 1M of memory");
    for (unsigned i = 0; i < count; i++)
        layout_take(layout, sorted[i].gpa, sorted[i].size);
    if (!layout_is_free(layout, LOW_GDT, LOW_END - LOW_GDT) ||
        !layout_is_free(layout, LOW_CMDLINE, LOW_CMDLINE_ROOM))
        return error_set(err, EINVAL, "memory map: a reserved range covers the boot structures");
    layout_take(layout, 0, LOW_KERNEL);
    return 0;
}

void layout_take(struct layout *layout, uint64_t gpa, uint64_t size)
{
    layout->taken[layout->count].start = gpa;
    layout->taken[layout->count++].end = gpa + size;
}

/* The end of something taken within [gpa, gpa + size), or 0. */
static uint64_t blocked_until(const struct layout *layout, uint64_t gpa, uint64_t size)
{
    for (unsigned i = 0; i < layout->count; i++)
        if (gpa < layout->taken[i].end && layout->taken[i].start < gpa + size)
            return layout->taken[i].end;
    return 0;
}

bool layout_is_free(const struct layout *layout, uint64_t gpa, uint64_t size)
{
    return size <= layout->end && gpa <= layout->end - size && !blocked_until(layout, gpa, size);
}

uint64_t layout_find_low(const struct layout *layout, uint64_t min, uint64_t size, uint64_t align)
{
    uint64_t gpa = (min + align - 1) & ~(align - 1);
    uint64_t end;

    while (size <= layout->end && gpa <= layout->end - size) {
        end = blocked_until(layout, gpa, size);
        if (!end)
            return gpa;
        gpa = (end + align - 1) & ~(align - 1);
    }
    return 0;
}

uint64_t layout_find_high(const struct layout *layout, uint64_t min, uint64_t max, uint64_t size,
                          uint64_t align)
{
    uint64_t end = max < layout->end ? max : layout->end;

    while (size <= end && ((end - size) & ~(align - 1)) >= min) {
        uint64_t gpa = (end - size) & ~(align - 1);
        uint64_t below = 0;

        for (unsigned i = 0; i < layout->count; i++)
            if (gpa < layout->taken[i].end && layout->taken[i].start < gpa + size &&
                (!below || layout->taken[i].start < below))
                below = layout->taken[i].start;
        if (!below && layout_is_free(layout, gpa, size))
            return gpa;
        end = below;
    }
    return 0;
}

uint64_t layout_random_below(uint64_t n)
{
    uint64_t value;

    /* The first bytes after the host's boot are the only ones that could block; 8 always come
     * whole. The bias of the remainder is below 2^-40 for any n that is asked for here. */
    if (getrandom(&value, sizeof(value), 0) != (ssize_t)sizeof(value))
        return 0;
    return value % n;
}

uint64_t layout_find_random(const struct layout *layout, uint64_t min, uint64_t size,
                            uint64_t align)
{
    uint64_t first = layout_find_low(layout, min, size, align);
    uint64_t slots = 0, pick = 0;

    for (uint64_t gpa = first; gpa; gpa = layout_find_low(layout, gpa + align, size, align))
        slots++;
    if (slots)
        pick = layout_random_below(slots);
    while (pick--)
        first = layout_find_low(layout, first + align, size, align);
    return first;
}
