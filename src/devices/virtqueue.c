/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtqueue: the split ring, device side.
 *
 * The one thing to know: the guest writes the ring while we read it. Each field is read once, by
 * an atomic load into our own memory, and only the copy is looked at; what was checked cannot
 * change afterwards. Nothing is allocated, and no walk is longer than the table it walks.
 */
#include "vmrun/virtqueue.h"

#include <assert.h>
#include <errno.h>
#include <linux/virtio_ring.h>
#include <string.h>

#define DESC_BYTES sizeof(struct vring_desc)
#define USED_BYTES sizeof(struct vring_used_elem)
#define BUFFERS_MAX_BYTES UINT32_MAX /* of one request */

void virtqueue_init(struct virtqueue *vq, struct guest_memory *memory, uint16_t max_size)
{
    assert(max_size > 0 && max_size <= VIRTQ_MAX_SIZE && (max_size & (max_size - 1)) == 0);
    *vq = (struct virtqueue){.memory = memory, .size = max_size, .max_size = max_size};
}

void virtqueue_reset(struct virtqueue *vq)
{
    const struct virtqueue fresh = {
        .memory = vq->memory, .size = vq->max_size, .max_size = vq->max_size};

    /* Another thread may be reading the counts, which come last. */
    memcpy(vq, &fresh, offsetof(struct virtqueue, requests));
}

void virtqueue_stop(struct virtqueue *vq)
{
    vq->desc_at = vq->avail_at = vq->used_at = NULL;
    memset(vq->in_flight, 0, sizeof(vq->in_flight));
}

static int broken(struct virtqueue *vq)
{
    vq->broken = true;
    return -EPROTO;
}

/* The rings' fields, in host memory. Both sides are little-endian. */

static uint16_t *avail_flags(const struct virtqueue *vq)
{
    return (uint16_t *)vq->avail_at;
}

static uint16_t *avail_idx(const struct virtqueue *vq)
{
    return (uint16_t *)vq->avail_at + 1;
}

static uint16_t *avail_ring(const struct virtqueue *vq, unsigned i)
{
    return (uint16_t *)vq->avail_at + 2 + i;
}

static uint16_t *used_flags(const struct virtqueue *vq)
{
    return (uint16_t *)vq->used_at;
}

static uint16_t *used_idx(const struct virtqueue *vq)
{
    return (uint16_t *)vq->used_at + 1;
}

static uint64_t used_ring_offset(unsigned i)
{
    return 4 + i * USED_BYTES;
}

static uint16_t *used_event(const struct virtqueue *vq)
{
    return avail_ring(vq, vq->size);
}

static uint64_t avail_event_offset(const struct virtqueue *vq)
{
    return used_ring_offset(vq->size);
}

static uint16_t load16(const uint16_t *at)
{
    return __atomic_load_n(at, __ATOMIC_RELAXED);
}

/* A field of the used ring that tells the driver something. */
static void store16(struct virtqueue *vq, uint64_t offset, uint16_t value, int order)
{
    uint16_t *at = (uint16_t *)(vq->used_at + offset);

    if (order == __ATOMIC_RELEASE)
        __atomic_store_n(at, value, __ATOMIC_RELEASE);
    else
        __atomic_store_n(at, value, __ATOMIC_RELAXED);
    guest_memory_mark_dirty(vq->memory, vq->used + offset, sizeof(value));
}

