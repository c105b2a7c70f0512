/* SPDX-License-Identifier: Apache-2.0 */
/*
 * clock: the guest's kvmclock over a pause and over a move to another host, and its TSC.
 *
 * Both stand still in a pause. On another host they go on from where they
 * stood, put on by the same time, and neither ever goes back. Some hosts' KVM takes a TSC offset
 * and keeps another: what counts is what is read back. Where the TSC cannot be set, deadlines that
 * the guest gave in it are moved instead.
 * Source: Documentation/virt/kvm/devices/vcpu.rst of Linux, "KVM_VCPU_TSC_OFFSET".
 */
#include "internal.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <time.h>

#include "vmrun/log.h"

#define NS_PER_S 1000000000u
#define NS_PER_MS 1000000u
#define BOTH_TRIES 4
#define BOTH_NS 20000
/* What a slow host may take between setting a clock and reading it. */
#define CLOCK_TOLERANCE_NS (UINT64_C(10) * NS_PER_S)
/* Less than that no guest notices; crystals differ by as much. */
#define TSC_TOLERANCE_PPM 250u

static uint64_t host_realtime_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

/* kvmclock before and after it, ns, and the TSC of vCPU 0 between. */
struct both_clocks {
    uint64_t before_ns, tsc, after_ns;
};

/*
 * Nobody reads both at once, and the host may do something else in between for as long as it
 * likes: the closest of a few tries.
 */
static int read_both(struct kvm_vm *vm, struct both_clocks *ret)
{
    uint64_t least = UINT64_MAX;

    for (unsigned i = 0; i < BOTH_TRIES && least > BOTH_NS; i++) {
        struct kvm_clock_data before = {0}, after = {0};
        uint64_t tsc = 0;

        if (ioctl(vm->fd, KVM_GET_CLOCK, &before) < 0 ||
            msr_get_one(vm->vcpus[0], MSR_TSC, &tsc) < 0 ||
            ioctl(vm->fd, KVM_GET_CLOCK, &after) < 0)
            return -EIO;
        if (after.clock - before.clock >= least)
            continue;
        least = after.clock - before.clock;
        *ret = (struct both_clocks){before.clock, tsc, after.clock};
    }
    return 0;
}

void clock_stop(struct kvm_vm *vm)
{
    struct both_clocks now;
    int khz;

    /* Every KVM has both. The later time: see put_back_tsc(). */
    if (vm->has_clock || read_both(vm, &now) < 0)
        return;
    vm->clock = (struct clock_state){
        .clock_ns = now.after_ns, .realtime_ns = host_realtime_ns(), .tsc = now.tsc};
    khz = ioctl(vm->vcpus[0]->fd, KVM_GET_TSC_KHZ, 0);
    vm->clock.tsc_khz = khz > 0 ? (uint32_t)khz : 0;
    vm->has_clock = true;
}

static struct kvm_device_attr offset_attr(uint64_t *offset)
{
    return (struct kvm_device_attr){
        .group = KVM_VCPU_TSC_CTRL,
        .attr = KVM_VCPU_TSC_OFFSET,
        .addr = (uintptr_t)offset,
    };
}

bool tsc_get_offset(struct vcpu *vcpu, uint64_t *ret_offset)
{
    struct kvm_device_attr attr = offset_attr(ret_offset);

    return ioctl(vcpu->fd, KVM_GET_DEVICE_ATTR, &attr) == 0;
}

bool tsc_set_offset(struct vcpu *vcpu, uint64_t offset)
{
    struct kvm_device_attr attr = offset_attr(&offset);
    uint64_t now;

    return ioctl(vcpu->fd, KVM_SET_DEVICE_ATTR, &attr) == 0 && tsc_get_offset(vcpu, &now) &&
           now == offset;
}

/*
 * The TSC stood still with kvmclock, and goes on with it. A CPU that enters the guest before
 * another reads the time by what KVM wrote down for that one before the stop (Linux's user space
 * always reads it by vCPU 0's), and its own TSC: were the TSC ahead of kvmclock, the guest would
 * see time go back; were it behind by more than a moment, a timer would come before its time.
 * Hence the TSC is behind by what it takes to read both, and no more. No harm is done where KVM
 * keeps its offsets.
 */
static void put_back_tsc(struct kvm_vm *vm)
{
    const struct clock_state *stood = &vm->clock;
    struct both_clocks now;
    uint64_t offset, before, ran_ns;

    if (!vm->vcpus[0]->has_tsc_offset || read_both(vm, &now) < 0)
        return;
    ran_ns = now.before_ns > stood->clock_ns ? now.before_ns - stood->clock_ns : 0;
    before =
        now.tsc - stood->tsc - (uint64_t)((unsigned __int128)ran_ns * stood->tsc_khz / NS_PER_MS);
    for (unsigned i = 0; i < vm->params.cpus; i++) {
        struct vcpu *vcpu = vm->vcpus[i];

        if (!tsc_get_offset(vcpu, &offset) || !tsc_set_offset(vcpu, offset - before))
            return;
        vcpu->tsc_offset -= before;
    }
}

void clock_start(struct kvm_vm *vm)
{
    struct kvm_clock_data clock = {.clock = vm->clock.clock_ns};

    if (!vm->has_clock)
        return;
    /* Refused only for flags it does not know, and there are none. */
    (void)ioctl(vm->fd, KVM_SET_CLOCK, &clock);
    put_back_tsc(vm);
    /* Tells the guest's watchdogs too. EINVAL: this vCPU does not use kvmclock. */
    for (unsigned i = 0; i < vm->params.cpus; i++)
        (void)ioctl(vm->vcpus[i]->fd, KVM_KVMCLOCK_CTRL, 0);
    vm->has_clock = false;
}

