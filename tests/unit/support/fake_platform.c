/* SPDX-License-Identifier: Apache-2.0 */
/* fake_platform: maps in an array, interrupt lines as variables, requests counted. */
#include "fake_platform.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static struct fake_platform *self(struct platform *p)
{
    return container_of(p, struct fake_platform, platform);
}

static bool fails_now(struct fake_platform *fake)
{
    return fake->calls_until_failure >= 0 && fake->calls_until_failure-- == 0;
}

static int fake_platform_map(struct platform *p, enum bus_kind bus, uint64_t base, uint64_t len,
                             struct device *dev, unsigned region, struct error *err)
{
    struct fake_platform *fake = self(p);

    if (fails_now(fake))
        return error_set(err, ENOMEM, "%s: no map, as the test wants it", dev->id);
    assert_true(len > 0);
    assert_true(fake->map_count < FAKE_MAX_MAPS);
    for (unsigned i = 0; i < fake->map_count; i++) {
        const struct fake_map *m = &fake->maps[i];

        if (m->bus == bus && base < m->base + m->len && m->base < base + len)
            return error_set(err, EEXIST, "%s: 0x%llx is taken by %s", dev->id,
                             (unsigned long long)base, m->dev->id);
    }
    fake->maps[fake->map_count++] = (struct fake_map){bus, base, len, dev, region};
    return 0;
}

static void fake_platform_unmap(struct platform *p, struct device *dev)
{
    struct fake_platform *fake = self(p);
    unsigned kept = 0;

    for (unsigned i = 0; i < fake->map_count; i++)
        if (fake->maps[i].dev != dev)
            fake->maps[kept++] = fake->maps[i];
    fake->map_count = kept;
}

static void fake_irq_set(struct irq *irq, bool level)
{
    struct fake_irq *line = container_of(irq, struct fake_irq, irq);

    line->sets++;
    line->rises += level && !line->level;
    line->falls += !level && line->level;
    line->level = level;
}

static int fake_platform_irq(struct platform *p, unsigned gsi, struct irq **ret_irq,
                             struct error *err)
{
    static const struct irq_ops ops = {.set = fake_irq_set};
    struct fake_platform *fake = self(p);

    if (fails_now(fake))
        return error_set(err, EBUSY, "interrupt %u: taken, as the test wants it", gsi);
    if (gsi >= FAKE_GSIS)
        return error_set(err, EINVAL, "interrupt %u: there are %u", gsi, FAKE_GSIS);
    if (fake->irqs[gsi].taken)
        return error_set(err, EBUSY, "interrupt %u is taken", gsi);
    fake->irqs[gsi] = (struct fake_irq){.irq.ops = &ops, .taken = true};
    *ret_irq = &fake->irqs[gsi].irq;
    return 0;
}

static void fake_platform_request(struct platform *p, enum guest_request what, int argument)
{
    struct fake_platform *fake = self(p);

    fake->requests++;
    fake->request = what;
    fake->argument = argument;
}

void fake_platform_init(struct fake_platform *fake)
{
    static const struct platform_ops ops = {.map = fake_platform_map,
                                            .unmap = fake_platform_unmap,
                                            .irq = fake_platform_irq,
                                            .request = fake_platform_request};

    *fake = (struct fake_platform){.platform.ops = &ops, .calls_until_failure = -1};
}

static const struct fake_map *find(const struct fake_platform *fake, enum bus_kind bus,
                                   uint64_t addr, unsigned size)
{
    for (unsigned i = 0; i < fake->map_count; i++) {
        const struct fake_map *m = &fake->maps[i];

        if (m->bus == bus && addr >= m->base && addr + size <= m->base + m->len)
            return m;
    }
    fail_msg("no device has 0x%llx, %u bytes", (unsigned long long)addr, size);
    return NULL;
}

uint64_t fake_read(struct fake_platform *fake, enum bus_kind bus, uint64_t addr, unsigned size)
{
    const struct fake_map m = *find(fake, bus, addr, size);
    uint64_t value;

    pthread_mutex_lock(&m.dev->lock);
    value = m.dev->ops->read(m.dev, m.region, addr - m.base, size);
    pthread_mutex_unlock(&m.dev->lock);
    return value;
}

void fake_write(struct fake_platform *fake, enum bus_kind bus, uint64_t addr, unsigned size,
                uint64_t value)
{
    const struct fake_map m = *find(fake, bus, addr, size);

    pthread_mutex_lock(&m.dev->lock);
    m.dev->ops->write(m.dev, m.region, addr - m.base, size, value);
    pthread_mutex_unlock(&m.dev->lock);
}

uint8_t fake_inb(struct fake_platform *fake, uint16_t port)
{
    return (uint8_t)fake_read(fake, BUS_PIO, port, 1);
}

void fake_outb(struct fake_platform *fake, uint16_t port, uint8_t value)
{
    fake_write(fake, BUS_PIO, port, 1, value);
}
