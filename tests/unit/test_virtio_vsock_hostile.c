/* SPDX-License-Identifier: Apache-2.0 */
/* virtio_vsock against guests that break its rules, and programs that do. */
#include <linux/virtio_config.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../src/devices/virtio_vsock.h"
#include "folder.h"
#include "virtio_hostile.h"
#include "vmrun/log.h"
#include "vsock_bench.h"

#define OP(name) VIRTIO_VSOCK_OP_##name
#define BOTH (VIRTIO_VSOCK_SHUTDOWN_RCV | VIRTIO_VSOCK_SHUTDOWN_SEND)

static bool is_broken(struct vsock_bench *b)
{
    return virtio_driver_status(&b->d) & VIRTIO_CONFIG_S_NEEDS_RESET;
}

static void assert_works(struct vsock_bench *b)
{
    uint32_t port;
    int fd = vsock_bench_connect(b, 80, &port);

    vsock_bench_say(fd, "?", 1);
    assert_int_equal(vsock_bench_expect(b, OP(RW)).src_port, port);
    close(fd);
}

/* Packets */

static void packets_of_connections_that_never_were_are_reset(void **state)
{
    static const unsigned ops[] = {
        0, OP(RESPONSE), OP(SHUTDOWN), OP(RW), OP(CREDIT_UPDATE), OP(CREDIT_REQUEST), 8, 0xffff};
    struct vsock_bench *b = *state;
    struct virtio_vsock_hdr hdr;

    for (unsigned i = 0; i < sizeof(ops) / sizeof(ops[0]); i++) {
        vsock_bench_send(b, ops[i], 100 + i, 200 + i);
        hdr = vsock_bench_expect(b, OP(RST));
        assert_int_equal(hdr.src_port, 100 + i);
        assert_int_equal(hdr.dst_port, 200 + i);
    }
    vsock_bench_send(b, OP(RST), 1, 2);
    vsock_bench_expect_none(b); /* a reset is not answered */
    assert_works(b);
}

static void packets_of_other_kinds_are_reset(void **state)
{
    struct vsock_bench *b = *state;
    struct virtio_vsock_hdr hdr = vsock_bench_header(b, OP(REQUEST), 5, 6, 0);

    hdr.type = VIRTIO_VSOCK_TYPE_SEQPACKET;
    vsock_bench_send_raw(b, &hdr, NULL, 0);
    vsock_bench_expect(b, OP(RST));
    hdr.type = 77;
    vsock_bench_send_raw(b, &hdr, NULL, 0);
    vsock_bench_expect(b, OP(RST));
    assert_int_equal(vsock_bench_stats(b).dropped, 2);
}

static void packets_from_or_to_strangers_are_dropped(void **state)
{
    struct vsock_bench *b = *state;
    struct virtio_vsock_hdr hdr = vsock_bench_header(b, OP(REQUEST), 5, 6, 0);

    hdr.src_cid = BENCH_CID + (UINT64_C(1) << 32);
    vsock_bench_send_raw(b, &hdr, NULL, 0);
    hdr.src_cid = BENCH_CID;
    hdr.dst_cid = 9;
    vsock_bench_send_raw(b, &hdr, NULL, 0);
    vsock_bench_expect_none(b);
    assert_int_equal(vsock_bench_stats(b).dropped, 2);
}

static void a_packet_shorter_than_its_header_is_dropped(void **state)
{
    struct vsock_bench *b = *state;
    const struct virtio_buffer buffer = {b->tx, VSOCK_HEADER - 1, false};

    assert_int_equal(virtio_driver_request(&b->d, VSOCK_TX, &buffer, 1), 0);
    assert_int_equal(vsock_bench_stats(b).dropped, 1);
    assert_works(b);
}

static void a_length_beyond_the_packet_resets_the_connection(void **state)
{
    struct vsock_bench *b = *state;
    struct virtio_vsock_hdr hdr;
    uint32_t port;
    int fd = vsock_bench_connect(b, 80, &port);

    hdr = vsock_bench_header(b, OP(RW), port, 80, 11);
    vsock_bench_send_raw(b, &hdr, "ten bytes.", 10);
    vsock_bench_expect(b, OP(RST));
    vsock_bench_expect_end(fd);
    close(fd);
    hdr.len = UINT32_MAX;
    vsock_bench_send_raw(b, &hdr, "ten bytes.", 10);
    vsock_bench_expect(b, OP(RST));
    assert_works(b);
}

