/* SPDX-License-Identifier: Apache-2.0 */
/* BARs of a PCI function: where they are, who decides it, and what a hostile guest gets. */
#include <errno.h>
#include <linux/pci_regs.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "pci_bench.h"

static void ones_written_to_a_bar_tell_its_size(void **state)
{
    (void)state;
    bench_set(PCI_BASE_ADDRESS_0, 4, 0xffffffff);
    assert_int_equal(bench_get(PCI_BASE_ADDRESS_0, 4), 0xfffff000);
    bench_set(PCI_BASE_ADDRESS_2, 4, 0xffffffff);
    bench_set(PCI_BASE_ADDRESS_3, 4, 0xffffffff);
    assert_int_equal(bench_get(PCI_BASE_ADDRESS_2, 4), 0xffffc00c);
    assert_int_equal(bench_get(PCI_BASE_ADDRESS_3, 4), 0xffffffff);
    bench_set(PCI_BASE_ADDRESS_4, 4, 0xffffffff);
    bench_set(PCI_ROM_ADDRESS, 4, 0xffffffff);
    assert_int_equal(bench_get(PCI_BASE_ADDRESS_4, 4), 0);
    assert_int_equal(bench_get(PCI_ROM_ADDRESS, 4), 0);
    assert_int_equal(bench.fun->moves, 0);
}

