/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vhost: one descriptor of /dev/vhost-net for each queue pair.
 *
 * The one thing to know: what is logged is two things. Frames that come in are marked by a feature
 * of the device, the used ring by a flag of each ring's addresses; both change while rings are
 * served. The log is always known to the kernel, so that switching it on cannot fail half way.
 */
#include "vmrun/vhost.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/vhost.h>
#include <linux/virtio_config.h>
#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define PATH "/dev/vhost-net"

/* What a driver may negotiate that the rings' form depends on. */
#define RING_FEATURES \
    (UINT64_C(1) << VIRTIO_F_VERSION_1 | UINT64_C(1) << VIRTIO_RING_F_EVENT_IDX | \
     UINT64_C(1) << VIRTIO_RING_F_INDIRECT_DESC | UINT64_C(1) << VIRTIO_NET_F_MRG_RXBUF)
#define LOG_ALL (UINT64_C(1) << VHOST_F_LOG_ALL)

struct vhost {
    int fd;
    bool log;
    uint64_t features; /* of RING_FEATURES, that were negotiated */
    bool on[VHOST_RINGS];
    struct vhost_vring_addr addresses[VHOST_RINGS]; /* of a ring that is on */
};

static int refuse(int code, struct error *err)
{
    if (code == ENOENT || code == ENODEV || code == ENXIO)
        return error_set(err, ENODEV,
                         "vhost: the host has no " PATH "; as root: modprobe vhost_net (in a "
                         "container: pass the device in); or leave vhost off");
    if (code == EACCES || code == EPERM)
        return error_set(err, EPERM,
                         "vhost: no access to " PATH "; as root: chgrp kvm " PATH
                         ", then chmod 660 " PATH "; or leave vhost off");
    return error_errno(err, code, "vhost: " PATH);
}

static int call(const struct vhost *vhost, unsigned long request, void *argument, const char *what,
                struct error *err)
{
    if (ioctl(vhost->fd, request, argument) < 0)
        return error_errno(err, errno, "vhost: %s", what);
    return 0;
}
#define CALL(vhost, request, argument, err) call(vhost, request, argument, #request, err)

static int open_device(int *ret_fd, struct error *err)
{
    int fd = open(PATH, O_RDWR | O_CLOEXEC);

    if (fd < 0)
        return refuse(errno, err);
    *ret_fd = fd;
    return 0;
}

int vhost_check(struct error *err)
{
    int fd = -1, r = open_device(&fd, err);

    if (r == 0)
        close(fd);
    return r;
}

static int set_memory(struct vhost *vhost, const struct vhost_region *regions, unsigned count,
                      struct error *err)
{
    struct vhost_memory *table =
        calloc(1, sizeof(*table) + count * sizeof(struct vhost_memory_region));
    int r;

    if (!table)
        return error_set(err, ENOMEM, "vhost: out of memory");
    table->nregions = count;
    for (unsigned i = 0; i < count; i++)
        table->regions[i] = (struct vhost_memory_region){
            .guest_phys_addr = regions[i].gpa,
            .memory_size = regions[i].bytes,
            .userspace_addr = (uintptr_t)regions[i].host,
        };
    r = CALL(vhost, VHOST_SET_MEM_TABLE, table, err);
    free(table);
    return r;
}

static int set_up(struct vhost *vhost, const struct vhost_region *regions, unsigned count,
                  uint64_t *log, struct error *err)
{
    uint64_t offered = 0, needed = RING_FEATURES | LOG_ALL, base = (uintptr_t)log;
    int r = CALL(vhost, VHOST_SET_OWNER, NULL, err);

    if (r == 0)
        r = CALL(vhost, VHOST_GET_FEATURES, &offered, err);
    if (r < 0)
        return r;
    if (needed & ~offered)
        return error_set(err, ENOTSUP,
                         "vhost: this kernel's " PATH " lacks the features 0x%llx; leave vhost off",
                         (unsigned long long)(needed & ~offered));
    r = set_memory(vhost, regions, count, err);
    return r < 0 ? r : CALL(vhost, VHOST_SET_LOG_BASE, &base, err);
}

int vhost_open(const struct vhost_region *regions, unsigned count, uint64_t *log,
               struct vhost **ret_vhost, struct error *err)
{
    struct vhost *vhost = calloc(1, sizeof(*vhost));
    int r;

