/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMRUN_WORKING_SET_H
#define VMRUN_WORKING_SET_H

/*
 * The pages that a guest touches first when it goes on from a snapshot, in that order: an optional
 * section of the file (docs/snapshot-format.md). They are advice. A wrong one costs time, and what
 * a guest sees is the same with any.
 */
#include <stdatomic.h>

#include "vmrun/bytes.h"
#include "vmrun/error.h"
#include "vmrun/memory.h"
#include "vmrun/snapfile.h"

#define WORKING_SET_SECTION "working"
#define WORKING_SET_RUN_BYTES 8u
#define WORKING_SET_MAX_RUNS (UINT32_C(1) << 20)

struct working_run {
    uint64_t first; /* page, counted through all RAM: a region goes on where the last one ended */
    uint64_t pages; /* at least one; all of one region */
    bool written;   /* the guest wrote to them */
};

struct working_set {
    const uint8_t *section; /* the file's */
    size_t runs;
    uint64_t pages, written_pages;
};

/*
 * The file's working set, checked. It is valid while the file is open. Errors: -ENOENT, there is
 * none, and how to record one; -EPROTO, the section makes no sense.
 */
int working_set_find(const struct snapfile *file, struct working_set *ret_set, struct error *err);
/* index is below set->runs. */
struct working_run working_set_run(const struct working_set *set, size_t index);
/* Add to what is to be a section. */
void working_set_put(struct writer *section, const struct working_run *run);

/*
 * Read the pages and put them into the memory's page tables, in their order; those that the guest
 * writes to as copies of its own. memory is mapped from the file, and may be in use. What cannot
 * be had is left to whoever touches it. Returns when it is done, or soon after leave is set.
 */
void working_set_prefetch(const struct working_set *set, const struct guest_memory *memory,
                          const atomic_bool *leave);
/* Have its pages mapped one by one, so that a page says nothing of others. */
void working_set_keep_apart(const struct guest_memory *memory);

#endif
