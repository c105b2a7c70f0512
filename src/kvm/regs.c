/* SPDX-License-Identifier: Apache-2.0 */
/*
 * regs: what a power-on leaves in the vCPUs and interrupt controllers, kept to be put back at each
 * reset; and the entry of the boot processor. How a vCPU is read and written is vcpu_state.c's.
 */
#include "internal.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/ioctl.h>

#define CR0_PE (1u << 0)
#define CR0_ET (1u << 4)
#define CR0_PG (1u << 31)
#define CR4_PAE (1u << 5)
#define EFER_LME (1u << 8)
#define EFER_LMA (1u << 10)
#define RFLAGS_ALWAYS_ONE (1u << 1)

/* Room for what KVM keeps beside the general registers, and which forms of it this host has. */
static int probe(struct kvm_vm *vm, struct error *err)
{
    int xsave = ioctl(vm->fd, KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2);

    vm->has_sregs2 = ioctl(vm->fd, KVM_CHECK_EXTENSION, KVM_CAP_SREGS2) > 0;
    vm->has_xcrs = ioctl(vm->fd, KVM_CHECK_EXTENSION, KVM_CAP_XCRS) > 0;
    vm->has_xsave2 = xsave > (int)sizeof(struct kvm_xsave);
    if (xsave > XSAVE_ROOM)
        return error_set(err, ENOTSUP, "KVM wants %d bytes for a CPU's extended state, not %d",
                         xsave, XSAVE_ROOM);
    return 0;
}

/* What all have alike is read from vCPU 0 alone. */
static int capture_vcpus(struct kvm_vm *vm, struct error *err)
{
    struct vcpu *first = vm->vcpus[0];
    int r = 0;

    for (unsigned i = 0; r == 0 && i < vm->params.cpus; i++) {
        struct vcpu *vcpu = vm->vcpus[i];

        vcpu->power_on = calloc(1, sizeof(*vcpu->power_on));
        if (!vcpu->power_on)
            return error_set(err, ENOMEM, "power-on state: out of memory");
        vcpu->has_tsc_offset = tsc_get_offset(vcpu, &vcpu->tsc_offset);
        if (i == 0) {
            r = vcpu_state_get(vcpu, vcpu->power_on, err);
        } else {
            *vcpu->power_on = *first->power_on;
            r = vcpu_state_get_own(vcpu, vcpu->power_on, err);
            if (r == 0)
                r = msrs_set(vcpu, &vm->msrs, err);
        }
    }
    return r;
}

int regs_capture(struct kvm_vm *vm, struct error *err)
{
    int r = probe(vm, err);

    if (r == 0)
        r = msrs_list(vm, err);
    if (r == 0)
        r = capture_vcpus(vm, err);
    return r < 0 ? r : irqchip_get(vm, &vm->power_on_chips, err);
}

static int restore_vcpu(struct vcpu *vcpu, struct error *err)
{
    uint64_t offset;
    int r = vcpu_state_set_registers(vcpu, vcpu->power_on, err);

    if (r < 0)
        return r;
    /*
     * A guest that wrote TSC or TSC_ADJUST moved this counter away from its
     * neighbours'. Only then: a needless write can cost the host's master clock.
     */
    if (vcpu->has_tsc_offset && tsc_get_offset(vcpu, &offset) && offset != vcpu->tsc_offset &&
        !tsc_set_offset(vcpu, vcpu->tsc_offset))
        return error_set(err, EIO, "TSC offset of vCPU %u: KVM keeps another", vcpu->index);
    return vcpu_state_set_rest(vcpu, vcpu->power_on, err);
}

int regs_restore(struct kvm_vm *vm, struct error *err)
{
    for (unsigned i = 0; i < vm->params.cpus; i++) {
        int r = restore_vcpu(vm->vcpus[i], err);

        if (r < 0)
            return r;
    }
    int r = irqchip_set(vm, &vm->power_on_chips, err);
    if (r == 0)
        irqchip_redrive(vm);
    return r;
}

static struct kvm_segment flat(uint16_t selector, bool code, bool long_mode)
{
    return (struct kvm_segment){
        .limit = 0xffffffff,
        .selector = selector,
        .type = code ? 0xb : 0x3, /* accessed, and readable or writable */
        .present = 1,
        .db = !long_mode || !code,
        .s = 1,
        .l = long_mode && code,
        .g = 1,
    };
}

int kvm_vm_set_entry(struct kvm_vm *vm, const struct cpu_entry *entry, struct error *err)
{
    int fd = vm->vcpus[0]->fd;
    bool long_mode = entry->mode == CPU_ENTRY_LONG;
    struct kvm_sregs2 sregs = vm->vcpus[0]->power_on->sregs;
    struct kvm_regs regs = {
        .rip = entry->rip,
        .rsp = entry->rsp,
        .rbx = entry->rbx,
        .rsi = entry->rsi,
        .rflags = RFLAGS_ALWAYS_ONE,
    };

    sregs.cs = flat(entry->code_selector, true, long_mode);
    sregs.ds = flat(entry->data_selector, false, long_mode);
    sregs.es = sregs.fs = sregs.gs = sregs.ss = sregs.ds;
    /* PVH wants a 32-bit TSS of 0x68 bytes; the type means the same in 64-bit mode. */
    sregs.tr = (struct kvm_segment){.limit = 0x67, .type = 0xb, .present = 1};
    sregs.gdt = (struct kvm_dtable){.base = entry->gdt_base, .limit = entry->gdt_limit};
    sregs.idt = (struct kvm_dtable){0};
    sregs.cr0 = CR0_PE | CR0_ET;
    sregs.cr4 = 0;
    sregs.efer = 0;
    if (long_mode) {
        sregs.cr0 |= CR0_PG;
        sregs.cr3 = entry->cr3;
        sregs.cr4 = CR4_PAE;
        sregs.efer = EFER_LME | EFER_LMA;
    }

    int r = vcpu_set_sregs(vm->vcpus[0], &sregs, err);
    if (r < 0)
        return r;
    if (ioctl(fd, KVM_SET_REGS, &regs) < 0)
        return error_errno(err, errno, "KVM_SET_REGS of vCPU 0");
    return 0;
}
