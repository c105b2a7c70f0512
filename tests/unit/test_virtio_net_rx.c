/* SPDX-License-Identifier: Apache-2.0 */
/* virtio_net_rx: receiving, by VIRTIO 1.2 "Network Device", "Processing of Incoming Packets". */
#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "nic_bench.h"

/* Receiving */

static void a_frame_arrives_in_one_buffer(void **state)
{
    struct nic_bench *f = *state;
    uint8_t packet[HEADER + 200];

    virtio_driver_start(&f->d, PLAIN);
    nic_give_rx(f, 4, 1536);
    for (unsigned i = 0; i < 10; i++) {
        nic_fill_packet(packet, sizeof(packet), nic_mac, (uint8_t)i);
        fake_netdev_give(&f->wire, 0, packet, sizeof(packet));
        nic_run(f);
        nic_assert_arrives(f, RX, packet, sizeof(packet));
        assert_int_equal(virtio_driver_interrupts(&f->d, RX + 1), i + 1);
        nic_give_rx(f, 1, 1536);
    }
    assert_int_equal(nic_stats(f).rx_frames, 10);
    assert_int_equal(nic_stats(f).rx_bytes, 2000);
}

static void a_frame_is_spread_over_merged_buffers(void **state)
{
    static uint8_t packet[HEADER + 9000];
    struct nic_bench *f = *state;

    virtio_driver_start(&f->d, MERGED);
    nic_give_rx(f, 100, 256);
    for (size_t len = HEADER + 14; len < sizeof(packet); len += 731) {
        nic_fill_packet(packet, len, nic_mac, (uint8_t)len);
        fake_netdev_give(&f->wire, 0, packet, len);
        nic_run(f);
        nic_assert_arrives(f, RX, packet, len);
        nic_give_rx(f, f->d.queues[RX].free_count - 156, 256);
    }
    assert_int_equal(nic_stats(f).rx_dropped, 0);
}

static void a_frame_that_fills_its_buffers_exactly_arrives(void **state)
{
    struct nic_bench *f = *state;
    uint8_t packet[1024];

    virtio_driver_start(&f->d, MERGED);
    nic_give_rx(f, 4, 256);
    nic_fill_packet(packet, sizeof(packet), nic_mac, 9);
    fake_netdev_give(&f->wire, 0, packet, sizeof(packet));
    nic_run(f);
    nic_assert_arrives(f, RX, packet, sizeof(packet));
}

static void a_large_frame_waits_for_its_last_buffer(void **state)
{
    static uint8_t packet[NETDEV_MAX_FRAME];
    struct nic_bench *f = *state;
    uint8_t got[2048];

    virtio_driver_start(&f->d, ALL);
    nic_fill_packet(packet, sizeof(packet), nic_mac, 9);
    nic_give_rx(f, 3, 4096);
    fake_netdev_give(&f->wire, 0, packet, sizeof(packet));
    nic_run(f);
    for (unsigned i = 0; i < 13; i++) {
        assert_int_equal(nic_take_rx(f, RX, got), 0);
        nic_give_rx(f, 1, 4096);
    }
    assert_int_equal(nic_take_rx(f, RX, got), 0);
    nic_give_rx(f, 2, 4096);
    nic_run(f);
    nic_assert_arrives(f, RX, packet, sizeof(packet));
    nic_fill_packet(packet, 100, nic_mac, 1);
    fake_netdev_give(&f->wire, 0, packet, 100);
    nic_run(f);
    nic_assert_arrives(f, RX, packet, 100);
}

