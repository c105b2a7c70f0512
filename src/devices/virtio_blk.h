/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DEVICES_VIRTIO_BLK_H
#define DEVICES_VIRTIO_BLK_H

/* What virtio-blk's files share. Everything with the device's lock held, unless said. */

#include <linux/virtio_blk.h>

#include "virtio_blk_report.h"
#include "virtio_limit.h"
#include "vmrun/histogram.h"

struct virtio_blk {
    struct virtio_device vdev;
    struct iothread *thread;
    struct block *block;
    struct request *requests; /* touched as needed: `fresh` of them were never used */
    unsigned request_count, fresh;
    struct request *free;
    uint64_t to_notify; /* queues with requests pushed since they were last notified */
    uint64_t starved;   /* queues that wait until a request is free */
    bool stopping;      /* what completes now is no longer told to the driver */
    bool initialised;   /* virtio_init() was called */
    uint64_t capacity;  /* in sectors, as the driver was told */
    uint8_t serial[VIRTIO_BLK_ID_BYTES];
    struct blk_report report;
    struct virtio_limit limit;
    /* One look at the clock for all that a kick brings, and for all that completes at once. */
    uint64_t kick_ns, done_ns; /* done_ns 0: nothing completes just now */
    struct histogram *latency; /* of each queue; any thread reads */
};

#endif
