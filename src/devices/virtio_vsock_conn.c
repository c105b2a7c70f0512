/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio_vsock_conn: connections between ports of the guest and programs of the host, by VIRTIO 1.2
 * "Socket Device".
 *
 * The one thing to know: nothing is queued for the guest. A connection that has something to tell
 * is in the list of the ready ones, and its packet is made when there is a buffer for it; data goes
 * from the stream to that buffer. What the guest sends is kept only when the stream does not take
 * it, and never more than the credit that the guest was given.
 */
#include "virtio_vsock.h"

#include <assert.h>
#include <errno.h>
#include <linux/vm_sockets.h>
#include <stdlib.h>
#include <string.h>

#define ACCEPTS 64 /* in one go, before the others have their turn */
#define BOTH (VIRTIO_VSOCK_SHUTDOWN_RCV | VIRTIO_VSOCK_SHUTDOWN_SEND)

static uint8_t bit(unsigned op)
{
    return (uint8_t)(1u << op);
}

static void refuse_more(struct virtio_vsock *v)
{
    counter_add(&v->stats.refused, 1);
    log_warn_limited(&v->full, "%s: %u connections are open, and no more are taken",
                     v->vdev.pci.dev.id, VSOCK_CONNECTIONS);
}

/* Something is to be told to the guest. */
static void tell(struct virtio_vsock *v, struct vsock_conn *c, unsigned op)
{
    c->pending |= bit(op);
    vsock_conn_ready(v, c);
}

static void set_deadline(struct virtio_vsock *v, struct vsock_conn *c)
{
    c->deadline_ns = loop_now_ns() + v->patience_ns;
    vsock_want_timer(v);
}

static void count_opened(struct virtio_vsock *v, struct vsock_conn *c)
{
    c->counted = true;
    counter_add(&v->stats.opened, 1);
}

/* The host's side is over, at once. */
static void abort_conn(struct virtio_vsock *v, struct vsock_conn *c)
{
    if (c->state == VSOCK_GREETING || c->state == VSOCK_LINGERING) {
        vsock_conn_end(v, c);
        return;
    }
    vsock_conn_hang_up(c);
    c->state = VSOCK_GONE;
    c->deadline_ns = 0;
    c->pending = 0;
    counter_add(&v->stats.resets, 1);
    tell(v, c, VIRTIO_VSOCK_OP_RST);
}

/* Answer a packet with a reset. There is room. */
static void answer_reset(struct virtio_vsock *v, uint32_t host_port, uint32_t guest_port)
{
    assert(v->reset_count < VSOCK_RESETS);
    v->resets[(v->reset_at + v->reset_count++) % VSOCK_RESETS] =
        (struct vsock_reset){.host_port = host_port, .guest_port = guest_port};
    counter_add(&v->stats.resets, 1);
}

/* From the guest to the host */

static void shut_by_host(struct virtio_vsock *v, struct vsock_conn *c, uint8_t flags)
{
    if ((c->shut | flags) == c->shut)
        return;
    c->shut |= flags;
    if (c->state == VSOCK_OPEN)
        tell(v, c, VIRTIO_VSOCK_OP_SHUTDOWN);
}

/* So many bytes more have left our hands: the guest may send as many. */
static void passed(struct virtio_vsock *v, struct vsock_conn *c, uint32_t bytes)
{
    c->passed += bytes;
    if (c->state == VSOCK_OPEN && c->passed - c->told >= VSOCK_TELL_CREDIT)
        tell(v, c, VIRTIO_VSOCK_OP_CREDIT_UPDATE);
}

/* The host's program takes no more. What it sent before is still the guest's. */
static void go_deaf(struct virtio_vsock *v, struct vsock_conn *c)
{
    uint32_t left = c->used;

    c->deaf = true;
    free(c->buffer);
    c->buffer = NULL;
    c->used = 0;
    passed(v, c, left);
    shut_by_host(v, c, VIRTIO_VSOCK_SHUTDOWN_RCV);
}