static void who_sends_without_credit_is_reset(void **state)
{
    static uint8_t data[65536];
    struct vsock_bench *b = *state;
    struct virtio_vsock_hdr hdr = {.op = 0};
    uint32_t port;
    int fd = vsock_bench_connect(b, 80, &port);

    for (unsigned i = 0; i < 16 && hdr.op != OP(RST); i++) {
        vsock_bench_send_data(b, port, 80, data, sizeof(data));
        while (hdr.op != OP(RST) && vsock_bench_take(b, &hdr))
            ;
    }
    assert_int_equal(hdr.op, OP(RST));
    vsock_bench_expect_none(b);
    close(fd);
    assert_works(b);
}

static void who_lies_about_its_credit_harms_itself_alone(void **state)
{
    struct vsock_bench *b = *state;
    uint32_t port;
    int fd = vsock_bench_connect(b, 80, &port);

    b->read = 1000; /* of nothing that was sent */
    b->buffer = 500;
    vsock_bench_send(b, OP(CREDIT_UPDATE), port, 80);
    vsock_bench_say(fd, "data", 4);
    vsock_bench_expect(b, OP(CREDIT_REQUEST));
    vsock_bench_expect_none(b);
    b->read = 0;
    b->buffer = 262144;
    assert_works(b);
    close(fd);
}

static struct vsock_conn *conn_of(struct vsock_bench *b, uint32_t port)
{
    struct virtio_vsock *v = container_of(b->dev, struct virtio_vsock, vdev.pci.dev);

    for (unsigned i = 0; i < VSOCK_CONNECTIONS; i++)
        if (v->conns[i].state == VSOCK_OPEN && v->conns[i].host_port == port)
            return &v->conns[i];
    fail_msg("there is no such connection");
    return NULL;
}

static void counters_wrap(void **state)
{
    static uint8_t data[3000], heard[3000];
    struct vsock_bench *b = *state;
    uint32_t port, near = UINT32_MAX - 4000;
    int fd = vsock_bench_connect(b, 80, &port);
    struct vsock_conn *c = conn_of(b, port);
    uint32_t fwd_cnt;

    b->buffer = 5000;
    b->read = c->sent = near; /* as after so many bytes each way */
    c->got = c->passed = c->told = near;
    for (unsigned i = 1; i <= 20; i++) {
        vsock_bench_send_data(b, port, 80, data, sizeof(data));
        assert_int_equal(vsock_bench_hear(fd, heard, sizeof(heard)), sizeof(heard));
        vsock_bench_say(fd, data, sizeof(data));
        fwd_cnt = vsock_bench_expect(b, OP(RW)).fwd_cnt;
        assert_int_equal(fwd_cnt, near + 3000 * i);
        b->read += 3000;
    }
    b->read -= 2000; /* so much is not read yet */
    vsock_bench_send(b, OP(CREDIT_UPDATE), port, 80);
    vsock_bench_say(fd, data, sizeof(data));
    vsock_bench_say(fd, data, sizeof(data));
    assert_int_equal(vsock_bench_expect(b, OP(RW)).len, 3000);
    vsock_bench_expect(b, OP(CREDIT_REQUEST));
    close(fd);
}

static void a_port_that_is_asked_for_twice_ends(void **state)
{
    struct vsock_bench *b = *state;
    int fd = vsock_bench_connect_out(b, 1000, 5000), again;

    vsock_bench_send(b, OP(REQUEST), 1000, 5000);
    vsock_bench_expect(b, OP(RST));
    vsock_bench_expect_end(fd);
    again = vsock_bench_connect_out(b, 1000, 5000);
    close(again);
    close(fd);
}

static void a_guest_that_answers_before_it_is_asked_is_reset(void **state)
{
    struct vsock_bench *b = *state;
    struct virtio_vsock_hdr hdr;
    uint32_t port;
    int fd = vsock_bench_dial(BENCH_SOCKET);

    vsock_bench_say(fd, "CONNECT 5\n", 10);
    hdr = vsock_bench_expect(b, OP(REQUEST));
    vsock_bench_send_data(b, hdr.src_port, 5, "x", 1);
    vsock_bench_expect(b, OP(RST));
    vsock_bench_expect_end(fd);
    close(fd);
    fd = vsock_bench_connect(b, 5, &port);
    vsock_bench_send(b, OP(RESPONSE), port, 5);
    vsock_bench_expect(b, OP(RST));
    vsock_bench_expect_end(fd);
    close(fd);
}

