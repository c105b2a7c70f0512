/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MIGRATION_ROUNDS_H
#define MIGRATION_ROUNDS_H

/*
 * A machine's RAM, copied elsewhere while the guest writes to it: into a file, or to another host.
 *
 * Each round copies what was written during the one before. Pages that are written in every round
 * are left out of them: they would only be copied again. One thread owns the rounds; with several
 * workers it is helped by others during a round.
 */
#include <stdbool.h>
#include <stdint.h>

#include "vmrun/error.h"
#include "vmrun/machine.h"

#define ROUNDS_CHUNK_PAGES 512u /* 2 MiB, as in a snapshot */
#define ROUNDS_CHUNK_WORDS (ROUNDS_CHUNK_PAGES / 64)
#define ROUNDS_MAX_WORKERS 16u

/* Some pages of 2 MiB of one region. */
struct rounds_chunk {
    unsigned region;
    uint64_t first;       /* page in the region; a multiple of ROUNDS_CHUNK_PAGES */
    unsigned pages;       /* that it has, fewer at the end of a region */
    const uint64_t *bits; /* ROUNDS_CHUNK_WORDS: those to copy */
    const uint8_t *host;  /* of the first page */
};

struct rounds_sink {
    /* Copy them. A chunk is always given to the same worker. */
    int (*put)(void *opaque, unsigned worker, const struct rounds_chunk *chunk, struct error *err);
    /* Between two chunks, on the thread that owns the rounds. An error ends the round. */
    int (*tick)(void *opaque, struct error *err);
    /* What was never put is zero there: in the first round pages that nobody ever touched need not
     * be put. */
    bool starts_zero;
};

/* One round, when it is over. */
struct rounds_round {
    uint64_t pages;    /* copied */
    uint64_t ns;       /* how long it took */
    uint64_t written;  /* pages that the guest has written meanwhile, as far as the log can tell */
    uint64_t owed;     /* pages that are yet to be copied */
    uint64_t deferred; /* of these, kept for the stop */
};

struct rounds;
/* The machine's log is on. Errors: -ENOMEM. */
int rounds_create(struct machine *machine, const struct rounds_sink *sink, void *opaque,
                  unsigned workers, struct rounds **ret_rounds, struct error *err);
void rounds_destroy(struct rounds *rounds); /* NULL is fine */

/* Everything is to be copied: the beginning. */
void rounds_owe_all(struct rounds *rounds);
/* Or: nothing is, but what is written from now on. Errors: KVM's. */
int rounds_forget(struct rounds *rounds, struct error *err);
/* These pages are to be copied, too. */
void rounds_owe(struct rounds *rounds, unsigned region, const uint64_t *bitmap);
/* Copy what is owed and not deferred; then see what was written. Errors: the sink's; KVM's. */
int rounds_copy(struct rounds *rounds, struct rounds_round *ret_round, struct error *err);
/*
 * Whether what is deferred is still written: forget who wrote it, look again after that time, and
 * let the others take part in the next round.
 */
int rounds_probe(struct rounds *rounds, uint64_t window_ns, struct error *err);

/* How many pages the guest writes in that time, from now on. */
int rounds_watch(struct rounds *rounds, uint64_t window_ns, uint64_t *ret_pages, struct error *err);

/* What to do after a round: a pure function of the rounds so far. Zeroed at first. */
struct rounds_plan {
    unsigned rounds, flat; /* flat: in a row, that shrank what is owed by less than a tenth */
    uint64_t least;        /* that was owed after one */
};
enum rounds_next { ROUNDS_COPY, ROUNDS_PROBE, ROUNDS_STOP };
enum rounds_next rounds_plan_next(struct rounds_plan *plan, const struct rounds_round *round);

/* For the stop. What was written since; while the machine is held, that is all. */
int rounds_harvest(struct rounds *rounds, struct error *err);
uint64_t rounds_owed(const struct rounds *rounds); /* pages, deferred ones included */
/* Copy all that is owed while nobody writes; the log is no longer needed. */
int rounds_copy_last(struct rounds *rounds, struct error *err);
/* The next run of owed pages of a region from *at on; false: none. */
bool rounds_next_owed(const struct rounds *rounds, unsigned region, uint64_t *at,
                      uint64_t *ret_length);
/* So far in the round that is under way, and in all. Any thread. */
uint64_t rounds_done_pages(const struct rounds *rounds);
uint64_t rounds_round_pages(const struct rounds *rounds);
uint64_t rounds_copied_pages(const struct rounds *rounds);

/* The next run of set bits in [*at, end); false: none. */
bool rounds_next_run(const uint64_t *bits, uint64_t *at, uint64_t end, uint64_t *ret_length);

#endif
