/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio_vsock: stream sockets between a guest and programs of its host, VIRTIO 1.2 "Socket
 * Device": queues, events, and the life of the device. Connections are virtio_vsock_conn's.
 *
 * The one thing to know: between two calls nothing is in flight. A packet of the guest is dealt
 * with when it is popped, and a buffer for one to the guest is popped only when there is one. So
 * the queues travel as they are, and connections do not: the event of a transport that was reset
 * tells the driver.
 */
#include "virtio_vsock.h"

#include <assert.h>
#include <errno.h>
#include <linux/virtio_ids.h>
#include <linux/vm_sockets.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CLASS_OTHER_COMMUNICATION 0x078000
#define QUEUE_SIZE 256
#define SETTLE_PATIENCES 6 /* that is, 30 s */
#define BURST 128          /* packets in one go, before the others on this loop have theirs */
#define HOST_EVENTS 64
#define TICK_NS UINT64_C(1000000000)

enum { RECEIVE = 0, TRANSMIT = 1, EVENT = 2, QUEUES = 3 };

static_assert(offsetof(struct virtio_vsock, vdev) == 0, "state offsets count from the device");

static struct virtio_vsock *self(struct virtio_device *vdev)
{
    return container_of(vdev, struct virtio_vsock, vdev);
}

static struct virtio_vsock *from_device(const struct device *dev)
{
    return container_of((struct device *)dev, struct virtio_vsock, vdev.pci.dev);
}

static bool runs(const struct virtio_vsock *v)
{
    return v->vdev.started && !v->vdev.paused;
}

/* Packets for the guest */

static void receive(struct virtio_vsock *v)
{
    struct virtqueue *vq = &v->vdev.queues[RECEIVE];
    struct virtq_chain chain = {.iov = v->iov, .room = VIRTQ_MAX_CHAIN};
    unsigned given = 0;
    int r = 0;

    while (given < BURST && vsock_has_packet(v) && (r = virtqueue_pop(vq, &chain)) > 0) {
        struct iovec *in = chain.iov + chain.out;
        uint32_t bytes;

        if (chain.in_bytes <= VSOCK_HEADER) {
            r = -EPROTO;
            break;
        }
        bytes = vsock_give(v, in, chain.in, chain.in_bytes);
        if (!bytes) {
            virtqueue_unpop(vq, &chain);
            break;
        }
        virtqueue_mark_written(vq, in, chain.in, bytes);
        virtqueue_fill_head(vq, chain.head, bytes);
        given++;
    }
    if (given) {
        virtqueue_publish(vq);
        virtio_notify(&v->vdev, RECEIVE);
    }
    if (r < 0)
        virtio_broken(&v->vdev, "the driver broke the receive ring");
    else if (given == BURST)
        virtio_ring(&v->vdev, RECEIVE);
}

/* Packets from the guest */

static void take_packet(struct virtio_vsock *v, const struct virtq_chain *chain)
{
    struct virtio_vsock_hdr hdr;
    struct iovec *data = chain->iov;
    unsigned count = chain->out;

    counter_add(&v->stats.tx_packets, 1);
    if (iov_to_buf(data, count, 0, &hdr, VSOCK_HEADER) < VSOCK_HEADER ||
        hdr.dst_cid != VMADDR_CID_HOST || hdr.src_cid != v->cid) {
        counter_add(&v->stats.dropped, 1); /* there is nobody to answer */
        return;
    }
    iov_trim(&data, &count, VSOCK_HEADER);
    if (hdr.type == VIRTIO_VSOCK_TYPE_STREAM && hdr.len <= chain->out_bytes - VSOCK_HEADER) {
        vsock_take(v, &hdr, data, count);
        return;
    }
    log_warn_limited(
        &v->odd, "%s: a packet of the guest makes no sense (type %u, %u bytes of %llu)",
        v->vdev.pci.dev.id, hdr.type, hdr.len, (unsigned long long)chain->out_bytes - VSOCK_HEADER);
    vsock_refuse(v, &hdr);
}

/*
 * As long as there is room for an answer. A driver that gives no buffers for answers is not
 * listened to; nor is one that speaks on connections of which it does not know yet that they are
 * gone: to Linux an answer that it sees before the event is an end in good order.
 */
