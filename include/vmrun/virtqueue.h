/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMRUN_VIRTQUEUE_H
#define VMRUN_VIRTQUEUE_H

/*
 * The split virtqueue, device side. VIRTIO 1.2, "Split Virtqueues".
 *
 * The ring lives in guest RAM and the guest may change it at any moment: every
 * field is read exactly once, into the device's own memory, and checked there.
 * All calls: the thread that owns the queue, with the device's lock held.
 */

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "vmrun/device.h"
#include "vmrun/memory.h"

#define VIRTQ_MAX_SIZE 1024  /* entries; a power of two */
#define VIRTQ_MAX_CHAIN 1024 /* buffers in one request */

struct virtqueue {
    struct guest_memory *memory;
    /* What the driver set: checked by virtqueue_start(). */
    uint16_t size, max_size;
    uint64_t desc, avail, used; /* guest-physical */
    bool enabled;
    bool event_idx, indirect; /* negotiated */

    /* The device's own place in it: what was popped, what was pushed. */
    uint16_t next_avail, next_used;
    uint16_t signalled_used; /* next_used when the driver was last told */
    bool quiet;              /* the driver was told to ring no doorbell */
    bool broken;             /* until reset: the driver broke the ring */

    /* Derived: the rings as host memory, and what is known without looking there again. */
    uint8_t *desc_at, *avail_at, *used_at;
    uint64_t in_flight[VIRTQ_MAX_SIZE / 64]; /* heads popped and not pushed yet */
    uint16_t seen_avail;                     /* the driver's index when last read */

    /*
     * For stats, by counter_add(); a reset stops short of them. Requests and bytes_in (to the
     * driver) count when they are given back, bytes_out when they are taken.
     */
    uint64_t requests, bytes_out, bytes_in, kicks, interrupts;
};

/* One request from the driver, as host memory. */
struct virtq_chain {
    uint16_t head;    /* hand back to virtqueue_push() */
    unsigned out, in; /* iov[0..out) the driver wrote, iov[out..out+in) we fill */
    uint64_t out_bytes, in_bytes;
    struct iovec *iov; /* `room` of them, the caller's */
    unsigned room;
};

void virtqueue_init(struct virtqueue *vq, struct guest_memory *memory, uint16_t max_size);
void virtqueue_reset(struct virtqueue *vq); /* forgets what is in flight; keeps the counts */
/*
 * The driver enabled it, or a saved one was loaded: check addresses, size and indices. Touches
 * no guest memory. Errors: -EPROTO (and the queue is broken).
 */
int virtqueue_start(struct virtqueue *vq);
/* Undo start, but for the place in the ring: a queue that is not started is empty. */
void virtqueue_stop(struct virtqueue *vq);

/*
 * Somebody else has served a queue that is started, and took all before `next`. What of that he did
 * not give back is there once more. Nobody here knows whether the driver was told of the rest, so
 * that it is told once more.
 */
void virtqueue_take_back(struct virtqueue *vq, uint16_t next);

/*
 * Take the next request. Every buffer has at least one byte and lies wholly in
 * guest RAM; all of them together have less than 4 GiB; the iovecs stay valid
 * until reset. A head is in flight once, and never more than `size` of them.
 * Returns 1, 0 when the ring is empty (the doorbell is armed then, unless
 * disabled), or -EPROTO when the guest broke the ring (a loop, an index,
 * address or length out of range, a readable buffer after a writable one, more
 * than `room` buffers): the device must then call virtio_broken().
 */
int virtqueue_pop(struct virtqueue *vq, struct virtq_chain *chain);
/* Put back what was popped last, as if it had not been; nothing was pushed since. */
void virtqueue_unpop(struct virtqueue *vq, const struct virtq_chain *chain);

/*
 * Give a request back, in any order; written: bytes written into its writable
 * buffers, from the first on. Marks those pages, and the ring's, dirty. Nothing
 * happens when the queue is broken, or the head is not in flight (any more).
 */
void virtqueue_push(struct virtqueue *vq, const struct virtq_chain *chain, uint32_t written);
/* As push, for who kept only what it needs; marks the ring alone (see the next). */
void virtqueue_push_head(struct virtqueue *vq, uint16_t head, uint32_t written);
/*
 * push_head in two steps, for several at once: the driver sees nothing of what was filled before
 * it is published. (A frame that lies in several buffers must come as one.)
 */
void virtqueue_fill_head(struct virtqueue *vq, uint16_t head, uint32_t written);
void virtqueue_publish(struct virtqueue *vq);
/* For who wrote into a chain's iovecs: marks the first `written` bytes of them dirty. */
void virtqueue_mark_written(struct virtqueue *vq, const struct iovec *iov, unsigned count,
                            uint64_t written);

/* Whether the driver wants an interrupt for what was pushed since it was last asked. */
bool virtqueue_needs_interrupt(struct virtqueue *vq);

/*
 * Doorbells: off while the device polls the ring anyway; on again returns true
 * when requests came in between (then poll once more). With EVENT_IDX or flags.
 * Optional: who pops until 0 each time it is kicked misses nothing.
 */
void virtqueue_disable_kicks(struct virtqueue *vq);
bool virtqueue_enable_kicks(struct virtqueue *vq);

/* Copy between a request's buffers and memory, from byte `skip` on. Returns bytes copied. */
uint64_t iov_to_buf(const struct iovec *iov, unsigned count, uint64_t skip, void *buf,
                    uint64_t len);
uint64_t iov_from_buf(const struct iovec *iov, unsigned count, uint64_t skip, const void *buf,
                      uint64_t len);
/* Take bytes off the front. */
void iov_trim(struct iovec **iov, unsigned *count, uint64_t bytes);

#endif
