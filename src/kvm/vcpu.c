/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A vCPU: its thread, the run loop, and what an exit leads to.
 *
 * A vCPU stops at one place only: where KVM_RUN returned EINTR with
 * immediate_exit set. Because KVM first completes what the last exit left half
 * done (the rest of an IN, a string, a page-crossing access) and only then looks
 * at immediate_exit, a stopped vCPU always stands between two instructions.
 *
 * No kick is lost: the flag is set before the signal is sent, so the vCPU is
 * either not yet in KVM_RUN and KVM sees the flag, or already in it and the
 * signal ends it.
 */
#include "internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vmrun/thread.h"

static void set_immediate_exit(struct vcpu *vcpu, bool value)
{
    __atomic_store_n(&vcpu->run->immediate_exit, value, __ATOMIC_RELEASE);
}

static bool told_to_stop(const struct vcpu *vcpu)
{
    return __atomic_load_n(&vcpu->run->immediate_exit, __ATOMIC_ACQUIRE) != 0;
}

void vcpu_kick(struct vcpu *vcpu)
{
    set_immediate_exit(vcpu, true);
    if (vcpu->running && !pthread_equal(vcpu->thread, pthread_self()))
        pthread_kill(vcpu->thread, KVM_KICK_SIGNAL);
}

static void count(struct vcpu *vcpu, enum kvm_exit_kind kind)
{
    uint64_t n = atomic_load_explicit(&vcpu->exits[kind], memory_order_relaxed);

    atomic_store_explicit(&vcpu->exits[kind], n + 1, memory_order_relaxed);
}

/* One access in pieces that a bus has: an MMIO of 3 bytes is what remains at the end of a page. */
static void access_bus(struct bus *bus, uint64_t addr, uint8_t *data, unsigned len, bool write)
{
    while (len) {
        unsigned size = len >= 8 ? 8 : len >= 4 ? 4 : len >= 2 ? 2 : 1;
        uint64_t value = 0;

        if (write) {
            memcpy(&value, data, size);
            bus_write(bus, addr, size, value);
        } else {
            value = bus_read(bus, addr, size);
            memcpy(data, &value, size);
        }
        addr += size;
        data += size;
        len -= size;
    }
}

static void handle_pio(struct vcpu *vcpu)
{
    struct kvm_run *run = vcpu->run;
    uint8_t *data = (uint8_t *)run + run->io.data_offset;

    count(vcpu, KVM_EXIT_KIND_PIO);
    /* A string instruction: the same port for each element. */
    for (uint32_t i = 0; i < run->io.count; i++, data += run->io.size)
        access_bus(vcpu->vm->params.pio, run->io.port, data, run->io.size,
                   run->io.direction == KVM_EXIT_IO_OUT);
}

static void handle_mmio(struct vcpu *vcpu)
{
    struct kvm_run *run = vcpu->run;

    count(vcpu, KVM_EXIT_KIND_MMIO);
    access_bus(vcpu->vm->params.mmio, run->mmio.phys_addr, run->mmio.data, run->mmio.len,
               run->mmio.is_write);
}

static void crash(struct vcpu *vcpu, int run_errno)
{
    char reason[256], *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);

    report_reason(vcpu->run, run_errno, reason, sizeof(reason));
    if (out) {
        fprintf(out, "vCPU %u: %s\n", vcpu->index, reason);
        report_vcpu(out, vcpu);
        fclose(out);
    }

    /* Retire what the exit may have left half done, lest it land in the state after a reset. */
    set_immediate_exit(vcpu, true);
    (void)ioctl(vcpu->fd, KVM_RUN, 0);

    vcpu->vm->params.crashed(vcpu->vm->params.opaque, text ? text : reason);
    free(text);
}

