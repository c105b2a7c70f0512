/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MODEL_WORLD_H
#define MODEL_WORLD_H

/*
 * Two processes, the lines between them, and a disk: all that matters of a move, in bytes, and the
 * steps that it may take. A side that is stopped takes none.
 */
#include <stdbool.h>
#include <stdint.h>

enum word { NO_WORD, WORD_STATE, WORD_COMMIT, WORD_READY, WORD_DONE, WORD_REFUSED };
enum holder { NOBODY, SOURCE, TARGET, STRANGER };
#define WORDS 3

struct line {
    uint8_t words[WORDS]; /* in their order */
    uint8_t cut;          /* what is sent from now on is lost */
};

/* What a side is about to do; it hears nothing meanwhile. */
enum task {
    IDLE,
    SET_STAMP,
    DROP_IMAGE,
    SEND_COMMIT,
    TRY_ARBITER,
    TRY_IMAGE,
    LOOK_AT_TIME,
    SET_TIME_ANEW,
    MARK_IMAGE,
    PROMISE,
    RUN,
    SEND_READY,
    SEND_DONE,
    DROP_ALL,
    SEND_REFUSED,
    END,
};

struct world {
    uint8_t source, target; /* states of handover.h */
    uint8_t source_task, target_task;
    uint8_t source_runs, target_runs;
    uint8_t source_dead, target_dead;   /* killed */
    uint8_t source_ended, target_ended; /* of itself */
    struct line to_target, to_source;
    uint8_t arbiter, image; /* their holders */
    uint8_t promised;       /* the arbiter's second byte: the target has all, and will run */
    uint8_t stamped;        /* the image's time is that of COMMIT */
    uint8_t written_by;     /* since COMMIT: bits 1 << holder */
    /* What has happened: a promise may depend on it. */
    uint8_t committed, resumed, asked, person;
    uint8_t target_promised, target_denied, target_began;
    uint8_t lost, stranger_took, lock_failed;
    uint8_t stale; /* who began to run with RAM that the disk, or the machine, had outlived */
};

/* One mistake each. */
enum mutation {
    NO_MUTATION,
    RESUMES_ON_TIMEOUT,
    ENDS_ON_TIMEOUT,
    LATE_CANCEL,
    GUESSES_WITHOUT_ARBITER,
    GIVES_ARBITER_BACK,
    DROPS_AT_STOP,
    STAMPS_AFTER_DROP,
    NO_LOOK_AT_SOURCE,
    NO_NEW_TIME,
    RUNS_BEFORE_LOCK,
    RUNS_ON_BREAK,
    GIVES_UP_TAKING,
    IMAGE_BEFORE_ARBITER,
    NO_ARBITER_AT_TARGET,
    NO_LOOK_AT_TARGET,
    NO_MARK_BY_TARGET,
    NO_PROMISE,
};
extern enum mutation mutation;
extern bool with_arbiter;

/* Lines and locks. */
void say(struct world *w, struct line *line, enum word word);
enum word hear(struct line *line);
void drop_locks(struct world *w, enum holder holder);

/* Steps: opaque is a struct world; false: not possible now. */
bool source_works(void *opaque);
bool source_sends_all(void *opaque);
bool source_hears(void *opaque);
bool source_waits_in_vain(void *opaque);
bool source_is_cancelled(void *opaque);
bool source_cannot_ask(void *opaque);
bool source_writes(void *opaque);
bool source_is_killed(void *opaque);
bool person_resumes(void *opaque);
bool person_kills(void *opaque);
bool target_works(void *opaque);
bool target_hears(void *opaque);
bool target_waits_in_vain(void *opaque);
bool target_fails(void *opaque);
bool target_cannot_ask(void *opaque);
bool target_writes(void *opaque);
bool target_is_killed(void *opaque);

#endif
