/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pci_msix: the MSI-X table, its pending bits, and what they mean for KVM.
 *
 * Each vector is an eventfd that KVM turns into an interrupt. It is told where to
 * when the vector becomes able to be delivered, so firing needs no more than a
 * look at two masks and a write. While it is masked, a vector that fires becomes
 * pending here, and is fired for good when the mask goes.
 */
#include <linux/pci_regs.h>

#include <assert.h>
#include <errno.h>

#include "pci_internal.h"

#define PBA_OFFSET 2048u
#define BAR_BYTES 4096u
#define ADDRESS_ALIGN 3u /* bits of the address that must be zero */

static uint32_t control(const struct pci_device *pci)
{
    return pci->msix_at ? pci_config_get(pci, pci->msix_at + PCI_MSIX_FLAGS, 2) : 0;
}

bool pci_msix_enabled(const struct pci_device *pci)
{
    return control(pci) & PCI_MSIX_FLAGS_ENABLE;
}

static bool deliverable(const struct pci_device *pci, const struct pci_msix_vector *v)
{
    return (control(pci) & (PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL)) ==
               PCI_MSIX_FLAGS_ENABLE &&
           !v->masked;
}

/* An interrupt that the platform has no route for is lost: it has said so. */
static void deliver(struct pci_msix_vector *v)
{
    v->pending = false;
    if (v->routed)
        msi_fire(v->msi);
}

/* After anything that may have made it deliverable, or changed where it goes. */
static void update(struct pci_device *pci, struct pci_msix_vector *v)
{
    if (!deliverable(pci, v))
        return;
    if (!v->routed)
        v->routed = v->msi->ops->route(v->msi, v->address, v->data) == 0;
    if (v->pending)
        deliver(v);
}

static void changed(struct pci_device *pci)
{
    if (pci->pci_ops->msix_changed)
        pci->pci_ops->msix_changed(pci);
}

void pci_msix_update(struct pci_device *pci)
{
    for (unsigned i = 0; i < pci->msix_count; i++)
        update(pci, &pci->msix[i]);
    changed(pci);
}

int pci_msix_fd(const struct pci_device *pci, unsigned vector)
{
    const struct pci_msix_vector *v = vector < pci->msix_count ? &pci->msix[vector] : NULL;

    return v && v->routed && deliverable(pci, v) ? v->msi->fd : -1;
}

void pci_msix_fire(struct pci_device *pci, unsigned vector)
{
    if (vector >= pci->msix_count || !pci_msix_enabled(pci))
        return;

    struct pci_msix_vector *v = &pci->msix[vector];
    if (deliverable(pci, v))
        deliver(v);
    else
        v->pending = true;
}

void pci_msix_repeat(struct pci_device *pci, unsigned vector)
{
    if (vector < pci->msix_count && deliverable(pci, &pci->msix[vector]))
        deliver(&pci->msix[vector]);
}

static uint32_t read_dword(const struct pci_device *pci, uint64_t offset)
{
    uint64_t entry = offset / PCI_MSIX_ENTRY_SIZE, pending = 0;

    if (offset >= PBA_OFFSET && offset < PBA_OFFSET + PCI_MSIX_MAX / 8) {
        for (unsigned i = 0; i < pci->msix_count; i++)
            pending |= (uint64_t)pci->msix[i].pending << i;
        return (uint32_t)(pending >> (8 * (offset - PBA_OFFSET)));
    }
    if (entry >= pci->msix_count)
        return 0;

    const struct pci_msix_vector *v = &pci->msix[entry];
    switch (offset % PCI_MSIX_ENTRY_SIZE) {
    case PCI_MSIX_ENTRY_LOWER_ADDR: return (uint32_t)v->address;
    case PCI_MSIX_ENTRY_UPPER_ADDR: return (uint32_t)(v->address >> 32);
    case PCI_MSIX_ENTRY_DATA: return v->data;
    default: return v->masked;
    }
}

bool pci_msix_read(struct pci_device *pci, unsigned bar, uint64_t offset, unsigned size,
                   uint64_t *ret_value)
{
    if (!pci->msix_at || bar != pci->msix_bar)
        return false;
    *ret_value = 0;
    for (unsigned i = 0; i < size; i++) {
        uint64_t at = offset + i;

        *ret_value |= (uint64_t)(uint8_t)(read_dword(pci, at & ~3u) >> (8 * (at & 3))) << (8 * i);
    }
    return true;
}

