/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vm_state: KVM's half of a machine as tables, and giving it back to KVM.
 *
 * The first table of a vCPU fetches the whole vCPU when it is saved, the first of the chips all
 * chips; the others only lie beside it. Loading fills structures and nothing else:
 * kvm_vm_apply_state() then hands them to the kernel in its own order. A stream chooses no index
 * and no size here: the kernel judges the values, and what it took is read back.
 */
#include "internal.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/ioctl.h>

#include "vmrun/state.h"

#define R(name) STATE(struct kvm_regs, name)
static const struct state_field regs_fields[] = {
    R(rax), R(rbx), R(rcx), R(rdx), R(rsi), R(rdi), R(rsp), R(rbp),    R(r8),     R(r9),
    R(r10), R(r11), R(r12), R(r13), R(r14), R(r15), R(rip), R(rflags), STATE_END,
};

/* Segments as arrays of eight: cs, ds, es, fs, gs, ss, tr, ldt. */
#define S(name) STATE(struct kvm_sregs2, name)
#define SEGMENTS(member) \
    { \
        .name = "segments." #member, .offset = offsetof(struct kvm_sregs2, cs.member), .count = 8, \
        .stride = sizeof(struct kvm_segment), STATE_SHAPE(((struct kvm_sregs2 *)0)->cs.member) \
    }
_Static_assert(offsetof(struct kvm_sregs2, ldt) == 7 * sizeof(struct kvm_segment),
               "eight segments in a row");
static const struct state_field sregs_fields[] = {
    SEGMENTS(base),
    SEGMENTS(limit),
    SEGMENTS(selector),
    SEGMENTS(type),
    SEGMENTS(present),
    SEGMENTS(dpl),
    SEGMENTS(db),
    SEGMENTS(s),
    SEGMENTS(l),
    SEGMENTS(g),
    SEGMENTS(avl),
    SEGMENTS(unusable),
    S(gdt.base),
    S(gdt.limit),
    S(idt.base),
    S(idt.limit),
    S(cr0),
    S(cr2),
    S(cr3),
    S(cr4),
    S(cr8),
    S(efer),
    S(apic_base),
    S(flags),
    STATE_ARRAY(struct kvm_sregs2, pdptrs),
    STATE_END,
};

/* Extended state in the standard form of XSAVE, and what turns its parts on. */
static const struct state_field xsave_fields[] = {
    STATE_ARRAY(struct vcpu_state, xsave),
    STATE(struct vcpu_state, xcrs.nr_xcrs, .max = KVM_MAX_XCRS),
    STATE(struct vcpu_state, xcrs.flags),
    STATE_EACH(struct vcpu_state, xcrs.xcrs, xcr),
    STATE_EACH(struct vcpu_state, xcrs.xcrs, value),
    STATE_END,
};

static const struct state_field debugregs_fields[] = {
    STATE_ARRAY(struct kvm_debugregs, db), STATE(struct kvm_debugregs, dr6),
    STATE(struct kvm_debugregs, dr7), STATE(struct kvm_debugregs, flags), STATE_END};

/* 64 registers of 32 bits, 16 bytes from one to the next. */
static const struct state_field lapic_fields[] = {
    {.name = "regs", .offset = 0, .count = KVM_APIC_REG_SIZE / 16, .stride = 16, .size = 4},
    STATE_END};

static const struct state_field msrs_fields[] = {STATE(struct msr_set, count, .max = MSR_ROOM),
                                                 STATE_ARRAY(struct msr_set, index),
                                                 STATE_ARRAY(struct msr_set, data), STATE_END};

#define E(name) STATE(struct kvm_vcpu_events, name)
static const struct state_field events_fields[] = {
    E(exception.injected),
    E(exception.nr),
    E(exception.has_error_code),
    E(exception.pending),
    E(exception.error_code),
    E(exception_has_payload),
    E(exception_payload),
    E(interrupt.injected),
    E(interrupt.nr),
    E(interrupt.soft),
    E(interrupt.shadow),
    E(nmi.injected),
    E(nmi.pending),
    E(nmi.masked),
    E(sipi_vector),
    E(flags),
    E(smi.smm),
    E(smi.pending),
    E(smi.smm_inside_nmi),
    E(smi.latched_init),
    E(triple_fault.pending),
    STATE_END,
};