/* What is kept, to the stream. Afterwards c may be gone. */
static void flush(struct virtio_vsock *v, struct vsock_conn *c)
{
    while (c->used) {
        uint32_t first = VSOCK_BUFFER - c->at < c->used ? VSOCK_BUFFER - c->at : c->used;
        const struct iovec iov[2] = {{.iov_base = c->buffer + c->at, .iov_len = first},
                                     {.iov_base = c->buffer, .iov_len = c->used - first}};
        ssize_t n = vsock_send(c->stream, iov, c->used > first ? 2 : 1);

        if (n == -EAGAIN)
            return;
        if (n < 0) {
            go_deaf(v, c);
            break;
        }
        c->at = (c->at + (uint32_t)n) % VSOCK_BUFFER;
        c->used -= (uint32_t)n;
        passed(v, c, (uint32_t)n);
    }
    free(c->buffer); /* a thousand quiet connections keep none */
    c->buffer = NULL;
    if (c->state == VSOCK_LINGERING)
        vsock_conn_end(v, c);
    else if (c->peer_shut & VIRTIO_VSOCK_SHUTDOWN_SEND)
        vsock_shutdown(c->stream, false, true);
}

/* Behind what is kept already. It fits: the guest had the credit. False: no memory. */
static bool keep(struct vsock_conn *c, const struct iovec *iov, unsigned count, uint32_t skip,
                 uint32_t bytes)
{
    uint32_t end_at, first;

    if (!c->buffer) {
        c->buffer = malloc(VSOCK_BUFFER);
        c->at = 0;
    }
    if (!c->buffer)
        return false;
    assert(bytes <= VSOCK_BUFFER - c->used);
    end_at = (c->at + c->used) % VSOCK_BUFFER;
    first = VSOCK_BUFFER - end_at < bytes ? VSOCK_BUFFER - end_at : bytes;
    (void)iov_to_buf(iov, count, skip, c->buffer + end_at, first);
    (void)iov_to_buf(iov, count, (uint64_t)skip + first, c->buffer, bytes - first);
    c->used += bytes;
    return true;
}

/* Cut the buffers to so many bytes, which they have. Returns how many are left of them. */
static unsigned cut(struct iovec *iov, unsigned count, uint64_t bytes)
{
    for (unsigned i = 0; i < count; i++) {
        if (bytes <= iov[i].iov_len) {
            iov[i].iov_len = bytes;
            return bytes ? i + 1 : i;
        }
        bytes -= iov[i].iov_len;
    }
    return count;
}

static void take_data(struct virtio_vsock *v, struct vsock_conn *c, uint32_t len,
                      struct iovec *data, unsigned count)
{
    uint32_t sent = 0;

    c->got += len;
    counter_add(&v->stats.tx_bytes, len);
    count = cut(data, count, len);
    if (c->deaf || len == 0) {
        passed(v, c, len);
        return;
    }
    if (!c->used) {
        ssize_t n = vsock_send(c->stream, data, count);

        if (n < 0 && n != -EAGAIN) {
            go_deaf(v, c);
            passed(v, c, len);
            return;
        }
        sent = n < 0 ? 0 : (uint32_t)n;
        passed(v, c, sent);
    }
    if (sent == len)
        return;
    counter_add(&v->stats.tx_waits, 1);
    if (!keep(c, data, count, sent, len - sent))
        abort_conn(v, c);
}

/* The guest is done with it. What the host has not read yet it still gets. */
static void end_by_guest(struct virtio_vsock *v, struct vsock_conn *c)
{
    if (!c->used || c->state != VSOCK_OPEN) {
        vsock_conn_end(v, c);
        return;
    }
    vsock_conn_leave(v, c);
    vsock_conn_unready(v, c);
    c->pending = 0;
    c->deadline_ns = 0;
    c->state = VSOCK_LINGERING;
    vsock_shutdown(c->stream, true, false);
}

static void take_shutdown(struct virtio_vsock *v, struct vsock_conn *c, uint32_t flags)
{
    c->peer_shut |= flags & BOTH;
    if (c->peer_shut == BOTH) {
        answer_reset(v, c->host_port, c->guest_port);
        end_by_guest(v, c);
        return;
    }
    vsock_shutdown(c->stream, c->peer_shut & VIRTIO_VSOCK_SHUTDOWN_RCV,
                   c->peer_shut & VIRTIO_VSOCK_SHUTDOWN_SEND && !c->used);
}

/* The guest looks for a program of the host. */
static void take_request(struct virtio_vsock *v, const struct virtio_vsock_hdr *hdr)
{
    struct vsock_conn *c = vsock_conn_take(v, VSOCK_OPEN);

    if (!c) {
        refuse_more(v);
        answer_reset(v, hdr->dst_port, hdr->src_port);
        return;
    }
    c->host_port = hdr->dst_port;
    c->guest_port = hdr->src_port;
    c->peer_buffer = hdr->buf_alloc;
    c->peer_read = hdr->fwd_cnt;
    vsock_conn_enter(v, c);
    c->stream = vsock_dial(v->host, c->host_port, vsock_conn_tag(v, c));
    if (c->stream < 0) {
        counter_add(&v->stats.refused, 1);
        answer_reset(v, c->host_port, c->guest_port);
        vsock_conn_end(v, c);
        return;
    }
    count_opened(v, c);
    tell(v, c, VIRTIO_VSOCK_OP_RESPONSE);
}

