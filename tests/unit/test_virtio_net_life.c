/* SPDX-License-Identifier: Apache-2.0 */
/* virtio_net: pause, moving, a thread of its own, and the suites of every virtio device. */
#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "fake_vhost.h"
#include "nic_bench.h"
#include "virtio_hostile.h"

/* Pause, and moving */

static void a_paused_card_carries_nothing_and_loses_nothing(void **state)
{
    struct nic_bench *f = *state;
    uint8_t packet[HEADER + 60], got[100];

    virtio_driver_start(&f->d, ALL);
    nic_give_rx(f, 64, 1536);
    nic_fill_packet(packet, sizeof(packet), nic_mac, 1);
    device_pause(f->dev);
    fake_netdev_give(&f->wire, 0, packet, sizeof(packet));
    nic_add_tx(f, TX, packet, sizeof(packet));
    virtio_driver_kick(&f->d, TX);
    fake_netdev_set_up(&f->wire, false);
    nic_run(f);
    assert_int_equal(fake_netdev_take(&f->wire, 0, got, sizeof(got)), 0);
    assert_false(virtio_driver_take(&f->d, RX, NULL, NULL));
    assert_int_equal(nic_news(f), 0);

    fake_netdev_set_up(&f->wire, true);
    device_resume(f->dev);
    nic_run(f);
    nic_run(f);
    nic_assert_arrives(f, RX, packet, sizeof(packet));
    nic_assert_wire(f, 0, packet, sizeof(packet));
}

static void a_link_that_changed_during_a_pause_is_told_after_it(void **state)
{
    struct nic_bench *f = *state;

    virtio_driver_start(&f->d, ALL);
    device_pause(f->dev);
    fake_netdev_set_up(&f->wire, false);
    nic_run(f);
    assert_int_equal(nic_news(f), 0);
    device_resume(f->dev);
    assert_int_equal(nic_news(f), 1);
    assert_int_equal(virtio_driver_config_read(&f->d, 6, 2), 0);
}

static void a_large_frame_that_waits_survives_a_pause(void **state)
{
    static uint8_t packet[20000];
    struct nic_bench *f = *state;

    virtio_driver_start(&f->d, ALL);
    nic_fill_packet(packet, sizeof(packet), nic_mac, 9);
    nic_give_rx(f, 3, 4096);
    fake_netdev_give(&f->wire, 0, packet, sizeof(packet));
    nic_run(f);
    device_pause(f->dev);
    nic_run(f);
    device_resume(f->dev);
    nic_run(f);
    nic_give_rx(f, 3, 4096);
    nic_run(f);
    nic_assert_arrives(f, RX, packet, sizeof(packet));
}

/* The target lives in the same memory, after the source: as good as a copy of it. */
static void move_and(struct nic_bench *f, bool announce)
{
    struct writer saved = {0};
    struct error err = {.msg = ""};

    nic_leave(f, &saved);
    nic_create(&f->m, fake_netdev_init(&f->wire, PAIRS), PAIRS, NULL, &f->dev, &err);
    assert_string_equal(err.msg, "");
    nic_arrive(f, &saved);
    if (announce)
        virtio_net_announce(f->dev); /* paused: to be told when it runs */
    assert_int_equal(nic_news(f), 0);
    device_resume(f->dev);
    nic_run(f);
}

static void move(struct nic_bench *f)
{
    move_and(f, false);
}

static void buffers_filters_and_pairs_travel(void **state)
{
    struct nic_bench *f = *state;
    uint16_t vlan = 7;
    uint8_t table[64], packet[HEADER + 60];

    nic_start_filtered(f, ALL);
    nic_set_pairs(f, 2, VIRTIO_NET_OK);
    nic_assert_done(f, VIRTIO_NET_CTRL_VLAN, VIRTIO_NET_CTRL_VLAN_ADD, &vlan, 2);
    nic_assert_done(f, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, table,
                    nic_make_table(table, 0, NULL, 1, nic_group));
    nic_assert_done(f, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, nic_other, 6);
    assert_true(nic_hears(f, nic_other, 7)); /* and more buffers are at hand */
    move(f);
    assert_int_equal(f->wire.active, 2);
    assert_true(f->wire.offload.tso4);
    assert_true(nic_hears(f, nic_other, 7));
    assert_true(nic_hears(f, nic_group, -1));
    assert_false(nic_hears(f, nic_other, 8));
    assert_false(nic_hears(f, nic_mac, -1));
    nic_fill_packet(packet, sizeof(packet), nic_mac, 1);
    nic_add_tx(f, 3, packet, sizeof(packet));
    virtio_driver_kick(&f->d, 3);
    virtio_driver_wait(&f->d, 3, NULL);
    nic_assert_wire(f, 1, packet, sizeof(packet));
}

