/* SPDX-License-Identifier: Apache-2.0 */
/* platform: what a device may ask of its machine, carried out with the buses and KVM. */
#include "internal.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "vmrun/log.h"

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

static void platform_unmap_range(struct platform *p, enum bus_kind bus, uint64_t base,
                                 struct device *dev)
{
    bus_unmap_range(bus == BUS_PIO ? self(p)->pio : self(p)->mmio, base, dev);
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

/* An eventfd that KVM watches, and the GSI that its routing table leads on to a message. */
struct message {
    struct msi msi;
    struct kvm_vm *vm;
    unsigned gsi;
    struct log_limit log; /* the device's lock guards it: it alone routes */
};

static int message_route(struct msi *msi, uint64_t address, uint32_t data)
{
    struct message *m = container_of(msi, struct message, msi);
    struct error err;
    int r = kvm_vm_msi_route_set(m->vm, m->gsi, address, data, &err);

    if (r < 0)
        log_warn_limited(&m->log, "no interrupt for the guest at 0x%llx: %s",
                         (unsigned long long)address, err.msg);
    return r;
}

static void message_destroy(struct msi *msi)
{
    struct message *m = container_of(msi, struct message, msi);
    struct error ignored;

    /* Closing the eventfd would take it off as well, only later. */
    (void)kvm_vm_irqfd(m->vm, m->gsi, msi->fd, -1, false, &ignored);
    kvm_vm_msi_route_remove(m->vm, m->gsi);
    close(msi->fd);
    free(m);
}

static int platform_msi(struct platform *p, struct msi **ret_msi, struct error *err)
{
    static const struct msi_ops ops = {.route = message_route, .destroy = message_destroy};
    struct message *m = calloc(1, sizeof(*m));
    int r;

    if (!m)
        return error_set(err, ENOMEM, "message-signalled interrupt: out of memory");
    *m = (struct message){.msi.ops = &ops, .vm = self(p)->vm};
    m->msi.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (m->msi.fd < 0) {
        r = error_errno(err, errno, "message-signalled interrupt");
        goto fail;
    }
    r = kvm_vm_msi_route_add(m->vm, &m->gsi, err);
    if (r < 0)
        goto fail;
    r = kvm_vm_irqfd(m->vm, m->gsi, m->msi.fd, -1, true, err);
    if (r < 0)
        goto fail;
    *ret_msi = &m->msi;
    return 0;

fail:
    if (m->gsi)
        kvm_vm_msi_route_remove(m->vm, m->gsi);
    if (m->msi.fd >= 0)
        close(m->msi.fd);
    free(m);
    return r;
}

static int platform_doorbell(struct platform *p, const struct doorbell *bell, bool attach,
                             struct error *err)
{
    const struct kvm_doorbell kvm_bell = {
        .bus = bell->bus,
        .addr = bell->addr,
        .size = bell->size,
        .match = bell->match,
        .value = bell->value,
        .fd = bell->fd,
    };

    return kvm_vm_doorbell(self(p)->vm, &kvm_bell, attach, err);
}

const struct platform_ops machine_platform_ops = {
    .map = platform_map,
    .unmap = platform_unmap,
    .unmap_range = platform_unmap_range,
    .irq = platform_irq,
    .request = platform_request,
    .msi = platform_msi,
    .doorbell = platform_doorbell,
};
