/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Interrupts as the controllers see them, read from the host's side: a payload
 * cannot take one on every host. And doorbells, which are the other direction.
 */
#include "guest.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "../../src/kvm/internal.h"

static uint32_t ioapic_pending(struct guest *g)
{
    struct kvm_irqchip chip = {.chip_id = KVM_IRQCHIP_IOAPIC};

    assert_int_equal(ioctl(g->vm->fd, KVM_GET_IRQCHIP, &chip), 0);
    return chip.chip.ioapic.irr;
}

static uint8_t pic_pending(struct guest *g, unsigned id)
{
    struct kvm_irqchip chip = {.chip_id = id};

    assert_int_equal(ioctl(g->vm->fd, KVM_GET_IRQCHIP, &chip), 0);
    return chip.chip.pic.irr;
}

static bool lapic_pending(struct guest *g, unsigned vector)
{
    struct kvm_lapic_state lapic;
    uint32_t word;

    assert_int_equal(ioctl(g->vm->vcpus[0]->fd, KVM_GET_LAPIC, &lapic), 0);
    memcpy(&word, &lapic.regs[0x200 + vector / 32 * 0x10], sizeof(word));
    return word >> vector % 32 & 1;
}

/* KVM raises an interrupt for an eventfd in a worker of its own. */
static void wait_ioapic_pending(struct guest *g, uint32_t mask)
{
    for (unsigned i = 0; i < 60000 && ioapic_pending(g) != mask; i++)
        usleep(1000);
    assert_int_equal(ioapic_pending(g), mask);
}

/* A pulse is remembered by the PIC; an IOAPIC input that is masked forgets it. */
static void wait_pic_pending(struct guest *g, uint8_t mask)
{
    for (unsigned i = 0; i < 60000 && pic_pending(g, KVM_IRQCHIP_PIC_MASTER) != mask; i++)
        usleep(1000);
    assert_int_equal(pic_pending(g, KVM_IRQCHIP_PIC_MASTER), mask);
}

static void wait_lapic_pending(struct guest *g, unsigned vector)
{
    for (unsigned i = 0; i < 60000 && !lapic_pending(g, vector); i++)
        usleep(1000);
    assert_true(lapic_pending(g, vector));
}

static int event(void)
{
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

    assert_true(fd >= 0);
    return fd;
}

static uint64_t rings(int fd)
{
    uint64_t count = 0;

    return read(fd, &count, sizeof(count)) == sizeof(count) ? count : 0;
}

static void signal_event(int fd)
{
    assert_int_equal(eventfd_write(fd, 1), 0);
}

static void a_line_reaches_pic_and_ioapic(void **state)
{
    struct irq *line;
    struct error err;
    struct guest g;

    (void)state;
    guest_create(&g, "io", 1, false);
    assert_int_equal(kvm_vm_irq_line(g.vm, 11, &line, &err), 0);
    assert_int_equal(ioapic_pending(&g), 0);
    irq_set(line, true);
    assert_int_equal(ioapic_pending(&g), 1u << 11);
    assert_int_equal(pic_pending(&g, KVM_IRQCHIP_PIC_SLAVE), 1u << 3);
    guest_destroy(&g);
}

static void the_timer_is_input_2_of_the_ioapic_and_0_of_the_pic(void **state)
{
    struct irq *line;
    struct error err;
    struct guest g;

    (void)state;
    guest_create(&g, "io", 1, false);
    assert_int_equal(kvm_vm_irq_line(g.vm, 0, &line, &err), 0);
    irq_set(line, true);
    assert_int_equal(ioapic_pending(&g), 1u << 2);
    assert_int_equal(pic_pending(&g, KVM_IRQCHIP_PIC_MASTER), 1u << 0);
    guest_destroy(&g);
}

static void an_owned_line_and_one_that_is_not_there_are_refused(void **state)
{
    struct irq *line, *second = NULL;
    struct error err;
    struct guest g;

    (void)state;
    guest_create(&g, "io", 1, false);
    assert_int_equal(kvm_vm_irq_line(g.vm, 4, &line, &err), 0);
    assert_int_equal(kvm_vm_irq_line(g.vm, 4, &second, &err), -EBUSY);
    assert_int_equal(kvm_vm_irq_line(g.vm, 24, &second, &err), -EINVAL);
    assert_null(second);
    guest_destroy(&g);
}

static void an_eventfd_raises_an_interrupt_until_it_is_detached(void **state)
{
    int fd = event();
    struct error err;
    struct guest g;

    (void)state;
    guest_create(&g, "io", 1, false);
    assert_int_equal(kvm_vm_irqfd(g.vm, 5, fd, -1, true, &err), 0);
    assert_int_equal(kvm_vm_irqfd(g.vm, 5, fd, -1, true, &err), -EBUSY);
    signal_event(fd);
    wait_pic_pending(&g, 1u << 5);

    assert_int_equal(kvm_vm_irqfd(g.vm, 5, fd, -1, false, &err), 0);
    assert_int_equal(kvm_vm_reset(g.vm, &err), 0);
    signal_event(fd);
    usleep(20000);
    assert_int_equal(pic_pending(&g, KVM_IRQCHIP_PIC_MASTER), 0);
    guest_destroy(&g);
    close(fd);
}

