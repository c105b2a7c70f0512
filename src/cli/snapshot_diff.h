/* SPDX-License-Identifier: Apache-2.0 */
/* How the RAM of two snapshots differs: chunks by their checksums, in these the pages. */
#ifndef CLI_SNAPSHOT_DIFF_H
#define CLI_SNAPSHOT_DIFF_H

#include "snapshot.h"

struct ram_range {
    uint64_t start, end; /* guest addresses; end is the first one after it */
};

struct ram_diff {
    uint64_t chunks, pages;   /* that differ */
    uint64_t only[2];         /* bytes of RAM that the other machine has not, or cuts otherwise */
    struct ram_range *ranges; /* of pages that differ */
    size_t range_count, room;
    uint64_t ranges_left_out; /* there is an end to what is remembered */
};

/* diff is zeros before. Errors: -ENOMEM, those of snapfile_verify_chunk(). */
int ram_diff_compare(struct ram_diff *diff, const struct snapfile *const files[2],
                     struct error *err);
bool ram_diff_is_none(const struct ram_diff *diff);
json_t *ram_diff_json(const struct ram_diff *diff);
void ram_diff_print(const struct ram_diff *diff);
void ram_diff_fini(struct ram_diff *diff);

#endif
