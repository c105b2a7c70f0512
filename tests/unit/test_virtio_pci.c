/* SPDX-License-Identifier: Apache-2.0 */
/* virtio over PCI, VIRTIO 1.2: what a driver finds, its registers, features and status. */
#include <errno.h>
#include <linux/pci_regs.h>
#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "virtio_probe.h"

/* What it is */

static void it_is_a_modern_virtio_function(void **state)
{
    struct virtio_bench *f = *state;

    assert_int_equal(virtio_driver_pci_read(&f->d, PCI_VENDOR_ID, 2), 0x1af4);
    assert_int_equal(virtio_driver_pci_read(&f->d, PCI_DEVICE_ID, 2), 0x1040 + 42);
    assert_true(virtio_driver_pci_read(&f->d, PCI_REVISION_ID, 1) >= 1);
    assert_int_equal(virtio_driver_pci_read(&f->d, PCI_CLASS_REVISION, 4) >> 8, 0xff0000);
    assert_true(virtio_driver_pci_read(&f->d, PCI_SUBSYSTEM_ID, 2) >= 0x40);
    assert_int_equal(f->d.queue_count, PROBE_QUEUES);
    assert_int_equal(f->d.msix_vectors, PROBE_QUEUES + 1);
    assert_int_equal(f->d.config_bytes, PROBE_CONFIG);
    assert_int_equal(f->d.notify_multiplier, 4);
}

static void each_structure_lies_inside_its_bar_and_is_aligned(void **state)
{
    struct virtio_bench *f = *state;
    unsigned seen = 0;

    for (unsigned cap = virtio_driver_pci_read(&f->d, PCI_CAPABILITY_LIST, 1); cap;
         cap = virtio_driver_pci_read(&f->d, cap + 1, 1)) {
        unsigned type = virtio_driver_pci_read(&f->d, cap + VIRTIO_PCI_CAP_CFG_TYPE, 1);
        uint32_t at = virtio_driver_pci_read(&f->d, cap + VIRTIO_PCI_CAP_OFFSET, 4);
        uint32_t length = virtio_driver_pci_read(&f->d, cap + VIRTIO_PCI_CAP_LENGTH, 4);

        if (virtio_driver_pci_read(&f->d, cap, 1) != PCI_CAP_ID_VNDR)
            continue;
        seen |= 1u << type;
        assert_int_equal(virtio_driver_pci_read(&f->d, cap + VIRTIO_PCI_CAP_LEN, 1),
                         type == VIRTIO_PCI_CAP_NOTIFY_CFG || type == VIRTIO_PCI_CAP_PCI_CFG ? 20
                                                                                             : 16);
        if (type == VIRTIO_PCI_CAP_PCI_CFG)
            continue;
        assert_int_equal(virtio_driver_pci_read(&f->d, cap + VIRTIO_PCI_CAP_BAR, 1), 0);
        assert_int_equal(at % 4, 0);
        assert_true(length > 0 && at + length <= 0x4000);
    }
    assert_int_equal(seen, 0x3e); /* all five */
}

static void the_common_structure_after_reset_is_as_the_specification_has_it(void **state)
{
    struct virtio_bench *f = *state;

    assert_int_equal(virtio_driver_status(&f->d), 0);
    assert_int_equal(virtio_bench_common(f, VIRTIO_PCI_COMMON_MSIX, 2), VIRTIO_MSI_NO_VECTOR);
    for (unsigned i = 0; i < PROBE_QUEUES; i++) {
        virtio_bench_set_common(f, VIRTIO_PCI_COMMON_Q_SELECT, 2, i);
        assert_int_equal(virtio_bench_common(f, VIRTIO_PCI_COMMON_Q_SELECT, 2), i);
        assert_int_equal(virtio_bench_common(f, VIRTIO_PCI_COMMON_Q_SIZE, 2), 16);
        assert_int_equal(virtio_bench_common(f, VIRTIO_PCI_COMMON_Q_MSIX, 2), VIRTIO_MSI_NO_VECTOR);
        assert_int_equal(virtio_bench_common(f, VIRTIO_PCI_COMMON_Q_ENABLE, 2), 0);
        assert_int_equal(virtio_bench_common(f, VIRTIO_PCI_COMMON_Q_NOFF, 2), i);
        assert_int_equal(virtio_bench_common(f, VIRTIO_PCI_COMMON_Q_DESCLO, 8), 0);
    }
    assert_int_equal(virtio_bench_common(f, VIRTIO_PCI_COMMON_Q_NDATA, 4), 0);
}