int virtqueue_start(struct virtqueue *vq)
{
    uint64_t size = vq->size;

    virtqueue_stop(vq);
    vq->seen_avail = vq->next_avail;
    if (size == 0 || size > vq->max_size || (size & (size - 1)) != 0)
        return broken(vq);
    if (vq->desc % 16 || vq->avail % 2 || vq->used % 4)
        return broken(vq);
    /* Two bytes at each ring's end are there with EVENT_IDX only; a driver has them anyway. */
    vq->desc_at = guest_memory_at(vq->memory, vq->desc, size * DESC_BYTES);
    vq->avail_at = guest_memory_at(vq->memory, vq->avail, 4 + size * 2 + (vq->event_idx ? 2 : 0));
    vq->used_at =
        guest_memory_at(vq->memory, vq->used, 4 + size * USED_BYTES + (vq->event_idx ? 2 : 0));
    if (!vq->desc_at || !vq->avail_at || !vq->used_at)
        return broken(vq);
    /* Nothing is in flight yet. (This comes from a stream; a reset makes both 0.) */
    if (vq->next_avail != vq->next_used)
        return broken(vq);
    return 0;
}

void virtqueue_take_back(struct virtqueue *vq, uint16_t next)
{
    uint16_t used = load16(used_idx(vq));

    if ((uint16_t)(next - used) <= vq->size)
        next = used; /* else the driver has written it */
    vq->next_avail = vq->next_used = vq->seen_avail = next;
    vq->signalled_used = (uint16_t)(next + 1); /* as good as 65535 requests ago */
    vq->quiet = false;
}

/* Taking requests */

/* One descriptor, each field read once. */
static struct vring_desc read_desc(const uint8_t *at)
{
    struct vring_desc desc;

    if ((uintptr_t)at % 8 == 0) {
        uint64_t words[2] = {__atomic_load_n((const uint64_t *)at, __ATOMIC_RELAXED),
                             __atomic_load_n((const uint64_t *)at + 1, __ATOMIC_RELAXED)};

        memcpy(&desc, words, sizeof(desc));
    } else { /* an indirect table may lie anywhere */
        uint8_t bytes[DESC_BYTES] = {0};

        for (unsigned i = 0; i < DESC_BYTES; i++)
            bytes[i] = __atomic_load_n(at + i, __ATOMIC_RELAXED);
        memcpy(&desc, bytes, sizeof(desc));
    }
    return desc;
}

/* Descriptors to walk: the queue's own, or the indirect table that one of them named. */
struct table {
    const uint8_t *at;
    uint32_t count;
    bool indirect;
};

static int open_indirect(const struct virtqueue *vq, const struct vring_desc *desc, struct table *t)
{
    if (!vq->indirect || t->indirect || desc->flags & VRING_DESC_F_NEXT)
        return -EPROTO;
    if (desc->len == 0 || desc->len % DESC_BYTES)
        return -EPROTO;
    t->at = guest_memory_at(vq->memory, desc->addr, desc->len);
    t->count = desc->len / DESC_BYTES;
    t->indirect = true;
    return t->at ? 0 : -EPROTO;
}

static int add_buffer(const struct virtqueue *vq, const struct vring_desc *desc,
                      struct virtq_chain *chain)
{
    unsigned n = chain->out + chain->in;
    void *at;

    if (n >= chain->room || desc->len == 0)
        return -EPROTO;
    if (chain->out_bytes + chain->in_bytes + desc->len > BUFFERS_MAX_BYTES)
        return -EPROTO;
    at = guest_memory_at(vq->memory, desc->addr, desc->len);
    if (!at)
        return -EPROTO;
    if (desc->flags & VRING_DESC_F_WRITE) {
        chain->in++;
        chain->in_bytes += desc->len;
    } else if (chain->in) {
        return -EPROTO;
    } else {
        chain->out++;
        chain->out_bytes += desc->len;
    }
    chain->iov[n] = (struct iovec){.iov_base = at, .iov_len = desc->len};
    return 0;
}

/* Collect the buffers from descriptor `index` on. A loop ends where `room` does. */
static int walk(const struct virtqueue *vq, uint32_t index, struct virtq_chain *chain)
{
    struct table t = {.at = vq->desc_at, .count = vq->size};

    for (;;) {
        if (index >= t.count)
            return -EPROTO;
        struct vring_desc desc = read_desc(t.at + index * DESC_BYTES);

        if (desc.flags & VRING_DESC_F_INDIRECT) {
            if (open_indirect(vq, &desc, &t) < 0)
                return -EPROTO;
            index = 0;
            continue;
        }
        if (add_buffer(vq, &desc, chain) < 0)
            return -EPROTO;
        if (!(desc.flags & VRING_DESC_F_NEXT))
            return 0;
        index = desc.next;
    }
}

