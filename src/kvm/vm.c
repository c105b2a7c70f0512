/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The VM: built in the one order that is fast, started, stopped, reset.
 *
 * Memory slots come before the interrupt controllers. Registering those queues
 * an ordinary SRCU grace period, and a slot that is set afterwards waits for it:
 * 8 ms instead of 0.15 ms on Linux 6.18.
 *
 * A paused guest's clock stands still, as under QEMU (clock.c): it is read when the last vCPU has
 * stopped and put back before the first one goes on, so no watchdog in the guest sees the gap,
 * however long it was. The guest's wall clock is late by the length of the pause then; its RTC
 * knows better.
 */
#include "internal.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "cpuid.h"

/*
 * Three pages for a task state segment and one for a page table, which Intel
 * CPUs without unrestricted guest mode need to run real mode. Below the BIOS
 * area at the end of the first 4 GiB and above all devices.
 */
#define TSS_ADDR 0xfffbd000u
#define IDENTITY_MAP_ADDR 0xfffbc000u

int vm_set_slot(struct kvm_vm *vm, unsigned region, bool log, struct error *err)
{
    const struct memory_region *from = &vm->params.memory->regions[region];
    struct kvm_userspace_memory_region slot = {
        .slot = region,
        .flags = log ? KVM_MEM_LOG_DIRTY_PAGES : 0,
        .guest_phys_addr = from->gpa,
        .memory_size = from->size,
        .userspace_addr = (uintptr_t)from->host,
    };

    if (ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &slot) < 0)
        return error_errno(err, errno, "KVM_SET_USER_MEMORY_REGION of 0x%llx bytes at 0x%llx",
                           (unsigned long long)slot.memory_size,
                           (unsigned long long)slot.guest_phys_addr);
    return 0;
}

/* What a saved vCPU needs to be told from one that has delivered already; older KVMs have none. */
static int tell_events_apart(struct kvm_vm *vm, struct error *err)
{
    static const struct {
        uint32_t number;
        const char *name;
    } caps[] = {{KVM_CAP_EXCEPTION_PAYLOAD, "KVM_CAP_EXCEPTION_PAYLOAD"},
                {KVM_CAP_X86_TRIPLE_FAULT_EVENT, "KVM_CAP_X86_TRIPLE_FAULT_EVENT"}};

    for (size_t i = 0; i < sizeof(caps) / sizeof(caps[0]); i++) {
        struct kvm_enable_cap cap = {.cap = caps[i].number, .args = {1}};

        if (ioctl(vm->device_fd, KVM_CHECK_EXTENSION, cap.cap) > 0 &&
            ioctl(vm->fd, KVM_ENABLE_CAP, &cap) < 0)
            return error_errno(err, errno, "%s", caps[i].name);
    }
    return 0;
}

static int create_vm(struct kvm_vm *vm, struct error *err)
{
    uint64_t identity_map = IDENTITY_MAP_ADDR;
    struct kvm_enable_cap x2apic = {
        .cap = KVM_CAP_X2APIC_API,
        .args = {KVM_X2APIC_API_USE_32BIT_IDS | KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK},
    };

    do /* a signal during it makes KVM give up; nothing is lost by asking again */
        vm->fd = ioctl(vm->device_fd, KVM_CREATE_VM, 0);
    while (vm->fd < 0 && errno == EINTR);
    if (vm->fd < 0 && errno == EBUSY)
        return error_set(err, EBUSY, "KVM is busy: end the other hypervisor on this host first");
    if (vm->fd < 0)
        return error_errno(err, errno, "KVM_CREATE_VM");

    if (ioctl(vm->device_fd, KVM_CHECK_EXTENSION, KVM_CAP_X2APIC_API) > 0 &&
        ioctl(vm->fd, KVM_ENABLE_CAP, &x2apic) < 0)
        return error_errno(err, errno, "KVM_CAP_X2APIC_API");
    if (ioctl(vm->fd, KVM_SET_TSS_ADDR, TSS_ADDR) < 0)
        return error_errno(err, errno, "KVM_SET_TSS_ADDR");
    if (ioctl(vm->fd, KVM_SET_IDENTITY_MAP_ADDR, &identity_map) < 0)
        return error_errno(err, errno, "KVM_SET_IDENTITY_MAP_ADDR");
    int r = tell_events_apart(vm, err);
    for (unsigned i = 0; r == 0 && i < vm->params.memory->count; i++)
        r = vm_set_slot(vm, i, false, err);
    return r < 0 ? r : irqchip_create(vm, err);
}

