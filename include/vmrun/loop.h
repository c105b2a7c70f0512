/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMRUN_LOOP_H
#define VMRUN_LOOP_H

#include <pthread.h>
#include <stdint.h>
#include <sys/epoll.h>

#include "vmrun/error.h"

/*
 * An event loop: epoll, timers, and calls posted from other threads.
 *
 * A loop belongs to the thread that runs it. Watches and timers are created
 * and destroyed on that thread, or while the loop does not run; only what says
 * "any thread" may be called from elsewhere. A callback that is given a lock
 * runs with it held: this is how the loop keeps the rule that whoever calls
 * into a device holds the device's lock. A callback may destroy its own watch
 * or timer and any other.
 */
struct loop;
struct loop_watch;
struct loop_timer;

typedef void loop_watch_fn(void *opaque, uint32_t events); /* EPOLL* bits */
typedef void loop_fn(void *opaque);

int loop_create(struct loop **ret_loop, struct error *err);
void loop_destroy(struct loop *loop); /* NULL is fine; its watches and timers must be gone */

/* Dispatch until loop_stop(). Errors: what epoll_wait(2) says. */
int loop_run(struct loop *loop, struct error *err);
void loop_stop(struct loop *loop); /* any thread; also before loop_run() */

/* Have fn(opaque) called once, soon, on the loop's thread, in order. Any thread. Errors: -ENOMEM.
 */
int loop_post(struct loop *loop, loop_fn *fn, void *opaque);

/*
 * Watch fd for EPOLLIN and EPOLLOUT (level-triggered, but with EPOLLET). lock may be NULL. fd stays
 * the caller's.
 * A hang-up is reported as long as it lasts, even where events are 0: to hear of it at most once,
 * and of nothing else, wait for EPOLLONESHOT alone.
 */
int loop_watch_create(struct loop *loop, int fd, uint32_t events, pthread_mutex_t *lock,
                      loop_watch_fn *fn, void *opaque, struct loop_watch **ret_watch,
                      struct error *err);
void loop_watch_set(struct loop_watch *watch, uint32_t events); /* any thread */
void loop_watch_destroy(struct loop_watch *watch);              /* NULL is fine */

/* A one-shot timer on CLOCK_MONOTONIC, not armed at first. lock may be NULL. */
int loop_timer_create(struct loop *loop, pthread_mutex_t *lock, loop_fn *fn, void *opaque,
                      struct loop_timer **ret_timer, struct error *err);
void loop_timer_arm(struct loop_timer *timer, uint64_t deadline_ns); /* any thread; 0 disarms */
void loop_timer_destroy(struct loop_timer *timer);                   /* NULL is fine */

/* CLOCK_MONOTONIC, ns. Any thread. */
uint64_t loop_now_ns(void);

#endif
