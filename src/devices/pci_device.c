/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pci_device: the configuration space of a function, as bytes and a mask of
 * those bits that a guest may change, and what follows from it: where its BARs are
 * mapped, what its INTx line does.
 *
 * The one thing to know: everything derived is brought up to date from the bytes
 * by one function each (map_bars, drive_intx, pci_msix_update), after a guest's
 * write, a reset and a load alike.
 */
#include <linux/pci_regs.h>

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "pci_internal.h"

#define FIRST_CAPABILITY 0x40
#define MIN_BAR_BYTES 4096u

uint32_t pci_config_get(const struct pci_device *pci, unsigned offset, unsigned size)
{
    uint32_t value = 0;

    for (unsigned i = 0; i < size; i++)
        value |= (uint32_t)pci->config[offset + i] << (8 * i);
    return value;
}

void pci_config_set(struct pci_device *pci, unsigned offset, unsigned size, uint32_t value)
{
    for (unsigned i = 0; i < size; i++)
        pci->config[offset + i] = (uint8_t)(value >> (8 * i));
}

static void allow(struct pci_device *pci, unsigned offset, unsigned size, uint32_t mask)
{
    for (unsigned i = 0; i < size; i++)
        pci->writable[offset + i] = (uint8_t)(mask >> (8 * i));
}

void pci_device_init(struct pci_device *pci, struct platform *platform, const struct pci_ops *ops,
                     const struct pci_id *id)
{
    pci->platform = platform;
    pci->pci_ops = ops;
    pci->next_capability = FIRST_CAPABILITY;

    pci_config_set(pci, PCI_VENDOR_ID, 2, id->vendor);
    pci_config_set(pci, PCI_DEVICE_ID, 2, id->device);
    pci_config_set(pci, PCI_CLASS_REVISION, 4, id->class_code << 8 | id->revision);
    pci_config_set(pci, PCI_SUBSYSTEM_VENDOR_ID, 2, id->subsystem_vendor);
    pci_config_set(pci, PCI_SUBSYSTEM_ID, 2, id->subsystem);
    pci_config_set(pci, PCI_INTERRUPT_PIN, 1, 1); /* INTA */

    allow(pci, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_INTX_DISABLE);
    allow(pci, PCI_CACHE_LINE_SIZE, 1, 0xff);
    allow(pci, PCI_INTERRUPT_LINE, 1, 0xff);
}

static unsigned bar_register(unsigned bar)
{
    return PCI_BASE_ADDRESS_0 + 4 * bar;
}

void pci_device_add_bar(struct pci_device *pci, unsigned bar, const struct pci_bar *spec)
{
    assert(bar + spec->is_64 < PCI_BARS);
    assert(spec->size >= MIN_BAR_BYTES && (spec->size & (spec->size - 1)) == 0);
    assert(spec->is_64 || spec->size <= UINT32_C(1) << 31);
    pci->bars[bar] = *spec;

    pci_config_set(pci, bar_register(bar), 4,
                   (spec->is_64 ? PCI_BASE_ADDRESS_MEM_TYPE_64 : 0) |
                       (spec->prefetchable ? PCI_BASE_ADDRESS_MEM_PREFETCH : 0));
    allow(pci, bar_register(bar), 4, (uint32_t) ~(spec->size - 1));
    if (spec->is_64)
        allow(pci, bar_register(bar + 1), 4, (uint32_t)(~(spec->size - 1) >> 32));
}

int pci_device_add_capability(struct pci_device *pci, uint8_t id, const void *body, unsigned len,
                              struct error *err)
{
    unsigned at = pci->next_capability, link = PCI_CAPABILITY_LIST;
    unsigned end = (at + 2 + len + 3) & ~3u;

    /* The last dword stays free: where the next one goes fits into a byte then. */
    if (len >= PCI_CONFIG_BYTES || end >= PCI_CONFIG_BYTES)
        return error_set(err, ENOSPC, "%s: no room for PCI capability 0x%x", pci->dev.id, id);

    while (pci->config[link])
        link = pci->config[link] + 1u; /* its "next" */
    pci->config[link] = (uint8_t)at;
    pci->config[at] = id;
    if (len)
        memcpy(pci->config + at + 2, body, len);
    pci->config[PCI_STATUS] |= PCI_STATUS_CAP_LIST;
    pci->next_capability = (uint8_t)end;
    return (int)at;
}

