/* SPDX-License-Identifier: Apache-2.0 */
/* virtio_vsock: connections between a guest and programs, by VIRTIO 1.2 "Socket Device". */
#include <linux/virtio_ids.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "folder.h"
#include "virtio_hostile.h"
#include "vmrun/log.h"
#include "vsock_bench.h"

#define OP(name) VIRTIO_VSOCK_OP_##name
#define BOTH (VIRTIO_VSOCK_SHUTDOWN_RCV | VIRTIO_VSOCK_SHUTDOWN_SEND)

static void send_flags(struct vsock_bench *b, unsigned op, uint32_t host_port, uint32_t guest_port,
                       uint32_t flags)
{
    struct virtio_vsock_hdr hdr = vsock_bench_header(b, op, host_port, guest_port, 0);

    hdr.flags = flags;
    vsock_bench_send_raw(b, &hdr, NULL, 0);
}

static void assert_heard(int fd, const char *text)
{
    char heard[64] = "";

    assert_true(strlen(text) < sizeof(heard));
    vsock_bench_hear(fd, heard, strlen(text));
    assert_string_equal(heard, text);
}

static void it_is_a_socket_device_for_streams(void **state)
{
    struct vsock_bench *b = *state;

    assert_int_equal(virtio_driver_pci_read(&b->d, 2, 2), 0x1040 + VIRTIO_ID_VSOCK);
    assert_int_equal(b->d.queue_count, 3);
    assert_int_equal(virtio_driver_offered(&b->d) & 0xffffff, 0);
    assert_int_equal(virtio_driver_config_read(&b->d, 0, 8), BENCH_CID);
}

static void a_program_reaches_a_listener_in_the_guest(void **state)
{
    struct vsock_bench *b = *state;
    struct virtio_vsock_hdr hdr;
    uint32_t port;
    int fd = vsock_bench_connect(b, 80, &port);

    vsock_bench_say(fd, "GET", 3);
    hdr = vsock_bench_expect(b, OP(RW));
    assert_int_equal(hdr.src_port, port);
    assert_int_equal(hdr.dst_port, 80);
    assert_int_equal(hdr.len, 3);
    assert_memory_equal(b->data, "GET", 3);
    vsock_bench_send_data(b, port, 80, "found", 5);
    assert_heard(fd, "found");
    assert_int_equal(vsock_bench_stats(b).opened, 1);
    close(fd);
}

static void what_a_program_says_behind_its_greeting_is_the_guests(void **state)
{
    struct vsock_bench *b = *state;
    struct virtio_vsock_hdr hdr;
    int fd = vsock_bench_dial(BENCH_SOCKET);

    vsock_bench_say(fd, "CONNECT 80\nearly", 16);
    hdr = vsock_bench_expect(b, OP(REQUEST));
    vsock_bench_send(b, OP(RESPONSE), hdr.src_port, 80);
    assert_int_equal(vsock_bench_expect(b, OP(RW)).len, 5);
    assert_memory_equal(b->data, "early", 5);
    close(fd);
}

static void a_greeting_may_come_byte_by_byte(void **state)
{
    struct vsock_bench *b = *state;
    const char *text = "CONNECT 1234\r\n";
    int fd = vsock_bench_dial(BENCH_SOCKET);

    for (unsigned i = 0; text[i]; i++) {
        vsock_bench_expect_none(b);
        vsock_bench_say(fd, text + i, 1);
    }
    assert_int_equal(vsock_bench_expect(b, OP(REQUEST)).dst_port, 1234);
    close(fd);
}

static void a_program_is_hung_up_on_when_nobody_listens(void **state)
{
    struct vsock_bench *b = *state;
    int fd = vsock_bench_dial(BENCH_SOCKET);

    vsock_bench_say(fd, "CONNECT 7\n", 10);
    send_flags(b, OP(RST), vsock_bench_expect(b, OP(REQUEST)).src_port, 7, 0);
    vsock_bench_expect_end(fd);
    vsock_bench_expect_none(b);
    assert_int_equal(vsock_bench_stats(b).refused, 1);
    close(fd);
}

static void the_guest_reaches_a_program(void **state)
{
    struct vsock_bench *b = *state;
    int fd = vsock_bench_connect_out(b, 1000, 5000);

    vsock_bench_send_data(b, 1000, 5000, "hello", 5);
    assert_heard(fd, "hello");
    vsock_bench_say(fd, "hi", 2);
    assert_int_equal(vsock_bench_expect(b, OP(RW)).len, 2);
    close(fd);
}

