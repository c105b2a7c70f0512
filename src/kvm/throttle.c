/* SPDX-License-Identifier: Apache-2.0 */
/*
 * throttle: vCPUs that work for a part of the time only, so that memory which they write can be
 * copied faster than it changes.
 *
 * Each vCPU has a timer on its own CPU time, which kicks it out of the guest: one that is idle is
 * left alone, and so is everybody while nothing is throttled. Whoever was kicked rests in
 * proportion to the CPU time that it has used since the last time, so a kick that comes late or
 * gets lost between two KVM_RUN changes nothing in the long run.
 */
#include "internal.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "vmrun/log.h"

#ifndef sigev_notify_thread_id /* older C libraries have the member and no name for it */
#define sigev_notify_thread_id _sigev_un._tid
#endif

#define NS_PER_S UINT64_C(1000000000)
#define SLICE_NS UINT64_C(10000000)   /* working and resting, where that leaves enough to work */
#define MAX_REST_NS NS_PER_S          /* or watchdogs and peers of the guest would miss it */
#define MIN_WORK_NS UINT64_C(1000000) /* below it entering the guest would be all the work */

static uint64_t read_ns(clockid_t clock)
{
    struct timespec now = {0};

    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

static struct timespec to_timespec(uint64_t ns)
{
    return (struct timespec){.tv_sec = (time_t)(ns / NS_PER_S), .tv_nsec = (long)(ns % NS_PER_S)};
}

static int arm(struct vcpu *vcpu, unsigned percent)
{
    struct sigevent event = {
        .sigev_notify = SIGEV_THREAD_ID,
        .sigev_signo = KVM_KICK_SIGNAL,
        .sigev_notify_thread_id = vcpu->tid,
    };
    uint64_t work_ns = SLICE_NS * (100 - percent) / 100;
    struct itimerspec often = {0};

    if (!vcpu->has_timer && percent == 0)
        return 0;
    if (!vcpu->has_timer && timer_create(vcpu->cpu_clock, &event, &vcpu->timer) < 0)
        return -errno;
    vcpu->has_timer = true;
    atomic_store_explicit(&vcpu->rested_at_ns, read_ns(vcpu->cpu_clock), memory_order_release);
    if (percent)
        often.it_value = often.it_interval =
            to_timespec(work_ns > MIN_WORK_NS ? work_ns : MIN_WORK_NS);
    return timer_settime(vcpu->timer, 0, &often, NULL) < 0 ? -errno : 0;
}

static int arm_all(struct kvm_vm *vm, unsigned percent)
{
    int r = 0;

    for (unsigned i = 0; r == 0 && i < vm->params.cpus; i++)
        if (vm->vcpus[i]->tid) /* else its thread does it, when it begins */
            r = arm(vm->vcpus[i], percent);
    return r;
}

int kvm_vm_throttle(struct kvm_vm *vm, unsigned percent, struct error *err)
{
    int r;

    assert(percent < 100);
    pthread_mutex_lock(&vm->lock);
    r = arm_all(vm, percent);
    if (r < 0)
        (void)arm_all(vm, 0); /* none rather than some */
    atomic_store_explicit(&vm->throttle, r < 0 ? 0 : percent, memory_order_relaxed);
    pthread_cond_broadcast(&vm->wake);
    pthread_mutex_unlock(&vm->lock);
    return r < 0 ? error_errno(err, -r, "throttling the vCPUs") : 0;
}

void throttle_begin(struct vcpu *vcpu)
{
    vcpu->tid = gettid();
    (void)pthread_getcpuclockid(pthread_self(), &vcpu->cpu_clock); /* it lives: that cannot fail */
    int r = arm(vcpu, atomic_load_explicit(&vcpu->vm->throttle, memory_order_relaxed));

    if (r < 0)
        log_warn("vCPU %u is not throttled: timer: %s", vcpu->index, strerror(-r));
}

void throttle_end(struct vcpu *vcpu)
{
    if (vcpu->has_timer)
        timer_delete(vcpu->timer);
    vcpu->has_timer = false;
}

void throttle_rest(struct vcpu *vcpu)
{
    struct kvm_vm *vm = vcpu->vm;
    unsigned percent = atomic_load_explicit(&vm->throttle, memory_order_relaxed);
    uint64_t rested_at_ns, rest_ns, now_ns;

    if (percent == 0)
        return;
    /* In this order: who changes the throttle sets it to a later time than it was. */
    rested_at_ns = atomic_load_explicit(&vcpu->rested_at_ns, memory_order_acquire);
    now_ns = read_ns(vcpu->cpu_clock);
    rest_ns = (now_ns - rested_at_ns) * percent / (100 - percent);
    if (rest_ns > MAX_REST_NS)
        rest_ns = MAX_REST_NS;
    atomic_store_explicit(&vcpu->rested_at_ns, now_ns, memory_order_relaxed);

    struct timespec until = to_timespec(read_ns(CLOCK_MONOTONIC) + rest_ns);
    int r = 0;

    pthread_mutex_lock(&vm->lock);
    while (r == 0 && !vm->stop &&
           atomic_load_explicit(&vm->throttle, memory_order_relaxed) == percent)
        r = pthread_cond_timedwait(&vm->wake, &vm->lock, &until);
    pthread_mutex_unlock(&vm->lock);
}
