/* SPDX-License-Identifier: Apache-2.0 */
/* virtio_net_ctrl: filters, commands, pairs and the link, by VIRTIO 1.2 "Control Virtqueue". */
#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "nic_bench.h"

/* Filters */

static void without_a_command_every_frame_arrives(void **state)
{
    struct nic_bench *f = *state;

    virtio_driver_start(&f->d, ALL);
    nic_give_rx(f, 64, 1536);
    assert_true(nic_hears(f, nic_mac, -1));
    assert_true(nic_hears(f, nic_other, -1));
    assert_true(nic_hears(f, nic_group, -1));
    assert_true(nic_hears(f, nic_everybody, 5));
}

static void without_promiscuity_only_ones_own_frames_arrive(void **state)
{
    struct nic_bench *f = *state;

    nic_start_filtered(f, ALL);
    assert_true(nic_hears(f, nic_mac, -1));
    assert_true(nic_hears(f, nic_everybody, -1));
    assert_false(nic_hears(f, nic_other, -1));
    assert_false(nic_hears(f, nic_group, -1));
    assert_int_equal(nic_stats(f).rx_filtered, 2);
    assert_true(nic_hears(f, nic_mac, -1));
}

static void allmulti_lets_groups_pass(void **state)
{
    struct nic_bench *f = *state;
    uint8_t on = 1;

    nic_start_filtered(f, ALL);
    nic_assert_done(f, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_ALLMULTI, &on, 1);
    assert_true(nic_hears(f, nic_group, -1));
    assert_false(nic_hears(f, nic_other, -1));
    on = 0;
    nic_assert_done(f, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_ALLMULTI, &on, 1);
    assert_false(nic_hears(f, nic_group, -1));
}

static void the_table_lets_its_addresses_pass(void **state)
{
    struct nic_bench *f = *state;
    uint8_t table[1024];
    uint32_t len;

    nic_start_filtered(f, ALL);
    len = nic_make_table(table, 3, nic_other, 2, nic_group);
    nic_assert_done(f, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, table, len);
    assert_true(nic_hears(f, nic_other, -1));
    assert_true(nic_hears(f, nic_group, -1));
    assert_true(nic_hears(f, nic_mac, -1));
    len = nic_make_table(table, 0, NULL, 0, NULL);
    nic_assert_done(f, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, table, len);
    assert_false(nic_hears(f, nic_other, -1));
    assert_false(nic_hears(f, nic_group, -1));
}

static void a_table_that_is_too_long_lets_all_of_its_kind_pass(void **state)
{
    static const uint8_t stranger[6] = {0x52, 1, 1, 1, 1, 1}, strange_group[6] = {1, 1, 1, 1, 1, 1};
    struct nic_bench *f = *state;
    uint8_t table[2048];
    uint32_t len;

    nic_start_filtered(f, ALL);
    len = nic_make_table(table, 65, nic_other, 64, nic_group);
    nic_assert_done(f, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, table, len);
    assert_true(nic_hears(f, stranger, -1));
    assert_true(nic_hears(f, nic_group, -1));
    assert_false(nic_hears(f, strange_group, -1));
    len = nic_make_table(table, 60, nic_other, 5, nic_group);
    nic_assert_done(f, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, table, len);
    assert_false(nic_hears(f, stranger, -1));
    assert_true(nic_hears(f, strange_group, -1));
}

static void a_table_that_lies_about_its_length_changes_nothing(void **state)
{
    struct nic_bench *f = *state;
    uint8_t table[64];
    uint32_t len = nic_make_table(table, 1, nic_other, 1, nic_group), huge = UINT32_MAX;

    nic_start_filtered(f, ALL);
    for (uint32_t i = 1; i < len; i++)
        nic_assert_not_done(f, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, table, i);
    nic_assert_not_done(f, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, table, len + 1);
    memcpy(table, &huge, 4);
    nic_assert_not_done(f, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, table, len);
    nic_make_table(table, 1, nic_other, 1, nic_group);
    memcpy(table + 10, &huge, 4);
    nic_assert_not_done(f, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, table, len);
    assert_false(nic_hears(f, nic_other, -1));
    assert_false(nic_hears(f, nic_group, -1));
}