static void a_level_eventfd_keeps_its_line_up(void **state)
{
    int fd = event(), resample_fd = event();
    struct error err;
    struct guest g;

    (void)state;
    guest_create(&g, "io", 1, false);
    assert_int_equal(kvm_vm_irqfd(g.vm, 10, fd, resample_fd, true, &err), 0);
    signal_event(fd);
    wait_ioapic_pending(&g, 1u << 10);
    assert_int_equal(rings(resample_fd), 0); /* nobody has ended the interrupt */
    assert_int_equal(kvm_vm_irqfd(g.vm, 10, fd, resample_fd, false, &err), 0);
    guest_destroy(&g);
    close(fd);
    close(resample_fd);
}

static void a_message_reaches_the_local_apic(void **state)
{
    struct kvm_lapic_state lapic;
    const uint32_t enabled = 0x1ff;
    int fd = event();
    struct error err;
    unsigned gsi, other;
    struct guest g;

    (void)state;
    guest_create(&g, "io", 1, false);
    assert_int_equal(ioctl(g.vm->vcpus[0]->fd, KVM_GET_LAPIC, &lapic), 0);
    memcpy(&lapic.regs[0xf0], &enabled, sizeof(enabled));
    assert_int_equal(ioctl(g.vm->vcpus[0]->fd, KVM_SET_LAPIC, &lapic), 0);

    assert_int_equal(kvm_vm_msi_route_add(g.vm, &gsi, &err), 0);
    assert_int_equal(kvm_vm_msi_route_set(g.vm, gsi, 0xfee00000, 0x51, &err), 0);
    assert_int_equal(kvm_vm_msi_route_set(g.vm, 5, 0xfee00000, 0x51, &err), -EINVAL);
    assert_int_equal(kvm_vm_irqfd(g.vm, gsi, fd, -1, true, &err), 0);
    signal_event(fd);
    wait_lapic_pending(&g, 0x51);

    assert_int_equal(kvm_vm_msi_route_set(g.vm, gsi, 0xfee00000, 0x62, &err), 0);
    assert_false(lapic_pending(&g, 0x62));
    signal_event(fd);
    wait_lapic_pending(&g, 0x62);

    assert_int_equal(kvm_vm_irqfd(g.vm, gsi, fd, -1, false, &err), 0);
    kvm_vm_msi_route_remove(g.vm, gsi);
    assert_int_equal(kvm_vm_msi_route_set(g.vm, gsi, 0xfee00000, 0x51, &err), -EINVAL);
    assert_int_equal(kvm_vm_msi_route_add(g.vm, &other, &err), 0);
    assert_int_equal(other, gsi);
    guest_destroy(&g);
    close(fd);
}

static void doorbells_ring_and_only_what_does_not_match_is_an_exit(void **state)
{
    struct kvm_doorbell bells[] = {
        {.bus = BUS_PIO, .addr = 0x604, .size = 2, .fd = event()},
        {.bus = BUS_MMIO, .addr = 0xd0000000, .size = 0, .fd = event()},
        {.bus = BUS_MMIO, .addr = 0xd0000010, .size = 2, .match = true, .value = 5, .fd = event()},
    };
    struct error err;
    struct guest g;

    (void)state;
    guest_create(&g, "bells", 1, false);
    for (unsigned i = 0; i < 3; i++)
        if (kvm_vm_doorbell(g.vm, &bells[i], true, &err) < 0)
            fail_msg("%s", err.msg);
    assert_int_equal(kvm_vm_doorbell(g.vm, &bells[0], true, &err), -EEXIST);
    kvm_vm_resume(g.vm);
    guest_wait_end(&g);
    kvm_vm_pause(g.vm);

    assert_int_equal(g.status, 3);
    assert_int_equal(rings(bells[0].fd), 1);
    assert_int_equal(rings(bells[1].fd), 2);
    assert_int_equal(rings(bells[2].fd), 1);
    assert_int_equal(g.count, 1);
    assert_int_equal(g.tape[0].value, 6);

    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(kvm_vm_doorbell(g.vm, &bells[i], false, &err), 0);
        close(bells[i].fd);
    }
    guest_destroy(&g);
}

static int run(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_reaches_pic_and_ioapic),
        cmocka_unit_test(the_timer_is_input_2_of_the_ioapic_and_0_of_the_pic),
        cmocka_unit_test(an_owned_line_and_one_that_is_not_there_are_refused),
        cmocka_unit_test(an_eventfd_raises_an_interrupt_until_it_is_detached),
        cmocka_unit_test(a_level_eventfd_keeps_its_line_up),
        cmocka_unit_test(a_message_reaches_the_local_apic),
        cmocka_unit_test(doorbells_ring_and_only_what_does_not_match_is_an_exit),
    };
    return cmocka_run_group_tests_name("interrupts", tests, NULL, NULL);
}

int main(void)
{
    return guest_main(run);
}
