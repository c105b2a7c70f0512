/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CPU state: what a power-on leaves in the vCPUs and interrupt controllers,
 * kept to be put back at each reset; and the entry of the boot processor.
 *
 * Putting back follows the one order that KVM's own parts ask for: special
 * registers (with the APIC base) before registers, the local APIC after them and
 * before MSRs (a timer deadline needs its mode), events and run state last.
 */
#include "internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

enum {
    MSR_TSC = 0x10,
    MSR_TSC_ADJUST = 0x3b,
    MSR_MISC_ENABLE = 0x1a0,
    MSR_MTRR_PHYS_FIRST = 0x200,
    MSR_MTRR_PHYS_LAST = 0x20f,
    MSR_MTRR_DEF_TYPE = 0x2ff,
};
#define MSR_AMD_TSC_RATIO 0xc0000104u

#define MISC_ENABLE_FAST_STRING (1u << 0)
#define MTRR_ENABLE_WRITE_BACK (1u << 11 | 6u)

#define CR0_PE (1u << 0)
#define CR0_ET (1u << 4)
#define CR0_PG (1u << 31)
#define CR4_PAE (1u << 5)
#define EFER_LME (1u << 8)
#define EFER_LMA (1u << 10)
#define RFLAGS_ALWAYS_ONE (1u << 1)

/* Intel SDM, "Memory Cache Control": KVM keeps these, but they are not in its list. */
static const uint32_t mtrr_fixed[] = {0x250, 0x258, 0x259, 0x268, 0x269, 0x26a,
                                      0x26b, 0x26c, 0x26d, 0x26e, 0x26f};
#define MTRR_COUNT \
    (sizeof(mtrr_fixed) / sizeof(mtrr_fixed[0]) + MSR_MTRR_PHYS_LAST - MSR_MTRR_PHYS_FIRST + 2)

/* A clock is no state of a reset: all vCPUs' counters run on together. */
static bool is_clock(uint32_t index)
{
    return index == MSR_TSC || index == MSR_TSC_ADJUST || index == MSR_AMD_TSC_RATIO;
}

static int list_msrs(struct kvm_vm *vm, struct kvm_msrs **ret_msrs, struct error *err)
{
    struct kvm_msr_list probe = {.nmsrs = 0}, *list;
    struct kvm_msrs *msrs;

    /* Asking with no room tells how many there are. */
    if (ioctl(vm->device_fd, KVM_GET_MSR_INDEX_LIST, &probe) < 0 && errno != E2BIG)
        return error_errno(err, errno, "KVM_GET_MSR_INDEX_LIST");
    list = calloc(1, sizeof(*list) + probe.nmsrs * sizeof(list->indices[0]));
    msrs = calloc(1, sizeof(*msrs) + (probe.nmsrs + MTRR_COUNT) * sizeof(msrs->entries[0]));
    if (!list || !msrs) {
        free(list);
        free(msrs);
        return error_set(err, ENOMEM, "list of MSRs: out of memory");
    }
    list->nmsrs = probe.nmsrs;
    if (ioctl(vm->device_fd, KVM_GET_MSR_INDEX_LIST, list) < 0) {
        int r = error_errno(err, errno, "KVM_GET_MSR_INDEX_LIST");

        free(list);
        free(msrs);
        return r;
    }

    for (unsigned i = 0; i < list->nmsrs; i++)
        if (!is_clock(list->indices[i]))
            msrs->entries[msrs->nmsrs++].index = list->indices[i];
    for (unsigned i = 0; i < sizeof(mtrr_fixed) / sizeof(mtrr_fixed[0]); i++)
        msrs->entries[msrs->nmsrs++].index = mtrr_fixed[i];
    for (uint32_t i = MSR_MTRR_PHYS_FIRST; i <= MSR_MTRR_PHYS_LAST; i++)
        msrs->entries[msrs->nmsrs++].index = i;
    msrs->entries[msrs->nmsrs++].index = MSR_MTRR_DEF_TYPE;
    free(list);
    *ret_msrs = msrs;
    return 0;
}

/*
 * Read or write them all. KVM stops at the first that it refuses and says how
 * many it did: that one is struck off, and so proven to be out of the guest's
 * reach as well, and the rest done again.
 */
static int sift_msrs(int fd, unsigned long request, struct kvm_msrs *msrs, struct error *err)
{
    while (msrs->nmsrs > 0) {
        int done = ioctl(fd, request, msrs);

        if (done < 0)
            return error_errno(err, errno, "MSRs of vCPU 0");
        if ((unsigned)done >= msrs->nmsrs)
            return 0;
        msrs->nmsrs--;
        memmove(&msrs->entries[done], &msrs->entries[done + 1],
                (msrs->nmsrs - (unsigned)done) * sizeof(msrs->entries[0]));
    }
    return 0;
}

