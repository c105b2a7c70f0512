/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio: the life of a device, its interrupts and doorbells; the registers are virtio_pci's.
 *
 * A doorbell is an eventfd that the device's loop watches, so a request never runs on the vCPU
 * that rang. The one thing to know: `started` is the gate. A kick gets through it only with the
 * device's lock held, and whoever closes it (reset, a broken ring, destroy) holds that lock too.
 * Nothing here waits for the loop's thread while it holds the lock: that thread may be waiting
 * for the lock itself.
 */
#include "vmrun/virtio.h"

#include <assert.h>
#include <errno.h>
#include <linux/virtio_config.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "virtio_internal.h"

enum { ISR_QUEUE = 1, ISR_CONFIG = 2 };

/*
 * Of virtio_pace(), in kicks. A thread that shares its CPU with the one that rings finds a request
 * a kick when it takes the CPU at once, and all that the driver has when it gives way; but then one
 * request alone takes longer. Which is better is tried, rarely where it was not.
 */
enum { TRIAL = 8, SHORT_REST = 32, LONG_REST = 1024 };

static struct virtio_device *self(struct device *dev)
{
    return container_of(dev, struct virtio_device, pci.dev);
}

bool virtio_has(const struct virtio_device *vdev, unsigned feature_bit)
{
    return vdev->status & VIRTIO_CONFIG_S_FEATURES_OK && vdev->negotiated >> feature_bit & 1;
}

/* Interrupts */

static void interrupt(struct virtio_device *vdev, uint16_t vector, uint8_t isr)
{
    if (!pci_msix_enabled(&vdev->pci)) {
        vdev->isr |= isr;
        pci_intx_set(&vdev->pci, true);
    } else if (vector != VIRTIO_NO_VECTOR) {
        pci_msix_fire(&vdev->pci, vector);
    }
}

/* Whether the driver was interrupted. */
static bool notify(struct virtio_device *vdev, unsigned queue)
{
    struct virtqueue *vq = &vdev->queues[queue];

    if (vdev->paused || !vdev->started)
        return false; /* resume asks again */
    if (!virtqueue_needs_interrupt(vq))
        return false;
    counter_add(&vq->interrupts, 1);
    interrupt(vdev, vdev->queue_vector[queue], ISR_QUEUE);
    return true;
}

void virtio_notify(struct virtio_device *vdev, unsigned queue)
{
    (void)notify(vdev, queue);
}

void virtio_interrupt(struct virtio_device *vdev, unsigned queue)
{
    interrupt(vdev, vdev->queue_vector[queue], ISR_QUEUE);
}

int virtio_interrupt_fd(const struct virtio_device *vdev, unsigned queue)
{
    return pci_msix_fd(&vdev->pci, vdev->queue_vector[queue]);
}

static void config_interrupt(struct virtio_device *vdev)
{
    if (!(vdev->status & VIRTIO_CONFIG_S_DRIVER_OK))
        return;
    vdev->config_pending = vdev->paused;
    if (!vdev->paused)
        interrupt(vdev, vdev->config_vector, ISR_CONFIG);
}

void virtio_config_changed(struct virtio_device *vdev)
{
    vdev->config_generation++;
    config_interrupt(vdev);
}

void virtio_broken(struct virtio_device *vdev, const char *what)
{
    if (vdev->status & VIRTIO_CONFIG_S_NEEDS_RESET)
        return;
    log_warn_limited(&vdev->complaints, "%s: %s; waits for the guest to reset it", vdev->pci.dev.id,
                     what);
    vdev->status |= VIRTIO_CONFIG_S_NEEDS_RESET;
    vdev->started = false;
    for (unsigned i = 0; i < vdev->queue_count; i++)
        vdev->queues[i].broken = true;
    if (vdev->ops->broken)
        vdev->ops->broken(vdev);
    config_interrupt(vdev);
}

/* Doorbells */

void virtio_ring(struct virtio_device *vdev, unsigned queue)
{
    static const uint64_t one = 1;

    /* EAGAIN means that the counter is full: the loop is woken already. */
    if (write(vdev->kicks[queue].fd, &one, sizeof(one)) < 0)
        assert(errno == EAGAIN);
}

