/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Limits of a disk and of a network card: what waits stays in its ring, and comes when its time is
 * there. By the real clock: what must not be faster is held to it; what may be slow on a busy host
 * has a wide margin.
 */
#include <linux/virtio_blk.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "disk_bench.h"
#include "folder.h"
#include "nic_bench.h"

#define MS UINT64_C(1000000)
#define RATE 200u          /* requests a second: one in 5 ms */
#define BURST (RATE / 10u) /* of 100 ms */

static void open_disk(struct disk_bench *b, unsigned queues, struct virtio_rates rates)
{
    disk_bench_prepare(b);
    b->params.queues = queues;
    b->params.rates = rates;
    disk_bench_create(b);
    disk_bench_start(b, UINT64_MAX);
}

static unsigned take_all(struct virtio_driver *d, unsigned queue)
{
    unsigned taken = 0;

    while (virtio_driver_take(d, queue, NULL, NULL))
        taken++;
    return taken;
}

/* Until so many have come, five seconds at most. Returns how many have. */
static unsigned wait_for(struct disk_bench *b, unsigned queue, unsigned count)
{
    uint64_t until_ns = loop_now_ns() + 5000 * MS;
    unsigned taken = 0;

    while ((taken += take_all(&b->d, queue)) < count && loop_now_ns() < until_ns)
        usleep(500);
    return taken;
}

static uint64_t waits(struct disk_bench *b)
{
    struct virtio_blk_stats stats;

    virtio_blk_stats(b->dev, &stats);
    return stats.limit_waits;
}

static void requests_come_no_faster_than_the_limit_after_the_burst(void **state)
{
    struct disk_bench b;

    (void)state;
    open_disk(&b, 1, (struct virtio_rates){.ops = RATE});
    uint64_t data = virtio_machine_alloc(&b.m, 512), start_ns = loop_now_ns();
    disk_add_reads(&b, 0, 70, data);
    virtio_driver_kick(&b.d, 0);
    assert_int_equal(wait_for(&b, 0, 70), 70);
    uint64_t took_ns = loop_now_ns() - start_ns;
    assert_true(took_ns >= (70 - BURST - 1) * 5 * MS);
    assert_true(took_ns < 2000 * MS);
    assert_true(waits(&b) > 0);
    disk_bench_fini(&b);
}

static void bytes_are_limited_by_what_is_read_and_written(void **state)
{
    struct disk_bench b;

    (void)state;
    /* 16 KiB at once, and then 64 KiB a second: 2 KiB in 31.25 ms. */
    open_disk(&b, 1, (struct virtio_rates){.bytes = 64 << 10, .bytes_burst = 16 << 10});
    uint64_t data = virtio_machine_alloc(&b.m, 2048), start_ns = loop_now_ns();
    for (unsigned i = 0; i < 20; i++)
        assert_int_equal(disk_request(&b, VIRTIO_BLK_T_FLUSH, 0, 0, 0, NULL), VIRTIO_BLK_S_OK);
    assert_int_equal(waits(&b), 0);
    for (unsigned i = 0; i < 24; i++)
        assert_int_equal(
            disk_request(&b, i % 2 ? VIRTIO_BLK_T_IN : VIRTIO_BLK_T_OUT, 0, data, 2048, NULL),
            VIRTIO_BLK_S_OK);
    uint64_t took_ns = loop_now_ns() - start_ns;
    assert_true(took_ns >= (24 - 8 - 1) * 31 * MS);
    assert_true(took_ns < 3000 * MS);
    disk_bench_fini(&b);
}

static void queues_share_one_limit_and_take_turns(void **state)
{
    uint64_t start_ns;
    struct disk_bench b;

    (void)state;
    open_disk(&b, 3, (struct virtio_rates){.ops = RATE});
    uint64_t data = virtio_machine_alloc(&b.m, 512);
    start_ns = loop_now_ns();
    for (unsigned queue = 0; queue < 3; queue++) {
        disk_add_reads(&b, queue, 60, data);
        virtio_driver_kick(&b.d, queue);
    }
    usleep(400000);
    unsigned done[3], all = 0;
    for (unsigned queue = 0; queue < 3; queue++)
        all += done[queue] = take_all(&b.d, queue);
    uint64_t took_ms = (loop_now_ns() - start_ns) / MS;
    assert_true(all <= BURST + 2 + took_ms * RATE / 1000);
    /* The first one had the burst; of the rest each has its part. */
    for (unsigned queue = 0; queue < 3; queue++)
        assert_true(done[queue] >= (all - BURST - 2) / 6);
    disk_bench_fini(&b);
}