static void data_after_its_end_resets(void **state)
{
    struct vsock_bench *b = *state;
    struct virtio_vsock_hdr hdr;
    uint32_t port;
    int fd = vsock_bench_connect(b, 80, &port);

    hdr = vsock_bench_header(b, OP(SHUTDOWN), port, 80, 0);
    hdr.flags = VIRTIO_VSOCK_SHUTDOWN_SEND | 0xfffffff8;
    vsock_bench_send_raw(b, &hdr, NULL, 0);
    vsock_bench_send_data(b, port, 80, "x", 1);
    vsock_bench_expect(b, OP(RST));
    close(fd);
}

/* Buffers */

static void a_guest_that_takes_no_answers_is_not_listened_to(void **state)
{
    struct vsock_bench *b = *state;
    unsigned taken = 0;

    vsock_bench_start(b, 0);
    for (unsigned i = 0; i < 100; i++) {
        const struct virtio_buffer buffer = {b->tx, VSOCK_HEADER, false};
        struct virtio_vsock_hdr hdr = vsock_bench_header(b, OP(RW), i, 2, 0);

        memcpy(virtio_machine_at(&b->m, b->tx, VSOCK_HEADER), &hdr, VSOCK_HEADER);
        virtio_driver_add(&b->d, VSOCK_TX, &buffer, 1);
        virtio_driver_kick(&b->d, VSOCK_TX);
    }
    vsock_bench_run(b);
    while (virtio_driver_take(&b->d, VSOCK_TX, NULL, NULL))
        taken++;
    assert_int_equal(taken, VSOCK_RESETS);
    for (unsigned i = 0; i < 100; i++) { /* one answer at a time lets one more through */
        const struct virtio_buffer buffer = {b->rx, 4096, true};

        assert_int_equal(virtio_driver_request(&b->d, VSOCK_RX, &buffer, 1), VSOCK_HEADER);
        vsock_bench_run(b);
    }
    while (virtio_driver_take(&b->d, VSOCK_TX, NULL, NULL))
        taken++;
    assert_int_equal(taken, 100);
}

static void a_receive_buffer_without_room_breaks_the_ring(void **state)
{
    struct vsock_bench *b = *state;
    struct virtio_buffer buffer = {.bytes = VSOCK_HEADER, .write = true};

    vsock_bench_start(b, 0);
    buffer.gpa = b->rx;
    virtio_driver_add(&b->d, VSOCK_RX, &buffer, 1);
    virtio_driver_kick(&b->d, VSOCK_RX);
    vsock_bench_send(b, OP(RW), 1, 2);
    assert_true(is_broken(b));
    vsock_bench_start(b, 64);
    assert_works(b);
}

static void an_event_buffer_without_room_breaks_the_ring(void **state)
{
    struct vsock_bench *b = *state;
    struct virtio_vsock *v = container_of(b->dev, struct virtio_vsock, vdev.pci.dev);
    struct virtio_buffer buffer = {.gpa = b->rx, .bytes = 3, .write = true};

    virtio_driver_start(&b->d, UINT64_MAX);
    v->reset_pending = true; /* as after a restore */
    virtio_driver_add(&b->d, VSOCK_EVENT, &buffer, 1);
    virtio_driver_kick(&b->d, VSOCK_EVENT);
    vsock_bench_run(b);
    assert_true(is_broken(b));
    vsock_bench_start(b, 64);
    assert_works(b);
}

static void a_ring_that_broke_takes_its_connections_along(void **state)
{
    struct vsock_bench *b = *state;
    const struct virtio_buffer beyond = {UINT64_C(1) << 40, 64, false};
    uint32_t port;
    int fd = vsock_bench_connect(b, 80, &port), late;

    virtio_driver_add(&b->d, VSOCK_TX, &beyond, 1);
    virtio_driver_kick(&b->d, VSOCK_TX);
    vsock_bench_run(b);
    assert_true(is_broken(b));
    late = vsock_bench_dial(BENCH_SOCKET);
    vsock_bench_run(b);
    vsock_bench_expect_end(late);
    vsock_bench_expect_end(fd);
    vsock_bench_start(b, 64);
    assert_works(b);
    close(fd);
    close(late);
}

/* Programs */

static void who_greets_otherwise_is_hung_up_on(void **state)
{
    struct vsock_bench *b = *state;
    int fd = vsock_bench_dial(BENCH_SOCKET);

    vsock_bench_say(fd, "GET / HTTP/1.1\r\n\r\n", 18);
    vsock_bench_expect_none(b);
    close(fd);
    assert_int_equal(vsock_bench_stats(b).refused, 1);
    assert_works(b);
}

