/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio_vsock_table: the connections of a socket device: which there are, by their ports, and
 * which have something for the guest.
 *
 * The one thing to know: a slot's generation changes with its user, and is a part of the tag under
 * which events of a stream come, so that one that comes late is told from one of the next user.
 */
#include "virtio_vsock.h"

#include <stdlib.h>

static unsigned bucket(uint32_t host_port, uint32_t guest_port)
{
    uint64_t key = (uint64_t)host_port << 32 | guest_port;

    return (unsigned)(key * UINT64_C(0x9e3779b97f4a7c15) >> 32) % VSOCK_BUCKETS;
}

struct vsock_conn *vsock_conn_find(const struct virtio_vsock *v, uint32_t host_port,
                                   uint32_t guest_port)
{
    struct vsock_conn *c = v->buckets[bucket(host_port, guest_port)];

    while (c && (c->host_port != host_port || c->guest_port != guest_port))
        c = c->next_same;
    return c;
}

void vsock_conn_enter(struct virtio_vsock *v, struct vsock_conn *c)
{
    struct vsock_conn **head = &v->buckets[bucket(c->host_port, c->guest_port)];

    c->next_same = *head;
    *head = c;
}

void vsock_conn_leave(struct virtio_vsock *v, struct vsock_conn *c)
{
    struct vsock_conn **link = &v->buckets[bucket(c->host_port, c->guest_port)];

    while (*link && *link != c)
        link = &(*link)->next_same;
    if (*link)
        *link = c->next_same;
}

static bool is_entered(const struct vsock_conn *c)
{
    return c->state == VSOCK_ASKED || c->state == VSOCK_OPEN || c->state == VSOCK_GONE;
}

uint64_t vsock_conn_tag(const struct virtio_vsock *v, const struct vsock_conn *c)
{
    return (uint64_t)c->generation << 32 | (uint64_t)(c - v->conns);
}

void vsock_init_conns(struct virtio_vsock *v)
{
    for (unsigned i = VSOCK_CONNECTIONS; i-- > 0;) {
        v->conns[i].stream = -1;
        v->conns[i].next_same = v->free;
        v->free = &v->conns[i];
    }
}

struct vsock_conn *vsock_conn_take(struct virtio_vsock *v, enum vsock_state state)
{
    struct vsock_conn *c = v->free;

    if (!c)
        return NULL;
    v->free = c->next_same;
    v->used++;
    *c = (struct vsock_conn){
        .state = state, .generation = (c->generation + 1) & INT32_MAX, .stream = -1};
    return c;
}

void vsock_conn_ready(struct virtio_vsock *v, struct vsock_conn *c)
{
    if (c->is_ready)
        return;
    c->is_ready = true;
    c->next_ready = NULL;
    c->prev_ready = v->last_ready;
    *(v->last_ready ? &v->last_ready->next_ready : &v->first_ready) = c;
    v->last_ready = c;
}

void vsock_conn_unready(struct virtio_vsock *v, struct vsock_conn *c)
{
    if (!c->is_ready)
        return;
    c->is_ready = false;
    *(c->prev_ready ? &c->prev_ready->next_ready : &v->first_ready) = c->next_ready;
    *(c->next_ready ? &c->next_ready->prev_ready : &v->last_ready) = c->prev_ready;
}

void vsock_conn_hang_up(struct vsock_conn *c)
{
    if (c->stream >= 0)
        vsock_close(c->stream);
    c->stream = -1;
    free(c->buffer);
    c->buffer = NULL;
    c->used = 0;
}

void vsock_conn_end(struct virtio_vsock *v, struct vsock_conn *c)
{
    vsock_conn_hang_up(c);
    vsock_conn_unready(v, c);
    if (is_entered(c))
        vsock_conn_leave(v, c);
    if (c->counted)
        counter_add(&v->stats.closed, 1);
    c->state = VSOCK_FREE;
    c->next_same = v->free;
    v->free = c;
    v->used--;
}

void vsock_drop_all(struct virtio_vsock *v)
{
    for (unsigned i = 0; i < VSOCK_CONNECTIONS && v->used; i++)
        if (v->conns[i].state != VSOCK_FREE)
            vsock_conn_end(v, &v->conns[i]);
    v->reset_count = 0;
    v->tx_waits = false;
}

uint32_t vsock_known(const struct virtio_vsock *v)
{
    uint32_t known = v->reset_count;

    for (unsigned i = 0; i < VSOCK_CONNECTIONS; i++)
        known += is_entered(&v->conns[i]);
    return known;
}
