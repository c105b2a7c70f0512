/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio_blk_host: what the host wants of a disk: its figures, other limits, that it is durable,
 * that it has grown. The one thing to know: these come from any thread, and take the lock.
 */
#include "virtio_blk.h"

#include <stdio.h>

#include "vmrun/log.h"

static struct virtio_blk *self(const struct device *dev)
{
    return container_of((struct device *)dev, struct virtio_blk, vdev.pci.dev);
}

void virtio_blk_refresh(struct device *dev)
{
    struct virtio_blk *blk = self(dev);

    pthread_mutex_lock(&dev->lock);
    if (block_refresh_size(blk->block)) {
        blk->capacity = block_size_sectors(blk->block);
        log_info("%s: has %llu sectors now", dev->id, (unsigned long long)blk->capacity);
        virtio_config_changed(&blk->vdev);
    }
    pthread_mutex_unlock(&dev->lock);
}

int virtio_blk_identity(struct device *dev, struct block_identity *ret_identity, struct error *err)
{
    int r;

    pthread_mutex_lock(&dev->lock);
    r = block_identity(self(dev)->block, ret_identity);
    pthread_mutex_unlock(&dev->lock);
    return r < 0 ? error_errno(err, -r, "%s: cannot tell which image it has", dev->id) : 0;
}

struct block *virtio_blk_block(struct device *dev)
{
    return self(dev)->block;
}

void virtio_blk_stats(const struct device *dev, struct virtio_blk_stats *ret_stats)
{
    const struct virtio_blk *blk = self(dev);

    blk_report_stats(&blk->report, ret_stats);
    ret_stats->limit_waits = counter_read(&blk->limit.waits);
}

struct latency {
    virtio_stat_fn *fn;
    void *opaque;
    char queue[16];
};

static void tell_bucket(void *opaque, uint64_t limit_ns, uint64_t count)
{
    const struct latency *told = opaque;
    char name[40];

    snprintf(name, sizeof(name), "latency_ns.%llu", (unsigned long long)limit_ns);
    told->fn(told->opaque, told->queue, name, count);
}

void virtio_blk_latency(const struct device *dev, virtio_stat_fn *fn, void *opaque)
{
    const struct virtio_blk *blk = self(dev);
    struct latency told = {.fn = fn, .opaque = opaque};

    for (unsigned i = 0; i < blk->vdev.queue_count; i++) {
        snprintf(told.queue, sizeof(told.queue), "q%u", i);
        histogram_tell(&blk->latency[i], tell_bucket, &told);
        fn(opaque, told.queue, "latency_max_ns", histogram_max_ns(&blk->latency[i]));
    }
}

void virtio_blk_limit(struct device *dev, const struct virtio_rates *rates)
{
    pthread_mutex_lock(&dev->lock);
    virtio_limit_set(&self(dev)->limit, rates, false);
    pthread_mutex_unlock(&dev->lock);
}

int virtio_blk_sync(struct device *dev, uint64_t until_ns, struct error *err)
{
    struct block *block = virtio_blk_block(dev);

    pthread_mutex_lock(&dev->lock);
    int r = block_sync_until(block, until_ns);
    unsigned left = block_in_flight(block);
    pthread_mutex_unlock(&dev->lock);
    return r == 0 ? 0 : blk_report_unsettled(dev->id, r, left, err);
}