static void a_field_is_written_in_its_own_width_only(void **state)
{
    struct virtio_bench *f = *state;

    virtio_bench_set_common(f, VIRTIO_PCI_COMMON_Q_SIZE, 1, 8);
    virtio_bench_set_common(f, VIRTIO_PCI_COMMON_Q_SIZE, 4, 8);
    assert_int_equal(virtio_bench_common(f, VIRTIO_PCI_COMMON_Q_SIZE, 2), 16);
    virtio_bench_set_common(f, VIRTIO_PCI_COMMON_Q_SIZE, 2, 8);
    assert_int_equal(virtio_bench_common(f, VIRTIO_PCI_COMMON_Q_SIZE, 1), 8); /* and read in any */
    assert_int_equal(virtio_bench_common(f, VIRTIO_PCI_COMMON_Q_SELECT, 4), 8 << 16);
    virtio_bench_set_common(f, VIRTIO_PCI_COMMON_Q_USEDLO, 4, 0x1000);
    virtio_bench_set_common(f, VIRTIO_PCI_COMMON_Q_USEDHI, 4, 0x77);
    assert_int_equal(virtio_bench_common(f, VIRTIO_PCI_COMMON_Q_USEDLO, 8), UINT64_C(0x7700001000));
    virtio_bench_set_common(f, VIRTIO_PCI_COMMON_Q_DESCLO, 8, UINT64_C(0x123456789abcde0));
    assert_int_equal(virtio_bench_common(f, VIRTIO_PCI_COMMON_Q_DESCHI, 4), 0x1234567);
}

static void configuration_space_is_read_and_written_inside_its_bounds(void **state)
{
    struct virtio_bench *f = *state;

    virtio_driver_config_write(&f->d, 4, 4, 0x44332211);
    assert_int_equal(virtio_driver_config_read(&f->d, 5, 2), 0x3322);
    assert_int_equal(virtio_driver_config_read(&f->d, 4, 8), 0x44332211);
    virtio_driver_config_write(&f->d, PROBE_CONFIG - 2, 4, UINT32_MAX); /* the probe asserts */
    assert_int_equal(virtio_driver_config_read(&f->d, PROBE_CONFIG - 1, 1), 0);
    assert_int_equal(virtio_driver_config_read(&f->d, PROBE_CONFIG, 4), 0);
}

/* Features and status */

static void features_are_offered_in_two_halves_and_zero_beyond(void **state)
{
    struct virtio_bench *f = *state;

    assert_int_equal(virtio_driver_offered(&f->d),
                     1u << PROBE_FEATURE | 3u << 28 | UINT64_C(1) << 32);
    virtio_bench_set_common(f, VIRTIO_PCI_COMMON_DFSELECT, 4, 2);
    assert_int_equal(virtio_bench_common(f, VIRTIO_PCI_COMMON_DF, 4), 0);
    virtio_bench_set_common(f, VIRTIO_PCI_COMMON_DFSELECT, 4, UINT32_MAX);
    assert_int_equal(virtio_bench_common(f, VIRTIO_PCI_COMMON_DF, 4), 0);
    virtio_bench_set_common(f, VIRTIO_PCI_COMMON_GFSELECT, 4, 2);
    virtio_bench_set_common(f, VIRTIO_PCI_COMMON_GF, 4, UINT32_MAX);
    assert_int_equal(f->probe->vdev.negotiated, 0);
}

