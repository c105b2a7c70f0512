/* SPDX-License-Identifier: Apache-2.0 */
/* What a machine needs of another host's KVM: this one has it, and what it lacks is named. */
#include "guest.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "../../src/kvm/internal.h"

static struct guest guest;

static int setup(void **state)
{
    (void)state;
    guest_create(&guest, "work", 2, false);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    guest_destroy(&guest);
    return 0;
}

static struct kvm_lacks lacks_of(const char *needs)
{
    struct kvm_lacks lacks;
    struct error err;

    if (kvm_vm_lacks(guest.vm, needs, &lacks, &err) < 0)
        fail_msg("%s", err.msg);
    return lacks;
}

static void expect_missing(const char *needs, const char *missing)
{
    struct kvm_lacks lacks = lacks_of(needs);

    assert_string_equal(lacks.missing, missing);
    assert_string_equal(lacks.doubts, "");
}

static void a_host_has_what_its_own_machines_need(void **state)
{
    struct writer cpuid = {0};
    struct kvm_lacks lacks;
    struct error err;
    char *needs;

    (void)state;
    kvm_vm_resume(guest.vm);
    guest_wait_accesses(&guest, 1);
    assert_int_equal(kvm_vm_needs(guest.vm, &needs, &err), 0); /* while it runs */
    kvm_vm_pause(guest.vm);
    print_message("%zu bytes: %s\n", strlen(needs), needs);
    assert_non_null(strstr(needs, "xsave="));
    assert_non_null(strstr(needs, " msr=0x2ff"));       /* default memory type: never 0 */
    assert_non_null(strstr(needs, " msr?=0xc0000082")); /* LSTAR: 0 at first */
    assert_string_equal(lacks_of(needs).missing, "");

    assert_int_equal(kvm_vm_save_cpuid(guest.vm, &cpuid, &err), 0);
    if (kvm_host_lacks(needs, cpuid.data, cpuid.len, &lacks, &err) < 0)
        fail_msg("%s", err.msg);
    assert_string_equal(lacks.missing, "");
    assert_string_equal(lacks.doubts, lacks_of(needs).doubts);
    free(cpuid.data);
    free(needs);
}

static void what_is_lacking_is_named(void **state)
{
    char words[300], needs[100];

    (void)state;
    expect_missing("", "");
    expect_missing("xsave=4096", "");
    snprintf(words, sizeof(words), "1000000 bytes of extended state (this host has %u)",
             (unsigned)(ioctl(guest.vm->fd, KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2) > 4096
                            ? ioctl(guest.vm->fd, KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2)
                            : 4096));
    expect_missing("xsave=1000000", words);
    expect_missing("msr=0x12345", "MSR 0x12345");
    expect_missing("msr=0x12345 sregs2 msr=0x10000c0000080", "MSR 0x12345, MSR 0x10000c0000080");
    snprintf(needs, sizeof(needs), "tsc_khz=%u", guest.vm->tsc_khz);
    expect_missing(needs, "");
    snprintf(needs, sizeof(needs), "tsc_khz=%u", guest.vm->tsc_khz + 100000);
    if (ioctl(guest.vm->device_fd, KVM_CHECK_EXTENSION, KVM_CAP_TSC_CONTROL) > 0)
        expect_missing(needs, "");
    else
        assert_non_null(strstr(lacks_of(needs).missing, "and its KVM cannot scale it"));
    /* It is there, and then its absence is missing, or the other way round. */
    assert_true(!*lacks_of("x2apic_api").missing != !*lacks_of("no_x2apic_api").missing);
}

static void what_may_never_be_used_is_a_doubt(void **state)
{
    (void)state;
    assert_string_equal(lacks_of("msr?=0x12345").missing, "");
    assert_string_equal(lacks_of("msr?=0x12345 msr?=0x12346").doubts, "MSR 0x12345, MSR 0x12346");
}

static void what_is_not_known_is_lacking_unless_it_is_optional(void **state)
{
    (void)state;
    expect_missing("flux_capacitor", "'flux_capacitor', which this vmrun does not know");
    expect_missing("msr", "'msr', which this vmrun does not know");
    expect_missing("flux=88", "'flux', which this vmrun does not know");
    expect_missing("flux? flux?=88", "");
    expect_missing("?", "");
}

static void no_words_do_harm(void **state)
{
    char needs[4096];
    struct kvm_lacks lacks = {.missing = "as before"};
    struct error err;

    (void)state;
    expect_missing("msr=", "'msr=', which makes no sense");
    expect_missing("msr=0x1z", "'msr=0x1z', which makes no sense");
    expect_missing("=", "'=', which makes no sense");
    expect_missing("  ", "");
    for (size_t i = 0; i < sizeof(needs); i += 16)
        memcpy(needs + i, "msr=0x0badbad05 ", 16);
    needs[sizeof(needs) - 1] = '\0';
    assert_int_equal(strlen(lacks_of(needs).missing), sizeof(lacks.missing) - 1);
    memset(needs, 'x', sizeof(needs) - 1);
    assert_int_equal(kvm_vm_lacks(guest.vm, needs, &lacks, &err), -EPROTO);
    assert_int_equal(kvm_vm_lacks(guest.vm, "xcrs\nsregs2", &lacks, &err), -EPROTO);
    assert_int_equal(kvm_vm_lacks(guest.vm, "\xff", &lacks, &err), -EPROTO);
    assert_string_equal(lacks.missing, "as before");
}

static int run(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_host_has_what_its_own_machines_need),
        cmocka_unit_test(what_is_lacking_is_named),
        cmocka_unit_test(what_may_never_be_used_is_a_doubt),
        cmocka_unit_test(what_is_not_known_is_lacking_unless_it_is_optional),
        cmocka_unit_test(no_words_do_harm),
    };
    return cmocka_run_group_tests_name("needs", tests, setup, teardown);
}

int main(void)
{
    return guest_main(run);
}
