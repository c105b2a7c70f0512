/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz: a hostile guest, and a hostile stream, against the PCI host bridge and two
 * functions behind it.
 *
 * The input is a program: each step names what to do (an access to configuration space
 * or to what is mapped, an interrupt, a reset, a load of the bytes that follow) and its
 * operands. Missing bytes read as zero. After each step what is derived must agree with
 * what it is derived from.
 */
#include <linux/pci_regs.h>
#include <stdlib.h>

#include "device_load.h"
#include "fake_function.h"
#include "vmrun/log.h"

#define FUNCTIONS 2

struct board {
    struct fake_platform fake;
    struct device *host;
    struct device *functions[FUNCTIONS]; /* in slots 1 and 5: they share a line */
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool condition)
{
    if (!condition)
        abort();
}

static void build(struct board *b)
{
    struct error err;

    fake_platform_init(&b->fake);
    must(fake_host_create(&b->fake.platform, &b->host, &err) == 0);
    for (unsigned i = 0; i < FUNCTIONS; i++)
        must(fake_function_create(&b->fake.platform, b->host, 1 + 4 * (int)i, &b->functions[i],
                                  &err) == 0);
}

static bool in_a_window(uint64_t base, uint64_t size)
{
    return (base >= FAKE_WINDOW32 && base + size <= FAKE_WINDOW32 + FAKE_WINDOW32_SIZE) ||
           (base >= FAKE_WINDOW64 && base + size <= FAKE_WINDOW64 + FAKE_WINDOW64_SIZE);
}

static unsigned check_function(const struct pci_device *pci)
{
    uint16_t control = (uint16_t)(pci->config[pci->msix_at + PCI_MSIX_FLAGS] |
                                  pci->config[pci->msix_at + PCI_MSIX_FLAGS + 1] << 8);
    bool on = control & PCI_MSIX_FLAGS_ENABLE && !(control & PCI_MSIX_FLAGS_MASKALL);
    unsigned maps = 0;

    for (unsigned bar = 0; bar < PCI_BARS; bar++) {
        if (!pci->mapped[bar])
            continue;
        must(pci->config[PCI_COMMAND] & PCI_COMMAND_MEMORY);
        must(in_a_window(pci->mapped[bar], pci->bars[bar].size));
        must(pci->mapped[bar] % pci->bars[bar].size == 0);
        maps++;
    }
    for (unsigned i = 0; i < pci->msix_count; i++) {
        const struct pci_msix_vector *v = &pci->msix[i];

        must(!on || v->masked || (v->routed && !v->pending));
        must(v->address % 4 == 0);
    }
    return maps;
}

static void check(struct board *b)
{
    unsigned maps = 3; /* the bridge's */
    bool level = false;

    for (unsigned i = 0; i < FUNCTIONS; i++) {
        const struct pci_device *pci = &fake_function_of(b->functions[i])->pci;

        maps += check_function(pci);
        level |= pci->intx_level && !(pci->config[PCI_COMMAND + 1] & 4) && !pci_msix_enabled(pci);
        for (unsigned bar = 0; bar < PCI_BARS; bar++)
            must(fake_function_of(b->functions[i])->bar_at[bar] == pci->mapped[bar]);
    }
    must(b->fake.map_count == maps);
    must(b->fake.irqs[FAKE_INTA + 1].level == level);
}

/* The state as it is, with some bytes of the device's own memory changed: well-formed and wrong. */
static void load_spoiled(struct device *dev, struct reader *program)
{
    struct pci_device *pci = &fake_function_of(dev)->pci;
    struct writer w = {0};
    struct error err;
    uint8_t at = (uint8_t)get_uint(program, 1);
    uint8_t value = (uint8_t)get_uint(program, 1);
    struct pci_msix_vector *v = &pci->msix[at % PCI_MSIX_MAX];

    switch (get_uint(program, 1) % 4) {
    case 0: pci->config[at] ^= value; break;
    case 1: v->address ^= value; break;
    case 2: v->pending = value & 1; break;
    default: v->masked = value & 1; break;
    }
    must(state_save(dev->ops->state, dev, &w, &err) == 0);
    device_reset(dev);
    struct reader r = {.data = w.data, .len = w.len};
    if (state_load(dev->ops->state, dev, &r, &err) < 0)
        device_reset(dev);
    free(w.data);
}

static void access_mapped(struct board *b, struct reader *program, bool write)
{
    const struct fake_map *m = &b->fake.maps[get_uint(program, 1) % b->fake.map_count];
    unsigned size = 1u << get_uint(program, 1) % 4;
    uint64_t offset = get_uint(program, 3);

    if (size > m->len)
        size = 1;
    uint64_t addr = m->base + offset % (m->len - size + 1);
    if (write)
        fake_write(&b->fake, m->bus, addr, size, get_uint(program, size));
    else
        (void)fake_read(&b->fake, m->bus, addr, size);
}

static void step(struct board *b, struct reader *program)
{
    unsigned what = (unsigned)get_uint(program, 1);
    struct device *dev = b->functions[what >> 7];
    unsigned slot = fake_function_of(dev)->pci.slot;
    unsigned at = (unsigned)get_uint(program, 1);

    switch (what & 15) {
    case 0: device_load_bytes(what & 16 ? b->host : dev, program); break;
    case 1: device_reset(what & 16 ? b->host : dev); break;
    case 2: fake_function_fire(dev, at); break;
    case 3: fake_function_intx(dev, at & 1); break;
    case 4: fake_function_disturb(NULL, dev, (uint32_t)get_uint(program, 4)); break;
    case 5: fake_config_write(&b->fake, slot, at, 4, get_uint(program, 4)); break;
    case 6: fake_port_write(&b->fake, slot, at & 0xfc, 4, (uint32_t)get_uint(program, 4)); break;
    case 7: fake_set_bar(&b->fake, slot, at % 3, get_uint(program, 8)); break;
    case 8: fake_config_write(&b->fake, slot, PCI_COMMAND, 2, at); break;
    case 9: load_spoiled(dev, program); break;
    default: access_mapped(b, program, what & 1); break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct board b;
    struct reader program = {.data = data, .len = size};

    log_set_level(LOG_LEVEL_ERROR);
    build(&b);
    while (!program.failed && program.at < size) {
        step(&b, &program);
        check(&b);
    }
    for (unsigned i = 0; i < FUNCTIONS; i++)
        device_destroy(b.functions[i]);
    device_destroy(b.host);
    must(b.fake.map_count == 0 && b.fake.msi_count == 0);
    return 0;
}
