/* SPDX-License-Identifier: Apache-2.0 */
/*
 * debug-exit: an I/O port through which a test guest ends the VM.
 *
 * Ending is a request to the machine: the port itself never exits.
 */
#include "vmrun/debug_exit.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

struct debug_exit {
    struct device dev;
    struct platform *platform;
    uint8_t last; /* value written */
};
static_assert(offsetof(struct debug_exit, dev) == 0, "state offsets count from the device");

static struct debug_exit *self(struct device *dev)
{
    return container_of(dev, struct debug_exit, dev);
}

static uint64_t debug_exit_read(struct device *dev, unsigned region, uint64_t offset, unsigned size)
{
    (void)region, (void)offset, (void)size;
    return self(dev)->last;
}

static void debug_exit_write(struct device *dev, unsigned region, uint64_t offset, unsigned size,
                             uint64_t value)
{
    struct debug_exit *d = self(dev);

    (void)region, (void)offset, (void)size;
    d->last = (uint8_t)value;
    d->platform->ops->request(d->platform, GUEST_EXIT, (d->last << 1 | 1) & 0xff);
}

static void debug_exit_reset(struct device *dev)
{
    self(dev)->last = 0;
}

static void debug_exit_destroy(struct device *dev)
{
    struct debug_exit *d = self(dev);

    d->platform->ops->unmap(d->platform, dev);
    device_fini(dev);
    free(d);
}

static const struct state_field debug_exit_fields[] = {
    STATE(struct debug_exit, last),
    STATE_END,
};

static const struct state_desc debug_exit_state = {
    .name = "debug-exit",
    .version = 1,
    .fields = debug_exit_fields,
};

static const struct device_ops debug_exit_ops = {
    .type = "debug-exit",
    .read = debug_exit_read,
    .write = debug_exit_write,
    .reset = debug_exit_reset,
    .destroy = debug_exit_destroy,
    .state = &debug_exit_state,
};

int debug_exit_create(struct platform *platform, uint16_t port, struct device **ret_dev,
                      struct error *err)
{
    struct debug_exit *d = calloc(1, sizeof(*d));
    int r;

    if (!d)
        return error_set(err, ENOMEM, "debug-exit: out of memory");
    device_init(&d->dev, &debug_exit_ops, "debug-exit");
    d->platform = platform;

    r = platform->ops->map(platform, BUS_PIO, port, DEBUG_EXIT_PORTS, &d->dev, 0, err);
    if (r < 0)
        goto fail;

    *ret_dev = &d->dev;
    return 0;

fail:
    debug_exit_destroy(&d->dev);
    return r;
}
