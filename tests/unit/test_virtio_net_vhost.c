/* SPDX-License-Identifier: Apache-2.0 */
/* virtio_net: rings that the host's kernel serves, here a fake one; who serves them when. */
#include <linux/pci_regs.h>
#include <linux/virtio_config.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

#include "vhost_bench.h"

/* Who serves */

static void the_kernel_gets_both_rings_when_the_driver_is_ready(void **state)
{
    struct vnic_bench *b = *state;
    const struct fake_vhost_ring *tx = &b->kernel[0].rings[VHOST_TX];

    assert_false(vnic_serves(b, 0));
    vnic_start(b, ALL);
    assert_true(vnic_serves(b, 0));
    assert_int_equal(b->kernel[0].features, b->nic.d.features);
    assert_int_equal(tx->as.size, 256);
    assert_int_equal(tx->as.next, 0);
    assert_int_equal(tx->as.tap_fd, b->nic.wire.device[0]);
    vnic_pass_both_ways(b, 1);
    virtio_driver_reset(&b->nic.d);
    assert_false(vnic_serves(b, 0));
}

static void we_serve_a_driver_that_vhost_would_not_keep_to(void **state)
{
    struct vnic_bench *b = *state;

    for (unsigned i = 0; i < 2; i++) {
        vnic_start(b, ~BIT(i ? VIRTIO_NET_F_MRG_RXBUF : VIRTIO_NET_F_GUEST_CSUM));
        assert_false(vnic_serves(b, 0));
        vnic_pass_both_ways(b, 2);
    }
}

static void offloads_that_change_change_who_serves(void **state)
{
    struct vnic_bench *b = *state;
    uint64_t none = 0, csum = BIT(VIRTIO_NET_F_GUEST_CSUM);

    vnic_start(b, ALL);
    nic_assert_done(&b->nic, VIRTIO_NET_CTRL_GUEST_OFFLOADS, VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET,
                    &none, 8);
    assert_false(vnic_serves(b, 0));
    vnic_pass_both_ways(b, 1);
    nic_assert_done(&b->nic, VIRTIO_NET_CTRL_GUEST_OFFLOADS, VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET,
                    &csum, 8);
    assert_true(vnic_serves(b, 0));
    vnic_pass_both_ways(b, 2);
}

static void with_the_cable_pulled_we_drop_what_is_sent(void **state)
{
    struct vnic_bench *b = *state;
    uint8_t packet[HEADER + 60], got[100];

    vnic_start(b, ALL);
    vnic_pass_both_ways(b, 1);
    virtio_net_set_link(b->nic.dev, false);
    assert_false(vnic_serves(b, 0));
    nic_fill_packet(packet, sizeof(packet), nic_other, 2);
    nic_add_tx(&b->nic, TX, packet, sizeof(packet));
    fake_netdev_give(&b->nic.wire, 0, packet, sizeof(packet));
    virtio_driver_kick(&b->nic.d, TX);
    vnic_run(b);
    assert_int_equal(fake_netdev_take(&b->nic.wire, 0, got, sizeof(got)), 0);
    assert_true(virtio_driver_take(&b->nic.d, TX, NULL, NULL));
    assert_false(virtio_driver_take(&b->nic.d, RX, NULL, NULL));
    virtio_net_set_link(b->nic.dev, true);
    assert_true(vnic_serves(b, 0));
    vnic_pass_both_ways(b, 3);
}

static void with_the_interface_down_we_drop_what_is_sent(void **state)
{
    struct vnic_bench *b = *state;
    uint8_t packet[HEADER + 60];

    vnic_start(b, ALL);
    fake_netdev_set_up(&b->nic.wire, false);
    vnic_run(b);
    assert_false(vnic_serves(b, 0));
    nic_fill_packet(packet, sizeof(packet), nic_other, 1);
    nic_add_tx(&b->nic, TX, packet, sizeof(packet));
    virtio_driver_kick(&b->nic.d, TX);
    vnic_run(b);
    assert_true(virtio_driver_take(&b->nic.d, TX, NULL, NULL));
    fake_netdev_set_up(&b->nic.wire, true);
    vnic_run(b);
    assert_true(vnic_serves(b, 0));
    vnic_pass_both_ways(b, 2);
}

static void an_interface_that_went_down_meanwhile_is_seen_when_it_goes_on(void **state)
{
    struct vnic_bench *b = *state;

    vnic_start(b, ALL);
    device_pause(b->nic.dev);
    b->nic.wire.up = false;
    device_resume(b->nic.dev);
    assert_false(vnic_serves(b, 0));
    assert_int_equal(b->kernel[0].rings[VHOST_TX].starts, 1);
}

