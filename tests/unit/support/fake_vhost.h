/* SPDX-License-Identifier: Apache-2.0 */
#ifndef FAKE_VHOST_H
#define FAKE_VHOST_H

/*
 * The host kernel's side of a queue pair: it serves the rings that a card gives it, when the test
 * says so, between guest memory and a fake_netdev. It stands in for vhost_*() in a program that
 * calls fake_vhost_init(). What no kernel would be asked for fails the test.
 */

#include "vmrun/loop.h"
#include "vmrun/vhost.h"
#include "vmrun/virtqueue.h"

struct fake_vhost {
    struct guest_memory *memory;
    struct loop *loop;
    uint64_t features;
    bool log;
    bool refuses; /* vhost_start() fails */
    struct fake_vhost_ring {
        bool on;
        struct vhost_ring as; /* it was started, and now */
        struct virtqueue vq;
        unsigned starts, stops;
        int woken_by[2]; /* copies of the doorbell and the tap */
        struct loop_watch *watches[2];
    } rings[VHOST_RINGS];
};

/* loop: it serves there what comes; NULL: */
struct vhost *fake_vhost_init(struct fake_vhost *fake, struct guest_memory *memory,
                              struct loop *loop);
/* Serve what is there in both directions, and interrupt. */
void fake_vhost_run(struct fake_vhost *fake);

#endif
