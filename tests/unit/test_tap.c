/* SPDX-License-Identifier: Apache-2.0 */
/* tap: against the host's own kernel, in a network namespace that dies with this process. */
#include <errno.h>
#include <linux/virtio_net.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "net_lab.h"
#include "vmrun/netdev.h"

#define HEADER NETDEV_HEADER_BYTES

static const uint8_t guest[6] = {0x52, 0x54, 0, 1, 2, 3};
static int try_open(const char *ifname, const char *bridge, unsigned queues, unsigned mtu,
                    struct netdev **ret_netdev, struct error *err)
{
    const struct tap_params params = {
        .ifname = ifname, .bridge = bridge, .queues = queues, .mtu = mtu};

    return tap_open(&params, ret_netdev, err);
}

static struct netdev *must_open(const char *ifname, const char *bridge, unsigned queues,
                                unsigned mtu)
{
    struct netdev *netdev = NULL;
    struct error err;

    if (try_open(ifname, bridge, queues, mtu, &netdev, &err) < 0)
        fail_msg("%s", err.msg);
    return netdev;
}

static void assert_refused(const char *ifname, const char *bridge, unsigned queues, unsigned mtu,
                           int code, const char *words)
{
    struct netdev *netdev = (struct netdev *)&netdev, *untouched = netdev;
    struct error err = {0};

    assert_int_equal(try_open(ifname, bridge, queues, mtu, &netdev, &err), -code);
    assert_int_equal(err.code, code);
    assert_ptr_equal(netdev, untouched);
    if (!strstr(err.msg, words))
        fail_msg("\"%s\" lacks \"%s\"", err.msg, words);
}

static int64_t receive(struct netdev *netdev, unsigned queue, void *data, size_t len)
{
    struct pollfd ready = {.fd = netdev_fd(netdev, queue), .events = POLLIN};
    struct iovec iov = {.iov_base = data, .iov_len = len};

    (void)poll(&ready, 1, 2000);
    return netdev_receive(netdev, queue, &iov, 1);
}

/* Life of the interface */

static void a_tap_that_is_missing_is_made_and_goes_with_us(void **state)
{
    struct netdev *netdev = must_open("made", NULL, 1, 0);

    (void)state;
    assert_true(net_lab_look("made").up);
    assert_true(netdev_link_up(netdev));
    netdev_close(netdev);
    assert_false(net_lab_look("made").there);
}

static void a_tap_made_beforehand_stays(void **state)
{
    (void)state;
    net_lab_add_tap("kept", false, -1);
    netdev_close(must_open("kept", NULL, 1, 0));
    assert_true(net_lab_look("kept").there);
    netdev_close(must_open("kept", NULL, 1, 0));
    net_lab_remove_tap("kept");
}

static void it_says_how_many_queues_a_tap_can_have(void **state)
{
    (void)state;
    assert_int_equal(tap_queues("none-yet", 3), 3);
    net_lab_add_tap("one", false, -1);
    assert_int_equal(tap_queues("one", 3), 1);
    net_lab_remove_tap("one");
    net_lab_add_tap("several", true, -1);
    assert_int_equal(tap_queues("several", 3), 3);
    net_lab_remove_tap("several");
    assert_int_equal(tap_queues("lo", 3), 1);
    assert_int_equal(tap_queues("a-name-that-is-too-long", 3), 1);
}

static void closing_nothing_is_fine(void **state)
{
    (void)state;
    netdev_close(NULL);
}

static void the_mtu_is_set_and_told(void **state)
{
    struct netdev *netdev = must_open("made", NULL, 1, 9000);

    (void)state;
    assert_int_equal(netdev_mtu(netdev), 9000);
    assert_int_equal(net_lab_look("made").mtu, 9000);
    netdev_close(netdev);
    netdev = must_open("made", NULL, 1, 0);
    assert_int_equal(netdev_mtu(netdev), 1500);
    netdev_close(netdev);
}

