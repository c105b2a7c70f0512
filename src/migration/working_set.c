/* SPDX-License-Identifier: Apache-2.0 */
/*
 * working_set: the section "working", and fetching what it names.
 *
 * Fetching runs in two steps a few MiB apart: pages are asked for, so that the disk has many
 * requests at a time, and put into the page tables when their turn comes. Both are calls that can
 * fail and never signals: a file that was cut off is met by whoever needs the page.
 */
#include "vmrun/working_set.h"

#include <errno.h>
#include <sys/mman.h>

#include "snapfile_format.h"
#include "vmrun/log.h"
#include "vmrun/loop.h"

#define WRITTEN (UINT32_C(1) << 31)
#define PIECE_PAGES UINT64_C(256)
#define AHEAD_PAGES UINT64_C(2048)

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif

/* The section */

void working_set_put(struct writer *section, const struct working_run *run)
{
    put_uint(section, run->first, 4);
    put_uint(section, run->pages | (run->written ? WRITTEN : 0), 4);
}

struct working_run working_set_run(const struct working_set *set, size_t index)
{
    const uint8_t *at = set->section + index * WORKING_SET_RUN_BYTES;
    uint64_t word = snapfile_get_le(at + 4, 4);

    return (struct working_run){
        .first = snapfile_get_le(at, 4), .pages = word & ~WRITTEN, .written = word & WRITTEN};
}

static bool lies_in_a_region(const struct working_run *run, const struct snapfile_region *regions,
                             unsigned count)
{
    uint64_t first = run->first;

    for (unsigned i = 0; i < count; i++) {
        uint64_t pages = regions[i].size / SNAPFILE_PAGE;

        if (first < pages)
            return run->pages >= 1 && run->pages <= pages - first;
        first -= pages;
    }
    return false;
}

static int check_runs(struct working_set *set, const struct snapfile *file, struct error *err)
{
    const struct snapfile_region *regions;
    unsigned count = snapfile_regions(file, &regions);
    uint64_t all = 0;

    for (unsigned i = 0; i < count; i++)
        all += regions[i].size / SNAPFILE_PAGE;
    for (size_t i = 0; i < set->runs; i++) {
        struct working_run run = working_set_run(set, i);

        if (!lies_in_a_region(&run, regions, count))
            return error_set(err, EPROTO,
                             "section '" WORKING_SET_SECTION "': run %zu is not in RAM", i);
        set->pages += run.pages;
        set->written_pages += run.written ? run.pages : 0;
        if (set->pages > all)
            return error_set(err, EPROTO,
                             "section '" WORKING_SET_SECTION "': more pages than RAM has");
    }
    return 0;
}

int working_set_find(const struct snapfile *file, struct working_set *ret_set, struct error *err)
{
    struct working_set set = {0};
    size_t len;
    int r;

    set.section = snapfile_section(file, WORKING_SET_SECTION, &len);
    if (!set.section)
        return error_set(err, ENOENT,
                         "no working set was recorded in it; 'vmrun restore --record' does that");
    set.runs = len / WORKING_SET_RUN_BYTES;
    if (set.runs == 0 || len % WORKING_SET_RUN_BYTES || set.runs > WORKING_SET_MAX_RUNS)
        return error_set(err, EPROTO, "section '" WORKING_SET_SECTION "': has the wrong size");
    r = check_runs(&set, file, err);
    if (r == 0)
        *ret_set = set;
    return r;
}

/* Fetching */

/* A place in the order, and what comes there. */
struct cursor {
    const struct working_set *set;
    const struct guest_memory *memory;
    size_t run;
    uint64_t done;  /* pages of that run */
    uint64_t total; /* pages */
    void *host;
    uint64_t pages;
    bool written;
};

static void *host_of(const struct guest_memory *memory, uint64_t page)
{
    for (unsigned i = 0; i < memory->count; i++) {
        uint64_t pages = memory->regions[i].size / GUEST_PAGE_SIZE;

        if (page < pages)
            return memory->regions[i].host + page * GUEST_PAGE_SIZE;
        page -= pages;
    }
    return NULL;
}

static bool next_piece(struct cursor *c)
{
    if (c->run >= c->set->runs)
        return false;
    struct working_run run = working_set_run(c->set, c->run);
    uint64_t left = run.pages - c->done;

    c->host = host_of(c->memory, run.first + c->done);
    c->pages = left < PIECE_PAGES ? left : PIECE_PAGES;
    c->written = run.written;
    c->done += c->pages;
    c->total += c->pages;
    if (c->done == run.pages) {
        c->run++;
        c->done = 0;
    }
    return c->host;
}

/*
 * The kernel may map 2 MiB of a file at once, and has to unmap them when one of the pages becomes a
 * copy: all that was fetched there would be faulted in again.
 */
void working_set_keep_apart(const struct guest_memory *memory)
{
    for (unsigned i = 0; i < memory->count; i++)
        (void)madvise(memory->regions[i].host, memory->regions[i].size, MADV_NOHUGEPAGE);
}

void working_set_prefetch(const struct working_set *set, const struct guest_memory *memory,
                          const atomic_bool *leave)
{
    struct cursor asked = {.set = set, .memory = memory}, got = asked;
    uint64_t start = loop_now_ns();

    working_set_keep_apart(memory);
    while (!atomic_load(leave) && next_piece(&got)) {
        while (asked.total < got.total + AHEAD_PAGES && next_piece(&asked))
            (void)madvise(asked.host, asked.pages * GUEST_PAGE_SIZE, MADV_WILLNEED);
        (void)madvise(got.host, got.pages * GUEST_PAGE_SIZE,
                      got.written ? MADV_POPULATE_WRITE : MADV_POPULATE_READ);
    }
    log_debug(
        "prefetch: %.1f of %.1f MiB in %.1f ms", (double)(got.total * GUEST_PAGE_SIZE) / (1 << 20),
        (double)(set->pages * GUEST_PAGE_SIZE) / (1 << 20), (double)(loop_now_ns() - start) / 1e6);
}
