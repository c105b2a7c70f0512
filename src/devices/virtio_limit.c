/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio_limit: who may take a request from its ring, and who is rung when.
 *
 * The one thing to know: queues that share a limit take turns. While the timer runs nobody is
 * admitted, whatever rings; when it has run out the queues are rung in order, beginning behind the
 * one that was admitted last, or the first of them would take all there ever is.
 */
#include "virtio_limit.h"

/* Where tokens come faster they are waited for in batches, or each request would cost a timer. */
#define LEAST_WAIT_NS 500000

static void ring_waiting(struct virtio_limit *limit)
{
    struct virtio_device *vdev = limit->vdev;
    uint64_t waiting = limit->waiting;

    limit->armed = false;
    limit->waiting = 0;
    for (unsigned i = 0; i < vdev->queue_count; i++) {
        unsigned queue = (limit->turn + i) % vdev->queue_count;

        if (waiting >> queue & 1)
            virtio_ring(vdev, queue);
    }
}

static void timer_ran_out(void *opaque)
{
    struct virtio_limit *limit = opaque;

    if (limit->armed)
        ring_waiting(limit);
}

int virtio_limit_create(struct virtio_limit *limit, struct virtio_device *vdev, struct error *err)
{
    limit->vdev = vdev;
    return loop_timer_create(vdev->loop, &vdev->pci.dev.lock, timer_ran_out, limit, &limit->timer,
                             err);
}

void virtio_limit_destroy(struct virtio_limit *limit)
{
    /* What still comes is let through: nobody would ring it. */
    limit->limited = limit->armed = false;
    loop_timer_destroy(limit->timer);
    limit->timer = NULL;
}

void virtio_limit_set(struct virtio_limit *limit, const struct virtio_rates *rates, bool full)
{
    const struct virtio_rates *old = &limit->rates;
    uint64_t now_ns = loop_now_ns();

    /* A bucket that nobody changes keeps what it has. */
    if (old->ops != rates->ops || old->ops_burst != rates->ops_burst)
        bucket_set(&limit->ops, rates->ops, rates->ops_burst, full, now_ns);
    if (old->bytes != rates->bytes || old->bytes_burst != rates->bytes_burst)
        bucket_set(&limit->bytes, rates->bytes, rates->bytes_burst, full, now_ns);
    limit->rates = *rates;
    limit->limited = rates->ops || rates->bytes;
    if (limit->armed) {
        loop_timer_arm(limit->timer, 0);
        ring_waiting(limit);
    }
}

bool virtio_limit_asks(struct virtio_limit *limit, unsigned queue, uint64_t now_ns)
{
    uint64_t ops_ns = bucket_wait(&limit->ops, now_ns);
    uint64_t bytes_ns = bucket_wait(&limit->bytes, now_ns);
    uint64_t until_ns = ops_ns > bytes_ns ? ops_ns : bytes_ns;

    if (!limit->armed && !until_ns) {
        limit->turn = (queue + 1) % limit->vdev->queue_count;
        return true;
    }
    counter_add(&limit->waits, 1);
    limit->waiting |= UINT64_C(1) << queue;
    if (!limit->armed) {
        if (until_ns < now_ns + LEAST_WAIT_NS)
            until_ns = now_ns + LEAST_WAIT_NS;
        loop_timer_arm(limit->timer, until_ns);
        limit->armed = true;
    }
    return false;
}

void virtio_limit_forget(struct virtio_limit *limit)
{
    if (limit->armed)
        loop_timer_arm(limit->timer, 0);
    limit->armed = false;
    limit->waiting = 0;
}
