/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CPU models and topology.
 *
 * Bits are those of the Intel SDM, "CPUID - CPU Identification", the AMD APM
 * volume 3, "Obtaining Processor Information Via the CPUID Instruction", and
 * Linux's Documentation/virt/kvm/x86/cpuid.rst. The levels are the x86-64 psABI's,
 * "Micro-Architecture Levels".
 */
#include "cpuid.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum reg { EAX, EBX, ECX, EDX };

#define BIT(n) (1u << (n))

#define HYPERVISOR_BASE 0x40000000u
#define HYPERVISOR_TIMING 0x40000010u
/* KVM's local APIC timer counts nanoseconds. */
#define APIC_BUS_KHZ 1000000u

struct bits {
    uint32_t function, index;
    enum reg reg;
    uint32_t mask;
};

/* What no model shows, since its state could not follow the guest to another host. */
static const struct bits hidden[] = {
    /* DTES64, MONITOR, DS-CPL, VMX, SMX, PDCM; OSXSAVE is the guest's to turn on */
    {0x1, 0, ECX, BIT(2) | BIT(3) | BIT(4) | BIT(5) | BIT(6) | BIT(15) | BIT(27)},
    {0x1, 0, EDX, BIT(21)},                    /* DS */
    {0x7, 0, EBX, BIT(2) | BIT(25)},           /* SGX, processor trace */
    {0x7, 0, ECX, BIT(4) | BIT(30)},           /* OSPKE (the guest's to turn on), SGX_LC */
    {0x7, 0, EDX, BIT(1) | BIT(15) | BIT(19)}, /* SGX_KEYS, hybrid, architectural LBR */
    /* SVM, IBS, SKINIT, WDT, node id, three kinds of performance counters */
    {0x80000001, 0, ECX,
     BIT(2) | BIT(10) | BIT(12) | BIT(13) | BIT(19) | BIT(23) | BIT(24) | BIT(28)},
    {0x80000007, 0, EDX, BIT(8)}, /* invariant TSC: the next host's counts at another rate */
    {HYPERVISOR_BASE + 1, 0, EAX, BIT(4) | BIT(10) | BIT(14)}, /* asynchronous page faults */
};

/* Leaves of the same kind, and those whose topology this file does not describe. */
static const uint32_t hidden_leaves[] = {
    0xa,        /* PMU */
    0x12,       /* SGX */
    0x14,       /* processor trace */
    0x1a,       /* hybrid */
    0x1c,       /* last branch records */
    0x1f,       /* topology, second form */
    0x23,       /* PMU, second form */
    0x8000000a, /* SVM */
    0x8000001b, /* IBS */
    0x8000001f, /* memory encryption */
    0x80000022, /* PMU */
    0x80000023, /* memory encryption keys */
    0x80000026, /* topology, second form */
};

struct feature {
    const char *name; /* as /proc/cpuinfo spells it */
    unsigned level;   /* of x86-64-vN; 1 is every 64-bit CPU */
    uint32_t function;
    enum reg reg;
    unsigned bit;
};

static const struct feature features[] = {
    {"fpu", 1, 0x1, EDX, 0},        {"cx8", 1, 0x1, EDX, 8},
    {"cmov", 1, 0x1, EDX, 15},      {"mmx", 1, 0x1, EDX, 23},
    {"fxsr", 1, 0x1, EDX, 24},      {"sse", 1, 0x1, EDX, 25},
    {"sse2", 1, 0x1, EDX, 26},      {"syscall", 1, 0x80000001, EDX, 11},
    {"lm", 1, 0x80000001, EDX, 29}, {"sse3", 2, 0x1, ECX, 0},
    {"ssse3", 2, 0x1, ECX, 9},      {"cx16", 2, 0x1, ECX, 13},
    {"sse4_1", 2, 0x1, ECX, 19},    {"sse4_2", 2, 0x1, ECX, 20},
    {"popcnt", 2, 0x1, ECX, 23},    {"lahf_lm", 2, 0x80000001, ECX, 0},
    {"fma", 3, 0x1, ECX, 12},       {"movbe", 3, 0x1, ECX, 22},
    {"xsave", 3, 0x1, ECX, 26},     {"avx", 3, 0x1, ECX, 28},
    {"f16c", 3, 0x1, ECX, 29},      {"bmi1", 3, 0x7, EBX, 3},
    {"avx2", 3, 0x7, EBX, 5},       {"bmi2", 3, 0x7, EBX, 8},
    {"abm", 3, 0x80000001, ECX, 5},
};

