/* SPDX-License-Identifier: Apache-2.0 */
/* fake_function: as small as a PCI function with everything can be. */
#include "fake_function.h"

#include <errno.h>
#include <linux/pci_regs.h>
#include <stdlib.h>
#include <string.h>

struct fake_function *fake_function_of(struct device *dev)
{
    return container_of(dev, struct fake_function, pci.dev);
}

static struct fake_function *of_pci(struct pci_device *pci)
{
    return container_of(pci, struct fake_function, pci);
}

static uint64_t function_read(struct device *dev, unsigned region, uint64_t offset, unsigned size)
{
    struct fake_function *f = fake_function_of(dev);
    uint64_t value = 0;

    if (pci_msix_read(&f->pci, region, offset, size, &value))
        return value;
    if (region == FAKE_BAR_LARGE)
        return offset;
    if (offset + size <= sizeof(f->registers))
        memcpy(&value, f->registers + offset, size);
    return value;
}

static void function_write(struct device *dev, unsigned region, uint64_t offset, unsigned size,
                           uint64_t value)
{
    struct fake_function *f = fake_function_of(dev);

    if (pci_msix_write(&f->pci, region, offset, size, value))
        return;
    if (region == FAKE_BAR_REGISTERS && offset + size <= sizeof(f->registers))
        memcpy(f->registers + offset, &value, size);
}

static void function_reset(struct device *dev)
{
    struct fake_function *f = fake_function_of(dev);

    pci_device_reset(&f->pci);
    memset(f->registers, 0, sizeof(f->registers));
    f->hooked = 0;
}

static void function_pause(struct device *dev)
{
    fake_function_of(dev)->paused = true;
}

static void function_resume(struct device *dev)
{
    fake_function_of(dev)->paused = false;
}

static void function_destroy(struct device *dev)
{
    struct fake_function *f = fake_function_of(dev);
    struct device *host = f->owns_host ? f->pci.host : NULL;

    pci_device_fini(&f->pci);
    device_fini(dev);
    free(f);
    device_destroy(host);
}

static int function_post_load(void *obj, struct error *err)
{
    struct fake_function *f = obj;

    return pci_device_post_load(&f->pci, err);
}

static const struct state_field function_fields[] = {
    PCI_STATE_FIELDS(struct fake_function, pci),
    STATE_ARRAY(struct fake_function, registers),
    STATE(struct fake_function, hooked),
    STATE_END,
};

static const struct state_desc function_state = {
    .name = "function",
    .version = 1,
    .fields = function_fields,
    .post_load = function_post_load,
};

static const struct device_ops function_ops = {
    .type = "function",
    .read = function_read,
    .write = function_write,
    .reset = function_reset,
    .pause = function_pause,
    .resume = function_resume,
    .destroy = function_destroy,
    .state = &function_state,
};

static void function_bar_moved(struct pci_device *pci, unsigned bar, uint64_t base)
{
    struct fake_function *f = of_pci(pci);

    f->moves++;
    f->bar_at[bar] = base;
}

static bool hooks(const struct fake_function *f, unsigned offset)
{
    return (offset & ~3u) == (unsigned)f->capability + FAKE_CAPABILITY_HOOK;
}

static bool function_config_read(struct pci_device *pci, unsigned offset, unsigned size,
                                 uint32_t *ret_value)
{
    struct fake_function *f = of_pci(pci);

    (void)size;
    if (!hooks(f, offset))
        return false;
    *ret_value = ~f->hooked >> (8 * (offset & 3));
    return true;
}

static bool function_config_write(struct pci_device *pci, unsigned offset, unsigned size,
                                  uint32_t value)
{
    struct fake_function *f = of_pci(pci);

    if (!hooks(f, offset) || size != 4)
        return false;
    f->hooked = value;
    return true;
}

static int function_build(struct fake_function *f, struct device *host, int slot, struct error *err)
{
    static const struct pci_bar registers = {.size = 0x1000};
    static const struct pci_bar large = {
        .size = FAKE_BAR_LARGE_SIZE, .is_64 = true, .prefetchable = true};
    static const uint8_t body[FAKE_CAPABILITY_BYTES - 2] = {FAKE_CAPABILITY_BYTES};
    struct pci_device *pci = &f->pci;
    int at;

    pci_device_add_bar(pci, FAKE_BAR_REGISTERS, &registers);
    pci_device_add_bar(pci, FAKE_BAR_LARGE, &large);
    at = pci_device_add_capability(pci, FAKE_CAPABILITY, body, sizeof(body), err);
    if (at < 0)
        return at;
    f->capability = (uint8_t)at;
    memset(pci->writable + at + 4, 0xff, 4);
    at = pci_device_add_msix(pci, FAKE_BAR_MSIX, FAKE_VECTORS, err);
    return at < 0 ? at : pci_host_plug(host, pci, slot, err);
}

int fake_host_create(struct platform *platform, struct device **ret_dev, struct error *err)
{
    static const struct pci_host_params params = {
        .ecam_base = FAKE_ECAM,
        .mmio32_base = FAKE_WINDOW32,
        .mmio32_size = FAKE_WINDOW32_SIZE,
        .mmio64_base = FAKE_WINDOW64,
        .mmio64_size = FAKE_WINDOW64_SIZE,
        .intx_gsi = {FAKE_INTA, FAKE_INTA + 1, FAKE_INTA + 2, FAKE_INTA + 3},
    };

    return pci_host_create(platform, &params, ret_dev, err);
}

