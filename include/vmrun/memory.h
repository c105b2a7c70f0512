/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMRUN_MEMORY_H
#define VMRUN_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vmrun/error.h"

/*
 * Guest RAM: a few regions of guest-physical addresses, each one mapping in
 * this process, and a dirty map of 4 KiB pages beside them for what the VMM
 * itself writes (KVM's log does not see that), or the kernel for it (vhost.h).
 *
 * A guest address is hostile: reach RAM only through guest_memory_at() and its
 * relatives, which refuse what does not lie wholly inside one region. All
 * functions but create and destroy: any thread.
 */
#define GUEST_PAGE_SIZE 4096u

enum memory_backing { MEMORY_ANONYMOUS, MEMORY_MEMFD };
enum memory_pages { MEMORY_PAGES_NORMAL, MEMORY_PAGES_TRANSPARENT, MEMORY_PAGES_HUGE };

struct memory_region {
    uint64_t gpa, size; /* bytes; multiples of GUEST_PAGE_SIZE */
    uint8_t *host;
    int fd;             /* the memfd, or -1 */
    uint64_t fd_offset; /* of the region's first byte in fd */
    bool from_file;     /* its pages come from a file: guest_memory_map_file() */
    uint64_t *dirty;    /* atomic words; bit n: page n was written by the VMM */
    uint64_t *given;    /* from_file: atomic words; bit n: page n was given back since */
};

#define MEMORY_MAX_REGIONS 4

struct guest_memory {
    uint32_t host_page_size; /* bytes: what the host can give and take back */
    uint32_t zero_unit;      /* bytes: what guest_memory_zero() gives back at least */
    unsigned holes;          /* mappings that were made to give pages of a file back */
    unsigned count;
    struct memory_region regions[MEMORY_MAX_REGIONS]; /* ascending, disjoint */
    /* Where the regions' marks lie: bit n is the page at n * GUEST_PAGE_SIZE, holes included. */
    uint64_t *dirty;
    size_t dirty_bytes;
};

/* Where RAM lies: up to `hole_start` from 0, the rest from `hole_end` (4 GiB) up. */
struct memory_layout {
    uint64_t size;                 /* bytes in all; a multiple of 2 MiB with MEMORY_PAGES_HUGE */
    uint64_t hole_start, hole_end; /* guest-physical; the end a multiple of 256 KiB */
    enum memory_backing backing;
    enum memory_pages pages;
};

/*
 * Reserve the RAM; pages are taken from the host as they are touched (with
 * MEMORY_PAGES_HUGE they are reserved at once).
 * Errors: -EINVAL a size that is no multiple of the page size; -ENOMEM, with what would help.
 */
int guest_memory_create(const struct memory_layout *layout, struct guest_memory **ret_mem,
                        struct error *err);
void guest_memory_destroy(struct guest_memory *mem); /* NULL is fine */

/* Bytes of RAM in all. */
uint64_t guest_memory_size(const struct guest_memory *mem);

/* Host address of [gpa, gpa + len), or NULL unless it lies wholly inside one region. len > 0. */
void *guest_memory_at(const struct guest_memory *mem, uint64_t gpa, uint64_t len);

/* Copy in or out; a write marks its pages dirty. Errors: -EFAULT, nothing was copied. */
int guest_memory_read(const struct guest_memory *mem, uint64_t gpa, void *data, uint64_t len);
int guest_memory_write(struct guest_memory *mem, uint64_t gpa, const void *data, uint64_t len);
/*
 * Fill with zeros. Pages that are whole are given back to the host: the large ones when they are
 * transparent, as a hole in one would leave the guest with small ones. Errors: -EFAULT.
 */
int guest_memory_zero(struct guest_memory *mem, uint64_t gpa, uint64_t len);

/*
 * The guest does without these bytes: pages that are whole go back to the host, whatever they are
 * made of, and read as zeros until somebody writes to them. They are marked dirty: to a copy of RAM
 * they are zeros from now on. What cannot go back (reserved large pages; too many pieces of a
 * mapped file; outside RAM) stays as it is. Returns bytes given back. Of RAM that is mapped from a
 * file: one thread at a time.
 */
uint64_t guest_memory_give_back(struct guest_memory *mem, uint64_t gpa, uint64_t len);
/* Where in the guest's memory that byte is, of what guest_memory_at() has given. */
bool guest_memory_find(const struct guest_memory *mem, const void *host, uint64_t *ret_gpa);

/* For who wrote through guest_memory_at(): mark after the write. Outside RAM: ignored. */
void guest_memory_mark_dirty(struct guest_memory *mem, uint64_t gpa, uint64_t len);
/* Whether the page at gpa is marked; with clear, unmark it. */
bool guest_memory_test_dirty(struct guest_memory *mem, uint64_t gpa, bool clear);
/*
 * Move the marks of a whole region into bitmap, a bit for each page, OR'ed to what is there. Marks
 * that come meanwhile are for the next time.
 */
void guest_memory_harvest_dirty(struct guest_memory *mem, unsigned region, uint64_t *bitmap);
/* uint64_t words of such a bitmap. */
size_t guest_memory_bitmap_words(const struct guest_memory *mem, unsigned region);

/*
 * Put a copy-on-write view of a file in the place of a region's memory: its pages are read when
 * they are first touched. Before the region is anybody's; the file must not change afterwards.
 * Errors: what mmap(2) says.
 */
int guest_memory_map_file(struct guest_memory *mem, unsigned region, int fd, uint64_t offset,
                          struct error *err);
/* Likewise of some pages of a region: `bytes` from `start` on, over what is mapped there. */
int guest_memory_map_pages(struct guest_memory *mem, unsigned region, uint64_t start,
                           uint64_t bytes, int fd, uint64_t offset, struct error *err);
/*
 * The pages of such a region that were written since, as the file does not have them: a bit for
 * each, OR'ed to bitmap; perhaps more, never fewer. old_way: as before Linux 6.7, for tests.
 * Errors: -ENOTSUP, not such a region; what /proc/self/pagemap says. What of bitmap is set then
 * means nothing.
 */
int guest_memory_find_copies(const struct guest_memory *mem, unsigned region, bool old_way,
                             uint64_t *bitmap, struct error *err);

#endif
