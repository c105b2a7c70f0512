/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BACKENDS_NETLINK_H
#define BACKENDS_NETLINK_H

/*
 * What the host's kernel says of a network interface, asked through rtnetlink(7):
 * unlike /sys it speaks of the network namespace that asks. No privilege is needed.
 */

#include <stdbool.h>

#include "vmrun/error.h"

struct netlink_link {
    unsigned index;      /* 0: there is no such interface */
    unsigned flags;      /* IFF_* */
    unsigned mtu;        /* bytes */
    unsigned master;     /* index of the bridge that it is attached to, or 0 */
    bool tun;            /* a tun or tap */
    bool multi_queue;    /* one that was made for several queues */
    unsigned tun_queues; /* that some process has attached */
};

/* A socket to ask with; with `listen` one that hears of every change instead. -errno. */
int netlink_open(bool listen, struct error *err);

/* By name, or with a NULL name by index. Errors: -EIO, the kernel does not answer. */
int netlink_query(int fd, const char *name, unsigned index, struct netlink_link *ret_link);

/* Forget all news that wait on a listening socket. */
void netlink_drain(int fd);

#endif
