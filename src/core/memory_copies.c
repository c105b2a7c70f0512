/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memory_copies: which pages of RAM that is mapped from a file are no longer the file's. Linux
 * knows it, as it had to copy them: they are anonymous, in memory or swapped out.
 *
 * PAGEMAP_SCAN (Linux 6.7) passes over what is of no interest; before, each page has 8 bytes in
 * /proc/self/pagemap.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "vmrun/memory.h"

/* As <linux/fs.h> has them since 6.7, under names that do not meet those. */
struct scan {
    uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
    uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
struct scan_region {
    uint64_t start, end, categories;
};
#define SCAN_REQUEST _IOWR('f', 16, struct scan)
#define SCAN_FILE (UINT64_C(1) << 2)
#define SCAN_PRESENT (UINT64_C(1) << 3)
#define SCAN_SWAPPED (UINT64_C(1) << 4)
#define SCAN_REGIONS 512u

#define PAGEMAP_FILE (UINT64_C(1) << 61)
#define PAGEMAP_SWAPPED (UINT64_C(1) << 62)
#define PAGEMAP_PRESENT (UINT64_C(1) << 63)
#define PAGEMAP_ENTRIES 512u

static void mark(uint64_t *bitmap, uint64_t first, uint64_t end)
{
    for (uint64_t page = first; page < end; page++)
        bitmap[page / 64] |= UINT64_C(1) << page % 64;
}

/* Errors: -ENOTTY, an older kernel; others of ioctl(2). */
static int scan(int fd, const struct memory_region *region, uint64_t *bitmap)
{
    uint64_t start = (uintptr_t)region->host;
    struct scan_region *found = calloc(SCAN_REGIONS, sizeof(*found));
    struct scan scan = {
        .size = sizeof(scan),
        .start = start,
        .end = start + region->size,
        .vec = (uintptr_t)found,
        .vec_len = SCAN_REGIONS,
        .category_inverted = SCAN_FILE,
        .category_mask = SCAN_FILE,
        .category_anyof_mask = SCAN_PRESENT | SCAN_SWAPPED,
        .return_mask = SCAN_FILE,
    };
    int count = found ? 0 : -1;

    while (count >= 0 && scan.start < scan.end) {
        count = ioctl(fd, SCAN_REQUEST, &scan);
        for (int i = 0; i < count; i++)
            mark(bitmap, (found[i].start - start) / GUEST_PAGE_SIZE,
                 (found[i].end - start) / GUEST_PAGE_SIZE);
        scan.start = scan.walk_end;
    }
    int r = count < 0 ? -errno : 0;
    free(found);
    return r;
}

static int read_pagemap(int fd, const struct memory_region *region, uint64_t *bitmap)
{
    uint64_t entries[PAGEMAP_ENTRIES], pages = region->size / GUEST_PAGE_SIZE;
    uint64_t first = (uintptr_t)region->host / GUEST_PAGE_SIZE, n;

    for (uint64_t page = 0; page < pages; page += n) {
        n = pages - page < PAGEMAP_ENTRIES ? pages - page : PAGEMAP_ENTRIES;
        ssize_t bytes = pread(fd, entries, n * sizeof(entries[0]), (off_t)((first + page) * 8));
        if (bytes < (ssize_t)sizeof(entries[0]))
            return bytes < 0 ? -errno : -EIO;
        n = (uint64_t)bytes / sizeof(entries[0]);
        for (uint64_t i = 0; i < n; i++)
            if (entries[i] & (PAGEMAP_PRESENT | PAGEMAP_SWAPPED) && !(entries[i] & PAGEMAP_FILE))
                mark(bitmap, page + i, page + i + 1);
    }
    return 0;
}

int guest_memory_find_copies(const struct guest_memory *mem, unsigned region, bool old_way,
                             uint64_t *bitmap, struct error *err)
{
    const struct memory_region *of = &mem->regions[region];
    int fd, r;

    if (!of->from_file || sysconf(_SC_PAGESIZE) != GUEST_PAGE_SIZE)
        return error_set(err, ENOTSUP, "guest memory: not mapped from a file");
    fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return error_errno(err, errno, "/proc/self/pagemap");
    r = old_way ? -ENOTTY : scan(fd, of, bitmap);
    if (r < 0)
        r = read_pagemap(fd, of, bitmap);
    close(fd);
    /* What was given back is not there, and still not the file's. */
    for (size_t i = 0; i < guest_memory_bitmap_words(mem, region); i++)
        bitmap[i] |= __atomic_load_n(&of->given[i], __ATOMIC_RELAXED);
    return r < 0 ? error_errno(err, -r, "/proc/self/pagemap") : 0;
}
