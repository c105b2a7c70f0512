/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pci_host: the host bridge, with bus 0 behind it. Finds the function that a
 * configuration access is for, by the ports CF8/CFC or by the memory window (ECAM),
 * and wires the functions' INTx pins to the board's four lines.
 *
 * The one thing to know: both ways in end in config_read() and config_write(), which
 * split what crosses a dword, so that functions see single dwords only. What meets no
 * function reads as ones and is dropped when written, as after a master abort.
 */
#include <linux/pci_regs.h>

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "pci_internal.h"

#define CONFIG_ADDRESS 0xcf8u
#define CONFIG_DATA 0xcfcu
#define ADDRESS_ENABLE UINT32_C(0x80000000)
#define ADDRESS_BUS UINT32_C(0x00ff0000)
#define ADDRESS_BITS UINT32_C(0x80fffffc) /* the others read as zero */
#define ECAM_BYTES (UINT64_C(1) << 20)    /* one bus */
#define PINS 4u

/* Red Hat's identifiers for a generic host bridge: no system has a driver or a quirk for it. */
static const struct pci_id bridge_id = {
    .vendor = 0x1b36,
    .device = 0x0008,
    .class_code = 0x060000,
};

enum region { REGION_ECAM, REGION_ADDRESS, REGION_DATA };

struct pci_host {
    struct pci_device bridge; /* slot 0 */
    struct pci_host_params params;
    uint32_t address; /* CF8 */
    struct pci_device *slots[PCI_SLOTS];

    pthread_mutex_t intx_lock; /* innermost: guards the lines and who raises them */
    struct irq *lines[PINS];
    uint32_t raised[PINS]; /* bit n: slot n does */
};
static_assert(offsetof(struct pci_host, bridge.dev) == 0, "state offsets count from the device");

static struct pci_host *self(const struct device *dev)
{
    return container_of(dev, struct pci_host, bridge.dev);
}

static unsigned line_of(unsigned slot)
{
    return slot % PINS; /* every function's pin is INTA */
}

static bool inside(uint64_t base, uint64_t size, uint64_t window, uint64_t window_size)
{
    return base >= window && size <= window_size && base - window <= window_size - size;
}

bool pci_host_decodes(const struct device *host, uint64_t base, uint64_t size)
{
    const struct pci_host_params *p = &self(host)->params;

    return inside(base, size, p->mmio32_base, p->mmio32_size) ||
           inside(base, size, p->mmio64_base, p->mmio64_size);
}

void pci_host_drive_intx(struct device *host, unsigned slot, bool level)
{
    struct pci_host *h = self(host);
    unsigned line = line_of(slot);

    pthread_mutex_lock(&h->intx_lock);
    bool before = h->raised[line];
    if (level)
        h->raised[line] |= UINT32_C(1) << slot;
    else
        h->raised[line] &= ~(UINT32_C(1) << slot);
    if (before != (h->raised[line] != 0))
        irq_set(h->lines[line], !before);
    pthread_mutex_unlock(&h->intx_lock);
}

/* The function that answers at this place of the bus, locked; NULL when none does. */
static struct pci_device *take_function(struct pci_host *h, unsigned at)
{
    bool first = (at >> 12 & 7) == 0;
    struct pci_device *pci = first ? h->slots[at >> 15] : NULL;

    if (pci && pci != &h->bridge) /* that one is locked by who called us */
        pthread_mutex_lock(&pci->dev.lock);
    return pci;
}

static void release_function(struct pci_host *h, struct pci_device *pci)
{
    if (pci && pci != &h->bridge)
        pthread_mutex_unlock(&pci->dev.lock);
}

/* How much of an access at a place goes in one piece. */
static unsigned piece(unsigned at, unsigned size)
{
    if ((at & 3) + size <= 4)
        return size;
    return at & 3 ? 1 : 4;
}

/* at: as ECAM has it, slot << 15 | function << 12 | register. */
static uint64_t config_read(struct pci_host *h, unsigned at, unsigned size)
{
    uint64_t value = 0;

    assert(size <= sizeof(value));
    for (unsigned done = 0, step; done < size; done += step) {
        unsigned place = at + done;
        struct pci_device *pci = take_function(h, place);

        step = piece(place, size - done);
        uint32_t part = pci ? pci_config_read(pci, place & 0xfff, step) : UINT32_MAX;
        release_function(h, pci);
        value |= (uint64_t)(part & (UINT32_MAX >> (32 - 8 * step))) << (8 * done);
    }
    return value;
}

static void config_write(struct pci_host *h, unsigned at, unsigned size, uint64_t value)
{
    for (unsigned done = 0, step; done < size; done += step) {
        unsigned place = at + done;
        struct pci_device *pci = take_function(h, place);

        step = piece(place, size - done);
        if (pci)
            pci_config_write(pci, place & 0xfff, step, (uint32_t)(value >> (8 * done)));
        release_function(h, pci);
    }
}

/* Where CFC leads to, by what is in CF8. */
static bool data_leads_to(const struct pci_host *h, uint64_t offset, unsigned *ret_at)
{
    if (!(h->address & ADDRESS_ENABLE) || h->address & ADDRESS_BUS)
        return false;
    *ret_at = (h->address & 0xff00) << 4 | (h->address & 0xfc) | (unsigned)offset;
    return true;
}

