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

#include "fake_vhost.h"
#include "nic_bench.h"

struct bench {
    struct nic_bench nic;
    struct fake_vhost kernel[PAIRS];
    struct vhost *vhosts[PAIRS];
    unsigned pairs;
};

static void create(struct bench *b, bool vhost)
{
    struct nic_bench *f = &b->nic;
    struct error err = {.msg = ""};

    for (unsigned i = 0; i < b->pairs; i++)
        b->vhosts[i] = fake_vhost_init(&b->kernel[i], f->m.memory, NULL);
    nic_create_vhost(&f->m, fake_netdev_init(&f->wire, b->pairs), b->pairs,
                     vhost ? b->vhosts : NULL, &f->dev, &err);
    assert_string_equal(err.msg, "");
}

static int build(void **state, unsigned pairs)
{
    static struct bench b;

    b.pairs = pairs;
    virtio_machine_init(&b.nic.m, NULL);
    create(&b, true);
    virtio_driver_init(&b.nic.d, &b.nic.m, b.nic.dev);
    *state = &b;
    return 0;
}

static int setup(void **state)
{
    return build(state, 1);
}

static int setup_pairs(void **state)
{
    return build(state, PAIRS);
}

static int teardown(void **state)
{
    struct bench *b = *state;

    device_destroy(b->nic.dev);
    for (unsigned i = 0; i < b->pairs; i++)
        for (unsigned k = 0; k < VHOST_RINGS; k++)
            assert_false(b->kernel[i].rings[k].on);
    fake_netdev_fini(&b->nic.wire);
    virtio_machine_fini(&b->nic.m);
    return 0;
}

static bool serves(const struct bench *b, unsigned pair)
{
    const struct fake_vhost_ring *rings = b->kernel[pair].rings;

    assert_int_equal(rings[VHOST_RX].on, rings[VHOST_TX].on);
    return rings[VHOST_RX].on;
}

static void run(struct bench *b)
{
    nic_run(&b->nic);
    for (unsigned i = 0; i < b->pairs; i++)
        fake_vhost_run(&b->kernel[i]);
    nic_run(&b->nic);
}

static void send(struct bench *b, uint8_t seed)
{
    uint8_t packet[HEADER + 60];

    nic_fill_packet(packet, sizeof(packet), nic_other, seed);
    nic_add_tx(&b->nic, TX, packet, sizeof(packet));
    virtio_driver_kick(&b->nic.d, TX);
    run(b);
    nic_assert_wire(&b->nic, 0, packet, sizeof(packet));
    assert_true(virtio_driver_take(&b->nic.d, TX, NULL, NULL));
}

static void receive(struct bench *b, uint8_t seed)
{
    uint8_t packet[HEADER + 60];

    nic_fill_packet(packet, sizeof(packet), nic_mac, seed);
    fake_netdev_give(&b->nic.wire, 0, packet, sizeof(packet));
    run(b);
    nic_assert_arrives(&b->nic, RX, packet, sizeof(packet));
}

static void pass_both_ways(struct bench *b, uint8_t seed)
{
    send(b, seed);
    receive(b, seed);
}

static void start(struct bench *b, uint64_t features)
{
    virtio_driver_start(&b->nic.d, features);
    nic_give_rx(&b->nic, 64, 1536);
}

/* Who serves */

static void the_kernel_gets_both_rings_when_the_driver_is_ready(void **state)
{
    struct bench *b = *state;
    const struct fake_vhost_ring *tx = &b->kernel[0].rings[VHOST_TX];

    assert_false(serves(b, 0));
    start(b, ALL);
    assert_true(serves(b, 0));
    assert_int_equal(b->kernel[0].features, b->nic.d.features);
    assert_int_equal(tx->as.size, 256);
    assert_int_equal(tx->as.next, 0);
    assert_int_equal(tx->as.tap_fd, b->nic.wire.device[0]);
    pass_both_ways(b, 1);
    virtio_driver_reset(&b->nic.d);
    assert_false(serves(b, 0));
}

static void we_serve_a_driver_that_vhost_would_not_keep_to(void **state)
{
    struct bench *b = *state;

    for (unsigned i = 0; i < 2; i++) {
        start(b, ~BIT(i ? VIRTIO_NET_F_MRG_RXBUF : VIRTIO_NET_F_GUEST_CSUM));
        assert_false(serves(b, 0));
        pass_both_ways(b, 2);
    }
}

