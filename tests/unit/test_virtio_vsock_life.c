/* SPDX-License-Identifier: Apache-2.0 */
/* virtio_vsock: a device that stands still, goes elsewhere, and begins anew. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "folder.h"
#include "vmrun/log.h"
#include "vsock_bench.h"

#define OP(name) VIRTIO_VSOCK_OP_##name
#define HEADER sizeof(struct virtio_vsock_hdr)

static void save(struct vsock_bench *b, struct writer *w)
{
    struct error err = {.msg = ""};

    state_save(b->dev->ops->state, b->dev, w, &err);
    assert_string_equal(err.msg, "");
}

static void load(struct vsock_bench *b, const struct writer *w)
{
    struct reader r = {.data = w->data, .len = w->len};
    struct error err = {.msg = ""};

    state_load(b->dev->ops->state, b->dev, &r, &err);
    assert_string_equal(err.msg, "");
}

/* Into the same device: its rings are there. */
static void save_and_load(struct vsock_bench *b)
{
    struct writer w = {0};

    device_pause(b->dev);
    save(b, &w);
    load(b, &w);
    free(w.data);
}

static bool event_came(struct vsock_bench *b)
{
    uint32_t written;

    vsock_bench_run(b);
    if (!virtio_driver_take(&b->d, VSOCK_EVENT, NULL, &written))
        return false;
    assert_int_equal(written, sizeof(struct virtio_vsock_event));
    return true;
}

/* The driver has dealt with an event: its buffer is there again. */
static void give_event(struct vsock_bench *b)
{
    const struct virtio_buffer buffer = {virtio_machine_alloc(&b->m, 4), 4, true};
    uint16_t since = b->d.queues[VSOCK_EVENT].avail_idx;

    virtio_driver_add(&b->d, VSOCK_EVENT, &buffer, 1);
    assert_true(virtio_driver_wants_kick(&b->d, VSOCK_EVENT, since));
    virtio_driver_kick(&b->d, VSOCK_EVENT);
    vsock_bench_run(b);
}

static void a_pause_ends_no_connection(void **state)
{
    struct vsock_bench *b = *state;
    uint32_t port;
    int fd = vsock_bench_connect(b, 80, &port), late;

    device_pause(b->dev);
    vsock_bench_say(fd, "x", 1);
    late = vsock_bench_dial(BENCH_SOCKET);
    vsock_bench_say(late, "CONNECT 9\n", 10);
    vsock_bench_expect_none(b);
    device_resume(b->dev);
    assert_int_equal(vsock_bench_expect(b, OP(RW)).len, 1);
    assert_int_equal(vsock_bench_expect(b, OP(REQUEST)).dst_port, 9);
    close(fd);
    close(late);
}

static void connections_are_reset_after_a_restore_and_new_ones_made(void **state)
{
    struct vsock_bench *b = *state;
    uint32_t port, again;
    int fd = vsock_bench_connect(b, 80, &port), late;

    save_and_load(b);
    vsock_bench_expect_end(fd);
    late = vsock_bench_dial(BENCH_SOCKET);
    vsock_bench_say(late, "CONNECT 80\n", 11);
    device_resume(b->dev);
    assert_true(event_came(b));
    vsock_bench_expect_none(b); /* the driver has not dealt with it yet */

    give_event(b);
    again = vsock_bench_expect(b, OP(REQUEST)).src_port;
    assert_int_not_equal(again, port); /* no packet of the old one is taken for one of this */
    vsock_bench_send(b, OP(RESPONSE), again, 80);
    vsock_bench_send(b, OP(CREDIT_REQUEST), port, 80);
    assert_int_equal(vsock_bench_expect(b, OP(RST)).src_port, port);
    close(fd);
    close(late);
}

/* A packet, without waiting until it is taken. */
static void speak(struct vsock_bench *b, unsigned op, uint32_t host_port, uint32_t guest_port)
{
    const struct virtio_buffer buffer = {b->tx, HEADER, false};
    struct virtio_vsock_hdr hdr = vsock_bench_header(b, op, host_port, guest_port, 0);

    memcpy(virtio_machine_at(&b->m, b->tx, HEADER), &hdr, HEADER);
    virtio_driver_add(&b->d, VSOCK_TX, &buffer, 1);
    virtio_driver_kick(&b->d, VSOCK_TX);
}

/* To a driver an answer to it would be an end in good order, if it saw that before the event. */
static void what_the_guest_says_before_it_knows_is_heard_when_it_does(void **state)
{
    struct vsock_bench *b = *state;
    uint32_t port;
    int fd = vsock_bench_connect(b, 80, &port);

    save_and_load(b);
    speak(b, OP(CREDIT_REQUEST), port, 80);
    device_resume(b->dev);
    assert_true(event_came(b));
    vsock_bench_expect_none(b);
    device_pause(b->dev); /* after which each doorbell is rung, whoever did */
    device_resume(b->dev);
    vsock_bench_expect_none(b);
    assert_false(virtio_driver_take(&b->d, VSOCK_TX, NULL, NULL));

    give_event(b);
    assert_int_equal(vsock_bench_expect(b, OP(RST)).src_port, port);
    assert_true(virtio_driver_take(&b->d, VSOCK_TX, NULL, NULL));
    close(fd);
}