static void what_a_full_host_did_not_take_travels(void **state)
{
    struct nic_bench *f = *state;
    uint8_t packet[HEADER + 1000];
    unsigned sent = 0;

    virtio_driver_start(&f->d, ALL);
    fake_netdev_narrow(&f->wire, 0);
    nic_fill_packet(packet, sizeof(packet), nic_other, 1);
    for (unsigned i = 0; i < 50; i++)
        nic_add_tx(f, TX, packet, sizeof(packet));
    virtio_driver_kick(&f->d, TX);
    nic_run(f);
    while (virtio_driver_take(&f->d, TX, NULL, NULL))
        sent++;
    assert_in_range(sent, 1, 49);
    move(f);
    for (; sent < 50; sent++) {
        virtio_driver_wait(&f->d, TX, NULL);
        nic_assert_wire(f, 0, packet, sizeof(packet));
    }
}

static void after_a_move_it_announces_itself_if_the_driver_can(void **state)
{
    struct nic_bench *f = *state;

    virtio_driver_start(&f->d, ALL);
    move_and(f, true);
    assert_int_equal(virtio_driver_config_read(&f->d, 6, 2) & VIRTIO_NET_S_ANNOUNCE,
                     VIRTIO_NET_S_ANNOUNCE);
    assert_int_equal(nic_news(f), 1);
    nic_assert_done(f, VIRTIO_NET_CTRL_ANNOUNCE, VIRTIO_NET_CTRL_ANNOUNCE_ACK, NULL, 0);
    assert_int_equal(virtio_driver_config_read(&f->d, 6, 2) & VIRTIO_NET_S_ANNOUNCE, 0);
    uint8_t got[100];
    assert_int_equal(fake_netdev_take(&f->wire, 0, got, sizeof(got)), 0); /* only the guest sends */
}

static void a_driver_that_cannot_announce_is_not_asked_to(void **state)
{
    struct nic_bench *f = *state;

    virtio_driver_start(&f->d, ~BIT(VIRTIO_NET_F_GUEST_ANNOUNCE));
    move_and(f, true);
    assert_int_equal(virtio_driver_config_read(&f->d, 6, 2) & VIRTIO_NET_S_ANNOUNCE, 0);
}

/* On a thread of its own, and the suites */

static void it_works_on_a_thread_of_its_own(void **state)
{
    struct nic_bench f;
    struct iothread *thread;
    struct error err = {.msg = ""};
    uint8_t packet[HEADER + 60];

    (void)state;
    virtio_machine_init(&f.m, NULL);
    assert_int_equal(iothread_create("net net0", &thread, &err), 0);
    nic_create(&f.m, fake_netdev_init(&f.wire, 2), 2, thread, &f.dev, &err);
    assert_string_equal(err.msg, "");
    virtio_driver_init(&f.d, &f.m, f.dev);
    for (unsigned round = 0; round < 20; round++) {
        virtio_driver_start(&f.d, ALL);
        nic_add_rx(&f, RX, 100, 1536);
        virtio_driver_kick(&f.d, RX);
        for (unsigned i = 0; i < 100; i++) {
            nic_fill_packet(packet, sizeof(packet), nic_mac, (uint8_t)i);
            fake_netdev_give(&f.wire, 0, packet, sizeof(packet));
            nic_add_tx(&f, TX, packet, sizeof(packet));
            virtio_driver_kick(&f.d, TX);
        }
        device_pause(f.dev);
        device_resume(f.dev);
        for (unsigned i = 0; i < 100; i++) {
            nic_fill_packet(packet, sizeof(packet), nic_mac, (uint8_t)i);
            virtio_driver_wait(&f.d, TX, NULL);
            nic_assert_wire(&f, 0, packet, sizeof(packet));
            assert_int_equal(virtio_driver_wait(&f.d, RX, NULL), sizeof(packet));
        }
    }
    device_destroy(f.dev);
    iothread_destroy(thread);
    fake_netdev_fini(&f.wire);
    virtio_machine_fini(&f.m);
}

