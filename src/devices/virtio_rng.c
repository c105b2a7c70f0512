/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio_rng: entropy for the guest, VIRTIO 1.2 "Entropy Device".
 *
 * The smallest virtio device: one queue of buffers that it fills with getrandom(2). It never has
 * a request in flight, so there is nothing to start, stop, drain or save of its own.
 */
#include <assert.h>
#include <errno.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <sys/random.h>

#include "vmrun/virtio_devices.h"

#define QUEUE_SIZE 64
#define BUFFERS 16
#define REQUEST_BYTES 4096 /* what one request gets at most: a driver takes less than it asked */
#define CLASS_OTHER_CRYPTO 0x108000

struct virtio_rng {
    struct virtio_device vdev;
};
static_assert(offsetof(struct virtio_rng, vdev) == 0, "state offsets count from the device");

/* Fill the request's buffers. Returns bytes. */
static uint32_t fill(const struct virtq_chain *chain)
{
    uint8_t bytes[REQUEST_BYTES];
    ssize_t got =
        getrandom(bytes, chain->in_bytes < sizeof(bytes) ? chain->in_bytes : sizeof(bytes), 0);

    if (got < 0)
        return 0;
    return (uint32_t)iov_from_buf(chain->iov + chain->out, chain->in, 0, bytes, (uint64_t)got);
}

static void virtio_rng_kick(struct virtio_device *vdev, unsigned queue)
{
    struct virtqueue *vq = &vdev->queues[queue];
    struct iovec iov[BUFFERS];
    struct virtq_chain chain = {.iov = iov, .room = BUFFERS};
    unsigned served = 0;
    int r = 0;

    while (served < QUEUE_SIZE && (r = virtqueue_pop(vq, &chain)) == 1) {
        virtqueue_push(vq, &chain, fill(&chain));
        served++;
    }
    virtio_notify(vdev, queue);
    if (r == 1)
        virtio_ring(vdev, queue); /* the others on this loop come first */
    else if (r < 0)
        virtio_broken(vdev, "the driver broke the ring");
}

static void virtio_rng_destroy(struct device *dev)
{
    struct virtio_rng *rng = container_of(dev, struct virtio_rng, vdev.pci.dev);

    virtio_fini(&rng->vdev);
    free(rng);
}

static int virtio_rng_post_load(void *obj, struct error *err)
{
    struct virtio_rng *rng = obj;

    return virtio_post_load(&rng->vdev, err);
}

static const struct state_field virtio_rng_fields[] = {
    VIRTIO_STATE_FIELDS(struct virtio_rng, vdev),
    STATE_END,
};

static const struct state_desc virtio_rng_state = {
    .name = "virtio-rng",
    .version = 1,
    .fields = virtio_rng_fields,
    .post_load = virtio_rng_post_load,
};

static const struct device_ops virtio_rng_device_ops = {
    .type = "virtio-rng",
    .read = virtio_read,
    .write = virtio_write,
    .reset = virtio_reset,
    .pause = virtio_pause,
    .resume = virtio_resume,
    .destroy = virtio_rng_destroy,
    .state = &virtio_rng_state,
};

static const struct virtio_ops virtio_rng_ops = {
    .type = "virtio-rng",
    .device_id = VIRTIO_ID_RNG,
    .class_code = CLASS_OTHER_CRYPTO,
    .kick = virtio_rng_kick,
};

int virtio_rng_create(struct platform *platform, struct device *host, struct loop *loop,
                      struct device **ret_dev, struct error *err)
{
    const struct virtio_params params = {
        .platform = platform,
        .host = host,
        .loop = loop,
        .id = "rng",
        .queues = 1,
        .queue_size = QUEUE_SIZE,
    };
    struct virtio_rng *rng = calloc(1, sizeof(*rng));
    int r;

    if (!rng)
        return error_set(err, ENOMEM, "rng: out of memory");
    r = virtio_init(&rng->vdev, &virtio_rng_device_ops, &virtio_rng_ops, &params, err);
    if (r < 0)
        goto fail;

    *ret_dev = &rng->vdev.pci.dev;
    return 0;

fail:
    virtio_rng_destroy(&rng->vdev.pci.dev);
    return r;
}