static void where_no_program_listens_the_guest_is_refused(void **state)
{
    struct vsock_bench *b = *state;
    struct virtio_vsock_hdr hdr;

    vsock_bench_send(b, OP(REQUEST), 4444, 5000);
    hdr = vsock_bench_expect(b, OP(RST));
    assert_int_equal(hdr.src_port, 4444);
    assert_int_equal(hdr.dst_port, 5000);
    assert_int_equal(vsock_bench_stats(b).opened, 0);
}

/* Ends */

static void a_program_that_ends_its_half_may_still_listen(void **state)
{
    struct vsock_bench *b = *state;
    uint32_t port;
    int fd = vsock_bench_connect(b, 80, &port);

    vsock_bench_say(fd, "all", 3);
    shutdown(fd, SHUT_WR);
    assert_int_equal(vsock_bench_expect(b, OP(RW)).len, 3);
    assert_int_equal(vsock_bench_expect(b, OP(SHUTDOWN)).flags, VIRTIO_VSOCK_SHUTDOWN_SEND);
    vsock_bench_send_data(b, port, 80, "answer", 6);
    assert_heard(fd, "answer");
    send_flags(b, OP(SHUTDOWN), port, 80, BOTH);
    vsock_bench_expect(b, OP(RST));
    vsock_bench_expect_end(fd);
    vsock_bench_expect_none(b);
    assert_int_equal(vsock_bench_stats(b).closed, 1);
    close(fd);
}

static void a_guest_that_ends_its_half_may_still_listen(void **state)
{
    struct vsock_bench *b = *state;
    uint32_t port;
    int fd = vsock_bench_connect(b, 80, &port);

    vsock_bench_send_data(b, port, 80, "all", 3);
    send_flags(b, OP(SHUTDOWN), port, 80, VIRTIO_VSOCK_SHUTDOWN_SEND);
    assert_heard(fd, "all");
    vsock_bench_expect_end(fd);
    vsock_bench_say(fd, "answer", 6);
    assert_int_equal(vsock_bench_expect(b, OP(RW)).len, 6);
    close(fd);
    assert_int_equal(vsock_bench_expect(b, OP(SHUTDOWN)).flags, VIRTIO_VSOCK_SHUTDOWN_RCV);
    assert_int_equal(vsock_bench_expect(b, OP(SHUTDOWN)).flags, BOTH);
    send_flags(b, OP(RST), port, 80, 0);
    vsock_bench_expect_none(b);
    assert_int_equal(vsock_bench_stats(b).closed, 1);
}

static void a_guest_that_reads_no_more_makes_the_program_stop(void **state)
{
    struct vsock_bench *b = *state;
    uint32_t port;
    int fd = vsock_bench_connect(b, 80, &port);

    send_flags(b, OP(SHUTDOWN), port, 80, VIRTIO_VSOCK_SHUTDOWN_RCV);
    assert_int_equal(send(fd, "x", 1, MSG_NOSIGNAL), -1);
    vsock_bench_send_data(b, port, 80, "still", 5);
    assert_heard(fd, "still");
    close(fd);
}

static void what_a_program_said_before_it_left_arrives(void **state)
{
    struct vsock_bench *b = *state;
    struct virtio_vsock_hdr hdr;
    uint32_t port, got = 0;
    int fd;

    b->buffer = 1000;
    fd = vsock_bench_connect(b, 80, &port);
    for (unsigned i = 0; i < 50; i++)
        vsock_bench_say(fd,
                        "0123456789012345678901234567890123456789012345678901234567890123456789"
                        "012345678901234567890123456789",
                        100);
    close(fd);
    do {
        if (!vsock_bench_take(b, &hdr)) {
            b->read = got;
            vsock_bench_send(b, OP(CREDIT_UPDATE), port, 80);
            continue;
        }
        if (hdr.op == OP(RW))
            got += hdr.len;
    } while (hdr.op != OP(SHUTDOWN) || hdr.flags != BOTH);
    assert_int_equal(got, 5000);
}

