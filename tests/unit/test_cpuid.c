/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "../../src/kvm/cpuid.h"

#define INDEXED KVM_CPUID_FLAG_SIGNIFCANT_INDEX
#define BIT(n) (1u << (n))

/* psABI levels, by hand and not by the table under test. */
#define V2_ECX (BIT(0) | BIT(9) | BIT(13) | BIT(19) | BIT(20) | BIT(23))
#define V3_ECX (V2_ECX | BIT(12) | BIT(22) | BIT(26) | BIT(28) | BIT(29))

static void add(struct cpuid_table *t, uint32_t function, uint32_t index, uint32_t flags,
                uint32_t eax, uint32_t ebx, uint32_t ecx, uint32_t edx)
{
    t->entries[t->count++] = (struct kvm_cpuid_entry2){.function = function,
                                                       .index = index,
                                                       .flags = flags,
                                                       .eax = eax,
                                                       .ebx = ebx,
                                                       .ecx = ecx,
                                                       .edx = edx};
}

/* A CPU that has everything: all ones where features are. */
static void fill(struct cpuid_table *t, const char *vendor)
{
    uint32_t v[3];

    memcpy(v, vendor, 12);
    t->count = t->padding = 0;
    add(t, 0, 0, 0, 0x1f, v[0], v[2], v[1]);
    add(t, 1, 0, 0, 0x806f8, 0x55200800, ~0u, ~0u);
    add(t, 4, 0, INDEXED, 0x7c004121, 0x02c0003f, 0x3f, 0);
    add(t, 4, 3, INDEXED, 0x7c0fc163, 0x0380003f, 0x1bfff, 4);
    add(t, 4, 4, INDEXED, 0, 0, 0, 0);
    add(t, 6, 0, 0, 0x77, 2, 9, 0);
    add(t, 7, 0, INDEXED, 2, ~0u, ~0u, ~0u);
    add(t, 7, 1, INDEXED, ~0u, 0, 0, 0);
    add(t, 0xa, 0, 0, 0x07300405, 0, 0, 0x603);
    add(t, 0xb, 0, INDEXED, 1, 2, 0x100, 77);
    add(t, 0xb, 1, INDEXED, 7, 112, 0x201, 77);
    add(t, 0xd, 0, INDEXED, 0x2e7, 0xa88, 0xa88, 0);
    add(t, 0xd, 1, INDEXED, 0xf, 0xa88, 0, 0);
    add(t, 0xd, 2, INDEXED, 0x100, 0x240, 0, 0);
    add(t, 0xd, 5, INDEXED, 0x40, 0x440, 0, 0);
    add(t, 0x1f, 0, INDEXED, 1, 2, 0x100, 77);
    add(t, 0x40000000, 0, 0, 0x40000001, 0x4b4d564b, 0x564b4d56, 0x4d);
    add(t, 0x40000001, 0, 0, ~0u, 0, 0, 0);
    add(t, 0x80000000, 0, 0, 0x80000021, v[0], v[2], v[1]);
    add(t, 0x80000001, 0, 0, 0x806f8, 0, ~0u, ~0u);
    add(t, 0x80000002, 0, 0, 1, 2, 3, 4);
    add(t, 0x80000007, 0, 0, 0, 0, 0, 0x100);
    add(t, 0x80000008, 0, 0, 0x3030, ~0u, 0x7077, 0);
    add(t, 0x8000000a, 0, 0, 1, 8, 0, ~0u);
    add(t, 0x8000001d, 0, INDEXED, 0x4121, 0x1c0003f, 0x3f, 0);
    add(t, 0x8000001d, 3, INDEXED, 0x3c163, 0x3c0003f, 0x7fff, 1);
    add(t, 0x8000001e, 0, 0, 77, 0x138, 0x301, 0);
}

static uint32_t *find(struct cpuid_table *t, uint32_t function, uint32_t index, char reg)
{
    struct kvm_cpuid_entry2 *e = cpuid_find(t, function, index);

    assert_non_null(e);
    return reg == 'a' ? &e->eax : reg == 'b' ? &e->ebx : reg == 'c' ? &e->ecx : &e->edx;
}

static void apply(struct cpuid_table *t, enum cpu_model model)
{
    struct error err;

    if (cpuid_apply_model(t, model, true, 2500000, &err) < 0)
        fail_msg("%s", err.msg);
}

