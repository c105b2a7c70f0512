/* SPDX-License-Identifier: Apache-2.0 */
/*
 * conformance: one suite over every device.
 *
 * Its random numbers are the same in every run, so a failure can be seen again.
 */
#include "conformance.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MAX_FIELDS 64
#define BURSTS 200
#define BURST_ACCESSES 100

/* A device on a machine of its own. */
struct subject {
    struct fake_platform fake;
    struct device *dev;
};

static uint32_t random_next(uint32_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 17;
    *seed ^= *seed << 5;
    return *seed;
}

static void build(const struct conformance_case *c, struct subject *s)
{
    struct error err = {0};

    fake_platform_init(&s->fake);
    s->dev = NULL;
    if (c->create(c->opaque, &s->fake.platform, &s->dev, &err) < 0)
        fail_msg("create: %s", err.msg);
    assert_non_null(s->dev);
}

static void raze(struct subject *s)
{
    device_destroy(s->dev);
    assert_int_equal(s->fake.map_count, 0);
    assert_int_equal(s->fake.msi_count, 0);
    assert_int_equal(s->fake.doorbell_count, 0);
    for (unsigned gsi = 0; gsi < FAKE_GSIS; gsi++)
        assert_false(s->fake.irqs[gsi].level);
}

static struct writer save_as(const struct state_desc *desc, struct device *dev)
{
    struct writer w = {0};
    struct error err = {0};

    if (state_save(desc, dev, &w, &err) < 0)
        fail_msg("save: %s", err.msg);
    return w;
}

static struct writer save(struct device *dev)
{
    return save_as(dev->ops->state, dev);
}

static int load(struct device *dev, const struct writer *w, size_t len)
{
    /* An exact copy, so that a read past the end is seen. */
    uint8_t *copy = malloc(len ? len : 1);
    struct reader r = {.data = copy, .len = len};
    struct error err = {0};
    int rc;

    assert_non_null(copy);
    if (len)
        memcpy(copy, w->data, len);
    rc = state_load(dev->ops->state, dev, &r, &err);
    if (rc < 0) {
        assert_int_equal(rc, -err.code);
        assert_true(strlen(err.msg) > 0);
    }
    free(copy);
    return rc;
}

static void assert_same(const struct writer *a, const struct writer *b)
{
    assert_int_equal(a->len, b->len);
    assert_memory_equal(a->data, b->data, a->len);
}

static unsigned field_count(const struct state_desc *desc)
{
    unsigned count = 0;

    while (desc->fields[count].name)
        count++;
    assert_true(count <= MAX_FIELDS);
    return count;
}

/* An access a guest might make. Returns what was read, or 0. */
static uint64_t access_once(struct subject *s, uint32_t *seed)
{
    const struct fake_map *m = &s->fake.maps[random_next(seed) % s->fake.map_count];
    unsigned size = 1u << random_next(seed) % 4;
    uint64_t value = (uint64_t)random_next(seed) << 32 | random_next(seed);

    if (size > m->len)
        size = 1;
    uint64_t addr = m->base + random_next(seed) % (m->len - size + 1);
    if (random_next(seed) % 2)
        return fake_read(&s->fake, m->bus, addr, size);
    fake_write(&s->fake, m->bus, addr, size, value);
    return 0;
}

/* Accesses, and what the case says happens meanwhile. */
static void play(const struct conformance_case *c, struct subject *s, unsigned accesses,
                 uint32_t *seed)
{
    for (unsigned i = 0; i < accesses; i++) {
        if (c->disturb && random_next(seed) % 4 == 0)
            c->disturb(c->opaque, s->dev, random_next(seed));
        (void)access_once(s, seed);
    }
}

static void each_step_of_create_can_fail(const struct conformance_case *c)
{
    struct subject s;
    struct device *untouched = (struct device *)&s;
    int step = 0, r;

    for (;; step++) {
        struct error err = {0};

        fake_platform_init(&s.fake);
        s.fake.calls_until_failure = step;
        s.dev = untouched;
        r = c->create(c->opaque, &s.fake.platform, &s.dev, &err);
        if (r == 0)
            break;
        assert_true(r == -ENOMEM || r == -EBUSY);
        assert_int_equal(r, -err.code);
        assert_ptr_equal(s.dev, untouched);
        assert_int_equal(s.fake.map_count, 0);
        assert_int_equal(s.fake.msi_count, 0);
    }
    assert_true(step > 0); /* a device that asks for nothing cannot be reached */
    raze(&s);
}

