/* SPDX-License-Identifier: Apache-2.0 */
/*
 * acpi-pm: ACPI's fixed hardware, through which a guest powers off and resets
 * and learns of the power button and of general-purpose events.
 *
 * A block's status and enable registers are one 32-bit word, the control register another:
 * accesses of any width work on bytes of them.
 */
#include "vmrun/acpi_pm.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "vmrun/log.h"

enum region { REGION_EVENT, REGION_CONTROL, REGION_GPE0, REGION_RESET };

/* PM1 status and enable */
enum {
    PM1_TIMER = 1 << 0,
    PM1_BUS_MASTER = 1 << 4, /* status only */
    PM1_GLOBAL = 1 << 5,
    PM1_POWER_BUTTON = 1 << 8,
    PM1_RTC = 1 << 10,
    PM1_WAKE = 1 << 15, /* status only */
};
#define PM1_ENABLE_BITS (PM1_TIMER | PM1_GLOBAL | PM1_POWER_BUTTON | PM1_RTC)
#define PM1_STATUS_BITS (PM1_ENABLE_BITS | PM1_BUS_MASTER | PM1_WAKE)

/* PM1 control; GBL_RLS (bit 2) and SLP_EN read as zero */
enum {
    CONTROL_SCI_EN = 1 << 0,
    CONTROL_BM_RLD = 1 << 1,
    CONTROL_SLP_TYP_SHIFT = 10,
    CONTROL_SLP_TYP = 7 << CONTROL_SLP_TYP_SHIFT,
    CONTROL_SLP_EN = 1 << 13,
};
#define CONTROL_KEPT (CONTROL_BM_RLD | CONTROL_SLP_TYP)

struct acpi_pm {
    struct device dev;
    struct platform *platform;
    struct acpi_pm_params params;
    struct irq *sci;
    bool line, paused;
    struct log_limit limit;

    uint16_t status, enable;
    uint16_t control; /* CONTROL_KEPT */
    uint8_t gpe_status, gpe_enable;
};
static_assert(offsetof(struct acpi_pm, dev) == 0, "state offsets count from the device");

static struct acpi_pm *self(struct device *dev)
{
    return container_of(dev, struct acpi_pm, dev);
}

static bool sci_wanted(const struct acpi_pm *pm)
{
    return (pm->status & pm->enable) != 0 || (pm->gpe_status & pm->gpe_enable) != 0;
}

static void update_sci(struct acpi_pm *pm)
{
    bool level = sci_wanted(pm);

    if (level == pm->line || pm->paused)
        return;
    pm->line = level;
    irq_set(pm->sci, level);
}

/* Which bits of a register of `bits` bits an access at byte `offset` reaches. */
static uint32_t lanes(uint64_t offset, unsigned size)
{
    uint32_t mask = size >= 4 ? UINT32_MAX : (UINT32_C(1) << (8 * size)) - 1;

    return offset < 4 ? mask << (8 * offset) : 0;
}

static uint32_t to_lanes(uint64_t offset, uint64_t value)
{
    return offset < 4 ? (uint32_t)value << (8 * offset) : 0;
}

static uint64_t from_lanes(uint64_t offset, unsigned size, uint32_t word)
{
    return offset < 4 ? (word & lanes(offset, size)) >> (8 * offset) : 0;
}

static void write_event(struct acpi_pm *pm, uint32_t mask, uint32_t value)
{
    uint16_t written = mask >> 16 & PM1_ENABLE_BITS;

    pm->status &= (uint16_t) ~(value & mask); /* a one clears */
    pm->enable = (uint16_t)((pm->enable & ~written) | (value >> 16 & written));
    update_sci(pm);
}

static void write_gpe0(struct acpi_pm *pm, uint32_t mask, uint32_t value)
{
    uint8_t written = (uint8_t)(mask >> 8);

    pm->gpe_status &= (uint8_t) ~(value & mask); /* a one clears */
    pm->gpe_enable = (uint8_t)((pm->gpe_enable & ~written) | (value >> 8 & written));
    update_sci(pm);
}

static void write_control(struct acpi_pm *pm, uint32_t mask, uint32_t value)
{
    uint16_t written = mask & CONTROL_KEPT;
    unsigned type;

    pm->control = (uint16_t)((pm->control & ~written) | (value & written));
    if (!(value & mask & CONTROL_SLP_EN))
        return;
    type = (pm->control & CONTROL_SLP_TYP) >> CONTROL_SLP_TYP_SHIFT;
    if (type == pm->params.s5_type)
        pm->platform->ops->request(pm->platform, GUEST_POWEROFF, 0);
    else
        log_warn_limited(&pm->limit, "%s: the guest asks for sleep type %u, which does not exist",
                         pm->dev.id, type);
}

static uint64_t acpi_pm_read(struct device *dev, unsigned region, uint64_t offset, unsigned size)
{
    struct acpi_pm *pm = self(dev);

    switch (region) {
    case REGION_EVENT: return from_lanes(offset, size, (uint32_t)pm->enable << 16 | pm->status);
    case REGION_CONTROL: return from_lanes(offset, size, pm->control | CONTROL_SCI_EN);
    case REGION_GPE0:
        return from_lanes(offset, size, (uint32_t)pm->gpe_enable << 8 | pm->gpe_status);
    default: return 0;
    }
}

