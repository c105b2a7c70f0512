/* SPDX-License-Identifier: Apache-2.0 */
/* fake_loop: a table of timers that the test fires; see the header for `weak`. */
#include "fake_loop.h"

#include <errno.h>
#include <time.h>

static struct fake_loop *current; /* loop_now_ns() names no loop */

struct loop *fake_loop_init(struct fake_loop *fake)
{
    *fake = (struct fake_loop){.now_ns = 1000};
    current = fake;
    return (struct loop *)fake;
}

static struct loop_timer *next_due(struct fake_loop *fake, uint64_t until_ns)
{
    struct loop_timer *due = NULL;

    for (unsigned i = 0; i < FAKE_LOOP_TIMERS; i++) {
        struct loop_timer *timer = &fake->timers[i];

        if (timer->used && timer->deadline_ns && timer->deadline_ns <= until_ns &&
            (!due || timer->deadline_ns < due->deadline_ns))
            due = timer;
    }
    return due;
}

void fake_loop_advance(struct fake_loop *fake, uint64_t ns)
{
    uint64_t until_ns = fake->now_ns + ns;
    struct loop_timer *timer;

    while ((timer = next_due(fake, until_ns)) != NULL) {
        if (timer->deadline_ns > fake->now_ns)
            fake->now_ns = timer->deadline_ns;
        timer->deadline_ns = 0;
        fake->fired++;
        if (timer->lock)
            pthread_mutex_lock(timer->lock);
        timer->fn(timer->opaque);
        if (timer->lock)
            pthread_mutex_unlock(timer->lock);
    }
    fake->now_ns = until_ns;
}

unsigned fake_loop_timers(const struct fake_loop *fake)
{
    unsigned count = 0;

    for (unsigned i = 0; i < FAKE_LOOP_TIMERS; i++)
        count += fake->timers[i].used;
    return count;
}

unsigned fake_loop_armed(const struct fake_loop *fake)
{
    unsigned count = 0;

    for (unsigned i = 0; i < FAKE_LOOP_TIMERS; i++)
        count += fake->timers[i].used && fake->timers[i].deadline_ns;
    return count;
}

__attribute__((weak)) uint64_t loop_now_ns(void)
{
    struct timespec ts;

    if (current)
        return current->now_ns;
    /* a program that wants just the time, of no loop at all */
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

__attribute__((weak)) int loop_timer_create(struct loop *loop, pthread_mutex_t *lock, loop_fn *fn,
                                            void *opaque, struct loop_timer **ret_timer,
                                            struct error *err)
{
    struct fake_loop *fake = (struct fake_loop *)loop;

    for (unsigned i = 0; !fake->fails && i < FAKE_LOOP_TIMERS; i++) {
        struct loop_timer *timer = &fake->timers[i];

        if (timer->used)
            continue;
        *timer = (struct loop_timer){.used = true, .lock = lock, .fn = fn, .opaque = opaque};
        *ret_timer = timer;
        return 0;
    }
    return error_set(err, EMFILE, "no timer, as the test wants it");
}

__attribute__((weak)) void loop_timer_arm(struct loop_timer *timer, uint64_t deadline_ns)
{
    timer->deadline_ns = deadline_ns;
}

__attribute__((weak)) void loop_timer_destroy(struct loop_timer *timer)
{
    if (timer)
        *timer = (struct loop_timer){0};
}
