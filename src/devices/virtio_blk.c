/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio_blk: a disk for the guest, VIRTIO 1.2 "Block Device".
 *
 * A kick pops what is in the ring and hands it to the block in one system call; completions come
 * back in batches, with one interrupt each. A request is parsed where it was copied to: its
 * header is read from guest memory once, and its data goes between guest memory and the image
 * without a copy. The one thing to know: everything here runs with the device's lock held, on
 * the disk's thread, or on whichever thread pauses or resets the device; what is in flight
 * belongs to the pool, which never holds more than the block takes.
 */
#include "virtio_blk.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <linux/virtio_ids.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmrun/log.h"

#define QUEUE_SIZE 256
#define SEGMENTS (QUEUE_SIZE - 2) /* of one request: header and status have a descriptor each */
#define BUFFERS (SEGMENTS + 2)
#define CLASS_SCSI_STORAGE 0x010000 /* what firmware and drivers expect of a disk */

/* In sectors, of one request: what the host does in one go, without keeping others waiting long. */
#define DISCARD_MAX (1u << 21)
#define WRITE_ZEROES_MAX (1u << 16)

struct request {
    struct block_request io;
    struct virtio_blk *blk;
    struct request *next_free;
    uint32_t type;
    uint16_t queue, head;
    uint8_t *status;        /* in guest memory */
    struct iovec *out, *in; /* the guest's data, without header and status */
    unsigned out_count, in_count;
    uint64_t out_bytes, in_bytes;
    uint64_t taken_ns; /* from the ring */
    struct iovec iov[BUFFERS];
};

static_assert(offsetof(struct virtio_blk, vdev) == 0, "state offsets count from the device");

static struct virtio_blk *self(struct device *dev)
{
    return container_of(dev, struct virtio_blk, vdev.pci.dev);
}

static const char *id(const struct virtio_blk *blk)
{
    return blk->vdev.pci.dev.id;
}

/* The pool */

static struct request *take_free(struct virtio_blk *blk)
{
    struct request *request = blk->free;

    if (request) {
        blk->free = request->next_free;
    } else if (blk->fresh > 0) {
        request = &blk->requests[blk->request_count - blk->fresh--];
        request->blk = blk;
    }
    return request;
}

static void give_back(struct request *request)
{
    request->next_free = request->blk->free;
    request->blk->free = request;
}

/* Answers */

static void zero(const struct iovec *iov, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        memset(iov[i].iov_base, 0, iov[i].iov_len);
}

/*
 * Give the request back to the driver. The status is the last byte of its buffers, and what we
 * say was written counts from their first: so whatever is not data becomes zeros.
 */
static void answer(struct request *request, uint8_t status)
{
    struct virtio_blk *blk = request->blk;
    struct virtqueue *vq = &blk->vdev.queues[request->queue];
    const struct iovec last = {.iov_base = request->status, .iov_len = 1};
    bool has_data = status == VIRTIO_BLK_S_OK &&
                    (request->type == VIRTIO_BLK_T_IN || request->type == VIRTIO_BLK_T_GET_ID);

    if (!blk->stopping) {
        if (!has_data)
            zero(request->in, request->in_count);
        *request->status = status;
        virtqueue_mark_written(vq, request->in, request->in_count, request->in_bytes);
        virtqueue_mark_written(vq, &last, 1, 1);
        virtqueue_push_head(vq, request->head, (uint32_t)request->in_bytes + 1);
        blk->to_notify |= UINT64_C(1) << request->queue;
    }
    give_back(request);
}

static void notify(struct virtio_blk *blk)
{
    while (blk->to_notify) {
        unsigned queue = (unsigned)__builtin_ctzll(blk->to_notify);

        blk->to_notify &= blk->to_notify - 1;
        virtio_notify(&blk->vdev, queue);
    }
}

static void queue_io(struct request *request)
{
    int r = block_queue(request->blk->block, &request->io);

    assert(r == 0); /* the pool holds no more than the block takes */
}

