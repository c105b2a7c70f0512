/* SPDX-License-Identifier: Apache-2.0 */
/* virtio_net: rings that the host's kernel serves, and what goes wrong there. */
#include <linux/virtio_config.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

#include "vhost_bench.h"

enum { RX2 = 2, TX2 = 3 }; /* of the second pair */

static void hang_up(struct vnic_bench *b, unsigned pair)
{
    close(b->nic.wire.wire[pair]);
    b->nic.wire.wire[pair] = -1;
}

/* It says that of a pair that was not in use as well, and perhaps too late. */
static void a_wire_that_hangs_up_is_the_kernels_to_see(void **state)
{
    struct vnic_bench *b = *state;
    uint8_t packet[HEADER + 60];

    vnic_start(b, ALL);
    nic_fill_packet(packet, sizeof(packet), nic_other, 1);
    nic_add_tx(&b->nic, TX, packet, sizeof(packet));
    hang_up(b, 0);
    nic_run(&b->nic);
    assert_false(virtio_driver_take(&b->nic.d, TX, NULL, NULL));
    assert_true(vnic_serves(b, 0));
}

/* The second pair, of which the kernel has sent one frame; the next waits for whoever serves it. */
static void begin_second(struct vnic_bench *b, uint8_t *packet, size_t len)
{
    vnic_start(b, ALL);
    nic_set_pairs(&b->nic, 2, VIRTIO_NET_OK);
    nic_fill_packet(packet, len, nic_mac, 1);
    nic_add_tx(&b->nic, TX2, packet, len);
    vnic_run(b);
    nic_assert_wire(&b->nic, 1, packet, len);
    assert_true(virtio_driver_take(&b->nic.d, TX2, NULL, NULL));
    nic_add_tx(&b->nic, TX2, packet, len);
    nic_add_rx(&b->nic, RX2, 1, 1536);
    fake_netdev_give(&b->nic.wire, 1, packet, len);
}

/* We have left alone what waits, and the kernel goes on with it where it stood. */
static void assert_attached_again(struct vnic_bench *b, const uint8_t *packet, size_t len)
{
    const struct fake_vhost_ring *rings = b->kernel[1].rings;

    assert_int_equal(b->nic.wire.active, 2);
    assert_true(vnic_serves(b, 1));
    assert_int_equal(rings[VHOST_RX].starts, 2);
    assert_int_equal(rings[VHOST_RX].as.next, 0);
    assert_int_equal(rings[VHOST_TX].as.next, 1);
    assert_false(virtio_driver_take(&b->nic.d, TX2, NULL, NULL));
    assert_false(virtio_driver_take(&b->nic.d, RX2, NULL, NULL));
    vnic_run(b);
    nic_assert_arrives(&b->nic, RX2, packet, len);
    assert_true(virtio_driver_take(&b->nic.d, TX2, NULL, NULL));
    assert_int_equal(nic_stats(&b->nic).tx_frames + nic_stats(&b->nic).rx_frames, 0);
    assert_false(nic_broken(&b->nic));
}

static void a_pair_that_hung_up_is_the_kernels_when_it_is_attached_again(void **state)
{
    struct vnic_bench *b = *state;
    uint8_t packet[HEADER + 60];

    begin_second(b, packet, sizeof(packet));
    hang_up(b, 1);
    nic_run(&b->nic);
    assert_true(vnic_serves(b, 1));
    nic_set_pairs(&b->nic, 1, VIRTIO_NET_OK);
    assert_false(vnic_serves(b, 1));
    nic_set_pairs(&b->nic, 2, VIRTIO_NET_OK);
    assert_attached_again(b, packet, sizeof(packet));
}

/* The same turn of the loop brings the driver's wish, and then what was true until then. */
static void a_hang_up_that_is_heard_when_the_pair_is_attached_again_is_too_late(void **state)
{
    struct vnic_bench *b = *state;
    const uint16_t pairs = 2;
    const uint8_t *answer;
    uint8_t packet[HEADER + 60];

    begin_second(b, packet, sizeof(packet));
    nic_set_pairs(&b->nic, 1, VIRTIO_NET_OK);
    answer = nic_ask(&b->nic, VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, &pairs, 2);
    hang_up(b, 1);
    nic_run(&b->nic);
    assert_int_equal(*answer, VIRTIO_NET_OK);
    assert_attached_again(b, packet, sizeof(packet));
}

/* A kernel whose tap is gone says so as it does of a ring that makes no sense. */
static void a_tap_that_is_gone_is_no_broken_ring(void **state)
{
    struct vnic_bench *b = *state;
    uint8_t packet[HEADER + 60];

    vnic_start(b, ALL);
    fake_netdev_remove(&b->nic.wire, 0);
    assert_int_equal(eventfd_write(b->kernel[0].rings[VHOST_TX].as.error_fd, 1), 0);
    nic_run(&b->nic);
    assert_false(nic_broken(&b->nic));
    assert_false(vnic_serves(b, 0));
    nic_fill_packet(packet, sizeof(packet), nic_other, 1);
    nic_add_tx(&b->nic, TX, packet, sizeof(packet));
    virtio_driver_kick(&b->nic.d, TX);
    virtio_driver_wait(&b->nic.d, TX, NULL);
}

