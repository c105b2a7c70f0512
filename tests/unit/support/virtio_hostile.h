/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VIRTIO_HOSTILE_H
#define VIRTIO_HOSTILE_H

/*
 * A hostile guest against any virtio device, and the conformance suite for one.
 *
 * Each hostile case builds the device anew, drives it to DRIVER_OK, breaks one
 * thing, and then requires: it returns (no hang, no crash), no byte of RAM
 * changed but in the rings and buffers that the device was given, the device is
 * unharmed or says DEVICE_NEEDS_RESET, and it works again after a reset.
 */

#include "virtio_driver.h"

struct virtio_kind {
    /* Create the device on m->platform, m->host, m->loop (or a thread of its own). Called often. */
    int (*create)(void *opaque, struct virtio_machine *m, struct device **ret_dev,
                  struct error *err);
    /*
     * Does it work? The driver is at DRIVER_OK with the features below: make a
     * request and look at the answer (fail the test when it is wrong). NULL: started is enough.
     */
    void (*works)(void *opaque, struct virtio_driver *d);
    /*
     * Optional: what the device must find in the first readable buffer to go on
     * to the rest of a request (a block request's header...). Returns bytes, at most 64.
     */
    unsigned (*header)(void *opaque, uint8_t header[64]);
    /* Optional, as in struct conformance_case. */
    void (*disturb)(void *opaque, struct device *dev, uint32_t random);
    void (*settle)(void *opaque, struct device *dev);
    /* Optional: after the device was destroyed (its iothread, its file...). */
    void (*gone)(void *opaque, struct virtio_machine *m);
    uint64_t features; /* to negotiate; 0: everything offered */
    bool gives_back;   /* a payload is numbers of pages, of any page: zeros are no finding */
    unsigned queue;    /* that gets the broken requests, e.g. 1 for a transmit queue */
    void *opaque;
};

/* A cmocka test in itself: all cases, with direct and indirect chains, INTx and MSI-X. */
void hostile_run(const struct virtio_kind *kind);

/* conformance_run() for a device behind a PCI host bridge. */
void virtio_conformance_run(const struct virtio_kind *kind);

#endif
