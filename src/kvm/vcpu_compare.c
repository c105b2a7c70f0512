/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vcpu_compare: what KVM has of a vCPU against what it was given. Some KVMs take a register and
 * keep another without a word, and a guest that goes on with it is lost much later and elsewhere.
 *
 * Left out is what may differ for a reason: time has gone on, or nobody can see it.
 */
#include "internal.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#include "cpuid.h"

struct value {
    const char *name;
    uint64_t wanted, now;
};

static int differs(const struct vcpu *vcpu, const struct value *value, struct error *err)
{
    return error_set(err, EIO, "vCPU %u: %s was set to 0x%llx and is 0x%llx", vcpu->index,
                     value->name, (unsigned long long)value->wanted,
                     (unsigned long long)value->now);
}

static int compare_values(const struct vcpu *vcpu, const struct value *values, struct error *err)
{
    for (; values->name; values++)
        if (values->wanted != values->now)
            return differs(vcpu, values, err);
    return 0;
}

static int compare_regs(struct vcpu *vcpu, const struct kvm_regs *w, struct error *err)
{
    struct kvm_regs n;
    const struct vcpu_step step[] = {{"KVM_GET_REGS", KVM_GET_REGS, &n}, {0}};
    int r = vcpu_do_steps(vcpu, step, err);

    if (r < 0)
        return r;
    const struct value values[] = {
        {"rip", w->rip, n.rip},
        {"rflags", w->rflags, n.rflags},
        {"rsp", w->rsp, n.rsp},
        {"rax", w->rax, n.rax},
        {"rbx", w->rbx, n.rbx},
        {"rcx", w->rcx, n.rcx},
        {"rdx", w->rdx, n.rdx},
        {"rsi", w->rsi, n.rsi},
        {"rdi", w->rdi, n.rdi},
        {"rbp", w->rbp, n.rbp},
        {"r8", w->r8, n.r8},
        {"r9", w->r9, n.r9},
        {"r10", w->r10, n.r10},
        {"r11", w->r11, n.r11},
        {"r12", w->r12, n.r12},
        {"r13", w->r13, n.r13},
        {"r14", w->r14, n.r14},
        {"r15", w->r15, n.r15},
        {0},
    };
    return compare_values(vcpu, values, err);
}

static int compare_segment(struct vcpu *vcpu, const char *name, const struct kvm_segment *w,
                           const struct kvm_segment *n, struct error *err)
{
    const struct value values[] = {
        {"base", w->base, n->base},
        {"limit", w->limit, n->limit},
        {"selector", w->selector, n->selector},
        {"type", w->type, n->type},
        {"present", w->present, n->present},
        {"dpl", w->dpl, n->dpl},
        {"db", w->db, n->db},
        {"s", w->s, n->s},
        {"l", w->l, n->l},
        {"g", w->g, n->g},
        {0},
    };

    /* What an unusable one holds nobody sees, and CPUs keep different parts of it. */
    if ((w->unusable || !w->present) && (n->unusable || !n->present))
        return 0;
    return compare_values(vcpu, values, err) < 0 ? error_prefix(err, "segment %s", name) : 0;
}

static int compare_sregs(struct vcpu *vcpu, const struct kvm_sregs2 *w, struct error *err)
{
    static const char *const names[] = {"cs", "ds", "es", "fs", "gs", "ss", "tr", "ldt"};
    struct kvm_sregs2 n;
    int r = vcpu_get_sregs(vcpu, &n, err);

    if (r < 0)
        return r;
    const struct value values[] = {
        {"cr0", w->cr0, n.cr0},
        {"cr2", w->cr2, n.cr2},
        {"cr3", w->cr3, n.cr3},
        {"cr4", w->cr4, n.cr4},
        {"cr8", w->cr8, n.cr8},
        {"efer", w->efer, n.efer},
        {"apic_base", w->apic_base, n.apic_base},
        {"gdt.base", w->gdt.base, n.gdt.base},
        {"gdt.limit", w->gdt.limit, n.gdt.limit},
        {"idt.base", w->idt.base, n.idt.base},
        {"idt.limit", w->idt.limit, n.idt.limit},
        {0},
    };
    r = compare_values(vcpu, values, err);
    for (unsigned i = 0; r == 0 && i < sizeof(names) / sizeof(names[0]); i++)
        r = compare_segment(vcpu, names[i], &w->cs + i, &n.cs + i, err);
    return r;
}