/* The guest's listener has accepted. */
static bool take_response(struct virtio_vsock *v, struct vsock_conn *c)
{
    if (c->state != VSOCK_ASKED || c->pending & bit(VIRTIO_VSOCK_OP_REQUEST) ||
        vsock_answer_greeting(c->stream, c->host_port) < 0)
        return false;
    c->state = VSOCK_OPEN;
    c->deadline_ns = 0;
    c->readable = true; /* it may have said more than its greeting */
    vsock_conn_ready(v, c);
    if (c->shut) /* it has gone meanwhile */
        tell(v, c, VIRTIO_VSOCK_OP_SHUTDOWN);
    count_opened(v, c);
    return true;
}

/* False: it makes no sense, and the connection ends. c may have ended by itself. */
static bool take_of(struct virtio_vsock *v, struct vsock_conn *c,
                    const struct virtio_vsock_hdr *hdr, struct iovec *data, unsigned count)
{
    bool open = c->state == VSOCK_OPEN;

    c->peer_buffer = hdr->buf_alloc;
    c->peer_read = hdr->fwd_cnt;
    if (c->readable)
        vsock_conn_ready(v, c); /* there may be credit now */
    switch (hdr->op) {
    case VIRTIO_VSOCK_OP_RESPONSE: return take_response(v, c);
    case VIRTIO_VSOCK_OP_SHUTDOWN:
        if (open)
            take_shutdown(v, c, hdr->flags);
        return open;
    case VIRTIO_VSOCK_OP_RW:
        if (!open || c->peer_shut & VIRTIO_VSOCK_SHUTDOWN_SEND ||
            hdr->len > VSOCK_BUFFER - (c->got - c->passed))
            return false;
        take_data(v, c, hdr->len, data, count);
        return true;
    case VIRTIO_VSOCK_OP_CREDIT_UPDATE: return open;
    case VIRTIO_VSOCK_OP_CREDIT_REQUEST:
        if (open)
            tell(v, c, VIRTIO_VSOCK_OP_CREDIT_UPDATE);
        return open;
    default: return false;
    }
}

void vsock_refuse(struct virtio_vsock *v, const struct virtio_vsock_hdr *hdr)
{
    struct vsock_conn *c = vsock_conn_find(v, hdr->dst_port, hdr->src_port);

    counter_add(&v->stats.dropped, 1);
    if (c)
        vsock_conn_end(v, c);
    if (hdr->op != VIRTIO_VSOCK_OP_RST)
        answer_reset(v, hdr->dst_port, hdr->src_port);
}

void vsock_take(struct virtio_vsock *v, const struct virtio_vsock_hdr *hdr, struct iovec *data,
                unsigned count)
{
    struct vsock_conn *c = vsock_conn_find(v, hdr->dst_port, hdr->src_port);

    if (hdr->op == VIRTIO_VSOCK_OP_RST) {
        if (c && c->state == VSOCK_ASKED)
            counter_add(&v->stats.refused, 1);
        if (c)
            end_by_guest(v, c);
    } else if (c && c->state == VSOCK_GONE) {
        return; /* sent before it could hear of the end, which comes */
    } else if (!c && hdr->op == VIRTIO_VSOCK_OP_REQUEST) {
        take_request(v, hdr);
    } else if (!c || !take_of(v, c, hdr, data, count)) {
        vsock_refuse(v, hdr);
    }
}

/* From the host to the guest */

static uint32_t credit(const struct vsock_conn *c)
{
    uint32_t on_its_way = c->sent - c->peer_read;

    return on_its_way < c->peer_buffer ? c->peer_buffer - on_its_way : 0;
}

static struct virtio_vsock_hdr header(const struct virtio_vsock *v, uint32_t host_port,
                                      uint32_t guest_port, unsigned op)
{
    return (struct virtio_vsock_hdr){.src_cid = VMADDR_CID_HOST,
                                     .dst_cid = v->cid,
                                     .src_port = host_port,
                                     .dst_port = guest_port,
                                     .type = VIRTIO_VSOCK_TYPE_STREAM,
                                     .op = (uint16_t)op};
}

