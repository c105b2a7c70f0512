/* SPDX-License-Identifier: Apache-2.0 */
/* loop: events, timers and posted calls, above all when they destroy one another. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "vmrun/loop.h"

#define MS UINT64_C(1000000)

static struct fixture {
    struct loop *loop;
    struct error err;
    struct loop_watch *watches[2];
    struct loop_timer *timers[2];
    struct loop_timer *end; /* stops the loop */
    unsigned calls;
    unsigned order[8];
} f;

static int setup(void **state)
{
    (void)state;
    memset(&f, 0, sizeof(f));
    return loop_create(&f.loop, &f.err);
}

static int teardown(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        loop_watch_destroy(f.watches[i]);
        loop_timer_destroy(f.timers[i]);
    }
    loop_timer_destroy(f.end);
    loop_destroy(f.loop);
    return 0;
}

static void run(void)
{
    assert_int_equal(loop_run(f.loop, &f.err), 0);
}

static void stop(void *opaque)
{
    (void)opaque;
    loop_stop(f.loop);
}

static void run_for(uint64_t ms)
{
    if (!f.end)
        assert_int_equal(loop_timer_create(f.loop, NULL, stop, NULL, &f.end, &f.err), 0);
    loop_timer_arm(f.end, loop_now_ns() + ms * MS);
    run();
}

static void sleep_ms(unsigned ms)
{
    nanosleep(&(struct timespec){.tv_nsec = (long)(ms * MS)}, NULL);
}

static void note(void *opaque)
{
    f.order[f.calls++ % 8] = (unsigned)(uintptr_t)opaque;
}

static void posted_calls_run_once_and_in_order(void **state)
{
    (void)state;
    for (uintptr_t i = 1; i <= 5; i++)
        assert_int_equal(loop_post(f.loop, note, (void *)i), 0);
    run_for(20);
    assert_int_equal(f.calls, 5);
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(f.order[i], i + 1);
}

static void post_again(void *opaque)
{
    (void)opaque;
    if (++f.calls < 100)
        loop_post(f.loop, post_again, NULL);
    else
        loop_stop(f.loop);
}

static void a_posted_call_may_post(void **state)
{
    (void)state;
    loop_post(f.loop, post_again, NULL);
    run();
    assert_int_equal(f.calls, 100);
}

static void count_to_2000(void *opaque)
{
    (void)opaque;
    if (++f.calls == 2000)
        loop_stop(f.loop);
}

static void *post_1000(void *opaque)
{
    (void)opaque;
    for (unsigned i = 0; i < 1000; i++)
        if (loop_post(f.loop, count_to_2000, NULL) < 0)
            return &f;
    return NULL;
}

static void calls_posted_by_other_threads_all_arrive(void **state)
{
    pthread_t threads[2];
    void *bad;

    (void)state;
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, post_1000, NULL), 0);
    run();
    assert_int_equal(f.calls, 2000);
    for (unsigned i = 0; i < 2; i++) {
        pthread_join(threads[i], &bad);
        assert_null(bad);
    }
}

static void calls_that_nobody_waited_for_are_dropped_with_the_loop(void **state)
{
    (void)state;
    assert_int_equal(loop_post(f.loop, note, NULL), 0);
    loop_destroy(f.loop);
    f.loop = NULL;
    assert_int_equal(f.calls, 0);
}

static void a_loop_that_is_stopped_before_it_runs_returns_and_can_run_again(void **state)
{
    (void)state;
    loop_stop(f.loop);
    run();
    loop_post(f.loop, note, (void *)1);
    loop_post(f.loop, stop, NULL);
    run();
    assert_int_equal(f.calls, 1);
}

static struct loop_timer *timer(unsigned i, loop_fn *fn, pthread_mutex_t *lock)
{
    assert_int_equal(
        loop_timer_create(f.loop, lock, fn, (void *)(uintptr_t)i, &f.timers[i], &f.err), 0);
    return f.timers[i];
}

static void a_timer_fires_once_and_not_before_its_deadline(void **state)
{
    uint64_t deadline = loop_now_ns() + 200 * MS;

    (void)state;
    loop_timer_arm(timer(0, note, NULL), deadline);
    run_for(10);
    assert_int_equal(f.calls, 0);
    run_for(400);
    assert_int_equal(f.calls, 1);
    assert_true(loop_now_ns() >= deadline);
    run_for(20);
    assert_int_equal(f.calls, 1);
}