/* Control registers of the extended state, and those for debugging. */
static int compare_xcrs_and_debugregs(struct vcpu *vcpu, const struct vcpu_state *wanted,
                                      struct error *err)
{
    const struct kvm_debugregs *w = &wanted->debugregs;
    struct kvm_xcrs xcrs = {0};
    struct kvm_debugregs n;
    const struct vcpu_step steps[] = {
        {"KVM_GET_DEBUGREGS", KVM_GET_DEBUGREGS, &n},
        {"KVM_GET_XCRS", KVM_GET_XCRS, vcpu->vm->has_xcrs ? &xcrs : NULL},
        {0},
    };
    int r = vcpu_do_steps(vcpu, steps, err);

    if (r < 0)
        return r;
    const struct value values[] = {
        {"dr0", w->db[0], n.db[0]},
        {"dr1", w->db[1], n.db[1]},
        {"dr2", w->db[2], n.db[2]},
        {"dr3", w->db[3], n.db[3]},
        {"dr6", w->dr6, n.dr6},
        {"dr7", w->dr7, n.dr7},
        {0},
    };
    r = compare_values(vcpu, values, err);
    for (uint32_t i = 0; r == 0 && i < wanted->xcrs.nr_xcrs; i++) {
        struct value xcr0 = {"xcr0", wanted->xcrs.xcrs[i].value, 0};

        for (uint32_t k = 0; k < xcrs.nr_xcrs && k < KVM_MAX_XCRS; k++)
            if (xcrs.xcrs[k].xcr == 0)
                xcr0.now = xcrs.xcrs[k].value;
        if (wanted->xcrs.xcrs[i].xcr == 0 && xcr0.wanted != xcr0.now)
            r = differs(vcpu, &xcr0, err);
    }
    return r;
}

/*
 * Intel SDM, "Standard Format of XSAVE Area": the legacy region, a header, and each further part
 * where CPUID says. A part that is not in use has no bytes that count.
 */
static int compare_xsave(struct vcpu *vcpu, const uint64_t *wanted, struct error *err)
{
    enum { FCW = 0, MXCSR = 24, ST0 = 32, XMM0 = 160, XMM_END = 416, XSTATE_BV = 512 / 8 };
    uint64_t now[XSAVE_ROOM / sizeof(uint64_t)] = {0};
    const struct vcpu_step step[] = {
        {"KVM_GET_XSAVE", vcpu->vm->has_xsave2 ? KVM_GET_XSAVE2 : KVM_GET_XSAVE, now}, {0}};
    const uint8_t *w = (const uint8_t *)wanted, *n = (const uint8_t *)now;
    uint64_t used = wanted[XSTATE_BV];
    int r = vcpu_do_steps(vcpu, step, err);

    if (r < 0)
        return r;
    if (used & 1 &&
        (memcmp(w + FCW, n + FCW, MXCSR) != 0 || memcmp(w + ST0, n + ST0, XMM0 - ST0) != 0))
        return error_set(err, EIO, "vCPU %u: the x87 registers are not what was set", vcpu->index);
    if (used & 2 &&
        (memcmp(w + MXCSR, n + MXCSR, 4) != 0 || memcmp(w + XMM0, n + XMM0, XMM_END - XMM0) != 0))
        return error_set(err, EIO, "vCPU %u: the SSE registers are not what was set", vcpu->index);
    for (unsigned i = 2; i < 63; i++) {
        const struct kvm_cpuid_entry2 *e =
            used >> i & 1 ? cpuid_find(vcpu->vm->cpuid, 0xd, i) : NULL;

        if (e && e->ebx < XSAVE_ROOM && e->eax <= XSAVE_ROOM - e->ebx &&
            memcmp(w + e->ebx, n + e->ebx, e->eax) != 0)
            return error_set(err, EIO, "vCPU %u: extended state %u is not what was set",
                             vcpu->index, i);
    }
    return 0;
}

