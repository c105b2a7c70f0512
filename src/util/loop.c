/* SPDX-License-Identifier: Apache-2.0 */
/*
 * loop: epoll, one timerfd a timer, and one eventfd that wakes it for posted
 * calls. The one thing to know: a callback may destroy any watch or timer, also
 * one whose event lies in the same batch; a destroyed watch is therefore only
 * marked, and freed when its batch is done.
 */
#include "vmrun/loop.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define BATCH 32

struct loop_watch {
    struct loop *loop;
    int fd;
    pthread_mutex_t *lock;
    loop_watch_fn *fn;
    void *opaque;
    bool dead;
    struct loop_watch *next_dead;
};

struct loop_timer {
    int fd;
    loop_fn *fn;
    void *opaque;
    struct loop_watch *watch;
};

struct posted {
    loop_fn *fn;
    void *opaque;
    struct posted *next;
};

struct loop {
    int epoll_fd, wake_fd;
    bool dispatching;
    struct loop_watch *dead; /* to be freed after the batch */
    struct loop_watch *wake;
    pthread_mutex_t lock; /* guards what other threads touch: */
    struct posted *first, **last;
    bool stop;
};

uint64_t loop_now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void wake_up(struct loop *loop)
{
    uint64_t one = 1;

    /* EAGAIN means that the counter is full: the loop is woken already. */
    if (write(loop->wake_fd, &one, sizeof(one)) < 0)
        assert(errno == EAGAIN);
}

static void run_posted(void *opaque, uint32_t events)
{
    struct loop *loop = opaque;
    uint64_t count;

    (void)events;
    if (read(loop->wake_fd, &count, sizeof(count)) < 0)
        assert(errno == EAGAIN);

    pthread_mutex_lock(&loop->lock);
    struct posted *list = loop->first;
    loop->first = NULL;
    loop->last = &loop->first;
    pthread_mutex_unlock(&loop->lock);

    while (list) {
        struct posted *next = list->next;

        list->fn(list->opaque);
        free(list);
        list = next;
    }
}

int loop_create(struct loop **ret_loop, struct error *err)
{
    struct loop *loop = calloc(1, sizeof(*loop));
    int r;

    if (!loop)
        return error_set(err, ENOMEM, "event loop: out of memory");
    loop->last = &loop->first;
    pthread_mutex_init(&loop->lock, NULL);
    loop->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (loop->epoll_fd < 0 || loop->wake_fd < 0) {
        r = error_errno(err, errno, "event loop");
        goto fail;
    }
    r = loop_watch_create(loop, loop->wake_fd, EPOLLIN, NULL, run_posted, loop, &loop->wake, err);
    if (r < 0)
        goto fail;
    *ret_loop = loop;
    return 0;

fail:
    loop_destroy(loop);
    return r;
}

static void free_dead(struct loop *loop)
{
    while (loop->dead) {
        struct loop_watch *next = loop->dead->next_dead;

        free(loop->dead);
        loop->dead = next;
    }
}

void loop_destroy(struct loop *loop)
{
    if (!loop)
        return;
    loop_watch_destroy(loop->wake);
    free_dead(loop);
    while (loop->first) {
        struct posted *next = loop->first->next;

        free(loop->first);
        loop->first = next;
    }
    if (loop->epoll_fd >= 0)
        close(loop->epoll_fd);
    if (loop->wake_fd >= 0)
        close(loop->wake_fd);
    pthread_mutex_destroy(&loop->lock);
    free(loop);
}

static bool is_stopped(struct loop *loop)
{
    pthread_mutex_lock(&loop->lock);
    bool stop = loop->stop;
    pthread_mutex_unlock(&loop->lock);
    return stop;
}

static void dispatch(struct loop_watch *watch, uint32_t events)
{
    pthread_mutex_t *lock = watch->lock;

    if (watch->dead)
        return; /* and its lock may be gone as well */
    if (lock)
        pthread_mutex_lock(lock);
    watch->fn(watch->opaque, events);
    if (lock)
        pthread_mutex_unlock(lock);
}

