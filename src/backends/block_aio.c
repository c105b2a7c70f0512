/* SPDX-License-Identifier: Apache-2.0 */
/*
 * block_aio: a thin layer over libaio. Completions are read from the ring that
 * the kernel shares with us, without a system call, where it has the layout
 * that is known here; else by io_getevents(2).
 */
#include "block_aio.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* What io_context_t points to (Linux, fs/aio.c: struct aio_ring, part of the ABI since 2.6). */
struct ring {
    uint32_t id, nr;
    _Atomic uint32_t head, tail; /* ours, the kernel's */
    uint32_t magic, compat, incompat, header_bytes;
    struct io_event events[];
};
#define RING_MAGIC 0xa10a10a1

int block_aio_create(struct block_aio *aio, unsigned depth, struct error *err)
{
    *aio = (struct block_aio){.event_fd = -1};
    int r = io_setup((int)depth, &aio->context);

    if (r == -EAGAIN)
        return error_set(err, EAGAIN,
                         "the host allows no more asynchronous I/O; its administrator can raise "
                         "the limit: sysctl fs.aio-max-nr");
    if (r < 0)
        return error_errno(err, -r, "asynchronous I/O");
    aio->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (aio->event_fd < 0) {
        r = error_errno(err, errno, "asynchronous I/O");
        block_aio_destroy(aio);
        return r;
    }
    return 0;
}

void block_aio_destroy(struct block_aio *aio)
{
    if (aio->context)
        io_destroy(aio->context);
    if (aio->context && aio->event_fd >= 0)
        close(aio->event_fd);
    *aio = (struct block_aio){.event_fd = -1};
}

int block_aio_submit(struct block_aio *aio, struct iocb **iocbs, unsigned count)
{
    int r;

    do
        r = io_submit(aio->context, (long)count, iocbs);
    while (r == -EINTR);
    if (r > 0)
        aio->in_kernel += (unsigned)r;
    return r == 0 ? -EAGAIN : r;
}

static unsigned read_ring(struct ring *ring, struct io_event *events, unsigned max)
{
    /* Pairs with the kernel's release of the events before it moves the tail. */
    uint32_t tail = atomic_load_explicit(&ring->tail, memory_order_acquire);
    uint32_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);
    unsigned count = 0;

    while (head != tail && count < max) {
        events[count++] = ring->events[head];
        head = head + 1 == ring->nr ? 0 : head + 1;
    }
    /* The kernel may overwrite the events once it sees the new head. */
    atomic_store_explicit(&ring->head, head, memory_order_release);
    return count;
}

unsigned block_aio_reap(struct block_aio *aio, struct io_event *events, unsigned max,
                        uint64_t wait_ns)
{
    struct ring *ring = (struct ring *)aio->context;
    bool known =
        ring->magic == RING_MAGIC && ring->incompat == 0 && ring->header_bytes == sizeof(*ring);
    unsigned count = 0;
    int r;

    if (aio->in_kernel == 0)
        return 0;
    if (known)
        count = read_ring(ring, events, max);
    if (count == 0 && (wait_ns || !known)) {
        struct timespec most = {.tv_sec = (time_t)(wait_ns / 1000000000u),
                                .tv_nsec = (long)(wait_ns % 1000000000u)};
        bool for_ever = wait_ns == UINT64_MAX;

        do
            r = io_getevents(aio->context, wait_ns > 0, (long)max, events, for_ever ? NULL : &most);
        while (r == -EINTR);
        assert(r >= 0); /* only a context or an array that is not ours is refused */
        count = (unsigned)r;
    }
    aio->in_kernel -= count;
    return count;
}