static void once_more_changes_nothing(const struct conformance_case *c)
{
    uint32_t seed = 1;
    struct subject s;

    build(c, &s);
    play(c, &s, BURST_ACCESSES, &seed);

    device_reset(s.dev);
    struct writer once = save(s.dev);
    device_reset(s.dev);
    struct writer twice = save(s.dev);
    assert_same(&once, &twice);
    free(once.data);
    free(twice.data);

    play(c, &s, BURST_ACCESSES, &seed);
    device_pause(s.dev);
    once = save(s.dev);
    device_pause(s.dev);
    twice = save(s.dev);
    assert_same(&once, &twice);
    free(twice.data);

    device_resume(s.dev);
    device_resume(s.dev);
    play(c, &s, BURST_ACCESSES, &seed);
    raze(&s);
    free(once.data);
}

static unsigned messages(struct fake_platform *fake)
{
    unsigned fires = 0;

    for (unsigned i = 0; i < FAKE_MSIS; i++)
        if (fake->msis[i].taken)
            fires += fake_msi_fires(&fake->msis[i]);
    return fires;
}

static void a_paused_device_drives_no_interrupt(const struct conformance_case *c)
{
    uint32_t seed = 2;
    struct subject s;

    build(c, &s);
    for (unsigned i = 0; c->disturb && i < BURSTS; i++) {
        unsigned before[FAKE_GSIS];

        play(c, &s, 20, &seed);
        device_pause(s.dev);
        for (unsigned gsi = 0; gsi < FAKE_GSIS; gsi++)
            before[gsi] = s.fake.irqs[gsi].sets;
        unsigned fires = messages(&s.fake);
        for (unsigned j = 0; j < 10; j++)
            c->disturb(c->opaque, s.dev, random_next(&seed));
        for (unsigned gsi = 0; gsi < FAKE_GSIS; gsi++)
            assert_int_equal(s.fake.irqs[gsi].sets, before[gsi]);
        assert_int_equal(messages(&s.fake), fires);
        device_resume(s.dev);
    }
    raze(&s);
}

/* To the guest the one is as good as the other: the same accesses, the same answers. */
static void assert_alike(const struct conformance_case *c, struct subject *a, struct subject *b,
                         uint32_t *seed)
{
    unsigned requests_a = a->fake.requests, requests_b = b->fake.requests;

    if (c->settle) {
        c->settle(c->opaque, a->dev);
        c->settle(c->opaque, b->dev);
    }
    for (unsigned i = 0; i < 30; i++) {
        uint32_t seed_b = *seed;

        if (c->finish) {
            c->finish(c->opaque, a->dev);
            c->finish(c->opaque, b->dev);
        }
        for (unsigned gsi = 0; gsi < FAKE_GSIS; gsi++)
            assert_int_equal(a->fake.irqs[gsi].level, b->fake.irqs[gsi].level);
        assert_int_equal(access_once(a, seed), access_once(b, &seed_b));
        assert_int_equal(a->fake.requests - requests_a, b->fake.requests - requests_b);
    }
}

static void any_state_survives_a_round_trip(const struct conformance_case *c)
{
    uint32_t seed = 3;
    struct subject source, target;

    build(c, &source);
    for (unsigned i = 0; i < BURSTS; i++) {
        play(c, &source, BURST_ACCESSES, &seed);
        device_pause(source.dev);
        struct writer saved = save(source.dev);

        build(c, &target);
        device_pause(target.dev);
        assert_int_equal(load(target.dev, &saved, saved.len), 0);
        struct writer again = save(target.dev);
        assert_same(&saved, &again);
        device_resume(source.dev);
        device_resume(target.dev);
        assert_alike(c, &source, &target, &seed);

        free(saved.data);
        free(again.data);
        raze(&target);
        if (i % 16 == 0)
            device_reset(source.dev);
    }
    raze(&source);
}