static uint32_t put(struct virtio_vsock *v, struct vsock_conn *c, struct virtio_vsock_hdr *hdr,
                    const struct iovec *iov, unsigned count)
{
    if (c) {
        hdr->buf_alloc = VSOCK_BUFFER;
        hdr->fwd_cnt = c->told = c->passed;
        c->pending &= (uint8_t)~bit(VIRTIO_VSOCK_OP_CREDIT_UPDATE);
    }
    counter_add(&v->stats.rx_packets, 1);
    return (uint32_t)iov_from_buf(iov, count, 0, hdr, VSOCK_HEADER) + hdr->len;
}

/* One of what is pending. Afterwards c may be free. */
static uint32_t give_word(struct virtio_vsock *v, struct vsock_conn *c, const struct iovec *iov,
                          unsigned count)
{
    unsigned op = (unsigned)__builtin_ctz(c->pending);
    struct virtio_vsock_hdr hdr = header(v, c->host_port, c->guest_port, op);

    c->pending &= (uint8_t)~bit(op);
    if (op == VIRTIO_VSOCK_OP_SHUTDOWN) {
        hdr.flags = c->shut;
        if (c->shut == BOTH)
            set_deadline(v, c); /* the guest is to reset it */
    }
    uint32_t bytes = put(v, c, &hdr, iov, count);

    if (op == VIRTIO_VSOCK_OP_RST)
        vsock_conn_end(v, c);
    return bytes;
}

/* Data as there is, straight from the stream. */
static uint32_t give_data(struct virtio_vsock *v, struct vsock_conn *c, const struct iovec *iov,
                          unsigned count, uint64_t bytes)
{
    struct virtio_vsock_hdr hdr = header(v, c->host_port, c->guest_port, VIRTIO_VSOCK_OP_RW);
    uint64_t most = bytes - VSOCK_HEADER < VSOCK_PACKET ? bytes - VSOCK_HEADER : VSOCK_PACKET;
    struct iovec *data = v->data_iov;
    unsigned left = count;
    ssize_t n;

    if (credit(c) == 0) {
        if (!c->asked_credit)
            c->pending |= bit(VIRTIO_VSOCK_OP_CREDIT_REQUEST);
        c->asked_credit = true;
        return 0;
    }
    c->asked_credit = false;
    memcpy(data, iov, count * sizeof(*iov));
    iov_trim(&data, &left, VSOCK_HEADER);
    left = cut(data, left, most < credit(c) ? most : credit(c));
    n = vsock_receive(c->stream, data, left);
    if (n > 0) {
        hdr.len = (uint32_t)n;
        c->sent += hdr.len;
        counter_add(&v->stats.rx_bytes, hdr.len);
        return put(v, c, &hdr, iov, count);
    }
    c->readable = false;
    if (n == 0)
        shut_by_host(v, c, VIRTIO_VSOCK_SHUTDOWN_SEND);
    else if (n != -EAGAIN)
        shut_by_host(v, c, BOTH); /* it left without reading all */
    return 0;
}

static bool wants_data(const struct vsock_conn *c)
{
    return c->state == VSOCK_OPEN && c->readable && !(c->peer_shut & VIRTIO_VSOCK_SHUTDOWN_RCV);
}

/* Its next packet. Afterwards c may be free. */
static uint32_t give_of(struct virtio_vsock *v, struct vsock_conn *c, const struct iovec *iov,
                        unsigned count, uint64_t bytes)
{
    uint32_t given = 0;

    if (!c->pending && wants_data(c))
        given = give_data(v, c, iov, count, bytes);
    return !given && c->pending ? give_word(v, c, iov, count) : given;
}

bool vsock_has_packet(const struct virtio_vsock *v)
{
    return v->reset_count || v->first_ready;
}

uint32_t vsock_give(struct virtio_vsock *v, const struct iovec *iov, unsigned count, uint64_t bytes)
{
    uint32_t given = 0;

    if (v->reset_count) {
        const struct vsock_reset *reset = &v->resets[v->reset_at];
        struct virtio_vsock_hdr hdr =
            header(v, reset->host_port, reset->guest_port, VIRTIO_VSOCK_OP_RST);

        v->reset_at = (v->reset_at + 1) % VSOCK_RESETS;
        v->reset_count--;
        return put(v, NULL, &hdr, iov, count);
    }
    while (!given && v->first_ready) {
        struct vsock_conn *c = v->first_ready;

        vsock_conn_unready(v, c);
        given = give_of(v, c, iov, count, bytes);
        /* The last in the row, if there is more; what waits for credit is not. */
        if (c->state != VSOCK_FREE && (c->pending || (given && wants_data(c))))
            vsock_conn_ready(v, c);
    }
    return given;
}