static void a_deadline_in_the_past_fires_at_once(void **state)
{
    (void)state;
    loop_timer_arm(timer(0, note, NULL), 1);
    run_for(20);
    assert_int_equal(f.calls, 1);
}

static void a_deadline_that_never_comes_is_taken(void **state)
{
    (void)state;
    loop_timer_arm(timer(0, note, NULL), UINT64_MAX);
    run_for(10);
    assert_int_equal(f.calls, 0);
}

static void a_timer_that_is_disarmed_does_not_fire(void **state)
{
    (void)state;
    loop_timer_arm(timer(0, note, NULL), loop_now_ns() + 5 * MS);
    loop_timer_arm(f.timers[0], 0);
    run_for(20);
    assert_int_equal(f.calls, 0);
}

static void disarm_other(void *opaque)
{
    unsigned other = opaque ? 0 : 1;

    f.calls++;
    loop_timer_arm(f.timers[other], 0);
}

static void destroy_both(void *opaque)
{
    (void)opaque;
    f.calls++;
    for (unsigned i = 0; i < 2; i++) {
        loop_timer_destroy(f.timers[i]);
        f.timers[i] = NULL;
    }
}

static void of_two_timers_in_one_batch(loop_fn *fn)
{
    for (unsigned i = 0; i < 2; i++)
        loop_timer_arm(timer(i, fn, NULL), 1);
    sleep_ms(5);
    run_for(20);
    assert_int_equal(f.calls, 1);
}

static void a_timer_may_disarm_one_that_expired_with_it(void **state)
{
    (void)state;
    of_two_timers_in_one_batch(disarm_other);
}

static void a_timer_may_destroy_itself_and_one_that_expired_with_it(void **state)
{
    (void)state;
    of_two_timers_in_one_batch(destroy_both);
}

static void *arm_now(void *opaque)
{
    sleep_ms(10);
    loop_timer_arm(opaque, loop_now_ns());
    return NULL;
}

static void a_timer_may_be_armed_by_another_thread(void **state)
{
    pthread_t thread;

    (void)state;
    assert_int_equal(pthread_create(&thread, NULL, arm_now, timer(0, stop, NULL)), 0);
    run();
    pthread_join(thread, NULL);
}

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void *try_lock(void *opaque)
{
    int *result = opaque;

    *result = pthread_mutex_trylock(&lock);
    if (*result == 0)
        pthread_mutex_unlock(&lock);
    return NULL;
}

static int lock_as_others_see_it(void)
{
    pthread_t thread;
    int result = -1;

    pthread_create(&thread, NULL, try_lock, &result);
    pthread_join(thread, NULL);
    return result;
}

static void note_lock(void *opaque)
{
    (void)opaque;
    f.order[f.calls++] = (unsigned)lock_as_others_see_it();
}

static void a_callback_runs_with_its_lock_held_and_only_then(void **state)
{
    (void)state;
    loop_timer_arm(timer(0, note_lock, &lock), 1);
    run_for(20);
    loop_timer_arm(timer(1, note_lock, NULL), 1);
    run_for(20);
    assert_int_equal(f.calls, 2);
    assert_int_equal(f.order[0], EBUSY);
    assert_int_equal(f.order[1], 0);
}

static void watch(unsigned i, int fd, uint32_t events, loop_watch_fn *fn)
{
    assert_int_equal(loop_watch_create(f.loop, fd, events, NULL, fn, (void *)(uintptr_t)i,
                                       &f.watches[i], &f.err),
                     0);
}

static void note_event(void *opaque, uint32_t events)
{
    (void)opaque;
    f.order[f.calls++ % 8] = events;
    if (f.calls == 100)
        loop_stop(f.loop);
}