    if (!vhost)
        return error_set(err, ENOMEM, "vhost: out of memory");
    vhost->fd = -1;
    r = open_device(&vhost->fd, err);
    if (r == 0)
        r = set_up(vhost, regions, count, log, err);
    if (r < 0)
        goto fail;
    *ret_vhost = vhost;
    return 0;

fail:
    vhost_close(vhost);
    return r;
}

void vhost_close(struct vhost *vhost)
{
    if (!vhost)
        return;
    if (vhost->fd >= 0)
        close(vhost->fd); /* its worker ends before this returns */
    free(vhost);
}

static int put_features(struct vhost *vhost, struct error *err)
{
    uint64_t features = vhost->features | (vhost->log ? LOG_ALL : 0);

    return CALL(vhost, VHOST_SET_FEATURES, &features, err);
}

int vhost_set_features(struct vhost *vhost, uint64_t negotiated, struct error *err)
{
    vhost->features = negotiated & RING_FEATURES;
    return put_features(vhost, err);
}

static int put_addresses(struct vhost *vhost, unsigned ring, struct error *err)
{
    struct vhost_vring_addr *addresses = &vhost->addresses[ring];

    addresses->flags = vhost->log ? 1u << VHOST_VRING_F_LOG : 0;
    return CALL(vhost, VHOST_SET_VRING_ADDR, addresses, err);
}

int vhost_set_log(struct vhost *vhost, bool on, struct error *err)
{
    int r;

    vhost->log = on;
    r = put_features(vhost, err);
    for (unsigned i = 0; r == 0 && i < VHOST_RINGS; i++)
        if (vhost->on[i])
            r = put_addresses(vhost, i, err);
    return r;
}

static int set_backend(struct vhost *vhost, unsigned ring, int fd, struct error *err)
{
    struct vhost_vring_file backend = {.index = ring, .fd = fd};

    return CALL(vhost, VHOST_NET_SET_BACKEND, &backend, err);
}

int vhost_set_call(struct vhost *vhost, unsigned ring, int call_fd, struct error *err)
{
    struct vhost_vring_file file = {.index = ring, .fd = call_fd};

    return CALL(vhost, VHOST_SET_VRING_CALL, &file, err);
}

int vhost_start(struct vhost *vhost, unsigned ring, const struct vhost_ring *p, struct error *err)
{
    struct vhost_vring_state size = {.index = ring, .num = p->size};
    struct vhost_vring_state base = {.index = ring, .num = p->next};
    struct vhost_vring_file kick = {.index = ring, .fd = p->kick_fd};
    struct vhost_vring_file error = {.index = ring, .fd = p->error_fd};
    int r;

    assert(!vhost->on[ring]);
    vhost->addresses[ring] = (struct vhost_vring_addr){
        .index = ring,
        .desc_user_addr = (uintptr_t)p->desc,
        .avail_user_addr = (uintptr_t)p->avail,
        .used_user_addr = (uintptr_t)p->used,
        .log_guest_addr = p->used_gpa,
    };
    r = CALL(vhost, VHOST_SET_VRING_NUM, &size, err);
    if (r == 0)
        r = CALL(vhost, VHOST_SET_VRING_BASE, &base, err);
    if (r == 0)
        r = put_addresses(vhost, ring, err);
    if (r == 0)
        r = CALL(vhost, VHOST_SET_VRING_KICK, &kick, err);
    if (r == 0)
        r = vhost_set_call(vhost, ring, p->call_fd, err);
    if (r == 0)
        r = CALL(vhost, VHOST_SET_VRING_ERR, &error, err);
    if (r == 0)
        r = set_backend(vhost, ring, p->tap_fd, err);
    vhost->on[ring] = r == 0;
    return r;
}

int vhost_stop(struct vhost *vhost, unsigned ring, uint16_t *ret_next, struct error *err)
{
    struct vhost_vring_state base = {.index = ring};
    struct vhost_vring_file nothing = {.index = ring, .fd = -1};
    int r = set_backend(vhost, ring, -1, err);

    vhost->on[ring] = false;
    if (r == 0)
        r = CALL(vhost, VHOST_GET_VRING_BASE, &base, err);
    if (r == 0)
        r = CALL(vhost, VHOST_SET_VRING_KICK, &nothing, err); /* the doorbell is ours again */
    if (r == 0)
        *ret_next = (uint16_t)base.num;
    return r;
}