static void offloads_that_change_change_who_serves(void **state)
{
    struct bench *b = *state;
    uint64_t none = 0, csum = BIT(VIRTIO_NET_F_GUEST_CSUM);

    start(b, ALL);
    nic_assert_done(&b->nic, VIRTIO_NET_CTRL_GUEST_OFFLOADS, VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET,
                    &none, 8);
    assert_false(serves(b, 0));
    pass_both_ways(b, 1);
    nic_assert_done(&b->nic, VIRTIO_NET_CTRL_GUEST_OFFLOADS, VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET,
                    &csum, 8);
    assert_true(serves(b, 0));
    pass_both_ways(b, 2);
}

static void with_the_cable_pulled_we_drop_what_is_sent(void **state)
{
    struct bench *b = *state;
    uint8_t packet[HEADER + 60], got[100];

    start(b, ALL);
    pass_both_ways(b, 1);
    virtio_net_set_link(b->nic.dev, false);
    assert_false(serves(b, 0));
    nic_fill_packet(packet, sizeof(packet), nic_other, 2);
    nic_add_tx(&b->nic, TX, packet, sizeof(packet));
    fake_netdev_give(&b->nic.wire, 0, packet, sizeof(packet));
    virtio_driver_kick(&b->nic.d, TX);
    run(b);
    assert_int_equal(fake_netdev_take(&b->nic.wire, 0, got, sizeof(got)), 0);
    assert_true(virtio_driver_take(&b->nic.d, TX, NULL, NULL));
    assert_false(virtio_driver_take(&b->nic.d, RX, NULL, NULL));
    virtio_net_set_link(b->nic.dev, true);
    assert_true(serves(b, 0));
    pass_both_ways(b, 3);
}

static void only_pairs_in_use_are_the_kernels(void **state)
{
    struct bench *b = *state;

    start(b, ALL);
    assert_true(serves(b, 0) && !serves(b, 1));
    nic_set_pairs(&b->nic, 3, VIRTIO_NET_OK);
    assert_true(serves(b, 1) && serves(b, 2) && !serves(b, 3));
    assert_int_equal(b->kernel[2].rings[VHOST_RX].as.tap_fd, b->nic.wire.device[2]);
    nic_set_pairs(&b->nic, 2, VIRTIO_NET_OK);
    assert_true(serves(b, 1) && !serves(b, 2));
    b->nic.wire.refuses = true;
    nic_set_pairs(&b->nic, 1, VIRTIO_NET_ERR);
    assert_true(serves(b, 1));
    pass_both_ways(b, 1);
}

/* A driver that has one queue only, and does not look what becomes of it. */
static void begin(struct virtio_driver *d, unsigned queue)
{
    virtio_driver_reset(d);
    assert_true(virtio_driver_negotiate(d, virtio_driver_offered(d)));
    virtio_driver_setup_queue(d, queue, 0);
    virtio_driver_set_status(d, VIRTIO_CONFIG_S_DRIVER_OK);
}

static void a_queue_that_is_not_set_up_is_nobodys(void **state)
{
    struct bench *b = *state;
    struct virtio_driver *d = &b->nic.d;

    begin(d, TX);
    assert_true(b->kernel[0].rings[VHOST_TX].on);
    assert_false(b->kernel[0].rings[VHOST_RX].on);
    send(b, 1);
}

/* Interrupts */

static void mask(struct bench *b, unsigned vector, bool masked)
{
    virtio_driver_write(&b->nic.d,
                        b->nic.d.msix_table + (uint64_t)vector * PCI_MSIX_ENTRY_SIZE +
                            PCI_MSIX_ENTRY_VECTOR_CTRL,
                        4, masked);
}

static void the_kernel_interrupts_by_itself(void **state)
{
    struct bench *b = *state;
    uint8_t packet[HEADER + 60];
    unsigned before;

    start(b, ALL);
    before = virtio_driver_interrupts(&b->nic.d, RX + 1);
    nic_fill_packet(packet, sizeof(packet), nic_mac, 1);
    fake_netdev_give(&b->nic.wire, 0, packet, sizeof(packet));
    fake_vhost_run(&b->kernel[0]); /* and nothing of ours runs */
    assert_int_equal(virtio_driver_interrupts(&b->nic.d, RX + 1), before + 1);
}

static void a_masked_interrupt_waits(void **state)
{
    struct bench *b = *state;
    unsigned before;

    start(b, ALL);
    before = virtio_driver_interrupts(&b->nic.d, RX + 1);
    mask(b, RX + 1, true);
    receive(b, 1);
    assert_int_equal(virtio_driver_interrupts(&b->nic.d, RX + 1), before);
    mask(b, RX + 1, false);
    assert_int_equal(virtio_driver_interrupts(&b->nic.d, RX + 1), before + 1);
    receive(b, 2);
    assert_int_equal(virtio_driver_interrupts(&b->nic.d, RX + 1), before + 2);
}

