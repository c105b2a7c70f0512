/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rtc: an MC146818 clock with CMOS RAM.
 *
 * The clock does not tick: its time is the host's plus an offset, worked out when
 * the guest looks. So are the flags of register C: advance() finds what has
 * happened since it last looked. Only while the guest waits for an interrupt
 * does a timer run, which looks in its place. While the clock is stopped
 * (SET, or the divider in reset) the time registers are plain RAM.
 */
#include "vmrun/rtc.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "calendar.h"

#define NS_PER_S UINT64_C(1000000000)
#define DAY_S 86400
#define UIP_NS 244000                      /* t_BUC: how long UIP is on before an update */
#define DIVIDER_PHASE_NS 500000000         /* from the divider's release to the first update */
#define PLAUSIBLE_S INT64_C(1000000000000) /* bounds what a stream may say, for the arithmetic */

enum region { REGION_INDEX, REGION_DATA };

enum {
    SECONDS = 0,
    SECONDS_ALARM = 1,
    MINUTES = 2,
    MINUTES_ALARM = 3,
    HOURS = 4,
    HOURS_ALARM = 5,
    WEEKDAY = 6, /* 1 is Sunday */
    DAY = 7,
    MONTH = 8,
    YEAR = 9,
    REGISTER_A = 10,
    REGISTER_B = 11,
    REGISTER_C = 12,
    REGISTER_D = 13,
    CENTURY = 0x32,
    CMOS_SIZE = 128,
};

enum { A_UIP = 0x80, A_DIVIDER_RESET = 0x60, A_RATE = 0x0f, A_DEFAULT = 0x26 };
enum {
    B_SET = 0x80,
    B_PERIODIC = 0x40,
    B_ALARM = 0x20,
    B_UPDATE = 0x10,
    B_BINARY = 0x04,
    B_24_HOURS = 0x02
};
enum { C_REQUEST = 0x80, C_PERIODIC = 0x40, C_ALARM = 0x20, C_UPDATE = 0x10, C_FLAGS = 0x70 };
enum { D_VALID = 0x80 };
enum { HOURS_PM = 0x80, ALARM_ANY = 0xc0 };

/* A time of the guest: seconds since 1970, and nanoseconds below NS_PER_S. */
struct moment {
    int64_t s;
    uint32_t ns;
};

struct rtc {
    struct device dev;
    struct platform *platform;
    struct irq *irq;
    struct loop_timer *timer;
    bool armed, line, paused;
    rtc_clock_fn *clock;
    void *clock_opaque;

    uint8_t index;
    /*
     * As the guest sees it, but: the time registers are zero while the clock
     * runs, A_UIP, C_REQUEST and register D are derived.
     */
    uint8_t cmos[CMOS_SIZE];
    uint64_t offset_s; /* guest's time - host's: two's complement, plus offset_ns */
    uint32_t offset_ns;
    uint64_t seen_s; /* the guest's time up to which register C is right: two's complement */
    uint32_t seen_ns;
};
static_assert(offsetof(struct rtc, dev) == 0, "state offsets count from the device");

static struct rtc *self(struct device *dev)
{
    return container_of(dev, struct rtc, dev);
}

static bool is_time_register(unsigned i)
{
    return i == SECONDS || i == MINUTES || i == HOURS || (i >= WEEKDAY && i <= YEAR) ||
           i == CENTURY;
}

/* Registers and times */

static uint8_t encode(const struct rtc *r, unsigned value)
{
    return (uint8_t)(r->cmos[REGISTER_B] & B_BINARY ? value : value / 10 << 4 | value % 10);
}

static int decode(const struct rtc *r, uint8_t raw)
{
    return r->cmos[REGISTER_B] & B_BINARY ? raw : (raw >> 4) * 10 + (raw & 0x0f);
}

static uint8_t encode_hours(const struct rtc *r, unsigned hours)
{
    if (r->cmos[REGISTER_B] & B_24_HOURS)
        return encode(r, hours);
    return (uint8_t)(encode(r, hours % 12 ? hours % 12 : 12) | (hours >= 12 ? HOURS_PM : 0));
}