static void a_frame_that_no_ring_can_hold_is_dropped_and_counted(void **state)
{
    static uint8_t packet[NETDEV_MAX_FRAME];
    struct nic_bench *f = *state;

    virtio_driver_start(&f->d, MERGED);
    nic_fill_packet(packet, sizeof(packet), nic_mac, 9);
    nic_give_rx(f, 256, 64);
    fake_netdev_give(&f->wire, 0, packet, sizeof(packet));
    nic_fill_packet(packet, 100, nic_mac, 1);
    fake_netdev_give(&f->wire, 0, packet, 100);
    nic_run(f);
    nic_run(f);
    nic_assert_arrives(f, RX, packet, 100);
    assert_int_equal(nic_stats(f).rx_dropped, 1);
}

static void without_merging_a_longer_frame_is_dropped_and_its_buffer_kept(void **state)
{
    struct nic_bench *f = *state;
    uint8_t packet[400];

    virtio_driver_start(&f->d, PLAIN);
    nic_give_rx(f, 2, 300);
    for (unsigned i = 0; i < 10; i++) {
        nic_fill_packet(packet, 301 + i, nic_mac, 9);
        fake_netdev_give(&f->wire, 0, packet, 301 + i);
    }
    nic_fill_packet(packet, 300, nic_mac, 1);
    fake_netdev_give(&f->wire, 0, packet, 300);
    nic_run(f);
    nic_assert_arrives(f, RX, packet, 300);
    assert_int_equal(nic_stats(f).rx_dropped, 10);
}

static void a_frame_longer_than_any_is_dropped(void **state)
{
    static uint8_t packet[NETDEV_MAX_FRAME + 100];
    struct nic_bench *f = *state;

    virtio_driver_start(&f->d, ALL);
    nic_give_rx(f, 1, 64);
    nic_fill_packet(packet, sizeof(packet), nic_mac, 9);
    fake_netdev_give(&f->wire, 0, packet, sizeof(packet));
    nic_run(f);
    assert_int_equal(nic_stats(f).rx_dropped, 1);
    nic_fill_packet(packet, 64, nic_mac, 1);
    fake_netdev_give(&f->wire, 0, packet, 64);
    nic_run(f);
    nic_assert_arrives(f, RX, packet, 64);
}

static void a_header_may_be_cut_by_the_guests_buffers(void **state)
{
    struct nic_bench *f = *state;
    uint8_t packet[HEADER + 100];
    uint64_t gpa;

    virtio_driver_start(&f->d, PLAIN);
    gpa = virtio_machine_alloc(&f->m, 2000);
    const struct virtio_buffer buffers[] = {
        {gpa, 3, true}, {gpa + 3, 8, true}, {gpa + 11, 7, true}, {gpa + 18, 1900, true}};
    f->rx_gpa[virtio_driver_add(&f->d, RX, buffers, 4)] = gpa;
    virtio_driver_kick(&f->d, RX);
    nic_fill_packet(packet, sizeof(packet), nic_mac, 1);
    fake_netdev_give(&f->wire, 0, packet, sizeof(packet));
    nic_run(f);
    nic_assert_arrives(f, RX, packet, sizeof(packet));
}

static void frames_wait_while_there_are_no_buffers(void **state)
{
    struct nic_bench *f = *state;
    uint8_t packet[HEADER + 100];

    virtio_driver_start(&f->d, ALL);
    for (unsigned i = 0; i < 20; i++) {
        nic_fill_packet(packet, sizeof(packet), nic_mac, (uint8_t)i);
        fake_netdev_give(&f->wire, 0, packet, sizeof(packet));
    }
    nic_run(f);
    nic_run(f);
    for (unsigned i = 0; i < 20; i++) {
        nic_fill_packet(packet, sizeof(packet), nic_mac, (uint8_t)i);
        nic_give_rx(f, 1, 200);
        nic_run(f);
        nic_assert_arrives(f, RX, packet, sizeof(packet));
    }
    assert_int_equal(nic_stats(f).rx_dropped, 0);
}

