/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio_conformance: gives each device under conformance_run() a machine of its own.
 *
 * RAM is one for all of them: a device that was saved, and its copy that was loaded, must find the
 * same rings. The suite knows one device and its platform. What else it needs (bridge, memory,
 * loop) hangs on the device's destroy, which is replaced by one that takes that down as well. The
 * suite's accesses then find the bridge's configuration space, and the BARs once it has switched
 * them on.
 */
#include <linux/virtio_config.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "conformance.h"
#include "virtio_hostile.h"

struct subject {
    const struct virtio_kind *kind;
    struct virtio_machine m;
    struct virtio_driver d;
    const struct device_ops *real;
    struct device_ops ops; /* the real ones, but for destroy */
    struct device *dev;
    struct subject *next;
};

static struct virtio_machine ram; /* lends it */
static struct subject *subjects;  /* by device: the suite names them so */

static struct subject *find(const struct device *dev)
{
    struct subject *s = subjects;

    while (s && s->dev != dev)
        s = s->next;
    assert_non_null(s);
    return s;
}

static void destroy(struct device *dev)
{
    struct subject *s = find(dev), **link = &subjects;

    while (*link != s)
        link = &(*link)->next;
    *link = s->next;
    dev->ops = s->real;
    device_destroy(dev);
    if (s->kind->gone)
        s->kind->gone(s->kind->opaque, &s->m);
    virtio_machine_fini(&s->m);
    free(s);
}

static int create(void *opaque, struct platform *platform, struct device **ret_dev,
                  struct error *err)
{
    struct fake_platform *fake = container_of(platform, struct fake_platform, platform);
    const struct virtio_kind *kind = opaque;
    struct subject *s = calloc(1, sizeof(*s));
    int r;

    assert_non_null(s);
    s->kind = kind;
    platform->memory = ram.memory;
    r = virtio_machine_try(&s->m, fake, err);
    if (r < 0)
        goto fail;
    r = kind->create(kind->opaque, &s->m, &s->dev, err);
    if (r < 0) {
        if (kind->gone)
            kind->gone(kind->opaque, &s->m);
        virtio_machine_fini(&s->m);
        goto fail;
    }
    s->real = s->dev->ops;
    s->ops = *s->real;
    s->ops.destroy = destroy;
    s->dev->ops = &s->ops;
    s->next = subjects;
    subjects = s;
    fake->calls_until_failure = -1; /* create is over */
    virtio_driver_init(&s->d, &s->m, s->dev);
    *ret_dev = s->dev;
    return 0;

fail:
    free(s);
    return r;
}

static void drive(struct subject *s)
{
    struct virtio_driver *d = &s->d;

    virtio_driver_decode(d);
    if (!fake_is_mapped(s->m.fake, BUS_MMIO, d->common, 4))
        return; /* chance has moved the BAR, and chance may bring it back */
    virtio_driver_reset(d);
    (void)virtio_driver_negotiate(d, virtio_driver_offered(d));
    for (unsigned i = 0; i < d->queue_count; i++)
        virtio_driver_setup_queue(d, i, 0);
    virtio_driver_set_status(d, VIRTIO_CONFIG_S_DRIVER_OK);
    for (unsigned i = 0; i < d->queue_count; i++) {
        const struct virtio_buffer buffer = {virtio_machine_alloc(&s->m, 64), 64, i % 2 == 0};

        virtio_driver_add(d, i, &buffer, 1);
        virtio_driver_kick(d, i);
    }
}

/* Now and then a driver comes, or the loop has its turn, among all that chance does. */
static void disturb(void *opaque, struct device *dev, uint32_t random)
{
    const struct virtio_kind *kind = opaque;
    struct subject *s = find(dev);

    switch (random % 8) {
    case 0:
    case 1: virtio_machine_run(&s->m); break;
    case 2:
        if (!container_of(dev, struct virtio_device, pci.dev)->paused)
            drive(s);
        break;
    default:
        if (kind->disturb)
            kind->disturb(kind->opaque, dev, random / 8);
        break;
    }
}

static void finish(void *opaque, struct device *dev)
{
    const struct virtio_kind *kind = opaque;

    virtio_machine_run(&find(dev)->m);
    if (kind->settle)
        kind->settle(kind->opaque, dev);
}

static void settle(void *opaque, struct device *dev)
{
    device_reset(find(dev)->m.host); /* the bridge's state is not the device's */
    finish(opaque, dev);
}

void virtio_conformance_run(const struct virtio_kind *kind)
{
    struct conformance_case c = {.create = create,
                                 .disturb = disturb,
                                 .settle = settle,
                                 .finish = finish,
                                 .opaque = (void *)kind};

    virtio_machine_init(&ram, NULL);
    conformance_run(&c);
    virtio_machine_fini(&ram);
    assert_null(subjects);
}