static void look_whether_it_gives_way(void *opaque)
{
    if (sched_getscheduler(0) == SCHED_BATCH)
        *(bool *)opaque = true;
}

/* Frames go out one by one; whether its thread ever lets that of the guest go first. */
static bool gives_way(bool relays)
{
    struct nic_bench f;
    struct iothread *thread;
    struct error err = {.msg = ""};
    uint8_t packet[HEADER + 60];
    bool gave_way = false;

    virtio_machine_init(&f.m, NULL);
    assert_int_equal(iothread_create("net net0", &thread, &err), 0);
    struct netdev *wire = fake_netdev_init(&f.wire, 1);
    f.wire.plain = relays;
    nic_create(&f.m, wire, 1, thread, &f.dev, &err);
    assert_string_equal(err.msg, "");
    virtio_driver_init(&f.d, &f.m, f.dev);
    virtio_driver_start(&f.d, ALL);
    for (unsigned i = 0; i < 100; i++) {
        nic_fill_packet(packet, sizeof(packet), nic_mac, (uint8_t)i);
        nic_add_tx(&f, TX, packet, sizeof(packet));
        virtio_driver_kick(&f.d, TX);
        virtio_driver_wait(&f.d, TX, NULL);
        iothread_call(thread, look_whether_it_gives_way, &gave_way);
    }
    device_destroy(f.dev);
    iothread_destroy(thread);
    fake_netdev_fini(&f.wire);
    virtio_machine_fini(&f.m);
    return gave_way;
}

static void it_tries_giving_way_but_not_where_a_process_takes_its_frames(void **state)
{
    (void)state;
    assert_true(gives_way(false));
    assert_false(gives_way(true));
}

/* Each device of the suites has a wire of its own. */
static struct bench {
    struct virtio_machine *m;
    struct device *dev;
    struct fake_netdev wire;
    struct fake_vhost kernel[PAIRS];
    struct vhost *vhosts[PAIRS];
} benches[4];

static struct bench *bench_of(const struct device *dev)
{
    for (unsigned i = 0; i < 4; i++)
        if (benches[i].dev == dev)
            return &benches[i];
    fail_msg("no such device");
    return NULL;
}

static int create(void *opaque, struct virtio_machine *m, struct device **ret_dev,
                  struct error *err)
{
    struct bench *b = bench_of(NULL);
    int r;

    for (unsigned i = 0; i < PAIRS; i++)
        b->vhosts[i] = fake_vhost_init(&b->kernel[i], m->memory, m->loop);
    r = nic_create_vhost(m, fake_netdev_init(&b->wire, PAIRS), PAIRS, opaque ? b->vhosts : NULL,
                         ret_dev, err);
    if (r < 0) {
        fake_netdev_fini(&b->wire);
        return r;
    }
    b->m = m;
    b->dev = *ret_dev;
    return 0;
}

static void gone(void *opaque, struct virtio_machine *m)
{
    (void)opaque;
    for (unsigned i = 0; i < 4; i++) {
        if (benches[i].dev && benches[i].m == m) {
            fake_netdev_fini(&benches[i].wire);
            benches[i].dev = NULL;
        }
    }
}

static void works(void *opaque, struct virtio_driver *d)
{
    struct bench *b = bench_of(d->dev);
    uint8_t packet[HEADER + 60], got[256];
    const uint64_t gpa = virtio_machine_alloc(d->m, 4096);
    const struct virtio_buffer tx = {gpa, sizeof(packet), false}, rx = {gpa + 1024, 3000, true};

    (void)opaque;
    fake_netdev_drain(&b->wire);
    fake_netdev_set_up(&b->wire, true);
    nic_fill_packet(packet, sizeof(packet), nic_mac, 1);
    memcpy(virtio_machine_at(d->m, gpa, sizeof(packet)), packet, sizeof(packet));
    virtio_driver_request(d, TX, &tx, 1);
    assert_int_equal(fake_netdev_take(&b->wire, 0, got, sizeof(got)), sizeof(packet));
    assert_memory_equal(got, packet, sizeof(packet));
    fake_netdev_give(&b->wire, 0, packet, sizeof(packet));
    assert_int_equal(virtio_driver_request(d, RX, &rx, 1), sizeof(packet));
    assert_memory_equal((uint8_t *)virtio_machine_at(d->m, rx.gpa, sizeof(packet)) + HEADER,
                        packet + HEADER, 60);
}

