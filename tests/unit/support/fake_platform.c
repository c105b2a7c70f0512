/* SPDX-License-Identifier: Apache-2.0 */
/* fake_platform: maps in an array, interrupts as variables and eventfds, requests counted. */
#include "fake_platform.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

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
    unsigned at = 0;
    for (unsigned i = 0; i < fake->map_count; i++) {
        const struct fake_map *m = &fake->maps[i];

        at += m->bus < bus || (m->bus == bus && m->base < base);
        if (m->bus == bus && base < m->base + m->len && m->base < base + len)
            return error_set(err, EEXIST, "%s: 0x%llx is taken by %s", dev->id,
                             (unsigned long long)base, m->dev->id);
    }
    memmove(fake->maps + at + 1, fake->maps + at, (fake->map_count++ - at) * sizeof(fake->maps[0]));
    fake->maps[at] = (struct fake_map){bus, base, len, dev, region};
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

static void fake_platform_unmap_range(struct platform *p, enum bus_kind bus, uint64_t base,
                                      struct device *dev)
{
    struct fake_platform *fake = self(p);
    unsigned at = 0;

    while (at < fake->map_count && (fake->maps[at].bus != bus || fake->maps[at].base != base))
        at++;
    assert_true(at < fake->map_count);
    assert_ptr_equal(fake->maps[at].dev, dev);
    fake->map_count--;
    memmove(fake->maps + at, fake->maps + at + 1, (fake->map_count - at) * sizeof(fake->maps[0]));
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

static int fake_msi_route(struct msi *msi, uint64_t address, uint32_t data)
{
    struct fake_msi *m = container_of(msi, struct fake_msi, msi);

    m->routes++;
    if (m->fake->routes_fail)
        return -ENOSPC;
    m->routed = true;
    m->address = address;
    m->data = data;
    return 0;
}

static void fake_msi_destroy(struct msi *msi)
{
    struct fake_msi *m = container_of(msi, struct fake_msi, msi);

    assert_true(m->taken);
    close(msi->fd);
    m->taken = false;
    m->fake->msi_count--;
}

static int fake_platform_msi(struct platform *p, struct msi **ret_msi, struct error *err)
{
    static const struct msi_ops ops = {.route = fake_msi_route, .destroy = fake_msi_destroy};
    struct fake_platform *fake = self(p);
    unsigned at = 0;

    if (fails_now(fake))
        return error_set(err, ENOMEM, "message: none, as the test wants it");
    while (at < FAKE_MSIS && fake->msis[at].taken)
        at++;
    if (at == FAKE_MSIS)
        return error_set(err, ENOSPC, "message: all %u are taken", FAKE_MSIS);
    fake->msis[at] = (struct fake_msi){
        .msi = {.ops = &ops, .fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)},
        .fake = fake,
        .taken = true,
    };
    assert_true(fake->msis[at].msi.fd >= 0);
    fake->msi_count++;
    *ret_msi = &fake->msis[at].msi;
    return 0;
}

unsigned fake_msi_fires(struct fake_msi *msi)
{
    uint64_t count;

    if (read(msi->msi.fd, &count, sizeof(count)) == (ssize_t)sizeof(count))
        msi->fires += (unsigned)count;
    return msi->fires;
}

struct fake_msi *fake_msi_find(struct fake_platform *fake, uint64_t address, uint32_t data)
{
    for (unsigned i = 0; i < FAKE_MSIS; i++) {
        struct fake_msi *m = &fake->msis[i];

        if (m->taken && m->routed && m->address == address && m->data == data)
            return m;
    }
    return NULL;
}

/* As KVM compares two doorbells; the fd counts only to take one down. */
static bool same_doorbell(const struct doorbell *a, const struct doorbell *b)
{
    return a->bus == b->bus && a->addr == b->addr && a->size == b->size && a->match == b->match &&
           (!a->match || a->value == b->value);
}

static int fake_platform_doorbell(struct platform *p, const struct doorbell *bell, bool attach,
                                  struct error *err)
{
    struct fake_platform *fake = self(p);
    unsigned at = 0;

    if (attach && fails_now(fake))
        return error_set(err, ENOMEM, "doorbell: none, as the test wants it");
    while (at < fake->doorbell_count && !same_doorbell(&fake->doorbells[at], bell))
        at++;
    if (attach) {
        if (at < fake->doorbell_count)
            return error_set(err, EEXIST, "doorbell at 0x%llx: there is one",
                             (unsigned long long)bell->addr);
        assert_true(fake->doorbell_count < FAKE_MAX_DOORBELLS);
        fake->doorbells[fake->doorbell_count++] = *bell;
        return 0;
    }
    if (at == fake->doorbell_count || fake->doorbells[at].fd != bell->fd)
        return error_set(err, ENOENT, "doorbell at 0x%llx: there is none",
                         (unsigned long long)bell->addr);
    fake->doorbells[at] = fake->doorbells[--fake->doorbell_count];
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
                                            .unmap_range = fake_platform_unmap_range,
                                            .irq = fake_platform_irq,
                                            .request = fake_platform_request,
                                            .msi = fake_platform_msi,
                                            .doorbell = fake_platform_doorbell};

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
    return NULL;
}

bool fake_is_mapped(const struct fake_platform *fake, enum bus_kind bus, uint64_t addr,
                    unsigned size)
{
    return find(fake, bus, addr, size) != NULL;
}

static struct fake_map must_find(const struct fake_platform *fake, enum bus_kind bus, uint64_t addr,
                                 unsigned size)
{
    const struct fake_map *m = find(fake, bus, addr, size);

    if (!m)
        fail_msg("no device has 0x%llx, %u bytes", (unsigned long long)addr, size);
    return *m; /* a copy: the device may change the table */
}

/* Whether a doorbell took the write. */
static bool rings(const struct fake_platform *fake, enum bus_kind bus, uint64_t addr, unsigned size,
                  uint64_t value)
{
    const uint64_t one = 1;

    for (unsigned i = 0; i < fake->doorbell_count; i++) {
        const struct doorbell *d = &fake->doorbells[i];

        if (d->bus != bus || d->addr != addr || (d->size && d->size != size) ||
            (d->match && d->value != value))
            continue;
        assert_int_equal(write(d->fd, &one, sizeof(one)), sizeof(one));
        return true;
    }
    return false;
}

uint64_t fake_read(struct fake_platform *fake, enum bus_kind bus, uint64_t addr, unsigned size)
{
    const struct fake_map m = must_find(fake, bus, addr, size);
    uint64_t value;

    pthread_mutex_lock(&m.dev->lock);
    value = m.dev->ops->read(m.dev, m.region, addr - m.base, size);
    pthread_mutex_unlock(&m.dev->lock);
    return value;
}

void fake_write(struct fake_platform *fake, enum bus_kind bus, uint64_t addr, unsigned size,
                uint64_t value)
{
    if (rings(fake, bus, addr, size, value))
        return;

    const struct fake_map m = must_find(fake, bus, addr, size);
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