static void write_dword(struct pci_device *pci, uint64_t offset, uint32_t value)
{
    uint64_t entry = offset / PCI_MSIX_ENTRY_SIZE;

    if (entry >= pci->msix_count)
        return; /* nothing there, or the pending bits, which are the function's */

    struct pci_msix_vector *v = &pci->msix[entry];
    switch (offset % PCI_MSIX_ENTRY_SIZE) {
    case PCI_MSIX_ENTRY_LOWER_ADDR:
        v->address = (v->address & ~UINT64_C(0xffffffff)) | (value & ~ADDRESS_ALIGN);
        v->routed = false;
        break;
    case PCI_MSIX_ENTRY_UPPER_ADDR:
        v->address = (v->address & UINT32_MAX) | (uint64_t)value << 32;
        v->routed = false;
        break;
    case PCI_MSIX_ENTRY_DATA:
        v->data = value;
        v->routed = false;
        break;
    default: v->masked = value & PCI_MSIX_ENTRY_CTRL_MASKBIT; break;
    }
    update(pci, v);
    changed(pci);
}

bool pci_msix_write(struct pci_device *pci, unsigned bar, uint64_t offset, unsigned size,
                    uint64_t value)
{
    if (!pci->msix_at || bar != pci->msix_bar)
        return false;
    /* Whole dwords or pairs of them, on their boundaries; anything else is undefined: dropped. */
    if (size < 4 || offset % size)
        return true;
    for (unsigned i = 0; i < size; i += 4)
        write_dword(pci, offset + i, (uint32_t)(value >> (8 * i)));
    return true;
}

int pci_device_add_msix(struct pci_device *pci, unsigned bar, unsigned vectors, struct error *err)
{
    const uint32_t table = bar, pba = PBA_OFFSET | bar;
    const uint8_t body[PCI_CAP_MSIX_SIZEOF - 2] = {
        (uint8_t)(vectors - 1), 0, (uint8_t)table, 0, 0, 0, (uint8_t)pba, (uint8_t)(pba >> 8), 0, 0,
    };
    int at;

    assert(vectors > 0 && vectors <= PCI_MSIX_MAX);
    at = pci_device_add_capability(pci, PCI_CAP_ID_MSIX, body, sizeof(body), err);
    if (at < 0)
        return at;
    pci_device_add_bar(pci, bar, &(struct pci_bar){.size = BAR_BYTES});
    pci->msix_at = (uint8_t)at;
    pci->msix_bar = (uint8_t)bar;
    pci->writable[at + PCI_MSIX_FLAGS + 1] = (PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL) >> 8;

    while (pci->msix_count < vectors) {
        struct pci_msix_vector *v = &pci->msix[pci->msix_count];
        int r = pci->platform->ops->msi(pci->platform, &v->msi, err);

        if (r < 0)
            return error_prefix(err, "%s", pci->dev.id);
        v->masked = true;
        pci->msix_count++;
    }
    return 0;
}

void pci_msix_reset(struct pci_device *pci)
{
    /* All of them: a load that failed may have left something in those that do not exist. */
    for (unsigned i = 0; i < PCI_MSIX_MAX; i++)
        pci->msix[i] = (struct pci_msix_vector){
            .msi = pci->msix[i].msi,
            .masked = i < pci->msix_count,
        };
    changed(pci);
}

int pci_msix_check(const struct pci_device *pci, struct error *err)
{
    for (unsigned i = 0; i < PCI_MSIX_MAX; i++) {
        const struct pci_msix_vector *v = &pci->msix[i];
        bool there = i < pci->msix_count;

        if (!there && (v->address || v->data || v->masked || v->pending))
            return error_set(err, EPROTO, "MSI-X vector %u: there are %u", i, pci->msix_count);
        if (v->address & ADDRESS_ALIGN)
            return error_set(err, EPROTO, "MSI-X vector %u: its address is odd", i);
        if (v->pending && deliverable(pci, v))
            return error_set(err, EPROTO, "MSI-X vector %u: pending, and nothing masks it", i);
    }
    return 0;
}

void pci_msix_fini(struct pci_device *pci)
{
    while (pci->msix_count) {
        struct msi *msi = pci->msix[--pci->msix_count].msi;

        msi->ops->destroy(msi);
    }
}
