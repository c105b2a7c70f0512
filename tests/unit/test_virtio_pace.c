/* SPDX-License-Identifier: Apache-2.0 */
/* virtio_pace(): when a device's thread leaves the CPU to the one that rings. */
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "virtio_probe.h"

struct pace_bench {
    struct virtio_machine m;
    struct iothread *thread;
    struct virtio_probe *probe;
    /* A round: so many kicks, and what each finds when the thread takes the CPU, or gives way. */
    unsigned kicks, finds, finds_later;
    unsigned gave_way; /* of these kicks */
    int policy;        /* after them, or for other_policy() */
};

static int setup(void **state)
{
    static struct pace_bench b;
    struct error err = {.msg = ""};

    virtio_machine_init(&b.m, NULL);
    iothread_create("pace", &b.thread, &err);
    assert_string_equal(err.msg, "");
    b.probe = virtio_probe_create(&b.m, b.thread);
    *state = &b;
    return 0;
}

static int teardown(void **state)
{
    struct pace_bench *b = *state;

    device_destroy(&b->probe->vdev.pci.dev);
    iothread_destroy(b->thread);
    virtio_machine_fini(&b->m);
    return 0;
}

static void kick(void *opaque)
{
    struct pace_bench *b = opaque;

    b->gave_way = 0;
    for (unsigned i = 0; i < b->kicks; i++) {
        bool gives_way = sched_getscheduler(0) == SCHED_BATCH;

        b->gave_way += gives_way;
        virtio_pace(&b->probe->vdev, gives_way ? b->finds_later : b->finds);
    }
    b->policy = sched_getscheduler(0);
}

/* Returns how many of so many kicks were served after giving way. */
static unsigned play(struct pace_bench *b, unsigned kicks, unsigned finds, unsigned finds_later)
{
    b->kicks = kicks, b->finds = finds, b->finds_later = finds_later;
    iothread_call(b->thread, kick, b);
    return b->gave_way;
}

static void requests_that_come_alone_are_served_at_once_but_for_rare_trials(void **state)
{
    assert_in_range(play(*state, 10000, 1, 1), 8, 200);
}

static void where_giving_way_finds_several_it_stays_so(void **state)
{
    play(*state, 64, 1, 16);
    assert_int_equal(play(*state, 1000, 1, 16), 1000);
}

static void several_without_giving_way_are_no_reason_against_a_trial(void **state)
{
    assert_true(play(*state, 64, 16, 16) > 0);
}

static void when_they_come_alone_again_it_takes_the_cpu_again(void **state)
{
    struct pace_bench *b = *state;

    play(b, 1000, 1, 16);
    assert_int_equal(b->policy, SCHED_BATCH);
    assert_in_range(play(b, 1000, 1, 1), 8, 100);
    assert_true(play(b, 10000, 1, 16) > 8000); /* and it finds out when that has changed */
}

static void kicks_that_find_nothing_count_for_nothing(void **state)
{
    assert_int_equal(play(*state, 1000, 0, 0), 0);
}

static void become_idle(void *opaque)
{
    struct pace_bench *b = opaque;
    const struct sched_param none = {0};

    b->policy = sched_setscheduler(0, SCHED_IDLE, &none);
}

static void a_policy_that_the_operator_chose_stays(void **state)
{
    struct pace_bench *b = *state;

    iothread_call(b->thread, become_idle, b);
    assert_int_equal(b->policy, 0);
    play(b, 1000, 1, 16);
    assert_int_equal(b->policy, SCHED_IDLE);
}

static void a_device_without_a_thread_of_its_own_changes_nothing(void **state)
{
    struct virtio_bench *f;
    int before = sched_getscheduler(0);

    (void)state;
    virtio_bench_setup((void **)&f);
    for (unsigned i = 0; i < 1000; i++)
        virtio_pace(&f->probe->vdev, 16);
    assert_int_equal(sched_getscheduler(0), before);
    virtio_bench_teardown((void **)&f);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(requests_that_come_alone_are_served_at_once_but_for_rare_trials),
        TEST(where_giving_way_finds_several_it_stays_so),
        TEST(several_without_giving_way_are_no_reason_against_a_trial),
        TEST(when_they_come_alone_again_it_takes_the_cpu_again),
        TEST(kicks_that_find_nothing_count_for_nothing),
        TEST(a_policy_that_the_operator_chose_stays),
        cmocka_unit_test(a_device_without_a_thread_of_its_own_changes_nothing),
    };

    return cmocka_run_group_tests_name("virtio_pace", tests, NULL, NULL);
}