static void done(struct block_request *io, int result)
{
    struct request *request = container_of(io, struct request, io);
    struct virtio_blk *blk = request->blk;

    blk_report_done(&blk->report, io, result);
    if (!blk->done_ns)
        blk->done_ns = loop_now_ns();
    /* A driver that does not flush was promised that a write is durable when it is answered. */
    if (result == 0 && (io->op == BLOCK_WRITE || io->op == BLOCK_WRITE_ZEROES) &&
        !virtio_has(&blk->vdev, VIRTIO_BLK_F_FLUSH) && !blk->stopping) {
        io->op = BLOCK_FLUSH;
        queue_io(request);
        return;
    }
    histogram_add(&blk->latency[request->queue], blk->done_ns - request->taken_ns);
    answer(request, result < 0 ? VIRTIO_BLK_S_IOERR : VIRTIO_BLK_S_OK);
}

static void batch_done(void *opaque)
{
    struct virtio_blk *blk = opaque;

    blk->done_ns = 0;
    notify(blk);
    while (blk->starved) {
        unsigned queue = (unsigned)__builtin_ctzll(blk->starved);

        blk->starved &= blk->starved - 1;
        virtio_ring(&blk->vdev, queue);
    }
}

/* Requests */

static bool is_inside(const struct virtio_blk *blk, uint64_t sector, uint64_t sectors)
{
    return sector <= blk->capacity && sectors <= blk->capacity - sector;
}

static void start_io(struct request *request, enum block_op op, uint64_t sector, uint64_t sectors)
{
    struct block_request *io = &request->io;

    io->op = op;
    io->offset = sector * SECTOR_SIZE;
    io->bytes = sectors * SECTOR_SIZE;
    io->iov = op == BLOCK_READ ? request->in : request->out;
    io->iov_count = op == BLOCK_READ ? request->in_count : request->out_count;
    io->done = done;
    if (op == BLOCK_READ || op == BLOCK_WRITE)
        virtio_limit_take(&request->blk->limit, 0, io->bytes, request->taken_ns);
    queue_io(request);
}

static void transfer(struct request *request, enum block_op op, uint64_t sector)
{
    struct virtio_blk *blk = request->blk;
    uint64_t bytes = op == BLOCK_READ ? request->in_bytes : request->out_bytes;

    if (bytes % SECTOR_SIZE != 0 || !is_inside(blk, sector, bytes / SECTOR_SIZE) ||
        (op == BLOCK_WRITE && blk->vdev.offered >> VIRTIO_BLK_F_RO & 1))
        answer(request, VIRTIO_BLK_S_IOERR);
    else
        start_io(request, op, sector, bytes / SECTOR_SIZE);
}

/* DISCARD and WRITE_ZEROES: their data is one range. */
static void change_range(struct request *request, enum block_op op)
{
    struct virtio_blk *blk = request->blk;
    bool discards = op == BLOCK_DISCARD;
    struct virtio_blk_discard_write_zeroes range;

    if (blk->vdev.offered >> VIRTIO_BLK_F_RO & 1) {
        answer(request, VIRTIO_BLK_S_IOERR);
        return;
    }
    if (!virtio_has(&blk->vdev, discards ? VIRTIO_BLK_F_DISCARD : VIRTIO_BLK_F_WRITE_ZEROES)) {
        answer(request, VIRTIO_BLK_S_UNSUPP);
        return;
    }
    if (request->out_bytes != sizeof(range)) {
        answer(request, VIRTIO_BLK_S_IOERR);
        return;
    }
    iov_to_buf(request->out, request->out_count, 0, &range, sizeof(range));

    uint64_t sector = le64toh(range.sector);
    uint32_t sectors = le32toh(range.num_sectors), flags = le32toh(range.flags);
    if (flags & (discards ? UINT32_MAX : ~(uint32_t)VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP)) {
        answer(request, VIRTIO_BLK_S_UNSUPP);
    } else if (!is_inside(blk, sector, sectors) ||
               sectors > (discards ? DISCARD_MAX : WRITE_ZEROES_MAX)) {
        answer(request, VIRTIO_BLK_S_IOERR);
    } else if (sectors == 0) {
        answer(request, VIRTIO_BLK_S_OK);
    } else {
        request->io.unmap = flags != 0 && block_can_discard(blk->block);
        start_io(request, op, sector, sectors);
    }
}

static void tell_serial(struct request *request)
{
    zero(request->in, request->in_count);
    iov_from_buf(request->in, request->in_count, 0, request->blk->serial, VIRTIO_BLK_ID_BYTES);
    answer(request, VIRTIO_BLK_S_OK);
}

