/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DEVICES_VIRTIO_VSOCK_H
#define DEVICES_VIRTIO_VSOCK_H

/* What virtio-vsock's files share. Everything with the device's lock held. */

#include <linux/virtio_vsock.h>

#include "vmrun/virtio_devices.h"

#define VSOCK_HEADER ((uint32_t)sizeof(struct virtio_vsock_hdr))
#define VSOCK_CONNECTIONS 2048
#define VSOCK_BUCKETS 1024
#define VSOCK_BUFFER 131072u     /* bytes of the guest's that a slow program of the host may owe */
#define VSOCK_TELL_CREDIT 32768u /* the guest is told when it got back so many */
#define VSOCK_PACKET 65536u      /* the most data in a packet to the guest */
#define VSOCK_RESETS 64          /* answers to packets of connections that do not exist */
#define VSOCK_FIRST_PORT (UINT32_C(1) << 30) /* of the host's, for who connects to the guest */
#define VSOCK_PORTS (UINT32_C(1) << 30)
#define VSOCK_PATIENCE_NS UINT64_C(5000000000)

enum vsock_state {
    VSOCK_FREE,
    VSOCK_GREETING, /* a program of the host has come and not said to which port it wants */
    VSOCK_ASKED,    /* the guest was, or will be, asked for a connection */
    VSOCK_OPEN,
    VSOCK_LINGERING, /* the guest is done; the host's program has not read all that it sent */
    VSOCK_GONE,      /* the host is done; the guest is still to hear of it */
};

struct vsock_conn {
    enum vsock_state state;
    uint32_t generation; /* of the slot: events of its last user are told by it */
    int stream;          /* or -1 */
    uint32_t host_port, guest_port;
    struct vsock_conn *next_same;               /* in its bucket, or among the free ones */
    struct vsock_conn *next_ready, *prev_ready; /* has something for the guest */
    bool is_ready;
    uint64_t deadline_ns; /* 0: none */
    bool counted;         /* as opened */
    uint8_t pending;      /* 1 << VIRTIO_VSOCK_OP_*: to be told to the guest */

    /* To the guest: its buffer, and how far it has read. All counters wrap. */
    uint32_t peer_buffer, peer_read, sent;
    bool asked_credit; /* since there was none */
    bool readable;     /* the stream, as far as is known */
    uint8_t shut;      /* VIRTIO_VSOCK_SHUTDOWN_*: what the host's program did, for the guest */

    /* From the guest. */
    uint32_t got, passed, told; /* passed: to the stream; told: passed, as the guest knows it */
    uint8_t peer_shut;
    bool deaf;       /* the host's program takes no more: the rest is thrown away */
    uint8_t *buffer; /* VSOCK_BUFFER, a ring; NULL while it is empty */
    uint32_t at, used;

    struct vsock_greeting greeting;
};

struct virtio_vsock {
    struct virtio_device vdev;
    struct vsock_host *host;
    struct iothread *thread;
    struct loop *loop;
    struct loop_watch *watch;
    struct loop_timer *timer;
    bool timer_armed;
    uint64_t cid, patience_ns;
    bool listening; /* the host wakes us for newcomers */
    bool loading;
    bool tx_waits; /* for room among the resets */
    struct log_limit full, odd;

    struct vsock_conn *conns; /* VSOCK_CONNECTIONS */
    struct vsock_conn *free, *buckets[VSOCK_BUCKETS];
    struct vsock_conn *first_ready, *last_ready;
    unsigned used; /* conns */
    struct vsock_reset {
        uint32_t host_port, guest_port;
    } resets[VSOCK_RESETS];
    unsigned reset_at, reset_count;
    struct iovec iov[VIRTQ_MAX_CHAIN], data_iov[VIRTQ_MAX_CHAIN];
    struct virtio_vsock_stats stats;

    /* To be told by the event of a transport that was reset; and until when that is waited for. */
    bool reset_pending;
    uint64_t settling_until_ns; /* 0: it is not */
    int event_buffers;          /* that were left when it was told */

    /* What travels. */
    uint64_t guest_cid; /* as the driver knows it */
    uint32_t next_port; /* of the host's: a new connection is not taken for one that was */
    uint32_t lost;      /* connections that the driver believes in, and that do not travel */
};

/* virtio_vsock_table.c */

void vsock_init_conns(struct virtio_vsock *v);
void vsock_drop_all(struct virtio_vsock *v); /* without a word to the guest */
/* Connections that the guest may believe to exist. */
uint32_t vsock_known(const struct virtio_vsock *v);
/* A slot, whose stream is not there yet. NULL: there are too many. */
struct vsock_conn *vsock_conn_take(struct virtio_vsock *v, enum vsock_state state);
void vsock_conn_end(struct virtio_vsock *v, struct vsock_conn *c); /* and free the slot */
void vsock_conn_hang_up(struct vsock_conn *c);                     /* the stream alone */
uint64_t vsock_conn_tag(const struct virtio_vsock *v, const struct vsock_conn *c);
/* By its ports; NULL: there is none. Who has ports is entered under them. */
struct vsock_conn *vsock_conn_find(const struct virtio_vsock *v, uint32_t host_port,
                                   uint32_t guest_port);
void vsock_conn_enter(struct virtio_vsock *v, struct vsock_conn *c);
void vsock_conn_leave(struct virtio_vsock *v, struct vsock_conn *c);
/* It has, or may have, something for the guest: the last in the row. */
void vsock_conn_ready(struct virtio_vsock *v, struct vsock_conn *c);
void vsock_conn_unready(struct virtio_vsock *v, struct vsock_conn *c);

/* virtio_vsock_conn.c: what connections do. */

/* A packet from the guest; there is room for one reset. data: behind the header, at least len. */
void vsock_take(struct virtio_vsock *v, const struct virtio_vsock_hdr *hdr, struct iovec *data,
                unsigned count);
/* A packet whose header makes no sense: the connection that it names ends. */
void vsock_refuse(struct virtio_vsock *v, const struct virtio_vsock_hdr *hdr);
bool vsock_has_packet(const struct virtio_vsock *v);
/*
 * The next packet for the guest, into buffers of so many bytes, more than a header's. Returns its
 * bytes; 0: there is none, after all.
 */
uint32_t vsock_give(struct virtio_vsock *v, const struct iovec *iov, unsigned count,
                    uint64_t bytes);
void vsock_event(struct virtio_vsock *v, const struct vsock_event *event);
void vsock_accept_all(struct virtio_vsock *v);
/* End those that took too long. Returns whether others have a deadline. */
bool vsock_expire(struct virtio_vsock *v, uint64_t now_ns);
void vsock_extend(struct virtio_vsock *v); /* all deadlines: the guest stood still */
/* virtio_vsock.c */
void vsock_want_timer(struct virtio_vsock *v);      /* have vsock_expire() called some time */
void vsock_listen(struct virtio_vsock *v, bool on); /* be told of newcomers, or let them wait */

#endif
