/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cpuid_saved: the CPU of a machine that is restored. It must be the same CPU: a guest has looked
 * at it long ago and takes it for granted. So a host is asked for every feature, every part of the
 * extended state in the same place, and as many address bits.
 *
 * Leaves as in the Intel SDM, "CPUID - CPU Identification", and the AMD APM volume 3.
 */
#include "cpuid.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "internal.h"

#define ENTRY_WORDS 7u
#define KNOWN_FLAGS \
    (KVM_CPUID_FLAG_SIGNIFCANT_INDEX | KVM_CPUID_FLAG_STATEFUL_FUNC | \
     KVM_CPUID_FLAG_STATE_READ_NEXT)

enum reg { EAX, EBX, ECX, EDX };
static const char *const reg_names[] = {"eax", "ebx", "ecx", "edx"};

/*
 * Where a bit is a feature. Names from bit 0 up, as /proc/cpuinfo spells them; "-" and what is
 * beyond the end is known by its number only.
 */
static const struct {
    uint32_t function, index;
    enum reg reg;
    uint32_t ignore; /* topology's and what the guest itself turns on */
    const char *names;
} features[] = {
    {0x1, 0, ECX, 1u << 27,
     "pni pclmulqdq dtes64 monitor ds_cpl vmx smx est tm2 ssse3 cid sdbg fma cx16 xtpr pdcm - pcid "
     "dca sse4_1 sse4_2 x2apic movbe popcnt tsc_deadline_timer aes xsave osxsave avx f16c rdrand "
     "hypervisor"},
    {0x1, 0, EDX, 1u << 28,
     "fpu vme de pse tsc msr pae mce cx8 apic - sep mtrr pge mca cmov pat pse36 pn clflush - dts "
     "acpi mmx fxsr sse sse2 ss ht tm ia64 pbe"},
    {0x6, 0, EAX, 0, "dtherm ida arat pln - pts"},
    {0x7, 0, EBX, 0,
     "fsgsbase tsc_adjust sgx bmi1 hle avx2 fdp_excptn_only smep bmi2 erms invpcid rtm cqm "
     "zero_fcs_fds mpx rdt_a avx512f avx512dq rdseed adx smap avx512ifma - clflushopt clwb "
     "intel_pt "
     "avx512pf avx512er avx512cd sha_ni avx512bw avx512vl"},
    {0x7, 0, ECX, 1u << 4,
     "prefetchwt1 avx512vbmi umip pku ospke waitpkg avx512_vbmi2 user_shstk gfni vaes vpclmulqdq "
     "avx512_vnni avx512_bitalg tme avx512_vpopcntdq - la57 - - - - - rdpid - bus_lock_detect "
     "cldemote - movdiri movdir64b enqcmd sgx_lc pks"},
    {0x7, 0, EDX, 0,
     "- sgx_keys avx512_4vnniw avx512_4fmaps fsrm uintr - - avx512_vp2intersect srbds_ctrl "
     "md_clear "
     "rtm_always_abort - tsx_force_abort serialize hybrid_cpu tsxldtrk - pconfig arch_lbr ibt - "
     "amx_bf16 avx512_fp16 amx_tile amx_int8 spec_ctrl intel_stibp flush_l1d arch_capabilities "
     "core_capabilities spec_ctrl_ssbd"},
    {0x7, 1, EAX, 0,
     "sha512 sm3 sm4 - avx_vnni avx512_bf16 lass cmpccxadd - - fzrm fsrs fsrc - - - - fred lkgs "
     "wrmsrns - amx_fp16 - avx_ifma - - lam"},
    {0x7, 1, EBX, 0, ""},
    {0x7, 1, ECX, 0, ""},
    {0x7, 1, EDX, 0,
     "- - - - avx_vnni_int8 avx_ne_convert - - amx_complex - avx_vnni_int16 - - - prefetchi - - - "
     "- "
     "avx10"},
    {0x7, 2, EDX, 0, "intel_psfd ipred_ctrl rrsba_ctrl ddpd_u bhi_ctrl mcdt_no"},
    {0xd, 1, EAX, 0, "xsaveopt xsavec xgetbv1 xsaves xfd"},
    {0xd, 1, ECX, 0, ""},
    {0xd, 1, EDX, 0, ""},
    {0x40000001, 0, EAX, 0,
     "kvmclock kvm_nop_io_delay kvm_mmu_op kvmclock2 kvm_async_pf kvm_steal_time kvm_pv_eoi "
     "kvm_pv_unhalt - kvm_pv_tlb_flush kvm_async_pf_vmexit kvm_pv_send_ipi kvm_poll_control "
     "kvm_pv_sched_yield kvm_async_pf_int kvm_msi_ext_dest_id kvm_hc_map_gpa_range "
     "kvm_migration_control - - - - - - kvmclock_stable"},
    {0x80000001, 0, ECX, 1u << 1,
     "lahf_lm cmp_legacy svm extapic cr8_legacy abm sse4a misalignsse 3dnowprefetch osvw ibs xop "
     "skinit wdt - lwp fma4 tce - nodeid_msr - tbm topoext perfctr_core perfctr_nb - bpext ptsc "
     "perfctr_llc mwaitx"},
    {0x80000001, 0, EDX, 0,
     "- - - - - - - - - - - syscall - - - - - - - mp nx - mmxext - - fxsr_opt pdpe1gb rdtscp - lm "
     "3dnowext 3dnow"},
    {0x80000007, 0, EBX, 0, "overflow_recov succor - smca"},
    {0x80000007, 0, EDX, 0, "- - - - - - - - constant_tsc"},
    {0x80000008, 0, EBX, 0,
     "clzero irperf xsaveerptr - rdpru - - - - wbnoinvd - - ibpb - ibrs stibp - stibp_always_on - "
     "- "
     "- - - amd_ppin amd_ssbd virt_ssbd amd_ssb_no cppc amd_psfd btc_no amd_ibpb_ret brs"},
    {0x80000021, 0, EAX, 0,
     "no_nested_data_bp fsgs_non_serializing lfence_rdtsc - - verw_clear null_sel_clr_base - "
     "autoibrs - - - - - - - - no_smm_ctl_msr - - - - - - - - - sbpb ibpb_brtype srso_no"},
    {0x80000021, 0, ECX, 0, "- tsa_sq_no tsa_l1_no"},
};