/* The CPU of the model, or the one that was saved where this host can give it. */
static int choose_cpu(struct kvm_vm *vm, struct cpuid_table *table, struct error *err)
{
    int tsc_khz = ioctl(vm->vcpus[0]->fd, KVM_GET_TSC_KHZ, 0);

    vm->tsc_khz = tsc_khz > 0 ? (unsigned)tsc_khz : 0;
    if (vm->params.cpuid)
        return cpuid_take_saved(vm->device_fd, vm->params.cpuid, vm->params.cpuid_len, table, err);
    return cpuid_of_model(vm->device_fd, vm->params.cpu_model, vm->tsc_khz, table, err);
}

static int create_vcpus(struct kvm_vm *vm, struct error *err)
{
    unsigned cpus = vm->params.cpus;
    int r = 0;

    vm->cpuid = malloc(sizeof(*vm->cpuid));
    if (!vm->cpuid)
        return error_set(err, ENOMEM, "CPU description: out of memory");
    for (unsigned i = 0; r == 0 && i < cpus; i++) {
        r = vcpu_create(vm, i, err);
        if (r == 0 && i == 0)
            r = choose_cpu(vm, vm->cpuid, err);
        if (r == 0) {
            cpuid_apply_topology(vm->cpuid, i, cpus);
            r = ioctl(vm->vcpus[i]->fd, KVM_SET_CPUID2, vm->cpuid);
            if (r < 0)
                r = error_errno(err, errno, "KVM_SET_CPUID2 of vCPU %u", i);
        }
    }
    if (r == 0)
        cpuid_apply_topology(vm->cpuid, 0, cpus);
    return r;
}

int kvm_vm_create(const struct kvm_vm_params *params, struct kvm_vm **ret_vm, struct error *err)
{
    struct kvm_vm *vm = calloc(1, sizeof(*vm));
    pthread_condattr_t monotonic;
    unsigned max;
    int r;

    if (!vm)
        return error_set(err, ENOMEM, "out of memory");
    vm->params = *params;
    vm->device_fd = vm->fd = -1;
    vm->stop = true;
    pthread_mutex_init(&vm->lock, NULL);
    pthread_mutex_init(&vm->route_lock, NULL);
    pthread_cond_init(&vm->go, NULL);
    pthread_cond_init(&vm->parked, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&vm->wake, &monotonic);
    pthread_condattr_destroy(&monotonic);

    r = host_open("/dev/kvm", &vm->device_fd, err);
    if (r < 0)
        goto fail;
    r = host_check_capabilities(vm->device_fd, err);
    if (r < 0)
        goto fail;
    max = host_max_cpus(vm->device_fd);
    if (params->cpus < 1 || params->cpus > max) {
        r = error_set(err, EINVAL, "%u CPUs: this host's KVM takes 1 to %u", params->cpus, max);
        goto fail;
    }
    vm->vcpus = calloc(params->cpus, sizeof(struct vcpu *));
    if (!vm->vcpus) {
        r = error_set(err, ENOMEM, "out of memory");
        goto fail;
    }
    vm->run_bytes = (size_t)ioctl(vm->device_fd, KVM_GET_VCPU_MMAP_SIZE, 0);

    r = host_install_kick(err);
    if (r == 0)
        r = create_vm(vm, err);
    if (r == 0)
        r = create_vcpus(vm, err);
    if (r == 0)
        r = regs_capture(vm, err);
    for (unsigned i = 0; r == 0 && i < params->cpus; i++)
        r = vcpu_start(vm->vcpus[i], err);
    if (r < 0)
        goto fail;

    *ret_vm = vm;
    return 0;

fail:
    kvm_vm_destroy(vm);
    return r;
}

