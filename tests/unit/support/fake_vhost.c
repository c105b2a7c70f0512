/* SPDX-License-Identifier: Apache-2.0 */
/* fake_vhost: a virtqueue of its own over the same ring, for somebody who knows nothing of ours. */
#include "fake_vhost.h"

#include <errno.h>
#include <linux/virtio_net.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "vmrun/virtio.h"

static struct fake_vhost *self(struct vhost *vhost)
{
    return (struct fake_vhost *)vhost;
}

struct vhost *fake_vhost_init(struct fake_vhost *fake, struct guest_memory *memory,
                              struct loop *loop)
{
    *fake = (struct fake_vhost){.memory = memory, .loop = loop};
    return (struct vhost *)fake;
}

static void woken(void *opaque, uint32_t events)
{
    (void)events;
    fake_vhost_run(opaque);
}

/* The device's own watches are of the same files: a loop has one of each descriptor. */
static void watch(struct fake_vhost *fake, struct fake_vhost_ring *r)
{
    struct error err;

    for (unsigned i = 0; i < 2; i++) {
        r->woken_by[i] = dup(i == 0 ? r->as.kick_fd : r->as.tap_fd);
        assert_int_equal(loop_watch_create(fake->loop, r->woken_by[i], EPOLLIN | EPOLLET, NULL,
                                           woken, fake, &r->watches[i], &err),
                         0);
    }
}

static void unwatch(struct fake_vhost_ring *r)
{
    for (unsigned i = 0; i < 2; i++) {
        loop_watch_destroy(r->watches[i]);
        close(r->woken_by[i]);
    }
}

int vhost_set_features(struct vhost *vhost, uint64_t negotiated, struct error *err)
{
    (void)err;
    self(vhost)->features = negotiated;
    return 0;
}

int vhost_set_log(struct vhost *vhost, bool on, struct error *err)
{
    (void)err;
    self(vhost)->log = on;
    return 0;
}

int vhost_set_call(struct vhost *vhost, unsigned ring, int call_fd, struct error *err)
{
    (void)err;
    assert_true(self(vhost)->rings[ring].on);
    self(vhost)->rings[ring].as.call_fd = call_fd;
    return 0;
}

int vhost_start(struct vhost *vhost, unsigned ring, const struct vhost_ring *params,
                struct error *err)
{
    struct fake_vhost *fake = self(vhost);
    struct fake_vhost_ring *r = &fake->rings[ring];

    assert_false(r->on);
    if (fake->refuses)
        return error_set(err, EFAULT, "no ring, as the test wants it");
    virtqueue_init(&r->vq, fake->memory, VIRTQ_MAX_SIZE);
    r->vq.size = (uint16_t)params->size;
    assert_true(guest_memory_find(fake->memory, params->desc, &r->vq.desc));
    assert_true(guest_memory_find(fake->memory, params->avail, &r->vq.avail));
    assert_true(guest_memory_find(fake->memory, params->used, &r->vq.used));
    assert_int_equal(r->vq.used, params->used_gpa);
    r->vq.event_idx = fake->features >> VIRTIO_F_EVENT_IDX & 1;
    r->vq.indirect = fake->features >> VIRTIO_F_INDIRECT_DESC & 1;
    r->vq.next_avail = r->vq.next_used = params->next;
    assert_int_equal(virtqueue_start(&r->vq), 0);
    r->as = *params;
    r->on = true;
    r->starts++;
    if (fake->loop)
        watch(fake, r);
    return 0;
}

int vhost_stop(struct vhost *vhost, unsigned ring, uint16_t *ret_next, struct error *err)
{
    struct fake_vhost_ring *r = &self(vhost)->rings[ring];

    (void)err;
    assert_true(r->on);
    r->on = false;
    r->stops++;
    *ret_next = r->vq.next_avail;
    if (self(vhost)->loop)
        unwatch(r);
    return 0;
}

/* One frame. 0: there is no buffer, or no frame; -errno as of virtqueue_pop(). */
static int serve(struct fake_vhost_ring *r, bool receive)
{
    struct iovec iov[64];
    struct virtq_chain chain = {.iov = iov, .room = 64};
    const uint16_t one = 1;
    ssize_t n;
    int result = virtqueue_pop(&r->vq, &chain);

    if (result <= 0)
        return result;
    const struct msghdr out = {.msg_iov = iov, .msg_iovlen = chain.out};
    struct msghdr in = {.msg_iov = iov, .msg_iovlen = chain.in};

    if (receive ? chain.out > 0 : chain.in > 0)
        return -EPROTO;
    n = receive ? recvmsg(r->as.tap_fd, &in, MSG_DONTWAIT)
                : sendmsg(r->as.tap_fd, &out, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0 && errno == EAGAIN) {
        virtqueue_unpop(&r->vq, &chain);
        return 0;
    }
    if (receive)
        iov_from_buf(iov, chain.in, offsetof(struct virtio_net_hdr_v1, num_buffers), &one, 2);
    virtqueue_push(&r->vq, &chain, receive && n > 0 ? (uint32_t)n : 0);
    return 1;
}

void fake_vhost_run(struct fake_vhost *fake)
{
    for (unsigned i = 0; i < VHOST_RINGS; i++) {
        struct fake_vhost_ring *r = &fake->rings[i];
        int result = 1;

        while (r->on && result > 0)
            result = serve(r, i == VHOST_RX);
        if (r->on && result < 0)
            assert_int_equal(eventfd_write(r->as.error_fd, 1), 0);
        if (r->on && virtqueue_needs_interrupt(&r->vq))
            assert_int_equal(eventfd_write(r->as.call_fd, 1), 0);
    }
}
