/* SPDX-License-Identifier: Apache-2.0 */
/* MSI-X: the table, its masks, pending bits, and the routes that follow from them. */
#include <errno.h>
#include <linux/pci_regs.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fake_function.h"
#include "vmrun/log.h"

#define SLOT 1
#define PBA 2048
#define ADDRESS UINT64_C(0xfee01000)

static struct fixture {
    struct fake_platform fake;
    struct device *dev;
    struct pci_device *pci;
    uint64_t table; /* guest-physical */
    struct error err;
} f;

static void set_control(uint32_t value)
{
    fake_config_write(&f.fake, SLOT, f.pci->msix_at + PCI_MSIX_FLAGS, 2, value);
}

static int setup(void **state)
{
    (void)state;
    memset(&f, 0, sizeof(f));
    log_set_level(LOG_LEVEL_ERROR);
    fake_platform_init(&f.fake);
    if (fake_function_create(&f.fake.platform, NULL, SLOT, &f.dev, &f.err) < 0)
        return -1;
    f.pci = &fake_function_of(f.dev)->pci;
    fake_config_write(&f.fake, SLOT, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    f.table = fake_bar(&f.fake, SLOT, FAKE_BAR_MSIX);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    device_destroy(f.dev);
    assert_int_equal(f.fake.msi_count, 0);
    return 0;
}

static uint64_t get(unsigned offset, unsigned size)
{
    return fake_read(&f.fake, BUS_MMIO, f.table + offset, size);
}

static void set(unsigned offset, unsigned size, uint64_t value)
{
    fake_write(&f.fake, BUS_MMIO, f.table + offset, size, value);
}

static void program(unsigned vector, uint64_t address, uint32_t data)
{
    set(16 * vector + PCI_MSIX_ENTRY_LOWER_ADDR, 4, (uint32_t)address);
    set(16 * vector + PCI_MSIX_ENTRY_UPPER_ADDR, 4, address >> 32);
    set(16 * vector + PCI_MSIX_ENTRY_DATA, 4, data);
}

static void mask(unsigned vector, bool masked)
{
    set(16 * vector + PCI_MSIX_ENTRY_VECTOR_CTRL, 4, masked);
}

static struct fake_msi *message(unsigned vector)
{
    return &f.fake.msis[vector];
}

static unsigned fires(unsigned vector)
{
    return fake_msi_fires(message(vector));
}

/* As a driver does: all on, vector 1 with an address of its own. */
static void start(void)
{
    set_control(PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
    for (unsigned i = 0; i < FAKE_VECTORS; i++) {
        program(i, ADDRESS, 0x40 + i);
        mask(i, false);
    }
    set_control(PCI_MSIX_FLAGS_ENABLE);
}

static void the_capability_says_where_the_table_is(void **state)
{
    unsigned at = f.pci->msix_at;

    (void)state;
    assert_int_equal(fake_config_read(&f.fake, SLOT, at, 1), PCI_CAP_ID_MSIX);
    assert_int_equal(fake_config_read(&f.fake, SLOT, at + PCI_MSIX_FLAGS, 2), FAKE_VECTORS - 1);
    assert_int_equal(fake_config_read(&f.fake, SLOT, at + PCI_MSIX_TABLE, 4), FAKE_BAR_MSIX);
    assert_int_equal(fake_config_read(&f.fake, SLOT, at + PCI_MSIX_PBA, 4), PBA | FAKE_BAR_MSIX);
    set_control(0xffff);
    assert_int_equal(fake_config_read(&f.fake, SLOT, at + PCI_MSIX_FLAGS, 2),
                     0xc000 | (FAKE_VECTORS - 1));
}

static void every_vector_is_masked_and_empty_at_first(void **state)
{
    (void)state;
    for (unsigned i = 0; i < FAKE_VECTORS; i++) {
        assert_int_equal(get(16 * i, 8), 0);
        assert_int_equal(get(16 * i + 8, 8), UINT64_C(1) << 32);
    }
    assert_int_equal(get(16 * FAKE_VECTORS, 8), 0);
    assert_int_equal(get(PBA, 8), 0);
}

static void a_vector_fires_with_its_address_and_data(void **state)
{
    (void)state;
    start();
    fake_function_fire(f.dev, 1);
    assert_int_equal(fires(1), 1);
    assert_int_equal(fires(0), 0);
    assert_ptr_equal(fake_msi_find(&f.fake, ADDRESS, 0x41), message(1));
    fake_function_fire(f.dev, 1);
    fake_function_fire(f.dev, 1);
    assert_int_equal(fires(1), 3);
    assert_int_equal(message(1)->routes, 1); /* firing is no more than a write */
    assert_int_equal(get(PBA, 8), 0);
}

static void a_vector_that_does_not_exist_is_nothing(void **state)
{
    (void)state;
    start();
    fake_function_fire(f.dev, FAKE_VECTORS);
    fake_function_fire(f.dev, 0xffff);
    for (unsigned i = 0; i < FAKE_VECTORS; i++)
        assert_int_equal(fires(i), 0);
    assert_int_equal(get(PBA, 8), 0);
}

static void nothing_is_sent_or_kept_while_it_is_off(void **state)
{
    (void)state;
    start();
    set_control(0);
    assert_false(pci_msix_enabled(f.pci));
    fake_function_fire(f.dev, 0);
    set_control(PCI_MSIX_FLAGS_ENABLE);
    assert_true(pci_msix_enabled(f.pci));
    assert_int_equal(fires(0), 0);
}

static void a_masked_vector_waits_and_comes_once(void **state)
{
    (void)state;
    start();
    mask(2, true);
    fake_function_fire(f.dev, 2);
    fake_function_fire(f.dev, 2);
    assert_int_equal(fires(2), 0);
    assert_int_equal(get(PBA, 4), 1 << 2);
    mask(2, false);
    assert_int_equal(fires(2), 1);
    assert_int_equal(get(PBA, 4), 0);
    mask(2, true);
    mask(2, false);
    assert_int_equal(fires(2), 1);
}

static void the_mask_of_the_function_holds_all_back(void **state)
{
    (void)state;
    start();
    mask(3, true);
    set_control(PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
    for (unsigned i = 0; i < FAKE_VECTORS; i++)
        fake_function_fire(f.dev, i);
    assert_int_equal(get(PBA, 8), 0xf);
    set_control(PCI_MSIX_FLAGS_ENABLE);
    assert_int_equal(get(PBA, 8), 0x8);
    assert_int_equal(fires(0), 1);
    assert_int_equal(fires(3), 0);
    mask(3, false);
    assert_int_equal(fires(3), 1);
}

static void what_is_pending_outlives_being_switched_off(void **state)
{
    (void)state;
    start();
    mask(0, true);
    fake_function_fire(f.dev, 0);
    set_control(0);
    mask(0, false);
    assert_int_equal(fires(0), 0);
    assert_int_equal(get(PBA, 4), 1);
    set_control(PCI_MSIX_FLAGS_ENABLE);
    assert_int_equal(fires(0), 1);
}

static void a_vector_is_routed_when_it_can_be_delivered(void **state)
{
    (void)state;
    program(0, ADDRESS, 7);
    mask(0, false);
    assert_false(message(0)->routed);
    set_control(PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
    assert_false(message(0)->routed);
    set_control(PCI_MSIX_FLAGS_ENABLE);
    assert_true(message(0)->routed);
    assert_false(message(1)->routed); /* still masked */
    assert_int_equal(message(0)->routes, 1);
    set_control(PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
    set_control(PCI_MSIX_FLAGS_ENABLE);
    mask(0, true);
    mask(0, false);
    assert_int_equal(message(0)->routes, 1); /* it leads there already */
}

static void a_vector_is_given_another_place_while_it_runs(void **state)
{
    (void)state;
    start();
    mask(1, true);
    program(1, UINT64_C(0x12fee02000), 0x99);
    assert_int_equal(message(1)->address, ADDRESS); /* not before it is unmasked */
    fake_function_fire(f.dev, 1);
    mask(1, false);
    assert_int_equal(message(1)->address, UINT64_C(0x12fee02000));
    assert_int_equal(message(1)->data, 0x99);
    assert_int_equal(fires(1), 1);

    set(16 + PCI_MSIX_ENTRY_DATA, 4, 0x9a); /* unmasked: undefined, and done at once here */
    assert_int_equal(message(1)->data, 0x9a);
}

static void the_table_takes_whole_dwords_alone(void **state)
{
    (void)state;
    set(0, 8, UINT64_C(0x11223344fee00007));
    assert_int_equal(get(0, 8), UINT64_C(0x11223344fee00004)); /* dword-aligned for ever */
    set(8, 8, UINT64_C(0xfffffffe55667788));
    assert_int_equal(get(8, 8), 0x55667788); /* one bit of control */
    set(8, 1, 0xff);
    set(8, 2, 0xffff);
    set(6, 4, 0xffffffff);
    set(4, 8, UINT64_MAX);
    assert_int_equal(get(0, 8), UINT64_C(0x11223344fee00004));
    assert_int_equal(get(8, 8), 0x55667788);
    assert_int_equal(get(9, 1), 0x77);
    assert_int_equal(get(6, 4), 0x77881122);
    assert_int_equal(get(6, 2), 0x1122);
}

static void what_is_not_the_table_cannot_be_written(void **state)
{
    (void)state;
    for (unsigned at = 16 * FAKE_VECTORS; at < 4096; at += 8) {
        set(at, 8, UINT64_MAX);
        assert_int_equal(get(at, 8), 0);
    }
}

static void a_message_without_a_route_is_lost_and_asked_for_again(void **state)
{
    (void)state;
    f.fake.routes_fail = true;
    start();
    fake_function_fire(f.dev, 0);
    assert_int_equal(fires(0), 0);
    f.fake.routes_fail = false;
    mask(0, true);
    mask(0, false);
    fake_function_fire(f.dev, 0);
    assert_int_equal(fires(0), 1);
}

static void a_reset_masks_and_forgets(void **state)
{
    (void)state;
    start();
    mask(2, true);
    fake_function_fire(f.dev, 2);
    device_reset(f.dev);
    fake_function_fire(f.dev, 0);
    assert_int_equal(fires(0) + fires(2), 0);

    fake_config_write(&f.fake, SLOT, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    every_vector_is_masked_and_empty_at_first(state);
    start();
    assert_int_equal(fires(2), 0);
}

static struct writer save(void)
{
    struct writer w = {0};

    assert_int_equal(state_save(f.dev->ops->state, f.dev, &w, &f.err), 0);
    return w;
}

static int load(struct writer *w)
{
    struct reader r = {.data = w->data, .len = w->len};

    return state_load(f.dev->ops->state, f.dev, &r, &f.err);
}

static void a_loaded_table_is_routed_and_what_waited_still_waits(void **state)
{
    (void)state;
    start();
    mask(2, true);
    fake_function_fire(f.dev, 2);
    struct writer saved = save();
    device_reset(f.dev);
    message(1)->routed = false; /* as on a machine that never heard of it */
    assert_int_equal(load(&saved), 0);
    free(saved.data);

    assert_true(message(1)->routed);
    assert_int_equal(get(PBA, 4), 1 << 2);
    assert_int_equal(fires(2), 0);
    mask(2, false);
    assert_int_equal(fires(2), 1);
    fake_function_fire(f.dev, 1);
    assert_int_equal(fires(1), 1);
}

/* The state with one thing changed that no guest could have brought about. */
static void assert_refused(void (*spoil)(struct pci_device *pci), const char *why)
{
    struct writer good = save();

    spoil(f.pci);
    struct writer bad = save();
    assert_int_equal(load(&bad), -EPROTO);
    assert_string_equal(f.err.msg, why);
    device_reset(f.dev);
    assert_int_equal(load(&good), 0);
    free(good.data);
    free(bad.data);
}

static void set_pending(struct pci_device *pci)
{
    pci->msix[1].pending = true;
}

static void set_odd_address(struct pci_device *pci)
{
    pci->msix[1].address |= 2;
}

static void set_beyond(struct pci_device *pci)
{
    pci->msix[FAKE_VECTORS].data = 1;
}

static void a_table_that_cannot_be_is_refused(void **state)
{
    (void)state;
    start();
    assert_refused(set_pending, "function: MSI-X vector 1: pending, and nothing masks it");
    assert_refused(set_odd_address, "function: MSI-X vector 1: its address is odd");
    assert_refused(set_beyond, "function: MSI-X vector 4: there are 4");
}

static void a_table_of_the_largest_size_works_to_its_end(void **state)
{
    static const struct pci_ops ops = {0};
    static const struct pci_id id = {.vendor = 1, .device = 2};
    struct fake_platform fake;
    struct pci_device pci = {.slot = 0};
    uint64_t value = 0;

    (void)state;
    fake_platform_init(&fake);
    device_init(&pci.dev, f.dev->ops, "large");
    pci_device_init(&pci, &fake.platform, &ops, &id);
    assert_true(pci_device_add_msix(&pci, 4, PCI_MSIX_MAX, &f.err) >= 0);
    assert_int_equal(fake.msi_count, PCI_MSIX_MAX);
    pci.config[pci.msix_at + PCI_MSIX_FLAGS + 1] |= PCI_MSIX_FLAGS_ENABLE >> 8;
    pci_msix_fire(&pci, 63);
    assert_true(pci_msix_read(&pci, 4, PBA, 8, &value));
    assert_int_equal(value, UINT64_C(1) << 63);
    assert_true(pci_msix_read(&pci, 4, PBA + 7, 1, &value));
    assert_int_equal(value, 0x80);
    assert_true(pci_msix_write(&pci, 4, 16 * 63 + 8, 8, 0x77));
    assert_int_equal(fake_msi_fires(&fake.msis[63]), 1);
    assert_int_equal(fake.msis[63].data, 0x77);
    assert_false(pci_msix_read(&pci, 3, PBA, 8, &value));
    assert_false(pci_msix_write(&pci, 3, 0, 4, 0));

    pci_device_fini(&pci);
    device_fini(&pci.dev);
    assert_int_equal(fake.msi_count, 0);
}

static void a_machine_out_of_messages_says_for_whom(void **state)
{
    struct device *dev;

    (void)state;
    f.fake.calls_until_failure = 2;
    assert_int_equal(fake_function_create(&f.fake.platform, f.pci->host, -1, &dev, &f.err),
                     -ENOMEM);
    assert_string_equal(f.err.msg, "function: message: none, as the test wants it");
    assert_int_equal(f.fake.msi_count, FAKE_VECTORS);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_capability_says_where_the_table_is),
        TEST(every_vector_is_masked_and_empty_at_first),
        TEST(a_vector_fires_with_its_address_and_data),
        TEST(a_vector_that_does_not_exist_is_nothing),
        TEST(nothing_is_sent_or_kept_while_it_is_off),
        TEST(a_masked_vector_waits_and_comes_once),
        TEST(the_mask_of_the_function_holds_all_back),
        TEST(what_is_pending_outlives_being_switched_off),
        TEST(a_vector_is_routed_when_it_can_be_delivered),
        TEST(a_vector_is_given_another_place_while_it_runs),
        TEST(the_table_takes_whole_dwords_alone),
        TEST(what_is_not_the_table_cannot_be_written),
        TEST(a_message_without_a_route_is_lost_and_asked_for_again),
        TEST(a_reset_masks_and_forgets),
        TEST(a_loaded_table_is_routed_and_what_waited_still_waits),
        TEST(a_table_that_cannot_be_is_refused),
        TEST(a_table_of_the_largest_size_works_to_its_end),
        TEST(a_machine_out_of_messages_says_for_whom),
    };
    return cmocka_run_group_tests_name("msix", tests, NULL, NULL);
}
