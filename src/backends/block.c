/* SPDX-License-Identifier: Apache-2.0 */
/*
 * block: an image and the requests on it.
 *
 *   block_queue -> queued --run()--> kernel (libaio) --reap()--> finished --deliver()--> done()
 *                    ^  \----------> slow (block_sync) -----------^
 *                    \--- what came back short goes round once more, slowly
 *
 * The one thing to know: done() is only called from deliver(), and deliver()
 * only from the outermost run(), so that a caller that queues from inside
 * done() never meets itself.
 */
#include "vmrun/block.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "block_aio.h"
#include "block_image.h"
#include "block_sync.h"

#define BATCH 256 /* requests in one io_submit(2) */
#define EVENTS 64

/* Buffers for requests whose memory does not suit O_DIRECT: few, as guests know better. */
#define BOUNCES 8
#define BOUNCE_BYTES (256u << 10)

struct list {
    struct block_request *first, **last;
};

struct block {
    struct block_image image;
    bool slow_flush; /* the kernel does not flush asynchronously */
    bool running;    /* run() is at work, further out */
    bool syncing;    /* `sync` is one of those in flight */
    uint64_t sectors;
    struct block_params params; /* path is the caller's: not to be used */
    struct block_aio aio;
    struct loop_watch *watch;
    struct loop_timer *timer;              /* of delayed requests: only with a fault function */
    struct list queued, delayed, finished; /* delayed: the earliest first */
    unsigned in_flight;                    /* all that were queued and not told of */
    struct block_request sync;             /* the flush of block_sync_until() */
    uint8_t *bounces;                      /* BOUNCES of BOUNCE_BYTES, or MAP_FAILED */
    uint32_t bounces_used;                 /* a bit for each */
};

static void list_init(struct list *list)
{
    *list = (struct list){.last = &list->first};
}

static void list_append(struct list *list, struct block_request *request)
{
    request->next = NULL;
    *list->last = request;
    list->last = &request->next;
}

static struct block_request *list_take(struct list *list)
{
    struct block_request *request = list->first;

    if (request) {
        list->first = request->next;
        if (!list->first)
            list->last = &list->first;
    }
    return request;
}

static void finish(struct block *block, struct block_request *request, int result)
{
    request->result = result;
    list_append(&block->finished, request);
}

static void do_slowly(struct block *block, struct block_request *request, uint64_t skip)
{
    request->slow = true;
    request->skip = skip;
    list_append(&block->queued, request);
}

static bool is_transfer(const struct block_request *request)
{
    return request->op == BLOCK_READ || request->op == BLOCK_WRITE;
}

/* Copy between a request's buffers and one of ours. */
static void copy(const struct block_request *request, uint8_t *buf, uint64_t bytes, bool to_buf)
{
    for (unsigned i = 0; i < request->iov_count && bytes > 0; i++) {
        const struct iovec *piece = &request->iov[i];
        size_t len = piece->iov_len < bytes ? piece->iov_len : (size_t)bytes;

        if (to_buf)
            memcpy(buf, piece->iov_base, len);
        else
            memcpy(piece->iov_base, buf, len);
        buf += len;
        bytes -= len;
    }
}

static bool take_bounce(struct block *block, struct block_request *request)
{
    unsigned free = (unsigned)__builtin_ctz(~block->bounces_used);

    if (request->bytes > BOUNCE_BYTES || free >= BOUNCES)
        return false;
    block->bounces_used |= UINT32_C(1) << free;
    request->bounced = (struct iovec){.iov_base = block->bounces + (size_t)free * BOUNCE_BYTES,
                                      .iov_len = request->bytes};
    if (request->op == BLOCK_WRITE)
        copy(request, request->bounced.iov_base, request->bytes, true);
    return true;
}

static void return_bounce(struct block *block, struct block_request *request, uint64_t bytes)
{
    const uint8_t *base = request->bounced.iov_base;

    request->bounced.iov_base = NULL;
    if (!base || !block->image.direct || base < block->bounces ||
        base >= block->bounces + (size_t)BOUNCES * BOUNCE_BYTES)
        return;
    if (request->op == BLOCK_READ)
        copy(request, (uint8_t *)base, bytes, false);
    block->bounces_used &= ~(UINT32_C(1) << (size_t)(base - block->bounces) / BOUNCE_BYTES);
}