/* Run until told to stop, or until something ends it (false). */
static bool run(struct vcpu *vcpu)
{
    for (;;) {
        if (ioctl(vcpu->fd, KVM_RUN, 0) < 0) {
            /* EAGAIN: a vCPU that waits for its start-up interrupt was woken. */
            if (errno != EINTR && errno != EAGAIN) {
                crash(vcpu, errno);
                return false;
            }
            count(vcpu, KVM_EXIT_KIND_INTERRUPTED);
            if (told_to_stop(vcpu))
                return true;
            throttle_rest(vcpu);
            continue;
        }

        switch (vcpu->run->exit_reason) {
        case KVM_EXIT_IO: handle_pio(vcpu); break;
        case KVM_EXIT_MMIO: handle_mmio(vcpu); break;
        case KVM_EXIT_HLT: count(vcpu, KVM_EXIT_KIND_HALT); break;
        case KVM_EXIT_INTR: count(vcpu, KVM_EXIT_KIND_INTERRUPTED); break;
        case KVM_EXIT_IRQ_WINDOW_OPEN:
        case KVM_EXIT_SET_TPR: count(vcpu, KVM_EXIT_KIND_OTHER); break;
        default:
            count(vcpu, KVM_EXIT_KIND_OTHER);
            crash(vcpu, 0);
            return false;
        }
    }
}

static void *vcpu_thread(void *opaque)
{
    struct vcpu *vcpu = opaque;
    struct kvm_vm *vm = vcpu->vm;
    sigset_t kick;

    sigemptyset(&kick);
    sigaddset(&kick, KVM_KICK_SIGNAL);
    pthread_sigmask(SIG_UNBLOCK, &kick, NULL);

    pthread_mutex_lock(&vm->lock);
    throttle_begin(vcpu);
    for (;;) {
        while (!vm->quit && (vm->stop || vcpu->crashed))
            pthread_cond_wait(&vm->go, &vm->lock);
        if (vm->quit)
            break;
        vcpu->running = true;
        vm->running_count++;
        set_immediate_exit(vcpu, false);
        pthread_mutex_unlock(&vm->lock);

        bool crashed = !run(vcpu);

        pthread_mutex_lock(&vm->lock);
        vcpu->crashed = crashed;
        vcpu->running = false;
        vm->running_count--;
        pthread_cond_broadcast(&vm->parked);
    }
    pthread_mutex_unlock(&vm->lock);
    return NULL;
}

int vcpu_create(struct kvm_vm *vm, unsigned index, struct error *err)
{
    struct vcpu *vcpu = aligned_alloc(_Alignof(struct vcpu), sizeof(*vcpu));
    void *run;

    if (!vcpu)
        return error_set(err, ENOMEM, "vCPU %u: out of memory", index);
    *vcpu = (struct vcpu){.vm = vm, .index = index, .fd = -1};
    vm->vcpus[index] = vcpu; /* the VM's destroy frees it, however far this gets */

    vcpu->fd = ioctl(vm->fd, KVM_CREATE_VCPU, index);
    if (vcpu->fd < 0)
        return error_errno(err, errno, "KVM_CREATE_VCPU of vCPU %u", index);
    run = mmap(NULL, vm->run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
    if (run == MAP_FAILED)
        return error_errno(err, errno, "mapping the run page of vCPU %u", index);
    vcpu->run = run;
    return 0;
}

int vcpu_start(struct vcpu *vcpu, struct error *err)
{
    char name[16];
    int r;

    snprintf(name, sizeof(name), "vcpu%u", vcpu->index);
    r = thread_start(&vcpu->thread, name, KVM_THREAD_STACK_BYTES, vcpu_thread, vcpu, err);
    vcpu->has_thread = r == 0;
    return r;
}

void vcpu_destroy(struct vcpu *vcpu)
{
    if (!vcpu)
        return;
    if (vcpu->has_thread)
        pthread_join(vcpu->thread, NULL);
    throttle_end(vcpu);
    if (vcpu->run)
        munmap(vcpu->run, vcpu->vm->run_bytes);
    if (vcpu->fd >= 0)
        close(vcpu->fd);
    free(vcpu->power_on);
    free(vcpu->moving);
    free(vcpu);
}
