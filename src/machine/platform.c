/* SPDX-License-Identifier: Apache-2.0 */
/* platform: what a device may ask of its machine, carried out with the buses and KVM. */
#include "internal.h"

static struct machine *self(struct platform *p)
{
    return container_of(p, struct machine, platform);
}

static int platform_map(struct platform *p, enum bus_kind bus, uint64_t base, uint64_t len,
                        struct device *dev, unsigned region, struct error *err)
{
    return bus_map(bus == BUS_PIO ? self(p)->pio : self(p)->mmio, base, len, dev, region, err);
}

static void platform_unmap(struct platform *p, struct device *dev)
{
    bus_unmap(self(p)->pio, dev);
    bus_unmap(self(p)->mmio, dev);
}

static int platform_irq(struct platform *p, unsigned gsi, struct irq **ret_irq, struct error *err)
{
    return kvm_vm_irq_line(self(p)->vm, gsi, ret_irq, err);
}

static void platform_request(struct platform *p, enum guest_request what, int argument)
{
    static const int request[] = {
        [GUEST_POWEROFF] = REQUEST_POWEROFF,
        [GUEST_RESET] = REQUEST_RESET,
        [GUEST_EXIT] = REQUEST_EXIT,
    };

    machine_request(self(p), request[what], argument, NULL);
}

const struct platform_ops machine_platform_ops = {
    .map = platform_map,
    .unmap = platform_unmap,
    .irq = platform_irq,
    .request = platform_request,
};
