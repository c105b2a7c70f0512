/* SPDX-License-Identifier: Apache-2.0 */
/* virtio_net: configuration and sending, by VIRTIO 1.2 "Network Device". */
#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "nic_bench.h"

/* Configuration */

static void it_is_a_network_card(void **state)
{
    struct nic_bench *f = *state;

    assert_int_equal(virtio_driver_pci_read(&f->d, 2, 2), 0x1040 + VIRTIO_ID_NET);
    assert_int_equal(virtio_driver_pci_read(&f->d, 8, 4) >> 8, 0x020000);
    assert_int_equal(f->d.queue_count, 3);
    for (unsigned i = 0; i < 6; i++)
        assert_int_equal(virtio_driver_config_read(&f->d, i, 1), nic_mac[i]);
    assert_int_equal(virtio_driver_config_read(&f->d, 6, 2), VIRTIO_NET_S_LINK_UP);
    assert_int_equal(virtio_driver_config_read(&f->d, 8, 2), 1);
    assert_int_equal(virtio_driver_config_read(&f->d, 10, 2), 1400);
}

static void it_offers_what_it_can(void **state)
{
    static const unsigned bits[] = {
        VIRTIO_NET_F_CSUM,       VIRTIO_NET_F_GUEST_CSUM,    VIRTIO_NET_F_CTRL_GUEST_OFFLOADS,
        VIRTIO_NET_F_MTU,        VIRTIO_NET_F_MAC,           VIRTIO_NET_F_GUEST_TSO4,
        VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_GUEST_ECN,     VIRTIO_NET_F_HOST_TSO4,
        VIRTIO_NET_F_HOST_TSO6,  VIRTIO_NET_F_HOST_ECN,      VIRTIO_NET_F_MRG_RXBUF,
        VIRTIO_NET_F_STATUS,     VIRTIO_NET_F_CTRL_VQ,       VIRTIO_NET_F_CTRL_RX,
        VIRTIO_NET_F_CTRL_VLAN,  VIRTIO_NET_F_CTRL_MAC_ADDR, VIRTIO_NET_F_GUEST_ANNOUNCE};
    struct nic_bench *f = *state;
    uint64_t expected = 0;

    for (unsigned i = 0; i < sizeof(bits) / sizeof(bits[0]); i++)
        expected |= BIT(bits[i]);
    assert_int_equal(virtio_driver_offered(&f->d) & ~(BIT(28) | BIT(29) | BIT(32)), expected);
}

#define FINISHED_FEATURES \
    (BIT(VIRTIO_NET_F_MTU) | BIT(VIRTIO_NET_F_MAC) | BIT(VIRTIO_NET_F_MRG_RXBUF) | \
     BIT(VIRTIO_NET_F_STATUS) | BIT(VIRTIO_NET_F_CTRL_VQ) | BIT(VIRTIO_NET_F_CTRL_RX) | \
     BIT(VIRTIO_NET_F_CTRL_VLAN) | BIT(VIRTIO_NET_F_CTRL_MAC_ADDR) | \
     BIT(VIRTIO_NET_F_GUEST_ANNOUNCE))

static void without_offloads_all_frames_are_finished(void **state)
{
    struct nic_bench *f = *state;

    nic_build_finished(f);
    assert_int_equal(virtio_driver_offered(&f->d) & ~(BIT(28) | BIT(29) | BIT(32)),
                     FINISHED_FEATURES);
}

static void where_segments_stay_whole_only_checksums_are_left_to_the_netdev(void **state)
{
    struct nic_bench *f = *state;
    struct error err = {.msg = ""};

    device_destroy(f->dev);
    f->wire.plain = true;
    nic_create(&f->m, (struct netdev *)&f->wire, 1, NULL, &f->dev, &err);
    assert_string_equal(err.msg, "");
    virtio_driver_init(&f->d, &f->m, f->dev);
    assert_int_equal(virtio_driver_offered(&f->d) & ~(BIT(28) | BIT(29) | BIT(32)),
                     FINISHED_FEATURES | BIT(VIRTIO_NET_F_CSUM) | BIT(VIRTIO_NET_F_GUEST_CSUM));
}

static void several_pairs_are_offered_only_when_there_are(void **state)
{
    struct nic_bench *f = *state;

    assert_true(virtio_driver_offered(&f->d) & BIT(VIRTIO_NET_F_MQ));
    assert_int_equal(virtio_driver_config_read(&f->d, 8, 2), PAIRS);
    assert_int_equal(f->d.queue_count, 2 * PAIRS + 1);
}

