/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio_console: hvc0, one port. VIRTIO 1.2, "Console Device".
 *
 * The one thing to know: a request that the console takes only a part of goes back into the ring,
 * and `sent` remembers how much of it is done. So nothing that the guest prints is lost while the
 * console is slow, and nothing is in flight between two calls.
 */
#include <assert.h>
#include <errno.h>
#include <linux/virtio_console.h>
#include <linux/virtio_ids.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmrun/virtio_devices.h"

#define CLASS_OTHER_COMMUNICATION 0x078000
#define QUEUE_SIZE 64
#define BURST_BYTES 65536 /* of output in one go: the machine's thread has more to do */

enum { RECEIVE = 0, TRANSMIT = 1 };

struct virtio_console {
    struct virtio_device vdev;
    struct console *console;
    bool loading;
    struct iovec iov[VIRTQ_MAX_CHAIN];

    uint16_t columns, rows;
    uint32_t sent; /* bytes of the oldest output request that the console has */
};
static_assert(offsetof(struct virtio_console, vdev) == 0, "state offsets count from the device");

static struct virtio_console *self(struct virtio_device *vdev)
{
    return container_of(vdev, struct virtio_console, vdev);
}

/* Offer the rest of a request, `most` bytes of it. False: it is not done yet. */
static bool send_request(struct virtio_console *c, const struct virtq_chain *chain, size_t *most)
{
    uint64_t skip = c->sent;

    for (unsigned i = 0; i < chain->out; i++) {
        size_t len = chain->iov[i].iov_len, offered, taken;

        if (skip >= len) {
            skip -= len;
            continue;
        }
        offered = len - skip < *most ? len - skip : *most;
        taken = console_write(c->console, (const uint8_t *)chain->iov[i].iov_base + skip, offered);
        c->sent += (uint32_t)taken;
        *most -= taken;
        if (taken < len - skip)
            return false;
        skip = 0;
    }
    c->sent = 0;
    return true;
}

static void transmit(struct virtio_console *c)
{
    struct virtqueue *vq = &c->vdev.queues[TRANSMIT];
    struct virtq_chain chain = {.iov = c->iov, .room = VIRTQ_MAX_CHAIN};
    size_t most = BURST_BYTES;
    int r;

    while ((r = virtqueue_pop(vq, &chain)) > 0) {
        if (!send_request(c, &chain, &most)) {
            virtqueue_unpop(vq, &chain);
            break; /* the console will say when it has room */
        }
        virtqueue_push(vq, &chain, 0);
    }
    virtio_notify(&c->vdev, TRANSMIT);
    if (r < 0)
        virtio_broken(&c->vdev, "the driver broke the transmit ring");
    else if (r > 0 && most == 0)
        virtio_ring(&c->vdev, TRANSMIT);
}

/* Fill a buffer with the input there is. */
static uint32_t fill(struct virtio_console *c, const struct virtq_chain *chain)
{
    uint32_t filled = 0;

    for (unsigned i = chain->out; i < chain->out + chain->in; i++) {
        size_t n = console_read(c->console, chain->iov[i].iov_base, chain->iov[i].iov_len);

        filled += (uint32_t)n;
        if (n < chain->iov[i].iov_len)
            break;
    }
    return filled;
}

static void receive(struct virtio_console *c)
{
    struct virtqueue *vq = &c->vdev.queues[RECEIVE];
    struct virtq_chain chain = {.iov = c->iov, .room = VIRTQ_MAX_CHAIN};
    int r;

    while ((r = virtqueue_pop(vq, &chain)) > 0) {
        uint32_t filled;

        if (!chain.in) {
            r = -EPROTO;
            break;
        }
        filled = fill(c, &chain);
        if (!filled) {
            virtqueue_unpop(vq, &chain);
            break; /* the console will say when there is input */
        }
        virtqueue_push(vq, &chain, filled);
    }
    virtio_notify(&c->vdev, RECEIVE);
    if (r < 0)
        virtio_broken(&c->vdev, "the driver broke the receive ring");
}

static void virtio_console_kick(struct virtio_device *vdev, unsigned queue)
{
    if (queue == TRANSMIT)
        transmit(self(vdev));
    else
        receive(self(vdev));
}

static bool runs(const struct virtio_console *c)
{
    return c->vdev.started && !c->vdev.paused;
}

/* The console's callbacks; start and resume ring each doorbell, and so make up for them. */
static void virtio_console_writable(void *opaque)
{
    if (runs(opaque))
        transmit(opaque);
}

static void virtio_console_readable(void *opaque)
{
    if (runs(opaque))
        receive(opaque);
}

static uint64_t virtio_console_config_read(struct virtio_device *vdev, uint64_t offset,
                                           unsigned size)
{
    const struct virtio_console *c = self(vdev);
    const struct virtio_console_config config = {
        .cols = c->columns, .rows = c->rows, .max_nr_ports = 1};
    uint64_t value = 0;

    memcpy(&value, (const uint8_t *)&config + offset, size);
    return value;
}