static void transmit(struct virtio_vsock *v)
{
    struct virtqueue *vq = &v->vdev.queues[TRANSMIT];
    struct virtq_chain chain = {.iov = v->iov, .room = VIRTQ_MAX_CHAIN};
    unsigned taken = 0;
    int r = 0;

    if (v->settling_until_ns)
        return;
    while (taken < BURST && v->reset_count < VSOCK_RESETS && (r = virtqueue_pop(vq, &chain)) > 0) {
        take_packet(v, &chain);
        virtqueue_fill_head(vq, chain.head, 0);
        taken++;
    }
    v->tx_waits = v->reset_count == VSOCK_RESETS;
    if (taken) {
        virtqueue_publish(vq);
        virtio_notify(&v->vdev, TRANSMIT);
    }
    if (r < 0)
        virtio_broken(&v->vdev, "the driver broke the transmit ring");
    else if (taken == BURST)
        virtio_ring(&v->vdev, TRANSMIT);
}

/* Something happened: what is there for the guest goes to it, and that may let it speak again. */
static void run(struct virtio_vsock *v)
{
    if (runs(v))
        receive(v);
    if (runs(v) && v->tx_waits && v->reset_count < VSOCK_RESETS)
        virtio_ring(&v->vdev, TRANSMIT);
}

/* Time */

void vsock_want_timer(struct virtio_vsock *v)
{
    if (v->timer_armed || !v->timer)
        return;
    v->timer_armed = true;
    loop_timer_arm(v->timer, loop_now_ns() + (v->patience_ns < TICK_NS ? v->patience_ns : TICK_NS));
}

void vsock_listen(struct virtio_vsock *v, bool on)
{
    if (v->listening != on)
        vsock_host_listen(v->host, on);
    v->listening = on;
}

/* The driver has dealt with the event, or is waited for no longer. */
static void settled(struct virtio_vsock *v)
{
    v->settling_until_ns = 0;
    if (!v->reset_pending)
        v->lost = 0;
    vsock_listen(v, true);
    virtio_ring(&v->vdev, TRANSMIT);
}

static void tick(void *opaque)
{
    struct virtio_vsock *v = opaque;
    uint64_t now_ns = loop_now_ns();

    v->timer_armed = false;
    if (v->vdev.paused)
        return; /* resume sets it again */
    if (v->settling_until_ns && v->settling_until_ns <= now_ns)
        settled(v);
    if (!v->settling_until_ns)
        vsock_listen(v, true);
    if (vsock_expire(v, now_ns) || v->settling_until_ns)
        vsock_want_timer(v);
    run(v);
}

/*
 * The guest hears that its connections are gone. A new one that it sees before it has dealt with
 * that would go with the old ones, so who wants to connect waits until the event's buffer is back.
 * A starved guest may need long for that, and an odd driver never does it.
 */

static void settle(struct virtio_vsock *v)
{
    v->settling_until_ns = loop_now_ns() + SETTLE_PATIENCES * v->patience_ns;
    vsock_listen(v, false);
    vsock_want_timer(v);
}

/*
 * How many event buffers there are, all of them at most, and have the driver ring when one more
 * comes: look at them and go back.
 */
static int event_buffers(struct virtio_vsock *v)
{
    struct virtqueue *vq = &v->vdev.queues[EVENT];
    struct virtq_chain chains[QUEUE_SIZE];
    int count = 0, r = 0;

    do
        chains[count] = (struct virtq_chain){.iov = v->data_iov, .room = VIRTQ_MAX_CHAIN};
    while ((r = virtqueue_pop(vq, &chains[count])) > 0 && ++count < QUEUE_SIZE);
    for (int i = count; i > 0;)
        virtqueue_unpop(vq, &chains[--i]);
    return r < 0 ? r : count;
}

/* Less than 0 when the ring is broken. */
static int tell_reset(struct virtio_vsock *v)
{
    static const struct virtio_vsock_event event = {.id = VIRTIO_VSOCK_EVENT_TRANSPORT_RESET};
    struct virtqueue *vq = &v->vdev.queues[EVENT];
    struct virtq_chain chain = {.iov = v->iov, .room = VIRTQ_MAX_CHAIN};
    int r = virtqueue_pop(vq, &chain);

    if (r <= 0)
        return r;
    if (chain.in_bytes < sizeof(event))
        return -EPROTO;
    v->event_buffers = event_buffers(v);
    if (v->event_buffers < 0)
        return v->event_buffers;
    (void)iov_from_buf(chain.iov + chain.out, chain.in, 0, &event, sizeof(event));
    virtqueue_push(vq, &chain, sizeof(event));
    v->reset_pending = false;
    v->guest_cid = v->cid;
    settle(v);
    virtio_notify(&v->vdev, EVENT);
    return 0;
}

static void events(struct virtio_vsock *v)
{
    int r = 0;

    if (v->reset_pending) {
        r = tell_reset(v);
    } else if (v->settling_until_ns && (r = event_buffers(v)) > v->event_buffers) {
        settled(v);
    }
    if (r < 0)
        virtio_broken(&v->vdev, "the driver broke the event ring");
}

