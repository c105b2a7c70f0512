/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VSOCK_BENCH_H
#define VSOCK_BENCH_H

/*
 * A virtio-vsock device with the real Unix sockets of its host in the working folder (folder.h), a
 * driver that speaks packets, and programs of the host. What goes wrong fails the running test.
 */

#include <linux/virtio_vsock.h>

#include "virtio_driver.h"
#include "vmrun/virtio_devices.h"

#define BENCH_SOCKET "v.sock"
#define BENCH_CID 42
#define BENCH_HOST_BUFFER 131072 /* what the device says that it keeps */

enum { VSOCK_RX = 0, VSOCK_TX = 1, VSOCK_EVENT = 2 };

struct vsock_bench {
    const char *path;
    struct virtio_machine m;
    struct vsock_host *host;
    struct device *dev;
    struct virtio_driver d;
    uint64_t rx, tx;               /* guest memory: of buffers for packets, and for one packet */
    unsigned rx_buffers, rx_taken; /* they go round */
    uint32_t buffer, read;         /* what the driver says of its own buffer */
    uint8_t data[65536];           /* of the last packet */
};

/* For cmocka, in a folder: a device with a driver that has given it all its buffers. */
int vsock_bench_setup(void **state);
int vsock_bench_teardown(void **state);
void vsock_bench_open(struct vsock_bench *b, const char *path, uint64_t patience_ns);
void vsock_bench_start(struct vsock_bench *b,
                       unsigned rx_buffers); /* the driver, from a reset on */
void vsock_bench_run(struct vsock_bench *b);

/* A header as the driver writes it. */
struct virtio_vsock_hdr vsock_bench_header(const struct vsock_bench *b, unsigned op,
                                           uint32_t host_port, uint32_t guest_port, uint32_t len);
/* As it stands, with so many bytes behind it; at most 64 KiB. */
void vsock_bench_send_raw(struct vsock_bench *b, const struct virtio_vsock_hdr *hdr,
                          const void *data, uint32_t len);
void vsock_bench_send(struct vsock_bench *b, unsigned op, uint32_t host_port, uint32_t guest_port);
void vsock_bench_send_data(struct vsock_bench *b, uint32_t host_port, uint32_t guest_port,
                           const void *data, uint32_t len);
/* The next packet for the guest; its data is in b->data, and the buffer given again. False: none.
 */
bool vsock_bench_take(struct vsock_bench *b, struct virtio_vsock_hdr *ret_hdr);
/* It is there, and of this kind. */
struct virtio_vsock_hdr vsock_bench_expect(struct vsock_bench *b, unsigned op);
void vsock_bench_expect_none(struct vsock_bench *b);

/* Programs of the host; descriptors block for 5 s at most. */
int vsock_bench_dial(const char *path);
void vsock_bench_say(int fd, const void *data, size_t len);
/* So many bytes, or the end before: what there was. */
size_t vsock_bench_hear(int fd, void *data, size_t len);
void vsock_bench_expect_end(int fd); /* nothing comes any more */
int vsock_bench_listen(uint32_t port);
int vsock_bench_accept(int listener);

/* A connection of a program to this port of the guest, open; *ret_port: the host's. */
int vsock_bench_connect(struct vsock_bench *b, uint32_t guest_port, uint32_t *ret_port);
/* One of the guest to this port of the host. */
int vsock_bench_connect_out(struct vsock_bench *b, uint32_t host_port, uint32_t guest_port);
struct virtio_vsock_stats vsock_bench_stats(const struct vsock_bench *b);

#endif
