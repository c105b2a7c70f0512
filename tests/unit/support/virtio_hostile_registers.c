/* SPDX-License-Identifier: Apache-2.0 */
/* virtio_hostile_registers: what a driver must not do to a device's registers. */
#include "virtio_hostile_case.h"

#include <linux/pci_regs.h>
#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define HOLE_AT UINT64_C(0x80000000)
#define BAR_BYTES 0x4000u
#define MSIX_BYTES 0x1000u

static uint64_t common_read(struct hostile_bench *b, unsigned offset, unsigned size)
{
    return virtio_driver_read(&b->d, b->d.common + offset, size);
}

static void common_write(struct hostile_bench *b, unsigned offset, unsigned size, uint64_t value)
{
    virtio_driver_write(&b->d, b->d.common + offset, size, value);
}

/* Queues that cannot be. The three rings' addresses and the size, for the case to spoil. */

struct rings {
    uint64_t desc, avail, used;
    uint16_t size;
};

/* From a reset to where only the broken queue is missing. */
static struct rings begin_setup(struct hostile_bench *b)
{
    struct rings r;

    virtio_driver_reset(&b->d);
    assert_true(
        virtio_driver_negotiate(&b->d, (hostile_features(b) | UINT64_C(1) << VIRTIO_F_VERSION_1) &
                                           virtio_driver_offered(&b->d)));
    for (unsigned i = 0; i < b->d.queue_count; i++)
        if (i != b->kind->queue)
            virtio_driver_setup_queue(&b->d, i, 0);
    hostile_prepare(b);
    common_write(b, VIRTIO_PCI_COMMON_Q_SELECT, 2, b->kind->queue);
    r.size = (uint16_t)common_read(b, VIRTIO_PCI_COMMON_Q_SIZE, 2);
    r.desc = virtio_machine_alloc(&b->m, 16u * r.size);
    r.avail = virtio_machine_alloc(&b->m, 6 + 2u * r.size);
    r.used = virtio_machine_alloc(&b->m, 6 + 8u * r.size);
    b->q->notify =
        b->d.notify + common_read(b, VIRTIO_PCI_COMMON_Q_NOFF, 2) * b->d.notify_multiplier;
    hostile_watch(b);
    return r;
}

/* Enable it, and the device; then it is to look into the ring. */
static void finish_setup(struct hostile_bench *b, const struct rings *r)
{
    common_write(b, VIRTIO_PCI_COMMON_Q_SELECT, 2, b->kind->queue);
    common_write(b, VIRTIO_PCI_COMMON_Q_SIZE, 2, r->size);
    common_write(b, VIRTIO_PCI_COMMON_Q_DESCLO, 8, r->desc);
    common_write(b, VIRTIO_PCI_COMMON_Q_AVAILLO, 8, r->avail);
    common_write(b, VIRTIO_PCI_COMMON_Q_USEDLO, 8, r->used);
    common_write(b, VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1);
    virtio_driver_set_status(&b->d, VIRTIO_CONFIG_S_DRIVER_OK);
    virtio_driver_kick(&b->d, b->kind->queue);
}

#define SPOILED_QUEUE(name, spoil) \
    static void name(struct hostile_bench *b) \
    { \
        struct rings r = begin_setup(b); \
\
        spoil; \
        finish_setup(b, &r); \
    }

