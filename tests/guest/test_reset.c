/* SPDX-License-Identifier: Apache-2.0 */
/* A reset in place leaves what a power-on left, whatever the guest had done. */
#include "guest.h"

#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "../../src/kvm/internal.h"

static void run_to_end(struct guest *g)
{
    kvm_vm_resume(g->vm);
    guest_wait_end(g);
    kvm_vm_pause(g->vm);
}

static void reset(struct guest *g)
{
    struct error err;

    if (kvm_vm_reset(g->vm, &err) < 0)
        fail_msg("%s", err.msg);
}

static void fifty_resets_boot_like_the_first_time(void **state)
{
    struct access *first;
    struct guest g;
    unsigned count;

    (void)state;
    guest_create(&g, "io", 2, guest_has_ring3());
    run_to_end(&g);
    assert_int_equal(g.status, 0x21);
    count = g.count;
    first = malloc(count * sizeof(first[0]));
    assert_non_null(first);
    memcpy(first, g.tape, count * sizeof(first[0]));

    for (unsigned i = 0; i < 50; i++) {
        reset(&g);
        guest_load(&g);
        memset(g.tape, 0, count * sizeof(first[0]));
        run_to_end(&g);
        assert_int_equal(g.status, 0x21);
        assert_int_equal(g.count, count);
        for (unsigned k = 0; k < count; k++) {
            assert_int_equal(g.tape[k].addr, first[k].addr);
            assert_int_equal(g.tape[k].value, first[k].value);
        }
    }
    free(first);
    guest_destroy(&g);
}

static void registers_read_back_as_at_power_on(void **state)
{
    struct guest g;

    (void)state;
    guest_create(&g, "smp", 3, false);
    reset(&g);
    char *power_on = kvm_vm_describe(g.vm);
    guest_load(&g);
    kvm_vm_resume(g.vm);
    guest_wait_accesses(&g, 2);
    kvm_vm_pause(g.vm);
    char *later = kvm_vm_describe(g.vm);
    assert_string_not_equal(later, power_on);
    free(later);

    reset(&g);
    later = kvm_vm_describe(g.vm);
    assert_string_equal(later, power_on);
    free(later);
    free(power_on);
    guest_destroy(&g);
}

static void so_do_local_apics_msrs_and_chips(void **state)
{
    struct kvm_lapic_state lapic;
    struct irq *line;
    struct error err;
    struct guest g;

    (void)state;
    guest_create(&g, "smp", 3, false);
    assert_int_equal(kvm_vm_irq_line(g.vm, 9, &line, &err), 0);
    irq_set(line, true);
    irq_set(line, false);
    kvm_vm_resume(g.vm);
    guest_wait_accesses(&g, 2);
    kvm_vm_pause(g.vm);
    reset(&g);

    for (unsigned i = 0; i < 3; i++) {
        struct vcpu *vcpu = g.vm->vcpus[i];

        assert_int_equal(ioctl(vcpu->fd, KVM_GET_LAPIC, &lapic), 0);
        assert_memory_equal(&lapic, &vcpu->power_on->lapic.kvm, sizeof(lapic));
        if (msrs_compare(vcpu, &g.vm->msrs, &err) < 0)
            fail_msg("%s", err.msg);
    }
    for (unsigned i = 0; i < KVM_NR_IRQCHIPS; i++) {
        const struct kvm_irqchip *at_first = &g.vm->power_on_chips.chips[i];
        struct kvm_irqchip chip = {.chip_id = at_first->chip_id};

        assert_int_equal(ioctl(g.vm->fd, KVM_GET_IRQCHIP, &chip), 0);
        assert_memory_equal(&chip.chip, &at_first->chip, sizeof(chip.chip));
    }
    guest_destroy(&g);
}

static void a_line_that_a_device_holds_is_seen_after_the_reset(void **state)
{
    struct kvm_irqchip chip = {.chip_id = KVM_IRQCHIP_IOAPIC};
    struct irq *line;
    struct error err;
    struct guest g;

    (void)state;
    guest_create(&g, "io", 1, false);
    assert_int_equal(kvm_vm_irq_line(g.vm, 5, &line, &err), 0);
    irq_set(line, true);
    reset(&g);
    assert_int_equal(ioctl(g.vm->fd, KVM_GET_IRQCHIP, &chip), 0);
    assert_int_equal(chip.chip.ioapic.irr, 1u << 5);
    guest_destroy(&g);
}

static void a_crashed_guest_boots_again_after_it(void **state)
{
    char report[sizeof(((struct guest *)0)->report)];
    struct guest g;

    (void)state;
    guest_create(&g, "triple", 1, false);
    run_to_end(&g);
    assert_int_equal(g.crashes, 1);
    strcpy(report, g.report);

    kvm_vm_resume(g.vm); /* without a reset it stays where it is */
    kvm_vm_pause(g.vm);
    assert_int_equal(g.crashes, 1);

    reset(&g);
    guest_load(&g);
    run_to_end(&g);
    assert_int_equal(g.crashes, 1);
    assert_string_equal(g.report, report);
    guest_destroy(&g);
}

static int run(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fifty_resets_boot_like_the_first_time),
        cmocka_unit_test(registers_read_back_as_at_power_on),
        cmocka_unit_test(so_do_local_apics_msrs_and_chips),
        cmocka_unit_test(a_line_that_a_device_holds_is_seen_after_the_reset),
        cmocka_unit_test(a_crashed_guest_boots_again_after_it),
    };
    return cmocka_run_group_tests_name("reset", tests, NULL, NULL);
}

int main(void)
{
    return guest_main(run);
}
