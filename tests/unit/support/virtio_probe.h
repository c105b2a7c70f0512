/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VIRTIO_PROBE_H
#define VIRTIO_PROBE_H

/*
 * A virtio device for tests of the transport: it fills what it is given, or keeps it, and counts
 * how the transport calls it. And a bench with one of it.
 */

#include "virtio_driver.h"

#define PROBE_QUEUES 3
#define PROBE_CONFIG 12 /* bytes */
#define PROBE_FEATURE 5
#define PROBE_FILL 0x5a

struct virtio_probe {
    struct virtio_device vdev;
    uint8_t config[PROBE_CONFIG];
    unsigned starts, stops, kicks[PROBE_QUEUES];
    bool keeps; /* requests stay in flight */
};

extern const struct state_desc virtio_probe_state;

/* thread: NULL for the machine's loop. Fails the test, or works. */
struct virtio_probe *virtio_probe_create(struct virtio_machine *m, struct iothread *thread);

struct virtio_bench {
    struct virtio_machine m;
    struct virtio_probe *probe;
    struct device *dev;
    struct virtio_driver d;
};

/* For cmocka: a device that the driver has found and not touched yet. */
int virtio_bench_setup(void **state);
int virtio_bench_teardown(void **state);

/* Fields of the common structure. */
uint64_t virtio_bench_common(struct virtio_bench *f, unsigned offset, unsigned size);
void virtio_bench_set_common(struct virtio_bench *f, unsigned offset, unsigned size,
                             uint64_t value);
/* 32 bytes for the device to write to, and whether it did. */
struct virtio_buffer virtio_bench_buffer(struct virtio_bench *f);
bool virtio_bench_is_filled(struct virtio_bench *f, uint64_t gpa);
/* Level of the line of the function's slot. */
bool virtio_bench_intx(struct virtio_bench *f);

#endif
