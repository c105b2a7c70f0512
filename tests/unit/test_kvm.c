/* SPDX-License-Identifier: Apache-2.0 */
/* What src/kvm does without /dev/kvm: the routing table, reports, the words for a missing device.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../src/kvm/internal.h"

static unsigned count_routes(const struct kvm_irq_routing *table, unsigned gsi, unsigned chip,
                             unsigned pin)
{
    unsigned count = 0;

    for (unsigned i = 0; i < table->nr; i++) {
        const struct kvm_irq_routing_entry *e = &table->entries[i];

        count += e->gsi == gsi && e->type == KVM_IRQ_ROUTING_IRQCHIP &&
                 e->u.irqchip.irqchip == chip && e->u.irqchip.pin == pin;
    }
    return count;
}

static void legacy_interrupts_go_where_a_pc_has_them(void **state)
{
    struct routing routing = {0};
    struct kvm_irq_routing *table = routing_build(&routing);

    (void)state;
    assert_non_null(table);
    assert_int_equal(count_routes(table, 0, KVM_IRQCHIP_IOAPIC, 2), 1);
    assert_int_equal(count_routes(table, 0, KVM_IRQCHIP_PIC_MASTER, 0), 1);
    assert_int_equal(count_routes(table, 0, KVM_IRQCHIP_IOAPIC, 0), 0);
    assert_int_equal(count_routes(table, 2, KVM_IRQCHIP_IOAPIC, 2), 0);
    assert_int_equal(count_routes(table, 4, KVM_IRQCHIP_IOAPIC, 4), 1);
    assert_int_equal(count_routes(table, 4, KVM_IRQCHIP_PIC_MASTER, 4), 1);
    assert_int_equal(count_routes(table, 9, KVM_IRQCHIP_PIC_SLAVE, 1), 1);
    assert_int_equal(count_routes(table, 23, KVM_IRQCHIP_IOAPIC, 23), 1);
    /* 16 less the cascade on the PICs, 24 less the same on the IOAPIC */
    assert_int_equal(table->nr, 15 + 23);
    free(table);
}

static void a_message_is_routed_once_it_is_set(void **state)
{
    struct routing routing = {0};
    struct kvm_irq_routing *table;
    unsigned gsi, second;

    (void)state;
    assert_int_equal(routing_take(&routing, &gsi), 0);
    assert_int_equal(routing_take(&routing, &second), 0);
    assert_int_equal(gsi, ROUTING_LEGACY_GSIS);
    assert_int_equal(second, gsi + 1);
    table = routing_build(&routing);
    assert_int_equal(table->nr, 15 + 23);
    free(table);

    struct routing_msi *msi = routing_find(&routing, second);
    assert_non_null(msi);
    msi->routed = true;
    msi->address = 0x1fee01000;
    msi->data = 0x41;
    table = routing_build(&routing);
    assert_int_equal(table->nr, 15 + 23 + 1);
    const struct kvm_irq_routing_entry *last = &table->entries[table->nr - 1];
    assert_int_equal(last->gsi, second);
    assert_int_equal(last->type, KVM_IRQ_ROUTING_MSI);
    assert_int_equal(last->u.msi.address_lo, 0xfee01000);
    assert_int_equal(last->u.msi.address_hi, 1);
    assert_int_equal(last->u.msi.data, 0x41);
    free(table);
    routing_fini(&routing);
}

static void only_what_was_taken_is_found(void **state)
{
    struct routing routing = {0};
    unsigned gsi;

    (void)state;
    assert_null(routing_find(&routing, 0));
    assert_null(routing_find(&routing, ROUTING_LEGACY_GSIS));
    assert_int_equal(routing_take(&routing, &gsi), 0);
    assert_non_null(routing_find(&routing, gsi));
    assert_null(routing_find(&routing, gsi + 1));
    assert_null(routing_find(&routing, UINT32_MAX));
    routing_fini(&routing);
}

static void the_last_interrupt_is_followed_by_an_error(void **state)
{
    struct routing routing = {0};
    unsigned gsi = 0, taken = 0;

    (void)state;
    while (routing_take(&routing, &gsi) == 0)
        taken++;
    assert_int_equal(taken, ROUTING_MAX_GSIS - ROUTING_LEGACY_GSIS);
    assert_int_equal(routing_take(&routing, &gsi), -ENOSPC);
    *routing_find(&routing, 100) = (struct routing_msi){0};
    assert_int_equal(routing_take(&routing, &gsi), 0);
    assert_int_equal(gsi, 100);
    routing_fini(&routing);
}

static void expect_reason(const struct kvm_run *run, int code, const char *words)
{
    char text[256];

    report_reason(run, code, text, sizeof(text));
    assert_string_equal(text, words);
}