static void a_broken_stream_is_refused(const struct conformance_case *c)
{
    uint32_t seed = 4;
    struct subject s;
    struct state_field fields[MAX_FIELDS + 2];

    build(c, &s);
    const struct state_desc *real = s.dev->ops->state;
    unsigned count = field_count(real);
    struct state_desc forged = {.name = real->name, .version = real->version, .fields = fields};

    play(c, &s, BURST_ACCESSES, &seed);
    struct writer whole = save(s.dev);
    for (size_t len = 0; len < whole.len; len++)
        assert_int_equal(load(s.dev, &whole, len), -EPROTO);
    free(whole.data);

    memcpy(fields, real->fields, (count + 1) * sizeof(fields[0]));
    forged.version++;
    struct writer newer = save_as(&forged, s.dev);
    assert_int_equal(load(s.dev, &newer, newer.len), -ENOTSUP);
    free(newer.data);
    forged.version--;

    fields[count] = fields[0];
    fields[count].name = "no-such-field";
    fields[count + 1] = (struct state_field)STATE_END;
    struct writer unknown = save_as(&forged, s.dev);
    assert_int_equal(load(s.dev, &unknown, unknown.len), -EPROTO);
    free(unknown.data);

    for (unsigned missing = 0; missing < count; missing++) {
        memcpy(fields, real->fields, missing * sizeof(fields[0]));
        memcpy(fields + missing, real->fields + missing + 1, (count - missing) * sizeof(fields[0]));
        struct writer lacking = save_as(&forged, s.dev);
        assert_int_equal(load(s.dev, &lacking, lacking.len),
                         real->fields[missing].since > 1 ? 0 : -EPROTO);
        free(lacking.data);
    }

    device_reset(s.dev);
    play(c, &s, BURST_ACCESSES, &seed);
    raze(&s);
}

/* What a stream says instead: the extremes of width and of the table's own limit. */
static uint64_t extreme(const struct state_field *f, unsigned which)
{
    uint64_t ones = f->size == 8 ? UINT64_MAX : (UINT64_C(1) << (8 * f->size)) - 1;
    uint64_t max = f->is_bool ? 1 : f->max ? f->max : ones;

    switch (which) {
    case 0: return ones;
    case 1: return max;
    case 2: return (max + 1) & ones;
    case 3: return ones >> 1;
    case 4: return ones ^ ones >> 1; /* the sign bit alone */
    default: return UINT64_C(0x5555555555555555) & ones;
    }
}
#define EXTREMES 6

/*
 * The device's own memory is changed for the time of one save, by bytes: that
 * needs no knowledge of the stream's format.
 */
static struct writer save_with(struct device *dev, const struct state_field *f, uint32_t element,
                               uint64_t value)
{
    uint32_t stride = f->stride ? f->stride : f->size;
    uint8_t *at = (uint8_t *)dev + f->offset + (size_t)element * stride, kept[8];
    struct state_desc plain = *dev->ops->state;

    plain.pre_save = NULL; /* it has run: the device was saved before, unchanged */
    memcpy(kept, at, f->size);
    memcpy(at, &value, f->size); /* little-endian host */
    struct writer w = save_as(&plain, dev);
    memcpy(at, kept, f->size);
    return w;
}

static void extreme_values_do_no_harm(const struct conformance_case *c)
{
    uint32_t seed = 5;
    struct subject source, target;

    build(c, &source);
    play(c, &source, BURST_ACCESSES, &seed);
    device_pause(source.dev); /* a device with a thread may be in the midst of a request */
    struct writer as_is = save(source.dev);
    build(c, &target);

    for (const struct state_field *f = source.dev->ops->state->fields; f->name; f++) {
        for (unsigned i = 0; i < EXTREMES * f->count; i++) {
            uint64_t value = extreme(f, i % EXTREMES);
            struct writer w = save_with(source.dev, f, i / EXTREMES, value);
            int r = load(target.dev, &w, w.len);

            if ((f->max && value > f->max) || (f->is_bool && value > 1))
                assert_int_equal(r, -EPROTO);
            if (r == 0)
                play(c, &target, 20, &seed);
            device_reset(target.dev);
            free(w.data);
        }
    }

    /* After all that it still takes a good one. */
    device_pause(target.dev);
    assert_int_equal(load(target.dev, &as_is, as_is.len), 0);
    free(as_is.data);
    raze(&target);
    raze(&source);
}

static void two_live_side_by_side(const struct conformance_case *c)
{
    uint32_t seed = 6;
    struct subject played, left;

    build(c, &played);
    build(c, &left);
    device_pause(left.dev);
    struct writer before = save(left.dev);
    play(c, &played, BURST_ACCESSES * 10, &seed);
    raze(&played);
    struct writer after = save(left.dev);
    assert_same(&before, &after);
    free(before.data);
    free(after.data);
    raze(&left);
}

void conformance_run(const struct conformance_case *c)
{
    each_step_of_create_can_fail(c);
    once_more_changes_nothing(c);
    a_paused_device_drives_no_interrupt(c);
    any_state_survives_a_round_trip(c);
    a_broken_stream_is_refused(c);
    extreme_values_do_no_harm(c);
    two_live_side_by_side(c);
}