static void it_joins_the_bridge(void **state)
{
    (void)state;
    net_lab_add_bridge("br0");
    struct netdev *netdev = must_open("made", "br0", 1, 0);
    assert_true(net_lab_is_port("br0", "made"));
    netdev_close(netdev);
}

static void an_ordinary_user_gets_by_with_what_was_prepared(void **state)
{
    (void)state;
    net_lab_add_bridge("br0");
    net_lab_add_tap("ready", true, (int)geteuid());
    net_lab_join("br0", "ready");
    net_lab_up("ready", true);
    net_lab_privilege(false);
    struct netdev *netdev = must_open("ready", "br0", 2, 1500);
    netdev_close(netdev);
    net_lab_privilege(true);
    net_lab_remove_tap("ready");
}

/* Refusals */

static void a_name_that_cannot_be_is_refused(void **state)
{
    static const char *const names[] = {"",   "sixteen-bytes-xx", "a/b", "tap%d", "a b", ".", "..",
                                        "a:b"};

    (void)state;
    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        assert_refused(names[i], NULL, 1, 0, EINVAL, "is no interface's name");
}

static void without_privilege_a_missing_tap_is_explained(void **state)
{
    (void)state;
    net_lab_privilege(false);
    assert_refused("none", NULL, 1, 0, EPERM, "as root: ip tuntap add dev none mode tap user ");
    assert_refused("none", NULL, 2, 0, EPERM, "mode tap multi_queue user ");
    net_lab_privilege(true);
}

static void another_users_tap_is_explained(void **state)
{
    (void)state;
    if (net_lab_has_one_user())
        skip();
    net_lab_add_tap("theirs", false, (int)geteuid() + 1);
    net_lab_privilege(false);
    assert_refused("theirs", NULL, 1, 0, EPERM, "another user's");
    net_lab_privilege(true);
    net_lab_remove_tap("theirs");
}

static void without_privilege_each_missing_step_is_explained(void **state)
{
    (void)state;
    net_lab_add_bridge("br0");
    net_lab_add_bridge("br1");
    net_lab_add_tap("half", false, -1);
    net_lab_privilege(false);
    assert_refused("half", NULL, 1, 0, EPERM, "as root: ip link set half up");
    assert_refused("half", NULL, 1, 9000, EPERM, "as root: ip link set half mtu 9000");
    assert_refused("half", "br0", 1, 0, EPERM, "as root: ip link set half master br0");
    net_lab_privilege(true);
    net_lab_join("br0", "half");
    assert_refused("half", "br1", 1, 0, EBUSY, "another bridge");
    net_lab_remove_tap("half");
}

static void a_bridge_that_is_none_is_refused(void **state)
{
    (void)state;
    assert_refused("made", "nobridge", 1, 0, ENODEV, "there is no bridge nobridge");
    assert_refused("made", "a-name-much-too-long", 1, 0, ENODEV, "there is no bridge");
    assert_refused("made", "lo", 1, 0, ENODEV, "lo is no bridge");
    assert_false(net_lab_look("made").there);
}

static void an_interface_that_is_no_tap_is_refused(void **state)
{
    (void)state;
    assert_refused("lo", NULL, 1, 0, EINVAL, "is no tap");
}

static void a_tap_in_use_is_refused(void **state)
{
    struct netdev *netdev = must_open("made", NULL, 1, 0);

    (void)state;
    assert_refused("made", NULL, 1, 0, EBUSY, "another process");
    netdev_close(netdev);
    /* The kernel would let a second process in to this one. */
    netdev = must_open("made", NULL, 2, 0);
    assert_refused("made", NULL, 2, 0, EBUSY, "another process");
    netdev_close(netdev);
}

static void several_queues_need_a_tap_made_for_them(void **state)
{
    (void)state;
    net_lab_add_tap("single", false, -1);
    assert_refused("single", NULL, 2, 0, EINVAL, "multi_queue");
    net_lab_remove_tap("single");
    net_lab_add_tap("multi", true, -1);
    netdev_close(must_open("multi", NULL, 1, 0));
    net_lab_remove_tap("multi");
}