/* Programs of the host */

/* A port of the host's that has no connection to this one of the guest's. */
static uint32_t next_port(struct virtio_vsock *v, uint32_t guest_port)
{
    uint32_t port;

    do
        port = VSOCK_FIRST_PORT + v->next_port++ % VSOCK_PORTS;
    while (vsock_conn_find(v, port, guest_port)); /* at most as often as there are connections */
    return port;
}

static void greet(struct virtio_vsock *v, struct vsock_conn *c)
{
    int r = vsock_read_greeting(c->stream, &c->greeting, &c->guest_port);

    if (r == -EAGAIN)
        return;
    if (r < 0) {
        counter_add(&v->stats.refused, 1);
        vsock_conn_end(v, c);
        return;
    }
    c->host_port = next_port(v, c->guest_port);
    c->state = VSOCK_ASKED;
    vsock_conn_enter(v, c);
    set_deadline(v, c);
    tell(v, c, VIRTIO_VSOCK_OP_REQUEST);
}

/* False: nobody waits. */
static bool turn_away(struct virtio_vsock *v)
{
    int stream = vsock_accept(v->host, VSOCK_LISTENER - 1);

    if (stream < 0)
        return false;
    vsock_close(stream);
    return true;
}

/* False: nobody else waits, or cannot be let in now. */
static bool accept_one(struct virtio_vsock *v)
{
    struct vsock_conn *c = vsock_conn_take(v, VSOCK_GREETING);

    if (!c) {
        if (!turn_away(v))
            return false;
        refuse_more(v);
        return true;
    }
    c->stream = vsock_accept(v->host, vsock_conn_tag(v, c));
    if (c->stream >= 0) {
        set_deadline(v, c);
        return true;
    }
    if (c->stream != -EAGAIN) {
        log_warn_limited(&v->full, "%s: a connection has to wait: %s", v->vdev.pci.dev.id,
                         strerror(-c->stream));
        vsock_listen(v, false); /* the timer tries again */
        vsock_want_timer(v);
    }
    vsock_conn_end(v, c);
    return false;
}

void vsock_accept_all(struct virtio_vsock *v)
{
    for (unsigned i = 0; i < ACCEPTS; i++)
        if (!(v->vdev.started ? accept_one(v) : turn_away(v)))
            return;
}

static void stream_event(struct virtio_vsock *v, struct vsock_conn *c,
                         const struct vsock_event *event)
{
    if (event->readable && c->state == VSOCK_GREETING)
        greet(v, c);
    if (c->state == VSOCK_FREE)
        return;
    if (event->readable && c->state == VSOCK_OPEN) {
        c->readable = true;
        vsock_conn_ready(v, c);
    }
    if (c->state == VSOCK_ASKED && event->hung_up) {
        abort_conn(v, c);
        return;
    }
    if (event->hung_up)
        go_deaf(v, c);
    if (event->writable && (c->used || c->state == VSOCK_LINGERING))
        flush(v, c);
}

void vsock_event(struct virtio_vsock *v, const struct vsock_event *event)
{
    uint32_t slot = (uint32_t)event->tag;
    struct vsock_conn *c;

    if (event->tag == VSOCK_LISTENER) {
        vsock_accept_all(v);
        return;
    }
    if (slot >= VSOCK_CONNECTIONS)
        return;
    c = &v->conns[slot];
    if (c->stream >= 0 && c->generation == event->tag >> 32)
        stream_event(v, c, event);
}

bool vsock_expire(struct virtio_vsock *v, uint64_t now_ns)
{
    bool more = false;

    for (unsigned i = 0; i < VSOCK_CONNECTIONS; i++) {
        struct vsock_conn *c = &v->conns[i];

        if (c->state == VSOCK_FREE || !c->deadline_ns)
            continue;
        if (c->deadline_ns > now_ns) {
            more = true;
            continue;
        }
        if (c->state != VSOCK_OPEN)
            counter_add(&v->stats.refused, 1);
        abort_conn(v, c);
    }
    return more;
}

void vsock_extend(struct virtio_vsock *v)
{
    for (unsigned i = 0; i < VSOCK_CONNECTIONS; i++)
        if (v->conns[i].state != VSOCK_FREE && v->conns[i].deadline_ns)
            set_deadline(v, &v->conns[i]);
}