SPOILED_QUEUE(a_queue_of_size_0, r.size = 0)
SPOILED_QUEUE(a_queue_of_size_3, r.size = 3)
SPOILED_QUEUE(a_queue_larger_than_the_device_has, r.size = (uint16_t)(2 * r.size))
SPOILED_QUEUE(a_queue_of_size_65535, r.size = 0xffff)
SPOILED_QUEUE(a_descriptor_table_that_is_misaligned, r.desc += 8)
SPOILED_QUEUE(an_available_ring_that_is_misaligned, r.avail += 1)
SPOILED_QUEUE(a_used_ring_that_is_misaligned, r.used += 2)
SPOILED_QUEUE(a_descriptor_table_in_the_hole, r.desc = HOLE_AT)
SPOILED_QUEUE(an_available_ring_in_the_hole, r.avail = HOLE_AT)
SPOILED_QUEUE(a_used_ring_in_the_hole, r.used = HOLE_AT)
SPOILED_QUEUE(a_descriptor_table_over_the_end_of_ram, r.desc = VIRTIO_RAM_LOW - 16)
SPOILED_QUEUE(an_available_ring_over_the_end_of_ram, r.avail = VIRTIO_RAM_LOW - 4)
SPOILED_QUEUE(a_used_ring_over_the_end_of_ram, r.used = VIRTIO_RAM_LOW - 4)
SPOILED_QUEUE(a_descriptor_table_that_wraps, r.desc = UINT64_MAX - 15)
SPOILED_QUEUE(an_available_ring_that_wraps, r.avail = UINT64_MAX - 1)
SPOILED_QUEUE(a_used_ring_that_wraps, r.used = UINT64_MAX - 3)
SPOILED_QUEUE(a_used_ring_in_the_device_s_own_registers, r.used = b->d.common & ~UINT64_C(3))
SPOILED_QUEUE(three_rings_at_one_place, (hostile_allow(b, r.desc, 64), r.avail = r.used = r.desc))
SPOILED_QUEUE(rings_at_address_0, (hostile_allow(b, 0, 0x1000), r.desc = r.avail = r.used = 0))

/* The order of things */

