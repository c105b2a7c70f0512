/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vcpu_state: all of a vCPU out of KVM and back, for resets and for snapshots alike.
 *
 * The order is not free. Reading: the run state first, because that has KVM act on an INIT or SIPI
 * on its way, which changes everything else; the deadline of the timer before the local APIC: KVM
 * clears it when it raises the interrupt, also behind a stopped vCPU, and one that fires in between
 * would be in neither. (Twice is harmless: it is the same bit of the IRR.) Writing: special
 * registers (with the APIC base) before registers, the local APIC after them and before MSRs, a
 * deadline after the TSC, events (which registers clear) and run state last.
 */
#include "internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

_Static_assert(offsetof(struct kvm_sregs2, gdt) == offsetof(struct kvm_sregs, gdt) &&
                   offsetof(struct kvm_sregs2, flags) ==
                       offsetof(struct kvm_sregs, interrupt_bitmap),
               "both forms of the special registers begin alike");

int vcpu_do_steps(const struct vcpu *vcpu, const struct vcpu_step *steps, struct error *err)
{
    for (; steps->name; steps++)
        if (steps->arg && ioctl(vcpu->fd, steps->request, steps->arg) < 0)
            return error_errno(err, errno, "%s of vCPU %u", steps->name, vcpu->index);
    return 0;
}

/* The second form, with the PDPTRs of a guest that pages in PAE mode, where KVM has it. */
int vcpu_get_sregs(struct vcpu *vcpu, struct kvm_sregs2 *ret_sregs, struct error *err)
{
    struct kvm_sregs first;

    if (vcpu->vm->has_sregs2) {
        if (ioctl(vcpu->fd, KVM_GET_SREGS2, ret_sregs) < 0)
            return error_errno(err, errno, "KVM_GET_SREGS2 of vCPU %u", vcpu->index);
        return 0;
    }
    if (ioctl(vcpu->fd, KVM_GET_SREGS, &first) < 0)
        return error_errno(err, errno, "KVM_GET_SREGS of vCPU %u", vcpu->index);
    memset(ret_sregs, 0, sizeof(*ret_sregs));
    memcpy(ret_sregs, &first, offsetof(struct kvm_sregs2, flags));
    return 0;
}

int vcpu_set_sregs(struct vcpu *vcpu, const struct kvm_sregs2 *sregs, struct error *err)
{
    struct kvm_sregs first = {0};
    int r;

    if (vcpu->vm->has_sregs2) {
        r = ioctl(vcpu->fd, KVM_SET_SREGS2, sregs);
    } else { /* KVM then reads the PDPTRs from memory */
        memcpy(&first, sregs, offsetof(struct kvm_sregs2, flags));
        r = ioctl(vcpu->fd, KVM_SET_SREGS, &first);
    }
    /* That way in, KVM takes any EFER, and a CPU may not; by this one it looks at it. */
    if (r == 0 && msr_set_one(vcpu, MSR_EFER, sregs->efer) < 0) {
        errno = EINVAL;
        r = -1;
    }
    if (r < 0)
        return error_errno(err, errno,
                           "KVM refuses special registers of vCPU %u (cr0 0x%llx, cr3 0x%llx, cr4 "
                           "0x%llx, efer 0x%llx, apic_base 0x%llx)",
                           vcpu->index, (unsigned long long)sregs->cr0,
                           (unsigned long long)sregs->cr3, (unsigned long long)sregs->cr4,
                           (unsigned long long)sregs->efer, (unsigned long long)sregs->apic_base);
    return 0;
}

int vcpu_state_get_own(struct vcpu *vcpu, struct vcpu_state *ret_state, struct error *err)
{
    const struct vcpu_step steps[] = {
        {"KVM_GET_MP_STATE", KVM_GET_MP_STATE, &ret_state->run.mp},
        {"KVM_GET_LAPIC", KVM_GET_LAPIC, &ret_state->lapic.kvm},
        {0},
    };
    int r = vcpu_do_steps(vcpu, steps, err);

    ret_state->vcpu = vcpu;
    return r < 0 ? r : vcpu_get_sregs(vcpu, &ret_state->sregs, err);
}

/* Reserved bytes are not events. */
bool vcpu_same_events(const struct kvm_vcpu_events *a, const struct kvm_vcpu_events *b)
{
    return memcmp(&a->exception, &b->exception, sizeof(a->exception)) == 0 &&
           memcmp(&a->interrupt, &b->interrupt, sizeof(a->interrupt)) == 0 &&
           memcmp(&a->nmi, &b->nmi, sizeof(a->nmi)) == 0 &&
           memcmp(&a->smi, &b->smi, sizeof(a->smi)) == 0 &&
           a->triple_fault.pending == b->triple_fault.pending &&
           a->exception_has_payload == b->exception_has_payload &&
           (!a->exception_has_payload || a->exception_payload == b->exception_payload);
}

