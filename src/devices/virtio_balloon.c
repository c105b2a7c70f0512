/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio_balloon: memory that the guest gives up. VIRTIO 1.2, "Traditional Memory Balloon Device".
 *
 * The one thing to know: a page that was given up reads as zeros afterwards, or is as it was. So
 * the device need not remember which pages are in the balloon: one that the guest takes back, told
 * or not, is there as soon as it is touched. What the guest names is hostile: a page that is a
 * ring, or that a disk writes to, is lost to the guest alone, for the mapping stays.
 */
#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <linux/virtio_balloon.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmrun/loop.h"
#include "vmrun/virtio_devices.h"

#define CLASS_OTHER_MEMORY 0x058000
#define QUEUE_SIZE 128
#define PFNS_AT_ONCE 256u
/* What one kick does, as the machine's thread has more to do: requests, and of each, pages. */
#define BURST_REQUESTS 16u
#define REQUEST_PFNS 4096u
#define STATS_READ 64u /* of one answer */
#define ASK_NS UINT64_C(1000000000)

/*
 * Linux leaves out the number of a queue that it does not use, and the specification keeps it. Free
 * page hints are not offered, so reports come on either of two; without statistics also on theirs.
 */
enum { INFLATE, DEFLATE, STATS, REPORT, REPORT_TOO, QUEUES };

struct virtio_balloon {
    struct virtio_device vdev;
    struct log_limit strange;
    struct iovec iov[VIRTQ_MAX_CHAIN];
    uint32_t target, actual; /* pages of 4 KiB */
    uint32_t poison;         /* what the guest expects in pages that it reported */

    /* The guest's buffer for statistics: it is answered to ask for new ones. */
    bool held;
    struct virtq_chain held_chain; /* its iov is not valid any more */
    bool asked;
    uint64_t asked_ns, answered_ns; /* 0: never */
    uint32_t known;
    uint64_t guest[VIRTIO_BALLOON_S_NR];
    uint64_t inflated, reported, returned; /* bytes, in all */
};
static_assert(offsetof(struct virtio_balloon, vdev) == 0, "state offsets count from the device");
static_assert(VIRTIO_BALLOON_STATS == VIRTIO_BALLOON_S_NR, "a place for each");

static struct virtio_balloon *self(struct virtio_device *vdev)
{
    return container_of(vdev, struct virtio_balloon, vdev);
}

static struct virtio_balloon *of_device(struct device *dev)
{
    return container_of(dev, struct virtio_balloon, vdev.pci.dev);
}

/* Inflating */

static int compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return x < y ? -1 : x > y;
}

/* Pages in any order, some perhaps twice or not there: each run of them goes back in one piece. */
static void take_pages(struct virtio_balloon *b, uint32_t *pfns, unsigned count)
{
    struct guest_memory *memory = b->vdev.queues[INFLATE].memory;
    unsigned good = 0;

    for (unsigned i = 0; i < count; i++) {
        uint64_t pfn = le32toh(pfns[i]);

        if (guest_memory_at(memory, pfn << VIRTIO_BALLOON_PFN_SHIFT, GUEST_PAGE_SIZE))
            pfns[good++] = (uint32_t)pfn;
    }
    if (good < count)
        log_warn_limited(&b->strange, "balloon: the guest gave up %u pages that it does not have",
                         count - good);
    qsort(pfns, good, sizeof(pfns[0]), compare);
    for (unsigned i = 0, run; i < good; i += run) {
        uint64_t pages = 1;

        for (run = 1; i + run < good && pfns[i + run] <= pfns[i] + pages; run++)
            pages += pfns[i + run] == pfns[i] + pages;
        counter_add(&b->inflated, pages * GUEST_PAGE_SIZE);
        counter_add(&b->returned,
                    guest_memory_give_back(memory, (uint64_t)pfns[i] << VIRTIO_BALLOON_PFN_SHIFT,
                                           pages * GUEST_PAGE_SIZE));
    }
}

static void inflate(struct virtio_balloon *b, const struct virtq_chain *chain)
{
    uint32_t pfns[PFNS_AT_ONCE];
    uint64_t all = chain->out_bytes / sizeof(pfns[0]), done = 0;

    if (all > REQUEST_PFNS) {
        log_warn_limited(&b->strange, "balloon: of %llu pages in one request %u are taken",
                         (unsigned long long)all, REQUEST_PFNS);
        all = REQUEST_PFNS;
    }
    while (done < all) {
        unsigned count = all - done < PFNS_AT_ONCE ? (unsigned)(all - done) : PFNS_AT_ONCE;

        (void)iov_to_buf(chain->iov, chain->out, done * sizeof(pfns[0]), pfns,
                         count * sizeof(pfns[0]));
        take_pages(b, pfns, count);
        done += count;
    }
}

/* Free page reporting: the buffers themselves are what is free. */