static void every_slot_has_addresses_of_its_own_from_the_start(void **state)
{
    struct device *devs[PCI_SLOTS] = {0};

    (void)state;
    device_destroy(bench.dev);
    bench.dev = NULL;
    for (unsigned slot = 1; slot < PCI_SLOTS; slot++) {
        assert_int_equal(
            fake_function_create(&bench.fake.platform, bench.host, -1, &devs[slot], &bench.err), 0);
        assert_int_equal(fake_function_of(devs[slot])->pci.slot, slot);
        fake_config_write(&bench.fake, slot, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    }
    assert_int_equal(bench.fake.map_count, 3 + 3 * 31);
    for (unsigned slot = 1; slot < PCI_SLOTS; slot++)
        device_destroy(devs[slot]);
}

static void a_slots_addresses_do_not_depend_on_the_others(void **state)
{
    uint64_t low = fake_bar(&bench.fake, BENCH_SLOT, 0),
             high = fake_bar(&bench.fake, BENCH_SLOT, FAKE_BAR_LARGE);

    (void)state;
    bench_plug(-1);
    device_destroy(bench.dev);
    assert_int_equal(
        fake_function_create(&bench.fake.platform, bench.host, BENCH_SLOT, &bench.dev, &bench.err),
        0);
    assert_int_equal(fake_bar(&bench.fake, BENCH_SLOT, 0), low);
    assert_int_equal(fake_bar(&bench.fake, BENCH_SLOT, FAKE_BAR_LARGE), high);
    assert_int_equal(low, FAKE_WINDOW32 + BENCH_SLOT * (FAKE_WINDOW32_SIZE / 32));
    assert_int_equal(high, FAKE_WINDOW64 + BENCH_SLOT * (FAKE_WINDOW64_SIZE / 32));
    assert_int_equal(bench_get(PCI_INTERRUPT_LINE, 1), FAKE_INTA + 3);
    assert_int_equal(bench_get(PCI_INTERRUPT_PIN, 1), 1);
}

static void the_command_register_switches_the_bars(void **state)
{
    uint64_t low = fake_bar(&bench.fake, BENCH_SLOT, 0),
             high = fake_bar(&bench.fake, BENCH_SLOT, FAKE_BAR_LARGE);

    (void)state;
    assert_int_equal(bench_get(PCI_COMMAND, 2), 0);
    assert_false(bench_is_mapped(low));
    bench_set(PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    fake_write(&bench.fake, BUS_MMIO, low + 4, 4, 0xabcd);
    assert_int_equal(fake_read(&bench.fake, BUS_MMIO, low + 4, 4), 0xabcd);
    assert_int_equal(fake_read(&bench.fake, BUS_MMIO, high + 0x3ff8, 8), 0x3ff8);
    assert_int_equal(bench.fun->bar_at[0], low);
    assert_int_equal(bench.fun->bar_at[FAKE_BAR_LARGE], high);
    assert_int_equal(bench.fun->moves, 3);

    bench_set(PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    assert_int_equal(bench.fun->moves, 3);
    bench_set(PCI_COMMAND, 2, 0);
    assert_false(bench_is_mapped(low));
    assert_false(bench_is_mapped(high));
    assert_int_equal(bench.fun->bar_at[0], 0);
    assert_int_equal(bench.fun->moves, 6);
}

static void a_bar_moves_with_its_register(void **state)
{
    uint64_t low = fake_bar(&bench.fake, BENCH_SLOT, 0), to = FAKE_WINDOW32 + 0x1ff00000;
    uint64_t msix = fake_bar(&bench.fake, BENCH_SLOT, FAKE_BAR_MSIX);

    (void)state;
    bench_set(PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    bench.fun->moves = 0;
    fake_set_bar(&bench.fake, BENCH_SLOT, 0, to);
    assert_false(bench_is_mapped(low));
    assert_true(bench_is_mapped(to));
    assert_true(bench_is_mapped(msix)); /* the others stay where they are */
    assert_int_equal(bench.fun->bar_at[0], to);
    assert_int_equal(bench.fun->moves, 2); /* down, and up again */

    /* A wide one moves by halves; on its way it is where nothing decodes it. */
    fake_set_bar(&bench.fake, BENCH_SLOT, FAKE_BAR_LARGE, FAKE_WINDOW32 + 0x10000000);
    assert_int_equal(fake_read(&bench.fake, BUS_MMIO, FAKE_WINDOW32 + 0x10000010, 4), 0x10);
    fake_set_bar(&bench.fake, BENCH_SLOT, FAKE_BAR_LARGE, FAKE_WINDOW64 + 0x4000);
    assert_int_equal(fake_read(&bench.fake, BUS_MMIO, FAKE_WINDOW64 + 0x4020, 4), 0x20);
}

static void a_bar_outside_the_windows_is_not_decoded(void **state)
{
    static const uint64_t places[] = {
        0,
        0x1000,
        FAKE_WINDOW32 - 0x4000,
        FAKE_WINDOW32 + FAKE_WINDOW32_SIZE,
        FAKE_ECAM,
        0xfee00000,
        0xfffff000,
        FAKE_WINDOW64 - 0x4000,
        FAKE_WINDOW64 + FAKE_WINDOW64_SIZE,
        UINT64_MAX,
    };

    (void)state;
    bench_set(PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    unsigned with_it = bench.fake.map_count;
    for (unsigned i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        fake_set_bar(&bench.fake, BENCH_SLOT, FAKE_BAR_LARGE, places[i]);
        assert_int_equal(bench.fake.map_count, with_it - 1);
        assert_int_equal(bench.fun->bar_at[FAKE_BAR_LARGE], 0);
    }
    fake_set_bar(&bench.fake, BENCH_SLOT, FAKE_BAR_LARGE,
                 FAKE_WINDOW64 + FAKE_WINDOW64_SIZE - FAKE_BAR_LARGE_SIZE);
    assert_int_equal(bench.fake.map_count, with_it);
}

static void of_two_bars_at_one_place_the_lower_one_has_it(void **state)
{
    uint64_t place = FAKE_WINDOW32 + 0x100000;

    (void)state;
    bench_set(PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    fake_set_bar(&bench.fake, BENCH_SLOT, FAKE_BAR_LARGE, place);
    fake_set_bar(&bench.fake, BENCH_SLOT, 0, place + 0x1000);
    assert_int_equal(bench.fun->bar_at[0], place + 0x1000);
    assert_int_equal(bench.fun->bar_at[FAKE_BAR_LARGE], 0);
    assert_false(bench_is_mapped(place));

    fake_set_bar(&bench.fake, BENCH_SLOT, 0, place + 0x4000);
    assert_int_equal(bench.fun->bar_at[FAKE_BAR_LARGE], place);
    assert_int_equal(bench.fun->bar_at[0], place + 0x4000);
}

static void of_two_functions_at_one_place_the_first_has_it(void **state)
{
    struct fake_function *other = bench_plug(7);
    uint64_t place = fake_bar(&bench.fake, BENCH_SLOT, 0);

    (void)state;
    bench_set(PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    fake_config_write(&bench.fake, 7, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    fake_set_bar(&bench.fake, 7, 0, place);
    assert_int_equal(other->bar_at[0], 0);
    assert_int_equal(bench.fun->bar_at[0], place);
    fake_write(&bench.fake, BUS_MMIO, place, 4, 1);
    assert_int_equal(bench.fun->registers[0], 1);

    bench_set(PCI_COMMAND, 2, 0);
    fake_config_write(&bench.fake, 7, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    assert_int_equal(other->bar_at[0], place);
}

/* A function that is nothing but BARs of these sizes. */
static int plug_bars(uint64_t first, uint64_t second, bool wide, struct error *err)
{
    static const struct pci_ops ops = {0};
    static const struct pci_id id = {.vendor = 1, .device = 2};
    const struct pci_bar bars[] = {{.size = first, .is_64 = wide}, {.size = second, .is_64 = wide}};
    struct pci_device pci = {.slot = 0};

    device_init(&pci.dev, bench.dev->ops, "bars");
    pci_device_init(&pci, &bench.fake.platform, &ops, &id);
    pci_device_add_bar(&pci, 0, &bars[0]);
    pci_device_add_bar(&pci, 2, &bars[1]);
    int r = pci_host_plug(bench.host, &pci, 5, err);
    if (r == 0)
        for (unsigned bar = 0; bar < 4; bar += 2)
            assert_int_equal(fake_bar(&bench.fake, 5, bar) % pci.bars[bar].size, 0);
    pci_device_fini(&pci);
    device_fini(&pci.dev);
    return r;
}

static void bars_larger_than_a_slots_share_are_refused(void **state)
{
    const uint64_t share32 = FAKE_WINDOW32_SIZE / 32, share64 = FAKE_WINDOW64_SIZE / 32;

    (void)state;
    assert_int_equal(plug_bars(0x1000, share32 / 2, false, &bench.err), 0);
    assert_int_equal(plug_bars(share32 / 2, share32 / 2, false, &bench.err), 0);
    assert_int_equal(plug_bars(0x1000, share32, false, &bench.err), -ENOSPC);
    assert_int_equal(plug_bars(UINT32_C(1) << 31, 0x1000, false, &bench.err), -ENOSPC);
    assert_int_equal(plug_bars(share64 / 2, share64 / 2, true, &bench.err), 0);
    assert_int_equal(plug_bars(0x1000, share64, true, &bench.err), -ENOSPC);
    assert_int_equal(plug_bars(UINT64_C(1) << 63, 0x1000, true, &bench.err), -ENOSPC);
    assert_int_equal(plug_bars(0x1000, UINT64_C(1) << 63, true, &bench.err), -ENOSPC);
}

static void a_bar_that_cannot_be_mapped_is_left_out(void **state)
{
    (void)state;
    bench.fake.calls_until_failure = 1;
    bench_set(PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    assert_true(bench.fun->bar_at[FAKE_BAR_REGISTERS]);
    assert_int_equal(bench.fun->bar_at[FAKE_BAR_MSIX], 0);
    assert_true(bench.fun->bar_at[FAKE_BAR_LARGE]);
    bench.fake.calls_until_failure = -1;
    bench_set(PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    assert_true(bench.fun->bar_at[FAKE_BAR_MSIX]);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, pci_bench_setup, pci_bench_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(ones_written_to_a_bar_tell_its_size),
        TEST(every_slot_has_addresses_of_its_own_from_the_start),
        TEST(a_slots_addresses_do_not_depend_on_the_others),
        TEST(the_command_register_switches_the_bars),
        TEST(a_bar_moves_with_its_register),
        TEST(a_bar_outside_the_windows_is_not_decoded),
        TEST(of_two_bars_at_one_place_the_lower_one_has_it),
        TEST(of_two_functions_at_one_place_the_first_has_it),
        TEST(bars_larger_than_a_slots_share_are_refused),
        TEST(a_bar_that_cannot_be_mapped_is_left_out),
    };
    return cmocka_run_group_tests_name("pci_bars", tests, NULL, NULL);
}