static void acpi_pm_write(struct device *dev, unsigned region, uint64_t offset, unsigned size,
                          uint64_t value)
{
    struct acpi_pm *pm = self(dev);
    uint32_t mask = lanes(offset, size), word = to_lanes(offset, value);

    switch (region) {
    case REGION_EVENT: write_event(pm, mask, word); break;
    case REGION_CONTROL: write_control(pm, mask, word); break;
    case REGION_GPE0: write_gpe0(pm, mask, word); break;
    default:
        if ((uint8_t)value == pm->params.reset_value)
            pm->platform->ops->request(pm->platform, GUEST_RESET, 0);
    }
}

void acpi_pm_press_power_button(struct device *dev)
{
    struct acpi_pm *pm = self(dev);

    pthread_mutex_lock(&dev->lock);
    pm->status |= PM1_POWER_BUTTON;
    update_sci(pm);
    pthread_mutex_unlock(&dev->lock);
}

void acpi_pm_raise_gpe(struct device *dev, unsigned n)
{
    struct acpi_pm *pm = self(dev);

    assert(n < 8);
    pthread_mutex_lock(&dev->lock);
    pm->gpe_status |= (uint8_t)(1u << n);
    update_sci(pm);
    pthread_mutex_unlock(&dev->lock);
}

static void acpi_pm_reset(struct device *dev)
{
    struct acpi_pm *pm = self(dev);

    pm->status = 0;
    pm->enable = 0;
    pm->control = 0;
    pm->gpe_status = 0;
    pm->gpe_enable = 0;
    pm->line = false;
    irq_set(pm->sci, false);
}

static void acpi_pm_pause(struct device *dev)
{
    self(dev)->paused = true;
}

static void acpi_pm_resume(struct device *dev)
{
    struct acpi_pm *pm = self(dev);

    pm->paused = false;
    update_sci(pm);
}

static void acpi_pm_destroy(struct device *dev)
{
    struct acpi_pm *pm = self(dev);

    if (pm->line)
        irq_set(pm->sci, false);
    pm->platform->ops->unmap(pm->platform, dev);
    device_fini(dev);
    free(pm);
}

static int acpi_pm_post_load(void *obj, struct error *err)
{
    struct acpi_pm *pm = obj;

    if (pm->status & ~PM1_STATUS_BITS)
        return error_set(err, EPROTO, "status: 0x%x has unknown bits", pm->status);
    if (pm->enable & ~PM1_ENABLE_BITS)
        return error_set(err, EPROTO, "enable: 0x%x has unknown bits", pm->enable);
    if (pm->control & ~CONTROL_KEPT)
        return error_set(err, EPROTO, "control: 0x%x has unknown bits", pm->control);
    update_sci(pm);
    return 0;
}

static const struct state_field acpi_pm_fields[] = {
    STATE(struct acpi_pm, status),     STATE(struct acpi_pm, enable),
    STATE(struct acpi_pm, control),    STATE(struct acpi_pm, gpe_status),
    STATE(struct acpi_pm, gpe_enable), STATE_END,
};

static const struct state_desc acpi_pm_state = {
    .name = "acpi-pm",
    .version = 1,
    .fields = acpi_pm_fields,
    .post_load = acpi_pm_post_load,
};

static const struct device_ops acpi_pm_ops = {
    .type = "acpi-pm",
    .read = acpi_pm_read,
    .write = acpi_pm_write,
    .reset = acpi_pm_reset,
    .pause = acpi_pm_pause,
    .resume = acpi_pm_resume,
    .destroy = acpi_pm_destroy,
    .state = &acpi_pm_state,
};

int acpi_pm_create(struct platform *platform, const struct acpi_pm_params *params,
                   struct device **ret_dev, struct error *err)
{
    const struct platform_ops *ops = platform->ops;
    struct acpi_pm *pm = calloc(1, sizeof(*pm));
    int r;

    if (!pm)
        return error_set(err, ENOMEM, "acpi-pm: out of memory");
    device_init(&pm->dev, &acpi_pm_ops, "acpi-pm");
    pm->platform = platform;
    pm->params = *params;

    r = ops->irq(platform, params->sci, &pm->sci, err);
    if (r < 0)
        goto fail;
    r = ops->map(platform, BUS_PIO, params->pm1_event, ACPI_PM1_EVENT_PORTS, &pm->dev, REGION_EVENT,
                 err);
    if (r < 0)
        goto fail;
    r = ops->map(platform, BUS_PIO, params->pm1_control, ACPI_PM1_CONTROL_PORTS, &pm->dev,
                 REGION_CONTROL, err);
    if (r < 0)
        goto fail;
    r = ops->map(platform, BUS_PIO, params->gpe0, ACPI_GPE0_PORTS, &pm->dev, REGION_GPE0, err);
    if (r < 0)
        goto fail;
    r = ops->map(platform, BUS_PIO, params->reset_port, 1, &pm->dev, REGION_RESET, err);
    if (r < 0)
        goto fail;

    *ret_dev = &pm->dev;
    return 0;

fail:
    acpi_pm_destroy(&pm->dev);
    return r;
}