static void more_programs_than_there_is_room_for_are_hung_up_on(void **state)
{
    enum { EXTRA = 50 };
    static int fds[VSOCK_CONNECTIONS + EXTRA];
    struct vsock_bench *b = *state;

    for (unsigned i = 0; i < VSOCK_CONNECTIONS + EXTRA; i++) {
        fds[i] = vsock_bench_dial(BENCH_SOCKET);
        vsock_bench_run(b);
    }
    for (unsigned i = 0; i < EXTRA; i++)
        vsock_bench_expect_end(fds[VSOCK_CONNECTIONS + i]);
    assert_int_equal(vsock_bench_stats(b).refused, EXTRA);
    for (unsigned i = 0; i < VSOCK_CONNECTIONS + EXTRA; i++)
        close(fds[i]);
    for (unsigned i = 0; i < 50; i++)
        vsock_bench_run(b);
    assert_works(b);
}

static void ten_thousand_that_come_and_go_leave_nothing(void **state)
{
    struct vsock_bench *b = *state;

    for (unsigned i = 0; i < 10000; i++) {
        int fd = vsock_bench_dial(BENCH_SOCKET);

        if (i % 2)
            vsock_bench_say(fd, "CONNECT 9\n", 10);
        if (i % 16 == 0)
            virtio_machine_run(&b->m);
        close(fd);
    }
    for (unsigned i = 0; i < 100; i++) {
        struct virtio_vsock_hdr hdr;

        while (vsock_bench_take(b, &hdr))
            ;
    }
    assert_int_equal(container_of(b->dev, struct virtio_vsock, vdev.pci.dev)->used, 0);
    assert_works(b);
}

static void who_leaves_while_the_guest_is_asked_resets_it(void **state)
{
    struct vsock_bench *b = *state;
    struct virtio_vsock_hdr hdr;
    int fd = vsock_bench_dial(BENCH_SOCKET);

    vsock_bench_say(fd, "CONNECT 5\n", 10);
    hdr = vsock_bench_expect(b, OP(REQUEST));
    close(fd);
    assert_int_equal(vsock_bench_expect(b, OP(RST)).src_port, hdr.src_port);
    vsock_bench_send(b, OP(RESPONSE), hdr.src_port, 5); /* it was on its way */
    vsock_bench_expect(b, OP(RST));
    vsock_bench_expect_none(b);
}

static void descriptors_that_a_program_sends_are_not_kept(void **state)
{
    struct vsock_bench *b = *state;
    char control[CMSG_SPACE(sizeof(int))] = {0}, byte = 'x';
    struct iovec iov = {.iov_base = &byte, .iov_len = 1};
    struct msghdr message = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = sizeof(control)};
    struct cmsghdr *cmsg = CMSG_FIRSTHDR(&message);
    uint32_t port;
    int fd = vsock_bench_connect(b, 80, &port), pair[2];

    assert_int_equal(pipe(pair), 0);
    cmsg->cmsg_level = SOL_SOCKET;
    cmsg->cmsg_type = SCM_RIGHTS;
    cmsg->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(cmsg), &pair[1], sizeof(int));
    assert_int_equal(sendmsg(fd, &message, 0), 1);
    vsock_bench_say(fd, "y", 1);
    close(pair[1]);
    assert_int_equal(vsock_bench_expect(b, OP(RW)).len, 1);
    assert_int_equal(vsock_bench_expect(b, OP(RW)).len, 1);
    assert_int_equal(read(pair[0], &byte, 1), 0); /* nobody has the other end open */
    close(pair[0]);
    close(fd);
}

/* The suites */

struct world {
    struct virtio_machine *m;
    struct device *dev;
    struct vsock_host *host;
    char path[32];
    struct world *next;
};
static struct world *worlds;

static int create(void *opaque, struct virtio_machine *m, struct device **ret_dev,
                  struct error *err)
{
    static unsigned number;
    struct virtio_vsock_params params = {.cid = BENCH_CID, .loop = m->loop};
    struct world *w = calloc(1, sizeof(*w));
    int r;

    (void)opaque;
    assert_non_null(w);
    snprintf(w->path, sizeof(w->path), "suite%u", number++);
    assert_int_equal(vsock_host_open(w->path, &w->host, err), 0);
    params.host = w->host;
    r = virtio_vsock_create(m->platform, m->host, &params, ret_dev, err);
    if (r < 0) {
        vsock_host_close(w->host);
        free(w);
        return r;
    }
    w->m = m;
    w->dev = *ret_dev;
    w->next = worlds;
    worlds = w;
    return 0;
}

static void end_worlds(void)
{
    while (worlds) {
        struct world *next = worlds->next;

        vsock_host_close(worlds->host);
        free(worlds);
        worlds = next;
    }
}