static uint64_t pci_host_read(struct device *dev, unsigned region, uint64_t offset, unsigned size)
{
    struct pci_host *h = self(dev);
    unsigned at;

    switch (region) {
    case REGION_ECAM: return config_read(h, (unsigned)offset, size);
    case REGION_ADDRESS: return size == 4 ? h->address : UINT64_MAX;
    default: return data_leads_to(h, offset, &at) ? config_read(h, at, size) : UINT64_MAX;
    }
}

static void pci_host_write(struct device *dev, unsigned region, uint64_t offset, unsigned size,
                           uint64_t value)
{
    struct pci_host *h = self(dev);
    unsigned at;

    switch (region) {
    case REGION_ECAM: config_write(h, (unsigned)offset, size, value); break;
    case REGION_ADDRESS:
        /* Narrower writes are not for us: CF9 is another chip's on many boards. */
        if (size == 4)
            h->address = (uint32_t)value & ADDRESS_BITS;
        break;
    default:
        if (data_leads_to(h, offset, &at))
            config_write(h, at, size, value);
        break;
    }
}

static void pci_host_reset(struct device *dev)
{
    struct pci_host *h = self(dev);

    h->address = 0;
    pci_device_reset(&h->bridge);
}

static void pci_host_destroy(struct device *dev)
{
    struct pci_host *h = self(dev);

    h->bridge.platform->ops->unmap(h->bridge.platform, dev);
    pthread_mutex_destroy(&h->intx_lock);
    device_fini(dev);
    free(h);
}

static int pci_host_post_load(void *obj, struct error *err)
{
    struct pci_host *h = obj;

    if (h->address & ~ADDRESS_BITS)
        return error_set(err, EPROTO, "address: 0x%x cannot be", h->address);
    return pci_config_check(&h->bridge, err);
}

static const struct state_field pci_host_fields[] = {
    STATE_ARRAY(struct pci_host, bridge.config),
    STATE(struct pci_host, address),
    STATE_END,
};

static const struct state_desc pci_host_state = {
    .name = "pci-host",
    .version = 1,
    .fields = pci_host_fields,
    .post_load = pci_host_post_load,
};

static const struct device_ops pci_host_ops = {
    .type = "pci-host",
    .read = pci_host_read,
    .write = pci_host_write,
    .reset = pci_host_reset,
    .destroy = pci_host_destroy,
    .state = &pci_host_state,
};

int pci_host_create(struct platform *platform, const struct pci_host_params *params,
                    struct device **ret_dev, struct error *err)
{
    static const struct pci_ops plain = {0};
    const struct platform_ops *ops = platform->ops;
    struct pci_host *h = calloc(1, sizeof(*h));
    struct device *dev = &h->bridge.dev;
    int r;

    if (!h)
        return error_set(err, ENOMEM, "pci: out of memory");
    device_init(dev, &pci_host_ops, "pci");
    pthread_mutex_init(&h->intx_lock, NULL);
    h->params = *params;
    pci_device_init(&h->bridge, platform, &plain, &bridge_id);
    h->bridge.config[PCI_INTERRUPT_PIN] = 0;
    pci_device_settle(&h->bridge);
    h->slots[0] = &h->bridge;

    r = ops->map(platform, BUS_MMIO, params->ecam_base, ECAM_BYTES, dev, REGION_ECAM, err);
    if (r == 0)
        r = ops->map(platform, BUS_PIO, CONFIG_ADDRESS, 4, dev, REGION_ADDRESS, err);
    if (r == 0)
        r = ops->map(platform, BUS_PIO, CONFIG_DATA, 4, dev, REGION_DATA, err);
    for (unsigned i = 0; i < PINS && r == 0; i++)
        r = ops->irq(platform, params->intx_gsi[i], &h->lines[i], err);
    if (r < 0)
        goto fail;

    *ret_dev = dev;
    return 0;

fail:
    pci_host_destroy(dev);
    return r;
}

static int find_slot(const struct pci_host *h, int wanted, struct error *err)
{
    int slot = wanted < 0 ? 1 : wanted;

    if (slot >= (int)PCI_SLOTS)
        return error_set(err, EINVAL, "PCI slot %d: there are 1 to %d", slot, PCI_SLOTS - 1);
    if (wanted >= 0 && h->slots[slot])
        return error_set(err, EBUSY, "PCI slot %d is taken by %s", slot, h->slots[slot]->dev.id);
    while (slot < (int)PCI_SLOTS && h->slots[slot])
        slot++;
    if (slot == (int)PCI_SLOTS)
        return error_set(err, ENOSPC, "all %d PCI slots are taken", PCI_SLOTS - 1);
    return slot;
}

int pci_host_plug(struct device *host, struct pci_device *pci, int slot, struct error *err)
{
    struct pci_host *h = self(host);
    int r = find_slot(h, slot, err);

    if (r < 0)
        return error_prefix(err, "%s", pci->dev.id);
    pci->slot = (uint8_t)r;
    r = pci_device_assign(pci, &h->params, err);
    if (r < 0)
        return r;
    pci->config[PCI_INTERRUPT_LINE] = (uint8_t)h->params.intx_gsi[line_of(pci->slot)];
    pci_device_settle(pci);
    pci->host = host;
    h->slots[pci->slot] = pci;
    return 0;
}

void pci_host_unplug(struct pci_device *pci)
{
    if (!pci->host)
        return;
    pci_device_unmap(pci);
    pci_host_drive_intx(pci->host, pci->slot, false);
    self(pci->host)->slots[pci->slot] = NULL;
    pci->host = NULL;
}