static bool is_memory_aligned(const struct block *block, const struct block_request *request)
{
    uintptr_t bits = 0;

    for (unsigned i = 0; i < request->iov_count; i++)
        bits |= (uintptr_t)request->iov[i].iov_base | request->iov[i].iov_len;
    return bits % block->image.memory_alignment == 0;
}

/* Fill in the iocb; false: this one goes the slow way. */
static bool prepare(struct block *block, struct block_request *request)
{
    const struct iovec *iov = request->iov;
    int count = (int)request->iov_count;

    if (request->slow || (request->op == BLOCK_FLUSH && block->slow_flush) ||
        (!is_transfer(request) && request->op != BLOCK_FLUSH))
        return false;
    if (is_transfer(request) && block->image.direct && !request->bounced.iov_base) {
        if ((request->offset | request->bytes) % block->image.alignment != 0)
            return false;
        if (!is_memory_aligned(block, request) && !take_bounce(block, request))
            return false;
    }
    if (request->bounced.iov_base) {
        iov = &request->bounced;
        count = 1;
    }
    if (request->op == BLOCK_READ)
        io_prep_preadv(&request->iocb, block->image.fd, iov, count, (long long)request->offset);
    else if (request->op == BLOCK_WRITE)
        io_prep_pwritev(&request->iocb, block->image.fd, iov, count, (long long)request->offset);
    else
        io_prep_fdsync(&request->iocb, block->image.fd);
    io_set_eventfd(&request->iocb, block->aio.event_fd);
    request->iocb.data = request;
    return true;
}

/* What the kernel says of a request that it was given. */
static void complete(struct block *block, struct block_request *request, long result)
{
    uint64_t done = result > 0 ? (uint64_t)result : 0;

    return_bounce(block, request, done);
    if (result == -EINVAL)
        do_slowly(block, request, 0); /* stricter rules than those we found out */
    else if (result < 0)
        finish(block, request, (int)result);
    else if (is_transfer(request) && done < request->bytes)
        do_slowly(block, request, done - done % block->image.alignment);
    else
        finish(block, request, 0);
}

static void reap(struct block *block, uint64_t wait_ns)
{
    struct io_event events[EVENTS];
    unsigned count;

    do {
        count = block_aio_reap(&block->aio, events, EVENTS, wait_ns);
        for (unsigned i = 0; i < count; i++)
            complete(block, events[i].data, (long)events[i].res);
        wait_ns = 0;
    } while (count == EVENTS);
}

static void submit(struct block *block, struct iocb **iocbs, unsigned count)
{
    while (count > 0) {
        int r = block_aio_submit(&block->aio, iocbs, count);

        if (r == -EAGAIN && block->aio.in_kernel > 0) {
            reap(block, UINT64_MAX); /* then there is room */
            continue;
        }
        if (r < 0) {
            struct block_request *first = iocbs[0]->data;

            if (r == -EINVAL && first->op == BLOCK_FLUSH)
                block->slow_flush = true;
            complete(block, first, r == -EAGAIN ? -EINVAL : r);
            r = 1;
        }
        iocbs += r;
        count -= (unsigned)r;
    }
}

/* At once, and alone: other requests may be in the same page of the cache. */
static void carry_out(struct block *block, struct block_request *request)
{
    int r = 0;

    while (block->aio.in_kernel > 0)
        reap(block, UINT64_MAX);
    switch (request->op) {
    case BLOCK_READ:
    case BLOCK_WRITE: r = block_sync_transfer(block->image.fd, block->image.direct, request); break;
    case BLOCK_FLUSH: r = block_sync_flush(block->image.fd); break;
    case BLOCK_DISCARD:
        r = block_sync_discard(block->image.fd, block->image.is_device, request->offset,
                               request->bytes);
        break;
    case BLOCK_WRITE_ZEROES:
        r = block_sync_zeroes(block->image.fd, block->image.direct, request->offset, request->bytes,
                              request->unmap);
        break;
    }
    finish(block, request, r);
}