static void a_driver_that_rings_only_when_asked_to_is_served_all_the_same(void **state)
{
    unsigned came = 0, meant = 0;
    struct disk_bench b;

    (void)state;
    open_disk(&b, 1, (struct virtio_rates){.ops = 1000, .ops_burst = 1});
    uint64_t data = virtio_machine_alloc(&b.m, 512);
    for (unsigned i = 0; i < 100; i++) {
        uint16_t since = b.d.queues[0].avail_idx;

        disk_add_reads(&b, 0, 1 + i % 3, data);
        if (virtio_driver_wants_kick(&b.d, 0, since))
            virtio_driver_kick(&b.d, 0);
        if (i % 4 == 3) /* others come while some wait */
            continue;
        came += wait_for(&b, 0, 1);
    }
    for (unsigned i = 0; i < 100; i++)
        meant += 1 + i % 3;
    assert_int_equal(came + wait_for(&b, 0, meant - came), meant);
    disk_bench_fini(&b);
}

static void a_pause_does_not_wait_for_what_waits(void **state)
{
    struct error err = {.msg = ""};
    struct disk_bench b;

    (void)state;
    open_disk(&b, 2, (struct virtio_rates){.ops = 1}); /* a minute's worth */
    uint64_t data = virtio_machine_alloc(&b.m, 512);
    disk_add_reads(&b, 0, 60, data);
    disk_add_reads(&b, 1, 60, data);
    virtio_driver_kick(&b.d, 0);
    virtio_driver_kick(&b.d, 1);
    assert_in_range(wait_for(&b, 0, 1), 1, 2);
    uint64_t start_ns = loop_now_ns();
    assert_int_equal(device_settle(b.dev, start_ns + 1000 * MS, &err), 0);
    device_pause(b.dev);
    assert_true(loop_now_ns() - start_ns < 500 * MS);
    unsigned before = b.asked[BLOCK_READ];
    virtio_blk_limit(b.dev, &(struct virtio_rates){0}); /* it still stands still */
    usleep(20000);
    assert_int_equal(b.asked[BLOCK_READ], before);
    device_resume(b.dev);
    wait_for(&b, 0, 60 - 1);
    assert_int_equal(wait_for(&b, 1, 60), 60);
    assert_int_equal(b.asked[BLOCK_READ], 120);
    disk_bench_fini(&b);
}

static void what_waits_goes_on_after_a_resume_with_the_limit(void **state)
{
    struct disk_bench b;

    (void)state;
    open_disk(&b, 1, (struct virtio_rates){.ops = RATE});
    uint64_t data = virtio_machine_alloc(&b.m, 512), start_ns = loop_now_ns();
    disk_add_reads(&b, 0, 60, data);
    virtio_driver_kick(&b.d, 0);
    for (unsigned i = 0; i < 10; i++) {
        usleep(5000);
        device_pause(b.dev);
        device_resume(b.dev);
    }
    assert_int_equal(wait_for(&b, 0, 60), 60);
    assert_true(loop_now_ns() - start_ns >= (60 - BURST - 1) * 5 * MS);
    disk_bench_fini(&b);
}

static void a_reset_forgets_what_waits_and_the_next_driver_is_served(void **state)
{
    struct disk_bench b;

    (void)state;
    open_disk(&b, 1, (struct virtio_rates){.ops = 20, .ops_burst = 2});
    uint64_t data = virtio_machine_alloc(&b.m, 512);
    disk_add_reads(&b, 0, 60, data);
    virtio_driver_kick(&b.d, 0);
    assert_true(wait_for(&b, 0, 2) >= 2);
    virtio_driver_reset(&b.d);
    unsigned before = b.asked[BLOCK_READ];
    usleep(150000);
    assert_int_equal(b.asked[BLOCK_READ], before);
    disk_bench_start(&b, UINT64_MAX);
    data = virtio_machine_alloc(&b.m, 512);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(disk_request(&b, VIRTIO_BLK_T_IN, 0, data, 512, NULL), VIRTIO_BLK_S_OK);
    disk_bench_fini(&b);
}

static void another_limit_is_followed_at_once(void **state)
{
    struct disk_bench b;

    (void)state;
    open_disk(&b, 2, (struct virtio_rates){.ops = 1, .bytes = 512});
    uint64_t data = virtio_machine_alloc(&b.m, 512), start_ns = loop_now_ns();
    disk_add_reads(&b, 0, 100, data);
    disk_add_reads(&b, 1, 50, data);
    virtio_driver_kick(&b.d, 0);
    virtio_driver_kick(&b.d, 1);
    usleep(50000);
    assert_in_range(take_all(&b.d, 0) + take_all(&b.d, 1), 1, 3);
    virtio_blk_limit(b.dev, &(struct virtio_rates){.ops = RATE});
    assert_int_equal(wait_for(&b, 1, 50), 50);
    virtio_blk_limit(b.dev, &(struct virtio_rates){0});
    wait_for(&b, 0, 97);
    assert_int_equal(b.asked[BLOCK_READ], 150);
    assert_true(loop_now_ns() - start_ns < 4000 * MS); /* it would have been two minutes */
    disk_bench_fini(&b);
}