static void who_never_deals_with_the_event_is_heard_later(void **state)
{
    struct vsock_bench *b = calloc(1, sizeof(*b));
    uint32_t port;
    int fd;

    (void)state;
    vsock_bench_open(b, "patience.sock", 20000000);
    vsock_bench_start(b, 64);
    fd = vsock_bench_connect(b, 80, &port);
    save_and_load(b);
    speak(b, OP(CREDIT_REQUEST), port, 80);
    device_resume(b->dev);
    virtio_driver_wait(&b->d, VSOCK_TX, NULL);
    assert_int_equal(vsock_bench_expect(b, OP(RST)).src_port, port);
    close(fd);
    vsock_bench_teardown((void **)&b);
}

static void a_pause_is_no_time_in_which_the_event_was_not_dealt_with(void **state)
{
    struct vsock_bench *b = calloc(1, sizeof(*b));
    uint32_t port;
    int fd;

    (void)state;
    vsock_bench_open(b, "patience.sock", 100000000);
    vsock_bench_start(b, 64);
    fd = vsock_bench_connect(b, 80, &port);
    save_and_load(b);
    speak(b, OP(CREDIT_REQUEST), port, 80);
    device_resume(b->dev);
    assert_true(event_came(b));
    device_pause(b->dev);
    usleep(800000); /* longer than a driver has for it */
    device_resume(b->dev);
    for (unsigned i = 0; i < 10; i++) { /* in which a timer that was due would have come */
        usleep(20000);
        vsock_bench_expect_none(b);
    }
    give_event(b);
    assert_int_equal(vsock_bench_expect(b, OP(RST)).src_port, port);
    close(fd);
    vsock_bench_teardown((void **)&b);
}

static void without_connections_a_restore_resets_nothing(void **state)
{
    struct vsock_bench *b = *state;
    struct writer w = {0};
    uint32_t port;

    device_pause(b->dev);
    save(b, &w);
    load(b, &w);
    free(w.data);
    device_resume(b->dev);
    vsock_bench_run(b);
    assert_false(virtio_driver_take(&b->d, VSOCK_EVENT, NULL, NULL));
    close(vsock_bench_connect(b, 80, &port));
}

static void a_reset_that_was_not_told_yet_travels_on(void **state)
{
    struct vsock_bench *b = *state;
    struct writer w = {0}, again = {0};
    uint32_t port;
    int fd = vsock_bench_connect(b, 80, &port);

    device_pause(b->dev);
    save(b, &w);
    load(b, &w);
    save(b, &again); /* it has not run between */
    assert_int_equal(w.len, again.len);
    assert_memory_equal(w.data, again.data, w.len);
    load(b, &again);
    device_resume(b->dev);
    vsock_bench_run(b);
    assert_true(virtio_driver_take(&b->d, VSOCK_EVENT, NULL, NULL));
    free(w.data);
    free(again.data);
    close(fd);
}

static void a_reset_that_was_told_and_not_dealt_with_is_told_again(void **state)
{
    struct vsock_bench *b = *state;
    uint32_t port;
    int fd = vsock_bench_connect(b, 80, &port);

    save_and_load(b);
    device_resume(b->dev);
    assert_true(event_came(b));
    save_and_load(b);
    device_resume(b->dev);
    assert_true(event_came(b));
    give_event(b);
    give_event(b);
    save_and_load(b);
    device_resume(b->dev);
    assert_false(event_came(b));
    close(fd);
}

static void a_driver_that_begins_anew_has_no_connections(void **state)
{
    struct vsock_bench *b = *state;
    uint32_t port;
    int fd = vsock_bench_connect(b, 80, &port), before;

    virtio_driver_reset(&b->d);
    vsock_bench_expect_end(fd);
    before = vsock_bench_dial(BENCH_SOCKET);
    vsock_bench_run(b);
    vsock_bench_expect_end(before); /* there is no driver */
    vsock_bench_start(b, 64);
    close(vsock_bench_connect(b, 80, &port));
    close(fd);
    close(before);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, vsock_bench_setup, vsock_bench_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_pause_ends_no_connection),
        TEST(connections_are_reset_after_a_restore_and_new_ones_made),
        TEST(what_the_guest_says_before_it_knows_is_heard_when_it_does),
        cmocka_unit_test(who_never_deals_with_the_event_is_heard_later),
        cmocka_unit_test(a_pause_is_no_time_in_which_the_event_was_not_dealt_with),
        TEST(without_connections_a_restore_resets_nothing),
        TEST(a_reset_that_was_not_told_yet_travels_on),
        TEST(a_reset_that_was_told_and_not_dealt_with_is_told_again),
        TEST(a_driver_that_begins_anew_has_no_connections),
    };

    log_set_level(LOG_LEVEL_ERROR);
    return cmocka_run_group_tests_name("virtio_vsock_life", tests, folder_enter, folder_leave);
}
