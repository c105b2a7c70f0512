/* SPDX-License-Identifier: Apache-2.0 */
/*
 * iothread: a loop and the thread that runs it.
 *
 * Calls from other threads wait in a list of their own, not among the loop's posted ones: they
 * lie on their callers' stacks, so that a call cannot fail.
 */
#include "vmrun/iothread.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "vmrun/thread.h"

struct call {
    loop_fn *fn;
    void *opaque;
    bool done;
    struct call *next;
};

struct iothread {
    struct loop *loop;
    pthread_t thread;
    bool running;
    int call_fd; /* eventfd: there are calls */
    struct loop_watch *watch;
    pthread_mutex_t lock; /* guards the list and each call's `done` */
    pthread_cond_t served;
    struct call *first, **last;
};

static void serve_calls(void *opaque, uint32_t events)
{
    struct iothread *t = opaque;
    uint64_t count;

    (void)events;
    if (read(t->call_fd, &count, sizeof(count)) < 0)
        assert(errno == EAGAIN);

    pthread_mutex_lock(&t->lock);
    while (t->first) {
        struct call *call = t->first;

        t->first = call->next;
        if (!t->first)
            t->last = &t->first;
        pthread_mutex_unlock(&t->lock);
        call->fn(call->opaque);
        pthread_mutex_lock(&t->lock);
        call->done = true; /* and with the lock let go it may be no more */
        pthread_cond_broadcast(&t->served);
    }
    pthread_mutex_unlock(&t->lock);
}

static void *run(void *opaque)
{
    struct iothread *t = opaque;
    struct error err;
    int r = loop_run(t->loop, &err);

    assert(r == 0);
    return NULL;
}

int iothread_create(const char *name, struct iothread **ret_thread, struct error *err)
{
    struct iothread *t = calloc(1, sizeof(*t));
    int r;

    if (!t)
        return error_set(err, ENOMEM, "thread '%s': out of memory", name);
    t->last = &t->first;
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->served, NULL);
    t->call_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (t->call_fd < 0) {
        r = error_errno(err, errno, "thread '%s'", name);
        goto fail;
    }
    r = loop_create(&t->loop, err);
    if (r < 0)
        goto fail;
    r = loop_watch_create(t->loop, t->call_fd, EPOLLIN, NULL, serve_calls, t, &t->watch, err);
    if (r < 0)
        goto fail;
    r = thread_start(&t->thread, name, 0, run, t, err);
    if (r < 0)
        goto fail;
    t->running = true;

    *ret_thread = t;
    return 0;

fail:
    iothread_destroy(t);
    return r;
}

void iothread_give_way(struct iothread *t, bool give_way)
{
    const struct sched_param none = {0};

    assert(pthread_equal(pthread_self(), t->thread));
    if (sched_getscheduler(0) == (give_way ? SCHED_OTHER : SCHED_BATCH))
        (void)sched_setscheduler(0, give_way ? SCHED_BATCH : SCHED_OTHER, &none);
}

void iothread_destroy(struct iothread *t)
{
    if (!t)
        return;
    if (t->running) {
        loop_stop(t->loop);
        pthread_join(t->thread, NULL);
    }
    assert(!t->first);
    loop_watch_destroy(t->watch);
    loop_destroy(t->loop);
    if (t->call_fd >= 0)
        close(t->call_fd);
    pthread_cond_destroy(&t->served);
    pthread_mutex_destroy(&t->lock);
    free(t);
}

struct loop *iothread_loop(struct iothread *t)
{
    return t->loop;
}

void iothread_call(struct iothread *t, loop_fn *fn, void *opaque)
{
    struct call call = {.fn = fn, .opaque = opaque};
    uint64_t one = 1;

    assert(!pthread_equal(pthread_self(), t->thread));
    pthread_mutex_lock(&t->lock);
    *t->last = &call;
    /* cppcheck-suppress autoVariables ; it is off the list when this returns */
    t->last = &call.next;
    /* EAGAIN means that the counter is full: the thread is woken already. */
    if (write(t->call_fd, &one, sizeof(one)) < 0)
        assert(errno == EAGAIN);
    while (!call.done)
        pthread_cond_wait(&t->served, &t->lock);
    pthread_mutex_unlock(&t->lock);
}