static void without_msix_the_line_rises(void **state)
{
    struct bench *b = *state;

    virtio_driver_start_intx(&b->nic.d, ALL);
    nic_give_rx(&b->nic, 64, 1536);
    (void)virtio_driver_read(&b->nic.d, b->nic.d.isr, 1);
    receive(b, 1);
    assert_int_equal(virtio_driver_read(&b->nic.d, b->nic.d.isr, 1), 1);
    assert_int_equal(virtio_driver_read(&b->nic.d, b->nic.d.isr, 1), 0);
}

/* Standing still, and moving */

static void a_pause_takes_the_rings_back_and_goes_on_where_they_stood(void **state)
{
    struct bench *b = *state;
    uint8_t packet[HEADER + 60];

    start(b, ALL);
    for (uint8_t i = 0; i < 5; i++)
        pass_both_ways(b, i);
    device_pause(b->nic.dev);
    assert_false(serves(b, 0));
    nic_fill_packet(packet, sizeof(packet), nic_mac, 9);
    fake_netdev_give(&b->nic.wire, 0, packet, sizeof(packet));
    run(b);
    assert_false(virtio_driver_take(&b->nic.d, RX, NULL, NULL));
    device_resume(b->nic.dev);
    assert_true(serves(b, 0));
    assert_int_equal(b->kernel[0].rings[VHOST_TX].as.next, 5);
    run(b);
    nic_assert_arrives(&b->nic, RX, packet, sizeof(packet));
    pass_both_ways(b, 10);
}

/* What the kernel had not told the driver of yet, nobody else knows. */
static void after_a_pause_the_driver_is_told_once_more(void **state)
{
    struct bench *b = *state;
    uint8_t packet[HEADER + 60];
    int lost = eventfd(0, EFD_CLOEXEC);
    unsigned before;

    start(b, ALL);
    before = virtio_driver_interrupts(&b->nic.d, RX + 1);
    b->kernel[0].rings[VHOST_RX].as.call_fd = lost;
    nic_fill_packet(packet, sizeof(packet), nic_mac, 1);
    fake_netdev_give(&b->nic.wire, 0, packet, sizeof(packet));
    run(b);
    device_pause(b->nic.dev);
    assert_int_equal(virtio_driver_interrupts(&b->nic.d, RX + 1), before);
    device_resume(b->nic.dev);
    assert_int_equal(virtio_driver_interrupts(&b->nic.d, RX + 1), before + 1);
    nic_assert_arrives(&b->nic, RX, packet, sizeof(packet));
    close(lost);
}

static void move(struct bench *b, bool vhost)
{
    struct nic_bench *f = &b->nic;
    const struct state_desc *desc = f->dev->ops->state;
    struct writer w = {0};
    struct error err = {.msg = ""};

    device_pause(f->dev);
    state_save(desc, f->dev, &w, &err);
    assert_string_equal(err.msg, "");
    device_destroy(f->dev);
    fake_netdev_fini(&f->wire);
    create(b, vhost);
    device_pause(f->dev);
    struct reader r = {.data = w.data, .len = w.len};
    state_load(desc, f->dev, &r, &err);
    assert_string_equal(err.msg, "");
    free(w.data);
    f->d.dev = f->dev;
    assert_false(serves(b, 0)); /* not before it runs */
    device_resume(f->dev);
    assert_int_equal(serves(b, 0), vhost);
    run(b);
}

static void it_moves_between_hosts_with_vhost_and_without(void **state)
{
    static const bool ways[] = {true, false, false, true, true};
    struct bench *b = *state;

    start(b, ALL);
    for (uint8_t i = 0; i < 5; i++) {
        pass_both_ways(b, i);
        move(b, ways[i]);
        pass_both_ways(b, (uint8_t)(i + 100));
    }
}

static void a_state_that_is_loaded_over_a_running_card_is_what_counts(void **state)
{
    struct bench *b = *state;
    const struct state_desc *desc = b->nic.dev->ops->state;
    struct writer w = {0};
    struct error err = {.msg = ""};

    start(b, ALL);
    device_pause(b->nic.dev);
    state_save(desc, b->nic.dev, &w, &err);
    device_resume(b->nic.dev);
    run(b);
    assert_true(serves(b, 0));
    struct reader r = {.data = w.data, .len = w.len};
    state_load(desc, b->nic.dev, &r, &err);
    assert_string_equal(err.msg, "");
    free(w.data);
    pass_both_ways(b, 1);
}

