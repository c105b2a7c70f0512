/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio_pci: what a driver sees of a virtio device, VIRTIO 1.2 "Virtio Over PCI Bus", without
 * legacy: one BAR with four structures, a page each; MSI-X in another; doorbells.
 */
#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>
#include <string.h>

#include "virtio_internal.h"

enum { BAR_REGISTERS = 0, BAR_MSIX = 2 }; /* the first is 64-bit and takes 1 as well */

/* The BAR of registers, and how much of each page is there. */
enum {
    COMMON_AT = 0x0000,
    ISR_AT = 0x1000,
    CONFIG_AT = 0x2000,
    NOTIFY_AT = 0x3000,
    PAGE_BYTES = 0x1000,
    REGISTERS_BYTES = 0x4000,
    COMMON_BYTES = 60, /* with queue_notify_data and queue_reset, which read as 0 */
    NOTIFY_STRIDE = 4, /* bytes from a queue's doorbell to the next */
};

#define PCI_VENDOR_VIRTIO 0x1af4
#define PCI_DEVICE_VIRTIO 0x1040 /* and the device type */
#define PCI_CAPABILITY_VENDOR 9

static struct virtio_device *self(struct device *dev)
{
    return container_of(dev, struct virtio_device, pci.dev);
}

/* Doorbells */

static void take_doorbells_down(struct virtio_device *vdev)
{
    for (unsigned i = 0; i < vdev->queue_count; i++) {
        struct virtio_kick *kick = &vdev->kicks[i];
        struct doorbell bell = {.bus = BUS_MMIO, .addr = kick->doorbell_at, .fd = kick->fd};
        struct error err;

        if (kick->doorbell_at &&
            vdev->pci.platform->ops->doorbell(vdev->pci.platform, &bell, false, &err) < 0)
            log_error("%s", err.msg);
        kick->doorbell_at = 0;
    }
}

static void bar_moved(struct pci_device *pci, unsigned bar, uint64_t base)
{
    struct virtio_device *vdev = container_of(pci, struct virtio_device, pci);

    if (bar != BAR_REGISTERS)
        return;
    take_doorbells_down(vdev);
    for (unsigned i = 0; base && i < vdev->queue_count; i++) {
        struct doorbell bell = {.bus = BUS_MMIO,
                                .addr = base + NOTIFY_AT + (uint64_t)i * NOTIFY_STRIDE,
                                .fd = vdev->kicks[i].fd};
        struct error err;

        /* Without it the write comes to virtio_write(): slower, and as good. */
        if (pci->platform->ops->doorbell(pci->platform, &bell, true, &err) < 0)
            log_warn_limited(&vdev->complaints, "%s: %s", pci->dev.id, err.msg);
        else
            vdev->kicks[i].doorbell_at = bell.addr;
    }
}

static void interrupts_moved(struct virtio_device *vdev)
{
    if (vdev->ops->interrupts_moved)
        vdev->ops->interrupts_moved(vdev);
}

static void msix_changed(struct pci_device *pci)
{
    interrupts_moved(container_of(pci, struct virtio_device, pci));
}

/* The common configuration structure */

static void write_status(struct virtio_device *vdev, uint8_t value)
{
    if (value == 0) {
        virtio_reset_by_driver(vdev);
        return;
    }
    /* A driver cannot take a bit back. One that we do not agree to is not set: it reads that. */
    vdev->status |= value & STATUS_DRIVER;
    if (value & VIRTIO_CONFIG_S_FEATURES_OK && virtio_features_are_good(vdev))
        vdev->status |= VIRTIO_CONFIG_S_FEATURES_OK;
    if (value & VIRTIO_CONFIG_S_DRIVER_OK && vdev->status & VIRTIO_CONFIG_S_FEATURES_OK &&
        !(vdev->status & VIRTIO_CONFIG_S_DRIVER_OK)) {
        vdev->status |= VIRTIO_CONFIG_S_DRIVER_OK;
        virtio_start(vdev);
    }
}

/* The half of 64 feature bits that a select register shows. */
static uint32_t half(uint64_t features, uint32_t select)
{
    return select < 2 ? (uint32_t)(features >> 32 * select) : 0;
}

static void set_half(uint64_t *word, unsigned which, uint64_t value)
{
    *word = which ? (*word & UINT32_MAX) | value << 32 : (*word & ~(uint64_t)UINT32_MAX) | value;
}