static void an_mtu_that_cannot_be_is_refused(void **state)
{
    (void)state;
    assert_refused("made", NULL, 1, 66000, EINVAL, "MTU 66000");
}

/* Frames */

static void a_frame_we_send_reaches_the_host(void **state)
{
    struct netdev *netdev = must_open("made", NULL, 1, 0);
    static const uint8_t all[6] = {255, 255, 255, 255, 255, 255};
    uint8_t header[HEADER] = {0}, frame[300], got[2000];
    int peer = net_lab_peer("made", false);
    struct iovec iov[] = {{header, 5}, {header, 7}, {frame, 20}, {frame + 20, 280}};

    (void)state;
    net_lab_frame(frame, sizeof(frame), all, 1);
    assert_int_equal(netdev_send(netdev, 0, iov, 4), HEADER + 300);
    assert_int_equal(net_lab_take(peer, got, sizeof(got), 2000), 300);
    assert_memory_equal(got, frame, 300);
    close(peer);
    netdev_close(netdev);
}

static void a_frame_of_the_host_reaches_us(void **state)
{
    struct netdev *netdev = must_open("made", NULL, 1, 0);
    uint8_t frame[300], got[2000];
    int peer = net_lab_peer("made", false);

    (void)state;
    net_lab_frame(frame, sizeof(frame), guest, 1);
    net_lab_give(peer, frame, sizeof(frame));
    assert_int_equal(receive(netdev, 0, got, sizeof(got)), HEADER + 300);
    assert_memory_equal(got + HEADER, frame, 300);
    assert_int_equal(got[1], VIRTIO_NET_HDR_GSO_NONE);
    close(peer);
    netdev_close(netdev);
}

static void nothing_to_receive_is_eagain(void **state)
{
    struct netdev *netdev = must_open("made", NULL, 1, 0);
    uint8_t got[2000];
    struct iovec iov = {got, sizeof(got)};

    (void)state;
    while (netdev_receive(netdev, 0, &iov, 1) > 0)
        ; /* what the host says by itself when an interface comes up */
    assert_int_equal(netdev_receive(netdev, 0, &iov, 1), -EAGAIN);
    netdev_close(netdev);
}

static void the_host_refuses_a_header_that_lies(void **state)
{
    struct netdev *netdev = must_open("made", NULL, 1, 0);
    uint8_t packet[HEADER + 60] = {0};
    struct virtio_net_hdr_v1 *header = (struct virtio_net_hdr_v1 *)packet;
    struct iovec iov = {packet, sizeof(packet)};

    (void)state;
    net_lab_frame(packet + HEADER, 60, guest, 1);
    header->gso_type = 0x55;
    assert_true(netdev_send(netdev, 0, &iov, 1) < 0);
    header->gso_type = 0;
    iov.iov_len = HEADER + 5;
    assert_true(netdev_send(netdev, 0, &iov, 1) < 0);
    iov.iov_len = HEADER + 60;
    assert_int_equal(netdev_send(netdev, 0, &iov, 1), HEADER + 60);
    netdev_close(netdev);
}

/* A TCP segment of 4 KB as the host's stack makes them for a card that can split. */
static size_t large_segment(uint8_t *packet)
{
    struct virtio_net_hdr header = {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
                                    .gso_type = VIRTIO_NET_HDR_GSO_TCPV4,
                                    .hdr_len = 54,
                                    .gso_size = 1000,
                                    .csum_start = 34,
                                    .csum_offset = 16};
    static const uint8_t ip[] = {0x45, 0, (4040 >> 8), 4040 & 0xff, 0, 1, 0,  0, 64, 6,
                                 0,    0, 10,          0,           0, 1, 10, 0, 0,  2};
    size_t len = sizeof(header) + 14 + 4040;
    uint8_t *at = packet + sizeof(header);

    memset(packet, 0, len);
    memcpy(packet, &header, sizeof(header));
    net_lab_frame(at, 14, guest, 0);
    at[12] = 8, at[13] = 0; /* IPv4 */
    memcpy(at + 14, ip, sizeof(ip));
    at[34 + 12] = 5 << 4; /* TCP header: five words */
    return len;
}

