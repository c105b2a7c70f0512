/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MOVING_H
#define MOVING_H

/*
 * Two machines that are fakes, in one process: a source, whose guest writes whenever the log is
 * read, and a target, which is built of what comes. Only programs that are to have them instead of
 * the real ones are linked with moving.c.
 */
#include <stdatomic.h>

#include "fake_guest.h"
#include "vmrun/machine.h"
#include "vmrun/migration.h"

#define MOVING_MIB (UINT64_C(1) << 20)
#define MOVING_LOW (4 * MOVING_MIB)
#define MOVING_SIZE (6 * MOVING_MIB + 64 * 4096) /* the upper region's chunks do not fill it */
#define MOVING_REHEARSALS 3u                     /* at least */
#define MOVING_SLOW_NS 400000000
#define MOVING_PAGES (MOVING_SIZE / GUEST_PAGE_SIZE)

/* What is asked of the machines, in the order of a move that goes well. */
enum moving_step {
    MOVING_NOTHING,
    MOVING_MARK,
    MOVING_DESCRIBE,
    MOVING_CPUID,
    MOVING_CREATE, /* target */
    MOVING_SHARED, /* target */
    MOVING_HARVEST,
    MOVING_REHEARSE_SYNC,
    MOVING_REHEARSE_HOLD,
    MOVING_REHEARSE_SAVE,
    MOVING_REHEARSE_LOAD, /* target */
    MOVING_HOLD,
    MOVING_SYNC,
    MOVING_SAVE,
    MOVING_LOAD, /* target */
    MOVING_OFFER,
    MOVING_TAKE, /* target */
    MOVING_STEPS
};

/* Fails at that step, with these words: "mark: told to". */
const char *moving_step_name(enum moving_step step);

struct machine {
    struct fake_guest guest;
    enum machine_state state;
    struct loop *loop; /* stopped when it has ended */
    bool held, killed, marked, offered, has_disks, told_moved, stopped;
    unsigned harvests, saves, loads, throttles, asked;
    unsigned throttle, most_throttle;
    /* How many pages the guest writes before the log is read for the nth time, from 1. */
    unsigned (*writes)(const struct machine *m, unsigned n);
    unsigned writes_at_hold;
    uint8_t *said; /* on its console */
    size_t said_len, said_in_stop;
    char loaded[32], words[sizeof(((struct error *)0)->msg)];
    uint64_t times, advanced_ns;
    uint8_t session[HANDOVER_SESSION_BYTES];
    enum machine_leaving leaving;
    bool other_memory; /* what is built has another layout */
};

extern struct moving {
    struct machine source, *target; /* the target: once it is built */
    struct loop *loop;
    struct migration *migration;
    struct migration_report report;
    unsigned ended;

    enum moving_step step; /* at which it fails or acts */
    bool fails;
    void (*act)(void); /* on whichever thread */
    enum block_handover_answer answer;
    bool taking;         /* the arbiter says that the target has not yet got all */
    unsigned slow_loads; /* bit n: load n of a state takes MOVING_SLOW_NS */

    struct receive *receive;
    bool other_memory;
    pthread_t thread; /* the target's */
    int taken;        /* what its steps returned in the end */
    struct error taken_err;
} moving;

/* cmocka's, of each test. */
int moving_setup(void **state);
int moving_teardown(void **state);

void moving_say(struct machine *m, const void *text, size_t len);
/* Listens; the thread that receives is started by moving_receive(). */
void moving_listen(void);
void moving_receive(void);
/* Waits for it: its outcome is in taken and taken_err. */
void moving_join(void);
/* Begin to move to url, run the loop to the end. */
void moving_move(const char *url, const struct migration_move *params);
/* All of it. params may be NULL. */
void moving_run(const struct migration_move *params);
/* The source is as it was: it runs, and nothing is left held, logged, throttled or marked. */
void moving_expect_here(const char *words);
/* It is gone, and the target has all of it. */
void moving_expect_there(void);

#endif