/*
 * What a named level may show beside its instructions: identification, what a
 * kernel needs to run a 64-bit system under a hypervisor, and mitigations (they
 * differ from host to host, and a guest that lacks one is not safe there).
 */
static const struct bits always_allowed[] = {
    {0x0, 0, EAX, ~0u},
    {0x0, 0, EBX, ~0u},
    {0x0, 0, ECX, ~0u},
    {0x0, 0, EDX, ~0u},
    {0x1, 0, EAX, ~0u},
    {0x1, 0, EBX, ~0u},
    /* PCID, x2APIC, TSC deadline, RDRAND, hypervisor */
    {0x1, 0, ECX, BIT(17) | BIT(21) | BIT(24) | BIT(30) | BIT(31)},
    /* all up to SSE2 that is not DS, the processor number, ACPI thermal; HTT */
    {0x1, 0, EDX, 0x178bfbff},
    {0x2, 0, EAX, ~0u},
    {0x2, 0, EBX, ~0u},
    {0x2, 0, ECX, ~0u},
    {0x2, 0, EDX, ~0u},
    {0x6, 0, EAX, BIT(2)}, /* ARAT: the APIC timer never stops */
    {0x7, 0, EAX, 0x2},    /* sub-leaves up to 2 */
    /* TSC_ADJUST, SMEP, ERMS, INVPCID, RDSEED, SMAP */
    {0x7, 0, EBX, BIT(1) | BIT(7) | BIT(9) | BIT(10) | BIT(18) | BIT(20)},
    {0x7, 0, ECX, BIT(2)}, /* UMIP */
    /* MD_CLEAR, SPEC_CTRL, STIBP, FLUSH_L1D, ARCH_CAPABILITIES, SSBD */
    {0x7, 0, EDX, BIT(10) | BIT(26) | BIT(27) | BIT(28) | BIT(29) | BIT(31)},
    {0x7, 2, EDX, 0x3f}, /* speculation controls */
    {0x80000000, 0, EAX, ~0u},
    {0x80000000, 0, EBX, ~0u},
    {0x80000000, 0, ECX, ~0u},
    {0x80000000, 0, EDX, ~0u},
    {0x80000001, 0, EAX, ~0u},
    {0x80000001, 0, EBX, ~0u},
    /* CMP_LEGACY, CR8_LEGACY, PREFETCHW, TOPOEXT */
    {0x80000001, 0, ECX, BIT(1) | BIT(4) | BIT(8) | BIT(22)},
    /* leaf 1 once more, SYSCALL, NX, 1 GiB pages, RDTSCP, long mode */
    {0x80000001, 0, EDX, 0x0183f3ff | BIT(11) | BIT(20) | BIT(26) | BIT(27) | BIT(29)},
    {0x80000008, 0, EAX, ~0u},
    /* IBPB, IBRS, STIBP, both always on, IBRS preferred; SSBD, PSFD, BTC_NO, IBPB_RET */
    {0x80000008, 0, EBX, 0x0001d000 | BIT(17) | BIT(18) | 0x77000000},
    /* LFENCE serializes, VERW_CLEAR, null selector clears, automatic IBRS; SRSO */
    {0x80000021, 0, EAX, BIT(2) | BIT(5) | BIT(6) | BIT(8) | 0x38000000},
    {0x80000021, 0, ECX, BIT(1) | BIT(2)}, /* TSA_SQ_NO, TSA_L1_NO */
};

/* Whole families of leaves that a named level keeps: caches and topology. */
static const uint32_t always_kept[] = {0x4, 0xb, 0x80000005, 0x80000006, 0x8000001d, 0x8000001e};

