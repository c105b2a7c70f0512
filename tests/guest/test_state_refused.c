/* SPDX-License-Identifier: Apache-2.0 */
/* State that KVM does not take, and CPUs and streams that are not ours: refused in words. */
#include "guest.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>

#include "../../src/kvm/internal.h"

/* Loads a good state, lets it be spoiled, and gives it to KVM, which must refuse it in words. */
static void spoiled(void (*spoil)(struct kvm_vm *vm), const char *words)
{
    struct guest from, to;
    struct error err = {0};

    guest_create(&from, "count", 1, false);
    guest_run_for(&from, 3);
    guest_create_like(&to, &from);
    struct writer w = guest_save(&from);
    assert_int_equal(guest_restore(&to, &w, 0, &err), 0);
    spoil(to.vm);
    if (kvm_vm_apply_state(to.vm, 0, &err) == 0)
        fail_msg("not refused: %s", words);
    if (!strstr(err.msg, words))
        fail_msg("'%s' says nothing of '%s'", err.msg, words);
    free(w.data);
    guest_destroy(&from);
    guest_destroy(&to);
}

static struct vcpu_state *loaded(struct kvm_vm *vm)
{
    return vm->vcpus[0]->moving;
}

static void page_without_protection(struct kvm_vm *vm)
{
    loaded(vm)->sregs.cr0 &= ~1ull;
}

static void reserved_cr4(struct kvm_vm *vm)
{
    loaded(vm)->sregs.cr4 |= 1ull << 40;
}

static void reserved_efer(struct kvm_vm *vm)
{
    loaded(vm)->sregs.efer |= 1ull << 40;
}

static void apic_elsewhere(struct kvm_vm *vm)
{
    loaded(vm)->sregs.apic_base |= 1ull << 60;
}

static void no_such_exception(struct kvm_vm *vm)
{
    loaded(vm)->events.exception.injected = 1;
    loaded(vm)->events.exception.nr = 77;
}

static void no_such_run_state(struct kvm_vm *vm)
{
    loaded(vm)->run.mp.mp_state = 77;
}

static void xcr0_without_x87(struct kvm_vm *vm)
{
    loaded(vm)->xcrs = (struct kvm_xcrs){.nr_xcrs = 1, .xcrs[0].value = 1ull << 62};
}

static void reserved_mxcsr(struct kvm_vm *vm)
{
    loaded(vm)->xsave[3] = 0xffffffff;
    loaded(vm)->xsave[64] |= 3; /* XSTATE_BV: x87 and SSE are there */
}

static void set_msr(struct kvm_vm *vm, uint32_t index, uint64_t value)
{
    struct msr_set *msrs = &loaded(vm)->msrs;
    uint32_t i = 0;

    while (i < msrs->count && msrs->index[i] != index)
        i++;
    assert_true(i < MSR_ROOM);
    msrs->index[i] = index;
    msrs->data[i] = value;
    msrs->count = i == msrs->count ? i + 1 : msrs->count;
}

static void lstar_that_is_no_address(struct kvm_vm *vm)
{
    set_msr(vm, 0xc0000082, 0x1234567800000000);
}

static void an_msr_that_nobody_has(struct kvm_vm *vm)
{
    set_msr(vm, 0x12345, 1);
}

static void two_values_for_star(struct kvm_vm *vm)
{
    struct msr_set *msrs = &loaded(vm)->msrs;

    set_msr(vm, 0xc0000081, 5);
    msrs->index[msrs->count] = 0xc0000081;
    msrs->data[msrs->count++] = 6;
}

static void run_state_that_passes_by_itself(struct kvm_vm *vm)
{
    loaded(vm)->run.mp.mp_state = KVM_MP_STATE_SIPI_RECEIVED;
}

static void registers_that_kvm_does_not_take_are_named(void **state)
{
    (void)state;
    spoiled(page_without_protection, "cr0 0x");
    spoiled(reserved_cr4, "cr4 0x");
    spoiled(reserved_efer, "efer 0x");
    spoiled(apic_elsewhere, "apic_base 0x");
    spoiled(no_such_exception, "KVM_SET_VCPU_EVENTS of vCPU 0");
    spoiled(no_such_run_state, "KVM_SET_MP_STATE of vCPU 0");
    spoiled(run_state_that_passes_by_itself, "run state was set to 0x4 and is 0x");
    spoiled(xcr0_without_x87, "KVM_SET_XCRS of vCPU 0");
    spoiled(reserved_mxcsr, "KVM_SET_XSAVE of vCPU 0");
}

static void msrs_that_kvm_does_not_take_are_named(void **state)
{
    (void)state;
    spoiled(lstar_that_is_no_address,
            "vCPU 0: KVM refuses 0x1234567800000000 for MSR 0xc0000082 (LSTAR)");
    spoiled(an_msr_that_nobody_has, "this host's KVM has no MSR 0x12345, to be 0x1");
    spoiled(two_values_for_star, "vCPU 0: MSR 0xc0000081 (STAR) was set to 0x5 and is 0x6");
}

