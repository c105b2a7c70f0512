/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Interrupts and doorbells: the in-kernel PIC, IOAPIC, local APICs and PIT,
 * lines that devices drive, eventfds that raise interrupts (irqfd) and eventfds
 * that a guest's write signals (ioeventfd).
 */
#include "internal.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/ioctl.h>

static int commit_routes(struct kvm_vm *vm, struct error *err)
{
    struct kvm_irq_routing *table = routing_build(&vm->routing);
    int r;

    if (!table)
        return error_set(err, ENOMEM, "interrupt routing: out of memory");
    r = ioctl(vm->fd, KVM_SET_GSI_ROUTING, table);
    if (r < 0)
        r = error_errno(err, errno, "KVM_SET_GSI_ROUTING");
    free(table);
    return r;
}

int irqchip_create(struct kvm_vm *vm, struct error *err)
{
    /* The dummy speaker answers port 0x61, by which kernels calibrate against the PIT. */
    struct kvm_pit_config pit = {.flags = KVM_PIT_SPEAKER_DUMMY};

    if (ioctl(vm->fd, KVM_CREATE_IRQCHIP, 0) < 0)
        return error_errno(err, errno, "KVM_CREATE_IRQCHIP");
    if (ioctl(vm->fd, KVM_CREATE_PIT2, &pit) < 0)
        return error_errno(err, errno, "KVM_CREATE_PIT2");
    return commit_routes(vm, err);
}

static void drive(struct irq_line *line, bool level)
{
    struct kvm_irq_level arg = {.irq = line->gsi, .level = level};

    /* Fails only for a GSI that was never routed, and lines exist for legacy inputs alone. */
    (void)ioctl(line->vm->fd, KVM_IRQ_LINE, &arg);
}

static void line_set(struct irq *irq, bool level)
{
    struct irq_line *line = container_of(irq, struct irq_line, irq);

    if (atomic_exchange_explicit(&line->level, level, memory_order_relaxed) != level)
        drive(line, level);
}

int kvm_vm_irq_line(struct kvm_vm *vm, unsigned gsi, struct irq **ret_irq, struct error *err)
{
    static const struct irq_ops ops = {.set = line_set};
    struct irq_line *line;

    if (gsi >= ROUTING_LEGACY_GSIS)
        return error_set(err, EINVAL, "interrupt %u: the board has inputs 0 to %u", gsi,
                         ROUTING_LEGACY_GSIS - 1);
    if (vm->lines[gsi])
        return error_set(err, EBUSY, "interrupt %u has an owner already", gsi);
    line = malloc(sizeof(*line));
    if (!line)
        return error_set(err, ENOMEM, "interrupt %u: out of memory", gsi);

    *line = (struct irq_line){.irq.ops = &ops, .vm = vm, .gsi = gsi};
    vm->lines[gsi] = line;
    *ret_irq = &line->irq;
    return 0;
}

static const uint32_t chip_ids[KVM_NR_IRQCHIPS] = {
    [CHIP_PIC1] = KVM_IRQCHIP_PIC_SLAVE,
    [CHIP_PIC0] = KVM_IRQCHIP_PIC_MASTER,
    [CHIP_IOAPIC] = KVM_IRQCHIP_IOAPIC,
};

int irqchip_get(struct kvm_vm *vm, struct chips_state *ret_chips, struct error *err)
{
    *ret_chips = (struct chips_state){0};
    for (unsigned i = 0; i < KVM_NR_IRQCHIPS; i++) {
        ret_chips->chips[i].chip_id = chip_ids[i];
        if (ioctl(vm->fd, KVM_GET_IRQCHIP, &ret_chips->chips[i]) < 0)
            return error_errno(err, errno, "KVM_GET_IRQCHIP of chip %u", chip_ids[i]);
    }
    if (ioctl(vm->fd, KVM_GET_PIT2, &ret_chips->pit) < 0)
        return error_errno(err, errno, "KVM_GET_PIT2");
    for (unsigned gsi = 0; gsi < ROUTING_LEGACY_GSIS; gsi++)
        if (vm->lines[gsi] && atomic_load(&vm->lines[gsi]->level))
            ret_chips->lines |= UINT32_C(1) << gsi;
    return 0;
}

int irqchip_set(struct kvm_vm *vm, const struct chips_state *chips, struct error *err)
{
    struct kvm_pit_state2 pit = chips->pit;

    for (unsigned i = 0; i < KVM_NR_IRQCHIPS; i++) {
        struct kvm_irqchip chip = chips->chips[i];

        chip.chip_id = chip_ids[i];
        if (ioctl(vm->fd, KVM_SET_IRQCHIP, &chip) < 0)
            return error_errno(err, errno, "KVM_SET_IRQCHIP of chip %u", chip_ids[i]);
    }
    /* KVM begins every count anew, whatever the times of loading say. */
    if (ioctl(vm->fd, KVM_SET_PIT2, &pit) < 0)
        return error_errno(err, errno, "KVM_SET_PIT2");
    return 0;
}