int fake_function_create(struct platform *platform, struct device *host, int slot,
                         struct device **ret_dev, struct error *err)
{
    static const struct pci_ops ops = {
        .bar_moved = function_bar_moved,
        .config_read = function_config_read,
        .config_write = function_config_write,
    };
    static const struct pci_id id = {
        .vendor = 0x1234,
        .device = 0x5678,
        .subsystem_vendor = 0x9abc,
        .subsystem = 0xdef0,
        .class_code = 0xff0102,
        .revision = 3,
    };
    struct fake_function *f = calloc(1, sizeof(*f));
    struct device *own = NULL;
    int r = 0;

    if (!f)
        return error_set(err, ENOMEM, "function: out of memory");
    device_init(&f->pci.dev, &function_ops, "function");
    pci_device_init(&f->pci, platform, &ops, &id);
    if (!host) {
        r = fake_host_create(platform, &own, err);
        host = own;
    }
    if (r == 0)
        r = function_build(f, host, slot, err);
    if (r < 0) {
        function_destroy(&f->pci.dev);
        device_destroy(own);
        return r;
    }
    f->owns_host = own != NULL;
    *ret_dev = &f->pci.dev;
    return 0;
}

uint64_t fake_config_read(struct fake_platform *fake, unsigned slot, unsigned offset, unsigned size)
{
    return fake_read(fake, BUS_MMIO, FAKE_ECAM + (slot << 15) + offset, size);
}

void fake_config_write(struct fake_platform *fake, unsigned slot, unsigned offset, unsigned size,
                       uint64_t value)
{
    fake_write(fake, BUS_MMIO, FAKE_ECAM + (slot << 15) + offset, size, value);
}

uint32_t fake_port_read(struct fake_platform *fake, unsigned slot, unsigned offset, unsigned size)
{
    fake_write(fake, BUS_PIO, 0xcf8, 4, 0x80000000 | slot << 11 | (offset & 0xfc));
    return (uint32_t)fake_read(fake, BUS_PIO, 0xcfc + (offset & 3), size);
}

void fake_port_write(struct fake_platform *fake, unsigned slot, unsigned offset, unsigned size,
                     uint32_t value)
{
    fake_write(fake, BUS_PIO, 0xcf8, 4, 0x80000000 | slot << 11 | (offset & 0xfc));
    fake_write(fake, BUS_PIO, 0xcfc + (offset & 3), size, value);
}

uint64_t fake_bar(struct fake_platform *fake, unsigned slot, unsigned bar)
{
    unsigned at = PCI_BASE_ADDRESS_0 + 4 * bar;
    uint64_t value = fake_config_read(fake, slot, at, 4);

    if (value & PCI_BASE_ADDRESS_MEM_TYPE_64)
        value |= fake_config_read(fake, slot, at + 4, 4) << 32;
    return value & ~UINT64_C(0xf);
}

void fake_set_bar(struct fake_platform *fake, unsigned slot, unsigned bar, uint64_t address)
{
    unsigned at = PCI_BASE_ADDRESS_0 + 4 * bar;
    bool is_64 = fake_config_read(fake, slot, at, 4) & PCI_BASE_ADDRESS_MEM_TYPE_64;

    fake_config_write(fake, slot, at, 4, address & UINT32_MAX);
    if (is_64)
        fake_config_write(fake, slot, at + 4, 4, address >> 32);
}

void fake_function_fire(struct device *dev, unsigned vector)
{
    pthread_mutex_lock(&dev->lock);
    pci_msix_fire(&fake_function_of(dev)->pci, vector);
    pthread_mutex_unlock(&dev->lock);
}

void fake_function_intx(struct device *dev, bool level)
{
    pthread_mutex_lock(&dev->lock);
    pci_intx_set(&fake_function_of(dev)->pci, level);
    pthread_mutex_unlock(&dev->lock);
}

int fake_function_create_alone(void *opaque, struct platform *platform, struct device **ret_dev,
                               struct error *err)
{
    (void)opaque;
    return fake_function_create(platform, NULL, -1, ret_dev, err);
}

/* Where a hostile guest would want a BAR: at the edges, over another, nowhere. */
static uint64_t some_address(uint32_t random)
{
    static const uint64_t places[] = {
        FAKE_WINDOW32,
        FAKE_WINDOW32 + 0x1000,
        FAKE_WINDOW32 + FAKE_WINDOW32_SIZE - 0x1000,
        FAKE_WINDOW64,
        FAKE_WINDOW64 + 0x4000,
        FAKE_WINDOW64 + FAKE_WINDOW64_SIZE - 0x1000,
        FAKE_ECAM,
        0,
        UINT64_MAX,
    };

    return places[random % (sizeof(places) / sizeof(places[0]))];
}

void fake_function_disturb(void *opaque, struct device *dev, uint32_t random)
{
    struct fake_function *f = fake_function_of(dev);
    struct fake_platform *fake = container_of(f->pci.platform, struct fake_platform, platform);
    unsigned slot = f->pci.slot, high = random >> 8;

    (void)opaque;
    if (f->paused)
        return;
    switch (random % 7) {
    case 0: fake_function_fire(dev, high % (FAKE_VECTORS + 1)); break;
    case 1: fake_function_intx(dev, high & 1); break;
    case 2: fake_config_write(fake, slot, PCI_COMMAND, 2, high); break;
    case 3: fake_set_bar(fake, slot, high % 3, some_address(high >> 4)); break;
    case 4: fake_config_write(fake, slot, f->pci.msix_at + 2u, 2, high); break;
    case 5: fake_config_write(fake, slot, PCI_COMMAND, 2, PCI_COMMAND_MEMORY); break;
    default: fake_config_write(fake, slot, high & 0xff, 1, high >> 8); break;
    }
}

void fake_function_settle(void *opaque, struct device *dev)
{
    (void)opaque;
    device_reset(fake_function_of(dev)->pci.host); /* it has a state of its own */
}