/* Sending */

static void a_frame_is_sent_with_the_header_of_the_guest(void **state)
{
    struct nic_bench *f = *state;
    uint8_t packet[HEADER + 200];

    virtio_driver_start(&f->d, ALL);
    nic_fill_packet(packet, sizeof(packet), nic_other, 1);
    for (unsigned i = 0; i < HEADER; i++)
        packet[i] = (uint8_t)(0xa0 + i);
    nic_add_tx(f, TX, packet, sizeof(packet));
    virtio_driver_kick(&f->d, TX);
    assert_int_equal(virtio_driver_wait(&f->d, TX, NULL), 0);
    nic_assert_wire(f, 0, packet, sizeof(packet));
    assert_int_equal(virtio_driver_interrupts(&f->d, TX + 1), 1);
    assert_int_equal(nic_stats(f).tx_frames, 1);
    assert_int_equal(nic_stats(f).tx_bytes, 200);
}

struct queue_names {
    char list[256];
    uint64_t sum[VIRTIO_MAX_QUEUES], count; /* of requests, by queue */
};

static void note_queue(void *opaque, const char *queue, const char *name, uint64_t value)
{
    struct queue_names *names = opaque;
    size_t len = strlen(names->list);

    if (strcmp(name, "requests") != 0)
        return;
    snprintf(names->list + len, sizeof(names->list) - len, "%s ", queue);
    names->sum[names->count++] = value;
}

static void each_queue_counts_under_a_name_of_its_own(void **state)
{
    struct nic_bench *f = *state;
    struct queue_names names = {0};
    uint8_t packet[HEADER + 60];

    virtio_driver_start(&f->d, ALL);
    nic_fill_packet(packet, sizeof(packet), nic_other, 1);
    for (unsigned i = 0; i < 3; i++) {
        nic_add_tx(f, TX, packet, sizeof(packet));
        virtio_driver_kick(&f->d, TX);
        virtio_driver_wait(&f->d, TX, NULL);
    }
    nic_set_pairs(f, PAIRS, VIRTIO_NET_OK);
    virtio_stats(f->dev, note_queue, &names);
    assert_string_equal(names.list, "rx0 tx0 rx1 tx1 rx2 tx2 rx3 tx3 ctrl ");
    assert_int_equal(names.sum[0], 0);
    assert_int_equal(names.sum[1], 3);
    assert_int_equal(names.sum[3], 0);
    assert_int_equal(names.sum[2 * PAIRS], 1);
}

static void a_frame_may_lie_in_any_number_of_buffers(void **state)
{
    struct nic_bench *f = *state;
    uint8_t packet[HEADER + 200];
    struct virtio_buffer buffers[sizeof(packet)];
    uint64_t gpa;

    virtio_driver_start(&f->d, PLAIN);
    nic_fill_packet(packet, sizeof(packet), nic_other, 1);
    gpa = virtio_machine_alloc(&f->m, sizeof(packet));
    memcpy(virtio_machine_at(&f->m, gpa, sizeof(packet)), packet, sizeof(packet));
    for (unsigned i = 0; i < sizeof(packet); i++)
        buffers[i] = (struct virtio_buffer){gpa + i, 1, false};
    virtio_driver_request(&f->d, TX, buffers, sizeof(packet));
    nic_assert_wire(f, 0, packet, sizeof(packet));
}

static void a_burst_goes_out_in_order_with_one_interrupt(void **state)
{
    struct nic_bench *f = *state;
    uint8_t packet[HEADER + 60];

    virtio_driver_start(&f->d, ALL);
    for (unsigned i = 0; i < 100; i++) {
        nic_fill_packet(packet, sizeof(packet), nic_other, (uint8_t)i);
        nic_add_tx(f, TX, packet, sizeof(packet));
    }
    virtio_driver_kick(&f->d, TX);
    for (unsigned i = 0; i < 100; i++)
        virtio_driver_wait(&f->d, TX, NULL);
    for (unsigned i = 0; i < 100; i++) {
        nic_fill_packet(packet, sizeof(packet), nic_other, (uint8_t)i);
        nic_assert_wire(f, 0, packet, sizeof(packet));
    }
    assert_int_equal(virtio_driver_interrupts(&f->d, TX + 1), 1);
    assert_in_range(f->wire.flushes, 1, 6); /* they leave together, and not each by itself */
}