/* Whether there is a request, from what was seen last, or the ring. Errors: -EPROTO. */
static int look(struct virtqueue *vq)
{
    if (vq->seen_avail != vq->next_avail)
        return 1;
    /* Acquire: what the driver wrote before the index is there when we read it. */
    uint16_t idx = __atomic_load_n(avail_idx(vq), __ATOMIC_ACQUIRE);

    if ((uint16_t)(idx - vq->next_avail) > vq->size)
        return broken(vq);
    vq->seen_avail = idx;
    return idx != vq->next_avail;
}

/* Ask for a doorbell. A request may have come just before: look after it. */
static int arm(struct virtqueue *vq)
{
    if (vq->event_idx)
        store16(vq, avail_event_offset(vq), vq->next_avail, __ATOMIC_RELAXED);
    else if (load16(used_flags(vq)) & VRING_USED_F_NO_NOTIFY)
        store16(vq, 0, 0, __ATOMIC_RELAXED);
    else
        return 0; /* it was armed all the time */
    __sync_synchronize();
    return look(vq);
}

static int take(struct virtqueue *vq, struct virtq_chain *chain)
{
    uint16_t head = load16(avail_ring(vq, vq->next_avail & (vq->size - 1)));
    uint64_t bit = UINT64_C(1) << head % 64;

    /* Each head once: so no more are in flight than the used ring has room for. */
    if (head >= vq->size || vq->in_flight[head / 64] & bit)
        return broken(vq);
    chain->head = head;
    chain->out = chain->in = 0;
    chain->out_bytes = chain->in_bytes = 0;
    if (walk(vq, head, chain) < 0)
        return broken(vq);

    vq->in_flight[head / 64] |= bit;
    vq->next_avail++;
    counter_add(&vq->bytes_out, chain->out_bytes);
    return 1;
}

int virtqueue_pop(struct virtqueue *vq, struct virtq_chain *chain)
{
    int r;

    if (vq->broken)
        return -EPROTO;
    if (!vq->used_at)
        return 0;
    r = look(vq);
    if (r == 0 && !vq->quiet)
        r = arm(vq);
    return r == 1 ? take(vq, chain) : r;
}

void virtqueue_unpop(struct virtqueue *vq, const struct virtq_chain *chain)
{
    if (vq->broken)
        return;
    assert(vq->in_flight[chain->head / 64] >> chain->head % 64 & 1);
    vq->in_flight[chain->head / 64] &= ~(UINT64_C(1) << chain->head % 64);
    vq->next_avail--;
    counter_add(&vq->bytes_out, -chain->out_bytes);
}

/* Giving them back */

void virtqueue_mark_written(struct virtqueue *vq, const struct iovec *iov, unsigned count,
                            uint64_t written)
{
    for (unsigned i = 0; i < count && written; i++) {
        uint64_t len = iov[i].iov_len < written ? iov[i].iov_len : written, gpa;

        if (guest_memory_find(vq->memory, iov[i].iov_base, &gpa))
            guest_memory_mark_dirty(vq->memory, gpa, len);
        written -= len;
    }
}

void virtqueue_fill_head(struct virtqueue *vq, uint16_t head, uint32_t written)
{
    uint64_t bit = UINT64_C(1) << head % 64;

    if (vq->broken || head >= vq->size || !(vq->in_flight[head / 64] & bit))
        return;
    vq->in_flight[head / 64] &= ~bit;
    counter_add(&vq->requests, 1);
    counter_add(&vq->bytes_in, written);

    uint64_t offset = used_ring_offset(vq->next_used & (vq->size - 1));
    uint32_t *element = (uint32_t *)(vq->used_at + offset);

    __atomic_store_n(element, head, __ATOMIC_RELAXED);
    __atomic_store_n(element + 1, written, __ATOMIC_RELAXED);
    guest_memory_mark_dirty(vq->memory, vq->used + offset, USED_BYTES);
    vq->next_used++;
}