static void features_are_agreed_on_with_features_ok(void **state)
{
    struct virtio_bench *f = *state;
    const uint64_t version = UINT64_C(1) << VIRTIO_F_VERSION_1;

    assert_false(virtio_driver_negotiate(&f->d, 1u << PROBE_FEATURE)); /* without VERSION_1 */
    assert_false(virtio_driver_negotiate(&f->d, version | 1u << 6));
    assert_false(virtio_has(&f->probe->vdev, 6));
    assert_false(virtio_has(&f->probe->vdev, VIRTIO_F_VERSION_1)); /* not agreed on yet */
    assert_true(virtio_driver_negotiate(&f->d, version | 1u << PROBE_FEATURE));
    assert_true(virtio_has(&f->probe->vdev, PROBE_FEATURE));
    assert_false(virtio_has(&f->probe->vdev, VIRTIO_F_EVENT_IDX));
}

static void status_bits_stay_until_reset(void **state)
{
    struct virtio_bench *f = *state;

    virtio_driver_start(&f->d, 0);
    virtio_bench_set_common(f, VIRTIO_PCI_COMMON_STATUS, 1, VIRTIO_CONFIG_S_FAILED);
    assert_int_equal(virtio_driver_status(&f->d), 0x8f);
    virtio_bench_set_common(f, VIRTIO_PCI_COMMON_STATUS, 1, VIRTIO_CONFIG_S_NEEDS_RESET | 0x30);
    assert_int_equal(virtio_driver_status(&f->d), 0x8f); /* not the driver's to set */
    virtio_bench_set_common(f, VIRTIO_PCI_COMMON_STATUS, 1, 0);
    assert_int_equal(virtio_driver_status(&f->d), 0);
}

static void the_kind_is_started_and_stopped_once_for_each_driver(void **state)
{
    struct virtio_bench *f = *state;

    virtio_driver_start(&f->d, 0);
    virtio_driver_set_status(&f->d, VIRTIO_CONFIG_S_DRIVER_OK);
    assert_int_equal(f->probe->starts, 1);
    assert_int_equal(f->probe->stops, 0);
    virtio_driver_reset(&f->d);
    virtio_driver_reset(&f->d);
    device_reset(f->dev);
    assert_int_equal(f->probe->stops, 1);
    virtio_driver_decode(&f->d);
    virtio_driver_start(&f->d, 0);
    device_reset(f->dev);
    assert_int_equal(f->probe->starts, 2);
    assert_int_equal(f->probe->stops, 2);
}

static void a_reset_forgets_what_the_driver_set(void **state)
{
    struct virtio_bench *f = *state;

    virtio_driver_start(&f->d, UINT64_MAX);
    virtio_config_changed(&f->probe->vdev);
    virtio_driver_reset(&f->d);
    the_common_structure_after_reset_is_as_the_specification_has_it(state);
    virtio_bench_set_common(f, VIRTIO_PCI_COMMON_GFSELECT, 4, 0);
    assert_int_equal(virtio_bench_common(f, VIRTIO_PCI_COMMON_GF, 4), 0);
}

static void a_reset_leaves_the_function_around_it_alone(void **state)
{
    struct virtio_bench *f = *state;

    virtio_driver_start(&f->d, 0);
    virtio_driver_reset(&f->d);
    assert_true(pci_msix_enabled(&f->probe->vdev.pci));
    assert_true(fake_is_mapped(f->m.fake, BUS_MMIO, f->d.common, 4));
    device_reset(f->dev);
    assert_false(pci_msix_enabled(&f->probe->vdev.pci));
    assert_false(fake_is_mapped(f->m.fake, BUS_MMIO, f->d.common, 4));
}

/* The window in configuration space */

static void window(struct virtio_bench *f, uint32_t offset, uint32_t length)
{
    virtio_driver_pci_write(&f->d, f->d.window + VIRTIO_PCI_CAP_BAR, 1, 0);
    virtio_driver_pci_write(&f->d, f->d.window + VIRTIO_PCI_CAP_OFFSET, 4, offset);
    virtio_driver_pci_write(&f->d, f->d.window + VIRTIO_PCI_CAP_LENGTH, 4, length);
}

