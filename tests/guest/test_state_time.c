/* SPDX-License-Identifier: Apache-2.0 */
/* Clocks and timers of a machine that moved: none goes back, none is lost. */
#include "guest.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>

#include "../../src/kvm/internal.h"

static uint64_t tick(const struct guest *g, unsigned number)
{
    return g->tape[(size_t)2 * number].value | g->tape[(size_t)2 * number + 1].value << 32;
}

static uint64_t last_tick(const struct guest *g)
{
    return tick(g, (g->count < GUEST_TAPE ? g->count : GUEST_TAPE) / 2 - 1);
}

static void check_ticks(unsigned advance_s)
{
    struct guest from, to;
    struct error err;

    guest_create(&from, "ticks", 1, guest_has_ring3());
    from.pause_at = 20;
    kvm_vm_resume(from.vm);
    guest_wait_accesses(&from, 20);
    kvm_vm_pause(from.vm);
    uint64_t clock_ns = from.vm->clock.clock_ns, khz = from.vm->clock.tsc_khz;
    uint64_t before = last_tick(&from);

    guest_create_like(&to, &from);
    struct writer w = guest_save(&from);
    assert_int_equal(guest_restore(&to, &w, (uint64_t)advance_s * 1000000000, &err), 0);
    free(w.data);
    to.pause_at = 20;
    kvm_vm_resume(to.vm);
    guest_wait_accesses(&to, 20);
    kvm_vm_pause(to.vm);

    for (unsigned i = 0; i < 10; i++) {
        assert_true(tick(&to, i) >= before);
        before = tick(&to, i);
    }
    /* The TSC follows the clock where this host lets it be set at all. */
    if (!guest_has_ring3())
        assert_in_range(tick(&to, 0), last_tick(&from) + advance_s * khz * 1000,
                        last_tick(&from) + (advance_s + 20) * khz * 1000);
    assert_in_range(to.vm->clock.clock_ns, clock_ns + advance_s * 1000000000ull,
                    clock_ns + (advance_s + 20) * 1000000000ull);
    guest_destroy(&from);
    guest_destroy(&to);
}

static void clocks_never_go_back(void **state)
{
    (void)state;
    check_ticks(0);
}

static void they_are_put_on_as_told(void **state)
{
    (void)state;
    check_ticks(3600);
}

static void the_time_of_the_pause_is_told(void **state)
{
    struct timespec now;
    struct guest from, to;

    (void)state;
    guest_create(&from, "count", 1, false);
    guest_run_for(&from, 3);
    guest_move(&from, &to);
    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t now_ns = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
    assert_in_range(kvm_vm_saved_realtime_ns(to.vm), now_ns - 20000000000ull, now_ns);
    assert_int_equal(kvm_vm_saved_realtime_ns(to.vm), from.vm->clock.realtime_ns);
    guest_destroy(&from);
    guest_destroy(&to);
}

static void another_frequency_of_the_tsc_is_scaled_or_refused(void **state)
{
    struct guest from, to;
    struct error err;

    (void)state;
    guest_create(&from, "count", 1, false);
    guest_move(&from, &to);
    uint32_t khz = to.vm->moving_clock.tsc_khz;
    to.vm->moving_clock.tsc_khz = khz + khz / 10000; /* 100 ppm: crystals differ by as much */
    assert_int_equal(kvm_vm_apply_state(to.vm, 0, &err), 0);
    to.vm->moving_clock.tsc_khz = khz / 2;
    if (kvm_vm_apply_state(to.vm, 0, &err) < 0) {
        assert_int_equal(err.code, ENOTSUP);
        assert_non_null(strstr(err.msg, "kHz"));
    } else {
        assert_in_range(ioctl(to.vm->vcpus[0]->fd, KVM_GET_TSC_KHZ, 0), khz / 2 - khz / 4000,
                        khz / 2 + khz / 4000);
    }
    guest_destroy(&from);
    guest_destroy(&to);
}

static void sleep_ms(unsigned ms)
{
    const struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};

    nanosleep(&time, NULL);
}

/* Linux's Documentation/virt/kvm/x86/msr.rst, "MSR_KVM_SYSTEM_TIME_NEW". */
struct pvclock {
    uint32_t version, pad;
    uint64_t tsc_timestamp, system_time;
    uint32_t tsc_to_system_mul;
    int8_t tsc_shift;
    uint8_t flags;
    uint8_t pad2[2];
};
#define PVCLOCK_GPA 0x300000
#define PVCLOCK_GUEST_STOPPED 2u

static struct pvclock pvclock_of(struct guest *g)
{
    struct pvclock clock;

    assert_int_equal(guest_memory_read(g->memory, PVCLOCK_GPA, &clock, sizeof(clock)), 0);
    return clock;
}

static uint64_t host_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* What the guest itself would compute for a given TSC. */
static uint64_t pvclock_ns(const struct pvclock *c, uint64_t tsc)
{
    uint64_t ticks = tsc - c->tsc_timestamp;

    ticks = c->tsc_shift < 0 ? ticks >> -c->tsc_shift : ticks << c->tsc_shift;
    return c->system_time + (uint64_t)((unsigned __int128)ticks * c->tsc_to_system_mul >> 32);
}