static void take_report(struct virtio_balloon *b, const struct virtq_chain *chain)
{
    struct guest_memory *memory = b->vdev.queues[INFLATE].memory;

    /* They would come back with zeros, and may come back with this only, or as they are. */
    if (virtio_has(&b->vdev, VIRTIO_BALLOON_F_PAGE_POISON) && b->poison != 0)
        return;
    for (unsigned i = chain->out; i < chain->out + chain->in; i++) {
        uint64_t gpa;

        if (!guest_memory_find(memory, chain->iov[i].iov_base, &gpa))
            continue;
        counter_add(&b->reported, chain->iov[i].iov_len);
        counter_add(&b->returned, guest_memory_give_back(memory, gpa, chain->iov[i].iov_len));
    }
}

/* Statistics */

static void read_stats(struct virtio_balloon *b, const struct virtq_chain *chain)
{
    struct virtio_balloon_stat stats[STATS_READ];
    uint64_t bytes = iov_to_buf(chain->iov, chain->out, 0, stats, sizeof(stats));

    for (uint64_t i = 0; i < bytes / sizeof(stats[0]); i++) {
        uint16_t tag = le16toh(stats[i].tag);

        if (tag >= VIRTIO_BALLOON_S_NR)
            continue;
        b->guest[tag] = le64toh(stats[i].val);
        b->known |= 1u << tag;
    }
}

static void give_buffer(struct virtio_balloon *b)
{
    virtqueue_push_head(&b->vdev.queues[STATS], b->held_chain.head, 0);
    b->held = false;
}

/* A guest with more than one buffer gets the older ones back, which is to ask again. */
static void take_stats(struct virtio_balloon *b, const struct virtq_chain *chain)
{
    if (b->held)
        give_buffer(b);
    read_stats(b, chain);
    b->held = true;
    b->held_chain = *chain;
    b->asked = false;
    b->answered_ns = loop_now_ns();
}

static void ask(struct virtio_balloon *b)
{
    uint64_t now = loop_now_ns();

    if (!b->held || !b->vdev.started || b->vdev.paused || now - b->asked_ns < ASK_NS)
        return;
    b->asked_ns = now;
    b->asked = true;
    give_buffer(b);
    virtio_notify(&b->vdev, STATS);
}

/* What comes on a queue depends on what the driver took. */
static void serve(struct virtio_balloon *b, unsigned queue, const struct virtq_chain *chain)
{
    bool reports = virtio_has(&b->vdev, VIRTIO_BALLOON_F_REPORTING);
    bool stats = virtio_has(&b->vdev, VIRTIO_BALLOON_F_STATS_VQ);

    if (queue == INFLATE)
        inflate(b, chain);
    else if (queue == STATS && stats)
        take_stats(b, chain);
    else if (queue >= STATS && reports)
        take_report(b, chain);
}

static void virtio_balloon_kick(struct virtio_device *vdev, unsigned queue)
{
    struct virtio_balloon *b = self(vdev);
    struct virtqueue *vq = &vdev->queues[queue];
    struct virtq_chain chain = {.iov = b->iov, .room = VIRTQ_MAX_CHAIN};
    unsigned served = 0;
    int r = 0;

    while (served < BURST_REQUESTS && (r = virtqueue_pop(vq, &chain)) == 1) {
        serve(b, queue, &chain);
        if (!(b->held && queue == STATS))
            virtqueue_push_head(vq, chain.head, 0);
        served++;
    }
    virtio_notify(vdev, queue);
    if (r == 1)
        virtio_ring(vdev, queue); /* the others on this loop come first */
    else if (r < 0)
        virtio_broken(vdev, "the driver broke the ring");
}

/* Configuration */

static struct virtio_balloon_config config_of(const struct virtio_balloon *b)
{
    return (struct virtio_balloon_config){.num_pages = htole32(b->target),
                                          .actual = htole32(b->actual),
                                          .poison_val = htole32(b->poison)};
}

static uint64_t virtio_balloon_config_read(struct virtio_device *vdev, uint64_t offset,
                                           unsigned size)
{
    const struct virtio_balloon_config config = config_of(self(vdev));
    uint64_t value = 0;

    memcpy(&value, (const uint8_t *)&config + offset, size);
    return value;
}

/* The driver may write two of the fields, in pieces of any size. */
static void virtio_balloon_config_write(struct virtio_device *vdev, uint64_t offset, unsigned size,
                                        uint64_t value)
{
    struct virtio_balloon *b = self(vdev);
    struct virtio_balloon_config config = config_of(b);

    memcpy((uint8_t *)&config + offset, &value, size);
    b->actual = le32toh(config.actual);
    if (virtio_has(vdev, VIRTIO_BALLOON_F_PAGE_POISON))
        b->poison = le32toh(config.poison_val);
}

void virtio_balloon_set_target(struct device *dev, uint64_t bytes)
{
    struct virtio_balloon *b = of_device(dev);
    uint32_t target = (uint32_t)(bytes >> VIRTIO_BALLOON_PFN_SHIFT);

    pthread_mutex_lock(&dev->lock);
    if (b->target != target) {
        b->target = target;
        virtio_config_changed(&b->vdev);
    }
    pthread_mutex_unlock(&dev->lock);
}