/* What goes on from a saved state has the limit that it was given, and none that was before. */
static void a_limit_does_not_travel(void **state)
{
    struct writer w = {0};
    struct error err = {.msg = ""};
    struct disk_bench b;

    (void)state;
    open_disk(&b, 1, (struct virtio_rates){.ops = 1});
    uint64_t data = virtio_machine_alloc(&b.m, 512);
    disk_add_reads(&b, 0, 60, data);
    virtio_driver_kick(&b.d, 0);
    unsigned first = wait_for(&b, 0, 1);
    device_pause(b.dev);
    state_save(b.dev->ops->state, b.dev, &w, &err);
    device_destroy(b.dev);
    b.params.rates = (struct virtio_rates){0};
    virtio_blk_create(b.m.platform, b.m.host, &b.params, &b.dev, &err);
    device_pause(b.dev);
    struct reader r = {.data = w.data, .len = w.len};
    pthread_mutex_lock(&b.dev->lock); /* as the registry does */
    state_load(b.dev->ops->state, b.dev, &r, &err);
    pthread_mutex_unlock(&b.dev->lock);
    assert_string_equal(err.msg, "");
    free(w.data);
    b.d.dev = b.dev;
    device_resume(b.dev);
    assert_int_equal(wait_for(&b, 0, 60 - first), 60 - first);
    assert_int_equal(waits(&b), 0);
    disk_bench_fini(&b);
}

/* What is told of latency: requests in all, and the least and the longest of them. */
struct latency {
    uint64_t requests, least_ns, max_ns, of_queue[2];
};

static void note_latency(void *opaque, const char *queue, const char *name, uint64_t value)
{
    struct latency *l = opaque;
    unsigned long long limit_ns;

    if (strcmp(name, "latency_max_ns") == 0) {
        l->max_ns = value > l->max_ns ? value : l->max_ns;
        return;
    }
    assert_int_equal(sscanf(name, "latency_ns.%llu", &limit_ns), 1);
    l->least_ns = l->least_ns && l->least_ns < limit_ns ? l->least_ns : limit_ns;
    l->requests += value;
    l->of_queue[queue[1] - '0'] += value;
}

static struct latency latency(struct disk_bench *b)
{
    struct latency l = {0};

    virtio_blk_latency(b->dev, note_latency, &l);
    return l;
}

static void latency_is_the_time_from_the_ring_to_the_completion(void **state)
{
    struct disk_bench b;

    (void)state;
    open_disk(&b, 2, (struct virtio_rates){0});
    assert_int_equal(latency(&b).requests + latency(&b).max_ns, 0);
    uint64_t data = virtio_machine_alloc(&b.m, 512);
    b.delay_ns = 20 * MS;
    disk_add_reads(&b, 0, 5, data);
    disk_add_reads(&b, 1, 2, data);
    virtio_driver_kick(&b.d, 0);
    virtio_driver_kick(&b.d, 1);
    assert_int_equal(wait_for(&b, 0, 5) + wait_for(&b, 1, 2), 7);
    struct latency l = latency(&b);
    assert_int_equal(l.of_queue[0], 5);
    assert_int_equal(l.of_queue[1], 2);
    assert_true(l.least_ns >= 20 * MS && l.max_ns >= 20 * MS);
    disk_bench_fini(&b);
}

static void a_request_that_waits_for_its_turn_is_not_slow(void **state)
{
    struct disk_bench b;

    (void)state;
    open_disk(&b, 1, (struct virtio_rates){.ops = 4});
    uint64_t data = virtio_machine_alloc(&b.m, 512);
    disk_add_reads(&b, 0, 4, data);
    virtio_driver_kick(&b.d, 0);
    assert_int_equal(wait_for(&b, 0, 4), 4);
    assert_int_equal(latency(&b).requests, 4);
    assert_true(latency(&b).least_ns < 100 * MS); /* a busy host may be slow, but not each time */
    disk_bench_fini(&b);
}

/* Network cards */

struct net_limits {
    struct virtio_rates rx, tx;
};

static void limit_net(struct nic_bench *f, struct net_limits limits)
{
    virtio_net_limit(f->dev, &limits.rx, &limits.tx);
}