static void kvmclock_goes_on_from_where_it_stood_and_says_so(void **state)
{
    const uint64_t advance_ns = UINT64_C(3600) * 1000000000;
    struct pvclock was, is;
    struct guest from, to;
    struct error err;

    (void)state;
    guest_create(&from, "count", 1, false);
    guest_run_for(&from, 3);
    assert_int_equal(msr_set_one(from.vm->vcpus[0], 0x4b564d01, PVCLOCK_GPA | 1), 0);
    guest_run_for(&from, 3);
    was = pvclock_of(&from);
    uint64_t clock_ns = from.vm->clock.clock_ns;
    /* What is saved is what the guest would have read then: the TSC was read a moment later. */
    assert_in_range(pvclock_ns(&was, from.vm->clock.tsc), clock_ns - 1000000,
                    clock_ns + 1000000000);
    was.flags = 0;
    assert_int_equal(guest_memory_write(from.memory, PVCLOCK_GPA, &was, sizeof(was)), 0);

    for (unsigned i = 0; i < 2; i++) {
        guest_create_like(&to, &from);
        struct writer w = guest_save(&from);
        assert_int_equal(guest_restore(&to, &w, i * advance_ns, &err), 0);
        free(w.data);
        sleep_ms(1500); /* it stands still until it runs */
        uint64_t start_ns = host_ns();
        guest_run_for(&to, 3);
        uint64_t ran_ns = host_ns() - start_ns;

        is = pvclock_of(&to);
        assert_int_not_equal(is.version, was.version);
        assert_true(is.flags & PVCLOCK_GUEST_STOPPED);
        assert_in_range(is.system_time, clock_ns + i * advance_ns,
                        clock_ns + i * advance_ns + ran_ns + 100000000);
        guest_destroy(&to);
    }
    guest_destroy(&from);
}

/* Timers of the local APIC: one that fires while interrupts are off leaves its vector waiting. */

#define TIMER_VECTOR 0xecu
enum { LVTT_ONE_SHOT = 0, LVTT_DEADLINE = 2 << 17 };

static void set_timer(struct guest *g, uint32_t mode, uint32_t count)
{
    enum { SVR = 0xf0, LVTT = 0x320, TMICT = 0x380, TMCCT = 0x390, DIVIDE = 0x3e0 };
    union lapic_state lapic;
    int fd = g->vm->vcpus[0]->fd;

    assert_int_equal(ioctl(fd, KVM_GET_LAPIC, &lapic.kvm), 0);
    lapic.words[SVR / 4] = 0x1ff;
    lapic.words[LVTT / 4] = mode | TIMER_VECTOR;
    lapic.words[DIVIDE / 4] = 0xb; /* by 1: KVM's bus has 1 GHz */
    lapic.words[TMICT / 4] = lapic.words[TMCCT / 4] = count;
    assert_int_equal(ioctl(fd, KVM_SET_LAPIC, &lapic.kvm), 0);
}

static void set_deadline(struct guest *g, uint64_t ms)
{
    struct vcpu *vcpu = g->vm->vcpus[0];
    uint64_t tsc;

    set_timer(g, LVTT_DEADLINE, 0);
    assert_int_equal(msr_get_one(vcpu, MSR_TSC, &tsc), 0);
    assert_int_equal(msr_set_one(vcpu, MSR_TSC_DEADLINE, tsc + ms * g->vm->clock.tsc_khz), 0);
}

static bool timer_fired(struct guest *g)
{
    union lapic_state lapic;

    assert_int_equal(ioctl(g->vm->vcpus[0]->fd, KVM_GET_LAPIC, &lapic.kvm), 0);
    return lapic.words[(0x200 + TIMER_VECTOR / 32 * 16) / 4] >> TIMER_VECTOR % 32 & 1;
}

static void check_timer(bool deadline, uint64_t ms, unsigned sleep, unsigned advance_s, bool fires)
{
    struct guest from, to;
    struct error err;

    guest_create(&from, "count", 1, false);
    guest_run_for(&from, 3);
    if (deadline)
        set_deadline(&from, ms);
    else
        set_timer(&from, LVTT_ONE_SHOT, (uint32_t)ms * 1000000);
    sleep_ms(sleep);
    assert_false(timer_fired(&from)); /* that takes an entry to the guest */
    guest_create_like(&to, &from);
    struct writer w = guest_save(&from);
    if (guest_restore(&to, &w, (uint64_t)advance_s * 1000000000, &err) < 0)
        fail_msg("%s", err.msg);
    free(w.data);
    guest_run_for(&to, 3);
    sleep_ms(20);
    guest_run_for(&to, 3);
    assert_int_equal(timer_fired(&to), fires);
    guest_destroy(&from);
    guest_destroy(&to);
}

