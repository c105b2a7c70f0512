/* SPDX-License-Identifier: Apache-2.0 */
#include "vsock_bench.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#define HEADER sizeof(struct virtio_vsock_hdr)
#define RX_BYTES 4096
#define RX_BUFFERS 64
#define EVENT_BUFFERS 8
#define PATIENCE_NS UINT64_C(60000000000)
#define WAIT_SECONDS 5

void vsock_bench_run(struct vsock_bench *b)
{
    for (unsigned i = 0; i < 4; i++)
        virtio_machine_run(&b->m);
}

void vsock_bench_open(struct vsock_bench *b, const char *path, uint64_t patience_ns)
{
    struct virtio_vsock_params params = {.cid = BENCH_CID, .patience_ns = patience_ns};
    struct error err = {.msg = ""};

    b->path = path;
    virtio_machine_init(&b->m, NULL);
    (void)vsock_host_open(path, &b->host, &err);
    assert_string_equal(err.msg, "");
    params.host = b->host;
    params.loop = b->m.loop;
    (void)virtio_vsock_create(b->m.platform, b->m.host, &params, &b->dev, &err);
    assert_string_equal(err.msg, "");
    virtio_driver_init(&b->d, &b->m, b->dev);
}

static void give_rx(struct vsock_bench *b, uint64_t gpa)
{
    const struct virtio_buffer buffer = {gpa, RX_BYTES, true};

    virtio_driver_add(&b->d, VSOCK_RX, &buffer, 1);
}

void vsock_bench_start(struct vsock_bench *b, unsigned rx_buffers)
{
    virtio_driver_start(&b->d, UINT64_MAX);
    b->rx_buffers = rx_buffers;
    b->rx_taken = 0;
    b->buffer = 262144;
    b->read = 0;
    b->tx = virtio_machine_alloc(&b->m, HEADER + 65536);
    b->rx = virtio_machine_alloc(&b->m, (uint64_t)RX_BUFFERS * RX_BYTES);
    for (unsigned i = 0; i < rx_buffers; i++)
        give_rx(b, b->rx + (uint64_t)i * RX_BYTES);
    for (unsigned i = 0; i < EVENT_BUFFERS; i++) {
        const struct virtio_buffer buffer = {virtio_machine_alloc(&b->m, 4), 4, true};

        virtio_driver_add(&b->d, VSOCK_EVENT, &buffer, 1);
    }
    virtio_driver_kick(&b->d, VSOCK_RX);
    virtio_driver_kick(&b->d, VSOCK_EVENT);
    vsock_bench_run(b);
}

int vsock_bench_setup(void **state)
{
    struct vsock_bench *b = calloc(1, sizeof(*b));

    assert_non_null(b);
    vsock_bench_open(b, BENCH_SOCKET, PATIENCE_NS);
    vsock_bench_start(b, RX_BUFFERS);
    *state = b;
    return 0;
}

int vsock_bench_teardown(void **state)
{
    struct vsock_bench *b = *state;

    device_destroy(b->dev);
    vsock_host_close(b->host);
    virtio_machine_fini(&b->m);
    free(b);
    return 0;
}

/* Packets */

struct virtio_vsock_hdr vsock_bench_header(const struct vsock_bench *b, unsigned op,
                                           uint32_t host_port, uint32_t guest_port, uint32_t len)
{
    return (struct virtio_vsock_hdr){.src_cid = BENCH_CID,
                                     .dst_cid = 2,
                                     .src_port = guest_port,
                                     .dst_port = host_port,
                                     .len = len,
                                     .type = VIRTIO_VSOCK_TYPE_STREAM,
                                     .op = (uint16_t)op,
                                     .buf_alloc = b->buffer,
                                     .fwd_cnt = b->read};
}

void vsock_bench_send_raw(struct vsock_bench *b, const struct virtio_vsock_hdr *hdr,
                          const void *data, uint32_t len)
{
    const struct virtio_buffer buffers[2] = {{b->tx, HEADER, false}, {b->tx + HEADER, len, false}};

    memcpy(virtio_machine_at(&b->m, b->tx, HEADER), hdr, HEADER);
    if (len)
        memcpy(virtio_machine_at(&b->m, b->tx + HEADER, len), data, len);
    virtio_driver_add(&b->d, VSOCK_TX, buffers, len ? 2 : 1);
    virtio_driver_kick(&b->d, VSOCK_TX);
    vsock_bench_run(b);
    assert_int_equal(virtio_driver_wait(&b->d, VSOCK_TX, NULL), 0);
}

void vsock_bench_send(struct vsock_bench *b, unsigned op, uint32_t host_port, uint32_t guest_port)
{
    struct virtio_vsock_hdr hdr = vsock_bench_header(b, op, host_port, guest_port, 0);

    vsock_bench_send_raw(b, &hdr, NULL, 0);
}

void vsock_bench_send_data(struct vsock_bench *b, uint32_t host_port, uint32_t guest_port,
                           const void *data, uint32_t len)
{
    struct virtio_vsock_hdr hdr =
        vsock_bench_header(b, VIRTIO_VSOCK_OP_RW, host_port, guest_port, len);

    vsock_bench_send_raw(b, &hdr, data, len);
}