static void the_guest_may_change_its_address(void **state)
{
    struct nic_bench *f = *state;

    nic_start_filtered(f, ALL);
    nic_assert_not_done(f, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, nic_other, 5);
    assert_true(nic_hears(f, nic_mac, -1));
    nic_assert_done(f, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, nic_other, 6);
    assert_true(nic_hears(f, nic_other, -1));
    assert_false(nic_hears(f, nic_mac, -1));
    assert_int_equal(virtio_driver_config_read(&f->d, 5, 1), nic_other[5]);
    virtio_driver_reset(&f->d);
    assert_int_equal(virtio_driver_config_read(&f->d, 5, 1), nic_mac[5]);
}

static void vlans_pass_when_they_were_added(void **state)
{
    struct nic_bench *f = *state;
    uint16_t vlan = 4095;

    nic_start_filtered(f, ALL);
    assert_true(nic_hears(f, nic_mac, 0)); /* a priority alone is no VLAN */
    assert_false(nic_hears(f, nic_mac, 4095));
    assert_false(nic_hears(f, nic_mac, 1));
    nic_assert_done(f, VIRTIO_NET_CTRL_VLAN, VIRTIO_NET_CTRL_VLAN_ADD, &vlan, 2);
    assert_true(nic_hears(f, nic_mac, 4095));
    assert_false(nic_hears(f, nic_mac, 1));
    assert_false(nic_hears(f, nic_other, 4095));
    nic_assert_done(f, VIRTIO_NET_CTRL_VLAN, VIRTIO_NET_CTRL_VLAN_DEL, &vlan, 2);
    assert_false(nic_hears(f, nic_mac, 4095));
    vlan = 4096;
    nic_assert_not_done(f, VIRTIO_NET_CTRL_VLAN, VIRTIO_NET_CTRL_VLAN_ADD, &vlan, 2);
}

static void who_does_not_filter_vlans_hears_them_all(void **state)
{
    struct nic_bench *f = *state;

    nic_start_filtered(f, CONTROL | BIT(VIRTIO_NET_F_CTRL_RX));
    assert_true(nic_hears(f, nic_mac, 77));
}

static void a_reset_forgets_the_filters(void **state)
{
    struct nic_bench *f = *state;

    nic_start_filtered(f, ALL);
    assert_false(nic_hears(f, nic_other, -1));
    virtio_driver_start(&f->d, ALL);
    nic_give_rx(f, 4, 1536);
    assert_true(nic_hears(f, nic_other, -1));
}

/* Commands */

static void a_command_that_does_not_exist_is_refused(void **state)
{
    struct nic_bench *f = *state;
    uint8_t data[8] = {1};

    virtio_driver_start(&f->d, ALL);
    for (unsigned class = 0; class < 256; class += class < 8 ? 1 : 31)
        for (unsigned cmd = 2; cmd < 256; cmd += cmd < 8 ? 1 : 31)
            nic_assert_not_done(f, (uint8_t) class, (uint8_t)cmd, data, 8);
    nic_assert_not_done(f, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, NULL, 0);
    nic_assert_not_done(f, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, data, 2);
    nic_assert_not_done(f, VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, data, 2);
    nic_assert_not_done(f, VIRTIO_NET_CTRL_ANNOUNCE, VIRTIO_NET_CTRL_ANNOUNCE_ACK, NULL, 0);
}

static void a_command_that_was_not_negotiated_is_refused(void **state)
{
    struct nic_bench *f = *state;
    uint8_t data[8] = {0};

    virtio_driver_start(&f->d, CONTROL);
    nic_assert_not_done(f, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, data, 1);
    nic_assert_not_done(f, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, data, 8);
    nic_assert_not_done(f, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, data, 6);
    nic_assert_not_done(f, VIRTIO_NET_CTRL_VLAN, VIRTIO_NET_CTRL_VLAN_ADD, data, 2);
    nic_assert_not_done(f, VIRTIO_NET_CTRL_GUEST_OFFLOADS, VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET, data,
                        8);
}

