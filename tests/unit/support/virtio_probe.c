/* SPDX-License-Identifier: Apache-2.0 */
/* virtio_probe: the least that a kind of virtio device does. */
#include "virtio_probe.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct virtio_probe *self(struct virtio_device *vdev)
{
    return container_of(vdev, struct virtio_probe, vdev);
}

static uint64_t virtio_probe_config_read(struct virtio_device *vdev, uint64_t offset, unsigned size)
{
    uint64_t value = 0;

    assert_true(offset + size <= PROBE_CONFIG);
    memcpy(&value, self(vdev)->config + offset, size);
    return value;
}

static void virtio_probe_config_write(struct virtio_device *vdev, uint64_t offset, unsigned size,
                                      uint64_t value)
{
    assert_true(offset + size <= PROBE_CONFIG);
    memcpy(self(vdev)->config + offset, &value, size);
}

static void virtio_probe_start(struct virtio_device *vdev)
{
    self(vdev)->starts++;
}

static void virtio_probe_stop(struct virtio_device *vdev)
{
    self(vdev)->stops++;
}

static void virtio_probe_kick(struct virtio_device *vdev, unsigned queue)
{
    struct iovec iov[8];
    struct virtq_chain chain = {.iov = iov, .room = 8};
    int r;

    self(vdev)->kicks[queue]++;
    while ((r = virtqueue_pop(&vdev->queues[queue], &chain)) == 1) {
        if (self(vdev)->keeps)
            continue;
        for (unsigned i = 0; i < chain.in; i++)
            memset(iov[chain.out + i].iov_base, PROBE_FILL, iov[chain.out + i].iov_len);
        virtqueue_push(&vdev->queues[queue], &chain, (uint32_t)chain.in_bytes);
    }
    virtio_notify(vdev, queue);
    if (r < 0)
        virtio_broken(vdev, "the driver broke the ring");
}

static void virtio_probe_destroy(struct device *dev)
{
    struct virtio_probe *p = container_of(dev, struct virtio_probe, vdev.pci.dev);

    virtio_fini(&p->vdev);
    free(p);
}

static int virtio_probe_post_load(void *obj, struct error *err)
{
    struct virtio_probe *p = obj;

    return virtio_post_load(&p->vdev, err);
}

static const struct state_field virtio_probe_fields[] = {
    VIRTIO_STATE_FIELDS(struct virtio_probe, vdev),
    STATE_ARRAY(struct virtio_probe, config),
    STATE_END,
};

const struct state_desc virtio_probe_state = {.name = "probe",
                                              .version = 1,
                                              .fields = virtio_probe_fields,
                                              .post_load = virtio_probe_post_load};

static const struct device_ops virtio_probe_device_ops = {
    .type = "probe",
    .read = virtio_read,
    .write = virtio_write,
    .reset = virtio_reset,
    .pause = virtio_pause,
    .resume = virtio_resume,
    .destroy = virtio_probe_destroy,
    .state = &virtio_probe_state,
};

static const struct virtio_ops virtio_probe_ops = {
    .type = "probe",
    .device_id = 42,
    .class_code = 0xff0000,
    .config_read = virtio_probe_config_read,
    .config_write = virtio_probe_config_write,
    .start = virtio_probe_start,
    .stop = virtio_probe_stop,
    .kick = virtio_probe_kick,
};

struct virtio_probe *virtio_probe_create(struct virtio_machine *m, struct iothread *thread)
{
    const struct virtio_params params = {
        .platform = m->platform,
        .host = m->host,
        .loop = thread ? NULL : m->loop,
        .thread = thread,
        .id = "probe",
        .features = 1u << PROBE_FEATURE,
        .queues = PROBE_QUEUES,
        .queue_size = 16,
        .config_size = PROBE_CONFIG,
    };
    struct virtio_probe *p = calloc(1, sizeof(*p));
    struct error err = {.msg = ""};

    assert_non_null(p);
    virtio_init(&p->vdev, &virtio_probe_device_ops, &virtio_probe_ops, &params, &err);
    assert_string_equal(err.msg, "");
    return p;
}

int virtio_bench_setup(void **state)
{
    static struct virtio_bench f;

    virtio_machine_init(&f.m, NULL);
    f.probe = virtio_probe_create(&f.m, NULL);
    f.dev = &f.probe->vdev.pci.dev;
    virtio_driver_init(&f.d, &f.m, f.dev);
    *state = &f;
    return 0;
}

int virtio_bench_teardown(void **state)
{
    struct virtio_bench *f = *state;

    device_destroy(f->dev);
    virtio_machine_fini(&f->m);
    return 0;
}

uint64_t virtio_bench_common(struct virtio_bench *f, unsigned offset, unsigned size)
{
    return virtio_driver_read(&f->d, f->d.common + offset, size);
}

void virtio_bench_set_common(struct virtio_bench *f, unsigned offset, unsigned size, uint64_t value)
{
    virtio_driver_write(&f->d, f->d.common + offset, size, value);
}

struct virtio_buffer virtio_bench_buffer(struct virtio_bench *f)
{
    return (struct virtio_buffer){virtio_machine_alloc(&f->m, 32), 32, true};
}

bool virtio_bench_is_filled(struct virtio_bench *f, uint64_t gpa)
{
    const uint8_t *at = virtio_machine_at(&f->m, gpa, 32);

    return at[0] == PROBE_FILL && at[31] == PROBE_FILL;
}

bool virtio_bench_intx(struct virtio_bench *f)
{
    return f->m.fake->irqs[16 + f->d.slot % 4].level;
}