static void a_driver_that_is_ready_before_its_features(struct hostile_bench *b)
{
    virtio_driver_reset(&b->d);
    virtio_driver_setup_queue(&b->d, b->kind->queue, 0);
    hostile_watch(b);
    virtio_driver_set_status(&b->d, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
    virtio_driver_set_status(&b->d, VIRTIO_CONFIG_S_DRIVER_OK);
    assert_false(virtio_driver_status(&b->d) & VIRTIO_CONFIG_S_DRIVER_OK);
    hostile_kick(b);
}

static void features_that_are_not_offered(struct hostile_bench *b)
{
    virtio_driver_reset(&b->d);
    assert_false(virtio_driver_negotiate(&b->d, UINT64_MAX));
    virtio_driver_set_status(&b->d, VIRTIO_CONFIG_S_DRIVER_OK);
    assert_false(virtio_driver_status(&b->d) & VIRTIO_CONFIG_S_DRIVER_OK);
}

static void a_driver_that_knows_no_version_1(struct hostile_bench *b)
{
    virtio_driver_reset(&b->d);
    assert_false(virtio_driver_negotiate(&b->d, 0));
}

static void a_kick_for_a_queue_that_is_not_enabled(struct hostile_bench *b)
{
    begin_setup(b);
    virtio_driver_set_status(&b->d, VIRTIO_CONFIG_S_DRIVER_OK);
    hostile_kick(b);
}

static void a_kick_before_the_driver_is_ready(struct hostile_bench *b)
{
    begin_setup(b);
    hostile_kick(b);
}

static void queues_that_do_not_exist(struct hostile_bench *b)
{
    const uint16_t selects[] = {0xffff, 0x8000, (uint16_t)b->d.queue_count};

    for (unsigned i = 0; i < 3; i++) {
        common_write(b, VIRTIO_PCI_COMMON_Q_SELECT, 2, selects[i]);
        assert_int_equal(common_read(b, VIRTIO_PCI_COMMON_Q_SIZE, 2), 0);
        assert_int_equal(common_read(b, VIRTIO_PCI_COMMON_Q_ENABLE, 2), 0);
        common_write(b, VIRTIO_PCI_COMMON_Q_SIZE, 2, 8);
        common_write(b, VIRTIO_PCI_COMMON_Q_MSIX, 2, 0);
        assert_int_equal(common_read(b, VIRTIO_PCI_COMMON_Q_MSIX, 2), VIRTIO_MSI_NO_VECTOR);
        common_write(b, VIRTIO_PCI_COMMON_Q_DESCLO, 8, 0x1000);
        common_write(b, VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1);
        assert_int_equal(common_read(b, VIRTIO_PCI_COMMON_Q_ENABLE, 2), 0);
    }
    for (unsigned i = b->d.queue_count; i < 64; i++)
        virtio_driver_write(&b->d, b->d.notify + 4 * i, 2, i);
}

static void a_queue_that_is_moved_while_it_runs(struct hostile_bench *b)
{
    common_write(b, VIRTIO_PCI_COMMON_Q_SELECT, 2, b->kind->queue);
    for (unsigned at = VIRTIO_PCI_COMMON_Q_DESCLO; at < VIRTIO_PCI_COMMON_Q_NDATA; at += 4)
        common_write(b, at, 4, HOLE_AT);
    common_write(b, VIRTIO_PCI_COMMON_Q_SIZE, 2, 1);
    common_write(b, VIRTIO_PCI_COMMON_Q_ENABLE, 2, 0);
    assert_int_equal(common_read(b, VIRTIO_PCI_COMMON_Q_DESCLO, 8), b->q->desc);
    assert_int_equal(common_read(b, VIRTIO_PCI_COMMON_Q_SIZE, 2), b->q->size);
    hostile_kick(b);
}

static void features_that_change_while_it_runs(struct hostile_bench *b)
{
    uint64_t before;

    common_write(b, VIRTIO_PCI_COMMON_GFSELECT, 4, 0);
    before = common_read(b, VIRTIO_PCI_COMMON_GF, 4);
    common_write(b, VIRTIO_PCI_COMMON_GF, 4, ~before & UINT32_MAX);
    assert_int_equal(common_read(b, VIRTIO_PCI_COMMON_GF, 4), before);
    hostile_kick(b);
}

static void every_status_after_every_other(struct hostile_bench *b)
{
    for (unsigned i = 0; i < 256; i++) {
        for (unsigned j = 1; j < 256; j += 2) {
            common_write(b, VIRTIO_PCI_COMMON_STATUS, 1, i);
            common_write(b, VIRTIO_PCI_COMMON_STATUS, 1, j);
        }
    }
    assert_false(virtio_driver_status(&b->d) & VIRTIO_CONFIG_S_NEEDS_RESET);
}

/* Every width at every offset */

static void scribble(struct hostile_bench *b, uint64_t base, unsigned bytes)
{
    static const uint64_t values[] = {UINT64_MAX, 0x0001000100010001, 0};
    uint64_t seed = 1;

    for (unsigned i = 0; i < 4; i++) {
        for (unsigned size = 1; size <= 8; size *= 2) {
            for (unsigned at = 0; at + size <= bytes; at++) {
                seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407;
                (void)virtio_driver_read(&b->d, base + at, size);
                virtio_driver_write(&b->d, base + at, size, i < 3 ? values[i] : seed >> 8);
            }
        }
        hostile_settle(b);
    }
}

/* Queues may come out of it anywhere in RAM, but those that the device was given are at rest. */
static void writes_to_every_register(struct hostile_bench *b)
{
    hostile_watch(b);
    scribble(b, b->d.common, BAR_BYTES);
    if (virtio_driver_status(&b->d) == 0)
        hostile_check(b);
    hostile_watch(b);
}

static void writes_to_the_whole_msix_table(struct hostile_bench *b)
{
    scribble(b, b->d.msix_table, MSIX_BYTES);
    hostile_kick(b);
}

static void window_write(struct hostile_bench *b, unsigned field, unsigned size, uint32_t value)
{
    virtio_driver_pci_write(&b->d, b->d.window + field, size, value);
}

static void a_window_into_everywhere(struct hostile_bench *b)
{
    static const uint32_t offsets[] = {0,      20,         0x38,       0x3b,       0x1000,
                                       0x2000, 0x2fff,     0x3000,     0x3ffc,     0x3ffe,
                                       0x4000, 0x7ffffffc, 0x80000000, 0xfffffffc, 0xffffffff};
    static const uint32_t lengths[] = {0, 1, 2, 3, 4, 8, 0x80000000, 0xffffffff};

    for (unsigned bar = 0; bar < 256; bar += bar < 7 ? 1 : 62) {
        window_write(b, VIRTIO_PCI_CAP_BAR, 1, bar);
        for (unsigned i = 0; i < sizeof(offsets) / sizeof(offsets[0]); i++) {
            for (unsigned j = 0; j < sizeof(lengths) / sizeof(lengths[0]); j++) {
                window_write(b, VIRTIO_PCI_CAP_OFFSET, 4, offsets[i]);
                window_write(b, VIRTIO_PCI_CAP_LENGTH, 4, lengths[j]);
                for (unsigned k = 0; k < 4; k++) {
                    (void)virtio_driver_pci_read(&b->d, b->d.window + 16 + k, 1);
                    window_write(b, 16 + k, k % 2 ? 1 : 4 >> k, 0);
                }
                (void)virtio_driver_pci_read(&b->d, b->d.window + 16, 4);
            }
        }
    }
}

/* The function around it */

static void registers_that_vanish_and_come_back(struct hostile_bench *b)
{
    for (unsigned i = 0; i < 20; i++) {
        virtio_driver_kick(&b->d, b->kind->queue);
        virtio_driver_pci_write(&b->d, PCI_COMMAND, 2, 0);
        assert_int_equal(b->m.fake->doorbell_count, 0);
        virtio_driver_decode(&b->d);
        assert_int_equal(b->m.fake->doorbell_count, b->d.queue_count);
    }
    hostile_kick(b);
}

static void registers_that_move_away(struct hostile_bench *b)
{
    uint32_t at = virtio_driver_pci_read(&b->d, PCI_BASE_ADDRESS_0, 4);
    uint64_t notify = b->q->notify;

    virtio_driver_pci_write(&b->d, PCI_BASE_ADDRESS_0, 4, at + BAR_BYTES);
    assert_false(fake_is_mapped(b->m.fake, BUS_MMIO, notify, 2));
    virtio_driver_write(&b->d, notify + BAR_BYTES, 2, b->kind->queue);
    virtio_driver_pci_write(&b->d, PCI_BASE_ADDRESS_0, 4, 0xffffffff);
    virtio_driver_pci_write(&b->d, PCI_BASE_ADDRESS_0, 4, at);
    assert_true(fake_is_mapped(b->m.fake, BUS_MMIO, notify, 2));
    hostile_kick(b);
}

static void a_function_that_is_reset_under_its_driver(struct hostile_bench *b)
{
    virtio_driver_kick(&b->d, b->kind->queue);
    device_reset(b->dev);
    virtio_driver_decode(&b->d);
    assert_int_equal(virtio_driver_status(&b->d), 0);
    hostile_kick(b);
}

#define CASE(end, fn) \
    { \
#fn, HOSTILE_##end, fn \
    }

const struct hostile_case hostile_register_cases[] = {
    CASE(BROKEN, a_queue_of_size_0),
    CASE(BROKEN, a_queue_of_size_3),
    CASE(BROKEN, a_queue_larger_than_the_device_has),
    CASE(BROKEN, a_queue_of_size_65535),
    CASE(BROKEN, a_descriptor_table_that_is_misaligned),
    CASE(BROKEN, an_available_ring_that_is_misaligned),
    CASE(BROKEN, a_used_ring_that_is_misaligned),
    CASE(BROKEN, a_descriptor_table_in_the_hole),
    CASE(BROKEN, an_available_ring_in_the_hole),
    CASE(BROKEN, a_used_ring_in_the_hole),
    CASE(BROKEN, a_descriptor_table_over_the_end_of_ram),
    CASE(BROKEN, an_available_ring_over_the_end_of_ram),
    CASE(BROKEN, a_used_ring_over_the_end_of_ram),
    CASE(BROKEN, a_descriptor_table_that_wraps),
    CASE(BROKEN, an_available_ring_that_wraps),
    CASE(BROKEN, a_used_ring_that_wraps),
    CASE(BROKEN, a_used_ring_in_the_device_s_own_registers),
    CASE(EITHER, three_rings_at_one_place),
    CASE(EITHER, rings_at_address_0),
    CASE(UNHARMED, a_driver_that_is_ready_before_its_features),
    CASE(UNHARMED, features_that_are_not_offered),
    CASE(UNHARMED, a_driver_that_knows_no_version_1),
    CASE(UNHARMED, a_kick_for_a_queue_that_is_not_enabled),
    CASE(UNHARMED, a_kick_before_the_driver_is_ready),
    CASE(UNHARMED, queues_that_do_not_exist),
    CASE(UNHARMED, a_queue_that_is_moved_while_it_runs),
    CASE(UNHARMED, features_that_change_while_it_runs),
    CASE(UNHARMED, every_status_after_every_other),
    CASE(EITHER, writes_to_every_register),
    CASE(UNHARMED, writes_to_the_whole_msix_table),
    CASE(EITHER, a_window_into_everywhere),
    CASE(UNHARMED, registers_that_vanish_and_come_back),
    CASE(UNHARMED, registers_that_move_away),
    CASE(UNHARMED, a_function_that_is_reset_under_its_driver),
    {0},
};