static uint32_t *reg_of(struct kvm_cpuid_entry2 *entry, enum reg reg)
{
    switch (reg) {
    case EAX: return &entry->eax;
    case EBX: return &entry->ebx;
    case ECX: return &entry->ecx;
    default: return &entry->edx;
    }
}

struct kvm_cpuid_entry2 *cpuid_find(struct cpuid_table *table, uint32_t function, uint32_t index)
{
    for (unsigned i = 0; i < table->count; i++) {
        struct kvm_cpuid_entry2 *entry = &table->entries[i];
        bool indexed = entry->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX;

        if (entry->function == function && (!indexed || entry->index == index))
            return entry;
    }
    return NULL;
}

static void remove_leaf(struct cpuid_table *table, uint32_t function)
{
    unsigned kept = 0;

    for (unsigned i = 0; i < table->count; i++)
        if (table->entries[i].function != function)
            table->entries[kept++] = table->entries[i];
    table->count = kept;
}

static struct kvm_cpuid_entry2 *add_entry(struct cpuid_table *table, uint32_t function,
                                          uint32_t index, bool indexed)
{
    if (table->count >= CPUID_MAX_ENTRIES)
        return NULL;

    struct kvm_cpuid_entry2 *entry = &table->entries[table->count++];
    *entry = (struct kvm_cpuid_entry2){
        .function = function,
        .index = index,
        .flags = indexed ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0,
    };
    return entry;
}

static void clear_bits(struct cpuid_table *table, uint32_t function, enum reg reg, uint32_t mask)
{
    struct kvm_cpuid_entry2 *entry = cpuid_find(table, function, 0);

    if (entry)
        *reg_of(entry, reg) &= ~mask;
}

static bool has_feature(struct cpuid_table *table, const struct feature *feature)
{
    struct kvm_cpuid_entry2 *entry = cpuid_find(table, feature->function, 0);

    return entry && *reg_of(entry, feature->reg) & BIT(feature->bit);
}

static bool is_amd(struct cpuid_table *table)
{
    struct kvm_cpuid_entry2 *entry = cpuid_find(table, 0, 0);
    char vendor[12];

    if (!entry)
        return false;
    memcpy(vendor, &entry->ebx, 4);
    memcpy(vendor + 4, &entry->edx, 4);
    memcpy(vendor + 8, &entry->ecx, 4);
    return memcmp(vendor, "AuthenticAMD", 12) == 0 || memcmp(vendor, "HygonGenuine", 12) == 0;
}

static int require_level(struct cpuid_table *table, unsigned level, struct error *err)
{
    char missing[200] = "";
    size_t len = 0;

    for (size_t i = 0; i < sizeof(features) / sizeof(features[0]); i++) {
        if (features[i].level > level || has_feature(table, &features[i]))
            continue;
        int n = snprintf(missing + len, sizeof(missing) - len, "%s%s", len ? ", " : "",
                         features[i].name);
        len += (size_t)n < sizeof(missing) - len ? (size_t)n : sizeof(missing) - len - 1;
    }
    if (len)
        return error_set(err, ENOTSUP,
                         "cpu.model: this host cannot give x86-64-v%u, its KVM lacks %s: "
                         "\"host\" takes what there is",
                         level, missing);
    return 0;
}

static uint32_t allowed_mask(const struct kvm_cpuid_entry2 *entry, enum reg reg, unsigned level)
{
    bool indexed = entry->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
    uint32_t index = indexed ? entry->index : 0, mask = 0;

    for (size_t i = 0; i < sizeof(always_allowed) / sizeof(always_allowed[0]); i++) {
        const struct bits *bits = &always_allowed[i];

        if (bits->function == entry->function && bits->index == index && bits->reg == reg)
            mask |= bits->mask;
    }
    for (size_t i = 0; i < sizeof(features) / sizeof(features[0]); i++) {
        const struct feature *feature = &features[i];

        if (feature->function == entry->function && index == 0 && feature->reg == reg &&
            feature->level <= level)
            mask |= BIT(feature->bit);
    }
    return mask;
}