void cpuid_put(const struct cpuid_table *table, struct writer *w)
{
    put_uint(w, table->count, 4);
    for (unsigned i = 0; i < table->count; i++) {
        const struct kvm_cpuid_entry2 *e = &table->entries[i];
        const uint32_t words[ENTRY_WORDS] = {e->function, e->index, e->flags, e->eax,
                                             e->ebx,      e->ecx,   e->edx};

        for (unsigned k = 0; k < ENTRY_WORDS; k++)
            put_uint(w, words[k], 4);
    }
}

int cpuid_parse(const void *data, size_t len, struct cpuid_table *ret_table, struct error *err)
{
    struct reader r = {.data = data, .len = len};
    uint32_t count = (uint32_t)get_uint(&r, 4);

    if (r.failed || count == 0 || count > CPUID_MAX_ENTRIES ||
        len != 4 + (size_t)count * ENTRY_WORDS * 4)
        return error_set(err, EPROTO, "CPU description: %zu bytes that are none", len);
    ret_table->count = count;
    ret_table->padding = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t words[ENTRY_WORDS];

        for (unsigned k = 0; k < ENTRY_WORDS; k++)
            words[k] = (uint32_t)get_uint(&r, 4);
        if (words[2] & ~(uint32_t)KNOWN_FLAGS)
            return error_set(err, EPROTO, "CPU description: leaf 0x%x has unknown flags 0x%x",
                             words[0], words[2]);
        ret_table->entries[i] = (struct kvm_cpuid_entry2){.function = words[0],
                                                          .index = words[1],
                                                          .flags = words[2],
                                                          .eax = words[3],
                                                          .ebx = words[4],
                                                          .ecx = words[5],
                                                          .edx = words[6]};
    }
    return 0;
}

/* Words with commas between them; "..." in place of those that have no room. */
struct words {
    char *buf;
    size_t len, room;
    bool any, full;
};

static void say(struct words *w, const char *fmt, ...) PRINTF_LIKE(2, 3);
static void say(struct words *w, const char *fmt, ...)
{
    char word[64];
    va_list args;

    va_start(args, fmt);
    vsnprintf(word, sizeof(word), fmt, args);
    va_end(args);
    const char *between = w->any ? ", " : "";

    w->any = true;
    if (w->full)
        return;
    if (w->len + strlen(between) + strlen(word) + sizeof(", ...") > w->room) {
        snprintf(w->buf + w->len, w->room - w->len, "%s...", between);
        w->full = true;
        return;
    }
    w->len += (size_t)snprintf(w->buf + w->len, w->room - w->len, "%s%s", between, word);
}

/* A bit's name within a list of them; false: it has none. */
static bool name_of(const char *names, unsigned bit, char buf[32])
{
    for (; bit > 0 && names; bit--) {
        names = strchr(names, ' ');
        names = names ? names + 1 : NULL;
    }
    if (!names || !*names || *names == '-')
        return false;
    snprintf(buf, 32, "%.*s", (int)strcspn(names, " "), names);
    return true;
}

static uint32_t value_of(struct cpuid_table *table, uint32_t function, uint32_t index, enum reg reg)
{
    const struct kvm_cpuid_entry2 *e = cpuid_find(table, function, index);

    if (!e)
        return 0;
    return reg == EAX ? e->eax : reg == EBX ? e->ebx : reg == ECX ? e->ecx : e->edx;
}