static void dispatch(struct request *request, uint64_t sector)
{
    switch (request->type) {
    case VIRTIO_BLK_T_IN: transfer(request, BLOCK_READ, sector); break;
    case VIRTIO_BLK_T_OUT: transfer(request, BLOCK_WRITE, sector); break;
    case VIRTIO_BLK_T_FLUSH: start_io(request, BLOCK_FLUSH, 0, 0); break;
    case VIRTIO_BLK_T_GET_ID: tell_serial(request); break;
    case VIRTIO_BLK_T_DISCARD: change_range(request, BLOCK_DISCARD); break;
    case VIRTIO_BLK_T_WRITE_ZEROES: change_range(request, BLOCK_WRITE_ZEROES); break;
    default: answer(request, VIRTIO_BLK_S_UNSUPP); break;
    }
}

/* The next request of a queue. Returns 1, 0 when there is none, -EPROTO. */
static int serve(struct virtio_blk *blk, unsigned queue, struct request *request)
{
    struct virtq_chain chain = {.iov = request->iov, .room = BUFFERS};
    struct virtio_blk_outhdr header;
    int r = virtqueue_pop(&blk->vdev.queues[queue], &chain);

    if (r != 1)
        return r;
    if (chain.in == 0)
        return -EPROTO; /* it cannot even be refused: there is nowhere to say so */
    request->queue = (uint16_t)queue;
    request->head = chain.head;
    request->type = UINT32_MAX;
    request->taken_ns = blk->kick_ns;
    virtio_limit_take(&blk->limit, 1, 0, blk->kick_ns);

    request->out = chain.iov;
    request->out_count = chain.out;
    request->out_bytes = 0;
    request->in = chain.iov + chain.out;
    request->in_count = chain.in;
    request->in_bytes = chain.in_bytes - 1;
    struct iovec *last = &request->in[chain.in - 1];
    request->status = (uint8_t *)last->iov_base + --last->iov_len;
    request->in_count -= last->iov_len == 0;

    if (iov_to_buf(request->out, chain.out, 0, &header, sizeof(header)) < sizeof(header)) {
        answer(request, VIRTIO_BLK_S_IOERR);
        return 1;
    }
    iov_trim(&request->out, &request->out_count, sizeof(header));
    request->out_bytes = chain.out_bytes - sizeof(header);
    request->type = le32toh(header.type);
    dispatch(request, le64toh(header.sector));
    return 1;
}

static void virtio_blk_kick(struct virtio_device *vdev, unsigned queue)
{
    struct virtio_blk *blk = self(&vdev->pci.dev);
    struct virtqueue *vq = &vdev->queues[queue];
    bool later = false; /* it is rung again, and needs no doorbell until then */
    unsigned served = 0;
    int r = 0;

    blk->kick_ns = loop_now_ns();
    virtqueue_disable_kicks(vq);
    for (; served < QUEUE_SIZE; served += r == 1) {
        struct request *request;

        later = !virtio_limit_admits(&blk->limit, queue, blk->kick_ns);
        if (later)
            break;
        request = take_free(blk);
        if (!request) {
            blk->starved |= UINT64_C(1) << queue;
            later = true;
            break;
        }
        r = serve(blk, queue, request);
        if (r != 1)
            give_back(request);
        if (r < 0 || (r == 0 && !virtqueue_enable_kicks(vq)))
            break;
        if (r == 0)
            virtqueue_disable_kicks(vq);
    }
    block_submit(blk->block);
    notify(blk);
    virtio_pace(vdev, served);
    if (r < 0)
        virtio_broken(vdev, "the driver broke the ring, or left no room for a status");
    else if (r == 1 && !later)
        virtio_ring(vdev, queue); /* there may be more: others come first */
}

/* Configuration */

