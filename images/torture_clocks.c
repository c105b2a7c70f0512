/* SPDX-License-Identifier: Apache-2.0 */
/* torture_clocks: timers that must not come early or be lost, and clocks that must not go back. */
#include "torture.h"

#include <poll.h>
#include <sched.h>
#include <stddef.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define LATE_NS 100000000u /* a timer that fires later than this is late */
#define SLACK_NS 1000000u  /* between two ways of the kernel to read one clock */
#define MOST_OVERDUE 1000  /* looks for a timer; the shortest one comes each 10 ms */

static const uint64_t wheel_ms[] = {10, 20, 30, 50, 110, 250, 1000, 7000};
#define TIMERS (sizeof(wheel_ms) / sizeof(wheel_ms[0]))

struct timer {
    int fd;
    uint64_t begin, period, ticks; /* ns, ns, how many so far */
    unsigned overdue;              /* how often it was looked for in vain */
};

static void timer_start(struct timer *t, uint64_t period)
{
    uint64_t first;

    *t = (struct timer){.begin = now_ns(CLOCK_MONOTONIC), .period = period};
    t->fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    first = t->begin + period;
    const struct itimerspec every = {
        .it_value = {(time_t)(first / 1000000000u), (long)(first % 1000000000u)},
        .it_interval = {(time_t)(period / 1000000000u), (long)(period % 1000000000u)}};
    if (t->fd < 0 || timerfd_settime(t->fd, TFD_TIMER_ABSTIME, &every, NULL) < 0)
        give_up("timer");
}

/* It may come late, and several ticks at once; none may come before its time or not at all. */
static void timer_take(struct timer *t)
{
    uint64_t before = now_ns(CLOCK_MONOTONIC), due = t->begin + (t->ticks + 1) * t->period, times;
    uint64_t after;

    if (read(t->fd, &times, sizeof(times)) != (ssize_t)sizeof(times)) {
        /* Just after time has moved on the interrupt may be still to come: looked at for a while.
         */
        t->overdue = before > due + LATE_NS ? t->overdue + 1 : 0;
        if (t->overdue < MOST_OVERDUE)
            return;
        wrong("timer of %llu ms: tick %llu does not come",
              (unsigned long long)(t->period / 1000000), (unsigned long long)t->ticks + 1);
        times = 1 + (before - due) / t->period; /* once is enough */
    }
    t->overdue = 0;
    t->ticks += times;
    count(&done.ticks, times);
    count(&done.missed, times - 1);
    if (before > due + LATE_NS)
        count(&done.late, 1);
    due = t->begin + t->ticks * t->period;
    after = now_ns(CLOCK_MONOTONIC);
    if (after + SLACK_NS < due)
        wrong("timer of %llu ms: tick %llu, of %llu at once, comes %llu us too early, on CPU %d; "
              "%llu us passed while it was read",
              (unsigned long long)(t->period / 1000000), (unsigned long long)t->ticks,
              (unsigned long long)times, (unsigned long long)(due - after) / 1000, sched_getcpu(),
              (unsigned long long)(after - before) / 1000);
    if (before > t->begin + (t->ticks + 1) * t->period + SLACK_NS)
        wrong("timer of %llu ms: ticks are lost, %llu so far",
              (unsigned long long)(t->period / 1000000), (unsigned long long)t->ticks);
}

static void *turn_wheel(void *opaque)
{
    struct timer timers[TIMERS];
    struct pollfd ready[TIMERS];

    (void)opaque;
    for (size_t i = 0; i < TIMERS; i++) {
        timer_start(&timers[i], wheel_ms[i] * 1000000);
        ready[i] = (struct pollfd){.fd = timers[i].fd, .events = POLLIN};
    }
    for (;;) {
        poll(ready, TIMERS, 1000);
        for (size_t i = 0; i < TIMERS; i++)
            timer_take(&timers[i]);
    }
    return NULL;
}

/* One for each clock, on whichever CPU the kernel likes: none may see another's time pass back. */
static void *watch_clock(void *opaque)
{
    static uint64_t last[16]; /* by clock, of all threads */
    clockid_t clock = (clockid_t)(intptr_t)opaque;

    for (unsigned look = 1;; look++) {
        uint64_t before = value(&last[clock]), now = now_ns(clock);

        if (now < before)
            wrong("clock %d went back by %llu ns", clock, (unsigned long long)(before - now));
        while (now > before && !__atomic_compare_exchange_n(&last[clock], &before, now, false,
                                                            __ATOMIC_RELAXED, __ATOMIC_RELAXED))
            ;
        if (clock == CLOCK_MONOTONIC && before && now > before &&
            now - before > value(&done.gap_ns))
            __atomic_store_n(&done.gap_ns, now - before, __ATOMIC_RELAXED);
        if (look % 16 == 0) /* many in a row: each sleep costs this machine exits */
            usleep(2000);
    }
    return NULL;
}

void start_clocks(void)
{
    start(turn_wheel, NULL);
    for (unsigned i = 0; i < 4; i++)
        start(watch_clock, (void *)(intptr_t)(i % 2 ? CLOCK_MONOTONIC : CLOCK_BOOTTIME));
}