static uint16_t accepted_vector(const struct virtio_device *vdev, uint64_t vector)
{
    return vector < vdev->pci.msix_count ? (uint16_t)vector : VIRTIO_NO_VECTOR;
}

static void write_queue(struct virtio_device *vdev, unsigned offset, uint64_t value)
{
    struct virtqueue *vq;

    if (vdev->queue_select >= vdev->queue_count)
        return;
    vq = &vdev->queues[vdev->queue_select];
    if (offset == VIRTIO_PCI_COMMON_Q_MSIX) {
        vdev->queue_vector[vdev->queue_select] = accepted_vector(vdev, value);
        interrupts_moved(vdev);
    }
    if (vq->enabled)
        return; /* the rest stays as it is until reset */
    switch (offset) {
    case VIRTIO_PCI_COMMON_Q_SIZE: vq->size = (uint16_t)value; break;
    case VIRTIO_PCI_COMMON_Q_DESCLO: set_half(&vq->desc, 0, value); break;
    case VIRTIO_PCI_COMMON_Q_DESCHI: set_half(&vq->desc, 1, value); break;
    case VIRTIO_PCI_COMMON_Q_AVAILLO: set_half(&vq->avail, 0, value); break;
    case VIRTIO_PCI_COMMON_Q_AVAILHI: set_half(&vq->avail, 1, value); break;
    case VIRTIO_PCI_COMMON_Q_USEDLO: set_half(&vq->used, 0, value); break;
    case VIRTIO_PCI_COMMON_Q_USEDHI: set_half(&vq->used, 1, value); break;
    case VIRTIO_PCI_COMMON_Q_ENABLE:
        if (value == 1)
            virtio_enable_queue(vdev, vq);
        break;
    default: break;
    }
}

/* A field is written whole or not at all: the width that each has. */
static unsigned common_width(unsigned offset)
{
    switch (offset) {
    case VIRTIO_PCI_COMMON_STATUS: return 1;
    case VIRTIO_PCI_COMMON_MSIX:
    case VIRTIO_PCI_COMMON_Q_SELECT:
    case VIRTIO_PCI_COMMON_Q_SIZE:
    case VIRTIO_PCI_COMMON_Q_MSIX:
    case VIRTIO_PCI_COMMON_Q_ENABLE: return 2;
    default: return 4;
    }
}

static void common_write(struct virtio_device *vdev, unsigned offset, unsigned size, uint64_t value)
{
    if (size == 8 && offset % 8 == 0 && offset >= VIRTIO_PCI_COMMON_Q_DESCLO) {
        common_write(vdev, offset, 4, value & UINT32_MAX);
        common_write(vdev, offset + 4, 4, value >> 32);
        return;
    }
    if (size != common_width(offset))
        return;
    switch (offset) {
    case VIRTIO_PCI_COMMON_DFSELECT: vdev->device_feature_select = (uint32_t)value; break;
    case VIRTIO_PCI_COMMON_GFSELECT: vdev->driver_feature_select = (uint32_t)value; break;
    case VIRTIO_PCI_COMMON_GF:
        if (vdev->driver_feature_select < 2 && !(vdev->status & VIRTIO_CONFIG_S_FEATURES_OK))
            set_half(&vdev->negotiated, vdev->driver_feature_select, value & UINT32_MAX);
        break;
    case VIRTIO_PCI_COMMON_MSIX: vdev->config_vector = accepted_vector(vdev, value); break;
    case VIRTIO_PCI_COMMON_STATUS: write_status(vdev, (uint8_t)value); break;
    case VIRTIO_PCI_COMMON_Q_SELECT: vdev->queue_select = (uint16_t)value; break;
    default: write_queue(vdev, offset, value); break;
    }
}

