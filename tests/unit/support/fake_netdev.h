/* SPDX-License-Identifier: Apache-2.0 */
#ifndef FAKE_NETDEV_H
#define FAKE_NETDEV_H

/*
 * The wire of a network card under test: a socket pair a queue, so that descriptors become
 * readable and full as a tap's do. Packets begin with their 12-byte header.
 *
 * It stands in for netdev_*() in a program that does not call tap_open(). They are weak, so a
 * program that opens real taps gets the real ones.
 */

#include <stddef.h>

#include "vmrun/netdev.h"

struct fake_netdev {
    int device[NETDEV_MAX_QUEUES], wire[NETDEV_MAX_QUEUES]; /* the two ends */
    int link_fd;
    unsigned queues, active, mtu;
    bool up, refuses; /* netdev_set_*() fail */
    struct netdev_offload offload;
    bool plain;          /* no offloads */
    unsigned holds_back; /* so many times netdev_flush() says that something has to wait */
    unsigned flushes, moves;
    void (*detaches)(void *opaque, unsigned queue); /* or NULL; before it does */
    void *opaque;
};

/* Up, MTU 1500, the first pair in use. */
struct netdev *fake_netdev_init(struct fake_netdev *fake, unsigned queues);
void fake_netdev_fini(struct fake_netdev *fake);

void fake_netdev_give(struct fake_netdev *fake, unsigned queue, const void *packet, size_t len);
/* The next packet that the device sent; 0: none. */
size_t fake_netdev_take(struct fake_netdev *fake, unsigned queue, void *packet, size_t len);
void fake_netdev_set_up(struct fake_netdev *fake, bool up);
/* Hold only a few packets from now on: then it is full until some are taken. */
void fake_netdev_narrow(struct fake_netdev *fake, unsigned queue);
/* The interface vanishes. */
void fake_netdev_remove(struct fake_netdev *fake, unsigned queue);
/* Forget all packets on their way, in both directions. */
void fake_netdev_drain(struct fake_netdev *fake);

#endif