bool tsc_same_frequency(uint64_t a, uint64_t b)
{
    uint64_t difference = a > b ? a - b : b - a;

    return difference * 1000000 <= b * TSC_TOLERANCE_PPM;
}

static int take_over_frequency(struct kvm_vm *vm, uint32_t khz, struct error *err)
{
    int here = ioctl(vm->vcpus[0]->fd, KVM_GET_TSC_KHZ, 0);

    if (khz == 0 || here <= 0 || tsc_same_frequency(khz, (uint64_t)here))
        return 0;
    if (ioctl(vm->fd, KVM_CHECK_EXTENSION, KVM_CAP_TSC_CONTROL) <= 0)
        return error_set(
            err, ENOTSUP,
            "the guest's TSC runs at %u kHz, this host's at %d kHz, and its KVM cannot "
            "scale it",
            khz, here);
    for (unsigned i = 0; i < vm->params.cpus; i++) {
        int fd = vm->vcpus[i]->fd;

        if (ioctl(fd, KVM_SET_TSC_KHZ, (unsigned long)khz) < 0)
            return error_errno(err, errno, "a TSC of %u kHz for vCPU %u", khz, i);
        here = ioctl(fd, KVM_GET_TSC_KHZ, 0);
        if (here <= 0 || !tsc_same_frequency(khz, (uint64_t)here))
            return error_set(err, ENOTSUP, "vCPU %u: the TSC was set to %u kHz and runs at %d kHz",
                             i, khz, here);
    }
    vm->tsc_khz = khz;
    return 0;
}

/*
 * The same power-on offset for all, so that vCPU 0 reads `tsc` now. Unequal ones, as KVM may make
 * of a TSC that is written CPU by CPU, would cost the host its master clock. -ENOTSUP: KVM keeps
 * another on the first CPU; then it does so on all. -EIO: on a later one.
 */
static int take_over_offsets(struct kvm_vm *vm, uint64_t tsc, struct error *err)
{
    struct vcpu *first = vm->vcpus[0];
    uint64_t offset, now, base;

    if (!first->has_tsc_offset || !tsc_get_offset(first, &offset) ||
        msr_get_one(first, MSR_TSC, &now) < 0)
        return -ENOTSUP;
    base = offset + (tsc - now) - (uint64_t)first->moving->tsc.moved;
    for (unsigned i = 0; i < vm->params.cpus; i++) {
        struct vcpu *vcpu = vm->vcpus[i];

        if (!tsc_set_offset(vcpu, base + (uint64_t)vcpu->moving->tsc.moved))
            return i == 0 ? -ENOTSUP
                          : error_set(err, EIO, "TSC offset of vCPU %u: KVM keeps another", i);
        vcpu->tsc_offset = base; /* where a reset goes back to */
    }
    return 0;
}

int tsc_take_over(struct kvm_vm *vm, uint64_t advance_ns, struct error *err)
{
    const struct clock_state *saved = &vm->moving_clock;
    uint64_t ticks = (uint64_t)((unsigned __int128)advance_ns * saved->tsc_khz / 1000000);
    uint64_t before = saved->tsc, wanted = before + ticks, now;
    int r = take_over_frequency(vm, saved->tsc_khz, err);

    if (r < 0)
        return r;
    r = take_over_offsets(vm, wanted, err);
    vm->moving_clock.tsc = wanted;
    if (r != -ENOTSUP)
        return r;
    if (msr_get_one(vm->vcpus[0], MSR_TSC, &now) < 0)
        return error_set(err, EIO, "KVM does not tell the TSC of vCPU 0");
    if (now < before)
        log_warn("the guest's TSC goes back by %.3f s: this host's KVM cannot set it; guests that "
                 "use kvmclock do not mind",
                 saved->tsc_khz ? (double)(before - now) / saved->tsc_khz / 1000 : 0.0);
    vm->moving_clock.tsc = now;
    for (unsigned i = 0; i < vm->params.cpus; i++) {
        uint64_t *deadline = &vm->vcpus[i]->moving->tsc.deadline;

        if (*deadline)
            *deadline = now + (*deadline > wanted ? *deadline - wanted : 0);
    }
    return 0;
}

int clock_take_over(struct kvm_vm *vm, uint64_t advance_ns, struct error *err)
{
    struct kvm_clock_data clock = {.clock = vm->moving_clock.clock_ns}, now = {0};

    clock.clock += advance_ns < MAX_CLOCK_NS ? advance_ns : MAX_CLOCK_NS;
    if (ioctl(vm->fd, KVM_SET_CLOCK, &clock) < 0 || ioctl(vm->fd, KVM_GET_CLOCK, &now) < 0)
        return error_errno(err, errno, "kvmclock");
    if (now.clock - clock.clock > CLOCK_TOLERANCE_NS)
        return error_set(err, EIO, "kvmclock was set to %llu ns and is %llu ns",
                         (unsigned long long)clock.clock, (unsigned long long)now.clock);

    /* kvm_vm_resume() sets it once more, before the first vCPU runs. */
    vm->clock = vm->moving_clock;
    vm->clock.clock_ns = clock.clock;
    vm->clock.realtime_ns = host_realtime_ns();
    vm->has_clock = true;
    return 0;
}