/* Reading has no side effects: of a picture of the whole, any part of any width. */
static uint64_t common_read(struct virtio_device *vdev, unsigned offset, unsigned size)
{
    struct virtio_pci_common_cfg cfg = {
        .device_feature_select = vdev->device_feature_select,
        .device_feature = half(vdev->offered, vdev->device_feature_select),
        .guest_feature_select = vdev->driver_feature_select,
        .guest_feature = half(vdev->negotiated, vdev->driver_feature_select),
        .msix_config = vdev->config_vector,
        .num_queues = (uint16_t)vdev->queue_count,
        .device_status = vdev->status,
        .config_generation = vdev->config_generation,
        .queue_select = vdev->queue_select,
        .queue_msix_vector = VIRTIO_NO_VECTOR,
    };
    uint8_t picture[COMMON_BYTES + 8] = {0};
    uint64_t value = 0;

    if (vdev->queue_select < vdev->queue_count) {
        const struct virtqueue *vq = &vdev->queues[vdev->queue_select];

        cfg.queue_size = vq->size;
        cfg.queue_msix_vector = vdev->queue_vector[vdev->queue_select];
        cfg.queue_enable = vq->enabled;
        cfg.queue_notify_off = vdev->queue_select;
        cfg.queue_desc_lo = half(vq->desc, 0);
        cfg.queue_desc_hi = half(vq->desc, 1);
        cfg.queue_avail_lo = half(vq->avail, 0);
        cfg.queue_avail_hi = half(vq->avail, 1);
        cfg.queue_used_lo = half(vq->used, 0);
        cfg.queue_used_hi = half(vq->used, 1);
    }
    memcpy(picture, &cfg, sizeof(cfg));
    memcpy(&value, picture + offset, size);
    return value;
}

/* The BAR */

static uint64_t isr_read(struct virtio_device *vdev)
{
    uint8_t isr = vdev->isr;

    vdev->isr = 0;
    pci_intx_set(&vdev->pci, false);
    return isr;
}

uint64_t virtio_read(struct device *dev, unsigned region, uint64_t offset, unsigned size)
{
    struct virtio_device *vdev = self(dev);
    uint64_t value = 0, within = offset % PAGE_BYTES;

    if (pci_msix_read(&vdev->pci, region, offset, size, &value) || region != BAR_REGISTERS)
        return value;
    switch (offset - within) {
    case COMMON_AT: return within < COMMON_BYTES ? common_read(vdev, (unsigned)within, size) : 0;
    case ISR_AT: return within == 0 ? isr_read(vdev) : 0;
    case CONFIG_AT:
        return within + size <= vdev->config_size ? vdev->ops->config_read(vdev, within, size) : 0;
    default: return 0;
    }
}

void virtio_write(struct device *dev, unsigned region, uint64_t offset, unsigned size,
                  uint64_t value)
{
    struct virtio_device *vdev = self(dev);
    uint64_t within = offset % PAGE_BYTES;

    if (pci_msix_write(&vdev->pci, region, offset, size, value) || region != BAR_REGISTERS)
        return;
    switch (offset - within) {
    case COMMON_AT:
        if (within < COMMON_BYTES)
            common_write(vdev, (unsigned)within, size, value);
        break;
    case CONFIG_AT:
        if (vdev->ops->config_write && within + size <= vdev->config_size)
            vdev->ops->config_write(vdev, within, size, value);
        break;
    case NOTIFY_AT:
        if (within / NOTIFY_STRIDE < vdev->queue_count)
            virtio_ring(vdev, (unsigned)within / NOTIFY_STRIDE);
        break;
    default: break;
    }
}

/* The window into the BAR that a driver without access to memory uses (firmware) */

enum { WINDOW_BAR = 4, WINDOW_OFFSET = 8, WINDOW_LENGTH = 12, WINDOW_DATA = 16, WINDOW_END = 20 };

/* Where the window looks. False: nowhere that can be. */
static bool window_place(struct virtio_device *vdev, uint32_t *ret_offset, uint32_t *ret_length)
{
    const uint8_t *cap = vdev->pci.config + vdev->pci_cfg_at;
    uint32_t offset, length;

    memcpy(&offset, cap + WINDOW_OFFSET, 4);
    memcpy(&length, cap + WINDOW_LENGTH, 4);
    *ret_offset = offset;
    *ret_length = length;
    return cap[WINDOW_BAR] == BAR_REGISTERS && (length == 1 || length == 2 || length == 4) &&
           offset % length == 0 && offset <= REGISTERS_BYTES - length;
}

static bool is_window(const struct virtio_device *vdev, unsigned offset)
{
    return offset >= vdev->pci_cfg_at + (unsigned)WINDOW_DATA &&
           offset < vdev->pci_cfg_at + (unsigned)WINDOW_END;
}