static const struct state_field run_fields[] = {STATE(struct vcpu_run_state, mp.mp_state),
                                                STATE(struct vcpu_run_state, crashed), STATE_END};

static const struct state_field tsc_fields[] = {STATE(struct vcpu_tsc_state, moved),
                                                STATE(struct vcpu_tsc_state, deadline), STATE_END};

#define P(name) STATE(struct kvm_pic_state, name)
static const struct state_field pic_fields[] = {
    P(last_irr),
    P(irr),
    P(imr),
    P(isr),
    P(priority_add),
    P(irq_base),
    P(read_reg_select),
    P(poll),
    P(special_mask),
    P(init_state),
    P(auto_eoi),
    P(rotate_on_auto_eoi),
    P(special_fully_nested_mode),
    P(init4),
    P(elcr),
    P(elcr_mask),
    STATE_END,
};

static const struct state_field ioapic_fields[] = {
    STATE(struct kvm_ioapic_state, base_address),
    STATE(struct kvm_ioapic_state, ioregsel),
    STATE(struct kvm_ioapic_state, id),
    STATE(struct kvm_ioapic_state, irr),
    STATE_EACH(struct kvm_ioapic_state, redirtbl, bits),
    STATE_END,
};

#define C(name) STATE_EACH(struct kvm_pit_state2, channels, name)
/* Not when a channel was loaded: that is in the time of the host. */
static const struct state_field pit_fields[] = {
    C(count),
    C(latched_count),
    C(count_latched),
    C(status_latched),
    C(status),
    C(read_state),
    C(write_state),
    C(write_latch),
    C(rw_mode),
    C(mode),
    C(bcd),
    C(gate),
    STATE(struct kvm_pit_state2, flags),
    STATE_END,
};

static const struct state_field lines_fields[] = {STATE(struct chips_state, lines), STATE_END};

static const struct state_field clock_fields[] = {
    STATE(struct clock_state, clock_ns, .max = MAX_CLOCK_NS),
    STATE(struct clock_state, realtime_ns), STATE(struct clock_state, tsc),
    STATE(struct clock_state, tsc_khz), STATE_END};

static void must_stand_still(struct kvm_vm *vm)
{
    pthread_mutex_lock(&vm->lock);
    assert(vm->stop && vm->running_count == 0);
    pthread_mutex_unlock(&vm->lock);
}

static int fetch_vcpu(void *obj, struct error *err)
{
    struct vcpu_state *state = container_of(obj, struct vcpu_state, regs);

    must_stand_still(state->vcpu->vm);
    return vcpu_state_get(state->vcpu, state, err);
}

static int fetch_chips(void *obj, struct error *err)
{
    struct kvm_vm *vm = container_of(obj, struct kvm_vm, moving_chips);

    must_stand_still(vm);
    return irqchip_get(vm, &vm->moving_chips, err);
}

static int fetch_clock(void *obj, struct error *err)
{
    struct kvm_vm *vm = container_of(obj, struct kvm_vm, moving_clock);

    must_stand_still(vm);
    pthread_mutex_lock(&vm->lock);
    clock_stop(vm); /* of a machine that never ran */
    vm->moving_clock = vm->clock;
    pthread_mutex_unlock(&vm->lock);
    return vm->has_clock ? 0 : error_set(err, EIO, "KVM does not tell the guest's clock");
}

#define DESC(what, hook) \
    static const struct state_desc what##_desc = { \
        .name = #what, .version = 1, .fields = what##_fields, .pre_save = (hook)}
DESC(regs, fetch_vcpu);
DESC(sregs, NULL);
DESC(xsave, NULL);
DESC(debugregs, NULL);
DESC(lapic, NULL);
DESC(msrs, NULL);
DESC(events, NULL);
DESC(run, NULL);
DESC(tsc, NULL);
DESC(lines, fetch_chips);
DESC(pic, NULL);
DESC(ioapic, NULL);
DESC(pit, NULL);
DESC(clock, fetch_clock);