/* Intel SDM, "Local APIC Register Address Map". */
static int compare_lapic(struct vcpu *vcpu, const uint32_t *wanted, struct error *err)
{
    enum { VERSION = 0x30, PPR = 0xa0, IRR_FIRST = 0x200, IRR_LAST = 0x270, TIMER_COUNT = 0x390 };
    union lapic_state now;
    const struct vcpu_step step[] = {{"KVM_GET_LAPIC", KVM_GET_LAPIC, &now.kvm}, {0}};
    int r = vcpu_do_steps(vcpu, step, err);

    for (unsigned at = 0; r == 0 && at < KVM_APIC_REG_SIZE; at += 16) {
        uint32_t w = wanted[at / 4], n = now.words[at / 4];

        /* KVM's own version; worked out from others; running. */
        if (at == VERSION || at == PPR || at == TIMER_COUNT)
            continue;
        if (at >= IRR_FIRST && at <= IRR_LAST)
            n &= w; /* a timer may have fired meanwhile */
        if (w != n)
            r = error_set(err, EIO,
                          "vCPU %u: register 0x%x of the local APIC was set to 0x%x and "
                          "is 0x%x",
                          vcpu->index, at, w, n);
    }
    return r;
}

/* A deadline that has passed may have become an interrupt, and is gone then. */
static int compare_deadline(struct vcpu *vcpu, uint64_t wanted, struct error *err)
{
    struct value deadline = {"TSC_DEADLINE", wanted, 0};
    uint64_t tsc;

    if (!wanted)
        return 0;
    if (msr_get_one(vcpu, MSR_TSC_DEADLINE, &deadline.now) < 0 ||
        msr_get_one(vcpu, MSR_TSC, &tsc) < 0)
        return error_set(err, EIO, "vCPU %u: KVM does not tell TSC_DEADLINE", vcpu->index);
    if (deadline.now == wanted || (deadline.now == 0 && wanted <= tsc))
        return 0;
    return differs(vcpu, &deadline, err);
}

static int compare_run(struct vcpu *vcpu, const struct vcpu_state *wanted, struct error *err)
{
    struct kvm_vcpu_events events;
    struct kvm_mp_state mp;
    const struct vcpu_step steps[] = {
        {"KVM_GET_MP_STATE", KVM_GET_MP_STATE, &mp},
        {"KVM_GET_VCPU_EVENTS", KVM_GET_VCPU_EVENTS, &events},
        {0},
    };
    int r = vcpu_do_steps(vcpu, steps, err);

    if (r < 0)
        return r;
    const struct value values[] = {{"run state", wanted->run.mp.mp_state, mp.mp_state}, {0}};
    if (!vcpu_same_events(&wanted->events, &events))
        return error_set(err, EIO, "vCPU %u: pending events are not what was set", vcpu->index);
    return compare_values(vcpu, values, err);
}

int vcpu_state_compare(struct vcpu *vcpu, const struct vcpu_state *wanted, struct error *err)
{
    /* The run state first: reading it has KVM act on what is on its way, and all the rest shows it.
     */
    int r = compare_run(vcpu, wanted, err);

    if (r == 0)
        r = compare_regs(vcpu, &wanted->regs, err);
    if (r == 0)
        r = compare_sregs(vcpu, &wanted->sregs, err);
    if (r == 0)
        r = compare_xcrs_and_debugregs(vcpu, wanted, err);
    if (r == 0)
        r = compare_xsave(vcpu, wanted->xsave, err);
    if (r == 0)
        r = compare_lapic(vcpu, wanted->lapic.words, err);
    if (r == 0)
        r = msrs_compare(vcpu, &wanted->msrs, err);
    return r < 0 ? r : compare_deadline(vcpu, wanted->tsc.deadline, err);
}