static void large_frames_come_whole_only_to_who_can_split_them(void **state)
{
    static uint8_t packet[8192], got[70000];
    struct netdev *netdev = must_open("made", NULL, 1, 0);
    const struct virtio_net_hdr_v1 *header = (const struct virtio_net_hdr_v1 *)got;
    int peer = net_lab_peer("made", true);
    size_t len = large_segment(packet);
    unsigned pieces = 0;
    struct error err;
    int64_t n;

    (void)state;
    net_lab_give(peer, packet, len);
    while (pieces < 4 && (n = receive(netdev, 0, got, sizeof(got))) > 0) {
        if (got[HEADER + 12] != 8)
            continue; /* the host's own, of another type */
        assert_int_equal(header->gso_type, VIRTIO_NET_HDR_GSO_NONE);
        assert_int_equal(header->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM, 0);
        assert_int_equal(n, HEADER + 1054);
        pieces++;
    }
    assert_int_equal(pieces, 4);

    assert_int_equal(
        netdev_set_offload(netdev, &(struct netdev_offload){.csum = true, .tso4 = true}, &err), 0);
    net_lab_give(peer, packet, len);
    do
        n = receive(netdev, 0, got, sizeof(got));
    while (n > 0 && got[HEADER + 12] != 8);
    assert_int_equal(n, HEADER + 4054);
    assert_int_equal(header->gso_type, VIRTIO_NET_HDR_GSO_TCPV4);
    assert_int_equal(header->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_F_NEEDS_CSUM);
    close(peer);
    netdev_close(netdev);
}

static void every_offload_can_be_switched(void **state)
{
    struct netdev *netdev = must_open("made", NULL, 1, 0);
    struct error err;

    (void)state;
    for (unsigned bits = 0; bits < 32; bits++) {
        const struct netdev_offload offload = {.csum = bits & 1,
                                               .tso4 = bits & 2,
                                               .tso6 = bits & 4,
                                               .ecn = bits & 8,
                                               .ufo = bits & 16};

        if (netdev_set_offload(netdev, &offload, &err) < 0)
            fail_msg("%u: %s", bits, err.msg);
    }
    netdev_close(netdev);
}

/* Link and queues */

static void the_link_follows_the_interface(void **state)
{
    struct netdev *netdev = must_open("made", NULL, 1, 0);
    struct pollfd news = {.fd = netdev_link_fd(netdev), .events = POLLIN};
    uint8_t packet[HEADER + 60] = {0};
    struct iovec iov = {packet, sizeof(packet)};

    (void)state;
    netdev_link_drain(netdev);
    assert_int_equal(poll(&news, 1, 0), 0);
    net_lab_up("made", false);
    assert_int_equal(poll(&news, 1, 2000), 1);
    netdev_link_drain(netdev);
    assert_int_equal(poll(&news, 1, 0), 0);
    assert_false(netdev_link_up(netdev));
    assert_int_equal(netdev_send(netdev, 0, &iov, 1), -EIO);
    net_lab_up("made", true);
    assert_int_equal(poll(&news, 1, 2000), 1);
    assert_true(netdev_link_up(netdev));
    netdev_close(netdev);
}

/* A UDP packet of this flow, as IPv4: what a host steers by. */
static void give_flow(int peer, uint8_t flow)
{
    static const uint8_t ip[] = {0x45, 0, 0,  46, 0, 1, 0,  0, 64, 17,
                                 0,    0, 10, 0,  0, 1, 10, 0, 0,  2};
    uint8_t packet[10 + 60] = {0}, *frame = packet + 10;

    net_lab_frame(frame, 14, guest, 0);
    frame[12] = 8, frame[13] = 0;
    memcpy(frame + 14, ip, sizeof(ip));
    frame[35] = flow; /* the source port */
    frame[37] = 53;
    frame[39] = 26;
    net_lab_give(peer, packet, sizeof(packet));
}