static void a_burst_arrives_in_order_with_few_interrupts(void **state)
{
    struct nic_bench *f = *state;
    uint8_t packet[HEADER + 60];

    virtio_driver_start(&f->d, ALL);
    nic_give_rx(f, 256, 1536);
    for (unsigned i = 0; i < 150; i++) {
        nic_fill_packet(packet, sizeof(packet), nic_mac, (uint8_t)i);
        fake_netdev_give(&f->wire, 0, packet, sizeof(packet));
    }
    for (unsigned i = 0; i < 5; i++)
        nic_run(f);
    for (unsigned i = 0; i < 150; i++) {
        nic_fill_packet(packet, sizeof(packet), nic_mac, (uint8_t)i);
        nic_assert_arrives(f, RX, packet, sizeof(packet));
    }
    assert_in_range(virtio_driver_interrupts(&f->d, RX + 1), 1, 5);
}

static void kicks_are_not_wanted_while_there_are_buffers(void **state)
{
    struct nic_bench *f = *state;
    uint16_t since;

    virtio_driver_start(&f->d, PLAIN);
    nic_give_rx(f, 4, 1536);
    since = f->d.queues[RX].avail_idx;
    nic_add_rx(f, RX, 1, 1536);
    assert_false(virtio_driver_wants_kick(&f->d, RX, since));
}

static void a_guest_that_checks_itself_is_told_nothing_of_checksums(void **state)
{
    static const uint64_t features[] = {MERGED, MERGED | BIT(VIRTIO_NET_F_GUEST_CSUM)};
    struct nic_bench *f = *state;
    uint8_t packet[HEADER + 60], got[2048];

    for (unsigned i = 0; i < 2; i++) {
        virtio_driver_start(&f->d, features[i]);
        nic_give_rx(f, 2, 1536);
        nic_fill_packet(packet, sizeof(packet), nic_mac, 1);
        packet[0] = VIRTIO_NET_HDR_F_DATA_VALID;
        fake_netdev_give(&f->wire, 0, packet, sizeof(packet));
        nic_run(f);
        assert_int_equal(nic_take_rx(f, RX, got), sizeof(packet));
        assert_int_equal(got[0], i ? VIRTIO_NET_HDR_F_DATA_VALID : 0);
    }
}

static void a_receive_buffer_that_cannot_be_breaks_the_ring(void **state)
{
    struct nic_bench *f = *state;
    uint64_t gpa;

    for (unsigned i = 0; i < 3; i++) {
        virtio_driver_start(&f->d, MERGED);
        gpa = virtio_machine_alloc(&f->m, 4096);
        const struct virtio_buffer kinds[][2] = {
            {{gpa, 1536, false}, {0}},
            {{gpa, HEADER - 1, true}, {0}},
            {{gpa, 16, false}, {gpa + 16, 1536, true}},
        };

        virtio_driver_add(&f->d, RX, kinds[i], kinds[i][1].bytes ? 2 : 1);
        virtio_driver_kick(&f->d, RX);
        nic_run(f);
        assert_true(nic_broken(f));
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, nic_setup, nic_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_frame_arrives_in_one_buffer),
        TEST(a_frame_is_spread_over_merged_buffers),
        TEST(a_frame_that_fills_its_buffers_exactly_arrives),
        TEST(a_large_frame_waits_for_its_last_buffer),
        TEST(a_frame_that_no_ring_can_hold_is_dropped_and_counted),
        TEST(without_merging_a_longer_frame_is_dropped_and_its_buffer_kept),
        TEST(a_frame_longer_than_any_is_dropped),
        TEST(a_header_may_be_cut_by_the_guests_buffers),
        TEST(frames_wait_while_there_are_no_buffers),
        TEST(a_burst_arrives_in_order_with_few_interrupts),
        TEST(kicks_are_not_wanted_while_there_are_buffers),
        TEST(a_guest_that_checks_itself_is_told_nothing_of_checksums),
        TEST(a_receive_buffer_that_cannot_be_breaks_the_ring),
    };

    return cmocka_run_group_tests_name("virtio_net_rx", tests, NULL, NULL);
}