static void start_queued(struct block *block)
{
    struct iocb *batch[BATCH];
    struct block_request *request;
    unsigned count = 0;

    while ((request = list_take(&block->queued))) {
        bool fast = prepare(block, request);

        if (fast)
            batch[count++] = &request->iocb;
        if (count > 0 && (!fast || count == BATCH || !block->queued.first)) {
            submit(block, batch, count);
            count = 0;
        }
        if (!fast)
            carry_out(block, request);
    }
    if (count > 0)
        submit(block, batch, count);
}

static void deliver(struct block *block)
{
    struct block_request *request;
    bool told = block->finished.first != NULL;

    while ((request = list_take(&block->finished))) {
        block->in_flight--;
        block->syncing = block->syncing && request != &block->sync;
        request->done(request, request->result);
    }
    if (told && block->params.batch_done)
        block->params.batch_done(block->params.opaque);
}

static void run(struct block *block)
{
    if (block->running)
        return;
    block->running = true;
    do {
        start_queued(block);
        reap(block, 0);
        deliver(block);
    } while (block->queued.first || block->finished.first);
    block->running = false;
}

static void take_completions(void *opaque, uint32_t events)
{
    (void)events;
    run(opaque);
}

/* Delayed requests whose time has come. */
static void release_delayed(void *opaque)
{
    struct block *block = opaque;
    uint64_t now = loop_now_ns();

    while (block->delayed.first && block->delayed.first->due_ns <= now) {
        struct block_request *request = list_take(&block->delayed);

        if (request->result < 0)
            finish(block, request, request->result);
        else
            list_append(&block->queued, request);
    }
    if (block->delayed.first)
        loop_timer_arm(block->timer, block->delayed.first->due_ns);
    run(block);
}

static void delay(struct block *block, struct block_request *request, uint64_t delay_ns)
{
    struct block_request **at = &block->delayed.first;

    request->due_ns = loop_now_ns() + delay_ns;
    while (*at && (*at)->due_ns <= request->due_ns)
        at = &(*at)->next;
    request->next = *at;
    *at = request;
    if (!request->next)
        block->delayed.last = &request->next;
    loop_timer_arm(block->timer, block->delayed.first->due_ns);
}

/* Only a part of the first buffer is handed to the kernel. */
static void cut_short(const struct block *block, struct block_request *request)
{
    uint64_t part = request->iov[0].iov_len / 2;

    part -= part % block->image.alignment;
    if (part > 0)
        request->bounced =
            (struct iovec){.iov_base = request->iov[0].iov_base, .iov_len = (size_t)part};
}

int block_queue(struct block *block, struct block_request *request)
{
    uint64_t delay_ns = 0;
    int fault = 0;

    if (block->in_flight - block->syncing >= BLOCK_DEPTH)
        return -EAGAIN;
    block->in_flight++;
    request->bounced = (struct iovec){0};
    request->skip = 0;
    request->result = 0;
    request->slow = false;
    if (block->params.fault)
        fault = block->params.fault(block->params.fault_opaque, request, &delay_ns);
    if (fault == BLOCK_FAULT_SHORT && is_transfer(request) && request->iov_count > 0)
        cut_short(block, request);
    if (block->image.elsewhere)
        fault = ENOLCK;
    request->result = fault > 0 ? -fault : 0;
    if (delay_ns > 0)
        delay(block, request, delay_ns);
    else if (fault > 0)
        finish(block, request, request->result);
    else
        list_append(&block->queued, request);
    return 0;
}

void block_submit(struct block *block)
{
    run(block);
}

unsigned block_in_flight(const struct block *block)
{
    return block->in_flight;
}

bool block_drain_until(struct block *block, uint64_t until_ns)
{
    assert(!block->running);
    run(block);
    while (block->in_flight > 0) {
        uint64_t now = loop_now_ns();

        if (now >= until_ns)
            return false;
        if (block->aio.in_kernel > 0) {
            reap(block, until_ns == UINT64_MAX ? UINT64_MAX : until_ns - now);
        } else {
            uint64_t due_ns = block->delayed.first->due_ns;
            uint64_t wake_ns = due_ns < until_ns ? due_ns : until_ns;
            struct timespec wake = {.tv_sec = (time_t)(wake_ns / 1000000000u),
                                    .tv_nsec = (long)(wake_ns % 1000000000u)};

            clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &wake, NULL);
            release_delayed(block);
        }
        run(block);
    }
    return true;
}