static void a_watch_is_level_triggered_and_hears_what_it_asked_for(void **state)
{
    int fd = eventfd(1, EFD_CLOEXEC);

    (void)state;
    watch(0, fd, EPOLLIN, note_event);
    run();
    assert_int_equal(f.calls, 100);
    assert_int_equal(f.order[0], EPOLLIN);
    loop_watch_set(f.watches[0], EPOLLOUT);
    f.calls = 99;
    run();
    assert_int_equal(f.order[99 % 8], EPOLLOUT);
    loop_watch_set(f.watches[0], 0);
    f.calls = 0;
    run_for(10);
    assert_int_equal(f.calls, 0);
    close(fd);
}

static void a_hang_up_is_heard_once_by_who_waits_for_nothing_else(void **state)
{
    int ends[2];

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    watch(0, ends[0], EPOLLONESHOT, note_event);
    assert_int_equal(write(ends[1], "x", 1), 1);
    run_for(10);
    assert_int_equal(f.calls, 0);
    close(ends[1]);
    run_for(20);
    assert_int_equal(f.calls, 1);
    loop_watch_set(f.watches[0], EPOLLIN);
    run();
    assert_int_equal(f.calls, 100);
    close(ends[0]);
}

static void destroy_watches(void *opaque, uint32_t events)
{
    (void)opaque;
    (void)events;
    f.calls++;
    for (unsigned i = 0; i < 2; i++) {
        loop_watch_destroy(f.watches[i]);
        f.watches[i] = NULL;
    }
}

static void a_watch_may_destroy_itself_and_one_whose_event_came_with_its_own(void **state)
{
    int fds[2] = {eventfd(1, EFD_CLOEXEC), eventfd(1, EFD_CLOEXEC)};

    (void)state;
    watch(0, fds[0], EPOLLIN, destroy_watches);
    watch(1, fds[1], EPOLLIN, destroy_watches);
    run_for(20);
    assert_int_equal(f.calls, 1);
    close(fds[0]);
    close(fds[1]);
}

static void a_descriptor_that_cannot_be_watched_is_refused(void **state)
{
    struct loop_watch *none = NULL;
    FILE *file = tmpfile();

    (void)state;
    assert_int_equal(
        loop_watch_create(f.loop, fileno(file), EPOLLIN, NULL, note_event, NULL, &none, &f.err),
        -EPERM);
    assert_int_equal(loop_watch_create(f.loop, -1, EPOLLIN, NULL, note_event, NULL, &none, &f.err),
                     -EBADF);
    assert_null(none);
    fclose(file);
}

static void no_descriptor_is_left_behind(void **state)
{
    int before = dup(0);
    struct loop *loop;
    struct loop_timer *one;

    (void)state;
    close(before);
    assert_int_equal(loop_create(&loop, &f.err), 0);
    assert_int_equal(loop_timer_create(loop, NULL, note, NULL, &one, &f.err), 0);
    loop_timer_destroy(one);
    loop_destroy(loop);
    loop_destroy(NULL);
    loop_timer_destroy(NULL);
    loop_watch_destroy(NULL);
    int after = dup(0);
    close(after);
    assert_int_equal(after, before);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(posted_calls_run_once_and_in_order),
        TEST(a_posted_call_may_post),
        TEST(calls_posted_by_other_threads_all_arrive),
        TEST(calls_that_nobody_waited_for_are_dropped_with_the_loop),
        TEST(a_loop_that_is_stopped_before_it_runs_returns_and_can_run_again),
        TEST(a_timer_fires_once_and_not_before_its_deadline),
        TEST(a_deadline_in_the_past_fires_at_once),
        TEST(a_deadline_that_never_comes_is_taken),
        TEST(a_timer_that_is_disarmed_does_not_fire),
        TEST(a_timer_may_disarm_one_that_expired_with_it),
        TEST(a_timer_may_destroy_itself_and_one_that_expired_with_it),
        TEST(a_timer_may_be_armed_by_another_thread),
        TEST(a_callback_runs_with_its_lock_held_and_only_then),
        TEST(a_watch_is_level_triggered_and_hears_what_it_asked_for),
        TEST(a_hang_up_is_heard_once_by_who_waits_for_nothing_else),
        TEST(a_watch_may_destroy_itself_and_one_whose_event_came_with_its_own),
        TEST(a_descriptor_that_cannot_be_watched_is_refused),
        TEST(no_descriptor_is_left_behind),
    };
    return cmocka_run_group_tests_name("loop", tests, NULL, NULL);
}
