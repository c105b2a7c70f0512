/* SPDX-License-Identifier: Apache-2.0 */
/* A pause stops the guest between two instructions: nothing is lost, nothing happens twice. */
#include "guest.h"

#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>

#include "../../src/kvm/internal.h"

#define COUNTER_GPA 0x90000
#define STRING_WORDS 5000

static void sleep_ms(long ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
}

static uint32_t counter_in_ram(struct guest *g)
{
    uint32_t value;

    assert_int_equal(guest_memory_read(g->memory, COUNTER_GPA, &value, sizeof(value)), 0);
    return value;
}

static void pause_often(struct guest *g, unsigned times)
{
    unsigned seen = 0;

    for (unsigned i = 0; i < times; i++) {
        kvm_vm_resume(g->vm);
        guest_wait_accesses(g, seen + 3);
        if (i % 3 == 0)
            sleep_ms(1); /* elsewhere than right after an exit */
        kvm_vm_pause(g->vm);
        seen = g->count;
        uint32_t in_ram = counter_in_ram(g);
        sleep_ms(1);
        assert_int_equal(g->count, seen);
        assert_int_equal(counter_in_ram(g), in_ram);
    }
    if (g->crashes)
        fail_msg("%s", g->report);
}

static void check_counting(bool ring3)
{
    struct guest g;

    guest_create(&g, "count", 1, ring3);
    pause_often(&g, 200);
    for (unsigned i = 0; i < g.count && i < GUEST_TAPE; i++)
        if (g.tape[i].value != i + 1)
            fail_msg("access %u sent %llu", i + 1, (unsigned long long)g.tape[i].value);
    /* What went out is in RAM, or the store is the next instruction. */
    assert_in_range(counter_in_ram(&g), g.count - 1, g.count);
    guest_destroy(&g);
}

static void two_hundred_pauses_lose_and_repeat_nothing(void **state)
{
    (void)state;
    check_counting(false);
}

static void nor_do_they_in_ring_3(void **state)
{
    (void)state;
    if (!guest_has_ring3()) {
        print_message("skipped: this host runs ring 0 itself\n");
        skip();
    }
    check_counting(true);
}

static void nor_do_they_within_a_string_instruction(void **state)
{
    struct guest g;

    (void)state;
    guest_create(&g, "strings", 1, false);
    pause_often(&g, 50);
    for (unsigned i = 0; i < g.count && i < GUEST_TAPE; i++)
        if (g.tape[i].value != i % STRING_WORDS)
            fail_msg("element %u was %llu", i, (unsigned long long)g.tape[i].value);
    guest_destroy(&g);
}

static void a_cpu_whose_access_asks_for_a_pause_executes_nothing_more(void **state)
{
    struct guest g;

    (void)state;
    guest_create(&g, "count", 1, false);
    g.pause_at = 10;
    kvm_vm_resume(g.vm);
    guest_wait_accesses(&g, 10);
    kvm_vm_pause(g.vm);
    assert_int_equal(g.count, 10);
    assert_int_equal(counter_in_ram(&g), 9);

    kvm_vm_resume(g.vm);
    guest_wait_accesses(&g, 20);
    kvm_vm_pause(g.vm);
    assert_int_equal(g.tape[10].value, 11);
    guest_destroy(&g);
}

static void a_read_that_asks_for_a_pause_is_completed_first(void **state)
{
    struct guest g;

    (void)state;
    guest_create(&g, "io", 1, false);
    g.pause_at = 4; /* the first IN, of one byte */
    kvm_vm_resume(g.vm);
    guest_wait_accesses(&g, 4);
    kvm_vm_pause(g.vm);
    assert_int_equal(g.count, 4);
    char *registers = kvm_vm_describe(g.vm);
    assert_non_null(registers);
    assert_non_null(strstr(registers, "rax  00000000000000ef"));
    free(registers);
    guest_destroy(&g);
}

static void pausing_twice_is_pausing_once(void **state)
{
    struct guest g;

    (void)state;
    guest_create(&g, "count", 4, false);
    kvm_vm_pause(g.vm);
    kvm_vm_resume(g.vm);
    kvm_vm_resume(g.vm);
    guest_wait_accesses(&g, 5);
    kvm_vm_request_pause(g.vm);
    kvm_vm_pause(g.vm);
    kvm_vm_pause(g.vm);
    unsigned seen = g.count;
    sleep_ms(5);
    assert_int_equal(g.count, seen);

    kvm_vm_resume(g.vm);
    guest_wait_accesses(&g, seen + 5);
    guest_destroy(&g); /* while it runs */
}

static void the_clock_of_the_guest_stands_still_in_a_pause(void **state)
{
    struct kvm_clock_data before = {0}, after = {0};
    struct guest g;

    (void)state;
    guest_create(&g, "count", 1, false);
    kvm_vm_resume(g.vm);
    guest_wait_accesses(&g, 1);
    kvm_vm_pause(g.vm);
    assert_int_equal(ioctl(g.vm->fd, KVM_GET_CLOCK, &before), 0);
    sleep_ms(2000);
    kvm_vm_resume(g.vm);
    assert_int_equal(ioctl(g.vm->fd, KVM_GET_CLOCK, &after), 0);
    /* Three quarters of the pause would be missed only by a host that is busy for as long. */
    assert_true(after.clock < before.clock + 1500000000);
    guest_destroy(&g);
}

static int run(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_hundred_pauses_lose_and_repeat_nothing),
        cmocka_unit_test(nor_do_they_in_ring_3),
        cmocka_unit_test(nor_do_they_within_a_string_instruction),
        cmocka_unit_test(a_cpu_whose_access_asks_for_a_pause_executes_nothing_more),
        cmocka_unit_test(a_read_that_asks_for_a_pause_is_completed_first),
        cmocka_unit_test(pausing_twice_is_pausing_once),
        cmocka_unit_test(the_clock_of_the_guest_stands_still_in_a_pause),
    };
    return cmocka_run_group_tests_name("pause", tests, NULL, NULL);
}

int main(void)
{
    return guest_main(run);
}
