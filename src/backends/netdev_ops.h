/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BACKENDS_NETDEV_OPS_H
#define BACKENDS_NETDEV_OPS_H

/* What a kind of netdev is made of: see netdev.h for what each of these promises. */

#include "vmrun/netdev.h"

struct netdev_ops {
    void (*close)(struct netdev *netdev);
    int (*fd)(const struct netdev *netdev, unsigned queue);
    int64_t (*send)(struct netdev *netdev, unsigned queue, const struct iovec *iov, unsigned count);
    int64_t (*receive)(struct netdev *netdev, unsigned queue, const struct iovec *iov,
                       unsigned count);
    int (*flush)(struct netdev *netdev, unsigned queue);       /* NULL: each send is a call */
    bool (*more)(const struct netdev *netdev, unsigned queue); /* NULL: never */
    /* NULL, both: one queue pair, and no frame is unfinished but for its checksums. */
    int (*set_offload)(struct netdev *netdev, const struct netdev_offload *offload,
                       struct error *err);
    int (*set_queues)(struct netdev *netdev, unsigned queues, struct error *err);
    void (*moved)(struct netdev *netdev); /* NULL: it makes no difference */
    unsigned (*mtu)(const struct netdev *netdev);
    bool (*link_up)(const struct netdev *netdev);
    int (*link_fd)(const struct netdev *netdev);
    void (*link_drain)(struct netdev *netdev);
    bool relays;
};

/* The first member of each kind. */
struct netdev {
    const struct netdev_ops *ops;
};

void netdev_init(struct netdev *netdev, const struct netdev_ops *ops);

#endif
