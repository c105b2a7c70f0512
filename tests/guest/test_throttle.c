/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A throttled vCPU works for its part of the time and stops as promptly as any. What is asserted
 * holds on a busy host as well: a vCPU that others hold up works less, never more.
 */
#include "guest.h"

#include <stdlib.h>
#include <time.h>

#include "../../src/kvm/internal.h"

#define COUNTER_GPA 0x90000
#define MS UINT64_C(1000000)

static uint64_t now_ns(clockid_t clock)
{
    struct timespec now;

    assert_int_equal(clock_gettime(clock, &now), 0);
    return (uint64_t)now.tv_sec * 1000 * MS + (uint64_t)now.tv_nsec;
}

static void sleep_ms(long ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
}

static void throttle(struct guest *g, unsigned percent)
{
    struct error err;

    if (kvm_vm_throttle(g->vm, percent, &err) < 0)
        fail_msg("%s", err.msg);
}

static uint64_t work(struct guest *g)
{
    uint64_t count;

    assert_int_equal(guest_memory_read(g->memory, COUNTER_GPA, &count, sizeof(count)), 0);
    return count;
}

struct share {
    double cpu;  /* of the time, that its thread had a CPU */
    double work; /* a second */
};

static struct share measure(struct guest *g, unsigned percent)
{
    clockid_t cpu = g->vm->vcpus[0]->cpu_clock;

    throttle(g, percent);
    sleep_ms(percent ? 300 : 50); /* the rest of what began before */
    uint64_t wall = now_ns(CLOCK_MONOTONIC), used = now_ns(cpu), count = work(g);

    sleep_ms(1000);
    count = work(g) - count;
    used = now_ns(cpu) - used;
    wall = now_ns(CLOCK_MONOTONIC) - wall;
    struct share share = {.cpu = (double)used / (double)wall,
                          .work = (double)count * 1e9 / (double)wall};

    print_message("throttled by %2u %%: %5.1f %% of a CPU, %.1f million counts a second\n", percent,
                  share.cpu * 100, share.work / 1e6);
    return share;
}

static void it_works_for_its_part_of_the_time(void **state)
{
    static const unsigned percents[] = {50, 90, 99};
    struct share full, part;
    struct guest g;

    (void)state;
    guest_create(&g, "work", 1, false);
    kvm_vm_resume(g.vm);
    guest_wait_accesses(&g, 1);
    for (unsigned i = 0; i < 3; i++) {
        full = measure(&g, 0);
        part = measure(&g, percents[i]);
        /* A second is few slices, and a timer may tick every 10 ms only. */
        assert_true(part.cpu < (100 - percents[i]) / 100.0 + 0.06);
        assert_true(part.work > 0);
        assert_true(part.work < full.work || full.cpu < 0.6); /* it was held up itself */
    }
    guest_destroy(&g);
}

static uint64_t interruptions(struct guest *g)
{
    uint64_t counts[KVM_EXIT_KINDS];

    kvm_vm_exit_counts(g->vm, counts);
    return counts[KVM_EXIT_KIND_INTERRUPTED];
}

static void without_a_throttle_nothing_disturbs_it(void **state)
{
    struct guest g;

    (void)state;
    guest_create(&g, "work", 1, false);
    kvm_vm_resume(g.vm);
    guest_wait_accesses(&g, 1);
    throttle(&g, 50);
    for (unsigned i = 0; i < 1000 && interruptions(&g) == 0; i++)
        sleep_ms(10);
    assert_true(interruptions(&g) > 0);
    throttle(&g, 0);
    sleep_ms(50); /* one may be on its way */
    uint64_t before = interruptions(&g);

    sleep_ms(300);
    assert_int_equal(interruptions(&g), before);
    guest_destroy(&g);
}

static int by_size(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;

    return *x < *y ? -1 : *x > *y;
}

/* One that rests does so for up to 990 ms. */
static void a_pause_and_a_change_wait_for_nobody_who_rests(void **state)
{
    uint64_t pauses[15], changes[15];
    struct guest g;

    (void)state;
    guest_create(&g, "work", 2, false);
    kvm_vm_resume(g.vm);
    guest_wait_accesses(&g, 1);
    for (unsigned i = 0; i < 15; i++) {
        throttle(&g, 99);
        sleep_ms(60);
        pauses[i] = now_ns(CLOCK_MONOTONIC);
        kvm_vm_pause(g.vm);
        pauses[i] = now_ns(CLOCK_MONOTONIC) - pauses[i];
        kvm_vm_resume(g.vm);

        sleep_ms(60);
        changes[i] = now_ns(CLOCK_MONOTONIC);
        uint64_t count = work(&g);

        throttle(&g, 0);
        while (work(&g) == count)
            sleep_ms(1);
        changes[i] = now_ns(CLOCK_MONOTONIC) - changes[i];
    }
    qsort(pauses, 15, sizeof(pauses[0]), by_size);
    qsort(changes, 15, sizeof(changes[0]), by_size);
    print_message("median: a pause takes %llu us, work again after %llu us\n",
                  (unsigned long long)pauses[7] / 1000, (unsigned long long)changes[7] / 1000);
    assert_true(pauses[7] < 25 * MS);
    assert_true(changes[7] < 25 * MS);
    guest_destroy(&g);
}

static void a_throttle_may_come_before_the_start_and_stay_until_the_end(void **state)
{
    struct guest g;

    (void)state;
    guest_create(&g, "work", 2, false);
    throttle(&g, 90);
    throttle(&g, 80);
    kvm_vm_resume(g.vm);
    guest_wait_accesses(&g, 1);
    for (unsigned i = 0; i < 1000 && interruptions(&g) == 0; i++)
        sleep_ms(10);
    assert_true(interruptions(&g) > 0);
    guest_destroy(&g);
}

static int run(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_works_for_its_part_of_the_time),
        cmocka_unit_test(without_a_throttle_nothing_disturbs_it),
        cmocka_unit_test(a_pause_and_a_change_wait_for_nobody_who_rests),
        cmocka_unit_test(a_throttle_may_come_before_the_start_and_stay_until_the_end),
    };
    return cmocka_run_group_tests_name("throttle", tests, NULL, NULL);
}

int main(void)
{
    return guest_main(run);
}