static uint64_t bar_address(const struct pci_device *pci, unsigned bar)
{
    uint64_t address = pci_config_get(pci, bar_register(bar), 4);

    if (pci->bars[bar].is_64)
        address |= (uint64_t)pci_config_get(pci, bar_register(bar + 1), 4) << 32;
    return address & ~(pci->bars[bar].size - 1);
}

static void set_bar_address(struct pci_device *pci, unsigned bar, uint64_t address)
{
    uint32_t flags = pci->config[bar_register(bar)] & 0xf;

    pci_config_set(pci, bar_register(bar), 4, (uint32_t)address | flags);
    if (pci->bars[bar].is_64)
        pci_config_set(pci, bar_register(bar + 1), 4, (uint32_t)(address >> 32));
}

int pci_device_assign(struct pci_device *pci, const struct pci_host_params *windows,
                      struct error *err)
{
    uint64_t share32 = windows->mmio32_size / PCI_SLOTS, share64 = windows->mmio64_size / PCI_SLOTS;
    uint64_t next32 = windows->mmio32_base + pci->slot * share32, end32 = next32 + share32;
    uint64_t next64 = windows->mmio64_base + pci->slot * share64, end64 = next64 + share64;

    for (unsigned bar = 0; bar < PCI_BARS; bar++) {
        const struct pci_bar *spec = &pci->bars[bar];
        uint64_t *next = spec->is_64 ? &next64 : &next32, end = spec->is_64 ? end64 : end32;

        if (!spec->size)
            continue;
        uint64_t at = (*next + spec->size - 1) & ~(spec->size - 1);
        if (at < *next || at > end || spec->size > end - at)
            return error_set(err, ENOSPC, "%s: no room for PCI BAR %u of 0x%llx bytes", pci->dev.id,
                             bar, (unsigned long long)spec->size);
        set_bar_address(pci, bar, at);
        *next = at + spec->size;
    }
    return 0;
}

void pci_device_settle(struct pci_device *pci)
{
    memcpy(pci->initial, pci->config, sizeof(pci->initial));
}

static bool overlap(uint64_t a, uint64_t a_size, uint64_t b, uint64_t b_size)
{
    return a < b + b_size && b < a + a_size; /* inside the windows, so no sum wraps */
}

/* Where the configuration wants each BAR: 0 for one that is not decoded. */
static void find_bars(struct pci_device *pci, uint64_t want[PCI_BARS])
{
    bool enabled = pci->host && pci->config[PCI_COMMAND] & PCI_COMMAND_MEMORY;

    for (unsigned bar = 0; bar < PCI_BARS; bar++) {
        uint64_t size = pci->bars[bar].size;

        want[bar] = 0;
        if (!enabled || !size || !pci_host_decodes(pci->host, bar_address(pci, bar), size))
            continue;
        want[bar] = bar_address(pci, bar);
        /* Of two at one place the lower one has it, in whichever order they came there. */
        for (unsigned i = 0; i < bar; i++) {
            if (want[bar] && want[i] && overlap(want[bar], size, want[i], pci->bars[i].size)) {
                log_warn_limited(&pci->log, "%s: the guest put BAR %u over BAR %u", pci->dev.id,
                                 bar, i);
                want[bar] = 0;
            }
        }
    }
}

static void unmap_bar(struct pci_device *pci, unsigned bar)
{
    uint64_t base = pci->mapped[bar];

    pci->mapped[bar] = 0;
    if (pci->pci_ops->bar_moved)
        pci->pci_ops->bar_moved(pci, bar, 0);
    pci->platform->ops->unmap_range(pci->platform, BUS_MMIO, base, &pci->dev);
}

static void map_bar(struct pci_device *pci, unsigned bar, uint64_t base)
{
    struct error err;

    if (pci->platform->ops->map(pci->platform, BUS_MMIO, base, pci->bars[bar].size, &pci->dev, bar,
                                &err) < 0) {
        log_warn_limited(&pci->log, "PCI BAR %u is not mapped: %s", bar, err.msg);
        return;
    }
    pci->mapped[bar] = base;
    if (pci->pci_ops->bar_moved)
        pci->pci_ops->bar_moved(pci, bar, base);
}