void virtio_balloon_stats(struct device *dev, struct virtio_balloon_stats *ret_stats)
{
    struct virtio_balloon *b = of_device(dev);

    pthread_mutex_lock(&dev->lock);
    ask(b);
    *ret_stats = (struct virtio_balloon_stats){
        .target_bytes = (uint64_t)b->target << VIRTIO_BALLOON_PFN_SHIFT,
        .actual_bytes = (uint64_t)b->actual << VIRTIO_BALLOON_PFN_SHIFT,
        .inflated_bytes = b->inflated,
        .reported_bytes = b->reported,
        .returned_bytes = b->returned,
        .asked = b->asked,
        .answered = b->answered_ns != 0,
        .age_ns = b->answered_ns ? loop_now_ns() - b->answered_ns : 0,
        .known = b->known,
    };
    memcpy(ret_stats->guest, b->guest, sizeof(b->guest));
    pthread_mutex_unlock(&dev->lock);
}

/* The life of a device */

static void forget_buffer(struct virtio_balloon *b)
{
    b->held = b->asked = false;
}

/* A driver that resets the device has its pages back, whatever it was. */
static void virtio_balloon_stop(struct virtio_device *vdev)
{
    forget_buffer(self(vdev));
}

static void virtio_balloon_start(struct virtio_device *vdev)
{
    forget_buffer(self(vdev));
}

/* The buffer goes back into the ring, as if it had not been taken: nothing is in flight. */
static void virtio_balloon_pause(struct device *dev)
{
    struct virtio_balloon *b = of_device(dev);

    if (b->held)
        virtqueue_unpop(&b->vdev.queues[STATS], &b->held_chain);
    forget_buffer(b);
    virtio_pause(dev);
}

static void virtio_balloon_reset(struct device *dev)
{
    struct virtio_balloon *b = of_device(dev);

    virtio_reset(dev);
    b->actual = b->poison = 0;
    b->known = 0;
    b->answered_ns = 0;
}

static void virtio_balloon_destroy(struct device *dev)
{
    struct virtio_balloon *b = of_device(dev);

    virtio_fini(&b->vdev);
    free(b);
}

static int virtio_balloon_post_load(void *obj, struct error *err)
{
    struct virtio_balloon *b = obj;

    forget_buffer(b);
    return virtio_post_load(&b->vdev, err);
}

static const struct state_field virtio_balloon_fields[] = {
    VIRTIO_STATE_FIELDS(struct virtio_balloon, vdev),
    STATE(struct virtio_balloon, target),
    STATE(struct virtio_balloon, actual),
    STATE(struct virtio_balloon, poison),
    STATE_END,
};

static const struct state_desc virtio_balloon_state = {
    .name = "virtio-balloon",
    .version = 1,
    .fields = virtio_balloon_fields,
    .post_load = virtio_balloon_post_load,
};

static const struct device_ops virtio_balloon_device_ops = {
    .type = "virtio-balloon",
    .read = virtio_read,
    .write = virtio_write,
    .reset = virtio_balloon_reset,
    .pause = virtio_balloon_pause,
    .resume = virtio_resume,
    .destroy = virtio_balloon_destroy,
    .state = &virtio_balloon_state,
};

static void virtio_balloon_queue_name(const struct virtio_device *vdev, unsigned queue, char *buf,
                                      size_t len)
{
    static const char *const names[QUEUES] = {"inflate", "deflate", "stats", "report", "report2"};

    (void)vdev;
    snprintf(buf, len, "%s", names[queue]);
}

static const struct virtio_ops virtio_balloon_ops = {
    .type = "virtio-balloon",
    .device_id = VIRTIO_ID_BALLOON,
    .class_code = CLASS_OTHER_MEMORY,
    .config_read = virtio_balloon_config_read,
    .config_write = virtio_balloon_config_write,
    .start = virtio_balloon_start,
    .stop = virtio_balloon_stop,
    .kick = virtio_balloon_kick,
    .queue_name = virtio_balloon_queue_name,
};

int virtio_balloon_create(struct platform *platform, struct device *host, struct loop *loop,
                          bool deflate_on_oom, struct device **ret_dev, struct error *err)
{
    const struct virtio_params params = {
        .platform = platform,
        .host = host,
        .loop = loop,
        .id = "balloon",
        .features = 1u << VIRTIO_BALLOON_F_STATS_VQ | 1u << VIRTIO_BALLOON_F_PAGE_POISON |
                    1u << VIRTIO_BALLOON_F_REPORTING |
                    (deflate_on_oom ? 1u << VIRTIO_BALLOON_F_DEFLATE_ON_OOM : 0),
        .queues = QUEUES,
        .queue_size = QUEUE_SIZE,
        .config_size = sizeof(struct virtio_balloon_config),
    };
    struct virtio_balloon *b = calloc(1, sizeof(*b));
    int r;

    if (!b)
        return error_set(err, ENOMEM, "balloon: out of memory");
    r = virtio_init(&b->vdev, &virtio_balloon_device_ops, &virtio_balloon_ops, &params, err);
    if (r < 0)
        goto fail;

    *ret_dev = &b->vdev.pci.dev;
    return 0;

fail:
    virtio_balloon_destroy(&b->vdev.pci.dev);
    return r;
}