static unsigned header(void *opaque, uint8_t bytes[64])
{
    (void)opaque;
    memset(bytes, 0, HEADER);
    return HEADER;
}

static void disturb(void *opaque, struct device *dev, uint32_t random)
{
    struct bench *b = bench_of(dev);
    uint8_t packet[HEADER + 60];

    (void)opaque;
    switch (random % 5) {
    case 0:
        nic_fill_packet(packet, sizeof(packet), nic_mac, (uint8_t)random);
        fake_netdev_drain(&b->wire);
        fake_netdev_give(&b->wire, 0, packet, sizeof(packet));
        break;
    case 1: fake_netdev_set_up(&b->wire, random & 8); break;
    case 2: virtio_net_set_link(dev, random & 8); break;
    case 3: virtio_net_announce(dev); break;
    default: break;
    }
    virtio_machine_run(b->m);
}

static void settle(void *opaque, struct device *dev)
{
    struct bench *b = bench_of(dev);

    (void)opaque;
    fake_netdev_drain(&b->wire);
    fake_netdev_set_up(&b->wire, true);
    virtio_machine_run(b->m);
}

/* opaque: not NULL, with vhost. */
static void hostile(unsigned queue, uint64_t features, void *opaque)
{
    const struct virtio_kind kind = {.create = create,
                                     .opaque = opaque,
                                     .features = features,
                                     .works = works,
                                     .header = queue == TX ? header : NULL,
                                     .settle = settle,
                                     .gone = gone,
                                     .queue = queue};

    hostile_run(&kind);
}

static void hostile_senders_do_no_harm(void **state)
{
    (void)state;
    hostile(TX, ALL, NULL);
}

static void hostile_receivers_do_no_harm(void **state)
{
    (void)state;
    hostile(RX, ALL, NULL);
}

static void hostile_commanders_do_no_harm(void **state)
{
    (void)state;
    hostile(2, ~BIT(VIRTIO_NET_F_MQ), NULL); /* where the control queue is then */
}

static void with_vhost_neither_senders_nor_receivers_do_harm(void **state)
{
    static char vhost;

    (void)state;
    hostile(TX, ALL, &vhost);
    hostile(RX, ALL, &vhost);
}

static void it_conforms_with_vhost(void **state)
{
    static char vhost;

    (void)state;
    virtio_conformance_run(&(struct virtio_kind){.create = create,
                                                 .opaque = &vhost,
                                                 .works = works,
                                                 .disturb = disturb,
                                                 .settle = settle,
                                                 .gone = gone,
                                                 .queue = TX});
}

static void it_conforms(void **state)
{
    (void)state;
    virtio_conformance_run(&(struct virtio_kind){.create = create,
                                                 .works = works,
                                                 .disturb = disturb,
                                                 .settle = settle,
                                                 .gone = gone,
                                                 .queue = TX});
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, nic_setup, nic_teardown)
#define TEST_PAIRS(name) cmocka_unit_test_setup_teardown(name, nic_setup_pairs, nic_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_paused_card_carries_nothing_and_loses_nothing),
        TEST(a_link_that_changed_during_a_pause_is_told_after_it),
        TEST(a_large_frame_that_waits_survives_a_pause),
        TEST_PAIRS(buffers_filters_and_pairs_travel),
        TEST_PAIRS(after_a_move_it_announces_itself_if_the_driver_can),
        TEST_PAIRS(a_driver_that_cannot_announce_is_not_asked_to),
        TEST_PAIRS(what_a_full_host_did_not_take_travels),
        cmocka_unit_test(it_works_on_a_thread_of_its_own),
        cmocka_unit_test(it_tries_giving_way_but_not_where_a_process_takes_its_frames),
        cmocka_unit_test(hostile_senders_do_no_harm),
        cmocka_unit_test(hostile_receivers_do_no_harm),
        cmocka_unit_test(hostile_commanders_do_no_harm),
        cmocka_unit_test(it_conforms),
        cmocka_unit_test(with_vhost_neither_senders_nor_receivers_do_harm),
        cmocka_unit_test(it_conforms_with_vhost),
    };

    return cmocka_run_group_tests_name("virtio_net_life", tests, NULL, NULL);
}