static void what_cannot_move_is_hidden_in_every_model(void **state)
{
    static const uint32_t gone[] = {0xa, 0x12, 0x14, 0x1f, 0x8000000a};
    struct cpuid_table t;

    (void)state;
    for (enum cpu_model model = CPU_MODEL_HOST; model <= CPU_MODEL_X86_64_V3; model++) {
        fill(&t, "GenuineIntel");
        apply(&t, model);
        for (unsigned i = 0; i < sizeof(gone) / sizeof(gone[0]); i++)
            assert_null(cpuid_find(&t, gone[i], 0));
        assert_int_equal(*find(&t, 1, 0, 'c') & BIT(5), 0);                      /* VMX */
        assert_int_equal(*find(&t, 0x80000001, 0, 'c') & BIT(2), 0);             /* SVM */
        assert_int_equal(*find(&t, 7, 0, 'b') & BIT(2), 0);                      /* SGX */
        assert_int_equal(*find(&t, 0x80000007, 0, 'd') & BIT(8), 0);             /* invariant TSC */
        assert_int_equal(*find(&t, 0x40000001, 0, 'a') & (BIT(4) | BIT(14)), 0); /* async PF */
    }
}

static void the_host_model_keeps_the_rest(void **state)
{
    struct cpuid_table t;

    (void)state;
    fill(&t, "GenuineIntel");
    apply(&t, CPU_MODEL_HOST);
    assert_int_equal(*find(&t, 1, 0, 'c') & V3_ECX, V3_ECX);
    assert_int_equal(*find(&t, 1, 0, 'c') & BIT(25), BIT(25)); /* AES */
    assert_int_equal(*find(&t, 7, 1, 'a'), ~0u);
    assert_int_equal(*find(&t, 0xd, 0, 'a'), 0x2e7);
    assert_int_equal(*find(&t, 0x80000002, 0, 'a'), 1);
    assert_int_equal(*find(&t, 0x40000001, 0, 'a') & 0xb, 0xb); /* kvmclock */
}

static void apic_features_that_kvm_does_not_list_are_added(void **state)
{
    const uint32_t bits = BIT(21) | BIT(24) | BIT(31);
    struct cpuid_table t;
    struct error err;

    (void)state;
    fill(&t, "GenuineIntel");
    *find(&t, 1, 0, 'c') = 0;
    assert_int_equal(cpuid_apply_model(&t, CPU_MODEL_HOST, true, 0, &err), 0);
    assert_int_equal(*find(&t, 1, 0, 'c'), bits);

    *find(&t, 1, 0, 'c') = 0;
    assert_int_equal(cpuid_apply_model(&t, CPU_MODEL_HOST, false, 0, &err), 0);
    assert_int_equal(*find(&t, 1, 0, 'c'), bits & ~BIT(24));
}

static void frequencies_are_told_when_they_are_known(void **state)
{
    struct cpuid_table t;
    struct error err;

    (void)state;
    fill(&t, "GenuineIntel");
    apply(&t, CPU_MODEL_HOST);
    assert_int_equal(*find(&t, 0x40000000, 0, 'a'), 0x40000010);
    assert_int_equal(*find(&t, 0x40000010, 0, 'a'), 2500000);
    assert_int_equal(*find(&t, 0x40000010, 0, 'b'), 1000000);

    fill(&t, "GenuineIntel");
    assert_int_equal(cpuid_apply_model(&t, CPU_MODEL_HOST, true, 0, &err), 0);
    assert_int_equal(*find(&t, 0x40000000, 0, 'a'), 0x40000001);
    assert_null(cpuid_find(&t, 0x40000010, 0));
}

static void a_full_table_is_an_error(void **state)
{
    struct cpuid_table t;
    struct error err;

    (void)state;
    fill(&t, "GenuineIntel");
    while (t.count < CPUID_MAX_ENTRIES)
        add(&t, 0x2, t.count, INDEXED, 0, 0, 0, 0);
    while (cpuid_find(&t, 0xa, 0)) /* what is hidden would make room */
        cpuid_find(&t, 0xa, 0)->function = 0x2;
    cpuid_find(&t, 0x1f, 0)->function = 0x2;
    cpuid_find(&t, 0x8000000a, 0)->function = 0x2;
    assert_int_equal(cpuid_apply_model(&t, CPU_MODEL_HOST, true, 1, &err), -ENOSPC);
}