static bool config_read(struct pci_device *pci, unsigned offset, unsigned size, uint32_t *ret_value)
{
    struct virtio_device *vdev = container_of(pci, struct virtio_device, pci);
    uint32_t at, length;

    (void)size, (void)ret_value;
    if (is_window(vdev, offset) && window_place(vdev, &at, &length)) {
        uint64_t value = virtio_read(&pci->dev, BAR_REGISTERS, at, length);

        memcpy(pci->config + vdev->pci_cfg_at + WINDOW_DATA, &value, length);
    }
    return false; /* the register is memory otherwise */
}

static bool config_write(struct pci_device *pci, unsigned offset, unsigned size, uint32_t value)
{
    struct virtio_device *vdev = container_of(pci, struct virtio_device, pci);
    unsigned data = vdev->pci_cfg_at + (unsigned)WINDOW_DATA;
    uint32_t at, length;

    if (!is_window(vdev, offset))
        return false;
    if (size > data + 4 - offset)
        size = data + 4 - offset;
    memcpy(pci->config + offset, &value, size);
    if (offset == data && window_place(vdev, &at, &length) && size >= length)
        virtio_write(&pci->dev, BAR_REGISTERS, at, length,
                     length == 4 ? value : value & ((1u << 8 * length) - 1));
    return true;
}

/* Building it */

/* A capability says where in the BAR a structure lies. tail: what one kind has at its end. */
static int add_structure(struct virtio_device *vdev, uint8_t type, uint32_t offset, uint32_t length,
                         bool has_tail, uint32_t tail, struct error *err)
{
    struct {
        struct virtio_pci_cap cap;
        uint32_t tail;
    } c = {.tail = tail};
    unsigned bytes = sizeof(c.cap) + (has_tail ? sizeof(c.tail) : 0);

    c.cap.cap_len = (uint8_t)bytes;
    c.cap.cfg_type = type;
    c.cap.bar = BAR_REGISTERS;
    c.cap.offset = offset;
    c.cap.length = length;
    return pci_device_add_capability(&vdev->pci, PCI_CAPABILITY_VENDOR, &c.cap.cap_len, bytes - 2,
                                     err);
}

static int add_structures(struct virtio_device *vdev, struct error *err)
{
    uint8_t *writable;
    int r;

    r = add_structure(vdev, VIRTIO_PCI_CAP_COMMON_CFG, COMMON_AT, COMMON_BYTES, false, 0, err);
    if (r >= 0)
        r = add_structure(vdev, VIRTIO_PCI_CAP_NOTIFY_CFG, NOTIFY_AT,
                          vdev->queue_count * NOTIFY_STRIDE, true, NOTIFY_STRIDE, err);
    if (r >= 0)
        r = add_structure(vdev, VIRTIO_PCI_CAP_ISR_CFG, ISR_AT, 1, false, 0, err);
    if (r >= 0 && vdev->config_size)
        r = add_structure(vdev, VIRTIO_PCI_CAP_DEVICE_CFG, CONFIG_AT, vdev->config_size, false, 0,
                          err);
    if (r >= 0)
        r = add_structure(vdev, VIRTIO_PCI_CAP_PCI_CFG, 0, 0, true, 0, err);
    if (r < 0)
        return r;

    vdev->pci_cfg_at = (uint8_t)r;
    writable = vdev->pci.writable + vdev->pci_cfg_at;
    writable[WINDOW_BAR] = 0xff;
    memset(writable + WINDOW_OFFSET, 0xff, WINDOW_END - WINDOW_OFFSET);
    return 0;
}

int virtio_pci_init(struct virtio_device *vdev, struct platform *platform, struct error *err)
{
    static const struct pci_ops ops = {
        .bar_moved = bar_moved,
        .config_read = config_read,
        .config_write = config_write,
        .msix_changed = msix_changed,
    };
    static const struct pci_bar registers = {.size = REGISTERS_BYTES, .is_64 = true};
    uint16_t device = (uint16_t)(PCI_DEVICE_VIRTIO + vdev->ops->device_id);
    const struct pci_id id = {
        .vendor = PCI_VENDOR_VIRTIO,
        .device = device,
        .subsystem_vendor = PCI_VENDOR_VIRTIO,
        .subsystem = device,
        .class_code = vdev->ops->class_code,
        .revision = 1,
    };
    int r;

    pci_device_init(&vdev->pci, platform, &ops, &id);
    pci_device_add_bar(&vdev->pci, BAR_REGISTERS, &registers);
    r = add_structures(vdev, err);
    if (r < 0)
        return r;
    return pci_device_add_msix(&vdev->pci, BAR_MSIX, vdev->queue_count + 1, err);
}
