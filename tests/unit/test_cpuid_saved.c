/* SPDX-License-Identifier: Apache-2.0 */
/* The CPU of a machine that is restored: as bytes that may be anybody's, and against a host. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../src/kvm/cpuid.h"

#define INDEXED KVM_CPUID_FLAG_SIGNIFCANT_INDEX
#define BIT(n) (1u << (n))
#define ENTRY_BYTES 28

static struct cpuid_table saved, host;

static const struct cpuid_table small = {
    .count = 9,
    .entries =
        {
            {.function = 0x0, .eax = 0xd, .ebx = 0x756e6547, .ecx = 0x6c65746e, .edx = 0x49656e69},
            {.function = 0x1,
             .eax = 0x806f8,
             .ebx = 0x020800,
             .ecx = 0x96d83203,
             .edx = 0x078bfbff},
            {.function = 0x7, .flags = INDEXED, .eax = 1, .ebx = 0x209c01a9, .edx = BIT(26)},
            {.function = 0x7, .index = 1, .flags = INDEXED, .eax = BIT(4)},
            {.function = 0xd, .flags = INDEXED, .eax = 7, .ebx = 832, .ecx = 832},
            {.function = 0xd, .index = 2, .flags = INDEXED, .eax = 256, .ebx = 576},
            {.function = 0x40000001, .eax = 0x9},
            {.function = 0x80000001, .ecx = 0x21, .edx = 0x2c100800},
            {.function = 0x80000008, .eax = 0x302e},
        },
};

static int both_alike(void **state)
{
    (void)state;
    saved = host = small;
    return 0;
}

static struct kvm_cpuid_entry2 *leaf(struct cpuid_table *table, uint32_t function, uint32_t index)
{
    struct kvm_cpuid_entry2 *e = cpuid_find(table, function, index);

    assert_non_null(e);
    return e;
}

static void lacks(const char *words)
{
    char buf[400];

    assert_int_equal(cpuid_lacks(&saved, &host, buf, sizeof(buf)), *words != '\0');
    assert_string_equal(buf, words);
}

/* Bytes */

static struct writer written(void)
{
    struct writer w = {0};

    cpuid_put(&saved, &w);
    assert_false(w.failed);
    assert_int_equal(w.len, 4 + (size_t)saved.count * ENTRY_BYTES);
    return w;
}

static void refused(const void *data, size_t len, const char *words)
{
    struct cpuid_table table;
    struct error err = {0};

    assert_int_equal(cpuid_parse(data, len, &table, &err), -EPROTO);
    assert_non_null(strstr(err.msg, words));
}

static void what_is_written_is_read_again(void **state)
{
    struct writer w = written();
    struct cpuid_table table;
    struct error err;

    (void)state;
    memset(&table, 0xff, sizeof(table));
    assert_int_equal(cpuid_parse(w.data, w.len, &table, &err), 0);
    assert_int_equal(table.count, saved.count);
    assert_int_equal(table.padding, 0); /* KVM reads it */
    for (unsigned i = 0; i < saved.count; i++)
        assert_memory_equal(&table.entries[i], &saved.entries[i], sizeof(saved.entries[i]));
    free(w.data);
}

static void a_description_of_another_length_is_refused(void **state)
{
    struct writer w = written();

    (void)state;
    for (size_t len = 0; len < w.len; len++) {
        uint8_t *exact = malloc(len + 1); /* the sanitizer sees a byte too far */

        assert_non_null(exact);
        memcpy(exact, w.data, len);
        refused(exact, len, "CPU description");
        exact = realloc(exact, len ? len : 1);
        assert_non_null(exact);
        refused(exact, len, "CPU description");
        free(exact);
    }
    put_uint(&w, 0, 1);
    refused(w.data, w.len, "bytes that are none");
    free(w.data);
}