static void a_timer_that_is_due_while_the_machine_stands_still_fires_there(void **state)
{
    (void)state;
    check_timer(true, 5, 30, 0, true);
    check_timer(false, 5, 30, 0, true);
}

static void one_that_is_not_due_waits_for_its_time(void **state)
{
    (void)state;
    check_timer(true, 3600000, 0, 0, false);
    check_timer(true, 3600000, 0, 7200, true);
    check_timer(true, 3600000, 0, 1800, false);
    check_timer(false, 4000, 0, 0, false);
}

static void a_deadline_follows_a_tsc_that_cannot_be_set(void **state)
{
    struct guest from, to;
    struct error err;

    (void)state;
    guest_create(&from, "count", 1, false);
    guest_run_for(&from, 1);
    set_deadline(&from, 3600000);
    guest_move(&from, &to);
    to.vm->vcpus[0]->has_tsc_offset = false; /* as on a host that cannot */
    to.vm->vcpus[0]->moving->tsc.deadline = to.vm->moving_clock.tsc + 5000000000;
    uint64_t before, after;
    assert_int_equal(msr_get_one(to.vm->vcpus[0], MSR_TSC, &before), 0);
    if (kvm_vm_apply_state(to.vm, 0, &err) < 0)
        fail_msg("%s", err.msg);
    assert_int_equal(msr_get_one(to.vm->vcpus[0], MSR_TSC, &after), 0);
    assert_in_range(to.vm->vcpus[0]->moving->tsc.deadline, before + 5000000000, after + 5000000000);
    guest_destroy(&from);
    guest_destroy(&to);
}

static void a_deadline_without_the_mode_for_it_is_refused(void **state)
{
    struct guest from, to;
    struct error err;

    (void)state;
    guest_create(&from, "count", 1, false);
    guest_move(&from, &to);
    to.vm->vcpus[0]->moving->tsc.deadline = UINT64_C(1) << 60;
    assert_int_equal(kvm_vm_apply_state(to.vm, 0, &err), -EIO);
    assert_non_null(strstr(err.msg, "vCPU 0: TSC_DEADLINE was set to 0x1"));
    guest_destroy(&from);
    guest_destroy(&to);
}

static void counters_stay_as_far_apart_as_the_guest_set_them(void **state)
{
    struct guest from, to;
    uint64_t offset[3];

    (void)state;
    if (guest_has_ring3()) {
        print_message("skipped: this host's TSC cannot be set\n");
        skip();
    }
    guest_create(&from, "smp", 3, false);
    assert_true(tsc_get_offset(from.vm->vcpus[2], &offset[2]));
    assert_true(tsc_set_offset(from.vm->vcpus[2], offset[2] + 123456789));
    guest_move(&from, &to);
    for (unsigned i = 0; i < 3; i++)
        assert_true(tsc_get_offset(to.vm->vcpus[i], &offset[i]));
    assert_int_equal(offset[1], offset[0]);
    assert_int_equal(offset[2] - offset[0], 123456789);
    guest_destroy(&from);
    guest_destroy(&to);
}

static void a_machine_that_never_went_on_is_saved_as_it_came(void **state)
{
    struct guest from, to, last;
    struct error err;

    (void)state;
    guest_create(&from, "count", 1, false);
    guest_run_for(&from, 3);
    guest_create_like(&to, &from);
    struct writer w = guest_save(&from);
    assert_int_equal(guest_restore(&to, &w, UINT64_C(3600) * 1000000000, &err), 0);
    free(w.data);
    guest_move(&to, &last);
    assert_int_equal(last.vm->moving_clock.clock_ns,
                     from.vm->clock.clock_ns + UINT64_C(3600) * 1000000000);
    assert_true(last.vm->moving_clock.realtime_ns > from.vm->clock.realtime_ns);
    if (!guest_has_ring3())
        assert_true(last.vm->moving_clock.tsc - from.vm->clock.tsc >=
                    UINT64_C(3600) * 1000 * from.vm->clock.tsc_khz);
    guest_destroy(&from);
    guest_destroy(&to);
    guest_destroy(&last);
}

static int run(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(clocks_never_go_back),
        cmocka_unit_test(they_are_put_on_as_told),
        cmocka_unit_test(the_time_of_the_pause_is_told),
        cmocka_unit_test(another_frequency_of_the_tsc_is_scaled_or_refused),
        cmocka_unit_test(kvmclock_goes_on_from_where_it_stood_and_says_so),
        cmocka_unit_test(a_timer_that_is_due_while_the_machine_stands_still_fires_there),
        cmocka_unit_test(one_that_is_not_due_waits_for_its_time),
        cmocka_unit_test(a_deadline_follows_a_tsc_that_cannot_be_set),
        cmocka_unit_test(a_deadline_without_the_mode_for_it_is_refused),
        cmocka_unit_test(counters_stay_as_far_apart_as_the_guest_set_them),
        cmocka_unit_test(a_machine_that_never_went_on_is_saved_as_it_came),
    };
    return cmocka_run_group_tests_name("state_time", tests, NULL, NULL);
}

int main(void)
{
    return guest_main(run);
}
