/* SPDX-License-Identifier: Apache-2.0 */
/* The PCI host bridge and a function behind it: configuration space, slots, INTx. */
#include <errno.h>
#include <linux/pci_regs.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "conformance.h"
#include "pci_bench.h"

static bool line(unsigned pin)
{
    return bench.fake.irqs[FAKE_INTA + pin].level;
}

static void both_ways_lead_to_the_same_registers(void **state)
{
    (void)state;
    assert_int_equal(fake_config_read(&bench.fake, 0, PCI_VENDOR_ID, 4), 0x00081b36);
    assert_int_equal(fake_config_read(&bench.fake, 0, PCI_CLASS_REVISION, 4), 0x06000000);
    assert_int_equal(bench_get(PCI_VENDOR_ID, 4), 0x56781234);
    assert_int_equal(bench_get(PCI_CLASS_REVISION, 4), 0xff010203);
    assert_int_equal(bench_get(PCI_SUBSYSTEM_VENDOR_ID, 4), 0xdef09abc);
    for (unsigned slot = 0; slot <= BENCH_SLOT; slot += BENCH_SLOT)
        for (unsigned size = 1; size <= 4; size *= 2)
            for (unsigned at = 0; at < PCI_CONFIG_BYTES; at += size)
                assert_int_equal(fake_port_read(&bench.fake, slot, at, size),
                                 fake_config_read(&bench.fake, slot, at, size));

    fake_port_write(&bench.fake, BENCH_SLOT, PCI_INTERRUPT_LINE, 1, 0x5a);
    assert_int_equal(bench_get(PCI_INTERRUPT_LINE, 1), 0x5a);
    fake_port_write(&bench.fake, BENCH_SLOT, PCI_COMMAND, 2, PCI_COMMAND_MASTER);
    assert_int_equal(bench_get(PCI_COMMAND, 2), PCI_COMMAND_MASTER);
}

static void what_is_not_there_reads_as_ones(void **state)
{
    (void)state;
    for (unsigned slot = 1; slot < PCI_SLOTS; slot++) {
        if (slot == BENCH_SLOT)
            continue;
        assert_int_equal(fake_config_read(&bench.fake, slot, PCI_VENDOR_ID, 4), 0xffffffff);
        assert_int_equal(fake_port_read(&bench.fake, slot, PCI_VENDOR_ID, 2), 0xffff);
    }
    for (unsigned function = 1; function < 8; function++) {
        assert_int_equal(bench_get(function << 12, 2), 0xffff);
        fake_write(&bench.fake, BUS_PIO, 0xcf8, 4, 0x80000000 | BENCH_SLOT << 11 | function << 8);
        assert_int_equal(fake_read(&bench.fake, BUS_PIO, 0xcfc, 2), 0xffff);
    }
    /* Another bus; and a conventional function's extended space. */
    fake_write(&bench.fake, BUS_PIO, 0xcf8, 4, 0x80010000 | BENCH_SLOT << 11);
    assert_int_equal(fake_read(&bench.fake, BUS_PIO, 0xcfc, 4) & UINT32_MAX, UINT32_MAX);
    assert_int_equal(bench_get(PCI_CONFIG_BYTES, 4), 0xffffffff);
    assert_int_equal(bench_get(0xffc, 4), 0xffffffff);
    bench_set(PCI_CONFIG_BYTES, 4, 0);
    fake_config_write(&bench.fake, 31, PCI_COMMAND, 2, 0xffff);
}

static void the_address_port_takes_dwords_alone(void **state)
{
    (void)state;
    fake_write(&bench.fake, BUS_PIO, 0xcf8, 4, 0xffffffff);
    assert_int_equal(fake_read(&bench.fake, BUS_PIO, 0xcf8, 4), 0x80fffffc);
    fake_outb(&bench.fake, 0xcf9, 0x06);
    fake_outb(&bench.fake, 0xcfb, 0x01);
    fake_write(&bench.fake, BUS_PIO, 0xcf8, 2, 0);
    assert_int_equal(fake_inb(&bench.fake, 0xcfb), 0xff);
    assert_int_equal(fake_read(&bench.fake, BUS_PIO, 0xcf8, 4), 0x80fffffc);

    fake_write(&bench.fake, BUS_PIO, 0xcf8, 4, BENCH_SLOT << 11); /* not enabled */
    assert_int_equal(fake_inb(&bench.fake, 0xcfc), 0xff);
    fake_write(&bench.fake, BUS_PIO, 0xcf8, 4, BENCH_SLOT << 11 | PCI_COMMAND);
    fake_write(&bench.fake, BUS_PIO, 0xcfc, 2, PCI_COMMAND_MASTER);
    assert_int_equal(bench_get(PCI_COMMAND, 2), 0);
    device_reset(bench.host);
    assert_int_equal(fake_read(&bench.fake, BUS_PIO, 0xcf8, 4), 0);
}