static int decode_hours(const struct rtc *r, uint8_t raw)
{
    if (r->cmos[REGISTER_B] & B_24_HOURS)
        return decode(r, raw);
    return decode(r, raw & (uint8_t)~HOURS_PM) % 12 + (raw & HOURS_PM ? 12 : 0);
}

/* Fill the time registers of cmos with the time s. */
static void encode_time(const struct rtc *r, int64_t s, uint8_t *cmos)
{
    int64_t second = (s % DAY_S + DAY_S) % DAY_S;
    struct calendar_date date = calendar_date((s - second) / DAY_S);

    cmos[SECONDS] = encode(r, (unsigned)(second % 60));
    cmos[MINUTES] = encode(r, (unsigned)(second / 60 % 60));
    cmos[HOURS] = encode_hours(r, (unsigned)(second / 3600));
    cmos[WEEKDAY] = encode(r, date.weekday);
    cmos[DAY] = encode(r, date.day);
    cmos[MONTH] = encode(r, date.month);
    cmos[YEAR] = encode(r, (unsigned)date.year % 100);
    cmos[CENTURY] = encode(r, (unsigned)date.year / 100);
}

/* The time that time registers hold. What no calendar has is carried over: minute 61 is 1:01. */
static int64_t decode_time(const struct rtc *r, const uint8_t *cmos)
{
    int year = decode(r, cmos[CENTURY]) * 100 + decode(r, cmos[YEAR]);
    int64_t day = calendar_day(year, decode(r, cmos[MONTH]), decode(r, cmos[DAY]));
    int64_t hours = decode_hours(r, cmos[HOURS]), minutes = hours * 60 + decode(r, cmos[MINUTES]);

    return day * DAY_S + minutes * 60 + decode(r, cmos[SECONDS]);
}

/* The clock */

static struct moment now(const struct rtc *r)
{
    uint64_t host = r->clock(r->clock_opaque);
    uint64_t ns = host % NS_PER_S + r->offset_ns;

    return (struct moment){
        .s = (int64_t)(host / NS_PER_S + r->offset_s + ns / NS_PER_S),
        .ns = (uint32_t)(ns % NS_PER_S),
    };
}

/* Let it be `to` now. No flag of register C comes from such a jump. */
static void set_now(struct rtc *r, struct moment to)
{
    uint64_t host = r->clock(r->clock_opaque);
    bool borrow = to.ns < host % NS_PER_S;

    r->offset_s = (uint64_t)to.s - host / NS_PER_S - borrow;
    r->offset_ns = (uint32_t)(to.ns + (borrow ? NS_PER_S : 0) - host % NS_PER_S);
    r->seen_s = (uint64_t)to.s;
    r->seen_ns = to.ns;
}

static bool divider_is_reset(const struct rtc *r)
{
    return (r->cmos[REGISTER_A] & A_DIVIDER_RESET) == A_DIVIDER_RESET;
}

static bool is_stopped(const struct rtc *r)
{
    return r->cmos[REGISTER_B] & B_SET || divider_is_reset(r);
}

/* How often a second the periodic flag rises: a power of two, or 0 for never. */
static unsigned periodic_rate(const struct rtc *r)
{
    unsigned rate = r->cmos[REGISTER_A] & A_RATE;

    if (rate == 0 || divider_is_reset(r))
        return 0;
    return rate < 3 ? 512u >> rate : 65536u >> rate;
}

/* Alarms */

enum { ANY = -1, NEVER = -2 };

/* The one of [0, values) that alarm register i waits for; the chip compares raw values. */
static int alarm_value(const struct rtc *r, unsigned i, unsigned values,
                       uint8_t (*encode_value)(const struct rtc *r, unsigned value))
{
    if ((r->cmos[i] & ALARM_ANY) == ALARM_ANY)
        return ANY;
    for (unsigned value = 0; value < values; value++)
        if (encode_value(r, value) == r->cmos[i])
            return (int)value;
    return NEVER;
}