void virtio_lend_doorbell(struct virtio_device *vdev, unsigned queue, bool lent)
{
    loop_watch_set(vdev->kicks[queue].watch, lent ? EPOLLONESHOT : EPOLLIN | EPOLLET);
}

void virtio_pace(struct virtio_device *vdev, unsigned found)
{
    struct virtio_pace *p = &vdev->pace;

    if (!vdev->thread || found == 0)
        return;
    if (!p->gives_way) {
        if (p->wait-- > 0)
            return;
        p->gives_way = true;
        p->kicks = p->found = 0;
        iothread_give_way(vdev->thread, true);
        return;
    }
    p->found += found;
    if (++p->kicks < TRIAL)
        return;
    if (p->found >= 2 * TRIAL) {
        p->kicks = p->found = 0;
        p->rest = SHORT_REST;
        return;
    }
    p->gives_way = false;
    p->wait = p->rest;
    p->rest = p->rest < LONG_REST ? 2 * p->rest : LONG_REST;
    iothread_give_way(vdev->thread, false);
}

static void ring_all(struct virtio_device *vdev)
{
    for (unsigned i = 0; i < vdev->queue_count; i++)
        if (vdev->started && vdev->queues[i].enabled)
            virtio_ring(vdev, i);
}

static void kicked(void *opaque, uint32_t events)
{
    struct virtio_kick *kick = opaque;
    struct virtio_device *vdev = kick->vdev;
    unsigned queue = (unsigned)(kick - vdev->kicks);

    (void)events;
    if (!vdev->started || vdev->paused || !vdev->queues[queue].enabled)
        return;
    counter_add(&vdev->queues[queue].kicks, 1);
    vdev->ops->kick(vdev, queue);
}

struct watches {
    struct virtio_device *vdev;
    struct error *err;
    int result;
};

static void create_watches(void *opaque)
{
    struct watches *w = opaque;
    struct virtio_device *vdev = w->vdev;

    for (unsigned i = 0; i < vdev->queue_count && w->result == 0; i++)
        /* Each write is an edge, so nobody reads the counter: a system call a kick less. */
        w->result =
            loop_watch_create(vdev->loop, vdev->kicks[i].fd, EPOLLIN | EPOLLET, &vdev->pci.dev.lock,
                              kicked, &vdev->kicks[i], &vdev->kicks[i].watch, w->err);
}

static void destroy_watches(void *opaque)
{
    struct virtio_device *vdev = opaque;

    for (unsigned i = 0; i < vdev->queue_count; i++)
        loop_watch_destroy(vdev->kicks[i].watch);
}

static void call_on_loop(struct virtio_device *vdev, loop_fn *fn, void *opaque)
{
    if (vdev->thread)
        iothread_call(vdev->thread, fn, opaque);
    else
        fn(opaque);
}

static int create_kicks(struct virtio_device *vdev, struct error *err)
{
    struct watches watches = {.vdev = vdev, .err = err};

    for (unsigned i = 0; i < vdev->queue_count; i++) {
        vdev->kicks[i].fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (vdev->kicks[i].fd < 0)
            return error_errno(err, errno, "%s: doorbell", vdev->pci.dev.id);
    }
    call_on_loop(vdev, create_watches, &watches);
    return watches.result;
}

/* The life of a device */

static int start_queue(struct virtio_device *vdev, struct virtqueue *vq)
{
    vq->event_idx = virtio_has(vdev, VIRTIO_F_EVENT_IDX);
    vq->indirect = virtio_has(vdev, VIRTIO_F_INDIRECT_DESC);
    return virtqueue_start(vq);
}

void virtio_start(struct virtio_device *vdev)
{
    vdev->started = true;
    for (unsigned i = 0; i < vdev->queue_count; i++) {
        struct virtqueue *vq = &vdev->queues[i];

        if (vq->enabled && start_queue(vdev, vq) < 0) {
            virtio_broken(vdev, "the driver set up a queue that cannot be");
            return;
        }
    }
    vdev->running = true;
    if (vdev->ops->start)
        vdev->ops->start(vdev);
    /* A driver may have added requests, and rung, before it said that it is ready. */
    ring_all(vdev);
}