static void the_window_reaches_registers_while_the_bar_is_off(void **state)
{
    struct virtio_bench *f = *state;
    unsigned data = f->d.window + sizeof(struct virtio_pci_cap);

    virtio_driver_pci_write(&f->d, PCI_COMMAND, 2, 0);
    window(f, VIRTIO_PCI_COMMON_NUMQ, 2);
    assert_int_equal(virtio_driver_pci_read(&f->d, data, 2), PROBE_QUEUES);
    window(f, VIRTIO_PCI_COMMON_Q_SELECT, 2);
    virtio_driver_pci_write(&f->d, data, 2, 2);
    window(f, VIRTIO_PCI_COMMON_Q_NOFF, 2);
    assert_int_equal(virtio_driver_pci_read(&f->d, data, 2), 2);
    window(f, VIRTIO_PCI_COMMON_STATUS, 1);
    virtio_driver_pci_write(&f->d, data, 1, VIRTIO_CONFIG_S_ACKNOWLEDGE);
    assert_int_equal(virtio_driver_pci_read(&f->d, data, 1), VIRTIO_CONFIG_S_ACKNOWLEDGE);
    window(f, 0x2000, 4);
    virtio_driver_pci_write(&f->d, data, 4, 0x12345678);
    assert_memory_equal(f->probe->config, "\x78\x56\x34\x12", 4);
}

static void the_window_shows_no_other_bar_and_nothing_outside(void **state)
{
    struct virtio_bench *f = *state;
    unsigned data = f->d.window + sizeof(struct virtio_pci_cap);

    for (unsigned bar = 1; bar < 8; bar++) {
        window(f, VIRTIO_PCI_COMMON_STATUS, 1);
        virtio_driver_pci_write(&f->d, f->d.window + VIRTIO_PCI_CAP_BAR, 1, bar);
        virtio_driver_pci_write(&f->d, data, 1, VIRTIO_CONFIG_S_ACKNOWLEDGE);
    }
    window(f, VIRTIO_PCI_COMMON_STATUS, 3);
    virtio_driver_pci_write(&f->d, data, 4, VIRTIO_CONFIG_S_ACKNOWLEDGE);
    window(f, VIRTIO_PCI_COMMON_STATUS, 1);
    virtio_driver_pci_write(&f->d, data + 1, 1, VIRTIO_CONFIG_S_ACKNOWLEDGE);
    window(f, 0x4000 + VIRTIO_PCI_COMMON_STATUS, 1);
    virtio_driver_pci_write(&f->d, data, 1, VIRTIO_CONFIG_S_ACKNOWLEDGE);
    assert_int_equal(virtio_driver_status(&f->d), 0);
}

static void the_window_rings_doorbells_and_reads_isr_once(void **state)
{
    struct virtio_bench *f = *state;
    unsigned data = f->d.window + sizeof(struct virtio_pci_cap);
    struct virtio_buffer b;

    virtio_driver_start_intx(&f->d, 0);
    b = virtio_bench_buffer(f);
    virtio_driver_add(&f->d, 1, &b, 1);
    window(f, 0x3004, 2);
    virtio_driver_pci_write(&f->d, data, 2, 1);
    virtio_driver_wait(&f->d, 1, NULL);
    assert_true(virtio_bench_intx(f));
    window(f, 0x1000, 1);
    assert_int_equal(virtio_driver_pci_read(&f->d, data, 1), 1);
    assert_false(virtio_bench_intx(f));
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, virtio_bench_setup, virtio_bench_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(it_is_a_modern_virtio_function),
        TEST(each_structure_lies_inside_its_bar_and_is_aligned),
        TEST(the_common_structure_after_reset_is_as_the_specification_has_it),
        TEST(a_field_is_written_in_its_own_width_only),
        TEST(configuration_space_is_read_and_written_inside_its_bounds),
        TEST(features_are_offered_in_two_halves_and_zero_beyond),
        TEST(features_are_agreed_on_with_features_ok),
        TEST(status_bits_stay_until_reset),
        TEST(the_kind_is_started_and_stopped_once_for_each_driver),
        TEST(a_reset_forgets_what_the_driver_set),
        TEST(a_reset_leaves_the_function_around_it_alone),
        TEST(the_window_reaches_registers_while_the_bar_is_off),
        TEST(the_window_shows_no_other_bar_and_nothing_outside),
        TEST(the_window_rings_doorbells_and_reads_isr_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
