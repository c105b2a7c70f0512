/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest's two clocks over a pause, with a KVM that is this file: each of its answers takes a
 * microsecond, and one of them as long as the test likes, for then the host did something else.
 * A vCPU that enters the guest first reads the time by what KVM wrote down before the pause for
 * one that is yet to come, and by its own TSC; the guest's kernel reads it by what is written anew.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>

#include <cmocka.h>
#include <linux/kvm.h>

#include "../../src/kvm/internal.h"

#define CPUS 2u
#define TICKS_PER_NS 2u
#define STEP_NS 1000u
#define SLOW_NS 20000000u
#define MOMENT_NS 10000u
#define CALLS 80u /* more than a pause and its end take */

static struct {
    uint64_t host_ns, clock_offset, tsc_offset[CPUS];
    unsigned calls, slow_call; /* one of them takes SLOW_NS */
} kvm;
static struct kvm_vm vm;
static struct vcpu vcpus[CPUS];
static struct vcpu *vcpu_list[CPUS];

static uint64_t clock_now(void)
{
    return kvm.host_ns + kvm.clock_offset;
}

static uint64_t tsc_now(unsigned cpu)
{
    return kvm.host_ns * TICKS_PER_NS + kvm.tsc_offset[cpu];
}

static int get_msrs(unsigned cpu, struct kvm_msrs *msrs)
{
    assert_int_equal(msrs->nmsrs, 1);
    assert_int_equal(msrs->entries[0].index, MSR_TSC);
    msrs->entries[0].data = tsc_now(cpu);
    return 1;
}

int ioctl(int fd, unsigned long request, ...)
{
    void *arg;
    va_list args;

    va_start(args, request);
    arg = va_arg(args, void *);
    va_end(args);
    kvm.host_ns += kvm.calls++ == kvm.slow_call ? SLOW_NS : STEP_NS;
    switch (request) {
    case KVM_GET_CLOCK:
        *(struct kvm_clock_data *)arg = (struct kvm_clock_data){.clock = clock_now()};
        break;
    case KVM_SET_CLOCK:
        kvm.clock_offset = ((struct kvm_clock_data *)arg)->clock - kvm.host_ns;
        break;
    case KVM_GET_MSRS: return get_msrs((unsigned)fd, arg);
    case KVM_GET_TSC_KHZ: return TICKS_PER_NS * 1000000;
    case KVM_GET_DEVICE_ATTR:
        *(uint64_t *)(uintptr_t)((struct kvm_device_attr *)arg)->addr = kvm.tsc_offset[fd];
        break;
    case KVM_SET_DEVICE_ATTR:
        kvm.tsc_offset[fd] = *(uint64_t *)(uintptr_t)((struct kvm_device_attr *)arg)->addr;
        break;
    case KVM_KVMCLOCK_CTRL: break;
    default: fail_msg("request %#lx", request);
    }
    return 0;
}

/* vCPUs' descriptors are their numbers. */
static int setup(void **state)
{
    (void)state;
    memset(&kvm, 0, sizeof(kvm));
    kvm.slow_call = CALLS;
    kvm.host_ns = UINT64_C(5000000000);
    kvm.clock_offset = UINT64_C(0) - UINT64_C(4000000000);
    vm = (struct kvm_vm){.vcpus = vcpu_list, .params.cpus = CPUS, .fd = 99};
    for (unsigned i = 0; i < CPUS; i++) {
        kvm.tsc_offset[i] = UINT64_C(0) - UINT64_C(7000000000);
        vcpus[i] = (struct vcpu){.fd = (int)i, .has_tsc_offset = true};
        vcpu_list[i] = &vcpus[i];
    }
    return 0;
}

static void pause_for(uint64_t ns)
{
    clock_stop(&vm);
    kvm.host_ns += ns;
    clock_start(&vm);
}

static void both_stand_still_in_a_pause(void **state)
{
    uint64_t clock = clock_now(), tsc = tsc_now(0);

    (void)state;
    pause_for(UINT64_C(3600000000000));
    assert_in_range(clock_now() - clock, 0, CALLS * STEP_NS);
    assert_in_range(tsc_now(0) - tsc, 0, CALLS * STEP_NS * TICKS_PER_NS);
    assert_int_equal(tsc_now(1), tsc_now(0));
    assert_false(vm.has_clock);
}

static void time_is_the_same_by_what_was_written_before_whatever_the_host_does_between(void **state)
{
    for (unsigned slow = 0; slow < CALLS; slow++) {
        uint64_t old_ns, old_tsc, by_old, by_new;

        (void)setup(state);
        kvm.slow_call = slow;
        old_ns = clock_now();
        old_tsc = tsc_now(0);
        pause_for(1000000);
        assert_true(kvm.calls < CALLS);
        by_old = old_ns + (tsc_now(1) - old_tsc) / TICKS_PER_NS;
        by_new = clock_now();
        if (by_old > by_new || by_new - by_old > MOMENT_NS)
            fail_msg("call %u was slow: %lld ns apart", slow, (long long)(by_new - by_old));
    }
}

static void where_kvm_keeps_its_offsets_kvmclock_alone_stands_still(void **state)
{
    uint64_t clock = clock_now(), offset = kvm.tsc_offset[0];

    (void)state;
    vcpus[0].has_tsc_offset = vcpus[1].has_tsc_offset = false;
    pause_for(1000000);
    assert_in_range(clock_now() - clock, 0, CALLS * STEP_NS);
    assert_int_equal(kvm.tsc_offset[0], offset);
    assert_int_equal(kvm.tsc_offset[1], offset);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(both_stand_still_in_a_pause, setup),
        cmocka_unit_test_setup(
            time_is_the_same_by_what_was_written_before_whatever_the_host_does_between, setup),
        cmocka_unit_test_setup(where_kvm_keeps_its_offsets_kvmclock_alone_stands_still, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