static void frames_from_the_guest_go_no_faster_than_the_limit(void **state)
{
    struct nic_bench *f = *state;
    uint8_t packet[HEADER + 1000], got[2048];
    uint64_t start_ns = loop_now_ns();
    unsigned sent = 0;

    nic_fill_packet(packet, sizeof(packet), nic_other, 1);
    virtio_driver_start(&f->d, CONTROL);
    limit_net(f, (struct net_limits){.tx = {.bytes = 100000}});
    for (unsigned i = 0; i < 50; i++)
        nic_add_tx(f, TX, packet, sizeof(packet));
    virtio_driver_kick(&f->d, TX);
    while (sent < 50 && loop_now_ns() - start_ns < 5000 * MS) {
        nic_run(f);
        while (fake_netdev_take(&f->wire, 0, got, sizeof(got)) > 0)
            sent++;
        usleep(500);
    }
    assert_int_equal(sent, 50);
    assert_true(loop_now_ns() - start_ns >= 380 * MS);
    assert_int_equal(take_all(&f->d, TX), 50);
    assert_true(nic_stats(f).tx_limit_waits > 0);
    assert_int_equal(nic_stats(f).rx_limit_waits, 0);
}

static void frames_to_the_guest_wait_on_the_wire(void **state)
{
    struct nic_bench *f = *state;
    uint8_t packet[HEADER + 60], got[2048];
    uint64_t start_ns = loop_now_ns();
    unsigned came = 0;

    nic_fill_packet(packet, sizeof(packet), nic_mac, 1);
    virtio_driver_start(&f->d, CONTROL);
    nic_give_rx(f, 64, 1536);
    limit_net(f, (struct net_limits){.rx = {.ops = 100}});
    for (unsigned i = 0; i < 30; i++)
        fake_netdev_give(&f->wire, 0, packet, sizeof(packet));
    while (came < 30 && loop_now_ns() - start_ns < 5000 * MS) {
        nic_run(f);
        came += nic_take_rx(f, RX, got) > 0;
        usleep(500);
    }
    assert_int_equal(came, 30);
    assert_true(loop_now_ns() - start_ns >= 180 * MS);
    assert_true(nic_stats(f).rx_limit_waits > 0);
}

static void both_directions_go_on_after_a_pause_and_without_the_limit(void **state)
{
    struct nic_bench *f = *state;
    uint8_t packet[HEADER + 60], back[HEADER + 60], got[2048];

    nic_fill_packet(packet, sizeof(packet), nic_other, 1);
    nic_fill_packet(back, sizeof(back), nic_mac, 2);
    virtio_driver_start(&f->d, CONTROL);
    nic_give_rx(f, 64, 1536);
    limit_net(f, (struct net_limits){.rx = {.ops = 1}, .tx = {.ops = 1}});
    for (unsigned i = 0; i < 10; i++) {
        nic_add_tx(f, TX, packet, sizeof(packet));
        fake_netdev_give(&f->wire, 0, back, sizeof(back));
    }
    virtio_driver_kick(&f->d, TX);
    nic_run(f);
    assert_true(nic_stats(f).tx_frames < 3 && nic_stats(f).rx_frames < 3);
    device_pause(f->dev);
    limit_net(f, (struct net_limits){0});
    nic_run(f);
    assert_true(nic_stats(f).tx_frames < 3 && nic_stats(f).rx_frames < 3);
    device_resume(f->dev);
    nic_run(f);
    for (unsigned i = 0; i < 10; i++) {
        assert_int_equal(fake_netdev_take(&f->wire, 0, got, sizeof(got)), sizeof(packet));
        assert_int_equal(nic_take_rx(f, RX, got), sizeof(back));
    }
}

#define NET_TEST(name) cmocka_unit_test_setup_teardown(name, nic_setup, nic_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_come_no_faster_than_the_limit_after_the_burst),
        cmocka_unit_test(bytes_are_limited_by_what_is_read_and_written),
        cmocka_unit_test(queues_share_one_limit_and_take_turns),
        cmocka_unit_test(a_driver_that_rings_only_when_asked_to_is_served_all_the_same),
        cmocka_unit_test(a_pause_does_not_wait_for_what_waits),
        cmocka_unit_test(what_waits_goes_on_after_a_resume_with_the_limit),
        cmocka_unit_test(a_reset_forgets_what_waits_and_the_next_driver_is_served),
        cmocka_unit_test(another_limit_is_followed_at_once),
        cmocka_unit_test(a_limit_does_not_travel),
        cmocka_unit_test(latency_is_the_time_from_the_ring_to_the_completion),
        cmocka_unit_test(a_request_that_waits_for_its_turn_is_not_slow),
        NET_TEST(frames_from_the_guest_go_no_faster_than_the_limit),
        NET_TEST(frames_to_the_guest_wait_on_the_wire),
        NET_TEST(both_directions_go_on_after_a_pause_and_without_the_limit),
    };

    return cmocka_run_group_tests_name("virtio_limit", tests, folder_enter, folder_leave);
}
