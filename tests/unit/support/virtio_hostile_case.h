/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VIRTIO_HOSTILE_CASE_H
#define VIRTIO_HOSTILE_CASE_H

/* Between the runner of hostile cases (virtio_hostile.c) and the cases. */

#include "virtio_hostile.h"

#define HOSTILE_DATA_BYTES 0x10000

struct hostile_bench {
    const struct virtio_kind *kind;
    const char *name; /* of the case */
    bool plain;       /* no feature but VERSION_1, and INTx */
    struct virtio_machine m;
    struct device *dev;
    struct virtio_driver d;
    struct virtio_driver_queue *q; /* the one that gets the broken requests */
    uint64_t header, data;         /* where buffers lie; data has HOSTILE_DATA_BYTES */
    unsigned header_bytes;

    uint8_t *before; /* RAM, low then high, when it was last watched */
    struct {
        uint64_t gpa, bytes;
    } allowed[VIRTIO_MAX_QUEUES + 32];
    unsigned allowed_count;
};

enum hostile_end {
    HOSTILE_BROKEN,   /* the device says DEVICE_NEEDS_RESET */
    HOSTILE_UNHARMED, /* it does not */
    HOSTILE_EITHER,   /* its own affair */
};

struct hostile_case {
    const char *name;
    enum hostile_end end;
    void (*run)(struct hostile_bench *b);
};

/* Each ends with a case without a name. */
extern const struct hostile_case hostile_ring_cases[], hostile_register_cases[];

/* To DRIVER_OK, with buffers ready; what was there before is forgotten. */
void hostile_start(struct hostile_bench *b);
uint64_t hostile_features(const struct hostile_bench *b);
/* Buffers, once the queues are set up. */
void hostile_prepare(struct hostile_bench *b);

/* From now on RAM changes where it may, or the case fails. Used rings may always. */
void hostile_watch(struct hostile_bench *b);
void hostile_allow(struct hostile_bench *b, uint64_t gpa, uint64_t bytes);
void hostile_check(struct hostile_bench *b);
/* Give the device time to do what it was asked for. */
void hostile_settle(struct hostile_bench *b);
/* watch, kick, settle. */
void hostile_kick(struct hostile_bench *b);
bool hostile_is_broken(struct hostile_bench *b);

#endif