static void version_2_is_exactly_its_instructions_and_what_a_vm_needs(void **state)
{
    struct cpuid_table t;

    (void)state;
    fill(&t, "GenuineIntel");
    apply(&t, CPU_MODEL_X86_64_V2);
    /* beside the level: PCID, x2APIC, TSC deadline, RDRAND, hypervisor */
    assert_int_equal(*find(&t, 1, 0, 'c'),
                     V2_ECX | BIT(17) | BIT(21) | BIT(24) | BIT(30) | BIT(31));
    assert_int_equal(*find(&t, 7, 0, 'b') & (BIT(3) | BIT(5) | BIT(8) | BIT(16)), 0);
    assert_int_equal(*find(&t, 7, 0, 'b') & (BIT(7) | BIT(20)), BIT(7) | BIT(20)); /* SMEP, SMAP */
    assert_int_equal(*find(&t, 7, 0, 'd') & BIT(26), BIT(26));                     /* SPEC_CTRL */
    assert_int_equal(*find(&t, 7, 1, 'a'), 0);
    assert_null(cpuid_find(&t, 0xd, 0));
    assert_memory_equal(find(&t, 0x80000002, 0, 'a'), "vmrun x86-64-v2", 16);
}

static void version_3_has_avx_and_no_more_state_than_that(void **state)
{
    struct cpuid_table t;

    (void)state;
    fill(&t, "GenuineIntel");
    apply(&t, CPU_MODEL_X86_64_V3);
    assert_int_equal(*find(&t, 1, 0, 'c') & V3_ECX, V3_ECX);
    assert_int_equal(*find(&t, 1, 0, 'c') & BIT(25), 0); /* AES is in no level */
    assert_int_equal(*find(&t, 7, 0, 'b') & (BIT(3) | BIT(5) | BIT(8)), BIT(3) | BIT(5) | BIT(8));
    assert_int_equal(*find(&t, 7, 0, 'b') & BIT(16), 0); /* AVX-512 */
    assert_int_equal(*find(&t, 0xd, 0, 'a'), 7);
    assert_int_equal(*find(&t, 0xd, 0, 'c'), 832);
    assert_int_equal(*find(&t, 0xd, 2, 'a'), 256);
    assert_int_equal(*find(&t, 0xd, 5, 'a'), 0);
    assert_int_equal(*find(&t, 0xd, 1, 'a'), 0);
}

static void a_host_below_the_level_is_refused_with_all_that_it_lacks(void **state)
{
    struct cpuid_table t;
    struct error err;

    (void)state;
    fill(&t, "GenuineIntel");
    *find(&t, 1, 0, 'c') &= ~(BIT(20) | BIT(28));
    *find(&t, 7, 0, 'b') &= ~BIT(5);
    assert_int_equal(cpuid_apply_model(&t, CPU_MODEL_X86_64_V3, true, 0, &err), -ENOTSUP);
    assert_non_null(strstr(err.msg, "x86-64-v3, its KVM lacks sse4_2, avx, avx2:"));

    /* The lower level asks for less. */
    assert_int_equal(cpuid_apply_model(&t, CPU_MODEL_X86_64_V2, true, 0, &err), -ENOTSUP);
    assert_non_null(strstr(err.msg, "its KVM lacks sse4_2:"));
}

static void without_xsave_nothing_that_needs_it_is_left(void **state)
{
    struct cpuid_table t;

    (void)state;
    fill(&t, "AuthenticAMD");
    *find(&t, 1, 0, 'c') &= ~BIT(26);
    apply(&t, CPU_MODEL_HOST);
    assert_int_equal(*find(&t, 1, 0, 'c') & (BIT(12) | BIT(28) | BIT(29)), 0);
    assert_int_equal(*find(&t, 7, 0, 'b') & (BIT(5) | BIT(16)), 0);
    assert_null(cpuid_find(&t, 0xd, 0));
}