int vcpu_state_get(struct vcpu *vcpu, struct vcpu_state *ret_state, struct error *err)
{
    struct kvm_vm *vm = vcpu->vm;
    struct kvm_vcpu_events before;
    const struct vcpu_step first[] = {
        {"KVM_GET_MP_STATE", KVM_GET_MP_STATE, &ret_state->run.mp},
        {"KVM_GET_VCPU_EVENTS", KVM_GET_VCPU_EVENTS, &before},
        {"KVM_GET_REGS", KVM_GET_REGS, &ret_state->regs},
        {"KVM_GET_XSAVE", vm->has_xsave2 ? KVM_GET_XSAVE2 : KVM_GET_XSAVE, ret_state->xsave},
        {"KVM_GET_XCRS", KVM_GET_XCRS, vm->has_xcrs ? &ret_state->xcrs : NULL},
        {"KVM_GET_DEBUGREGS", KVM_GET_DEBUGREGS, &ret_state->debugregs},
        {0},
    };
    const struct vcpu_step last[] = {
        {"KVM_GET_LAPIC", KVM_GET_LAPIC, &ret_state->lapic.kvm},
        {"KVM_GET_VCPU_EVENTS", KVM_GET_VCPU_EVENTS, &ret_state->events},
        {0},
    };
    uint64_t offset;
    int r;

    memset(ret_state, 0, sizeof(*ret_state));
    ret_state->vcpu = vcpu;
    ret_state->run.crashed = vcpu->crashed;
    r = vcpu_do_steps(vcpu, first, err);
    if (r == 0)
        r = vcpu_get_sregs(vcpu, &ret_state->sregs, err);
    if (r < 0)
        return r;
    if (msr_get_one(vcpu, MSR_TSC_DEADLINE, &ret_state->tsc.deadline) < 0)
        ret_state->tsc.deadline = 0;
    if (vcpu->has_tsc_offset && tsc_get_offset(vcpu, &offset))
        ret_state->tsc.moved = (int64_t)(offset - vcpu->tsc_offset);
    r = vcpu_do_steps(vcpu, last, err);
    if (r == 0)
        r = msrs_get(vcpu, &ret_state->msrs, err);
    /* A vCPU that stands still has the same events as a moment ago, but for an NMI of the PIT's. */
    before.nmi.pending = ret_state->events.nmi.pending;
    if (r == 0 && !vcpu_same_events(&before, &ret_state->events))
        r = error_set(err, EIO, "vCPU %u changed while it was read", vcpu->index);
    return r;
}

int vcpu_state_set_registers(struct vcpu *vcpu, const struct vcpu_state *state, struct error *err)
{
    struct kvm_mp_state flushed;
    /* The kernel only reads these. */
    struct vcpu_state *from = (struct vcpu_state *)state;
    const struct vcpu_step flush[] = {
        /* Reading it has KVM act on an INIT or SIPI that is still on its way. */
        {"KVM_GET_MP_STATE", KVM_GET_MP_STATE, &flushed},
        {0},
    };
    const struct vcpu_step steps[] = {
        {"KVM_SET_REGS", KVM_SET_REGS, &from->regs},
        {"KVM_SET_XSAVE", KVM_SET_XSAVE, from->xsave},
        {"KVM_SET_XCRS", KVM_SET_XCRS, state->xcrs.nr_xcrs ? &from->xcrs : NULL},
        {"KVM_SET_DEBUGREGS", KVM_SET_DEBUGREGS, &from->debugregs},
        {"KVM_SET_LAPIC", KVM_SET_LAPIC, &from->lapic.kvm},
        {0},
    };
    int r = vcpu_do_steps(vcpu, flush, err);

    if (r == 0)
        r = vcpu_set_sregs(vcpu, &state->sregs, err);
    if (r == 0)
        r = vcpu_do_steps(vcpu, steps, err);
    return r < 0 ? r : msrs_set(vcpu, &state->msrs, err);
}

int vcpu_state_set_rest(struct vcpu *vcpu, const struct vcpu_state *state, struct error *err)
{
    struct vcpu_state *from = (struct vcpu_state *)state;
    const struct vcpu_step steps[] = {
        {"KVM_SET_VCPU_EVENTS", KVM_SET_VCPU_EVENTS, &from->events},
        {"KVM_SET_MP_STATE", KVM_SET_MP_STATE, &from->run.mp},
        {0},
    };

    if (state->tsc.deadline && msr_set_one(vcpu, MSR_TSC_DEADLINE, state->tsc.deadline) < 0)
        return error_set(err, ENOTSUP, "vCPU %u: KVM refuses a TSC_DEADLINE", vcpu->index);
    return vcpu_do_steps(vcpu, steps, err);
}