static void virtio_vsock_kick(struct virtio_device *vdev, unsigned queue)
{
    struct virtio_vsock *v = self(vdev);

    if (queue == EVENT)
        events(v);
    else if (queue == TRANSMIT)
        transmit(v);
    run(v);
}

/* Programs of the host */

static void watch_host(struct virtio_vsock *v)
{
    if (v->watch)
        loop_watch_set(v->watch, v->vdev.paused ? EPOLLONESHOT : EPOLLIN);
}

static void host_ready(void *opaque, uint32_t what)
{
    struct virtio_vsock *v = opaque;
    struct vsock_event events[HOST_EVENTS];
    unsigned count;

    (void)what;
    if (v->vdev.paused) {
        watch_host(v);
        return;
    }
    if (!v->vdev.started)
        vsock_drop_all(v); /* the driver broke a ring */
    count = vsock_host_wait(v->host, events, HOST_EVENTS);
    for (unsigned i = 0; i < count; i++)
        vsock_event(v, &events[i]);
    run(v);
}

void virtio_vsock_stats(const struct device *dev, struct virtio_vsock_stats *ret_stats)
{
    const struct virtio_vsock_stats *stats = &from_device(dev)->stats;

    *ret_stats = (struct virtio_vsock_stats){
        .opened = counter_read(&stats->opened),
        .closed = counter_read(&stats->closed),
        .refused = counter_read(&stats->refused),
        .resets = counter_read(&stats->resets),
        .rx_packets = counter_read(&stats->rx_packets),
        .rx_bytes = counter_read(&stats->rx_bytes),
        .tx_packets = counter_read(&stats->tx_packets),
        .tx_bytes = counter_read(&stats->tx_bytes),
        .tx_waits = counter_read(&stats->tx_waits),
        .dropped = counter_read(&stats->dropped),
    };
}

static void virtio_vsock_queue_name(const struct virtio_device *vdev, unsigned queue, char *buf,
                                    size_t len)
{
    static const char *const names[QUEUES] = {"rx", "tx", "event"};

    (void)vdev;
    snprintf(buf, len, "%s", names[queue]);
}

/* Life */

static uint64_t virtio_vsock_config_read(struct virtio_device *vdev, uint64_t offset, unsigned size)
{
    const struct virtio_vsock_config config = {.guest_cid = self(vdev)->cid};
    uint64_t value = 0;

    memcpy(&value, (const uint8_t *)&config + offset, size);
    return value;
}

static void virtio_vsock_start(struct virtio_device *vdev)
{
    struct virtio_vsock *v = self(vdev);

    if (v->loading)
        return;
    v->guest_cid = v->cid;
    v->reset_pending = false;
    v->lost = 0;
}

static void virtio_vsock_stop(struct virtio_device *vdev)
{
    struct virtio_vsock *v = self(vdev);

    vsock_drop_all(v);
    v->reset_pending = false;
    v->settling_until_ns = 0; /* the timer, or a start, listens again */
    vsock_listen(v, true);
}

static void virtio_vsock_reset(struct device *dev)
{
    struct virtio_vsock *v = from_device(dev);

    virtio_reset(dev);
    v->guest_cid = 0;
    v->next_port = 0;
    v->lost = 0;
}

static void virtio_vsock_pause(struct device *dev)
{
    virtio_pause(dev);
    watch_host(from_device(dev));
}

static void virtio_vsock_resume(struct device *dev)
{
    struct virtio_vsock *v = from_device(dev);

    virtio_resume(dev); /* which rings each doorbell */
    vsock_extend(v);
    if (v->reset_pending || v->settling_until_ns) /* who stood still dealt with nothing */
        settle(v);
    vsock_want_timer(v);
    watch_host(v);
}

static void destroy_watches(void *opaque)
{
    struct virtio_vsock *v = opaque;

    loop_watch_destroy(v->watch);
    loop_timer_destroy(v->timer);
    v->watch = NULL;
    v->timer = NULL;
}

static void call_on_loop(struct virtio_vsock *v, loop_fn *fn, void *opaque)
{
    if (v->thread)
        iothread_call(v->thread, fn, opaque);
    else
        fn(opaque);
}

static void virtio_vsock_destroy(struct device *dev)
{
    struct virtio_vsock *v = from_device(dev);

    call_on_loop(v, destroy_watches, v);
    virtio_fini(&v->vdev);
    vsock_drop_all(v);
    free(v->conns);
    free(v);
}