static void each_cpu_is_a_core_of_one_package(void **state)
{
    struct cpuid_table t;

    (void)state;
    fill(&t, "GenuineIntel");
    apply(&t, CPU_MODEL_HOST);
    for (unsigned id = 0; id < 6; id++) {
        cpuid_apply_topology(&t, id, 6);
        assert_int_equal(*find(&t, 1, 0, 'b'), id << 24 | 6u << 16 | 0x0800);
        assert_int_equal(*find(&t, 1, 0, 'd') & BIT(28), BIT(28));
        /* six cores need three bits of the identifier */
        assert_int_equal(*find(&t, 0xb, 0, 'a'), 0);
        assert_int_equal(*find(&t, 0xb, 0, 'b'), 1);
        assert_int_equal(*find(&t, 0xb, 0, 'c'), 0x100);
        assert_int_equal(*find(&t, 0xb, 1, 'a'), 3);
        assert_int_equal(*find(&t, 0xb, 1, 'b'), 6);
        assert_int_equal(*find(&t, 0xb, 1, 'c'), 0x201);
        assert_int_equal(*find(&t, 0xb, 1, 'd'), id);
        assert_int_equal(*find(&t, 0xb, 2, 'c'), 2);
        /* first level: one thread; third: all eight identifiers; eight cores in the package */
        assert_int_equal(*find(&t, 4, 0, 'a'), 7u << 26 | 0x121);
        assert_int_equal(*find(&t, 4, 3, 'a'), 7u << 26 | 7u << 14 | 0x163);
        assert_int_equal(*find(&t, 4, 4, 'a'), 0);
        assert_int_equal(*find(&t, 0x80000008, 0, 'c'), 0);
    }
}

static void amd_leaves_tell_the_same(void **state)
{
    struct cpuid_table t;

    (void)state;
    fill(&t, "AuthenticAMD");
    apply(&t, CPU_MODEL_HOST);
    cpuid_apply_topology(&t, 3, 4);
    assert_int_equal(*find(&t, 0x80000001, 0, 'c') & BIT(1), BIT(1));
    assert_int_equal(*find(&t, 0x80000008, 0, 'c'), 2u << 12 | 3);
    assert_int_equal(*find(&t, 0x8000001d, 0, 'a'), 0x121);
    assert_int_equal(*find(&t, 0x8000001d, 3, 'a'), 3u << 14 | 0x163);
    assert_int_equal(*find(&t, 0x8000001e, 0, 'a'), 3);
    assert_int_equal(*find(&t, 0x8000001e, 0, 'b'), 3);
    assert_int_equal(*find(&t, 0x8000001e, 0, 'c'), 0);
}

static void a_single_cpu_is_no_multiprocessor(void **state)
{
    struct cpuid_table t;

    (void)state;
    fill(&t, "AuthenticAMD");
    apply(&t, CPU_MODEL_HOST);
    cpuid_apply_topology(&t, 0, 1);
    assert_int_equal(*find(&t, 1, 0, 'd') & BIT(28), 0);
    assert_int_equal(*find(&t, 0x80000001, 0, 'c') & BIT(1), 0);
    assert_int_equal(*find(&t, 0x80000008, 0, 'c'), 0);
    assert_int_equal(*find(&t, 0xb, 1, 'a'), 0);
    assert_int_equal(*find(&t, 0xb, 1, 'b'), 1);
}

static void two_hundred_and_fifty_five_cpus_fit_their_fields(void **state)
{
    struct cpuid_table t;

    (void)state;
    fill(&t, "GenuineIntel");
    apply(&t, CPU_MODEL_HOST);
    cpuid_apply_topology(&t, 254, 255);
    assert_int_equal(*find(&t, 1, 0, 'b'), 254u << 24 | 255u << 16 | 0x0800);
    assert_int_equal(*find(&t, 0xb, 1, 'a'), 8);
    assert_int_equal(*find(&t, 4, 3, 'a') >> 26, 63); /* as much as six bits say */
    assert_int_equal(*find(&t, 4, 3, 'a') >> 14 & 0xfff, 255);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_cannot_move_is_hidden_in_every_model),
        cmocka_unit_test(the_host_model_keeps_the_rest),
        cmocka_unit_test(apic_features_that_kvm_does_not_list_are_added),
        cmocka_unit_test(frequencies_are_told_when_they_are_known),
        cmocka_unit_test(a_full_table_is_an_error),
        cmocka_unit_test(version_2_is_exactly_its_instructions_and_what_a_vm_needs),
        cmocka_unit_test(version_3_has_avx_and_no_more_state_than_that),
        cmocka_unit_test(a_host_below_the_level_is_refused_with_all_that_it_lacks),
        cmocka_unit_test(without_xsave_nothing_that_needs_it_is_left),
        cmocka_unit_test(each_cpu_is_a_core_of_one_package),
        cmocka_unit_test(amd_leaves_tell_the_same),
        cmocka_unit_test(a_single_cpu_is_no_multiprocessor),
        cmocka_unit_test(two_hundred_and_fifty_five_cpus_fit_their_fields),
    };
    return cmocka_run_group_tests_name("cpuid", tests, NULL, NULL);
}