static void an_msr_that_nobody_has_and_that_is_empty_is_passed_over(void **state)
{
    struct guest from, to;
    struct error err;

    (void)state;
    guest_create(&from, "count", 1, false);
    guest_move(&from, &to);
    set_msr(to.vm, 0x12345, 0);
    if (kvm_vm_apply_state(to.vm, 0, &err) < 0)
        fail_msg("%s", err.msg);
    guest_destroy(&from);
    guest_destroy(&to);
}

/* Two hosts measured theirs, and differ by 1 kHz: clock.c decides about that, for all guests. */
static void the_frequency_that_hyper_v_would_tell_is_the_hosts_own(void **state)
{
    struct guest from, to;
    struct error err;

    (void)state;
    guest_create(&from, "count", 1, false);
    guest_move(&from, &to);
    set_msr(to.vm, 0x40000022, from.vm->clock.tsc_khz * 1000ull + 1000);
    if (kvm_vm_apply_state(to.vm, 0, &err) < 0)
        fail_msg("%s", err.msg);
    guest_destroy(&from);
    guest_destroy(&to);
}

static void check_cpu_of_another_host(struct writer *cpuid, const char *words)
{
    struct error err = {0};
    struct guest g;
    char lacks[200];

    assert_int_equal(kvm_cpuid_missing(cpuid->data, cpuid->len, lacks, sizeof(lacks), &err), 0);
    assert_string_equal(lacks, words);
    guest_create(&g, "count", 1, false);
    struct kvm_vm *vm = NULL;
    struct kvm_vm_params params = g.vm->params;
    params.cpuid = cpuid->data;
    params.cpuid_len = cpuid->len;
    if (*words) {
        assert_int_equal(kvm_vm_create(&params, &vm, &err), -ENOTSUP);
        assert_non_null(strstr(err.msg, words));
    } else {
        assert_int_equal(kvm_vm_create(&params, &vm, &err), 0);
        kvm_vm_destroy(vm);
    }
    guest_destroy(&g);
}

static void a_cpu_that_the_host_does_not_have_is_refused_with_its_features(void **state)
{
    struct writer cpuid = {0};
    struct error err;
    struct guest g;

    (void)state;
    guest_create(&g, "count", 2, false);
    assert_int_equal(kvm_vm_save_cpuid(g.vm, &cpuid, &err), 0);
    guest_destroy(&g);
    check_cpu_of_another_host(&cpuid, "");
    for (size_t at = 4; at + 28 <= cpuid.len; at += 28) {
        uint32_t words[7];

        memcpy(words, cpuid.data + at, sizeof(words));
        if (words[0] == 1)
            words[5] |= 1u << 5 | 1u << 6; /* never shown to a guest: vmx, smx */
        memcpy(cpuid.data + at, words, sizeof(words));
    }
    check_cpu_of_another_host(&cpuid, "vmx, smx");
    free(cpuid.data);
}

static uint32_t random_word(void)
{
    static uint32_t x = 0x2545f491;

    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    return x;
}

/*
 * Any byte of the stream may be anything. Only where ring 0 is not emulated is it given to KVM as
 * well: emulating hosts have been known to fall over, and others live on them.
 */
static void random_bytes_are_refused_or_taken_and_never_more(void **state)
{
    bool whole = !guest_has_ring3();
    struct guest from, to;
    struct error err;
    unsigned taken = 0;

    (void)state;
    guest_create(&from, "smp", 2, false);
    guest_run_for(&from, 1);
    struct writer good = guest_save(&from);
    struct writer bad = {.data = malloc(good.len), .len = good.len};
    assert_non_null(bad.data);
    guest_create_like(&to, &from);
    struct writer own = guest_save(&to); /* makes the registry */
    free(own.data);
    for (unsigned i = 0; i < 2000; i++) {
        struct reader r = {.data = bad.data, .len = bad.len};

        memcpy(bad.data, good.data, good.len);
        for (unsigned k = 0; k <= random_word() % 4; k++)
            bad.data[random_word() % bad.len] ^= (uint8_t)(1u << random_word() % 8);
        int rc = state_registry_load(to.registry, &r, &err);
        if (rc == 0 && whole)
            rc = kvm_vm_apply_state(to.vm, 0, &err);
        taken += rc == 0;
        assert_true(rc == 0 || (rc == -err.code && err.msg[0]));
    }
    assert_in_range(taken, 1, 1999);
    assert_int_equal(guest_restore(&to, &good, 0, &err), 0); /* and a good one still goes */
    free(good.data);
    free(bad.data);
    guest_destroy(&from);
    guest_destroy(&to);
}

static int run(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(registers_that_kvm_does_not_take_are_named),
        cmocka_unit_test(msrs_that_kvm_does_not_take_are_named),
        cmocka_unit_test(an_msr_that_nobody_has_and_that_is_empty_is_passed_over),
        cmocka_unit_test(the_frequency_that_hyper_v_would_tell_is_the_hosts_own),
        cmocka_unit_test(a_cpu_that_the_host_does_not_have_is_refused_with_its_features),
        cmocka_unit_test(random_bytes_are_refused_or_taken_and_never_more),
    };
    return cmocka_run_group_tests_name("state_refused", tests, NULL, NULL);
}

int main(void)
{
    return guest_main(run);
}
