/* SPDX-License-Identifier: Apache-2.0 */
#ifndef FAKE_LOOP_H
#define FAKE_LOOP_H

/*
 * Time and timers under a test's hand.
 *
 * It stands in for loop_timer_*() and loop_now_ns() in a program that calls
 * fake_loop_init(). They are weak, so a program that creates real loops gets the
 * real ones. One fake loop at a time.
 */

#include <stdbool.h>

#include "vmrun/loop.h"

#define FAKE_LOOP_TIMERS 8

struct loop_timer {
    bool used;
    uint64_t deadline_ns; /* 0: not armed */
    pthread_mutex_t *lock;
    loop_fn *fn;
    void *opaque;
};

struct fake_loop {
    uint64_t now_ns;
    bool fails; /* loop_timer_create() does */
    struct loop_timer timers[FAKE_LOOP_TIMERS];
    unsigned fired; /* timers, in all */
};

struct loop *fake_loop_init(struct fake_loop *fake);

/* Let time pass; each timer that comes due fires at its deadline. */
void fake_loop_advance(struct fake_loop *fake, uint64_t ns);

unsigned fake_loop_timers(const struct fake_loop *fake); /* that exist */
unsigned fake_loop_armed(const struct fake_loop *fake);  /* of these */

#endif