static void each_reason_is_told_in_words(void **state)
{
    struct kvm_run run = {.exit_reason = KVM_EXIT_SHUTDOWN};

    (void)state;
    expect_reason(&run, 0, "triple fault (KVM exit 8, SHUTDOWN)");

    run.exit_reason = KVM_EXIT_FAIL_ENTRY;
    run.fail_entry.hardware_entry_failure_reason = 0x80000021;
    expect_reason(&run, 0,
                  "the hardware refused to enter the guest: hardware reason 0x80000021 "
                  "(KVM exit 9, FAIL_ENTRY)");

    run = (struct kvm_run){.exit_reason = KVM_EXIT_INTERNAL_ERROR};
    run.internal.suberror = KVM_INTERNAL_ERROR_EMULATION;
    expect_reason(&run, 0,
                  "KVM could not go on: cannot emulate the instruction (suberror 1) "
                  "(KVM exit 17, INTERNAL_ERROR)");
    run.internal.suberror = KVM_INTERNAL_ERROR_DELIVERY_EV;
    run.internal.ndata = 2;
    run.internal.data[0] = 0x80000300;
    run.internal.data[1] = 0x31;
    expect_reason(&run, 0,
                  "KVM could not go on: an exit while an event was delivered (suberror 3), "
                  "data 0x80000300 0x31 (KVM exit 17, INTERNAL_ERROR)");

    run = (struct kvm_run){.exit_reason = 4711};
    expect_reason(&run, 0, "an exit that vmrun does not know (KVM exit 4711, ?)");
    expect_reason(&run, EFAULT,
                  "KVM_RUN failed: Bad address (the host could not provide a page of guest RAM)");
}

static void a_reason_that_claims_much_data_stays_short(void **state)
{
    struct kvm_run run = {.exit_reason = KVM_EXIT_INTERNAL_ERROR};
    char text[64];

    (void)state;
    run.internal.ndata = UINT32_MAX;
    memset(run.internal.data, 0xff, sizeof(run.internal.data));
    report_reason(&run, 0, text, sizeof(text));
    assert_int_equal(strlen(text), sizeof(text) - 1);
}

static void registers_are_all_there(void **state)
{
    struct kvm_regs regs = {.rax = 0x1111, .rip = 0xffffffff81000000, .rflags = 0x10246};
    struct kvm_sregs sregs = {.cr2 = 0xdead, .efer = 0xd01, .cs = {.l = 1, .present = 1, .s = 1}};
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);

    (void)state;
    assert_non_null(out);
    report_registers(out, &regs, &sregs);
    fclose(out);
    assert_non_null(strstr(text, "rax  0000000000001111"));
    assert_non_null(strstr(text, "rip  ffffffff81000000"));
    assert_non_null(strstr(text, "cr2  000000000000dead"));
    assert_non_null(strstr(text, "efer 0000000000000d01"));
    assert_non_null(
        strstr(text, "cs  0000 base 0000000000000000 limit 00000000 type 0 dpl 0 64-bit\n"));
    free(text);
}

static void a_missing_device_is_an_error_with_its_cure(void **state)
{
    struct error err;
    int fd = -1;

    (void)state;
    assert_int_equal(host_open("/nonexistent/kvm", &fd, &err), -ENOENT);
    assert_string_equal(err.msg,
                        "no /nonexistent/kvm: load the module with 'modprobe kvm-intel' or "
                        "'modprobe kvm-amd', and check that virtualization is on in the firmware");
    assert_int_equal(fd, -1);
}

static void another_device_is_not_taken_for_kvm(void **state)
{
    struct error err;
    int fd = -1;

    (void)state;
    assert_int_equal(host_open("/dev/null", &fd, &err), -ENOTSUP);
    assert_string_equal(err.msg, "/dev/null is not a KVM device");
    assert_int_equal(fd, -1);
}

static void exit_kinds_have_names(void **state)
{
    (void)state;
    for (unsigned kind = 0; kind < KVM_EXIT_KINDS; kind++)
        assert_string_not_equal(kvm_exit_kind_name((enum kvm_exit_kind)kind), "unknown");
    assert_string_equal(kvm_exit_kind_name(KVM_EXIT_KIND_MMIO), "mmio");
    assert_string_equal(kvm_exit_kind_name(KVM_EXIT_KINDS), "unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(legacy_interrupts_go_where_a_pc_has_them),
        cmocka_unit_test(a_message_is_routed_once_it_is_set),
        cmocka_unit_test(only_what_was_taken_is_found),
        cmocka_unit_test(the_last_interrupt_is_followed_by_an_error),
        cmocka_unit_test(each_reason_is_told_in_words),
        cmocka_unit_test(a_reason_that_claims_much_data_stays_short),
        cmocka_unit_test(registers_are_all_there),
        cmocka_unit_test(a_missing_device_is_an_error_with_its_cure),
        cmocka_unit_test(another_device_is_not_taken_for_kvm),
        cmocka_unit_test(exit_kinds_have_names),
    };
    return cmocka_run_group_tests_name("kvm", tests, NULL, NULL);
}