static void so_is_one_that_promises_more_than_kvm_takes(void **state)
{
    static const uint32_t counts[] = {0, 257, 0x10000000, UINT32_MAX};

    (void)state;
    for (unsigned i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        struct writer w = {0};

        put_uint(&w, counts[i], 4);
        for (unsigned k = 0; k < 257 * ENTRY_BYTES; k++)
            put_uint(&w, 0, 1);
        assert_false(w.failed);
        refused(w.data, w.len, "bytes that are none");
        free(w.data);
    }
}

static void so_are_flags_that_nobody_knows(void **state)
{
    (void)state;
    saved.entries[6].flags = BIT(3);
    struct writer w = written();
    refused(w.data, w.len, "leaf 0x40000001 has unknown flags 0x8");
    free(w.data);
}

static void any_bytes_are_refused_or_compared(void **state)
{
    struct writer good = written();
    uint32_t x = 0x9e3779b9;
    unsigned taken = 0;

    (void)state;
    for (unsigned i = 0; i < 20000; i++) {
        struct error err;
        char buf[64];

        for (unsigned k = 0; k < 3; k++) {
            x ^= x << 13, x ^= x >> 17, x ^= x << 5;
            good.data[x % good.len] ^= (uint8_t)(x >> 24);
        }
        memcpy(good.data, &small.count, i % 8 ? 4 : 0); /* mostly with a count that may be */
        if (cpuid_parse(good.data, good.len, &saved, &err) < 0)
            continue;
        taken++;
        (void)cpuid_lacks(&saved, &host, buf, sizeof(buf));
        assert_non_null(memchr(buf, '\0', sizeof(buf)));
        for (const char *c = buf; *c; c++)
            assert_in_range(*c, ' ', '~');
        /* flags gather bits and then nothing would pass */
        for (unsigned e = 0; e < small.count; e++)
            memset(good.data + 4 + (size_t)e * ENTRY_BYTES + 8, 0, 4);
    }
    assert_in_range(taken, 1, 19999);
    free(good.data);
}

/* Against a host */

static void the_same_cpu_lacks_nothing(void **state)
{
    (void)state;
    lacks("");
}

static void a_host_with_more_lacks_nothing(void **state)
{
    (void)state;
    for (unsigned i = 1; i < host.count; i++)
        if (host.entries[i].function != 0xd && host.entries[i].function != 0x80000008)
            host.entries[i].eax = host.entries[i].ebx = host.entries[i].ecx = host.entries[i].edx =
                ~0u;
    leaf(&host, 0xd, 0)->eax = 0xe7;
    leaf(&host, 0x80000008, 0)->eax = 0x3934;
    lacks("");
}

static void all_that_is_missing_is_told_at_once(void **state)
{
    (void)state;
    leaf(&host, 1, 0)->ecx &= ~(BIT(12) | BIT(28)); /* FMA, AVX */
    leaf(&host, 7, 0)->ebx &= ~(BIT(5) | BIT(29));  /* AVX2, SHA */
    leaf(&host, 7, 1)->eax = 0;
    leaf(&host, 0x40000001, 0)->eax = 1;
    leaf(&host, 0x80000001, 0)->ecx = 0;
    leaf(&host, 0xd, 0)->eax = 3;
    leaf(&host, 0x80000008, 0)->eax = 0x3027;
    lacks("fma, avx, avx2, sha_ni, avx_vnni, kvmclock2, lahf_lm, abm, extended state 2, "
          "46 bits of physical addresses");
}

static void the_first_and_the_last_name_of_a_register_are_its_own(void **state)
{
    (void)state;
    leaf(&saved, 1, 0)->edx = leaf(&saved, 1, 0)->ecx = ~0u;
    leaf(&host, 1, 0)->edx = ~BIT(0) & ~BIT(31);
    leaf(&host, 1, 0)->ecx = ~BIT(0) & ~BIT(31);
    lacks("pni, hypervisor, fpu, pbe");
}