void irqchip_preset(struct kvm_vm *vm, uint32_t lines)
{
    for (unsigned gsi = 0; gsi < ROUTING_LEGACY_GSIS; gsi++)
        if (vm->lines[gsi])
            line_set(&vm->lines[gsi]->irq, lines >> gsi & 1);
}

void irqchip_redrive(struct kvm_vm *vm)
{
    for (unsigned gsi = 0; gsi < ROUTING_LEGACY_GSIS; gsi++)
        if (vm->lines[gsi] && atomic_load(&vm->lines[gsi]->level))
            drive(vm->lines[gsi], true);
}

void irqchip_fini(struct kvm_vm *vm)
{
    for (unsigned gsi = 0; gsi < ROUTING_LEGACY_GSIS; gsi++)
        free(vm->lines[gsi]);
    routing_fini(&vm->routing);
}

int kvm_vm_irqfd(struct kvm_vm *vm, unsigned gsi, int fd, int resample_fd, bool attach,
                 struct error *err)
{
    struct kvm_irqfd arg = {
        .fd = (uint32_t)fd,
        .gsi = gsi,
        .flags = attach ? 0 : KVM_IRQFD_FLAG_DEASSIGN,
    };

    if (attach && resample_fd >= 0) {
        arg.flags |= KVM_IRQFD_FLAG_RESAMPLE;
        arg.resamplefd = (uint32_t)resample_fd;
    }
    if (ioctl(vm->fd, KVM_IRQFD, &arg) < 0)
        return error_errno(err, errno, "eventfd for interrupt %u", gsi);
    return 0;
}

int kvm_vm_doorbell(struct kvm_vm *vm, const struct kvm_doorbell *bell, bool attach,
                    struct error *err)
{
    struct kvm_ioeventfd arg = {
        .addr = bell->addr,
        .len = bell->size,
        .fd = bell->fd,
        .flags = attach ? 0 : KVM_IOEVENTFD_FLAG_DEASSIGN,
    };

    if (bell->bus == BUS_PIO)
        arg.flags |= KVM_IOEVENTFD_FLAG_PIO;
    if (bell->match) {
        arg.flags |= KVM_IOEVENTFD_FLAG_DATAMATCH;
        arg.datamatch = bell->value;
    }
    if (ioctl(vm->fd, KVM_IOEVENTFD, &arg) < 0)
        return error_errno(err, errno, "doorbell at %s 0x%llx",
                           bell->bus == BUS_PIO ? "port" : "address",
                           (unsigned long long)bell->addr);
    return 0;
}

int kvm_vm_msi_route_add(struct kvm_vm *vm, unsigned *ret_gsi, struct error *err)
{
    int r;

    pthread_mutex_lock(&vm->route_lock);
    r = routing_take(&vm->routing, ret_gsi);
    pthread_mutex_unlock(&vm->route_lock);
    if (r == -ENOSPC)
        return error_set(err, ENOSPC, "all %u message-signalled interrupts are taken",
                         ROUTING_MAX_GSIS - ROUTING_LEGACY_GSIS);
    return r < 0 ? error_set(err, -r, "interrupt routing: out of memory") : 0;
}

int kvm_vm_msi_route_set(struct kvm_vm *vm, unsigned gsi, uint64_t address, uint32_t data,
                         struct error *err)
{
    struct routing_msi *msi;
    int r = 0;

    pthread_mutex_lock(&vm->route_lock);
    msi = routing_find(&vm->routing, gsi);
    if (!msi) {
        r = error_set(err, EINVAL, "interrupt %u is no message-signalled one", gsi);
    } else if (!msi->routed || msi->address != address || msi->data != data) {
        struct routing_msi before = *msi;

        *msi =
            (struct routing_msi){.taken = true, .routed = true, .address = address, .data = data};
        r = commit_routes(vm, err);
        if (r < 0)
            *msi = before;
    }
    pthread_mutex_unlock(&vm->route_lock);
    return r;
}

void kvm_vm_msi_route_remove(struct kvm_vm *vm, unsigned gsi)
{
    struct routing_msi *msi;
    struct error ignored;

    pthread_mutex_lock(&vm->route_lock);
    msi = routing_find(&vm->routing, gsi);
    if (msi) {
        bool routed = msi->routed;

        *msi = (struct routing_msi){0};
        /* When this fails a route stays that nobody raises; the next change sweeps it out. */
        if (routed)
            (void)commit_routes(vm, &ignored);
    }
    pthread_mutex_unlock(&vm->route_lock);
}