static void what_the_host_holds_back_is_asked_to_leave_again(void **state)
{
    struct nic_bench *f = *state;
    uint8_t packet[HEADER + 60];

    virtio_driver_start(&f->d, ALL);
    nic_fill_packet(packet, sizeof(packet), nic_other, 1);
    nic_add_tx(f, TX, packet, sizeof(packet));
    f->wire.holds_back = 5;
    virtio_driver_kick(&f->d, TX);
    virtio_driver_wait(&f->d, TX, NULL); /* the buffer is the guest's: the rest was copied */
    nic_run(f);
    assert_int_equal(f->wire.holds_back, 0); /* without another kick */
    nic_add_tx(f, TX, packet, sizeof(packet));
    virtio_driver_kick(&f->d, TX);
    virtio_driver_wait(&f->d, TX, NULL);
    nic_assert_wire(f, 0, packet, sizeof(packet));
    nic_assert_wire(f, 0, packet, sizeof(packet));
}

static void a_full_ring_goes_out_with_one_kick(void **state)
{
    struct nic_bench *f = *state;
    uint8_t packet[HEADER + 60];

    virtio_driver_start(&f->d, PLAIN);
    nic_fill_packet(packet, sizeof(packet), nic_other, 5);
    for (unsigned i = 0; i < 256; i++)
        nic_add_tx(f, TX, packet, sizeof(packet));
    virtio_driver_kick(&f->d, TX);
    for (unsigned i = 0; i < 256; i++) {
        virtio_driver_wait(&f->d, TX, NULL);
        nic_assert_wire(f, 0, packet, sizeof(packet));
    }
}

static void send_into_a_full_host(struct nic_bench *f, uint64_t features)
{
    uint8_t packet[HEADER + 1000];
    unsigned done = 0;
    uint16_t since;

    virtio_driver_start(&f->d, features);
    fake_netdev_narrow(&f->wire, 0);
    for (unsigned i = 0; i < 200; i++) {
        nic_fill_packet(packet, sizeof(packet), nic_other, (uint8_t)i);
        nic_add_tx(f, TX, packet, sizeof(packet));
    }
    virtio_driver_kick(&f->d, TX);
    for (unsigned i = 0; i < 5; i++)
        nic_run(f);
    while (virtio_driver_take(&f->d, TX, NULL, NULL))
        done++;
    assert_in_range(done, 1, 199);
    assert_true(nic_stats(f).tx_waits > 0);
    since = f->d.queues[TX].avail_idx;
    nic_add_tx(f, TX, packet, sizeof(packet)); /* the 201st, like the 200th */
    assert_false(virtio_driver_wants_kick(&f->d, TX, since));
    virtio_driver_kick(&f->d, TX);
    nic_run(f);
    assert_false(virtio_driver_take(&f->d, TX, NULL, NULL));

    for (unsigned i = 0; i < 201; i++) {
        nic_fill_packet(packet, sizeof(packet), nic_other, (uint8_t)(i < 200 ? i : 199));
        nic_run(f);
        nic_assert_wire(f, 0, packet, sizeof(packet));
        while (virtio_driver_take(&f->d, TX, NULL, NULL))
            done++;
    }
    nic_run(f);
    while (virtio_driver_take(&f->d, TX, NULL, NULL))
        done++;
    assert_int_equal(done, 201);
    assert_int_equal(nic_stats(f).tx_frames, 201);
    assert_int_equal(nic_stats(f).tx_dropped, 0);
    since = f->d.queues[TX].avail_idx;
    nic_add_tx(f, TX, packet, sizeof(packet));
    assert_true(virtio_driver_wants_kick(&f->d, TX, since));
}

static void a_full_host_loses_nothing(void **state)
{
    send_into_a_full_host(*state, ALL);
}

static void a_full_host_loses_nothing_without_event_idx(void **state)
{
    send_into_a_full_host(*state, PLAIN);
}

