/* SPDX-License-Identifier: Apache-2.0 */
/* virtio_net over a real tap, on a thread of its own, in a network namespace of this process. */
#include <linux/virtio_net.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "net_lab.h"
#include "nic_bench.h"

#define IPV4 0x08

struct bench {
    struct nic_bench nic;
    struct netdev *tap;
    struct iothread *thread;
};

static int setup(void **state)
{
    static struct bench b;
    const struct tap_params params = {.ifname = "tap0", .queues = 2};
    struct error err = {.msg = ""};

    virtio_machine_init(&b.nic.m, NULL);
    tap_open(&params, &b.tap, &err);
    assert_string_equal(err.msg, "");
    iothread_create("net net0", &b.thread, &err);
    nic_create(&b.nic.m, b.tap, 2, b.thread, &b.nic.dev, &err);
    assert_string_equal(err.msg, "");
    virtio_driver_init(&b.nic.d, &b.nic.m, b.nic.dev);
    *state = &b;
    return 0;
}

static int teardown(void **state)
{
    struct bench *b = *state;

    device_destroy(b->nic.dev);
    iothread_destroy(b->thread);
    netdev_close(b->tap);
    virtio_machine_fini(&b->nic.m);
    return 0;
}

/* The next frame of this type from the host, which says more than what it is asked. */
static size_t wait_rx(struct bench *b, uint8_t *packet, uint8_t type)
{
    for (unsigned i = 0; i < 20000; i++) {
        size_t len = nic_take_rx(&b->nic, RX, packet);

        if (len && packet[HEADER + 12] == type)
            return len;
        usleep(100);
    }
    fail_msg("no frame came");
    return 0;
}

static void frames_go_both_ways(void **state)
{
    struct bench *b = *state;
    uint8_t packet[HEADER + 300] = {0}, got[4096];
    int peer = net_lab_peer("tap0", false);

    virtio_driver_start(&b->nic.d, ALL);
    nic_add_rx(&b->nic, RX, 200, 1536);
    virtio_driver_kick(&b->nic.d, RX);
    for (unsigned i = 0; i < 100; i++) {
        net_lab_frame(packet + HEADER, 300, nic_everybody, (uint8_t)i);
        nic_add_tx(&b->nic, TX, packet, sizeof(packet));
        virtio_driver_kick(&b->nic.d, TX);
        assert_int_equal(net_lab_take(peer, got, sizeof(got), 2000), 300);
        assert_memory_equal(got, packet + HEADER, 300);
        virtio_driver_wait(&b->nic.d, TX, NULL);

        net_lab_frame(packet + HEADER, 300, nic_mac, (uint8_t)i);
        net_lab_give(peer, packet + HEADER, 300);
        assert_int_equal(wait_rx(b, got, NET_LAB_TYPE >> 8), sizeof(packet));
        assert_memory_equal(got + HEADER, packet + HEADER, 300);
    }
    assert_int_equal(nic_stats(&b->nic).tx_frames, 100);
    assert_int_equal(nic_stats(&b->nic).rx_dropped, 0);
    close(peer);
}

static void the_hosts_word_for_the_guest_reaches_a_bridge(void **state)
{
    struct bench *b = *state;
    uint8_t got[200];
    int peer;

    net_lab_add_bridge("br7");
    net_lab_up("br7", true);
    net_lab_join("br7", "tap0");
    peer = net_lab_listen("br7", 0x8035);
    /* The bridge takes a moment until it forwards: nobody may hear the first ones. */
    for (unsigned i = 0; i < 40; i++) {
        virtio_net_send_rarp(b->nic.dev);
        size_t len = net_lab_take(peer, got, sizeof(got), 500);

        if (len) {
            assert_int_equal(len, 60);
            assert_memory_equal(got + 6, nic_mac, 6);
            close(peer);
            return;
        }
    }
    fail_msg("no frame came");
}