static int capture_msrs(struct kvm_vm *vm, struct error *err)
{
    int fd = vm->vcpus[0]->fd;
    int r = list_msrs(vm, &vm->common.msrs, err);

    if (r == 0)
        r = sift_msrs(fd, KVM_GET_MSRS, vm->common.msrs, err);
    if (r < 0)
        return r;

    /* What firmware would have done before any kernel: fast strings, and memory is cached. */
    for (unsigned i = 0; i < vm->common.msrs->nmsrs; i++) {
        struct kvm_msr_entry *msr = &vm->common.msrs->entries[i];

        if (msr->index == MSR_MISC_ENABLE)
            msr->data |= MISC_ENABLE_FAST_STRING;
        if (msr->index == MSR_MTRR_DEF_TYPE)
            msr->data = MTRR_ENABLE_WRITE_BACK;
    }
    return sift_msrs(fd, KVM_SET_MSRS, vm->common.msrs, err);
}

static struct kvm_device_attr tsc_offset_attr(uint64_t *offset)
{
    return (struct kvm_device_attr){
        .group = KVM_VCPU_TSC_CTRL,
        .attr = KVM_VCPU_TSC_OFFSET,
        .addr = (uintptr_t)offset,
    };
}

/* One step of a table of ioctls: what it is called when it fails, and where the data is. */
struct step {
    const char *name;
    unsigned long request;
    void *arg;
};

static int do_steps(int fd, unsigned vcpu, const struct step *steps, struct error *err)
{
    for (; steps->name; steps++)
        if (steps->arg && ioctl(fd, steps->request, steps->arg) < 0)
            return error_errno(err, errno, "%s of vCPU %u", steps->name, vcpu);
    return 0;
}

static int capture_own(struct vcpu *vcpu, struct error *err)
{
    struct own_state *own = &vcpu->own;
    const struct step steps[] = {
        {"KVM_GET_MP_STATE", KVM_GET_MP_STATE, &own->mp},
        {"KVM_GET_SREGS", KVM_GET_SREGS, &own->sregs},
        {"KVM_GET_LAPIC", KVM_GET_LAPIC, &own->lapic},
        {0},
    };
    struct kvm_device_attr offset = tsc_offset_attr(&own->tsc_offset);

    own->has_tsc_offset = ioctl(vcpu->fd, KVM_GET_DEVICE_ATTR, &offset) == 0;
    return do_steps(vcpu->fd, vcpu->index, steps, err);
}

static int capture_chips(struct kvm_vm *vm, struct error *err)
{
    /*
     * Also the order in which they are put back: KVM looks at both PICs after each, and a
     * second one that still holds an interrupt would leave its mark in the first.
     */
    static const unsigned ids[] = {KVM_IRQCHIP_PIC_SLAVE, KVM_IRQCHIP_PIC_MASTER,
                                   KVM_IRQCHIP_IOAPIC};

    for (unsigned i = 0; i < 3; i++) {
        vm->common.chips[i].chip_id = ids[i];
        if (ioctl(vm->fd, KVM_GET_IRQCHIP, &vm->common.chips[i]) < 0)
            return error_errno(err, errno, "KVM_GET_IRQCHIP of chip %u", ids[i]);
    }
    if (ioctl(vm->fd, KVM_GET_PIT2, &vm->common.pit) < 0)
        return error_errno(err, errno, "KVM_GET_PIT2");
    return 0;
}

int regs_capture(struct kvm_vm *vm, struct error *err)
{
    struct common_state *common = &vm->common;
    int xsave2 = ioctl(vm->fd, KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2);
    bool large = xsave2 > (int)sizeof(struct kvm_xsave);
    int r;

    common->has_xcrs = ioctl(vm->device_fd, KVM_CHECK_EXTENSION, KVM_CAP_XCRS) > 0;
    common->xsave = calloc(1, large ? (size_t)xsave2 : sizeof(struct kvm_xsave));
    if (!common->xsave)
        return error_set(err, ENOMEM, "power-on state: out of memory");

    const struct step steps[] = {
        {"KVM_GET_REGS", KVM_GET_REGS, &common->regs},
        {"KVM_GET_XSAVE", large ? KVM_GET_XSAVE2 : KVM_GET_XSAVE, common->xsave},
        {"KVM_GET_XCRS", KVM_GET_XCRS, common->has_xcrs ? &common->xcrs : NULL},
        {"KVM_GET_DEBUGREGS", KVM_GET_DEBUGREGS, &common->debugregs},
        {"KVM_GET_VCPU_EVENTS", KVM_GET_VCPU_EVENTS, &common->events},
        {0},
    };
    r = do_steps(vm->vcpus[0]->fd, 0, steps, err);
    for (unsigned i = 0; r == 0 && i < vm->params.cpus; i++)
        r = capture_own(vm->vcpus[i], err);
    if (r == 0)
        r = capture_msrs(vm, err);
    for (unsigned i = 1; r == 0 && i < vm->params.cpus; i++)
        if (ioctl(vm->vcpus[i]->fd, KVM_SET_MSRS, common->msrs) != (int)common->msrs->nmsrs)
            r = error_set(err, EIO, "MSRs of vCPU %u differ from those of vCPU 0", i);
    return r < 0 ? r : capture_chips(vm, err);
}