void virtio_enable_queue(struct virtio_device *vdev, struct virtqueue *vq)
{
    vq->enabled = true;
    if (vdev->started && start_queue(vdev, vq) < 0)
        virtio_broken(vdev, "the driver set up a queue that cannot be");
}

static void stop(struct virtio_device *vdev)
{
    vdev->started = false;
    if (vdev->running && vdev->ops->stop)
        vdev->ops->stop(vdev);
    vdev->running = false;
}

/* As the driver resets it: everything but the function around it. */
void virtio_reset_by_driver(struct virtio_device *vdev)
{
    stop(vdev);
    for (unsigned i = 0; i < vdev->queue_count; i++)
        virtqueue_reset(&vdev->queues[i]);
    for (unsigned i = 0; i < VIRTIO_MAX_QUEUES; i++)
        vdev->queue_vector[i] = VIRTIO_NO_VECTOR;
    vdev->config_vector = VIRTIO_NO_VECTOR;
    vdev->negotiated = 0;
    vdev->status = 0;
    vdev->isr = 0;
    vdev->config_generation = 0;
    vdev->config_pending = false;
    vdev->loaded = false;
    vdev->device_feature_select = vdev->driver_feature_select = 0;
    vdev->queue_select = 0;
    pci_intx_set(&vdev->pci, false);
}

void virtio_reset(struct device *dev)
{
    virtio_reset_by_driver(self(dev));
    pci_device_reset(&self(dev)->pci);
}

void virtio_pause(struct device *dev)
{
    self(dev)->paused = true;
}

void virtio_resume(struct device *dev)
{
    struct virtio_device *vdev = self(dev);
    bool again = vdev->loaded && vdev->started;

    if (!vdev->paused)
        return;
    vdev->paused = vdev->loaded = false;
    /*
     * A message that was under way when the state was taken is part of no state, and the driver
     * would wait for it for ever; one that comes twice does no harm.
     */
    for (unsigned i = 0; i < vdev->queue_count; i++)
        if (!notify(vdev, i) && again && vdev->queues[i].enabled)
            pci_msix_repeat(&vdev->pci, vdev->queue_vector[i]);
    if (vdev->config_pending)
        config_interrupt(vdev);
    else if (again)
        pci_msix_repeat(&vdev->pci, vdev->config_vector);
    ring_all(vdev); /* what rang meanwhile was not heard */
}

/* What it did */

void virtio_stats(const struct device *dev, virtio_stat_fn *fn, void *opaque)
{
    const struct virtio_device *vdev =
        container_of((struct device *)dev, struct virtio_device, pci.dev);

    for (unsigned i = 0; i < vdev->queue_count; i++) {
        const struct virtqueue *vq = &vdev->queues[i];
        char queue[16];

        if (vdev->uncounted >> i & 1)
            continue;
        if (vdev->ops->queue_name)
            vdev->ops->queue_name(vdev, i, queue, sizeof(queue));
        else
            snprintf(queue, sizeof(queue), "q%u", i);
        fn(opaque, queue, "requests", counter_read(&vq->requests));
        fn(opaque, queue, "bytes_out", counter_read(&vq->bytes_out));
        fn(opaque, queue, "bytes_in", counter_read(&vq->bytes_in));
        fn(opaque, queue, "kicks", counter_read(&vq->kicks));
        fn(opaque, queue, "interrupts", counter_read(&vq->interrupts));
    }
}

/* Moving it */

bool virtio_features_are_good(const struct virtio_device *vdev)
{
    return !(vdev->negotiated & ~vdev->offered) && vdev->negotiated >> VIRTIO_F_VERSION_1 & 1;
}

static bool vector_is_good(const struct virtio_device *vdev, uint16_t vector)
{
    return vector == VIRTIO_NO_VECTOR || vector < vdev->pci.msix_count;
}

