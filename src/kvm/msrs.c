/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Model-specific registers: which of them make up a vCPU, all at once, and by name when KVM does
 * not do as it is told.
 *
 * KVM_GET_MSRS and KVM_SET_MSRS stop at the first register that they refuse and say how many they
 * did. What a guest of ours cannot reach (performance counters, nested virtualization) is left out.
 */
#include "internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

/* Intel SDM, "Model-Specific Registers"; AMD APM volume 2; Linux's kvm/x86/msr.rst. */
enum {
    MSR_KVM_WALL_CLOCK = 0x11,
    MSR_MCG_CAP = 0x179,
    MSR_MISC_ENABLE = 0x1a0,
    MSR_MTRR_PHYS_FIRST = 0x200,
    MSR_MTRR_PHYS_LAST = 0x20f,
    MSR_MTRR_DEF_TYPE = 0x2ff,
    MSR_MC0_CTL = 0x400,
    MSR_KVM_FIRST = 0x4b564d00,
    MSR_KVM_WALL_CLOCK_NEW = 0x4b564d00,
    MSR_KVM_LAST = 0x4b564d07,
};

#define MCE_BANKS 32u /* the most that KVM has */
#define MISC_ENABLE_FAST_STRING (1u << 0)
#define MTRR_ENABLE_WRITE_BACK (1u << 11 | 6u)

/* KVM keeps these, but they are not in its list: fixed MTRRs; TSC_AUX, on some hosts. */
static const uint32_t unlisted[] = {0x250, 0x258, 0x259, 0x268, 0x269, 0x26a,
                                    0x26b, 0x26c, 0x26d, 0x26e, 0x26f, 0xc0000103};

static const struct {
    uint32_t first, last;
} left_out[] = {
    {MSR_TSC, MSR_TSC},                   /* clocks run on; clock.c has them */
    {MSR_TSC_DEADLINE, MSR_TSC_DEADLINE}, /* comes last of all, after the TSC */
    /* Setting one has KVM write the time to the guest's memory there and then; it keeps nothing. */
    {MSR_KVM_WALL_CLOCK, MSR_KVM_WALL_CLOCK},
    {MSR_KVM_WALL_CLOCK_NEW, MSR_KVM_WALL_CLOCK_NEW},
    {0xe7, 0xe8},             /* MPERF, APERF */
    {0xc0000104, 0xc0000104}, /* AMD's TSC ratio, of nested guests */
    {0x40000010, 0x40000010}, /* Hyper-V: VP_RUNTIME */
    {0x40000020, 0x40000020}, /* Hyper-V: TIME_REF_COUNT */
    {0x40000022, 0x40000023}, /* Hyper-V: TSC_FREQUENCY, APIC_FREQUENCY; here's, never set */
    {0xc1, 0xc8},             /* performance counters */
    {0x186, 0x18d},
    {0x309, 0x30c},
    {0x345, 0x345},
    {0x38d, 0x390},
    {0x3f1, 0x3f2},
    {0x4c1, 0x4c8},
    {0xc0010000, 0xc0010007},
    {0xc0010200, 0xc001020b},
    {0xc0000300, 0xc0000303},
    {0x480, 0x491},           /* what nested VMX can do */
    {0xc0010114, 0xc0010117}, /* nested SVM */
};