static void what_is_no_frame_is_dropped_and_counted(void **state)
{
    struct nic_bench *f = *state;
    uint8_t packet[HEADER + 60];
    uint64_t gpa;

    virtio_driver_start(&f->d, PLAIN);
    nic_fill_packet(packet, sizeof(packet), nic_other, 1);
    gpa = virtio_machine_alloc(&f->m, 70000);
    const struct virtio_buffer requests[][2] = {
        {{gpa, 1, false}, {0}},
        {{gpa, HEADER, false}, {0}},
        {{gpa, 70000, false}, {0}},
        {{gpa, 60, true}, {0}},
        {{gpa, 100, false}, {gpa + 200, 60, true}},
    };

    for (unsigned i = 0; i < 5; i++) {
        assert_int_equal(
            virtio_driver_request(&f->d, TX, requests[i], requests[i][1].bytes ? 2 : 1), 0);
        assert_int_equal(nic_stats(f).tx_dropped, i + 1);
        assert_int_equal(fake_netdev_take(&f->wire, 0, packet, sizeof(packet)), 0);
    }
    assert_false(nic_broken(f));
    nic_add_tx(f, TX, packet, sizeof(packet));
    virtio_driver_kick(&f->d, TX);
    virtio_driver_wait(&f->d, TX, NULL);
    nic_assert_wire(f, 0, packet, sizeof(packet));
}

static void a_frame_of_the_longest_kind_is_sent(void **state)
{
    static uint8_t packet[NETDEV_MAX_FRAME];
    struct nic_bench *f = *state;

    virtio_driver_start(&f->d, ALL);
    nic_fill_packet(packet, sizeof(packet), nic_other, 1);
    nic_add_tx(f, TX, packet, sizeof(packet));
    virtio_driver_kick(&f->d, TX);
    virtio_driver_wait(&f->d, TX, NULL);
    nic_assert_wire(f, 0, packet, sizeof(packet));
}

static void what_is_sent_while_the_link_is_down_is_dropped_and_counted(void **state)
{
    struct nic_bench *f = *state;
    uint8_t packet[HEADER + 60];

    virtio_driver_start(&f->d, ALL);
    nic_fill_packet(packet, sizeof(packet), nic_other, 1);
    fake_netdev_set_up(&f->wire, false);
    nic_add_tx(f, TX, packet, sizeof(packet));
    virtio_driver_kick(&f->d, TX);
    virtio_driver_wait(&f->d, TX, NULL);
    fake_netdev_set_up(&f->wire, true);
    virtio_net_set_link(f->dev, false);
    nic_add_tx(f, TX, packet, sizeof(packet));
    virtio_driver_kick(&f->d, TX);
    virtio_driver_wait(&f->d, TX, NULL);
    assert_int_equal(nic_stats(f).tx_dropped, 2);
    assert_int_equal(fake_netdev_take(&f->wire, 0, packet, sizeof(packet)), 0);
}

static void a_wire_that_vanishes_stops_nothing(void **state)
{
    struct nic_bench *f = *state;
    uint8_t packet[HEADER + 60];

    virtio_driver_start(&f->d, ALL);
    nic_fill_packet(packet, sizeof(packet), nic_other, 1);
    nic_give_rx(f, 4, 1536);
    fake_netdev_remove(&f->wire, 0);
    for (unsigned i = 0; i < 5; i++) {
        nic_run(f);
        nic_give_rx(f, 1, 1536);
        nic_add_tx(f, TX, packet, sizeof(packet));
        virtio_driver_kick(&f->d, TX);
        virtio_driver_wait(&f->d, TX, NULL);
    }
    assert_false(nic_broken(f));
    assert_int_equal(nic_stats(f).tx_dropped, 5);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, nic_setup, nic_teardown)
#define TEST_PAIRS(name) cmocka_unit_test_setup_teardown(name, nic_setup_pairs, nic_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(it_is_a_network_card),
        TEST(it_offers_what_it_can),
        TEST(without_offloads_all_frames_are_finished),
        TEST(where_segments_stay_whole_only_checksums_are_left_to_the_netdev),
        TEST_PAIRS(several_pairs_are_offered_only_when_there_are),
        TEST(a_frame_is_sent_with_the_header_of_the_guest),
        TEST_PAIRS(each_queue_counts_under_a_name_of_its_own),
        TEST(a_frame_may_lie_in_any_number_of_buffers),
        TEST(a_burst_goes_out_in_order_with_one_interrupt),
        TEST(what_the_host_holds_back_is_asked_to_leave_again),
        TEST(a_full_ring_goes_out_with_one_kick),
        TEST(a_full_host_loses_nothing),
        TEST(a_full_host_loses_nothing_without_event_idx),
        TEST(what_is_no_frame_is_dropped_and_counted),
        TEST(a_frame_of_the_longest_kind_is_sent),
        TEST(what_is_sent_while_the_link_is_down_is_dropped_and_counted),
        TEST(a_wire_that_vanishes_stops_nothing),
    };

    return cmocka_run_group_tests_name("virtio_net", tests, NULL, NULL);
}