/* The first second after `after` at which the alarm rises, or INT64_MAX for never. */
static int64_t next_alarm(const struct rtc *r, int64_t after)
{
    int hours = alarm_value(r, HOURS_ALARM, 24, encode_hours);
    int minutes = alarm_value(r, MINUTES_ALARM, 60, encode);
    int seconds = alarm_value(r, SECONDS_ALARM, 60, encode);
    int64_t at = after + 1;

    if (hours == NEVER || minutes == NEVER || seconds == NEVER)
        return INT64_MAX;
    for (;;) {
        int64_t second = (at % DAY_S + DAY_S) % DAY_S;

        if (hours != ANY && hours != second / 3600)
            at += 3600 - second % 3600;
        else if (minutes != ANY && minutes != second / 60 % 60)
            at += 60 - second % 60;
        else if (seconds != ANY && seconds != second % 60)
            at++;
        else
            return at;
    }
}

/* Interrupts */

static uint64_t periodic_tick(uint32_t ns, unsigned rate)
{
    return ns * (uint64_t)rate / NS_PER_S;
}

/* Bring register C up to date. Returns the guest's time. */
static struct moment advance(struct rtc *r)
{
    struct moment t = now(r);
    int64_t seen_s = (int64_t)r->seen_s;
    unsigned rate = periodic_rate(r);
    uint8_t *flags = &r->cmos[REGISTER_C];

    /* The host's clock may have been set back: then nothing has happened. */
    if (t.s > seen_s || (t.s == seen_s && t.ns > r->seen_ns)) {
        if (rate && (t.s != seen_s || periodic_tick(t.ns, rate) != periodic_tick(r->seen_ns, rate)))
            *flags |= C_PERIODIC;
        if (!is_stopped(r) && t.s != seen_s) {
            *flags |= C_UPDATE;
            if (next_alarm(r, seen_s) <= t.s)
                *flags |= C_ALARM;
        }
    }
    r->seen_s = (uint64_t)t.s;
    r->seen_ns = t.ns;
    return t;
}

/* ns from t to the next event whose interrupt is enabled and whose flag is clear, or 0. */
static uint64_t until_interrupt(const struct rtc *r, struct moment t)
{
    uint8_t wanted = r->cmos[REGISTER_B] & (uint8_t)~r->cmos[REGISTER_C];
    uint64_t least = UINT64_MAX, ns;
    unsigned rate = periodic_rate(r);

    if (wanted & B_PERIODIC && rate) {
        /* rounded up, so that the tick has come when the timer fires */
        ns = ((periodic_tick(t.ns, rate) + 1) * NS_PER_S + rate - 1) / rate - t.ns;
        least = ns < least ? ns : least;
    }
    if (wanted & B_UPDATE && !is_stopped(r)) {
        ns = NS_PER_S - t.ns;
        least = ns < least ? ns : least;
    }
    if (wanted & B_ALARM && !is_stopped(r)) {
        int64_t at = next_alarm(r, t.s);

        ns = at == INT64_MAX ? UINT64_MAX : (uint64_t)(at - t.s) * NS_PER_S - t.ns;
        least = ns < least ? ns : least;
    }
    return least == UINT64_MAX ? 0 : least;
}

/* After any change, and advance() before it: the interrupt line and the timer follow. */
static void update(struct rtc *r)
{
    bool level = r->cmos[REGISTER_B] & r->cmos[REGISTER_C] & C_FLAGS;
    uint64_t wait_ns;

    if (r->paused)
        return;
    if (level != r->line) {
        r->line = level;
        irq_set(r->irq, level);
    }
    wait_ns = until_interrupt(r, (struct moment){(int64_t)r->seen_s, r->seen_ns});
    if (wait_ns || r->armed)
        loop_timer_arm(r->timer, wait_ns ? loop_now_ns() + wait_ns : 0);
    r->armed = wait_ns;
}

static void timer_fired(void *opaque)
{
    struct rtc *r = opaque;

    r->armed = false;
    if (r->paused)
        return; /* it fired as the machine was being paused; resume looks again */
    advance(r);
    update(r);
}

/* What the guest does */