static void compare_features(struct cpuid_table *saved, struct cpuid_table *host, struct words *w)
{
    for (size_t i = 0; i < sizeof(features) / sizeof(features[0]); i++) {
        uint32_t function = features[i].function, index = features[i].index;
        uint32_t lacks = value_of(saved, function, index, features[i].reg) &
                         ~value_of(host, function, index, features[i].reg) & ~features[i].ignore;
        char name[32];

        for (unsigned bit = 0; bit < 32; bit++) {
            if (!(lacks >> bit & 1))
                continue;
            if (name_of(features[i].names, bit, name))
                say(w, "%s", name);
            else
                say(w, "cpuid 0x%x.%u %s bit %u", function, index, reg_names[features[i].reg], bit);
        }
    }
}

/* Extended state lies in memory, so each part must be as large and in the same place. */
static void compare_xsave(struct cpuid_table *saved, struct cpuid_table *host, struct words *w)
{
    uint64_t wanted = value_of(saved, 0xd, 0, EAX) | (uint64_t)value_of(saved, 0xd, 0, EDX) << 32;
    uint64_t has = value_of(host, 0xd, 0, EAX) | (uint64_t)value_of(host, 0xd, 0, EDX) << 32;

    for (unsigned i = 0; i < 63; i++) {
        if (!(wanted >> i & 1))
            continue;
        if (!(has >> i & 1))
            say(w, "extended state %u", i);
        else if (i >= 2 && (value_of(saved, 0xd, i, EAX) != value_of(host, 0xd, i, EAX) ||
                            value_of(saved, 0xd, i, EBX) != value_of(host, 0xd, i, EBX)))
            say(w, "the layout of extended state %u", i);
    }
}

static void vendor_of(struct cpuid_table *table, char buf[13])
{
    const uint32_t words[] = {value_of(table, 0, 0, EBX), value_of(table, 0, 0, EDX),
                              value_of(table, 0, 0, ECX)};

    memcpy(buf, words, 12);
    buf[12] = '\0';
    for (unsigned i = 0; i < 12; i++)
        if (buf[i] < ' ' || buf[i] > '~')
            buf[i] = '?';
}

bool cpuid_lacks(struct cpuid_table *saved, struct cpuid_table *host, char *buf, size_t buf_len)
{
    struct words w = {.buf = buf, .room = buf_len};
    uint32_t wanted = value_of(saved, 0x80000008, 0, EAX), has = value_of(host, 0x80000008, 0, EAX);
    char theirs[13], ours[13];

    buf[0] = '\0';
    vendor_of(saved, theirs);
    vendor_of(host, ours);
    if (strcmp(theirs, ours) != 0)
        say(&w, "a CPU of %s", theirs);
    compare_features(saved, host, &w);
    compare_xsave(saved, host, &w);
    if ((wanted & 0xff) > (has & 0xff))
        say(&w, "%u bits of physical addresses", wanted & 0xff);
    if ((wanted >> 8 & 0xff) > (has >> 8 & 0xff))
        say(&w, "%u bits of linear addresses", wanted >> 8 & 0xff);
    return w.any;
}

int cpuid_of_model(int device_fd, enum cpu_model model, unsigned tsc_khz,
                   struct cpuid_table *ret_table, struct error *err)
{
    bool deadline = ioctl(device_fd, KVM_CHECK_EXTENSION, KVM_CAP_TSC_DEADLINE_TIMER) > 0;

    ret_table->count = CPUID_MAX_ENTRIES;
    ret_table->padding = 0;
    if (ioctl(device_fd, KVM_GET_SUPPORTED_CPUID, ret_table) < 0)
        return error_errno(err, errno, "KVM_GET_SUPPORTED_CPUID");
    return cpuid_apply_model(ret_table, model, deadline, tsc_khz, err);
}

int cpuid_take_saved(int device_fd, const void *data, size_t len, struct cpuid_table *ret_table,
                     struct error *err)
{
    struct cpuid_table host;
    char lacks[300];
    int r = cpuid_parse(data, len, ret_table, err);

    if (r == 0)
        r = cpuid_of_model(device_fd, CPU_MODEL_HOST, 0, &host, err);
    if (r == 0 && cpuid_lacks(ret_table, &host, lacks, sizeof(lacks)))
        r = error_set(err, ENOTSUP, "this host's KVM lacks what the guest's CPU has: %s", lacks);
    return r;
}

int kvm_vm_save_cpuid(const struct kvm_vm *vm, struct writer *w, struct error *err)
{
    cpuid_put(vm->cpuid, w);
    return w->failed ? error_set(err, ENOMEM, "CPU description: out of memory") : 0;
}

int kvm_cpuid_missing(const void *cpuid, size_t len, char *buf, size_t buf_len, struct error *err)
{
    struct cpuid_table saved, host;
    int fd = -1, r = cpuid_parse(cpuid, len, &saved, err);

    if (r == 0)
        r = host_open("/dev/kvm", &fd, err);
    if (r < 0)
        return r;
    r = cpuid_of_model(fd, CPU_MODEL_HOST, 0, &host, err);
    if (r == 0)
        (void)cpuid_lacks(&saved, &host, buf, buf_len);
    close(fd);
    return r;
}