/* A packet of nothing is answered with a reset. */
static void works(void *opaque, struct virtio_driver *d)
{
    const struct virtio_vsock_hdr hdr = {.src_cid = BENCH_CID,
                                         .dst_cid = 2,
                                         .src_port = 1,
                                         .dst_port = 2,
                                         .type = VIRTIO_VSOCK_TYPE_STREAM,
                                         .op = OP(RW)};
    const struct virtio_buffer out = {virtio_machine_alloc(d->m, VSOCK_HEADER), VSOCK_HEADER,
                                      false};
    const struct virtio_buffer in = {virtio_machine_alloc(d->m, 4096), 4096, true};

    (void)opaque;
    memcpy(virtio_machine_at(d->m, out.gpa, VSOCK_HEADER), &hdr, VSOCK_HEADER);
    virtio_driver_add(d, VSOCK_RX, &in, 1);
    virtio_driver_kick(d, VSOCK_RX);
    assert_int_equal(virtio_driver_request(d, VSOCK_TX, &out, 1), 0);
    assert_int_equal(virtio_driver_wait(d, VSOCK_RX, NULL), VSOCK_HEADER);
}

static unsigned header(void *opaque, uint8_t at[64])
{
    const struct virtio_vsock_hdr hdr = {.src_cid = BENCH_CID,
                                         .dst_cid = 2,
                                         .src_port = 1,
                                         .dst_port = 2,
                                         .type = VIRTIO_VSOCK_TYPE_STREAM,
                                         .op = OP(RW)};

    (void)opaque;
    memcpy(at, &hdr, VSOCK_HEADER);
    return VSOCK_HEADER;
}

static void program_comes_and_goes(const char *path)
{
    int fd = vsock_bench_dial(path);

    vsock_bench_say(fd, "CONNECT 5\n", 10);
    close(fd);
}

/* Something for the guest, so that the device looks for a buffer. */
static void settle(void *opaque, struct device *dev)
{
    struct virtio_vsock *v = container_of(dev, struct virtio_vsock, vdev.pci.dev);
    const struct virtio_kind *of = opaque;
    struct world *w = worlds;

    while (w->dev != dev)
        w = w->next;
    if (of->queue == VSOCK_RX)
        program_comes_and_goes(w->path);
    if (of->queue == VSOCK_EVENT) {
        v->reset_pending = v->vdev.started;
        virtio_ring(&v->vdev, VSOCK_EVENT);
    }
    for (unsigned i = 0; i < 4; i++)
        virtio_machine_run(w->m);
}

static struct virtio_kind kind = {
    .create = create, .works = works, .header = header, .opaque = &kind};

static void hostile_rings_do_no_harm(void **state)
{
    (void)state;
    kind.settle = settle;
    for (kind.queue = VSOCK_RX; kind.queue <= VSOCK_EVENT; kind.queue++) {
        hostile_run(&kind);
        end_worlds();
    }
}

static void it_conforms(void **state)
{
    (void)state;
    kind.settle = NULL;
    virtio_conformance_run(&kind);
    end_worlds();
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, vsock_bench_setup, vsock_bench_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(packets_of_connections_that_never_were_are_reset),
        TEST(packets_of_other_kinds_are_reset),
        TEST(packets_from_or_to_strangers_are_dropped),
        TEST(a_packet_shorter_than_its_header_is_dropped),
        TEST(a_length_beyond_the_packet_resets_the_connection),
        TEST(who_sends_without_credit_is_reset),
        TEST(who_lies_about_its_credit_harms_itself_alone),
        TEST(counters_wrap),
        TEST(a_port_that_is_asked_for_twice_ends),
        TEST(a_guest_that_answers_before_it_is_asked_is_reset),
        TEST(data_after_its_end_resets),
        TEST(a_guest_that_takes_no_answers_is_not_listened_to),
        TEST(a_receive_buffer_without_room_breaks_the_ring),
        TEST(an_event_buffer_without_room_breaks_the_ring),
        TEST(a_ring_that_broke_takes_its_connections_along),
        TEST(who_greets_otherwise_is_hung_up_on),
        TEST(more_programs_than_there_is_room_for_are_hung_up_on),
        TEST(ten_thousand_that_come_and_go_leave_nothing),
        TEST(who_leaves_while_the_guest_is_asked_resets_it),
        TEST(descriptors_that_a_program_sends_are_not_kept),
        cmocka_unit_test(hostile_rings_do_no_harm),
        cmocka_unit_test(it_conforms),
    };

    log_set_level(LOG_LEVEL_ERROR);
    return cmocka_run_group_tests_name("virtio_vsock_hostile", tests, folder_enter, folder_leave);
}