static void the_log_reaches_each_pair_also_of_a_driver_that_comes_later(void **state)
{
    struct bench *b = *state;
    struct error err = {.msg = ""};

    assert_int_equal(virtio_net_log(b->nic.dev, true, &err), 0);
    start(b, ALL);
    for (unsigned i = 0; i < PAIRS; i++)
        assert_true(b->kernel[i].log);
    assert_int_equal(virtio_net_log(b->nic.dev, false, &err), 0);
    for (unsigned i = 0; i < PAIRS; i++)
        assert_false(b->kernel[i].log);
    pass_both_ways(b, 1);
}

/* What goes wrong */

static void a_ring_that_the_kernel_finds_broken_waits_for_a_reset(void **state)
{
    struct bench *b = *state;
    const struct virtio_buffer nowhere = {UINT64_C(1) << 40, 100, false};

    start(b, ALL);
    virtio_driver_add(&b->nic.d, TX, &nowhere, 1);
    virtio_driver_kick(&b->nic.d, TX);
    run(b);
    assert_true(nic_broken(&b->nic));
    assert_false(serves(b, 0));
    start(b, ALL);
    assert_false(nic_broken(&b->nic));
    assert_true(serves(b, 0));
    pass_both_ways(b, 1);
}

/* The kernel says so when the driver has already begun anew. */
static void what_is_said_of_an_earlier_ring_does_no_harm(void **state)
{
    struct bench *b = *state;
    const struct virtio_buffer nowhere = {UINT64_C(1) << 40, 100, false};

    start(b, ALL);
    virtio_driver_add(&b->nic.d, TX, &nowhere, 1);
    fake_vhost_run(&b->kernel[0]);
    virtio_driver_start(&b->nic.d, ALL);
    nic_give_rx(&b->nic, 64, 1536);
    run(b);
    assert_false(nic_broken(&b->nic));
    pass_both_ways(b, 1);
}

static void a_ring_that_the_kernel_does_not_take_waits_for_a_reset(void **state)
{
    struct bench *b = *state;

    b->kernel[0].refuses = true;
    begin(&b->nic.d, TX);
    assert_true(nic_broken(&b->nic));
    assert_false(serves(b, 0));
    b->kernel[0].refuses = false;
    start(b, ALL);
    assert_false(nic_broken(&b->nic));
    pass_both_ways(b, 1);
}

static void a_broken_control_queue_stops_the_kernel_too(void **state)
{
    struct bench *b = *state;
    const struct virtio_buffer no_answer = {virtio_machine_alloc(&b->nic.m, 16), 2, false};

    start(b, ~BIT(VIRTIO_NET_F_MQ));
    assert_true(serves(b, 0));
    virtio_driver_add(&b->nic.d, 2, &no_answer, 1);
    virtio_driver_kick(&b->nic.d, 2);
    run(b);
    assert_true(nic_broken(&b->nic));
    assert_false(serves(b, 0));
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
    struct bench *b = *state;
    unsigned seen = 0;

    start(b, ALL);
    pass_both_ways(b, 1);
    assert_false(virtio_net_is_counted(b->nic.dev));
    virtio_stats(b->nic.dev, look, &seen);
    assert_int_equal(seen, 1);
    assert_int_equal(nic_stats(&b->nic).vhost_starts, 2);
    assert_int_equal(nic_stats(&b->nic).vhost_stops, 0);
    device_pause(b->nic.dev);
    assert_int_equal(nic_stats(&b->nic).vhost_stops, 2);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
#define TEST_PAIRS(name) cmocka_unit_test_setup_teardown(name, setup_pairs, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_kernel_gets_both_rings_when_the_driver_is_ready),
        TEST(we_serve_a_driver_that_vhost_would_not_keep_to),
        TEST(offloads_that_change_change_who_serves),
        TEST(with_the_cable_pulled_we_drop_what_is_sent),
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
        TEST(a_ring_that_the_kernel_finds_broken_waits_for_a_reset),
        TEST(what_is_said_of_an_earlier_ring_does_no_harm),
        TEST(a_ring_that_the_kernel_does_not_take_waits_for_a_reset),
        TEST(a_broken_control_queue_stops_the_kernel_too),
        TEST(what_nobody_counts_is_absent),
    };

    return cmocka_run_group_tests_name("virtio_net_vhost", tests, NULL, NULL);
}