static void map_bars(struct pci_device *pci)
{
    uint64_t want[PCI_BARS];

    find_bars(pci, want);
    for (unsigned bar = 0; bar < PCI_BARS; bar++)
        if (pci->mapped[bar] && pci->mapped[bar] != want[bar])
            unmap_bar(pci, bar);
    for (unsigned bar = 0; bar < PCI_BARS; bar++)
        if (want[bar] && !pci->mapped[bar])
            map_bar(pci, bar, want[bar]);
}

void pci_device_unmap(struct pci_device *pci)
{
    for (unsigned bar = 0; bar < PCI_BARS; bar++)
        if (pci->mapped[bar])
            unmap_bar(pci, bar);
}

static void drive_intx(struct pci_device *pci)
{
    uint32_t command = pci_config_get(pci, PCI_COMMAND, 2);
    bool gated = command & PCI_COMMAND_INTX_DISABLE || pci_msix_enabled(pci);

    if (pci->intx_level)
        pci->config[PCI_STATUS] |= PCI_STATUS_INTERRUPT;
    else
        pci->config[PCI_STATUS] &= (uint8_t)~PCI_STATUS_INTERRUPT;
    if (pci->host)
        pci_host_drive_intx(pci->host, pci->slot, pci->intx_level && !gated);
}

void pci_intx_set(struct pci_device *pci, bool level)
{
    if (pci->intx_level == level)
        return;
    pci->intx_level = level;
    drive_intx(pci);
}

uint32_t pci_config_read(struct pci_device *pci, unsigned offset, unsigned size)
{
    uint32_t value;

    if (offset >= PCI_CONFIG_BYTES)
        return UINT32_MAX;
    if (pci->pci_ops->config_read && pci->pci_ops->config_read(pci, offset, size, &value))
        return value;
    return pci_config_get(pci, offset, size);
}

static bool touches(unsigned offset, unsigned size, unsigned first, unsigned count)
{
    return offset < first + count && first < offset + size;
}

void pci_config_write(struct pci_device *pci, unsigned offset, unsigned size, uint32_t value)
{
    if (offset >= PCI_CONFIG_BYTES)
        return;
    if (pci->pci_ops->config_write && pci->pci_ops->config_write(pci, offset, size, value))
        return;
    for (unsigned i = 0; i < size; i++) {
        uint8_t mask = pci->writable[offset + i];
        uint8_t *byte = &pci->config[offset + i];

        *byte = (uint8_t)((*byte & ~mask) | ((value >> (8 * i)) & mask));
    }

    bool command = touches(offset, size, PCI_COMMAND, 2);
    bool control = pci->msix_at && touches(offset, size, pci->msix_at + PCI_MSIX_FLAGS, 2u);
    if (command || touches(offset, size, PCI_BASE_ADDRESS_0, 4 * PCI_BARS))
        map_bars(pci);
    if (command || control)
        drive_intx(pci);
    if (control)
        pci_msix_update(pci);
}

int pci_config_check(const struct pci_device *pci, struct error *err)
{
    for (unsigned i = 0; i < PCI_CONFIG_BYTES; i++) {
        uint8_t fixed = (uint8_t)~pci->writable[i];

        if (i == PCI_STATUS)
            fixed &= (uint8_t)~PCI_STATUS_INTERRUPT;
        if ((pci->config[i] ^ pci->initial[i]) & fixed)
            return error_set(err, EPROTO, "configuration byte 0x%x: 0x%x is not this device's", i,
                             pci->config[i]);
    }
    return 0;
}

int pci_device_post_load(struct pci_device *pci, struct error *err)
{
    int r = pci_config_check(pci, err);

    if (r < 0)
        return r;
    r = pci_msix_check(pci, err);
    if (r < 0)
        return r;
    for (unsigned i = 0; i < pci->msix_count; i++)
        pci->msix[i].routed = false;
    map_bars(pci);
    drive_intx(pci);
    pci_msix_update(pci);
    return 0;
}

void pci_device_reset(struct pci_device *pci)
{
    memcpy(pci->config, pci->initial, sizeof(pci->config));
    pci->intx_level = false;
    pci_msix_reset(pci);
    map_bars(pci);
    drive_intx(pci);
}

void pci_device_fini(struct pci_device *pci)
{
    pci_host_unplug(pci);
    pci_msix_fini(pci);
}