static void only_pairs_in_use_are_the_kernels(void **state)
{
    struct vnic_bench *b = *state;

    vnic_start(b, ALL);
    assert_true(vnic_serves(b, 0) && !vnic_serves(b, 1));
    nic_set_pairs(&b->nic, 3, VIRTIO_NET_OK);
    assert_true(vnic_serves(b, 1) && vnic_serves(b, 2) && !vnic_serves(b, 3));
    assert_int_equal(b->kernel[2].rings[VHOST_RX].as.tap_fd, b->nic.wire.device[2]);
    nic_set_pairs(&b->nic, 2, VIRTIO_NET_OK);
    assert_true(vnic_serves(b, 1) && !vnic_serves(b, 2));
    b->nic.wire.refuses = true;
    nic_set_pairs(&b->nic, 1, VIRTIO_NET_ERR);
    assert_true(vnic_serves(b, 1));
    vnic_pass_both_ways(b, 1);
}

static void a_queue_that_is_not_set_up_is_nobodys(void **state)
{
    struct vnic_bench *b = *state;
    struct virtio_driver *d = &b->nic.d;

    vnic_begin(d, TX);
    assert_true(b->kernel[0].rings[VHOST_TX].on);
    assert_false(b->kernel[0].rings[VHOST_RX].on);
    vnic_send(b, 1);
}

/* Interrupts */

static void mask(struct vnic_bench *b, unsigned vector, bool masked)
{
    virtio_driver_write(&b->nic.d,
                        b->nic.d.msix_table + (uint64_t)vector * PCI_MSIX_ENTRY_SIZE +
                            PCI_MSIX_ENTRY_VECTOR_CTRL,
                        4, masked);
}

static void the_kernel_interrupts_by_itself(void **state)
{
    struct vnic_bench *b = *state;
    uint8_t packet[HEADER + 60];
    unsigned before;

    vnic_start(b, ALL);
    before = virtio_driver_interrupts(&b->nic.d, RX + 1);
    nic_fill_packet(packet, sizeof(packet), nic_mac, 1);
    fake_netdev_give(&b->nic.wire, 0, packet, sizeof(packet));
    fake_vhost_run(&b->kernel[0]); /* and nothing of ours runs */
    assert_int_equal(virtio_driver_interrupts(&b->nic.d, RX + 1), before + 1);
}

static void a_masked_interrupt_waits(void **state)
{
    struct vnic_bench *b = *state;
    unsigned before;

    vnic_start(b, ALL);
    before = virtio_driver_interrupts(&b->nic.d, RX + 1);
    mask(b, RX + 1, true);
    vnic_receive(b, 1);
    assert_int_equal(virtio_driver_interrupts(&b->nic.d, RX + 1), before);
    mask(b, RX + 1, false);
    assert_int_equal(virtio_driver_interrupts(&b->nic.d, RX + 1), before + 1);
    vnic_receive(b, 2);
    assert_int_equal(virtio_driver_interrupts(&b->nic.d, RX + 1), before + 2);
}

static void without_msix_the_line_rises(void **state)
{
    struct vnic_bench *b = *state;

    virtio_driver_start_intx(&b->nic.d, ALL);
    nic_give_rx(&b->nic, 64, 1536);
    (void)virtio_driver_read(&b->nic.d, b->nic.d.isr, 1);
    vnic_receive(b, 1);
    assert_int_equal(virtio_driver_read(&b->nic.d, b->nic.d.isr, 1), 1);
    assert_int_equal(virtio_driver_read(&b->nic.d, b->nic.d.isr, 1), 0);
}

/* Standing still, and moving */

static void a_pause_takes_the_rings_back_and_goes_on_where_they_stood(void **state)
{
    struct vnic_bench *b = *state;
    uint8_t packet[HEADER + 60];

    vnic_start(b, ALL);
    for (uint8_t i = 0; i < 5; i++)
        vnic_pass_both_ways(b, i);
    device_pause(b->nic.dev);
    assert_false(vnic_serves(b, 0));
    nic_fill_packet(packet, sizeof(packet), nic_mac, 9);
    fake_netdev_give(&b->nic.wire, 0, packet, sizeof(packet));
    vnic_run(b);
    assert_false(virtio_driver_take(&b->nic.d, RX, NULL, NULL));
    device_resume(b->nic.dev);
    assert_true(vnic_serves(b, 0));
    assert_int_equal(b->kernel[0].rings[VHOST_TX].as.next, 5);
    vnic_run(b);
    nic_assert_arrives(&b->nic, RX, packet, sizeof(packet));
    vnic_pass_both_ways(b, 10);
}

/* What the kernel had not told the driver of yet, nobody else knows. */
static void after_a_pause_the_driver_is_told_once_more(void **state)
{
    struct vnic_bench *b = *state;
    uint8_t packet[HEADER + 60];
    int lost = eventfd(0, EFD_CLOEXEC);
    unsigned before;

    vnic_start(b, ALL);
    before = virtio_driver_interrupts(&b->nic.d, RX + 1);
    b->kernel[0].rings[VHOST_RX].as.call_fd = lost;
    nic_fill_packet(packet, sizeof(packet), nic_mac, 1);
    fake_netdev_give(&b->nic.wire, 0, packet, sizeof(packet));
    vnic_run(b);
    device_pause(b->nic.dev);
    assert_int_equal(virtio_driver_interrupts(&b->nic.d, RX + 1), before);
    device_resume(b->nic.dev);
    assert_int_equal(virtio_driver_interrupts(&b->nic.d, RX + 1), before + 1);
    nic_assert_arrives(&b->nic, RX, packet, sizeof(packet));
    close(lost);
}