/* Emergency write: one byte, at any time, also before there is a driver. */
static void virtio_console_config_write(struct virtio_device *vdev, uint64_t offset, unsigned size,
                                        uint64_t value)
{
    uint8_t byte = (uint8_t)value;

    (void)size;
    if (offset == offsetof(struct virtio_console_config, emerg_wr))
        (void)console_write(self(vdev)->console, &byte, 1); /* it has no way to say "busy" */
}

static void virtio_console_start(struct virtio_device *vdev)
{
    struct virtio_console *c = self(vdev);

    if (c->loading)
        return;
    c->sent = 0;
    /* Linux's driver of one port reads the size when it is told of a change, and only then. */
    if (c->columns && virtio_has(vdev, VIRTIO_CONSOLE_F_SIZE))
        virtio_config_changed(vdev);
}

static void virtio_console_stop(struct virtio_device *vdev)
{
    if (!self(vdev)->loading)
        self(vdev)->sent = 0;
}

void virtio_console_resize(struct device *dev, uint16_t columns, uint16_t rows)
{
    struct virtio_console *c = container_of(dev, struct virtio_console, vdev.pci.dev);

    pthread_mutex_lock(&dev->lock);
    if (c->columns != columns || c->rows != rows) {
        c->columns = columns;
        c->rows = rows;
        if (virtio_has(&c->vdev, VIRTIO_CONSOLE_F_SIZE))
            virtio_config_changed(&c->vdev);
    }
    pthread_mutex_unlock(&dev->lock);
}

static void virtio_console_reset(struct device *dev)
{
    virtio_reset(dev);
    container_of(dev, struct virtio_console, vdev.pci.dev)->sent = 0;
}

static void virtio_console_destroy(struct device *dev)
{
    struct virtio_console *c = container_of(dev, struct virtio_console, vdev.pci.dev);

    if (c->console)
        console_set_device(c->console, &(struct console_device){0});
    virtio_fini(&c->vdev);
    free(c);
}

static int virtio_console_post_load(void *obj, struct error *err)
{
    struct virtio_console *c = obj;
    int r;

    c->loading = true;
    r = virtio_post_load(&c->vdev, err);
    c->loading = false;
    return r;
}

static const struct state_field virtio_console_fields[] = {
    VIRTIO_STATE_FIELDS(struct virtio_console, vdev),
    STATE(struct virtio_console, columns),
    STATE(struct virtio_console, rows),
    STATE(struct virtio_console, sent),
    STATE_END,
};

static const struct state_desc virtio_console_state = {
    .name = "virtio-console",
    .version = 1,
    .fields = virtio_console_fields,
    .post_load = virtio_console_post_load,
};

static const struct device_ops virtio_console_device_ops = {
    .type = "virtio-console",
    .read = virtio_read,
    .write = virtio_write,
    .reset = virtio_console_reset,
    .pause = virtio_pause,
    .resume = virtio_resume,
    .destroy = virtio_console_destroy,
    .state = &virtio_console_state,
};

static void virtio_console_queue_name(const struct virtio_device *vdev, unsigned queue, char *buf,
                                      size_t len)
{
    (void)vdev;
    snprintf(buf, len, "%s", queue == RECEIVE ? "rx" : "tx");
}

static const struct virtio_ops virtio_console_ops = {
    .type = "virtio-console",
    .device_id = VIRTIO_ID_CONSOLE,
    .class_code = CLASS_OTHER_COMMUNICATION,
    .config_read = virtio_console_config_read,
    .config_write = virtio_console_config_write,
    .start = virtio_console_start,
    .stop = virtio_console_stop,
    .kick = virtio_console_kick,
    .queue_name = virtio_console_queue_name,
};

int virtio_console_create(struct platform *platform, struct device *host, struct loop *loop,
                          struct console *console, struct device **ret_dev, struct error *err)
{
    const struct virtio_params params = {
        .platform = platform,
        .host = host,
        .loop = loop,
        .id = "hvc0",
        .features = UINT64_C(1) << VIRTIO_CONSOLE_F_SIZE | UINT64_C(1)
                                                               << VIRTIO_CONSOLE_F_EMERG_WRITE,
        .queues = 2,
        .queue_size = QUEUE_SIZE,
        .config_size = sizeof(struct virtio_console_config),
    };
    struct virtio_console *c = calloc(1, sizeof(*c));
    int r;

    if (!c)
        return error_set(err, ENOMEM, "hvc0: out of memory");
    r = virtio_init(&c->vdev, &virtio_console_device_ops, &virtio_console_ops, &params, err);
    if (r < 0)
        goto fail;
    c->console = console;
    console_set_device(console, &(struct console_device){.writable = virtio_console_writable,
                                                         .readable = virtio_console_readable,
                                                         .opaque = c,
                                                         .lock = &c->vdev.pci.dev.lock});
    *ret_dev = &c->vdev.pci.dev;
    return 0;

fail:
    virtio_console_destroy(&c->vdev.pci.dev);
    return r;
}
