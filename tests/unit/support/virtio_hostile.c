/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio_hostile: runs the cases, and watches the guest's memory meanwhile.
 *
 * The one thing to know: RAM is compared whole with a copy from before, so a device that
 * writes one byte where it was not told to fails, wherever that byte is.
 */
#include "virtio_hostile_case.h"

#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define WAIT_NS UINT64_C(5000000000)

uint64_t hostile_features(const struct hostile_bench *b)
{
    if (b->plain)
        return 0;
    return b->kind->features ? b->kind->features : UINT64_MAX;
}

void hostile_prepare(struct hostile_bench *b)
{
    uint8_t header[64];

    b->header_bytes = b->kind->header ? b->kind->header(b->kind->opaque, header) : 0;
    b->header = virtio_machine_alloc(&b->m, sizeof(header));
    memcpy(virtio_machine_at(&b->m, b->header, sizeof(header)), header, b->header_bytes);
    b->data = virtio_machine_alloc(&b->m, HOSTILE_DATA_BYTES);
    b->allowed_count = 0;
}

void hostile_start(struct hostile_bench *b)
{
    if (b->plain)
        virtio_driver_start_intx(&b->d, 0);
    else
        virtio_driver_start(&b->d, hostile_features(b));
    hostile_prepare(b);
}

static uint8_t *low(struct hostile_bench *b)
{
    return virtio_machine_at(&b->m, 0, VIRTIO_RAM_LOW);
}

static uint8_t *high(struct hostile_bench *b)
{
    return virtio_machine_at(&b->m, VIRTIO_RAM_HIGH_AT, VIRTIO_RAM_HIGH);
}

void hostile_watch(struct hostile_bench *b)
{
    pthread_mutex_lock(&b->dev->lock); /* without it no device writes, on whichever thread */
    memcpy(b->before, low(b), VIRTIO_RAM_LOW);
    memcpy(b->before + VIRTIO_RAM_LOW, high(b), VIRTIO_RAM_HIGH);
    pthread_mutex_unlock(&b->dev->lock);
}

void hostile_allow(struct hostile_bench *b, uint64_t gpa, uint64_t bytes)
{
    assert_true(b->allowed_count < sizeof(b->allowed) / sizeof(b->allowed[0]));
    b->allowed[b->allowed_count].gpa = gpa;
    b->allowed[b->allowed_count++].bytes = bytes;
}

static void forgive(struct hostile_bench *b, uint64_t gpa, uint64_t bytes)
{
    uint64_t at = gpa < VIRTIO_RAM_LOW ? gpa : gpa - VIRTIO_RAM_HIGH_AT + VIRTIO_RAM_LOW;

    memcpy(b->before + at, virtio_machine_at(&b->m, gpa, bytes), bytes);
}

static void compare(struct hostile_bench *b, uint64_t gpa, const uint8_t *before,
                    const uint8_t *after, uint64_t bytes)
{
    uint64_t i = 0;

    if (memcmp(before, after, bytes) == 0)
        return;
    while (i < bytes && (before[i] == after[i] || (b->kind->gives_back && after[i] == 0)))
        i++;
    if (i == bytes)
        return;
    fail_msg("%s: the device wrote 0x%x to 0x%llx", b->name, after[i],
             (unsigned long long)(gpa + i));
}

void hostile_check(struct hostile_bench *b)
{
    pthread_mutex_lock(&b->dev->lock);
    for (unsigned i = 0; i < b->d.queue_count; i++) {
        const struct virtio_driver_queue *q = &b->d.queues[i];

        if (q->size)
            forgive(b, q->used, 6 + q->size * sizeof(struct vring_used_elem));
    }
    for (unsigned i = 0; i < b->allowed_count; i++)
        forgive(b, b->allowed[i].gpa, b->allowed[i].bytes);
    compare(b, 0, b->before, low(b), VIRTIO_RAM_LOW);
    compare(b, VIRTIO_RAM_HIGH_AT, b->before + VIRTIO_RAM_LOW, high(b), VIRTIO_RAM_HIGH);
    pthread_mutex_unlock(&b->dev->lock);
}

void hostile_settle(struct hostile_bench *b)
{
    for (unsigned i = 0; i < 3; i++) {
        virtio_machine_run(&b->m);
        usleep(200);
    }
    if (b->kind->settle)
        b->kind->settle(b->kind->opaque, b->dev);
}

void hostile_kick(struct hostile_bench *b)
{
    hostile_watch(b);
    virtio_driver_kick(&b->d, b->kind->queue);
    hostile_settle(b);
}

bool hostile_is_broken(struct hostile_bench *b)
{
    return virtio_driver_status(&b->d) & VIRTIO_CONFIG_S_NEEDS_RESET;
}

static void require_end(struct hostile_bench *b, enum hostile_end end)
{
    uint64_t deadline_ns = loop_now_ns() + WAIT_NS;

    hostile_settle(b);
    if (end == HOSTILE_UNHARMED && hostile_is_broken(b))
        fail_msg("%s: the device was harmed", b->name);
    while (end == HOSTILE_BROKEN && !hostile_is_broken(b)) {
        if (loop_now_ns() > deadline_ns)
            fail_msg("%s: the device did not notice", b->name);
        hostile_settle(b);
    }
}

static void require_works(struct hostile_bench *b)
{
    hostile_start(b);
    if (b->kind->works)
        b->kind->works(b->kind->opaque, &b->d);
}

static void run_case(const struct virtio_kind *kind, const struct hostile_case *c, bool plain,
                     uint8_t *before)
{
    struct hostile_bench b = {.kind = kind, .name = c->name, .plain = plain, .before = before};
    struct error err = {.msg = ""};

    print_message("    hostile: %s%s\n", c->name, plain ? ", without features" : "");
    virtio_machine_init(&b.m, NULL);
    kind->create(kind->opaque, &b.m, &b.dev, &err);
    assert_string_equal(err.msg, "");
    virtio_driver_init(&b.d, &b.m, b.dev);
    b.q = &b.d.queues[kind->queue];

    hostile_start(&b);
    hostile_watch(&b);
    c->run(&b);
    require_end(&b, c->end);
    hostile_check(&b);

    virtio_driver_decode(&b.d); /* the case may have switched it off, or have reset the function */
    require_works(&b);          /* it begins with a reset by the driver */
    device_reset(b.dev);
    virtio_driver_init(&b.d, &b.m, b.dev);
    require_works(&b);
    virtio_driver_reset(&b.d);

    device_destroy(b.dev);
    if (kind->gone)
        kind->gone(kind->opaque, &b.m);
    virtio_machine_fini(&b.m);
}

void hostile_run(const struct virtio_kind *kind)
{
    const struct hostile_case *tables[] = {hostile_ring_cases, hostile_register_cases};
    uint8_t *before = malloc(VIRTIO_RAM_LOW + VIRTIO_RAM_HIGH);

    assert_non_null(before);
    log_set_level(LOG_LEVEL_ERROR); /* each case is worth a warning */
    for (unsigned i = 0; i < 2; i++) {
        for (const struct hostile_case *c = tables[i]; c->name; c++) {
            run_case(kind, c, false, before);
            run_case(kind, c, true, before);
        }
    }
    log_set_level(LOG_LEVEL_INFO);
    free(before);
}