static void a_large_segment_arrives_whole_in_many_buffers(void **state)
{
    static uint8_t packet[10 + 14 + 60000], got[70000];
    static const struct virtio_net_hdr header = {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
                                                 .gso_type = VIRTIO_NET_HDR_GSO_TCPV4,
                                                 .hdr_len = 54,
                                                 .gso_size = 1400,
                                                 .csum_start = 34,
                                                 .csum_offset = 16};
    struct bench *b = *state;
    int peer = net_lab_peer("tap0", true);
    uint8_t *ip = packet + 10 + 14;

    for (size_t i = 0; i < sizeof(packet); i++)
        packet[i] = (uint8_t)(i * 11);
    memcpy(packet, &header, sizeof(header));
    net_lab_frame(packet + 10, 14, nic_mac, 0);
    packet[10 + 12] = IPV4, packet[10 + 13] = 0;
    ip[0] = 0x45, ip[2] = 60000 >> 8, ip[3] = 60000 & 0xff, ip[6] = ip[7] = 0, ip[9] = 6;
    ip[20 + 12] = 5 << 4;

    virtio_driver_start(&b->nic.d, ALL);
    nic_add_rx(&b->nic, RX, 200, 1536);
    virtio_driver_kick(&b->nic.d, RX);
    net_lab_give(peer, packet, sizeof(packet));
    assert_int_equal(wait_rx(b, got, IPV4), HEADER + 14 + 60000);
    assert_memory_equal(got, packet, 4);
    assert_memory_equal(got + HEADER + 54, packet + 10 + 54, 60014 - 54);

    /* To a guest that cannot take it whole it comes in pieces. */
    virtio_driver_start(&b->nic.d, MERGED);
    nic_add_rx(&b->nic, RX, 200, 1536);
    virtio_driver_kick(&b->nic.d, RX);
    net_lab_give(peer, packet, sizeof(packet));
    for (size_t left = 60000 - 40; left;) {
        size_t len = wait_rx(b, got, IPV4);

        assert_int_equal(got[0] | got[1], 0);
        assert_in_range(len, HEADER + 54 + 1, HEADER + 54 + 1400);
        left -= len - HEADER - 54;
    }
    close(peer);
}

static void the_link_goes_down_and_up_with_the_interface(void **state)
{
    struct bench *b = *state;

    virtio_driver_start(&b->nic.d, ALL);
    for (unsigned i = 0; i < 6; i++) {
        net_lab_up("tap0", i % 2);
        for (unsigned j = 0; nic_news(&b->nic) == i; j++) {
            assert_true(j < 20000);
            usleep(100);
        }
        assert_int_equal(virtio_driver_config_read(&b->nic.d, 6, 2),
                         i % 2 ? VIRTIO_NET_S_LINK_UP : 0);
    }
}

static void an_interface_that_is_deleted_takes_the_link_down(void **state)
{
    struct bench *b = *state;
    uint8_t packet[HEADER + 60] = {0};

    virtio_driver_start(&b->nic.d, ALL);
    nic_add_rx(&b->nic, RX, 10, 1536);
    virtio_driver_kick(&b->nic.d, RX);
    net_lab_delete("tap0");
    for (unsigned j = 0; nic_news(&b->nic) == 0; j++) {
        assert_true(j < 20000);
        usleep(100);
    }
    net_lab_frame(packet + HEADER, 60, nic_everybody, 1);
    for (unsigned i = 0; i < 3; i++) {
        nic_add_tx(&b->nic, TX, packet, sizeof(packet));
        virtio_driver_kick(&b->nic.d, TX);
        virtio_driver_wait(&b->nic.d, TX, NULL);
    }
    assert_int_equal(nic_stats(&b->nic).tx_dropped, 3);
    assert_int_equal(virtio_driver_config_read(&b->nic.d, 6, 2), 0);
    assert_false(nic_broken(&b->nic));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(frames_go_both_ways),
        TEST(the_hosts_word_for_the_guest_reaches_a_bridge),
        TEST(a_large_segment_arrives_whole_in_many_buffers),
        TEST(the_link_goes_down_and_up_with_the_interface),
        TEST(an_interface_that_is_deleted_takes_the_link_down),
    };

    const char *why_not = net_lab_enter();
    if (why_not) {
        print_message("skipped: %s\n", why_not);
        return 0;
    }
    return cmocka_run_group_tests_name("virtio_net_tap", tests, NULL, NULL);
}
