/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMRUN_VHOST_H
#define VMRUN_VHOST_H

/*
 * vhost-net: the host's kernel serves the two rings of one queue pair between the guest's memory
 * and a tap. <linux/vhost.h>; Linux, Documentation "vhost".
 *
 * The kernel reads rings that the guest writes, and checks what it finds there: it stops serving a
 * ring that makes no sense, and says so by error_fd. Calls are made by one thread at a time.
 */

#include <stdbool.h>
#include <stdint.h>

#include "vmrun/error.h"

struct vhost;

/* Of the guest's memory: it must be all of it, and stay where it is. */
struct vhost_region {
    uint64_t gpa, bytes;
    void *host;
};

enum { VHOST_RX, VHOST_TX, VHOST_RINGS };

struct vhost_ring {
    unsigned size;
    uint16_t next;             /* where to go on, in the ring of available requests */
    void *desc, *avail, *used; /* checked: they lie in the guest's memory, and are aligned */
    uint64_t used_gpa;
    int tap_fd;   /* with a header of NETDEV_HEADER_BYTES; attached */
    int kick_fd;  /* eventfd that the driver rings. It is not read: each write is an edge */
    int call_fd;  /* eventfd that interrupts the driver */
    int error_fd; /* eventfd that is written when the ring makes no sense */
};

/*
 * One for each queue pair. log: as guest_memory's `dirty`, a bit for each page of the guest from
 * address 0 on; what the kernel writes is marked there while logging is on.
 * Errors, each with what would help: -ENODEV no /dev/vhost-net; -EPERM it may not be opened;
 * -ENOTSUP a kernel whose vhost lacks something; -ENOMEM, -EMFILE.
 */
int vhost_open(const struct vhost_region *regions, unsigned count, uint64_t *log,
               struct vhost **ret_vhost, struct error *err);
void vhost_close(struct vhost *vhost); /* NULL is fine. No ring is served afterwards */
/* Whether vhost_open() would find it. Errors: likewise. */
int vhost_check(struct error *err);

/* Of virtio's feature bits those that matter to the rings; before a ring starts, or with log. */
int vhost_set_features(struct vhost *vhost, uint64_t negotiated, struct error *err);
/* Mark what is written, or no longer. Any time: when it returns nothing is written unmarked. */
int vhost_set_log(struct vhost *vhost, bool on, struct error *err);

/* Errors: what ioctl(2) says; the ring is not served then. */
int vhost_start(struct vhost *vhost, unsigned ring, const struct vhost_ring *params,
                struct error *err);
/*
 * When it returns the kernel touches neither the ring nor the tap for it, and all that it took is
 * given back. ret_next: where it stands.
 */
int vhost_stop(struct vhost *vhost, unsigned ring, uint16_t *ret_next, struct error *err);
/* Have a ring that is served interrupt by another eventfd: the old one is not written afterwards.
 */
int vhost_set_call(struct vhost *vhost, unsigned ring, int call_fd, struct error *err);

#endif