static uint64_t virtio_blk_config_read(struct virtio_device *vdev, uint64_t offset, unsigned size)
{
    struct virtio_blk *blk = self(&vdev->pci.dev);
    unsigned logical = block_size_logical(blk->block);
    unsigned physical = block_size_physical(blk->block);
    bool can_discard = block_can_discard(blk->block);
    const struct virtio_blk_config config = {
        .capacity = htole64(blk->capacity),
        .seg_max = htole32(SEGMENTS),
        .blk_size = htole32(logical),
        .physical_block_exp = (uint8_t)__builtin_ctz(physical / logical),
        .min_io_size = htole16((uint16_t)(physical / logical)),
        .num_queues = htole16((uint16_t)vdev->queue_count),
        .max_discard_sectors = htole32(can_discard ? DISCARD_MAX : 0),
        .max_discard_seg = htole32(can_discard ? 1 : 0),
        .discard_sector_alignment = htole32(physical / SECTOR_SIZE),
        .max_write_zeroes_sectors = htole32(WRITE_ZEROES_MAX),
        .max_write_zeroes_seg = htole32(1),
        .write_zeroes_may_unmap = can_discard,
    };
    uint64_t value = 0;

    memcpy(&value, (const uint8_t *)&config + offset, size);
    return value;
}

static uint64_t features(const struct virtio_blk_params *params, const struct block *block)
{
    uint64_t bits = UINT64_C(1) << VIRTIO_BLK_F_SEG_MAX | UINT64_C(1) << VIRTIO_BLK_F_BLK_SIZE |
                    UINT64_C(1) << VIRTIO_BLK_F_TOPOLOGY | UINT64_C(1) << VIRTIO_BLK_F_FLUSH;

    if (params->queues > 1)
        bits |= UINT64_C(1) << VIRTIO_BLK_F_MQ;
    if (params->read_only)
        return bits | UINT64_C(1) << VIRTIO_BLK_F_RO;
    if (block_can_discard(block))
        bits |= UINT64_C(1) << VIRTIO_BLK_F_DISCARD;
    return bits | UINT64_C(1) << VIRTIO_BLK_F_WRITE_ZEROES;
}

/* Life */

static void virtio_blk_stop(struct virtio_device *vdev)
{
    struct virtio_blk *blk = self(&vdev->pci.dev);

    blk->stopping = true;
    if (blk->block)
        block_drain(blk->block);
    virtio_limit_forget(&blk->limit);
    blk->stopping = false;
    blk->to_notify = blk->starved = 0;
}

static int virtio_blk_settle(struct device *dev, uint64_t until_ns, struct error *err)
{
    virtio_pause(dev);
    if (block_drain_until(self(dev)->block, until_ns))
        return 0;
    virtio_resume(dev);
    return blk_report_unsettled(dev->id, -ETIMEDOUT, block_in_flight(self(dev)->block), err);
}

static void virtio_blk_pause(struct device *dev)
{
    virtio_pause(dev);
    virtio_limit_forget(&self(dev)->limit);
    block_drain(self(dev)->block); /* what it told the driver, the driver hears of after resume */
}

static void close_block(void *opaque)
{
    struct virtio_blk *blk = opaque;

    virtio_limit_destroy(&blk->limit);
    block_close(blk->block);
    blk->block = NULL;
}

static void virtio_blk_destroy(struct device *dev)
{
    struct virtio_blk *blk = self(dev);

    /* The block first: it lives by the device's lock, which virtio_fini() takes away. */
    if (blk->initialised) {
        pthread_mutex_lock(&dev->lock);
        virtio_pause(dev);
        virtio_blk_stop(&blk->vdev);
        pthread_mutex_unlock(&dev->lock);
    }
    if (blk->block)
        iothread_call(blk->thread, close_block, blk);
    if (blk->initialised)
        virtio_fini(&blk->vdev);
    free(blk->requests);
    free(blk->latency);
    free(blk);
}

static int virtio_blk_post_load(void *obj, struct error *err)
{
    struct virtio_blk *blk = obj;

    return virtio_post_load(&blk->vdev, err);
}

static const struct state_field virtio_blk_fields[] = {
    VIRTIO_STATE_FIELDS(struct virtio_blk, vdev),
    STATE(struct virtio_blk, capacity, .match = true),
    STATE_END,
};

static const struct state_desc virtio_blk_state = {
    .name = "virtio-blk",
    .version = 1,
    .fields = virtio_blk_fields,
    .post_load = virtio_blk_post_load,
};

static const struct device_ops virtio_blk_device_ops = {
    .type = "virtio-blk",
    .read = virtio_read,
    .write = virtio_write,
    .reset = virtio_reset,
    .settle = virtio_blk_settle,
    .pause = virtio_blk_pause,
    .resume = virtio_resume,
    .destroy = virtio_blk_destroy,
    .state = &virtio_blk_state,
};