void block_drain(struct block *block)
{
    (void)block_drain_until(block, UINT64_MAX);
}

static void synced(struct block_request *request, int result)
{
    (void)request, (void)result; /* request->result stays */
}

int block_sync_until(struct block *block, uint64_t until_ns)
{
    if (!block_drain_until(block, until_ns))
        return -ETIMEDOUT;
    block->sync = (struct block_request){.op = BLOCK_FLUSH, .done = synced};
    int r = block_queue(block, &block->sync);
    assert(r == 0); /* nothing is in flight */
    block->syncing = true;
    return block_drain_until(block, until_ns) ? block->sync.result : -ETIMEDOUT;
}

int block_identity(const struct block *block, struct block_identity *ret_identity)
{
    return block_image_identity(&block->image, ret_identity);
}

struct block_image *block_image_of(struct block *block)
{
    return &block->image;
}

uint64_t block_size_sectors(const struct block *block)
{
    return block->sectors;
}

unsigned block_size_alignment(const struct block *block)
{
    return block->image.alignment;
}

unsigned block_size_logical(const struct block *block)
{
    return block->image.logical;
}

unsigned block_size_physical(const struct block *block)
{
    return block->image.physical;
}

bool block_can_discard(const struct block *block)
{
    return block->image.can_discard;
}

bool block_refresh_size(struct block *block)
{
    uint64_t bytes, before = block->sectors;

    if (block_image_size(&block->image, &bytes) == 0)
        block->sectors = bytes / SECTOR_SIZE;
    return block->sectors != before;
}

static int set_up(struct block *block, const struct block_params *params, struct error *err)
{
    int r = block_aio_create(&block->aio, BLOCK_DEPTH, err);

    if (r < 0)
        return r;
    if (block->image.direct) {
        block->bounces = mmap(NULL, (size_t)BOUNCES * BOUNCE_BYTES, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (block->bounces == MAP_FAILED)
            return error_set(err, ENOMEM, "out of memory");
    }
    /* Each completion is an edge; the counter needs no reading. */
    r = loop_watch_create(params->loop, block->aio.event_fd, EPOLLIN | EPOLLET, params->lock,
                          take_completions, block, &block->watch, err);
    if (r == 0 && params->fault)
        r = loop_timer_create(params->loop, params->lock, release_delayed, block, &block->timer,
                              err);
    return r;
}

int block_open(const struct block_params *params, struct block **ret_block, struct error *err)
{
    struct block *block = malloc(sizeof(*block));
    int r;

    if (!block)
        return error_set(err, ENOMEM, "%s: out of memory", params->path);
    *block = (struct block){
        .image = {.fd = -1,
                  .direct = params->cache == BLOCK_CACHE_NONE,
                  .read_only = params->read_only,
                  .elsewhere = params->elsewhere && !params->read_only},
        .params = *params,
        .aio.event_fd = -1,
        .bounces = MAP_FAILED,
    };
    list_init(&block->queued);
    list_init(&block->delayed);
    list_init(&block->finished);
    r = block_image_open(&block->image, params->path, err);
    if (r == 0) {
        block_refresh_size(block);
        r = set_up(block, params, err);
    }
    if (r < 0) {
        error_prefix(err, "%s", params->path);
        goto fail;
    }
    *ret_block = block;
    return 0;

fail:
    block_close(block);
    return r;
}

void block_close(struct block *block)
{
    if (!block)
        return;
    assert(block->in_flight == 0);
    loop_timer_destroy(block->timer);
    loop_watch_destroy(block->watch);
    block_aio_destroy(&block->aio);
    if (block->bounces != MAP_FAILED)
        munmap(block->bounces, (size_t)BOUNCES * BOUNCE_BYTES);
    block_image_close(&block->image);
    free(block);
}