/* Extended state of a level: none below v3, then x87, SSE and AVX in the standard form. */
static void limit_xsave(struct kvm_cpuid_entry2 *entry, unsigned level)
{
    enum { X87_SSE_AVX = 0x7, AVX_INDEX = 2, AVX_BYTES = 0x100, AVX_OFFSET = 0x240 };

    if (level >= 3 && entry->index == 0) {
        entry->eax &= X87_SSE_AVX;
        entry->ecx = AVX_OFFSET + AVX_BYTES;
        entry->edx = 0;
    } else if (level < 3 || entry->index != AVX_INDEX) {
        entry->eax = entry->ebx = entry->ecx = entry->edx = 0;
    }
}

static void limit_to_level(struct cpuid_table *table, unsigned level)
{
    char brand[48] = "";
    uint32_t words[12];

    snprintf(brand, sizeof(brand), "vmrun x86-64-v%u", level);
    memcpy(words, brand, sizeof(words));
    for (unsigned i = 0; i < table->count; i++) {
        struct kvm_cpuid_entry2 *entry = &table->entries[i];
        bool kept = entry->function >= HYPERVISOR_BASE && entry->function < 0x80000000;

        for (size_t k = 0; k < sizeof(always_kept) / sizeof(always_kept[0]); k++)
            kept = kept || entry->function == always_kept[k];
        if (kept)
            continue;
        if (entry->function == 0xd) {
            limit_xsave(entry, level);
            continue;
        }
        if (entry->function >= 0x80000002 && entry->function <= 0x80000004) {
            uint32_t *part = words + (size_t)4 * (entry->function - 0x80000002);

            entry->eax = part[0], entry->ebx = part[1];
            entry->ecx = part[2], entry->edx = part[3];
            continue;
        }
        for (enum reg reg = EAX; reg <= EDX; reg++)
            *reg_of(entry, reg) &= allowed_mask(entry, reg, level);
    }
}

/* A feature without what it stands on has kernels complain. */
static void settle_dependencies(struct cpuid_table *table)
{
    struct kvm_cpuid_entry2 *leaf1 = cpuid_find(table, 0x1, 0);

    if (!leaf1 || leaf1->ecx & BIT(26))
        return;
    /* Without XSAVE: no FMA, AVX, F16C; no AVX2, AVX-512, PKU, VAES, VPCLMULQDQ; no leaf 0xd. */
    leaf1->ecx &= ~(BIT(12) | BIT(28) | BIT(29));
    clear_bits(table, 0x7, EBX,
               BIT(5) | BIT(16) | BIT(17) | BIT(21) | BIT(26) | BIT(27) | BIT(28) | BIT(30) |
                   BIT(31));
    clear_bits(table, 0x7, ECX,
               BIT(1) | BIT(3) | BIT(6) | BIT(9) | BIT(10) | BIT(11) | BIT(12) | BIT(14));
    clear_bits(table, 0x7, EDX, BIT(2) | BIT(3) | BIT(8) | BIT(22) | BIT(23) | BIT(24) | BIT(25));
    clear_bits(table, 0x80000001, ECX, BIT(11) | BIT(15) | BIT(16)); /* XOP, LWP, FMA4 */
    remove_leaf(table, 0xd);
}

int cpuid_apply_model(struct cpuid_table *table, enum cpu_model model, bool tsc_deadline,
                      unsigned tsc_khz, struct error *err)
{
    unsigned level = model == CPU_MODEL_X86_64_V3 ? 3 : model == CPU_MODEL_X86_64_V2 ? 2 : 0;
    struct kvm_cpuid_entry2 *entry;

    if (level) {
        int r = require_level(table, level, err);
        if (r < 0)
            return r;
    }
    for (size_t i = 0; i < sizeof(hidden) / sizeof(hidden[0]); i++)
        clear_bits(table, hidden[i].function, hidden[i].reg, hidden[i].mask);
    for (size_t i = 0; i < sizeof(hidden_leaves) / sizeof(hidden_leaves[0]); i++)
        remove_leaf(table, hidden_leaves[i]);

    /* KVM's in-kernel APIC does both, whatever the host's own can; older kernels do not list them.
     */
    entry = cpuid_find(table, 0x1, 0);
    if (entry)
        entry->ecx |= BIT(31) | BIT(21) | (tsc_deadline ? BIT(24) : 0);
    if (level)
        limit_to_level(table, level);
    settle_dependencies(table);

    /* Frequencies for kernels that look for them here; Linux has its own way, kvmclock. */
    remove_leaf(table, HYPERVISOR_TIMING);
    entry = cpuid_find(table, HYPERVISOR_BASE, 0);
    if (entry && tsc_khz) {
        if (entry->eax < HYPERVISOR_TIMING)
            entry->eax = HYPERVISOR_TIMING;
        entry = add_entry(table, HYPERVISOR_TIMING, 0, false);
        if (!entry)
            return error_set(err, ENOSPC, "CPU description: KVM lists %u leaves, no room for more",
                             table->count);
        entry->eax = tsc_khz;
        entry->ebx = APIC_BUS_KHZ;
    }
    return 0;
}