static void a_feature_without_a_name_is_told_by_its_place(void **state)
{
    (void)state;
    leaf(&saved, 1, 0)->ecx |= BIT(16);
    leaf(&saved, 7, 1)->ecx |= BIT(31);
    lacks("cpuid 0x1.0 ecx bit 16, cpuid 0x7.1 ecx bit 31");
}

static void a_leaf_that_the_host_does_not_have_has_no_bits(void **state)
{
    (void)state;
    host.count = 8; /* without 0x80000008 */
    lacks("46 bits of physical addresses, 48 bits of linear addresses");
    host.count = 6;
    saved.count = 7;
    lacks("kvmclock, kvmclock2");
}

static void topology_and_what_a_guest_turns_on_itself_do_not_count(void **state)
{
    (void)state;
    leaf(&saved, 1, 0)->edx |= BIT(28);         /* HTT */
    leaf(&saved, 1, 0)->ecx |= BIT(27);         /* OSXSAVE */
    leaf(&saved, 1, 0)->ebx = 0x03040800;       /* APIC identifier, CPUs */
    leaf(&saved, 7, 0)->ecx |= BIT(4);          /* OSPKE */
    leaf(&saved, 0x80000001, 0)->ecx |= BIT(1); /* CMP_LEGACY */
    lacks("");
}

static void another_vendor_is_another_cpu(void **state)
{
    (void)state;
    memcpy(&leaf(&host, 0, 0)->ebx, "Auth", 4);
    memcpy(&leaf(&host, 0, 0)->edx, "enti", 4);
    memcpy(&leaf(&host, 0, 0)->ecx, "cAMD", 4);
    lacks("a CPU of GenuineIntel");
    leaf(&saved, 0, 0)->edx = 0x1b0a0907; /* what a terminal would obey */
    lacks("a CPU of Genu????ntel");
}

static void extended_state_must_lie_where_the_guest_knows_it(void **state)
{
    (void)state;
    leaf(&host, 0xd, 2)->ebx = 640;
    lacks("the layout of extended state 2");
    host = small;
    leaf(&host, 0xd, 2)->eax = 512;
    lacks("the layout of extended state 2");
}

static void a_list_that_is_too_long_says_so(void **state)
{
    char whole[4096], buf[4096];

    (void)state;
    memset(&host, 0, sizeof(host));
    assert_true(cpuid_lacks(&saved, &host, whole, sizeof(whole)));
    assert_null(strstr(whole, "..."));
    for (size_t room = 8; room <= strlen(whole); room++) {
        memset(buf, 'x', sizeof(buf));
        assert_true(cpuid_lacks(&saved, &host, buf, room));
        assert_in_range(strlen(buf), 3, room - 1);
        assert_int_equal(buf[room], 'x');
        assert_string_equal(buf + strlen(buf) - 3, "...");
        assert_memory_equal(buf, whole, strlen(buf) - 3);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup(name, both_alike)
    const struct CMUnitTest tests[] = {
        TEST(what_is_written_is_read_again),
        TEST(a_description_of_another_length_is_refused),
        TEST(so_is_one_that_promises_more_than_kvm_takes),
        TEST(so_are_flags_that_nobody_knows),
        TEST(any_bytes_are_refused_or_compared),
        TEST(the_same_cpu_lacks_nothing),
        TEST(a_host_with_more_lacks_nothing),
        TEST(all_that_is_missing_is_told_at_once),
        TEST(the_first_and_the_last_name_of_a_register_are_its_own),
        TEST(a_feature_without_a_name_is_told_by_its_place),
        TEST(a_leaf_that_the_host_does_not_have_has_no_bits),
        TEST(topology_and_what_a_guest_turns_on_itself_do_not_count),
        TEST(another_vendor_is_another_cpu),
        TEST(extended_state_must_lie_where_the_guest_knows_it),
        TEST(a_list_that_is_too_long_says_so),
    };
    return cmocka_run_group_tests_name("cpuid_saved", tests, NULL, NULL);
}