static void a_command_without_head_or_answer_breaks_the_ring(void **state)
{
    struct nic_bench *f = *state;
    uint64_t gpa;

    for (unsigned i = 0; i < 3; i++) {
        virtio_driver_start(&f->d, ALL);
        gpa = virtio_machine_alloc(&f->m, 64);
        const struct virtio_buffer kinds[][2] = {
            {{gpa, 2, false}, {0}},
            {{gpa, 1, true}, {0}},
            {{gpa, 1, false}, {gpa + 8, 1, true}},
        };

        virtio_driver_add(&f->d, 2, kinds[i], kinds[i][1].bytes ? 2 : 1);
        virtio_driver_kick(&f->d, 2);
        nic_run(f);
        assert_true(nic_broken(f));
    }
}

static void the_host_is_asked_only_for_what_was_negotiated(void **state)
{
    struct nic_bench *f = *state;
    uint64_t wanted = BIT(VIRTIO_NET_F_GUEST_CSUM) | BIT(VIRTIO_NET_F_GUEST_TSO6);

    virtio_driver_start(&f->d, MERGED);
    assert_false(f->wire.offload.csum || f->wire.offload.tso4 || f->wire.offload.tso6);
    virtio_driver_start(&f->d, ALL);
    assert_true(f->wire.offload.csum && f->wire.offload.tso4 && f->wire.offload.tso6 &&
                f->wire.offload.ecn);
    assert_false(f->wire.offload.ufo);
    nic_assert_done(f, VIRTIO_NET_CTRL_GUEST_OFFLOADS, VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET, &wanted,
                    8);
    assert_true(f->wire.offload.csum && f->wire.offload.tso6 && !f->wire.offload.tso4);
    wanted = BIT(VIRTIO_NET_F_GUEST_UFO);
    nic_assert_not_done(f, VIRTIO_NET_CTRL_GUEST_OFFLOADS, VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET,
                        &wanted, 8);
    f->wire.refuses = true;
    wanted = 0;
    nic_assert_not_done(f, VIRTIO_NET_CTRL_GUEST_OFFLOADS, VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET,
                        &wanted, 8);
    f->wire.refuses = false;
    virtio_driver_reset(&f->d);
    assert_false(f->wire.offload.csum || f->wire.offload.tso6);
}

/* Several pairs */

static void pairs_work_when_the_driver_has_asked_for_them(void **state)
{
    struct nic_bench *f = *state;
    uint8_t packet[HEADER + 60];

    virtio_driver_start(&f->d, ALL);
    assert_int_equal(f->wire.active, 1);
    for (unsigned i = 0; i < PAIRS; i++)
        nic_add_rx(f, 2 * i, 4, 1536);
    for (unsigned i = 0; i < PAIRS; i++) {
        virtio_driver_kick(&f->d, 2 * i);
        nic_fill_packet(packet, sizeof(packet), nic_mac, (uint8_t)i);
        fake_netdev_give(&f->wire, i, packet, sizeof(packet));
        nic_add_tx(f, 2 * i + 1, packet, sizeof(packet));
        virtio_driver_kick(&f->d, 2 * i + 1);
    }
    nic_run(f);
    for (unsigned i = 1; i < PAIRS; i++) {
        assert_false(virtio_driver_take(&f->d, 2 * i, NULL, NULL));
        assert_false(virtio_driver_take(&f->d, 2 * i + 1, NULL, NULL));
    }
    nic_set_pairs(f, PAIRS, VIRTIO_NET_OK);
    assert_int_equal(f->wire.active, PAIRS);
    nic_run(f);
    for (unsigned i = 0; i < PAIRS; i++) {
        nic_fill_packet(packet, sizeof(packet), nic_mac, (uint8_t)i);
        nic_assert_wire(f, i, packet, sizeof(packet));
        assert_int_equal(virtio_driver_interrupts(&f->d, 2 * i + 2), 1);
    }
    nic_set_pairs(f, 2, VIRTIO_NET_OK);
    assert_int_equal(f->wire.active, 2);
    nic_add_tx(f, 5, packet, sizeof(packet));
    virtio_driver_kick(&f->d, 5);
    nic_run(f);
    assert_int_equal(fake_netdev_take(&f->wire, 2, packet, sizeof(packet)), 0);
    virtio_driver_reset(&f->d);
    assert_int_equal(f->wire.active, 1);
}