static void clear_msr(int fd, uint32_t index)
{
    union {
        struct kvm_msrs msrs;
        uint8_t room[sizeof(struct kvm_msrs) + sizeof(struct kvm_msr_entry)];
    } one = {.msrs.nmsrs = 1};

    one.msrs.entries[0].index = index;
    one.msrs.entries[0].data = 0;
    (void)ioctl(fd, KVM_SET_MSRS, &one);
}

static int restore_vcpu(struct vcpu *vcpu, struct error *err)
{
    struct common_state *common = &vcpu->vm->common;
    struct own_state *own = &vcpu->own;
    struct kvm_mp_state flushed;
    const struct step before[] = {
        /* Reading it has KVM act on an INIT or SIPI that is still on its way. */
        {"KVM_GET_MP_STATE", KVM_GET_MP_STATE, &flushed},
        {"KVM_SET_SREGS", KVM_SET_SREGS, &own->sregs},
        {"KVM_SET_REGS", KVM_SET_REGS, &common->regs},
        {"KVM_SET_XSAVE", KVM_SET_XSAVE, common->xsave},
        {"KVM_SET_XCRS", KVM_SET_XCRS, common->has_xcrs ? &common->xcrs : NULL},
        {"KVM_SET_DEBUGREGS", KVM_SET_DEBUGREGS, &common->debugregs},
        {"KVM_SET_LAPIC", KVM_SET_LAPIC, &own->lapic},
        {0},
    };
    const struct step after[] = {
        {"KVM_SET_VCPU_EVENTS", KVM_SET_VCPU_EVENTS, &common->events},
        {"KVM_SET_MP_STATE", KVM_SET_MP_STATE, &own->mp},
        {0},
    };
    int done, r = do_steps(vcpu->fd, vcpu->index, before, err);

    if (r < 0)
        return r;
    done = ioctl(vcpu->fd, KVM_SET_MSRS, common->msrs);
    if (done < 0)
        return error_errno(err, errno, "KVM_SET_MSRS of vCPU %u", vcpu->index);
    if ((unsigned)done < common->msrs->nmsrs)
        return error_set(err, EIO, "KVM took no power-on value for MSR 0x%x of vCPU %u",
                         common->msrs->entries[done].index, vcpu->index);

    /*
     * A guest that wrote TSC or TSC_ADJUST moved this counter away from its
     * neighbours'. Only then: a needless write can cost the host's master clock.
     */
    uint64_t offset = own->tsc_offset;
    struct kvm_device_attr attr = tsc_offset_attr(&offset);
    if (own->has_tsc_offset && ioctl(vcpu->fd, KVM_GET_DEVICE_ATTR, &attr) == 0 &&
        offset != own->tsc_offset) {
        offset = own->tsc_offset;
        clear_msr(vcpu->fd, MSR_TSC_ADJUST); /* not every CPU has it */
        if (ioctl(vcpu->fd, KVM_SET_DEVICE_ATTR, &attr) < 0)
            return error_errno(err, errno, "TSC offset of vCPU %u", vcpu->index);
    }
    return do_steps(vcpu->fd, vcpu->index, after, err);
}

int regs_restore(struct kvm_vm *vm, struct error *err)
{
    for (unsigned i = 0; i < vm->params.cpus; i++) {
        int r = restore_vcpu(vm->vcpus[i], err);

        if (r < 0)
            return r;
    }
    for (unsigned i = 0; i < 3; i++)
        if (ioctl(vm->fd, KVM_SET_IRQCHIP, &vm->common.chips[i]) < 0)
            return error_errno(err, errno, "KVM_SET_IRQCHIP of chip %u",
                               vm->common.chips[i].chip_id);
    if (ioctl(vm->fd, KVM_SET_PIT2, &vm->common.pit) < 0)
        return error_errno(err, errno, "KVM_SET_PIT2");
    irqchip_redrive(vm);
    return 0;
}

void regs_fini(struct kvm_vm *vm)
{
    free(vm->common.xsave);
    free(vm->common.msrs);
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
    struct kvm_sregs sregs = vm->vcpus[0]->own.sregs;
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

    if (ioctl(fd, KVM_SET_SREGS, &sregs) < 0)
        return error_errno(err, errno, "KVM_SET_SREGS of vCPU 0");
    if (ioctl(fd, KVM_SET_REGS, &regs) < 0)
        return error_errno(err, errno, "KVM_SET_REGS of vCPU 0");
    return 0;
}
