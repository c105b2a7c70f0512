/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memory_give_back: pages that the guest does without go back to the host, and read as zeros.
 *
 * Pages of a mapped file would come back with what the file has, so anonymous memory is mapped over
 * them. Each such hole costs the process mappings, of which Linux gives it some 65000: there is a
 * bound, counted so that no order of holes can pass it, and behind it pages stay as they are.
 */
#include <assert.h>
#include <sys/mman.h>

#include "vmrun/memory.h"

#define MOST_MAPPINGS 16384u

static bool is_given(const struct memory_region *region, uint64_t page)
{
    return __atomic_load_n(&region->given[page / 64], __ATOMIC_RELAXED) >> page % 64 & 1;
}

static bool discard(const struct memory_region *region, uint64_t first, uint64_t pages)
{
    bool shared = region->fd >= 0 && !region->from_file;

    /* MADV_REMOVE also empties the pages of a shared memfd, which DONTNEED does not. */
    return madvise(region->host + first * GUEST_PAGE_SIZE, pages * GUEST_PAGE_SIZE,
                   shared ? MADV_REMOVE : MADV_DONTNEED) == 0;
}

static bool map_over(struct guest_memory *mem, const struct memory_region *region, uint64_t first,
                     uint64_t pages)
{
    uint64_t end = first + pages, bytes = pages * GUEST_PAGE_SIZE;
    unsigned mappings = 2; /* a hole in the middle makes three of one */
    uint8_t *at = region->host + first * GUEST_PAGE_SIZE;

    /* Next to another hole it is one with that. */
    mappings -= first > 0 && is_given(region, first - 1);
    mappings -= end < region->size / GUEST_PAGE_SIZE && is_given(region, end);
    if (mem->holes + mappings > MOST_MAPPINGS)
        return false;
    if (mmap(at, bytes, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) == MAP_FAILED)
        return false;
    (void)madvise(at, bytes, MADV_DONTDUMP);
    mem->holes += mappings;
    for (uint64_t page = first; page < end; page++)
        __atomic_fetch_or(&region->given[page / 64], UINT64_C(1) << page % 64, __ATOMIC_RELAXED);
    return true;
}

/* Runs of a mapped file, and of holes in it. Returns pages. */
static uint64_t give_file_pages(struct guest_memory *mem, const struct memory_region *region,
                                uint64_t first, uint64_t end)
{
    uint64_t pages = 0;

    while (first < end) {
        bool hole = is_given(region, first);
        uint64_t run = 1;

        while (first + run < end && is_given(region, first + run) == hole)
            run++;
        if (hole ? discard(region, first, run) : map_over(mem, region, first, run)) {
            guest_memory_mark_dirty(mem, region->gpa + first * GUEST_PAGE_SIZE,
                                    run * GUEST_PAGE_SIZE);
            pages += run;
        }
        first += run;
    }
    return pages;
}

uint64_t guest_memory_give_back(struct guest_memory *mem, uint64_t gpa, uint64_t len)
{
    const struct memory_region *region = NULL;

    /* Who reserved large pages would have the guest die where they are somebody else's meanwhile.
     */
    if (mem->host_page_size != GUEST_PAGE_SIZE || !guest_memory_at(mem, gpa, len))
        return 0;
    for (unsigned i = 0; i < mem->count; i++)
        if (gpa >= mem->regions[i].gpa && gpa - mem->regions[i].gpa < mem->regions[i].size)
            region = &mem->regions[i];
    assert(region); /* guest_memory_at() found it */

    uint64_t first = (gpa - region->gpa + GUEST_PAGE_SIZE - 1) / GUEST_PAGE_SIZE;
    uint64_t end = (gpa - region->gpa + len) / GUEST_PAGE_SIZE;
    if (first >= end)
        return 0;
    if (region->from_file)
        return give_file_pages(mem, region, first, end) * GUEST_PAGE_SIZE;
    if (!discard(region, first, end - first))
        return 0;
    /* The log of writes does not see it: what was copied before is no longer so. */
    guest_memory_mark_dirty(mem, region->gpa + first * GUEST_PAGE_SIZE,
                            (end - first) * GUEST_PAGE_SIZE);
    return (end - first) * GUEST_PAGE_SIZE;
}

bool guest_memory_find(const struct guest_memory *mem, const void *host, uint64_t *ret_gpa)
{
    const uint8_t *at = host;

    for (unsigned i = 0; i < mem->count; i++) {
        const struct memory_region *region = &mem->regions[i];

        if (at >= region->host && at < region->host + region->size) {
            *ret_gpa = region->gpa + (uint64_t)(at - region->host);
            return true;
        }
    }
    return false;
}