static void what_the_guest_said_before_it_left_arrives(void **state)
{
    static uint8_t data[65536], heard[BENCH_HOST_BUFFER + 4 * 65536];
    struct vsock_bench *b = *state;
    uint32_t port, sent = 0;
    int fd = vsock_bench_connect(b, 80, &port);

    while (vsock_bench_stats(b).tx_waits < 2 && sent < sizeof(heard)) {
        memset(data, (int)(sent >> 14), sizeof(data));
        vsock_bench_send_data(b, port, 80, data, 16384);
        sent += 16384;
    }
    send_flags(b, OP(SHUTDOWN), port, 80, BOTH);
    for (;;) { /* the guest hears that it is over while the program has not read all */
        struct virtio_vsock_hdr hdr;

        assert_true(vsock_bench_take(b, &hdr));
        if (hdr.op == OP(RST))
            break;
        assert_int_equal(hdr.op, OP(CREDIT_UPDATE));
    }
    for (uint32_t at = 0; at < sent; at += 16384) {
        vsock_bench_run(b);
        assert_int_equal(vsock_bench_hear(fd, heard, 16384), 16384);
        assert_int_equal(heard[0], (uint8_t)(at >> 14));
        assert_int_equal(heard[16383], (uint8_t)(at >> 14));
    }
    vsock_bench_run(b);
    vsock_bench_expect_end(fd);
    assert_int_equal(vsock_bench_stats(b).closed, 1);
    close(fd);
}

static void who_does_not_answer_is_given_up(void **state)
{
    struct vsock_bench *b = calloc(1, sizeof(*b));
    int silent, asks;

    (void)state;
    vsock_bench_open(b, "patience.sock", 20000000);
    vsock_bench_start(b, 64);
    silent = vsock_bench_dial("patience.sock");
    asks = vsock_bench_dial("patience.sock");
    vsock_bench_say(silent, "CONN", 4);
    vsock_bench_say(asks, "CONNECT 5\n", 10);
    vsock_bench_expect(b, OP(REQUEST));
    for (unsigned i = 0; i < 200 && vsock_bench_stats(b).refused < 2; i++) {
        usleep(5000);
        vsock_bench_run(b);
    }
    vsock_bench_expect_end(silent);
    vsock_bench_expect_end(asks);
    vsock_bench_expect(b, OP(RST));
    close(silent);
    close(asks);
    vsock_bench_teardown((void **)&b);
}

/* Credit */

static void the_host_sends_as_much_as_the_guest_can_hold(void **state)
{
    struct vsock_bench *b = *state;
    struct virtio_vsock_hdr hdr;
    uint8_t data[3000] = {0};
    uint32_t port, got = 0;
    int fd;

    b->buffer = 5000;
    fd = vsock_bench_connect(b, 80, &port);
    for (unsigned i = 0; i < 4; i++)
        vsock_bench_say(fd, data, sizeof(data));
    while (vsock_bench_take(b, &hdr) && hdr.op == OP(RW))
        got += hdr.len;
    assert_int_equal(got, 5000);
    assert_int_equal(hdr.op, OP(CREDIT_REQUEST));
    vsock_bench_expect_none(b);
    b->read = 4000;
    vsock_bench_send(b, OP(CREDIT_UPDATE), port, 80);
    for (got = 0; vsock_bench_take(b, &hdr) && hdr.op == OP(RW);)
        got += hdr.len;
    assert_int_equal(got, 4000);
    close(fd);
}

static void the_guest_is_told_what_it_may_send(void **state)
{
    static uint8_t data[65536], heard[65536];
    struct vsock_bench *b = *state;
    uint32_t port;
    int fd = vsock_bench_connect(b, 80, &port);

    for (unsigned i = 1; i <= 8; i++) {
        struct virtio_vsock_hdr hdr;

        vsock_bench_send_data(b, port, 80, data, 32768);
        assert_int_equal(vsock_bench_hear(fd, heard, 32768), 32768);
        hdr = vsock_bench_expect(b, OP(CREDIT_UPDATE));
        assert_int_equal(hdr.buf_alloc, BENCH_HOST_BUFFER);
        assert_int_equal(hdr.fwd_cnt, i * 32768);
    }
    vsock_bench_send_data(b, port, 80, data, 100);
    vsock_bench_expect_none(b); /* too little to tell by itself */
    vsock_bench_send(b, OP(CREDIT_REQUEST), port, 80);
    assert_int_equal(vsock_bench_expect(b, OP(CREDIT_UPDATE)).fwd_cnt, 8 * 32768 + 100);
    close(fd);
}

