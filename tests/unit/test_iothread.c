/* SPDX-License-Identifier: Apache-2.0 */
/* iothread: calls that are waited for, from any number of threads, on one loop's thread. */
#include "vmrun/iothread.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

#define CALLERS 4
#define CALLS 2000

static int setup(void **state)
{
    struct iothread *thread;
    struct error err;

    if (iothread_create("io test", &thread, &err) < 0)
        return -1;
    *state = thread;
    return 0;
}

static int teardown(void **state)
{
    iothread_destroy(*state);
    return 0;
}

struct seen {
    pthread_t thread;
    char name[16];
    sigset_t signals;
    bool done;
};

static void look(void *opaque)
{
    struct seen *seen = opaque;

    seen->thread = pthread_self();
    pthread_getname_np(seen->thread, seen->name, sizeof(seen->name));
    pthread_sigmask(SIG_SETMASK, NULL, &seen->signals);
    usleep(10000);
    seen->done = true;
}

static void a_call_runs_on_the_thread_and_is_over_when_it_returns(void **state)
{
    struct seen seen = {0}, again = {0};

    iothread_call(*state, look, &seen);
    assert_true(seen.done);
    assert_false(pthread_equal(seen.thread, pthread_self()));
    iothread_call(*state, look, &again);
    assert_true(pthread_equal(seen.thread, again.thread));
}

static void the_thread_has_its_name_and_no_signals(void **state)
{
    struct seen seen = {0};
    sigset_t mine;

    iothread_call(*state, look, &seen);
    assert_string_equal(seen.name, "io test");
    assert_true(sigismember(&seen.signals, SIGTERM));
    assert_true(sigismember(&seen.signals, SIGUSR1));
    pthread_sigmask(SIG_SETMASK, NULL, &mine);
    assert_false(sigismember(&mine, SIGTERM)); /* the creator keeps its own */
}

struct counter {
    struct iothread *thread;
    unsigned count; /* without a lock: only the thread touches it */
};

static void count(void *opaque)
{
    struct counter *c = opaque;

    c->count++;
}

static void *call_often(void *opaque)
{
    struct counter *c = opaque;

    for (unsigned i = 0; i < CALLS; i++)
        iothread_call(c->thread, count, c);
    return NULL;
}

static void calls_from_many_threads_run_one_at_a_time(void **state)
{
    struct counter c = {.thread = *state};
    pthread_t callers[CALLERS];

    for (unsigned i = 0; i < CALLERS; i++)
        assert_int_equal(pthread_create(&callers[i], NULL, call_often, &c), 0);
    for (unsigned i = 0; i < CALLERS; i++)
        pthread_join(callers[i], NULL);
    assert_int_equal(c.count, CALLERS * CALLS);
}

struct watched {
    struct loop *loop;
    struct loop_watch *watch;
    int fd, answer_fd;
    pthread_t thread;
    int result;
};

static void answer(void *opaque, uint32_t events)
{
    struct watched *w = opaque;
    uint64_t value;

    (void)events;
    if (read(w->fd, &value, sizeof(value)) != sizeof(value))
        return;
    w->thread = pthread_self();
    value++;
    w->result = write(w->answer_fd, &value, sizeof(value)) == sizeof(value) ? 0 : -1;
}

static void watch(void *opaque)
{
    struct watched *w = opaque;
    struct error err;

    w->result = loop_watch_create(w->loop, w->fd, EPOLLIN, NULL, answer, w, &w->watch, &err);
}

static void unwatch(void *opaque)
{
    struct watched *w = opaque;

    loop_watch_destroy(w->watch);
}

static void its_loop_serves_file_descriptors(void **state)
{
    struct watched w = {
        .loop = iothread_loop(*state), .fd = eventfd(0, EFD_NONBLOCK), .answer_fd = eventfd(0, 0)};
    struct seen seen = {0};
    uint64_t value = 41;

    iothread_call(*state, watch, &w);
    assert_int_equal(w.result, 0);
    assert_int_equal(write(w.fd, &value, sizeof(value)), sizeof(value));
    assert_int_equal(read(w.answer_fd, &value, sizeof(value)), sizeof(value)); /* blocks */
    assert_int_equal(value, 42);
    iothread_call(*state, unwatch, &w);
    iothread_call(*state, look, &seen);
    assert_true(pthread_equal(w.thread, seen.thread));
    close(w.fd);
    close(w.answer_fd);
}

static void a_thread_that_never_did_anything_goes_as_well(void **state)
{
    struct iothread *thread;
    struct error err;

    (void)state;
    for (unsigned i = 0; i < 100; i++) {
        assert_int_equal(iothread_create("short", &thread, &err), 0);
        iothread_destroy(thread);
    }
    iothread_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_call_runs_on_the_thread_and_is_over_when_it_returns,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(the_thread_has_its_name_and_no_signals, setup, teardown),
        cmocka_unit_test_setup_teardown(calls_from_many_threads_run_one_at_a_time, setup, teardown),
        cmocka_unit_test_setup_teardown(its_loop_serves_file_descriptors, setup, teardown),
        cmocka_unit_test(a_thread_that_never_did_anything_goes_as_well),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
