/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmgenid: the VM Generation ID, on a page of its own.
 *
 * The one thing to know: the ID travels with the state, as a machine that moves stays the same
 * one; who restores a snapshot changes it afterwards.
 */
#include "vmrun/vmgenid.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

struct vmgenid {
    struct device dev;
    struct platform *platform;
    struct vmgenid_params params;

    uint8_t guid[VMGENID_BYTES];
};
static_assert(offsetof(struct vmgenid, dev) == 0, "state offsets count from the device");

static struct vmgenid *self(struct device *dev)
{
    return container_of(dev, struct vmgenid, dev);
}

static int renew(struct vmgenid *v, struct error *err)
{
    uint8_t guid[VMGENID_BYTES];

    /* So few bytes come whole, once the host has any. */
    if (getrandom(guid, sizeof(guid), 0) < 0)
        return error_errno(err, errno, "%s: no random numbers", v->dev.id);
    memcpy(v->guid, guid, sizeof(guid));
    return 0;
}

int vmgenid_change(struct device *dev, struct error *err)
{
    struct vmgenid *v = self(dev);
    int r;

    pthread_mutex_lock(&dev->lock);
    r = renew(v, err);
    if (r == 0)
        v->params.changed(v->params.opaque);
    pthread_mutex_unlock(&dev->lock);
    return r;
}

static uint64_t vmgenid_read(struct device *dev, unsigned region, uint64_t offset, unsigned size)
{
    const struct vmgenid *v = self(dev);
    uint64_t value = 0;

    (void)region;
    for (unsigned i = 0; i < size && offset + i < VMGENID_BYTES; i++)
        value |= (uint64_t)v->guid[offset + i] << (8 * i);
    return value;
}

static void vmgenid_write(struct device *dev, unsigned region, uint64_t offset, unsigned size,
                          uint64_t value)
{
    (void)dev, (void)region, (void)offset, (void)size, (void)value; /* it is not the guest's */
}

static void vmgenid_reset(struct device *dev)
{
    (void)dev; /* a guest that restarts is the same one */
}

static void vmgenid_destroy(struct device *dev)
{
    struct vmgenid *v = self(dev);

    v->platform->ops->unmap(v->platform, dev);
    device_fini(dev);
    free(v);
}

static const struct state_field vmgenid_fields[] = {
    STATE_ARRAY(struct vmgenid, guid),
    STATE_END,
};

static const struct state_desc vmgenid_state = {
    .name = "vmgenid",
    .version = 1,
    .fields = vmgenid_fields,
};

static const struct device_ops vmgenid_ops = {
    .type = "vmgenid",
    .read = vmgenid_read,
    .write = vmgenid_write,
    .reset = vmgenid_reset,
    .destroy = vmgenid_destroy,
    .state = &vmgenid_state,
};

int vmgenid_create(struct platform *platform, const struct vmgenid_params *params,
                   struct device **ret_dev, struct error *err)
{
    struct vmgenid *v = calloc(1, sizeof(*v));
    int r;

    if (!v)
        return error_set(err, ENOMEM, "vmgenid: out of memory");
    device_init(&v->dev, &vmgenid_ops, "vmgenid");
    v->platform = platform;
    v->params = *params;
    r = renew(v, err);
    if (r == 0)
        r = platform->ops->map(platform, BUS_MMIO, params->gpa, VMGENID_PAGE, &v->dev, 0, err);
    if (r < 0)
        goto fail;
    *ret_dev = &v->dev;
    return 0;

fail:
    vmgenid_destroy(&v->dev);
    return r;
}