/* Write registers A and B: the clock may stop or start by it. */
static void write_control(struct rtc *r, uint8_t a, uint8_t b)
{
    struct moment t = advance(r);
    bool was_stopped = is_stopped(r), divider_was_reset = divider_is_reset(r);

    if (b & B_SET && !(r->cmos[REGISTER_B] & B_SET))
        b &= (uint8_t)~B_UPDATE;
    r->cmos[REGISTER_A] = a & (uint8_t)~A_UIP;
    r->cmos[REGISTER_B] = b;

    if (divider_was_reset && !divider_is_reset(r)) {
        t.ns = DIVIDER_PHASE_NS;
        set_now(r, t);
    }
    if (!was_stopped && is_stopped(r))
        encode_time(r, t.s, r->cmos);
    if (was_stopped && !is_stopped(r)) {
        t.s = decode_time(r, r->cmos);
        set_now(r, t);
        for (unsigned i = 0; i < CMOS_SIZE; i++)
            if (is_time_register(i))
                r->cmos[i] = 0;
    }
    update(r);
}

static void write_time(struct rtc *r, uint8_t value)
{
    uint8_t cmos[CMOS_SIZE];
    struct moment t;

    if (is_stopped(r)) {
        r->cmos[r->index] = value;
        return;
    }
    t = advance(r);
    encode_time(r, t.s, cmos);
    cmos[r->index] = value;
    t.s = decode_time(r, cmos);
    set_now(r, t);
    update(r);
}

static void rtc_write(struct device *dev, unsigned region, uint64_t offset, unsigned size,
                      uint64_t value)
{
    struct rtc *r = self(dev);
    uint8_t byte = (uint8_t)value;

    (void)offset, (void)size;
    if (region == REGION_INDEX) {
        r->index = byte % CMOS_SIZE;
        return;
    }
    switch (r->index) {
    case REGISTER_A: write_control(r, byte, r->cmos[REGISTER_B]); break;
    case REGISTER_B: write_control(r, r->cmos[REGISTER_A], byte); break;
    case REGISTER_C:
    case REGISTER_D: break;
    case SECONDS_ALARM:
    case MINUTES_ALARM:
    case HOURS_ALARM:
        advance(r); /* by the old alarm */
        r->cmos[r->index] = byte;
        update(r);
        break;
    default:
        if (is_time_register(r->index))
            write_time(r, byte);
        else
            r->cmos[r->index] = byte;
    }
}

static uint8_t read_time(const struct rtc *r)
{
    uint8_t cmos[CMOS_SIZE];

    if (is_stopped(r))
        return r->cmos[r->index];
    encode_time(r, now(r).s, cmos);
    return cmos[r->index];
}

static uint8_t read_flags(struct rtc *r)
{
    uint8_t flags;

    advance(r);
    flags = r->cmos[REGISTER_C];
    if (flags & r->cmos[REGISTER_B])
        flags |= C_REQUEST;
    r->cmos[REGISTER_C] = 0;
    update(r);
    return flags;
}

static uint64_t rtc_read(struct device *dev, unsigned region, uint64_t offset, unsigned size)
{
    struct rtc *r = self(dev);

    (void)offset, (void)size;
    if (region == REGION_INDEX)
        return 0xff; /* write-only */
    switch (r->index) {
    case REGISTER_A:
        if (!is_stopped(r) && now(r).ns >= NS_PER_S - UIP_NS)
            return r->cmos[REGISTER_A] | A_UIP;
        return r->cmos[REGISTER_A];
    case REGISTER_C: return read_flags(r);
    case REGISTER_D: return D_VALID;
    default: return is_time_register(r->index) ? read_time(r) : r->cmos[r->index];
    }
}

static bool is_plausible(uint64_t s)
{
    return (int64_t)s >= -PLAUSIBLE_S && (int64_t)s <= PLAUSIBLE_S;
}

/* Battery-backed are the time and the RAM; the modes are those that firmware would leave. */
static void rtc_reset(struct device *dev)
{
    struct rtc *r = self(dev);

    if (!is_plausible(r->offset_s))
        r->offset_s = 0; /* a stream that was refused left it */
    r->seen_s = (uint64_t)now(r).s;
    write_control(r, A_DEFAULT, r->cmos[REGISTER_B] & (B_BINARY | B_24_HOURS));
    r->cmos[REGISTER_B] = B_24_HOURS; /* only now: a clock that was being set is in the old modes */
    r->index = 0;
    r->cmos[SECONDS_ALARM] = r->cmos[MINUTES_ALARM] = r->cmos[HOURS_ALARM] = 0;
    r->cmos[REGISTER_C] = r->cmos[REGISTER_D] = 0;
    r->line = false;
    irq_set(r->irq, false);
}