static const struct virtio_ops virtio_blk_ops = {
    .type = "virtio-blk",
    .device_id = VIRTIO_ID_BLOCK,
    .class_code = CLASS_SCSI_STORAGE,
    .config_read = virtio_blk_config_read,
    .stop = virtio_blk_stop,
    .kick = virtio_blk_kick,
};

struct opening {
    struct virtio_blk *blk;
    struct block_params params;
    struct error *err;
    int result;
};

static void open_block(void *opaque)
{
    struct opening *opening = opaque;

    opening->result = block_open(&opening->params, &opening->blk->block, opening->err);
}

/* On the disk's own thread, whose loop will serve it. */
static int open_image(struct virtio_blk *blk, const struct virtio_blk_params *params,
                      struct error *err)
{
    struct opening opening = {
        .blk = blk,
        .err = err,
        .params = {.path = params->path,
                   .read_only = params->read_only,
                   .elsewhere = params->elsewhere,
                   .cache = params->cache,
                   .loop = iothread_loop(params->thread),
                   .lock = &blk->vdev.pci.dev.lock,
                   .batch_done = batch_done,
                   .opaque = blk,
                   .fault = params->fault,
                   .fault_opaque = params->fault_opaque},
    };

    iothread_call(params->thread, open_block, &opening);
    if (opening.result < 0)
        return error_prefix(err, "disk %s", params->id);
    blk->capacity = block_size_sectors(blk->block);
    return 0;
}

static int create_requests(struct virtio_blk *blk, const struct virtio_blk_params *params,
                           struct error *err)
{
    unsigned count = params->queues * QUEUE_SIZE;

    blk->request_count = blk->fresh = count < BLOCK_DEPTH ? count : BLOCK_DEPTH;
    blk->requests = calloc(blk->request_count, sizeof(*blk->requests));
    blk->latency = calloc(params->queues, sizeof(*blk->latency));
    return blk->requests && blk->latency
               ? 0
               : error_set(err, ENOMEM, "disk %s: out of memory", params->id);
}

static void create_limit(void *opaque)
{
    struct opening *opening = opaque;
    struct virtio_blk *blk = opening->blk;

    opening->result = virtio_limit_create(&blk->limit, &blk->vdev, opening->err);
}

/* What can wait until there is a device: on its own thread, too. */
static int set_limit(struct virtio_blk *blk, const struct virtio_rates *rates, struct error *err)
{
    struct opening opening = {.blk = blk, .err = err};

    iothread_call(blk->thread, create_limit, &opening);
    if (opening.result < 0)
        return error_prefix(err, "%s", id(blk));
    virtio_limit_set(&blk->limit, rates, true);
    return 0;
}

int virtio_blk_create(struct platform *platform, struct device *host,
                      const struct virtio_blk_params *params, struct device **ret_dev,
                      struct error *err)
{
    const char *serial = params->serial ? params->serial : params->id;
    struct virtio_blk *blk = calloc(1, sizeof(*blk));
    char name[sizeof(blk->vdev.pci.dev.id)];
    int r;

    if (!blk)
        return error_set(err, ENOMEM, "disk %s: out of memory", params->id);
    blk->thread = params->thread;
    blk->report = (struct blk_report){
        .id = id(blk), .io_error = params->io_error, .io_error_opaque = params->io_error_opaque};
    memcpy(blk->serial, serial, strnlen(serial, sizeof(blk->serial)));
    snprintf(name, sizeof(name), "disk %s", params->id);
    r = open_image(blk, params, err);
    if (r == 0)
        r = create_requests(blk, params, err);
    if (r < 0)
        goto fail;

    const struct virtio_params virtio = {
        .platform = platform,
        .host = host,
        .thread = params->thread,
        .id = name,
        .features = features(params, blk->block),
        .queues = params->queues,
        .queue_size = QUEUE_SIZE,
        .config_size = offsetof(struct virtio_blk_config, max_secure_erase_sectors),
    };
    blk->initialised = true;
    r = virtio_init(&blk->vdev, &virtio_blk_device_ops, &virtio_blk_ops, &virtio, err);
    if (r == 0)
        r = set_limit(blk, &params->rates, err);
    if (r < 0)
        goto fail;

    *ret_dev = &blk->vdev.pci.dev;
    return 0;

fail:
    virtio_blk_destroy(&blk->vdev.pci.dev);
    return r;
}