static void a_number_of_pairs_that_cannot_be_is_refused(void **state)
{
    struct nic_bench *f = *state;

    virtio_driver_start(&f->d, ALL);
    nic_set_pairs(f, 3, VIRTIO_NET_OK);
    nic_set_pairs(f, 0, VIRTIO_NET_ERR);
    nic_set_pairs(f, PAIRS + 1, VIRTIO_NET_ERR);
    nic_set_pairs(f, 0xffff, VIRTIO_NET_ERR);
    f->wire.refuses = true;
    nic_set_pairs(f, 2, VIRTIO_NET_ERR);
    f->wire.refuses = false;
    assert_int_equal(f->wire.active, 3);
}

static void a_driver_of_one_pair_finds_the_control_queue_behind_it(void **state)
{
    struct nic_bench *f = *state;

    virtio_driver_start(&f->d, CONTROL | BIT(VIRTIO_NET_F_CTRL_MAC_ADDR));
    nic_assert_done(f, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, nic_other, 6);
    nic_set_pairs(f, 1, VIRTIO_NET_ERR);
}

/* The link */

static void the_link_of_the_host_is_the_guests(void **state)
{
    struct nic_bench *f = *state;

    virtio_driver_start(&f->d, ALL);
    fake_netdev_set_up(&f->wire, false);
    nic_run(f);
    assert_int_equal(virtio_driver_config_read(&f->d, 6, 2), 0);
    assert_int_equal(nic_news(f), 1);
    fake_netdev_set_up(&f->wire, true);
    nic_run(f);
    assert_int_equal(virtio_driver_config_read(&f->d, 6, 2), VIRTIO_NET_S_LINK_UP);
    assert_int_equal(nic_news(f), 2);
    fake_netdev_set_up(&f->wire, true); /* some other interface has changed */
    nic_run(f);
    assert_int_equal(nic_news(f), 2);
}

static void a_pulled_cable_carries_nothing(void **state)
{
    struct nic_bench *f = *state;

    virtio_driver_start(&f->d, ALL);
    nic_give_rx(f, 8, 1536);
    virtio_net_set_link(f->dev, false);
    assert_int_equal(virtio_driver_config_read(&f->d, 6, 2), 0);
    assert_int_equal(nic_news(f), 1);
    assert_false(nic_hears(f, nic_mac, -1));
    fake_netdev_set_up(&f->wire, true);
    nic_run(f);
    assert_int_equal(virtio_driver_config_read(&f->d, 6, 2), 0);
    virtio_net_set_link(f->dev, true);
    assert_int_equal(virtio_driver_config_read(&f->d, 6, 2), VIRTIO_NET_S_LINK_UP);
    assert_int_equal(nic_news(f), 2);
    assert_true(nic_hears(f, nic_mac, -1));
}

static void a_pulled_cable_stays_pulled_over_a_reset(void **state)
{
    struct nic_bench *f = *state;

    virtio_driver_start(&f->d, ALL);
    virtio_net_set_link(f->dev, false);
    device_reset(f->dev);
    virtio_driver_decode(&f->d);
    virtio_driver_start(&f->d, ALL);
    assert_int_equal(virtio_driver_config_read(&f->d, 6, 2), 0);
    nic_give_rx(f, 8, 1536);
    assert_false(nic_hears(f, nic_mac, -1));
    virtio_net_set_link(f->dev, true);
    assert_int_equal(virtio_driver_config_read(&f->d, 6, 2), VIRTIO_NET_S_LINK_UP);
}

static void an_announcement_is_wanted_until_it_was_made(void **state)
{
    struct nic_bench *f = *state;

    virtio_driver_start(&f->d, ALL);
    virtio_net_announce(f->dev);
    assert_int_equal(virtio_driver_config_read(&f->d, 6, 2),
                     VIRTIO_NET_S_LINK_UP | VIRTIO_NET_S_ANNOUNCE);
    assert_int_equal(nic_news(f), 1);
    nic_assert_done(f, VIRTIO_NET_CTRL_ANNOUNCE, VIRTIO_NET_CTRL_ANNOUNCE_ACK, NULL, 0);
    assert_int_equal(virtio_driver_config_read(&f->d, 6, 2), VIRTIO_NET_S_LINK_UP);
    nic_assert_not_done(f, VIRTIO_NET_CTRL_ANNOUNCE, VIRTIO_NET_CTRL_ANNOUNCE_ACK, NULL, 0);
    virtio_driver_start(&f->d, CONTROL);
    virtio_net_announce(f->dev);
    assert_int_equal(nic_news(f), 1);
}