/* Connections of a device that goes on here are no part of it; those that it has lost are told. */
static int virtio_vsock_pre_save(void *obj, struct error *err)
{
    struct virtio_vsock *v = obj;
    uint32_t known = vsock_known(v);

    (void)err;
    /* Without a driver, or when it has to begin anew, and when it knows of the last ones. */
    if (!v->vdev.started || (!known && !v->reset_pending && !v->settling_until_ns))
        v->lost = 0;
    else if (known)
        v->lost = known;
    return 0;
}

static int virtio_vsock_post_load(void *obj, struct error *err)
{
    struct virtio_vsock *v = obj;
    uint32_t lost = v->lost;
    int r;

    v->loading = true;
    r = virtio_post_load(&v->vdev, err); /* stops what was here */
    v->loading = false;
    v->lost = lost;
    v->reset_pending = v->vdev.started && (lost || v->guest_cid != v->cid);
    return r;
}

static const struct state_field virtio_vsock_fields[] = {
    VIRTIO_STATE_FIELDS(struct virtio_vsock, vdev),
    STATE(struct virtio_vsock, guest_cid),
    STATE(struct virtio_vsock, next_port),
    STATE(struct virtio_vsock, lost),
    STATE_END,
};

static const struct state_desc virtio_vsock_state = {
    .name = "virtio-vsock",
    .version = 1,
    .fields = virtio_vsock_fields,
    .pre_save = virtio_vsock_pre_save,
    .post_load = virtio_vsock_post_load,
};

static const struct device_ops virtio_vsock_device_ops = {
    .type = "virtio-vsock",
    .read = virtio_read,
    .write = virtio_write,
    .reset = virtio_vsock_reset,
    .pause = virtio_vsock_pause,
    .resume = virtio_vsock_resume,
    .destroy = virtio_vsock_destroy,
    .state = &virtio_vsock_state,
};

static const struct virtio_ops virtio_vsock_ops = {
    .type = "virtio-vsock",
    .device_id = VIRTIO_ID_VSOCK,
    .class_code = CLASS_OTHER_COMMUNICATION,
    .config_read = virtio_vsock_config_read,
    .start = virtio_vsock_start,
    .stop = virtio_vsock_stop,
    .kick = virtio_vsock_kick,
    .queue_name = virtio_vsock_queue_name,
};

struct watches {
    struct virtio_vsock *v;
    struct error *err;
    int result;
};

static void create_watches(void *opaque)
{
    struct watches *w = opaque;
    struct virtio_vsock *v = w->v;
    pthread_mutex_t *lock = &v->vdev.pci.dev.lock;

    w->result = loop_timer_create(v->loop, lock, tick, v, &v->timer, w->err);
    if (w->result == 0)
        w->result = loop_watch_create(v->loop, vsock_host_fd(v->host), EPOLLIN, lock, host_ready, v,
                                      &v->watch, w->err);
}

static struct virtio_vsock *allocate(const struct virtio_vsock_params *params)
{
    struct virtio_vsock *v = calloc(1, sizeof(*v));

    if (!v)
        return NULL;
    v->host = params->host;
    v->thread = params->thread;
    v->loop = params->thread ? iothread_loop(params->thread) : params->loop;
    v->cid = params->cid;
    v->patience_ns = params->patience_ns ? params->patience_ns : VSOCK_PATIENCE_NS;
    v->listening = true;
    v->conns = calloc(VSOCK_CONNECTIONS, sizeof(v->conns[0]));
    if (!v->conns) {
        free(v);
        return NULL;
    }
    vsock_init_conns(v);
    return v;
}

int virtio_vsock_create(struct platform *platform, struct device *host,
                        const struct virtio_vsock_params *params, struct device **ret_dev,
                        struct error *err)
{
    const struct virtio_params virtio = {
        .platform = platform,
        .host = host,
        .loop = params->loop,
        .thread = params->thread,
        .id = "vsock",
        .queues = QUEUES,
        .queue_size = QUEUE_SIZE,
        .config_size = sizeof(struct virtio_vsock_config),
    };
    struct virtio_vsock *v = allocate(params);
    struct watches watches = {.v = v, .err = err};
    int r;

    if (!v)
        return error_set(err, ENOMEM, "vsock: out of memory");
    r = virtio_init(&v->vdev, &virtio_vsock_device_ops, &virtio_vsock_ops, &virtio, err);
    if (r < 0)
        goto fail;
    call_on_loop(v, create_watches, &watches);
    r = watches.result;
    if (r < 0)
        goto fail;
    *ret_dev = &v->vdev.pci.dev;
    return 0;

fail:
    virtio_vsock_destroy(&v->vdev.pci.dev);
    return r;
}