static const struct {
    uint32_t index;
    const char *name;
} names[] = {
    {0x10, "TSC"},
    {0x1b, "APIC_BASE"},
    {0x3a, "FEATURE_CONTROL"},
    {0x3b, "TSC_ADJUST"},
    {0x48, "SPEC_CTRL"},
    {0x8b, "UCODE_REV"},
    {0xce, "PLATFORM_INFO"},
    {0x10a, "ARCH_CAPABILITIES"},
    {0x122, "TSX_CTRL"},
    {0x140, "MISC_FEATURES_ENABLES"},
    {0x174, "SYSENTER_CS"},
    {0x175, "SYSENTER_ESP"},
    {0x176, "SYSENTER_EIP"},
    {MSR_MCG_CAP, "MCG_CAP"},
    {0x17a, "MCG_STATUS"},
    {0x17b, "MCG_CTL"},
    {MSR_MISC_ENABLE, "MISC_ENABLE"},
    {0x277, "PAT"},
    {MSR_MTRR_DEF_TYPE, "MTRR_DEF_TYPE"},
    {0x4d0, "MCG_EXT_CTL"},
    {MSR_TSC_DEADLINE, "TSC_DEADLINE"},
    {0xd90, "BNDCFGS"},
    {0xda0, "XSS"},
    {0x4b564d01, "KVM_SYSTEM_TIME_NEW"},
    {0x4b564d02, "KVM_ASYNC_PF_EN"},
    {0x4b564d03, "KVM_STEAL_TIME"},
    {0x4b564d04, "KVM_PV_EOI_EN"},
    {0x4b564d05, "KVM_POLL_CONTROL"},
    {0x4b564d06, "KVM_ASYNC_PF_INT"},
    {0x4b564d07, "KVM_ASYNC_PF_ACK"},
    {0xc0000080, "EFER"},
    {0xc0000081, "STAR"},
    {0xc0000082, "LSTAR"},
    {0xc0000083, "CSTAR"},
    {0xc0000084, "SYSCALL_MASK"},
    {0xc0000100, "FS_BASE"},
    {0xc0000101, "GS_BASE"},
    {0xc0000102, "KERNEL_GS_BASE"},
    {0xc0000103, "TSC_AUX"},
    {0xc001001f, "AMD NB_CFG"},
    {0xc0010015, "AMD HWCR"},
    {0xc001011f, "VIRT_SPEC_CTRL"},
};

/* As KVM wants them. */
struct request {
    union {
        struct kvm_msrs msrs;
        uint8_t room[sizeof(struct kvm_msrs) + MSR_ROOM * sizeof(struct kvm_msr_entry)];
    };
};

/* "0xc0000080 (EFER)". */
const char *msr_name(uint32_t index, char buf[40])
{
    const char *name = NULL;

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (names[i].index == index)
            name = names[i].name;
    snprintf(buf, 40, name ? "0x%x (%s)" : "0x%x", index, name);
    return buf;
}

static bool has(const struct msr_set *set, uint32_t index)
{
    for (uint32_t i = 0; i < set->count; i++)
        if (set->index[i] == index)
            return true;
    return false;
}

static bool is_left_out(uint32_t index)
{
    for (size_t i = 0; i < sizeof(left_out) / sizeof(left_out[0]); i++)
        if (index >= left_out[i].first && index <= left_out[i].last)
            return true;
    return false;
}

/* Once each; -E2BIG when there is no room. */
static int add(struct msr_set *set, uint32_t index, struct error *err)
{
    if (is_left_out(index) || has(set, index))
        return 0;
    if (set->count == MSR_ROOM)
        return error_set(err, E2BIG, "KVM lists more than %u MSRs", MSR_ROOM);
    set->index[set->count++] = index;
    return 0;
}

static int add_listed(struct kvm_vm *vm, struct error *err)
{
    struct kvm_msr_list probe = {.nmsrs = 0}, *list;
    int r = 0;

    /* Asking with no room tells how many there are. */
    if (ioctl(vm->device_fd, KVM_GET_MSR_INDEX_LIST, &probe) < 0 && errno != E2BIG)
        return error_errno(err, errno, "KVM_GET_MSR_INDEX_LIST");
    list = calloc(1, sizeof(*list) + probe.nmsrs * sizeof(list->indices[0]));
    if (!list)
        return error_set(err, ENOMEM, "list of MSRs: out of memory");
    list->nmsrs = probe.nmsrs;
    if (ioctl(vm->device_fd, KVM_GET_MSR_INDEX_LIST, list) < 0)
        r = error_errno(err, errno, "KVM_GET_MSR_INDEX_LIST");
    for (unsigned i = 0; r == 0 && i < list->nmsrs; i++)
        r = add(&vm->msrs, list->indices[i], err);
    free(list);
    return r;
}