static void the_host_says_where_a_guest_is_that_has_no_driver(void **state)
{
    uint8_t got[200], zeros[HEADER + 60] = {0};
    struct nic_bench *f = *state;

    virtio_net_send_rarp(f->dev);
    assert_int_equal(fake_netdev_take(&f->wire, 0, got, sizeof(got)), HEADER + 60);
    assert_memory_equal(got, zeros, HEADER);
    assert_memory_equal(got + HEADER, nic_everybody, 6);
    assert_memory_equal(got + HEADER + 6, nic_mac, 6);
    assert_memory_equal(got + HEADER + 12, "\x80\x35\x00\x01\x08\x00\x06\x04\x00\x03", 10);
    assert_memory_equal(got + HEADER + 22, nic_mac, 6);
    assert_memory_equal(got + HEADER + 28, zeros, 4);
    assert_memory_equal(got + HEADER + 32, nic_mac, 6);
    assert_memory_equal(got + HEADER + 38, zeros, 22);
    assert_int_equal(fake_netdev_take(&f->wire, 0, got, sizeof(got)), 0);
}

static void the_host_uses_the_address_that_the_guest_has_now(void **state)
{
    struct nic_bench *f = *state;
    uint8_t got[200];

    virtio_driver_start(&f->d, ALL);
    nic_assert_done(f, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, nic_other, 6);
    virtio_net_send_rarp(f->dev);
    assert_int_equal(fake_netdev_take(&f->wire, 0, got, sizeof(got)), HEADER + 60);
    assert_memory_equal(got + HEADER + 6, nic_other, 6);
    assert_memory_equal(got + HEADER + 32, nic_other, 6);
    assert_int_equal(nic_stats(f).tx_frames, 0); /* the guest's own are counted */

    virtio_net_set_link(f->dev, false);
    virtio_net_send_rarp(f->dev);
    assert_int_equal(fake_netdev_take(&f->wire, 0, got, sizeof(got)), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, nic_setup, nic_teardown)
#define TEST_PAIRS(name) cmocka_unit_test_setup_teardown(name, nic_setup_pairs, nic_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(without_a_command_every_frame_arrives),
        TEST(without_promiscuity_only_ones_own_frames_arrive),
        TEST(allmulti_lets_groups_pass),
        TEST(the_table_lets_its_addresses_pass),
        TEST(a_table_that_is_too_long_lets_all_of_its_kind_pass),
        TEST(a_table_that_lies_about_its_length_changes_nothing),
        TEST(the_guest_may_change_its_address),
        TEST(vlans_pass_when_they_were_added),
        TEST(who_does_not_filter_vlans_hears_them_all),
        TEST(a_reset_forgets_the_filters),
        TEST(a_command_that_does_not_exist_is_refused),
        TEST(a_command_that_was_not_negotiated_is_refused),
        TEST(a_command_without_head_or_answer_breaks_the_ring),
        TEST(the_host_is_asked_only_for_what_was_negotiated),
        TEST_PAIRS(pairs_work_when_the_driver_has_asked_for_them),
        TEST_PAIRS(a_number_of_pairs_that_cannot_be_is_refused),
        TEST_PAIRS(a_driver_of_one_pair_finds_the_control_queue_behind_it),
        TEST(the_link_of_the_host_is_the_guests),
        TEST(a_pulled_cable_carries_nothing),
        TEST(a_pulled_cable_stays_pulled_over_a_reset),
        TEST(an_announcement_is_wanted_until_it_was_made),
        TEST(the_host_says_where_a_guest_is_that_has_no_driver),
        TEST(the_host_uses_the_address_that_the_guest_has_now),
    };

    return cmocka_run_group_tests_name("virtio_net_ctrl", tests, NULL, NULL);
}
