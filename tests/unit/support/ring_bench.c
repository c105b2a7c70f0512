/* SPDX-License-Identifier: Apache-2.0 */
/* ring_bench: the driver's half of a split virtqueue, in a few lines. */
#include "ring_bench.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

void *ring_at(struct ring_bench *f, uint64_t gpa)
{
    void *host = guest_memory_at(f->memory, gpa, 1);

    assert_non_null(host);
    return host;
}

int ring_setup(void **state)
{
    static const struct memory_layout layout = {
        .size = RING_LOW + RING_HIGH, .hole_start = RING_LOW, .hole_end = RING_HIGH_AT};
    static struct ring_bench f;
    struct error err;

    f = (struct ring_bench){0};
    if (guest_memory_create(&layout, &f.memory, &err) < 0)
        return -1;
    virtqueue_init(&f.vq, f.memory, 256);
    f.vq.size = RING_SIZE;
    f.vq.desc = RING_DESC;
    f.vq.avail = RING_AVAIL;
    f.vq.used = RING_USED;
    f.vq.enabled = f.vq.indirect = true;
    f.chain = (struct virtq_chain){.iov = f.iov, .room = RING_ROOM};
    f.desc = ring_at(&f, RING_DESC);
    f.avail = ring_at(&f, RING_AVAIL);
    f.used = ring_at(&f, RING_USED);
    *state = &f;
    return virtqueue_start(&f.vq);
}

int ring_setup_event_idx(void **state)
{
    ring_setup(state);
    struct ring_bench *f = *state;

    f->vq.event_idx = true;
    return virtqueue_start(&f->vq);
}

int ring_teardown(void **state)
{
    struct ring_bench *f = *state;

    guest_memory_destroy(f->memory);
    return 0;
}

/* The driver */

void ring_set(struct ring_bench *f, unsigned i, uint64_t gpa, uint32_t len, uint16_t flags,
              uint16_t next)
{
    f->desc[i] = (struct vring_desc){gpa, len, flags, next};
}

void ring_offer(struct ring_bench *f, uint16_t head)
{
    f->avail->ring[f->avail->idx % f->vq.size] = head;
    f->avail->idx++;
}

void ring_offer_buffer(struct ring_bench *f, uint16_t head)
{
    ring_set(f, head, RING_DATA + head * 4096, 64, WRITE, 0);
    ring_offer(f, head);
}

int ring_pop(struct ring_bench *f)
{
    return virtqueue_pop(&f->vq, &f->chain);
}

uint16_t *ring_used_event(struct ring_bench *f)
{
    return &f->avail->ring[f->vq.size];
}

uint16_t ring_avail_event(struct ring_bench *f)
{
    return *(uint16_t *)ring_at(f, f->vq.used + 4 + 8 * (uint64_t)f->vq.size);
}

unsigned ring_dirty_pages(struct ring_bench *f)
{
    unsigned count = 0;

    for (uint64_t gpa = 0; gpa < RING_LOW; gpa += GUEST_PAGE_SIZE)
        count += guest_memory_test_dirty(f->memory, gpa, false);
    for (uint64_t gpa = RING_HIGH_AT; gpa < RING_HIGH_AT + RING_HIGH; gpa += GUEST_PAGE_SIZE)
        count += guest_memory_test_dirty(f->memory, gpa, false);
    return count;
}
