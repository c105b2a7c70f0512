/* SPDX-License-Identifier: Apache-2.0 */
#include "vmrun/device.h"

#include <assert.h>
#include <string.h>

void device_init(struct device *dev, const struct device_ops *ops, const char *id)
{
    size_t len = strlen(id);

    assert(len < sizeof(dev->id));
    *dev = (struct device){.ops = ops};
    memcpy(dev->id, id, len + 1);
    pthread_mutex_init(&dev->lock, NULL);
}

void device_fini(struct device *dev)
{
    pthread_mutex_destroy(&dev->lock);
}

static void call_locked(struct device *dev, void (*op)(struct device *dev))
{
    if (!op)
        return;
    pthread_mutex_lock(&dev->lock);
    op(dev);
    pthread_mutex_unlock(&dev->lock);
}

void device_reset(struct device *dev)
{
    call_locked(dev, dev->ops->reset);
}

void device_pause(struct device *dev)
{
    call_locked(dev, dev->ops->pause);
}

void device_resume(struct device *dev)
{
    call_locked(dev, dev->ops->resume);
}

void device_destroy(struct device *dev)
{
    if (dev)
        dev->ops->destroy(dev);
}