struct part {
    const char *id;
    const struct state_desc *desc;
    void *obj;
};

static int add_vcpu(struct vcpu *vcpu, struct state_registry *registry, struct error *err)
{
    struct vcpu_state *s = vcpu->moving;

    if (!s)
        s = vcpu->moving = calloc(1, sizeof(*s));
    if (!s)
        return error_set(err, ENOMEM, "state of vCPU %u: out of memory", vcpu->index);
    s->vcpu = vcpu;
    const struct part parts[] = {
        {"regs", &regs_desc, &s->regs},
        {"sregs", &sregs_desc, &s->sregs},
        {"xsave", &xsave_desc, s},
        {"debugregs", &debugregs_desc, &s->debugregs},
        {"lapic", &lapic_desc, &s->lapic},
        {"msrs", &msrs_desc, &s->msrs},
        {"events", &events_desc, &s->events},
        {"run", &run_desc, &s->run},
        {"tsc", &tsc_desc, &s->tsc},
    };

    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        char id[48];

        snprintf(id, sizeof(id), "vcpu%u.%s", vcpu->index, parts[i].id);
        int r = state_registry_add(registry, id, parts[i].desc, parts[i].obj, NULL, err);
        if (r < 0)
            return r;
    }
    return 0;
}

int kvm_vm_add_state(struct kvm_vm *vm, struct state_registry *registry, struct error *err)
{
    struct chips_state *c = &vm->moving_chips;
    const struct part parts[] = {
        {"lines", &lines_desc, c},
        {"pic0", &pic_desc, &c->chips[CHIP_PIC0].chip.pic},
        {"pic1", &pic_desc, &c->chips[CHIP_PIC1].chip.pic},
        {"ioapic", &ioapic_desc, &c->chips[CHIP_IOAPIC].chip.ioapic},
        {"pit", &pit_desc, &c->pit},
        {"clock", &clock_desc, &vm->moving_clock},
    };
    int r = 0;

    for (unsigned i = 0; r == 0 && i < vm->params.cpus; i++)
        r = add_vcpu(vm->vcpus[i], registry, err);
    for (size_t i = 0; r == 0 && i < sizeof(parts) / sizeof(parts[0]); i++)
        r = state_registry_add(registry, parts[i].id, parts[i].desc, parts[i].obj, NULL, err);
    return r;
}

uint64_t kvm_vm_saved_realtime_ns(const struct kvm_vm *vm)
{
    return vm->moving_clock.realtime_ns;
}

static int apply(struct kvm_vm *vm, uint64_t advance_ns, struct error *err)
{
    unsigned cpus = vm->params.cpus;
    int r = 0;

    for (unsigned i = 0; r == 0 && i < cpus; i++)
        r = vcpu_state_set_registers(vm->vcpus[i], vm->vcpus[i]->moving, err);
    if (r == 0)
        r = tsc_take_over(vm, advance_ns, err);
    for (unsigned i = 0; r == 0 && i < cpus; i++)
        r = vcpu_state_set_rest(vm->vcpus[i], vm->vcpus[i]->moving, err);
    for (unsigned i = 0; r == 0 && i < cpus; i++)
        r = vcpu_state_compare(vm->vcpus[i], vm->vcpus[i]->moving, err);
    if (r < 0)
        return r;
    for (unsigned i = 0; i < cpus; i++)
        vm->vcpus[i]->crashed = vm->vcpus[i]->moving->run.crashed;

    /*
     * Chips after local APICs, which take what the IOAPIC holds. Lines before them: a line that
     * rises later is an edge, and the guest would see an interrupt that it has seen before.
     */
    irqchip_preset(vm, vm->moving_chips.lines);
    r = irqchip_set(vm, &vm->moving_chips, err);
    if (r < 0)
        return r;
    return clock_take_over(vm, advance_ns, err);
}

int kvm_vm_apply_state(struct kvm_vm *vm, uint64_t advance_ns, struct error *err)
{
    must_stand_still(vm);
    pthread_mutex_lock(&vm->lock);
    int r = apply(vm, advance_ns, err);
    pthread_mutex_unlock(&vm->lock);
    return r;
}
