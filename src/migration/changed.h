/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MIGRATION_CHANGED_H
#define MIGRATION_CHANGED_H

/*
 * What of RAM changed since an earlier snapshot, for a file that builds on it. There are quick ways
 * to know and one that is always there; all of them may name a page too many, and none too few.
 */
#include "rounds.h"
#include "vmrun/migration.h"
#include "vmrun/snapfile.h"

/* An open file, as somebody remembers it who has closed it. */
struct changed_mark {
    bool known;
    uint8_t id[SNAPFILE_ID_BYTES];
    uint64_t checksum; /* of its RAM */
};
void changed_remember(struct changed_mark *mark, const struct snapfile *file);
bool changed_is_mark(const struct changed_mark *mark, const struct snapfile *file);

struct changed {
    enum migration_found how;
    struct snapfile *base; /* its own; NULL: everything is to be saved */
    uint8_t *pieces;       /* of base, to compare with: one for each worker */
    bool comparing;        /* in the first round */
};
/* Errors: those of snapfile_open(); -EINVAL, a machine with other memory; -ENOMEM. */
int changed_open(struct changed *changed, const char *base, const struct guest_memory *memory,
                 unsigned workers, struct error *err);
void changed_close(struct changed *changed); /* zeros are fine */

/*
 * Before the first round: have the rounds owe what may have changed. how is what it can be known
 * by, and afterwards what it was. The log is on; for MIGRATION_BY_LOG since base was written.
 */
int changed_begin(struct changed *changed, struct rounds *rounds, const struct guest_memory *memory,
                  struct error *err);
/* In the first round: take out of the chunk's bits what is in base as it is here. */
int changed_compare(struct changed *changed, unsigned worker, const struct rounds_chunk *chunk,
                    uint64_t *bits, struct error *err);

#endif