static void fill(struct request *request, const struct msr_set *set)
{
    request->msrs.nmsrs = set->count;
    request->msrs.pad = 0;
    for (uint32_t i = 0; i < set->count; i++)
        request->msrs.entries[i] =
            (struct kvm_msr_entry){.index = set->index[i], .data = set->data[i]};
}

/*
 * Read or write them all. What KVM refuses is struck off, and so proven to be out of the guest's
 * reach as well, and the rest done again.
 */
static int sift(struct vcpu *vcpu, unsigned long what, struct msr_set *set, struct error *err)
{
    struct request request;

    while (set->count > 0) {
        fill(&request, set);
        int done = ioctl(vcpu->fd, what, &request.msrs);

        if (done < 0)
            return error_errno(err, errno, "MSRs of vCPU %u", vcpu->index);
        if ((uint32_t)done >= set->count)
            break;
        set->count--;
        memmove(&set->index[done], &set->index[done + 1],
                (set->count - (uint32_t)done) * sizeof(set->index[0]));
        memmove(&set->data[done], &set->data[done + 1],
                (set->count - (uint32_t)done) * sizeof(set->data[0]));
    }
    for (uint32_t i = 0; what == KVM_GET_MSRS && i < set->count; i++)
        set->data[i] = request.msrs.entries[i].data;
    return 0;
}

/* Which errors a guest wants to be told of. There are none to tell, but it may look. */
static int add_machine_checks(struct kvm_vm *vm, struct error *err)
{
    uint64_t cap;
    int r = 0;

    if (msr_get_one(vm->vcpus[0], MSR_MCG_CAP, &cap) < 0)
        return 0;
    for (uint32_t i = 0; r == 0 && i < (cap & 0xff) && i < MCE_BANKS; i++)
        r = add(&vm->msrs, MSR_MC0_CTL + 4 * i, err);
    return r;
}

int msrs_list(struct kvm_vm *vm, struct error *err)
{
    struct msr_set *set = &vm->msrs;
    int r = add_listed(vm, err);

    if (r == 0)
        r = add_machine_checks(vm, err);
    for (uint32_t i = MSR_KVM_FIRST; r == 0 && i <= MSR_KVM_LAST; i++)
        r = add(set, i, err);
    for (size_t i = 0; r == 0 && i < sizeof(unlisted) / sizeof(unlisted[0]); i++)
        r = add(set, unlisted[i], err);
    for (uint32_t i = MSR_MTRR_PHYS_FIRST; r == 0 && i <= MSR_MTRR_PHYS_LAST; i++)
        r = add(set, i, err);
    if (r == 0)
        r = add(set, MSR_MTRR_DEF_TYPE, err);
    if (r == 0)
        r = sift(vm->vcpus[0], KVM_GET_MSRS, set, err);
    if (r < 0)
        return r;

    /* What firmware would have done before any kernel: fast strings, and memory is cached. */
    for (uint32_t i = 0; i < set->count; i++) {
        if (set->index[i] == MSR_MISC_ENABLE)
            set->data[i] |= MISC_ENABLE_FAST_STRING;
        if (set->index[i] == MSR_MTRR_DEF_TYPE)
            set->data[i] = MTRR_ENABLE_WRITE_BACK;
    }
    return sift(vm->vcpus[0], KVM_SET_MSRS, set, err);
}