static void a_slow_program_holds_the_guest_up_and_loses_nothing(void **state)
{
    static uint8_t data[16384], heard[16384];
    struct vsock_bench *b = *state;
    struct virtio_vsock_hdr hdr;
    uint32_t port, sent = 0, got = 0, allowed = BENCH_HOST_BUFFER;
    int fd = vsock_bench_connect(b, 80, &port);

    while (allowed - sent >= sizeof(data)) { /* until the device says no more */
        for (unsigned i = 0; i < sizeof(data); i++)
            data[i] = (uint8_t)((sent + i) % 251);
        vsock_bench_send_data(b, port, 80, data, sizeof(data));
        sent += sizeof(data);
        while (vsock_bench_take(b, &hdr))
            allowed = hdr.fwd_cnt + hdr.buf_alloc;
    }
    assert_in_range(sent, BENCH_HOST_BUFFER, 4 * BENCH_HOST_BUFFER);
    while (got < sent) {
        assert_int_equal(vsock_bench_hear(fd, heard, sizeof(heard)), sizeof(heard));
        for (unsigned i = 0; i < sizeof(heard); i++)
            assert_int_equal(heard[i], (uint8_t)((got + i) % 251));
        got += sizeof(heard);
        vsock_bench_run(b);
    }
    while (vsock_bench_take(b, &hdr))
        allowed = hdr.fwd_cnt + hdr.buf_alloc;
    assert_in_range(allowed - sent, BENCH_HOST_BUFFER - 32768, BENCH_HOST_BUFFER);
    close(fd);
}

/* Many */

static void a_thousand_connections_at_once(void **state)
{
    enum { COUNT = 1000 };
    static int fds[COUNT];
    static uint32_t ports[COUNT];
    struct vsock_bench *b = *state;

    for (unsigned i = 0; i < COUNT; i++)
        fds[i] = vsock_bench_connect(b, 80, &ports[i]);
    for (unsigned i = 0; i < COUNT; i++)
        vsock_bench_send_data(b, ports[i], 80, &i, sizeof(i));
    for (unsigned i = 0; i < COUNT; i++) {
        unsigned heard = 0;

        vsock_bench_hear(fds[i], &heard, sizeof(heard));
        assert_int_equal(heard, i);
        vsock_bench_say(fds[i], &i, sizeof(i));
    }
    for (unsigned i = 0; i < COUNT; i++) {
        struct virtio_vsock_hdr hdr = vsock_bench_expect(b, OP(RW));
        unsigned heard;

        memcpy(&heard, b->data, sizeof(heard));
        assert_in_range(heard, 0, COUNT - 1);
        assert_int_equal(hdr.src_port, ports[heard]);
    }
    for (unsigned i = 0; i < COUNT; i++)
        close(fds[i]);
    vsock_bench_run(b);
    assert_int_equal(vsock_bench_stats(b).opened, COUNT);
}

static void nobody_has_to_wait_for_who_has_much_to_say(void **state)
{
    static uint8_t much[100000];
    struct vsock_bench *b = *state;
    struct virtio_vsock_hdr hdr;
    uint32_t loud_port, quiet_port, before = 0;
    int loud = vsock_bench_connect(b, 80, &loud_port);
    int quiet = vsock_bench_connect(b, 80, &quiet_port);

    vsock_bench_say(loud, much, sizeof(much));
    vsock_bench_say(quiet, "me", 2);
    while (vsock_bench_take(b, &hdr) && hdr.src_port != quiet_port)
        before++;
    assert_int_equal(hdr.src_port, quiet_port);
    assert_in_range(before, 0, 2);
    close(loud);
    close(quiet);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, vsock_bench_setup, vsock_bench_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(it_is_a_socket_device_for_streams),
        TEST(a_program_reaches_a_listener_in_the_guest),
        TEST(what_a_program_says_behind_its_greeting_is_the_guests),
        TEST(a_greeting_may_come_byte_by_byte),
        TEST(a_program_is_hung_up_on_when_nobody_listens),
        TEST(the_guest_reaches_a_program),
        TEST(where_no_program_listens_the_guest_is_refused),
        TEST(a_program_that_ends_its_half_may_still_listen),
        TEST(a_guest_that_ends_its_half_may_still_listen),
        TEST(a_guest_that_reads_no_more_makes_the_program_stop),
        TEST(what_a_program_said_before_it_left_arrives),
        TEST(what_the_guest_said_before_it_left_arrives),
        cmocka_unit_test(who_does_not_answer_is_given_up),
        TEST(the_host_sends_as_much_as_the_guest_can_hold),
        TEST(the_guest_is_told_what_it_may_send),
        TEST(a_slow_program_holds_the_guest_up_and_loses_nothing),
        TEST(a_thousand_connections_at_once),
        TEST(nobody_has_to_wait_for_who_has_much_to_say),
    };

    log_set_level(LOG_LEVEL_ERROR);
    return cmocka_run_group_tests_name("virtio_vsock", tests, folder_enter, folder_leave);
}