static void rtc_pause(struct device *dev)
{
    struct rtc *r = self(dev);

    advance(r);
    r->paused = true;
    r->armed = false;
    loop_timer_arm(r->timer, 0);
}

static void rtc_resume(struct device *dev)
{
    struct rtc *r = self(dev);

    r->paused = false;
    advance(r);
    update(r);
}

static void rtc_destroy(struct device *dev)
{
    struct rtc *r = self(dev);

    loop_timer_destroy(r->timer);
    if (r->line)
        irq_set(r->irq, false);
    r->platform->ops->unmap(r->platform, dev);
    device_fini(dev);
    free(r);
}

static int rtc_post_load(void *obj, struct error *err)
{
    struct rtc *r = obj;

    if (r->cmos[REGISTER_A] & A_UIP || r->cmos[REGISTER_C] & ~C_FLAGS || r->cmos[REGISTER_D])
        return error_set(err, EPROTO, "cmos: registers A, C, D are 0x%x, 0x%x, 0x%x",
                         r->cmos[REGISTER_A], r->cmos[REGISTER_C], r->cmos[REGISTER_D]);
    if (!is_plausible(r->offset_s) || !is_plausible(r->seen_s))
        return error_set(err, EPROTO, "offset_s, seen_s: %lld s and %lld s are out of range",
                         (long long)r->offset_s, (long long)r->seen_s);
    if (!r->paused) {
        advance(r);
        update(r);
    }
    return 0;
}

static const struct state_field rtc_fields[] = {
    STATE(struct rtc, index, .max = CMOS_SIZE - 1),
    STATE_ARRAY(struct rtc, cmos),
    STATE(struct rtc, offset_s),
    STATE(struct rtc, offset_ns, .max = NS_PER_S - 1),
    STATE(struct rtc, seen_s),
    STATE(struct rtc, seen_ns, .max = NS_PER_S - 1),
    STATE_END,
};

static const struct state_desc rtc_state = {
    .name = "mc146818",
    .version = 1,
    .fields = rtc_fields,
    .post_load = rtc_post_load,
};

static const struct device_ops rtc_ops = {
    .type = "mc146818",
    .read = rtc_read,
    .write = rtc_write,
    .reset = rtc_reset,
    .pause = rtc_pause,
    .resume = rtc_resume,
    .destroy = rtc_destroy,
    .state = &rtc_state,
};

static uint64_t host_clock(void *opaque)
{
    struct timespec ts;

    (void)opaque;
    clock_gettime(CLOCK_REALTIME, &ts);
    return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

int rtc_create_with_clock(struct platform *platform, struct loop *loop, uint16_t port, unsigned irq,
                          rtc_clock_fn *clock, void *clock_opaque, struct device **ret_dev,
                          struct error *err)
{
    struct rtc *r = calloc(1, sizeof(*r));
    int rc;

    if (!r)
        return error_set(err, ENOMEM, "rtc: out of memory");
    device_init(&r->dev, &rtc_ops, "rtc");
    r->platform = platform;
    r->clock = clock;
    r->clock_opaque = clock_opaque;

    rc = platform->ops->irq(platform, irq, &r->irq, err);
    if (rc < 0)
        goto fail;
    rc = loop_timer_create(loop, &r->dev.lock, timer_fired, r, &r->timer, err);
    if (rc < 0) {
        error_prefix(err, "rtc");
        goto fail;
    }
    for (unsigned region = REGION_INDEX; region <= REGION_DATA; region++) {
        rc = platform->ops->map(platform, BUS_PIO, port + region, 1, &r->dev, region, err);
        if (rc < 0)
            goto fail;
    }

    rtc_reset(&r->dev);
    *ret_dev = &r->dev;
    return 0;

fail:
    rtc_destroy(&r->dev);
    return rc;
}

int rtc_create(struct platform *platform, struct loop *loop, uint16_t port, unsigned irq,
               struct device **ret_dev, struct error *err)
{
    return rtc_create_with_clock(platform, loop, port, irq, host_clock, NULL, ret_dev, err);
}
