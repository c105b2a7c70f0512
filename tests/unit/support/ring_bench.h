/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RING_BENCH_H
#define RING_BENCH_H

/* A virtqueue on RAM of its own, with the test as its driver; no device, no transport. */

#include <linux/virtio_ring.h>

#include "vmrun/virtqueue.h"

/* RAM lies in two pieces. */
#define RING_LOW UINT64_C(0x200000)
#define RING_HIGH_AT UINT64_C(0x100000000)
#define RING_HIGH UINT64_C(0x200000)
#define RING_HOLE_AT UINT64_C(0x80000000)

#define RING_SIZE 8
#define RING_ROOM 16

/* Where the rings lie, and what is free for buffers and indirect tables. */
enum {
    RING_DESC = 0x10000,
    RING_AVAIL = 0x20000,
    RING_USED = 0x30000,
    RING_DATA = 0x40000,
    RING_TABLE = 0x50000
};

#define NEXT VRING_DESC_F_NEXT
#define WRITE VRING_DESC_F_WRITE
#define INDIRECT VRING_DESC_F_INDIRECT

struct ring_bench {
    struct guest_memory *memory;
    struct virtqueue vq; /* of up to 256 entries */
    struct iovec iov[RING_ROOM];
    struct virtq_chain chain; /* the last one popped */
    struct vring_desc *desc;
    struct vring_avail *avail;
    struct vring_used *used;
};

/* For cmocka: a started queue of RING_SIZE entries; with EVENT_IDX or without. */
int ring_setup(void **state);
int ring_setup_event_idx(void **state);
int ring_teardown(void **state);

void *ring_at(struct ring_bench *f, uint64_t gpa);
void ring_set(struct ring_bench *f, unsigned i, uint64_t gpa, uint32_t len, uint16_t flags,
              uint16_t next);
void ring_offer(struct ring_bench *f, uint16_t head);
void ring_offer_buffer(struct ring_bench *f, uint16_t head); /* 64 bytes to write to */
int ring_pop(struct ring_bench *f);                          /* into f->chain */
uint16_t *ring_used_event(struct ring_bench *f);
uint16_t ring_avail_event(struct ring_bench *f);
unsigned ring_dirty_pages(struct ring_bench *f);

#endif