static void an_access_across_dwords_is_made_of_bytes(void **state)
{
    (void)state;
    assert_int_equal(fake_config_read(&bench.fake, BENCH_SLOT, PCI_VENDOR_ID, 8),
                     (uint64_t)bench_get(4, 4) << 32 | 0x56781234);
    assert_int_equal(bench_get(PCI_SUBSYSTEM_VENDOR_ID + 3, 2), 0x00de);
    /* The last bytes of the space and the first that nobody has; then of a function's 4 KiB. */
    assert_int_equal(bench_get(PCI_CONFIG_BYTES - 2, 4), 0xffff0000);
    assert_int_equal(bench_get(0xfff, 2), 0xffff);
    bench_set(PCI_CACHE_LINE_SIZE - 3, 4, 0x77665544);
    assert_int_equal(bench_get(PCI_CACHE_LINE_SIZE, 1), 0x77);
    assert_int_equal(bench_get(PCI_CLASS_REVISION, 4), 0xff010203);
}

static void only_the_writable_bits_change(void **state)
{
    uint8_t before[PCI_CONFIG_BYTES];

    (void)state;
    for (unsigned i = 0; i < PCI_CONFIG_BYTES; i++)
        before[i] = (uint8_t)bench_get(i, 1);
    for (unsigned i = 0; i < PCI_CONFIG_BYTES; i++)
        bench_set(i, 1, 0xff);
    assert_int_equal(bench_get(PCI_COMMAND, 2), 0x0406);
    assert_int_equal(bench_get(PCI_STATUS, 2), PCI_STATUS_CAP_LIST);
    assert_int_equal(bench_get(bench.fun->capability + 4, 4), 0xffffffff);
    for (unsigned i = 0; i < PCI_CONFIG_BYTES; i++) {
        uint8_t fixed = (uint8_t)~bench.fun->pci.writable[i];

        if ((i & ~3u) != (unsigned)bench.fun->capability + FAKE_CAPABILITY_HOOK)
            assert_int_equal(bench_get(i, 1) & fixed, before[i] & fixed);
    }
    device_reset(bench.dev);
    for (unsigned i = 0; i < PCI_CONFIG_BYTES; i++)
        assert_int_equal(bench_get(i, 1), before[i]);
}

static void a_register_with_a_hook_is_the_functions_own(void **state)
{
    unsigned at = bench.fun->capability + FAKE_CAPABILITY_HOOK;

    (void)state;
    bench_set(at, 4, 0x12345678);
    assert_int_equal(bench.fun->hooked, 0x12345678);
    assert_int_equal(bench_get(at, 4), ~UINT32_C(0x12345678));
    assert_int_equal(bench_get(at + 1, 1), 0x56 ^ 0xff);
    bench_set(at - 1, 4, 0xffffffff); /* crosses: arrives as bytes, which this hook leaves alone */
    assert_int_equal(bench.fun->hooked, 0x12345678);
}

static void capabilities_are_linked_in_their_order(void **state)
{
    unsigned first = bench_get(PCI_CAPABILITY_LIST, 1), second = bench_get(first + 1, 1);

    (void)state;
    assert_int_equal(first, 0x40);
    assert_int_equal(bench_get(first, 1), FAKE_CAPABILITY);
    assert_int_equal(bench_get(first + 2, 1), FAKE_CAPABILITY_BYTES);
    assert_int_equal(second, 0x40 + FAKE_CAPABILITY_BYTES);
    assert_int_equal(bench_get(second, 1), PCI_CAP_ID_MSIX);
    assert_int_equal(bench_get(second + 1, 1), 0);
    assert_int_equal(fake_config_read(&bench.fake, 0, PCI_STATUS, 2), 0);
}

static void capabilities_that_do_not_fit_are_refused(void **state)
{
    static const uint8_t body[255];
    struct pci_device *pci = &bench.fun->pci;
    int r, count = 0;

    (void)state;
    assert_int_equal(pci_device_add_capability(pci, 9, body, 0xff, &bench.err), -ENOSPC);
    assert_int_equal(pci_device_add_capability(pci, 9, body, 0x200, &bench.err), -ENOSPC);
    while ((r = pci_device_add_capability(pci, 9, body, 13, &bench.err)) > 0) {
        assert_int_equal(r % 4, 0);
        assert_true(r + 15 < PCI_CONFIG_BYTES);
        count++;
    }
    assert_int_equal(r, -ENOSPC);
    assert_int_equal(count, 10);
    assert_string_equal(bench.err.msg, "function: no room for PCI capability 0x9");
}

