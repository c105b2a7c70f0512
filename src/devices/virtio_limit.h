/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DEVICES_VIRTIO_LIMIT_H
#define DEVICES_VIRTIO_LIMIT_H

/*
 * What a virtio device may do in a second: two buckets that some of its queues share.
 *
 * A request that has to wait is not taken from its ring, so there is nothing to drain or to save:
 * its queue is rung when its turn comes, and needs no doorbell until then. Everything but create
 * and destroy with the device's lock held.
 */

#include <assert.h>

#include "vmrun/bucket.h"
#include "vmrun/virtio_devices.h"

struct virtio_limit {
    struct virtio_device *vdev;
    struct loop_timer *timer;
    struct virtio_rates rates;
    struct bucket ops, bytes;
    bool limited;     /* else the rest is not looked at */
    bool armed;       /* nobody is admitted before the timer says so */
    uint64_t waiting; /* queues that are rung then */
    unsigned turn;    /* the first of them */
    uint64_t waits;   /* a counter: how often a queue had to wait */
};
static_assert(VIRTIO_MAX_QUEUES <= 64, "a bit for each queue");

/*
 * On the device's loop, or while that does not run; on zeros, which limit nothing. vdev: after
 * virtio_init(). Errors: -EMFILE, -ENOMEM.
 */
int virtio_limit_create(struct virtio_limit *limit, struct virtio_device *vdev, struct error *err);
void virtio_limit_destroy(struct virtio_limit *limit); /* likewise; zeros are fine */

/* Any thread. full: as of bucket_set(), of what has changed. What waits is looked at again. */
void virtio_limit_set(struct virtio_limit *limit, const struct virtio_rates *rates, bool full);

/* As virtio_limit_admits(), of one that limits. */
bool virtio_limit_asks(struct virtio_limit *limit, unsigned queue, uint64_t now_ns);

/* Whether this queue may take one request more. If not, it will be rung. */
static inline bool virtio_limit_admits(struct virtio_limit *limit, unsigned queue, uint64_t now_ns)
{
    return !limit->limited || virtio_limit_asks(limit, queue, now_ns);
}

/* The time, where it matters: for a device that has no other use for the clock. */
static inline uint64_t virtio_limit_now(const struct virtio_limit *limit)
{
    return limit->limited ? loop_now_ns() : 0;
}

/* What was admitted was this much. */
static inline void virtio_limit_take(struct virtio_limit *limit, unsigned ops, uint64_t bytes,
                                     uint64_t now_ns)
{
    if (!limit->limited)
        return;
    bucket_take(&limit->ops, ops, now_ns);
    bucket_take(&limit->bytes, bytes, now_ns);
}

/* Pause, reset: nobody waits any more, for whoever goes on has all queues rung. */
void virtio_limit_forget(struct virtio_limit *limit);

#endif