static void what_the_kernel_took_and_did_not_give_back_is_taken_once_more(void **state)
{
    struct vnic_bench *b = *state;
    struct iovec iov[4];
    struct virtq_chain chain = {.iov = iov, .room = 4};
    uint8_t packet[HEADER + 60];

    vnic_start(b, ALL);
    vnic_pass_both_ways(b, 1);
    nic_fill_packet(packet, sizeof(packet), nic_other, 2);
    nic_add_tx(&b->nic, TX, packet, sizeof(packet));
    assert_int_equal(virtqueue_pop(&b->kernel[0].rings[VHOST_TX].vq, &chain), 1);
    device_pause(b->nic.dev);
    device_resume(b->nic.dev);
    vnic_run(b);
    nic_assert_wire(&b->nic, 0, packet, sizeof(packet));
    assert_true(virtio_driver_take(&b->nic.d, TX, NULL, NULL));
    vnic_pass_both_ways(b, 3);
}

/* A driver may write there what it likes: nothing is taken twice for more than the queue has. */
static void a_used_index_that_the_driver_has_written_is_not_believed(void **state)
{
    struct vnic_bench *b = *state;
    struct fake_vhost_ring *tx = &b->kernel[0].rings[VHOST_TX];
    uint16_t *used, right;

    vnic_start(b, ALL);
    vnic_pass_both_ways(b, 1);
    used = (uint16_t *)tx->as.used + 1;
    right = *used;
    *used = (uint16_t)(right + 1);
    device_pause(b->nic.dev);
    *used = right;
    device_resume(b->nic.dev);
    assert_int_equal(tx->as.next, right);
    vnic_pass_both_ways(b, 2);
}

static void a_ring_that_the_kernel_finds_broken_waits_for_a_reset(void **state)
{
    struct vnic_bench *b = *state;
    const struct virtio_buffer nowhere = {UINT64_C(1) << 40, 100, false};

    vnic_start(b, ALL);
    virtio_driver_add(&b->nic.d, TX, &nowhere, 1);
    virtio_driver_kick(&b->nic.d, TX);
    vnic_run(b);
    assert_true(nic_broken(&b->nic));
    assert_false(vnic_serves(b, 0));
    vnic_start(b, ALL);
    assert_false(nic_broken(&b->nic));
    assert_true(vnic_serves(b, 0));
    vnic_pass_both_ways(b, 1);
}

/* The kernel says so when the driver has already begun anew. */
static void what_is_said_of_an_earlier_ring_does_no_harm(void **state)
{
    struct vnic_bench *b = *state;
    const struct virtio_buffer nowhere = {UINT64_C(1) << 40, 100, false};

    vnic_start(b, ALL);
    virtio_driver_add(&b->nic.d, TX, &nowhere, 1);
    fake_vhost_run(&b->kernel[0]);
    virtio_driver_start(&b->nic.d, ALL);
    nic_give_rx(&b->nic, 64, 1536);
    vnic_run(b);
    assert_false(nic_broken(&b->nic));
    vnic_pass_both_ways(b, 1);
}

static void a_ring_that_the_kernel_does_not_take_waits_for_a_reset(void **state)
{
    struct vnic_bench *b = *state;

    b->kernel[0].refuses = true;
    vnic_begin(&b->nic.d, TX);
    assert_true(nic_broken(&b->nic));
    assert_false(vnic_serves(b, 0));
    b->kernel[0].refuses = false;
    vnic_start(b, ALL);
    assert_false(nic_broken(&b->nic));
    vnic_pass_both_ways(b, 1);
}

static void a_broken_control_queue_stops_the_kernel_too(void **state)
{
    struct vnic_bench *b = *state;
    const struct virtio_buffer no_answer = {virtio_machine_alloc(&b->nic.m, 16), 2, false};

    vnic_start(b, ~BIT(VIRTIO_NET_F_MQ));
    assert_true(vnic_serves(b, 0));
    virtio_driver_add(&b->nic.d, 2, &no_answer, 1);
    virtio_driver_kick(&b->nic.d, 2);
    vnic_run(b);
    assert_true(nic_broken(&b->nic));
    assert_false(vnic_serves(b, 0));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, vnic_setup, vnic_teardown)
#define TEST_PAIRS(name) cmocka_unit_test_setup_teardown(name, vnic_setup_pairs, vnic_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_wire_that_hangs_up_is_the_kernels_to_see),
        TEST_PAIRS(a_pair_that_hung_up_is_the_kernels_when_it_is_attached_again),
        TEST_PAIRS(a_hang_up_that_is_heard_when_the_pair_is_attached_again_is_too_late),
        TEST(a_tap_that_is_gone_is_no_broken_ring),
        TEST(what_the_kernel_took_and_did_not_give_back_is_taken_once_more),
        TEST(a_used_index_that_the_driver_has_written_is_not_believed),
        TEST(a_ring_that_the_kernel_finds_broken_waits_for_a_reset),
        TEST(what_is_said_of_an_earlier_ring_does_no_harm),
        TEST(a_ring_that_the_kernel_does_not_take_waits_for_a_reset),
        TEST(a_broken_control_queue_stops_the_kernel_too),
    };

    return cmocka_run_group_tests_name("virtio_net_vhost_wrong", tests, NULL, NULL);
}