void kvm_vm_destroy(struct kvm_vm *vm)
{
    if (!vm)
        return;
    if (vm->vcpus) {
        kvm_vm_request_pause(vm);
        pthread_mutex_lock(&vm->lock);
        vm->quit = true;
        pthread_cond_broadcast(&vm->go);
        pthread_mutex_unlock(&vm->lock);
        for (unsigned i = 0; i < vm->params.cpus; i++)
            vcpu_destroy(vm->vcpus[i]);
    }
    free(vm->vcpus);
    free(vm->cpuid);
    dirty_fini(vm);
    irqchip_fini(vm);
    if (vm->fd >= 0)
        close(vm->fd);
    if (vm->device_fd >= 0)
        close(vm->device_fd);
    pthread_cond_destroy(&vm->wake);
    pthread_cond_destroy(&vm->parked);
    pthread_cond_destroy(&vm->go);
    pthread_mutex_destroy(&vm->route_lock);
    pthread_mutex_destroy(&vm->lock);
    free(vm);
}

void kvm_vm_resume(struct kvm_vm *vm)
{
    pthread_mutex_lock(&vm->lock);
    if (vm->stop) {
        clock_start(vm);
        vm->stop = false;
        pthread_cond_broadcast(&vm->go);
    }
    pthread_mutex_unlock(&vm->lock);
}

void kvm_vm_request_pause(struct kvm_vm *vm)
{
    pthread_mutex_lock(&vm->lock);
    if (!vm->stop) {
        vm->stop = true;
        for (unsigned i = 0; i < vm->params.cpus; i++)
            if (vm->vcpus[i])
                vcpu_kick(vm->vcpus[i]);
        pthread_cond_broadcast(&vm->wake);
    }
    pthread_mutex_unlock(&vm->lock);
}

void kvm_vm_pause(struct kvm_vm *vm)
{
    kvm_vm_request_pause(vm);
    pthread_mutex_lock(&vm->lock);
    while (vm->running_count > 0)
        pthread_cond_wait(&vm->parked, &vm->lock);
    clock_stop(vm);
    pthread_mutex_unlock(&vm->lock);
}

int kvm_vm_reset(struct kvm_vm *vm, struct error *err)
{
    int r;

    pthread_mutex_lock(&vm->lock);
    assert(vm->stop && vm->running_count == 0);
    r = regs_restore(vm, err);
    for (unsigned i = 0; r == 0 && i < vm->params.cpus; i++)
        vm->vcpus[i]->crashed = false;
    pthread_mutex_unlock(&vm->lock);
    return r < 0 ? error_prefix(err, "reset") : 0;
}

void kvm_vm_exit_counts(const struct kvm_vm *vm, uint64_t counts[KVM_EXIT_KINDS])
{
    for (unsigned kind = 0; kind < KVM_EXIT_KINDS; kind++) {
        counts[kind] = 0;
        for (unsigned i = 0; i < vm->params.cpus; i++)
            counts[kind] += atomic_load_explicit(&vm->vcpus[i]->exits[kind], memory_order_relaxed);
    }
}

const char *kvm_exit_kind_name(enum kvm_exit_kind kind)
{
    static const char *const names[KVM_EXIT_KINDS] = {
        [KVM_EXIT_KIND_PIO] = "pio",     [KVM_EXIT_KIND_MMIO] = "mmio",
        [KVM_EXIT_KIND_HALT] = "halt",   [KVM_EXIT_KIND_INTERRUPTED] = "interrupted",
        [KVM_EXIT_KIND_OTHER] = "other",
    };
    return kind < KVM_EXIT_KINDS ? names[kind] : "unknown";
}