/* What no driver can bring about, and nothing else may rely on being impossible. */
static const char *contradiction(const struct virtio_device *vdev)
{
    uint8_t status = vdev->status;

    if (status & ~STATUS_ALL)
        return "a status bit that does not exist";
    if (status & VIRTIO_CONFIG_S_DRIVER_OK && !(status & VIRTIO_CONFIG_S_FEATURES_OK))
        return "a driver is there without features";
    if (status & VIRTIO_CONFIG_S_NEEDS_RESET && !(status & VIRTIO_CONFIG_S_DRIVER_OK))
        return "a ring was broken without a driver";
    if (status & VIRTIO_CONFIG_S_FEATURES_OK && !virtio_features_are_good(vdev))
        return "features that are not offered";
    if (vdev->pci.intx_level != (vdev->isr != 0))
        return "the interrupt line and its status differ";
    if (!vector_is_good(vdev, vdev->config_vector))
        return "a vector that does not exist";
    for (unsigned i = 0; i < VIRTIO_MAX_QUEUES; i++) {
        if (!vector_is_good(vdev, vdev->queue_vector[i]))
            return "a vector that does not exist";
        if (i >= vdev->queue_count && vdev->queues[i].enabled)
            return "a queue that does not exist";
        if (vdev->queues[i].broken && !(status & VIRTIO_CONFIG_S_NEEDS_RESET))
            return "a queue is broken and the device is not";
    }
    return NULL;
}

int virtio_post_load(struct virtio_device *vdev, struct error *err)
{
    const char *what;
    int r;

    stop(vdev); /* what it did before the load */
    vdev->loaded = false;
    for (unsigned i = 0; i < vdev->queue_count; i++)
        virtqueue_stop(&vdev->queues[i]);
    r = pci_device_post_load(&vdev->pci, err);
    if (r < 0)
        return r;
    what = contradiction(vdev);
    if (what)
        return error_set(err, EPROTO, "%s", what);
    if ((vdev->status & (VIRTIO_CONFIG_S_DRIVER_OK | VIRTIO_CONFIG_S_NEEDS_RESET)) !=
        VIRTIO_CONFIG_S_DRIVER_OK)
        return 0;

    for (unsigned i = 0; i < vdev->queue_count; i++)
        if (vdev->queues[i].enabled && start_queue(vdev, &vdev->queues[i]) < 0)
            return error_set(err, EPROTO, "queue %u lies outside memory, or is not in order", i);
    virtio_start(vdev);
    vdev->loaded = true;
    return 0;
}

/* Building it */

int virtio_init(struct virtio_device *vdev, const struct device_ops *dev_ops,
                const struct virtio_ops *ops, const struct virtio_params *params, struct error *err)
{
    int r;

    assert(params->queues > 0 && params->queues <= VIRTIO_MAX_QUEUES);
    assert(!params->loop != !params->thread);
    device_init(&vdev->pci.dev, dev_ops, params->id);
    vdev->ops = ops;
    vdev->thread = params->thread;
    vdev->loop = params->thread ? iothread_loop(params->thread) : params->loop;
    vdev->offered = params->features | UINT64_C(1) << VIRTIO_F_VERSION_1 |
                    1u << VIRTIO_F_INDIRECT_DESC | 1u << VIRTIO_F_EVENT_IDX;
    vdev->config_size = params->config_size;
    vdev->pace.wait = vdev->pace.rest = SHORT_REST;
    vdev->queue_count = params->queues;
    for (unsigned i = 0; i < vdev->queue_count; i++) {
        virtqueue_init(&vdev->queues[i], params->platform->memory, params->queue_size);
        vdev->kicks[i] = (struct virtio_kick){.vdev = vdev, .fd = -1};
    }

    r = create_kicks(vdev, err);
    if (r < 0)
        goto fail;
    r = virtio_pci_init(vdev, params->platform, err);
    if (r < 0)
        goto fail;
    virtio_reset_by_driver(vdev);
    return pci_host_plug(params->host, &vdev->pci, -1, err);

fail:
    return error_prefix(err, "%s", params->id);
}

void virtio_fini(struct virtio_device *vdev)
{
    pthread_mutex_lock(&vdev->pci.dev.lock);
    stop(vdev);
    pthread_mutex_unlock(&vdev->pci.dev.lock);

    pci_device_fini(&vdev->pci);
    call_on_loop(vdev, destroy_watches, vdev);
    for (unsigned i = 0; i < vdev->queue_count; i++)
        if (vdev->kicks[i].fd >= 0)
            close(vdev->kicks[i].fd);
    device_fini(&vdev->pci.dev);
}