bool vsock_bench_take(struct vsock_bench *b, struct virtio_vsock_hdr *ret_hdr)
{
    uint32_t written;
    uint64_t gpa;

    vsock_bench_run(b);
    if (!virtio_driver_take(&b->d, VSOCK_RX, NULL, &written))
        return false;
    gpa = b->rx + (uint64_t)(b->rx_taken++ % b->rx_buffers) * RX_BYTES;
    assert_in_range(written, HEADER, RX_BYTES);
    memcpy(ret_hdr, virtio_machine_at(&b->m, gpa, HEADER), HEADER);
    assert_int_equal(written, HEADER + ret_hdr->len);
    memcpy(b->data, virtio_machine_at(&b->m, gpa + HEADER, RX_BYTES - HEADER), ret_hdr->len);
    assert_int_equal(ret_hdr->src_cid, 2);
    assert_int_equal(ret_hdr->dst_cid, BENCH_CID);
    assert_int_equal(ret_hdr->type, VIRTIO_VSOCK_TYPE_STREAM);
    give_rx(b, gpa);
    virtio_driver_kick(&b->d, VSOCK_RX);
    return true;
}

struct virtio_vsock_hdr vsock_bench_expect(struct vsock_bench *b, unsigned op)
{
    struct virtio_vsock_hdr hdr;

    if (!vsock_bench_take(b, &hdr))
        fail_msg("no packet; operation %u was expected", op);
    assert_int_equal(hdr.op, op);
    return hdr;
}

void vsock_bench_expect_none(struct vsock_bench *b)
{
    struct virtio_vsock_hdr hdr;

    if (vsock_bench_take(b, &hdr))
        fail_msg("operation %u came", hdr.op);
}

/* Programs of the host */

static int unix_socket(const char *path, struct sockaddr_un *ret_addr)
{
    const struct timeval limit = {.tv_sec = WAIT_SECONDS};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
    *ret_addr = (struct sockaddr_un){.sun_family = AF_UNIX};
    assert_true(strlen(path) < sizeof(ret_addr->sun_path));
    memcpy(ret_addr->sun_path, path, strlen(path));
    return fd;
}

int vsock_bench_dial(const char *path)
{
    struct sockaddr_un addr;
    int fd = unix_socket(path, &addr);

    assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    return fd;
}

void vsock_bench_say(int fd, const void *data, size_t len)
{
    assert_int_equal(send(fd, data, len, MSG_NOSIGNAL), len);
}

size_t vsock_bench_hear(int fd, void *data, size_t len)
{
    size_t got = 0;
    ssize_t n;

    while (got < len && (n = recv(fd, (uint8_t *)data + got, len - got, 0)) > 0)
        got += (size_t)n;
    return got;
}

void vsock_bench_expect_end(int fd)
{
    char byte;

    assert_int_equal(recv(fd, &byte, 1, 0), 0);
}

int vsock_bench_listen(uint32_t port)
{
    struct sockaddr_un addr;
    char path[64];
    int fd;

    snprintf(path, sizeof(path), BENCH_SOCKET "_%u", port);
    unlink(path);
    fd = unix_socket(path, &addr);
    assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    assert_int_equal(listen(fd, 16), 0);
    return fd;
}

int vsock_bench_accept(int listener)
{
    const struct timeval limit = {.tv_sec = WAIT_SECONDS};
    int fd = accept(listener, NULL, NULL);

    assert_true(fd >= 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    return fd;
}

int vsock_bench_connect(struct vsock_bench *b, uint32_t guest_port, uint32_t *ret_port)
{
    struct virtio_vsock_hdr hdr;
    char text[40], answer[40] = "";
    int fd = vsock_bench_dial(b->path);

    snprintf(text, sizeof(text), "CONNECT %u\n", guest_port);
    vsock_bench_say(fd, text, strlen(text));
    vsock_bench_run(b);
    hdr = vsock_bench_expect(b, VIRTIO_VSOCK_OP_REQUEST);
    assert_int_equal(hdr.dst_port, guest_port);
    vsock_bench_send(b, VIRTIO_VSOCK_OP_RESPONSE, hdr.src_port, guest_port);
    snprintf(text, sizeof(text), "OK %u\n", hdr.src_port);
    vsock_bench_hear(fd, answer, strlen(text));
    assert_string_equal(answer, text);
    *ret_port = hdr.src_port;
    return fd;
}

int vsock_bench_connect_out(struct vsock_bench *b, uint32_t host_port, uint32_t guest_port)
{
    int listener = vsock_bench_listen(host_port), fd;

    vsock_bench_send(b, VIRTIO_VSOCK_OP_REQUEST, host_port, guest_port);
    fd = vsock_bench_accept(listener);
    close(listener);
    vsock_bench_expect(b, VIRTIO_VSOCK_OP_RESPONSE);
    return fd;
}

struct virtio_vsock_stats vsock_bench_stats(const struct vsock_bench *b)
{
    struct virtio_vsock_stats stats;

    virtio_vsock_stats(b->dev, &stats);
    return stats;
}