/* How many bits number this many things. */
static unsigned bits_for(unsigned count)
{
    unsigned bits = 0;

    while (1u << bits < count)
        bits++;
    return bits;
}

/* Leaves 4 (Intel) and 0x8000001d (AMD): each core has its own caches, all share the third level.
 */
static void share_caches(struct kvm_cpuid_entry2 *entry, unsigned cpus)
{
    unsigned level = entry->eax >> 5 & 0x7;
    unsigned ids = 1u << bits_for(cpus);
    unsigned cores = ids < 64 ? ids : 64; /* all that the field can say */

    if ((entry->eax & 0x1f) == 0) /* no cache here: the end of the list */
        return;
    entry->eax &= 0x3fff;
    if (level >= 3)
        entry->eax |= (ids - 1) << 14;
    if (entry->function == 0x4)
        entry->eax |= (cores - 1) << 26;
}

/* Leaf 0xb: a level of threads, one in each core, and a level of cores. */
static void describe_levels(struct cpuid_table *table, unsigned apic_id, unsigned cpus)
{
    enum { THREADS = 1, CORES = 2 };
    const struct {
        unsigned type, shift, count;
    } levels[] = {{THREADS, 0, 1}, {CORES, bits_for(cpus), cpus}, {0, 0, 0}};

    remove_leaf(table, 0xb);
    for (unsigned i = 0; i < 3; i++) {
        struct kvm_cpuid_entry2 *entry = add_entry(table, 0xb, i, true);

        if (!entry) { /* a full table: no leaf is better than half of one */
            remove_leaf(table, 0xb);
            return;
        }
        entry->eax = levels[i].shift;
        entry->ebx = levels[i].count;
        entry->ecx = levels[i].type << 8 | i;
        entry->edx = apic_id;
    }
}

void cpuid_apply_topology(struct cpuid_table *table, unsigned apic_id, unsigned cpus)
{
    bool amd = is_amd(table);
    struct kvm_cpuid_entry2 *entry = cpuid_find(table, 0, 0);

    if (entry && entry->eax >= 0xb)
        describe_levels(table, apic_id, cpus);

    for (unsigned i = 0; i < table->count; i++) {
        entry = &table->entries[i];
        switch (entry->function) {
        case 0x1:
            entry->ebx = (entry->ebx & 0xffff) | (cpus & 0xff) << 16 | apic_id << 24;
            entry->edx = (entry->edx & ~BIT(28)) | (cpus > 1 ? BIT(28) : 0); /* HTT */
            break;
        case 0x4:
        case 0x8000001d: share_caches(entry, cpus); break;
        case 0x80000001:
            if (amd) /* CMP_LEGACY: those "threads" are cores */
                entry->ecx = (entry->ecx & ~BIT(1)) | (cpus > 1 ? BIT(1) : 0);
            break;
        case 0x80000008: entry->ecx = amd ? (cpus - 1) | bits_for(cpus) << 12 : 0; break;
        case 0x8000001e:
            entry->eax = apic_id;
            entry->ebx = apic_id & 0xff; /* its core; one thread in it */
            entry->ecx = 0;              /* the one node of one */
            entry->edx = 0;
            break;
        default: break;
        }
    }
}