int loop_run(struct loop *loop, struct error *err)
{
    struct epoll_event events[BATCH];

    while (!is_stopped(loop)) {
        int n = epoll_wait(loop->epoll_fd, events, BATCH, -1);

        if (n < 0 && errno != EINTR)
            return error_errno(err, errno, "event loop");
        loop->dispatching = true;
        for (int i = 0; i < n; i++)
            dispatch(events[i].data.ptr, events[i].events);
        loop->dispatching = false;
        free_dead(loop);
    }
    pthread_mutex_lock(&loop->lock);
    loop->stop = false; /* so that it can be run again */
    pthread_mutex_unlock(&loop->lock);
    return 0;
}

void loop_stop(struct loop *loop)
{
    pthread_mutex_lock(&loop->lock);
    loop->stop = true;
    pthread_mutex_unlock(&loop->lock);
    wake_up(loop);
}

int loop_post(struct loop *loop, loop_fn *fn, void *opaque)
{
    struct posted *call = malloc(sizeof(*call));

    if (!call)
        return -ENOMEM;
    *call = (struct posted){.fn = fn, .opaque = opaque};
    pthread_mutex_lock(&loop->lock);
    *loop->last = call;
    loop->last = &call->next;
    pthread_mutex_unlock(&loop->lock);
    wake_up(loop);
    return 0;
}

int loop_watch_create(struct loop *loop, int fd, uint32_t events, pthread_mutex_t *lock,
                      loop_watch_fn *fn, void *opaque, struct loop_watch **ret_watch,
                      struct error *err)
{
    struct loop_watch *watch = malloc(sizeof(*watch));

    if (!watch)
        return error_set(err, ENOMEM, "event loop: out of memory");
    *watch = (struct loop_watch){.loop = loop, .fd = fd, .lock = lock, .fn = fn, .opaque = opaque};

    struct epoll_event event = {.events = events, .data.ptr = watch};
    if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0) {
        int r = error_errno(err, errno, "event loop: watch a file descriptor");

        free(watch);
        return r;
    }
    *ret_watch = watch;
    return 0;
}

void loop_watch_set(struct loop_watch *watch, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = watch};
    int r = epoll_ctl(watch->loop->epoll_fd, EPOLL_CTL_MOD, watch->fd, &event);

    assert(r == 0);
}

void loop_watch_destroy(struct loop_watch *watch)
{
    if (!watch)
        return;
    struct loop *loop = watch->loop;

    epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, watch->fd, NULL);
    watch->dead = true;
    watch->next_dead = loop->dead;
    loop->dead = watch;
    if (!loop->dispatching)
        free_dead(loop);
}

static void timer_expired(void *opaque, uint32_t events)
{
    struct loop_timer *timer = opaque;
    uint64_t count;

    (void)events;
    /* Nothing to read: it was disarmed or armed anew after the event was queued. */
    if (read(timer->fd, &count, sizeof(count)) == sizeof(count))
        timer->fn(timer->opaque);
}

int loop_timer_create(struct loop *loop, pthread_mutex_t *lock, loop_fn *fn, void *opaque,
                      struct loop_timer **ret_timer, struct error *err)
{
    struct loop_timer *timer = malloc(sizeof(*timer));
    int r;

    if (!timer)
        return error_set(err, ENOMEM, "event loop: out of memory");
    *timer = (struct loop_timer){.fn = fn, .opaque = opaque};
    timer->fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (timer->fd < 0) {
        r = error_errno(err, errno, "timer");
        goto fail;
    }
    r = loop_watch_create(loop, timer->fd, EPOLLIN, lock, timer_expired, timer, &timer->watch, err);
    if (r < 0)
        goto fail;
    *ret_timer = timer;
    return 0;

fail:
    loop_timer_destroy(timer);
    return r;
}

void loop_timer_arm(struct loop_timer *timer, uint64_t deadline_ns)
{
    struct itimerspec when = {.it_value = {.tv_sec = (time_t)(deadline_ns / 1000000000u),
                                           .tv_nsec = (long)(deadline_ns % 1000000000u)}};
    int r = timerfd_settime(timer->fd, TFD_TIMER_ABSTIME, &when, NULL);

    assert(r == 0);
}

void loop_timer_destroy(struct loop_timer *timer)
{
    if (!timer)
        return;
    loop_watch_destroy(timer->watch);
    if (timer->fd >= 0)
        close(timer->fd);
    free(timer);
}