static void an_interrupt_pin_raises_its_slots_line(void **state)
{
    (void)state;
    fake_function_intx(bench.dev, true);
    assert_true(line(3));
    assert_int_equal(bench_get(PCI_STATUS, 2), PCI_STATUS_CAP_LIST | PCI_STATUS_INTERRUPT);
    fake_function_intx(bench.dev, true);
    assert_int_equal(bench.fake.irqs[FAKE_INTA + 3].sets, 1);
    fake_function_intx(bench.dev, false);
    assert_false(line(3));
    assert_int_equal(bench_get(PCI_STATUS, 2), PCI_STATUS_CAP_LIST);
    bench_plug(4);
    fake_function_intx(bench.other, true);
    assert_true(line(0));
}

static void a_shared_line_stays_up_until_the_last_lets_go(void **state)
{
    (void)state;
    bench_plug(BENCH_SLOT + 4);
    fake_function_intx(bench.dev, true);
    fake_function_intx(bench.other, true);
    fake_function_intx(bench.dev, false);
    assert_true(line(3));
    fake_function_intx(bench.other, false);
    assert_false(line(3));
    assert_int_equal(bench.fake.irqs[FAKE_INTA + 3].rises, 1);

    fake_function_intx(bench.dev, true);
    fake_function_intx(bench.other, true);
    device_destroy(bench.other);
    bench.other = NULL;
    assert_true(line(3));
    device_reset(bench.dev);
    assert_false(line(3));
}

static void the_pin_is_silent_while_it_is_disabled_or_messages_are_on(void **state)
{
    unsigned control = bench.fun->pci.msix_at + PCI_MSIX_FLAGS;

    (void)state;
    fake_function_intx(bench.dev, true);
    bench_set(PCI_COMMAND, 2, PCI_COMMAND_INTX_DISABLE);
    assert_false(line(3));
    assert_true(bench_get(PCI_STATUS, 2) & PCI_STATUS_INTERRUPT);
    bench_set(PCI_COMMAND, 2, 0);
    assert_true(line(3));
    bench_set(control, 2, PCI_MSIX_FLAGS_ENABLE);
    assert_false(line(3));
    bench_set(control, 2, 0);
    assert_true(line(3));
}

