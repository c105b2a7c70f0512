/* SPDX-License-Identifier: Apache-2.0 */
#include "vmrun/device.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <time.h>

#include "vmrun/error.h"
#include "vmrun/loop.h"

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

/* A device's thread may be in the kernel with the lock, at an image that does not answer. */
static int lock_until(struct device *dev, uint64_t until_ns, struct error *err)
{
    const struct timespec rest = {.tv_nsec = 50000};

    while (pthread_mutex_trylock(&dev->lock) != 0) {
        if (loop_now_ns() >= until_ns)
            return error_set(err, ETIMEDOUT, "%s: a request that the host does not end", dev->id);
        nanosleep(&rest, NULL);
    }
    return 0;
}

int device_settle(struct device *dev, uint64_t until_ns, struct error *err)
{
    if (!dev->ops->settle)
        return 0;
    int r = lock_until(dev, until_ns, err);
    if (r < 0)
        return r;
    r = dev->ops->settle(dev, until_ns, err);
    pthread_mutex_unlock(&dev->lock);
    return r;
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