/* Frames of flows that wait on this pair. */
static unsigned count_flows(struct netdev *netdev, unsigned queue)
{
    uint8_t got[2000];
    struct iovec iov = {got, sizeof(got)};
    unsigned count = 0;
    int64_t n;

    while ((n = netdev_receive(netdev, queue, &iov, 1)) > 0)
        count += n == HEADER + 60 && got[HEADER + 12] == 8;
    return count;
}

static void only_the_pairs_in_use_see_frames(void **state)
{
    struct netdev *netdev = must_open("made", NULL, 4, 0);
    int peer = net_lab_peer("made", true);
    struct error err;

    (void)state;
    for (unsigned step = 0; step < 8; step++) {
        unsigned active = step < 4 ? step + 1 : 8 - step, seen = 0, spread = 0;

        assert_int_equal(netdev_set_queues(netdev, active, &err), 0);
        for (unsigned flow = 1; flow <= 64; flow++)
            give_flow(peer, (uint8_t)flow);
        for (unsigned i = 0; i < 4; i++) {
            unsigned n = count_flows(netdev, i);

            assert_true(i < active || n == 0);
            seen += n;
            spread += n > 0;
        }
        assert_int_equal(seen, 64);
        assert_int_equal(spread > 1, active > 1);
    }
    close(peer);
    netdev_close(netdev);
    assert_false(net_lab_look("made").there);
}

static void at_first_one_pair_is_in_use(void **state)
{
    struct netdev *netdev = must_open("made", NULL, 2, 0);
    int peer = net_lab_peer("made", true);

    (void)state;
    for (unsigned flow = 1; flow <= 64; flow++)
        give_flow(peer, (uint8_t)flow);
    assert_int_equal(count_flows(netdev, 0), 64);
    close(peer);
    netdev_close(netdev);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_tap_that_is_missing_is_made_and_goes_with_us),
        cmocka_unit_test(a_tap_made_beforehand_stays),
        cmocka_unit_test(it_says_how_many_queues_a_tap_can_have),
        cmocka_unit_test(closing_nothing_is_fine),
        cmocka_unit_test(the_mtu_is_set_and_told),
        cmocka_unit_test(it_joins_the_bridge),
        cmocka_unit_test(an_ordinary_user_gets_by_with_what_was_prepared),
        cmocka_unit_test(a_name_that_cannot_be_is_refused),
        cmocka_unit_test(without_privilege_a_missing_tap_is_explained),
        cmocka_unit_test(another_users_tap_is_explained),
        cmocka_unit_test(without_privilege_each_missing_step_is_explained),
        cmocka_unit_test(a_bridge_that_is_none_is_refused),
        cmocka_unit_test(an_interface_that_is_no_tap_is_refused),
        cmocka_unit_test(a_tap_in_use_is_refused),
        cmocka_unit_test(several_queues_need_a_tap_made_for_them),
        cmocka_unit_test(an_mtu_that_cannot_be_is_refused),
        cmocka_unit_test(a_frame_we_send_reaches_the_host),
        cmocka_unit_test(a_frame_of_the_host_reaches_us),
        cmocka_unit_test(nothing_to_receive_is_eagain),
        cmocka_unit_test(the_host_refuses_a_header_that_lies),
        cmocka_unit_test(large_frames_come_whole_only_to_who_can_split_them),
        cmocka_unit_test(every_offload_can_be_switched),
        cmocka_unit_test(the_link_follows_the_interface),
        cmocka_unit_test(only_the_pairs_in_use_see_frames),
        cmocka_unit_test(at_first_one_pair_is_in_use),
    };

    const char *why_not = net_lab_enter();
    if (why_not) {
        print_message("skipped: %s\n", why_not);
        return 0;
    }
    return cmocka_run_group_tests_name("tap", tests, NULL, NULL);
}