void virtqueue_publish(struct virtqueue *vq)
{
    if (vq->broken || !vq->used_at)
        return;
    /* Release: the elements, and the data, are there when the driver reads the index. */
    store16(vq, 2, vq->next_used, __ATOMIC_RELEASE);
}

void virtqueue_push_head(struct virtqueue *vq, uint16_t head, uint32_t written)
{
    virtqueue_fill_head(vq, head, written);
    virtqueue_publish(vq);
}

void virtqueue_push(struct virtqueue *vq, const struct virtq_chain *chain, uint32_t written)
{
    if (vq->broken)
        return;
    virtqueue_mark_written(vq, chain->iov + chain->out, chain->in, written);
    virtqueue_push_head(vq, chain->head, written);
}

/* Notifications */

bool virtqueue_needs_interrupt(struct virtqueue *vq)
{
    uint16_t before = vq->signalled_used;

    if (vq->broken || !vq->used_at || vq->next_used == before)
        return false;
    vq->signalled_used = vq->next_used;
    /* The index must be out before we read whether the driver sleeps: it does it the other way. */
    __sync_synchronize();
    if (vq->event_idx)
        return vring_need_event(load16(used_event(vq)), vq->next_used, before);
    return !(load16(avail_flags(vq)) & VRING_AVAIL_F_NO_INTERRUPT);
}

void virtqueue_disable_kicks(struct virtqueue *vq)
{
    if (vq->broken || !vq->used_at || vq->quiet)
        return;
    vq->quiet = true;
    /* With EVENT_IDX it is enough to leave the event where it is: the driver has passed it. */
    if (!vq->event_idx)
        store16(vq, 0, VRING_USED_F_NO_NOTIFY, __ATOMIC_RELAXED);
}

bool virtqueue_enable_kicks(struct virtqueue *vq)
{
    if (vq->broken || !vq->used_at)
        return false;
    vq->quiet = false;
    return look(vq) != 0 || arm(vq) != 0; /* the next pop tells of an error */
}

/* Copying */

/* Walk `len` bytes of the iovecs from `skip` on; exactly one of to and from is not NULL. */
static uint64_t copy(const struct iovec *iov, unsigned count, uint64_t skip, uint8_t *to,
                     const uint8_t *from, uint64_t len)
{
    uint64_t done = 0;

    for (unsigned i = 0; i < count && done < len; i++) {
        if (skip >= iov[i].iov_len) {
            skip -= iov[i].iov_len;
            continue;
        }
        uint64_t part = iov[i].iov_len - skip;
        uint8_t *at = (uint8_t *)iov[i].iov_base + skip;

        if (part > len - done)
            part = len - done;
        if (to)
            memcpy(to + done, at, part);
        else
            memcpy(at, from + done, part);
        done += part;
        skip = 0;
    }
    return done;
}

uint64_t iov_to_buf(const struct iovec *iov, unsigned count, uint64_t skip, void *buf, uint64_t len)
{
    return copy(iov, count, skip, buf, NULL, len);
}

uint64_t iov_from_buf(const struct iovec *iov, unsigned count, uint64_t skip, const void *buf,
                      uint64_t len)
{
    return copy(iov, count, skip, NULL, buf, len);
}

void iov_trim(struct iovec **iov, unsigned *count, uint64_t bytes)
{
    while (*count > 0 && bytes >= (*iov)->iov_len) {
        bytes -= (*iov)->iov_len;
        ++*iov;
        --*count;
    }
    if (*count > 0) {
        (*iov)->iov_base = (uint8_t *)(*iov)->iov_base + bytes;
        (*iov)->iov_len -= bytes;
    }
}