int msrs_get(struct vcpu *vcpu, struct msr_set *ret_set, struct error *err)
{
    struct request request;
    char name[40];
    int done;

    *ret_set = vcpu->vm->msrs;
    fill(&request, ret_set);
    done = ioctl(vcpu->fd, KVM_GET_MSRS, &request.msrs);
    if (done < 0)
        return error_errno(err, errno, "KVM_GET_MSRS of vCPU %u", vcpu->index);
    if ((uint32_t)done < ret_set->count)
        return error_set(err, EIO, "vCPU %u: KVM does not tell MSR %s", vcpu->index,
                         msr_name(ret_set->index[done], name));
    for (uint32_t i = 0; i < ret_set->count; i++)
        ret_set->data[i] = request.msrs.entries[i].data;
    return 0;
}

int msrs_set(struct vcpu *vcpu, const struct msr_set *set, struct error *err)
{
    struct msr_set known = {.count = 0};
    struct request request;
    char name[40];
    int done;

    /*
     * One that another host has and this one lacks matters when there is something in it. What is
     * left out may be in what an older vmrun saved.
     */
    for (uint32_t i = 0; i < set->count; i++) {
        if (has(&vcpu->vm->msrs, set->index[i])) {
            known.index[known.count] = set->index[i];
            known.data[known.count++] = set->data[i];
        } else if (set->data[i] && !is_left_out(set->index[i])) {
            return error_set(err, ENOTSUP, "vCPU %u: this host's KVM has no MSR %s, to be 0x%llx",
                             vcpu->index, msr_name(set->index[i], name),
                             (unsigned long long)set->data[i]);
        }
    }
    fill(&request, &known);
    done = ioctl(vcpu->fd, KVM_SET_MSRS, &request.msrs);
    if (done < 0)
        return error_errno(err, errno, "KVM_SET_MSRS of vCPU %u", vcpu->index);
    if ((uint32_t)done < known.count)
        return error_set(err, ENOTSUP, "vCPU %u: KVM refuses 0x%llx for MSR %s", vcpu->index,
                         (unsigned long long)known.data[done], msr_name(known.index[done], name));
    return 0;
}

#define SYSENTER_ESP 0x175u
#define SYSENTER_EIP 0x176u

/*
 * AMD's SYSENTER knows 32 bits of stack and entry, and no 64-bit mode: a guest writes 64 bits, and
 * KVM keeps the low half of what it is given back.
 */
static bool same_value(uint32_t index, uint64_t wanted, uint64_t now)
{
    bool halved = index == SYSENTER_ESP || index == SYSENTER_EIP;

    return now == wanted || (halved && now == (uint32_t)wanted);
}

int msrs_compare(struct vcpu *vcpu, const struct msr_set *wanted, struct error *err)
{
    struct msr_set now;
    char name[40];
    int r = msrs_get(vcpu, &now, err);

    if (r < 0)
        return r;
    for (uint32_t i = 0; i < wanted->count; i++)
        for (uint32_t k = 0; k < now.count; k++)
            if (wanted->index[i] == now.index[k] &&
                !same_value(now.index[k], wanted->data[i], now.data[k]))
                return error_set(err, EIO, "vCPU %u: MSR %s was set to 0x%llx and is 0x%llx",
                                 vcpu->index, msr_name(now.index[k], name),
                                 (unsigned long long)wanted->data[i],
                                 (unsigned long long)now.data[k]);
    return 0;
}

int msr_get_one(struct vcpu *vcpu, uint32_t index, uint64_t *ret_value)
{
    struct request request;

    request.msrs.nmsrs = 1;
    request.msrs.entries[0] = (struct kvm_msr_entry){.index = index};
    if (ioctl(vcpu->fd, KVM_GET_MSRS, &request.msrs) != 1)
        return -EIO;
    *ret_value = request.msrs.entries[0].data;
    return 0;
}

int msr_set_one(struct vcpu *vcpu, uint32_t index, uint64_t value)
{
    struct request request;

    request.msrs.nmsrs = 1;
    request.msrs.entries[0] = (struct kvm_msr_entry){.index = index, .data = value};
    return ioctl(vcpu->fd, KVM_SET_MSRS, &request.msrs) == 1 ? 0 : -EIO;
}