static void move(struct vnic_bench *b, bool vhost)
{
    struct writer saved = {0};

    nic_leave(&b->nic, &saved);
    vnic_create(b, vhost);
    nic_arrive(&b->nic, &saved);
    assert_false(vnic_serves(b, 0)); /* not before it runs */
    device_resume(b->nic.dev);
    assert_int_equal(vnic_serves(b, 0), vhost);
    vnic_run(b);
}

static void it_moves_between_hosts_with_vhost_and_without(void **state)
{
    static const bool ways[] = {true, false, false, true, true};
    struct vnic_bench *b = *state;

    vnic_start(b, ALL);
    for (uint8_t i = 0; i < 5; i++) {
        vnic_pass_both_ways(b, i);
        move(b, ways[i]);
        vnic_pass_both_ways(b, (uint8_t)(i + 100));
    }
}

static void a_state_that_is_loaded_over_a_running_card_is_what_counts(void **state)
{
    struct vnic_bench *b = *state;
    const struct state_desc *desc = b->nic.dev->ops->state;
    struct writer w = {0};
    struct error err = {.msg = ""};

    vnic_start(b, ALL);
    device_pause(b->nic.dev);
    state_save(desc, b->nic.dev, &w, &err);
    device_resume(b->nic.dev);
    vnic_run(b);
    assert_true(vnic_serves(b, 0));
    struct reader r = {.data = w.data, .len = w.len};
    state_load(desc, b->nic.dev, &r, &err);
    assert_string_equal(err.msg, "");
    free(w.data);
    vnic_pass_both_ways(b, 1);
}

static void the_log_reaches_each_pair_also_of_a_driver_that_comes_later(void **state)
{
    struct vnic_bench *b = *state;
    struct error err = {.msg = ""};

    assert_int_equal(virtio_net_log(b->nic.dev, true, &err), 0);
    vnic_start(b, ALL);
    for (unsigned i = 0; i < PAIRS; i++)
        assert_true(b->kernel[i].log);
    assert_int_equal(virtio_net_log(b->nic.dev, false, &err), 0);
    for (unsigned i = 0; i < PAIRS; i++)
        assert_false(b->kernel[i].log);
    vnic_pass_both_ways(b, 1);
}

/* Counters */

static void look(void *opaque, const char *queue, const char *name, uint64_t value)
{
    unsigned *seen = opaque;

    (void)value;
    assert_string_equal(queue, "ctrl");
    *seen += strcmp(name, "requests") == 0;
}

static void what_nobody_counts_is_absent(void **state)
{
    struct vnic_bench *b = *state;
    unsigned seen = 0;

    vnic_start(b, ALL);
    vnic_pass_both_ways(b, 1);
    assert_false(virtio_net_is_counted(b->nic.dev));
    virtio_stats(b->nic.dev, look, &seen);
    assert_int_equal(seen, 1);
    assert_int_equal(nic_stats(&b->nic).vhost_starts, 2);
    assert_int_equal(nic_stats(&b->nic).vhost_stops, 0);
    device_pause(b->nic.dev);
    assert_int_equal(nic_stats(&b->nic).vhost_stops, 2);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, vnic_setup, vnic_teardown)
#define TEST_PAIRS(name) cmocka_unit_test_setup_teardown(name, vnic_setup_pairs, vnic_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_kernel_gets_both_rings_when_the_driver_is_ready),
        TEST(we_serve_a_driver_that_vhost_would_not_keep_to),
        TEST(offloads_that_change_change_who_serves),
        TEST(with_the_cable_pulled_we_drop_what_is_sent),
        TEST(with_the_interface_down_we_drop_what_is_sent),
        TEST(an_interface_that_went_down_meanwhile_is_seen_when_it_goes_on),
        TEST_PAIRS(only_pairs_in_use_are_the_kernels),
        TEST(a_queue_that_is_not_set_up_is_nobodys),
        TEST(the_kernel_interrupts_by_itself),
        TEST(a_masked_interrupt_waits),
        TEST(without_msix_the_line_rises),
        TEST(a_pause_takes_the_rings_back_and_goes_on_where_they_stood),
        TEST(after_a_pause_the_driver_is_told_once_more),
        TEST(it_moves_between_hosts_with_vhost_and_without),
        TEST(a_state_that_is_loaded_over_a_running_card_is_what_counts),
        TEST_PAIRS(the_log_reaches_each_pair_also_of_a_driver_that_comes_later),
        TEST(what_nobody_counts_is_absent),
    };

    return cmocka_run_group_tests_name("virtio_net_vhost", tests, NULL, NULL);
}