static void a_reset_brings_back_what_was_plugged(void **state)
{
    uint64_t low = fake_bar(&bench.fake, BENCH_SLOT, 0);

    (void)state;
    bench_set(PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    fake_set_bar(&bench.fake, BENCH_SLOT, 0, FAKE_WINDOW32);
    bench_set(bench.fun->capability + 4, 4, 0x11111111);
    fake_function_intx(bench.dev, true);
    device_reset(bench.dev);
    assert_int_equal(bench_get(PCI_COMMAND, 2), 0);
    assert_int_equal(fake_bar(&bench.fake, BENCH_SLOT, 0), low);
    assert_int_equal(bench_get(bench.fun->capability + 4, 4), 0);
    assert_int_equal(bench.fake.map_count, 3);
    assert_false(line(3));
    assert_int_equal(bench.fun->bar_at[0], 0);
}

static void a_slot_that_cannot_be_had_is_refused(void **state)
{
    struct device *dev;

    (void)state;
    assert_int_equal(
        fake_function_create(&bench.fake.platform, bench.host, BENCH_SLOT, &dev, &bench.err),
        -EBUSY);
    assert_string_equal(bench.err.msg, "function: PCI slot 3 is taken by function");
    assert_int_equal(fake_function_create(&bench.fake.platform, bench.host, 0, &dev, &bench.err),
                     -EBUSY);
    assert_int_equal(fake_function_create(&bench.fake.platform, bench.host, 32, &dev, &bench.err),
                     -EINVAL);
    assert_int_equal(bench.fake.msi_count, FAKE_VECTORS);
    assert_int_equal(bench_get(PCI_VENDOR_ID, 2), 0x1234);
}

static void a_bus_without_a_free_slot_says_so(void **state)
{
    struct device *devs[PCI_SLOTS], *dev;
    unsigned count = 0;

    (void)state;
    while (count < PCI_SLOTS - 2)
        assert_int_equal(
            fake_function_create(&bench.fake.platform, bench.host, -1, &devs[count++], &bench.err),
            0);
    assert_int_equal(fake_function_create(&bench.fake.platform, bench.host, -1, &dev, &bench.err),
                     -ENOSPC);
    while (count)
        device_destroy(devs[--count]);
}

static void an_unplugged_function_is_gone(void **state)
{
    (void)state;
    bench_set(PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    fake_function_intx(bench.dev, true);
    pci_host_unplug(&bench.fun->pci);
    assert_int_equal(bench_get(PCI_VENDOR_ID, 4), 0xffffffff);
    assert_int_equal(bench.fake.map_count, 3);
    assert_int_equal(bench.fun->bar_at[0], 0);
    assert_false(line(3));
    pci_host_unplug(&bench.fun->pci);
}

/* What the function says of itself, loaded into one that was plugged at the same place. */
static int reload(struct device *dev)
{
    struct writer w = {0};
    int r = state_save(dev->ops->state, dev, &w, &bench.err);

    assert_int_equal(r, 0);
    device_reset(dev);
    struct reader reader = {.data = w.data, .len = w.len};
    r = state_load(dev->ops->state, dev, &reader, &bench.err);
    free(w.data);
    return r;
}

static void a_loaded_function_is_where_it_was(void **state)
{
    (void)state;
    bench_set(PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    fake_set_bar(&bench.fake, BENCH_SLOT, 0, FAKE_WINDOW32 + 0x5000);
    fake_function_intx(bench.dev, true);
    assert_int_equal(reload(bench.dev), 0);
    assert_int_equal(bench.fun->bar_at[0], FAKE_WINDOW32 + 0x5000);
    assert_true(bench_is_mapped(FAKE_WINDOW32 + 0x5000));
    assert_true(line(3));
    assert_true(bench_get(PCI_STATUS, 2) & PCI_STATUS_INTERRUPT);
}

static void a_state_of_another_device_is_refused(void **state)
{
    static const unsigned places[] = {PCI_VENDOR_ID, PCI_STATUS + 1, PCI_CLASS_DEVICE,
                                      0x40,          0x58,           0xff};

    (void)state;
    for (unsigned i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        bench.fun->pci.config[places[i]] ^= 0x10;
        assert_int_equal(reload(bench.dev), -EPROTO);
        device_reset(bench.dev);
        assert_int_equal(reload(bench.dev), 0);
    }
    fake_function_of(bench.dev)->pci.config[PCI_BASE_ADDRESS_0] ^= 1; /* an I/O BAR */
    assert_int_equal(reload(bench.dev), -EPROTO);
    assert_string_equal(bench.err.msg,
                        "function: configuration byte 0x10: 0x1 is not this device's");
    device_reset(bench.dev);
}

static int create_host(void *opaque, struct platform *platform, struct device **ret_dev,
                       struct error *err)
{
    (void)opaque;
    return fake_host_create(platform, ret_dev, err);
}

static void the_bridge_conforms(void **state)
{
    static const struct conformance_case c = {.create = create_host};

    (void)state;
    conformance_run(&c);
}

static void a_function_conforms(void **state)
{
    static const struct conformance_case c = {
        .create = fake_function_create_alone,
        .disturb = fake_function_disturb,
        .settle = fake_function_settle,
    };

    (void)state;
    conformance_run(&c);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, pci_bench_setup, pci_bench_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(both_ways_lead_to_the_same_registers),
        TEST(what_is_not_there_reads_as_ones),
        TEST(the_address_port_takes_dwords_alone),
        TEST(an_access_across_dwords_is_made_of_bytes),
        TEST(only_the_writable_bits_change),
        TEST(a_register_with_a_hook_is_the_functions_own),
        TEST(capabilities_are_linked_in_their_order),
        TEST(capabilities_that_do_not_fit_are_refused),
        TEST(an_interrupt_pin_raises_its_slots_line),
        TEST(a_shared_line_stays_up_until_the_last_lets_go),
        TEST(the_pin_is_silent_while_it_is_disabled_or_messages_are_on),
        TEST(a_reset_brings_back_what_was_plugged),
        TEST(a_slot_that_cannot_be_had_is_refused),
        TEST(a_bus_without_a_free_slot_says_so),
        TEST(an_unplugged_function_is_gone),
        TEST(a_loaded_function_is_where_it_was),
        TEST(a_state_of_another_device_is_refused),
        TEST(the_bridge_conforms),
        TEST(a_function_conforms),
    };
    return cmocka_run_group_tests_name("pci", tests, NULL, NULL);
}
