/* SPDX-License-Identifier: Apache-2.0 */
/* thread: what a thread is born with. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "vmrun/thread.h"

struct birth {
    pthread_barrier_t named; /* its creator names it when it is born */
    char name[16];
    sigset_t blocked;
    size_t stack_bytes;
};

static void *look(void *opaque)
{
    struct birth *b = opaque;
    pthread_attr_t attr;

    pthread_barrier_wait(&b->named);
    pthread_getname_np(pthread_self(), b->name, sizeof(b->name));
    pthread_sigmask(SIG_SETMASK, NULL, &b->blocked);
    pthread_getattr_np(pthread_self(), &attr);
    pthread_attr_getstacksize(&attr, &b->stack_bytes);
    pthread_attr_destroy(&attr);
    return opaque;
}

static struct birth born(size_t stack_bytes)
{
    struct error err = {.msg = ""};
    struct birth b;
    pthread_t thread;
    void *result;

    pthread_barrier_init(&b.named, NULL, 2);
    thread_start(&thread, "fifteen letters", stack_bytes, look, &b, &err);
    assert_string_equal(err.msg, "");
    pthread_barrier_wait(&b.named);
    assert_int_equal(pthread_join(thread, &result), 0);
    assert_ptr_equal(result, &b);
    pthread_barrier_destroy(&b.named);
    return b;
}

static void it_has_its_name_and_its_stack(void **state)
{
    struct birth b = born(1 << 20);

    (void)state;
    assert_string_equal(b.name, "fifteen letters");
    assert_int_equal(b.stack_bytes, 1 << 20);
}

static void it_hears_of_failing_memory_and_of_no_other_signal(void **state)
{
    struct birth b = born(0);

    (void)state;
    assert_false(sigismember(&b.blocked, SIGBUS));
    assert_true(sigismember(&b.blocked, SIGINT));
    assert_true(sigismember(&b.blocked, SIGTERM));
    assert_true(sigismember(&b.blocked, SIGRTMIN));
}

static void its_creator_s_signals_stay_as_they_were(void **state)
{
    sigset_t before, after;

    (void)state;
    pthread_sigmask(SIG_SETMASK, NULL, &before);
    born(0);
    pthread_sigmask(SIG_SETMASK, NULL, &after);
    for (int s = 1; s < SIGRTMIN; s++)
        assert_int_equal(sigismember(&before, s), sigismember(&after, s));
}

static void a_thread_that_cannot_be_is_told_by_its_name(void **state)
{
    struct error err = {.msg = ""};
    pthread_t thread;

    (void)state;
    assert_true(thread_start(&thread, "giant", SIZE_MAX / 2 & ~(size_t)0xffff, look, NULL, &err) <
                0);
    assert_non_null(strstr(err.msg, "thread 'giant'"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_has_its_name_and_its_stack),
        cmocka_unit_test(it_hears_of_failing_memory_and_of_no_other_signal),
        cmocka_unit_test(its_creator_s_signals_stay_as_they_were),
        cmocka_unit_test(a_thread_that_cannot_be_is_told_by_its_name),
    };

    return cmocka_run_group_tests_name("thread", tests, NULL, NULL);
}
