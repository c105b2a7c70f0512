/* SPDX-License-Identifier: Apache-2.0 */
/* rtc: the MC146818A data sheet, and the habits of Linux that depend on it. */
#include "vmrun/rtc.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#include "conformance.h"
#include "fake_loop.h"

#define INDEX 0x70
#define DATA 0x71
#define GSI 8

#define US UINT64_C(1000)
#define MS UINT64_C(1000000)
#define S UINT64_C(1000000000)

#define START 1767225600 /* 2026-01-01 00:00:00, a Thursday */

enum { A = 10, B = 11, C = 12, D = 13, CENTURY = 0x32 };
enum { UIP = 0x80, NORMAL = 0x20, DIVIDER_RESET = 0x70, RATE_1024 = 6, RATE_2 = 15 };
enum { SET = 0x80, PIE = 0x40, AIE = 0x20, UIE = 0x10, BINARY = 0x04, H24 = 0x02 };
enum { IRQF = 0x80, PF = 0x40, AF = 0x20, UF = 0x10 };

struct fixture {
    struct fake_platform fake;
    struct fake_loop loop;
    int64_t step_ns; /* of the host's clock against its monotonic one */
    struct device *dev;
};

static uint64_t clock_of(void *opaque)
{
    struct fixture *f = opaque;

    return START * S + f->loop.now_ns + (uint64_t)f->step_ns;
}

static int setup(void **state)
{
    static struct fixture f;
    struct error err;

    fake_platform_init(&f.fake);
    struct loop *loop = fake_loop_init(&f.loop);
    f.loop.now_ns = S; /* 00:00:01 */
    f.step_ns = 0;
    *state = &f;
    return rtc_create_with_clock(&f.fake.platform, loop, INDEX, GSI, clock_of, &f, &f.dev, &err);
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    device_destroy(f->dev);
    return fake_loop_timers(&f->loop);
}

static uint8_t get(struct fixture *f, uint8_t reg)
{
    fake_outb(&f->fake, INDEX, reg);
    return fake_inb(&f->fake, DATA);
}

static void put(struct fixture *f, uint8_t reg, uint8_t value)
{
    fake_outb(&f->fake, INDEX, reg);
    fake_outb(&f->fake, DATA, value);
}

static void pass(struct fixture *f, uint64_t ns)
{
    fake_loop_advance(&f->loop, ns);
}

static const struct fake_irq *irq(const struct fixture *f)
{
    return &f->fake.irqs[GSI];
}

/* The time registers as they stand: century, year, month, day, hours, minutes, seconds. */
static void assert_time(struct fixture *f, const char *want)
{
    char got[32];

    snprintf(got, sizeof(got), "%02x%02x-%02x-%02x %02x:%02x:%02x", get(f, CENTURY), get(f, 9),
             get(f, 8), get(f, 7), get(f, 4), get(f, 2), get(f, 0));
    assert_string_equal(got, want);
}

static void set_time(struct fixture *f, uint16_t year, uint8_t month, uint8_t day, uint8_t hours,
                     uint8_t minutes, uint8_t seconds)
{
    put(f, CENTURY, (uint8_t)(year >> 8));
    put(f, 9, (uint8_t)year);
    put(f, 8, month);
    put(f, 7, day);
    put(f, 4, hours);
    put(f, 2, minutes);
    put(f, 0, seconds);
}

/* Telling the time */

static void it_starts_with_the_hosts_time_in_bcd(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(get(f, B), H24);
    assert_time(f, "2026-01-01 00:00:01");
    assert_int_equal(get(f, 6), 5); /* Thursday */
}

static void time_goes_by(void **state)
{
    struct fixture *f = *state;

    pass(f, (59 + 58 * 60 + 22 * 3600) * S);
    assert_time(f, "2026-01-01 22:59:00");
    pass(f, 3600 * S);
    assert_time(f, "2026-01-01 23:59:00");
    pass(f, 60 * S);
    assert_time(f, "2026-01-02 00:00:00");
    assert_int_equal(get(f, 6), 6);
}

static void binary_mode_reads_in_binary(void **state)
{
    struct fixture *f = *state;

    pass(f, 22 * S + 45 * 60 * S);
    put(f, B, H24 | BINARY);
    assert_int_equal(get(f, 0), 23);
    assert_int_equal(get(f, 2), 45);
    assert_int_equal(get(f, 9), 26);
    assert_int_equal(get(f, CENTURY), 20);
}

static void twelve_hour_mode_counts_from_12_and_marks_the_afternoon(void **state)
{
    static const uint8_t want[] = {0x12, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07,
                                   0x08, 0x09, 0x10, 0x11, 0x92, 0x81, 0x82, 0x83,
                                   0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x90, 0x91};
    struct fixture *f = *state;

    put(f, B, 0);
    for (unsigned hour = 0; hour < 24; hour++, pass(f, 3600 * S))
        assert_int_equal(get(f, 4), want[hour]);
}

static void bit_7_of_the_index_is_ignored(void **state)
{
    struct fixture *f = *state;

    put(f, 0x80 | 0x20, 0x5a);
    assert_int_equal(get(f, 0x20), 0x5a);
}

static void the_index_port_is_write_only(void **state)
{
    struct fixture *f = *state;

    fake_outb(&f->fake, INDEX, 0x20);
    assert_int_equal(fake_inb(&f->fake, INDEX), 0xff);
}

static void register_d_says_that_the_battery_is_good(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(get(f, D), 0x80);
    put(f, D, 0);
    assert_int_equal(get(f, D), 0x80);
}

static void cmos_ram_survives_a_reset(void **state)
{
    struct fixture *f = *state;

    for (unsigned i = 14; i < 128; i++)
        if (i != CENTURY)
            put(f, (uint8_t)i, (uint8_t)(i ^ 0xff));
    device_reset(f->dev);
    for (unsigned i = 14; i < 128; i++)
        if (i != CENTURY)
            assert_int_equal(get(f, (uint8_t)i), i ^ 0xff);
}

/* mc146818_get_time() of Linux waits while it is on; at least t_BUC is left when it is off. */
static void uip_is_on_244_us_before_a_second_ends(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(get(f, A), NORMAL | RATE_1024);
    pass(f, S - 245 * US);
    assert_int_equal(get(f, A) & UIP, 0);
    pass(f, 1 * US);
    assert_int_equal(get(f, A) & UIP, UIP);
    assert_time(f, "2026-01-01 00:00:01");
    pass(f, 244 * US);
    assert_int_equal(get(f, A) & UIP, 0);
    assert_time(f, "2026-01-01 00:00:02");
}

/* Setting the time */

static void set_stops_the_clock_and_lets_it_be_set(void **state)
{
    struct fixture *f = *state;

    put(f, B, SET | H24);
    pass(f, 10 * S);
    assert_time(f, "2026-01-01 00:00:01");
    set_time(f, 0x1999, 0x12, 0x31, 0x23, 0x59, 0x58);
    pass(f, 10 * S);
    assert_time(f, "1999-12-31 23:59:58");
    put(f, B, H24);
    pass(f, 2 * S);
    assert_time(f, "2000-01-01 00:00:00");
    assert_int_equal(get(f, 6), 7); /* Saturday */
}

static void a_register_written_while_the_clock_runs_changes_it(void **state)
{
    struct fixture *f = *state;

    put(f, 4, 0x15);
    pass(f, 1 * S);
    assert_time(f, "2026-01-01 15:00:02");
}

/* mc146818_set_time(): SET, divider reset, registers, SET off, divider on. */
static void linux_sets_the_time_and_the_phase(void **state)
{
    struct fixture *f = *state;

    pass(f, 300 * MS);
    put(f, B, SET | H24);
    put(f, A, DIVIDER_RESET | RATE_1024);
    set_time(f, 0x2030, 0x06, 0x15, 0x12, 0x00, 0x00);
    put(f, B, H24);
    pass(f, 5 * S);
    assert_time(f, "2030-06-15 12:00:00"); /* the divider is still held */
    put(f, A, NORMAL | RATE_1024);
    pass(f, 499 * MS);
    assert_time(f, "2030-06-15 12:00:00");
    pass(f, 1 * MS); /* the first update comes half a second after the release */
    assert_time(f, "2030-06-15 12:00:01");
}

static void set_alone_keeps_the_phase(void **state)
{
    struct fixture *f = *state;

    pass(f, 700 * MS);
    put(f, B, SET | H24);
    put(f, 0, 0x30);
    put(f, B, H24);
    pass(f, 299 * MS);
    assert_int_equal(get(f, 0), 0x30);
    pass(f, 1 * MS);
    assert_int_equal(get(f, 0), 0x31);
}

static void the_time_that_was_set_survives_a_reset(void **state)
{
    struct fixture *f = *state;

    put(f, B, SET | H24);
    set_time(f, 0x2001, 0x02, 0x03, 0x04, 0x05, 0x06);
    put(f, B, H24);
    device_reset(f->dev);
    pass(f, 1 * S);
    assert_time(f, "2001-02-03 04:05:07");
}

static void a_reset_in_the_middle_of_setting_starts_the_clock(void **state)
{
    struct fixture *f = *state;

    put(f, B, SET | H24 | BINARY);
    set_time(f, 20 << 8 | 11, 10, 9, 8, 7, 6);
    device_reset(f->dev);
    pass(f, 1 * S);
    assert_time(f, "2011-10-09 08:07:07");
}

static void any_date_reads_back_as_it_was_set(void **state)
{
    static const int lengths[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    struct fixture *f = *state;

    put(f, B, SET | H24 | BINARY);
    for (int year = 0; year < 10000; year += 1 + year % 3) {
        for (int month = 1; month <= 12; month++) {
            bool leap = month == 2 && ((year % 4 == 0 && year % 100 != 0) || year % 400 == 0);
            uint8_t last = (uint8_t)(lengths[month - 1] + leap);

            set_time(f, (uint16_t)(year / 100 << 8 | year % 100), (uint8_t)month, last, 23, 59, 59);
            put(f, B, H24 | BINARY);
            assert_int_equal(get(f, 7), last);
            assert_int_equal(get(f, 8), month);
            assert_int_equal(get(f, 9), year % 100);
            assert_int_equal(get(f, CENTURY), year / 100);
            f->step_ns += (int64_t)S;
            assert_int_equal(get(f, 7), 1);
            assert_int_equal(get(f, 8), month % 12 + 1);
            f->step_ns -= (int64_t)S;
            put(f, B, SET | H24 | BINARY);
        }
    }
}

static void weekdays_agree_with_the_c_library(void **state)
{
    struct fixture *f = *state;

    for (unsigned i = 0; i < 4000; i++) {
        time_t now = (time_t)(clock_of(f) / S);
        struct tm tm;

        gmtime_r(&now, &tm);
        assert_int_equal(get(f, 6), tm.tm_wday + 1);
        f->step_ns += (int64_t)(86400 * S);
    }
}

static void what_no_calendar_has_is_carried_over(void **state)
{
    struct fixture *f = *state;

    put(f, B, SET | H24);
    set_time(f, 0x2026, 0x02, 0x30, 0x23, 0x59, 0x60);
    put(f, B, H24);
    assert_time(f, "2026-03-03 00:00:00");
}

static void the_hosts_clock_set_back_raises_no_flag(void **state)
{
    struct fixture *f = *state;

    (void)get(f, C);
    f->step_ns = -(int64_t)(3600 * S);
    assert_int_equal(get(f, C), 0);
    assert_time(f, "2025-12-31 23:00:01");
}

/* Flags and interrupts */

static void flags_rise_without_interrupts_and_fall_when_read(void **state)
{
    struct fixture *f = *state;

    (void)get(f, C);
    pass(f, 1 * S);
    assert_int_equal(get(f, C), PF | UF);
    assert_int_equal(get(f, C), 0);
    assert_false(irq(f)->level);
}

static void an_idle_clock_arms_no_timer(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(fake_loop_armed(&f->loop), 0);
    pass(f, 3600 * S);
    assert_time(f, "2026-01-01 01:00:01");
    assert_int_equal(f->loop.fired, 0);
}

static void the_update_interrupt_comes_each_second(void **state)
{
    struct fixture *f = *state;

    (void)get(f, C);
    put(f, B, H24 | UIE);
    pass(f, 999 * MS);
    assert_false(irq(f)->level);
    pass(f, 1 * MS);
    assert_true(irq(f)->level);
    assert_int_equal(get(f, C) & (IRQF | UF | AF), IRQF | UF);
    assert_false(irq(f)->level);
    pass(f, 1 * S);
    assert_true(irq(f)->level);
    assert_int_equal(irq(f)->rises, 2);
}

static void an_interrupt_that_nobody_serves_wakes_nobody_again(void **state)
{
    struct fixture *f = *state;

    (void)get(f, C);
    put(f, B, H24 | UIE | PIE);
    pass(f, 100 * S);
    assert_true(irq(f)->level);
    assert_int_equal(irq(f)->rises, 1);
    assert_int_equal(f->loop.fired, 2); /* one for each flag */
}

static void a_flag_that_is_up_interrupts_when_it_is_enabled(void **state)
{
    struct fixture *f = *state;

    pass(f, 1 * S);
    put(f, B, H24 | UIE);
    assert_true(irq(f)->level);
}

static void set_clears_the_update_interrupt_enable(void **state)
{
    struct fixture *f = *state;

    put(f, B, H24 | UIE);
    put(f, B, SET | H24 | UIE);
    assert_int_equal(get(f, B), SET | H24);
    (void)get(f, C);
    pass(f, 10 * S);
    assert_int_equal(get(f, C) & UF, 0);
}

static void the_periodic_interrupt_has_the_rate_of_register_a(void **state)
{
    static const unsigned hertz[16] = {0,   256, 128, 8192, 4096, 2048, 1024, 512,
                                       256, 128, 64,  32,   16,   8,    4,    2};
    struct fixture *f = *state;

    for (uint8_t rate = 0; rate < 16; rate++) {
        unsigned count = 0;

        put(f, A, NORMAL | rate);
        (void)get(f, C);
        put(f, B, H24 | PIE);
        uint64_t end = f->loop.now_ns + S;
        while (f->loop.now_ns < end) {
            pass(f, 20 * US);
            if (irq(f)->level) {
                assert_int_equal(get(f, C) & (IRQF | PF), IRQF | PF);
                count++;
            }
        }
        assert_int_equal(count, hertz[rate]);
        put(f, B, H24);
    }
}

static void periodic_ticks_that_were_missed_are_one(void **state)
{
    struct fixture *f = *state;

    put(f, A, NORMAL | RATE_2);
    (void)get(f, C);
    put(f, B, H24 | PIE);
    pass(f, 10 * S);
    assert_int_equal(irq(f)->rises, 1);
    assert_int_equal(get(f, C) & PF, PF);
    assert_false(irq(f)->level);
}

static void set_alarm(struct fixture *f, uint8_t hours, uint8_t minutes, uint8_t seconds)
{
    put(f, 5, hours);
    put(f, 3, minutes);
    put(f, 1, seconds);
    (void)get(f, C);
    put(f, B, get(f, B) | AIE);
}

/* How many seconds until the alarm, which is then acknowledged. */
static unsigned wait_for_alarm(struct fixture *f, unsigned limit_s)
{
    unsigned waited = 0;

    while (!irq(f)->level && waited < limit_s) {
        pass(f, 1 * S);
        waited++;
    }
    if (irq(f)->level)
        assert_int_equal(get(f, C) & (IRQF | AF), IRQF | AF);
    return waited;
}

static void an_alarm_comes_once_a_day_at_its_time(void **state)
{
    struct fixture *f = *state;

    set_alarm(f, 0x01, 0x02, 0x03);
    assert_int_equal(wait_for_alarm(f, 90000), 3600 + 2 * 60 + 2); /* from 00:00:01 */
    assert_int_equal(wait_for_alarm(f, 90000), 86400);
    assert_int_equal(f->loop.fired, 2);
}

static void an_alarm_earlier_in_the_day_comes_tomorrow(void **state)
{
    struct fixture *f = *state;

    pass(f, 12 * 3600 * S);
    set_alarm(f, 0x06, 0x00, 0x01);
    assert_int_equal(wait_for_alarm(f, 90000), 18 * 3600);
}

static void dont_care_values_match_anything(void **state)
{
    struct fixture *f = *state;

    set_alarm(f, 0xc0, 0xff, 0x30);
    assert_int_equal(wait_for_alarm(f, 4000), 29);
    assert_int_equal(wait_for_alarm(f, 4000), 60); /* each minute */
    set_alarm(f, 0xff, 0x10, 0x00);
    assert_int_equal(wait_for_alarm(f, 4000), 510);  /* 00:01:30 to 00:10 */
    assert_int_equal(wait_for_alarm(f, 4000), 3600); /* each hour */
    set_alarm(f, 0xff, 0xff, 0xff);
    assert_int_equal(wait_for_alarm(f, 4000), 1);
    assert_int_equal(wait_for_alarm(f, 4000), 1);
}

static void an_alarm_of_no_time_never_comes(void **state)
{
    struct fixture *f = *state;

    set_alarm(f, 0x24, 0xff, 0xff);
    assert_int_equal(fake_loop_armed(&f->loop), 0);
    pass(f, 100000 * S);
    assert_int_equal(get(f, C) & AF, 0);
}

static void an_alarm_in_twelve_hour_mode_knows_the_afternoon(void **state)
{
    struct fixture *f = *state;

    put(f, B, 0);
    set_alarm(f, 0x81, 0x00, 0x00); /* 1 p.m. */
    assert_int_equal(wait_for_alarm(f, 90000), 13 * 3600 - 1);
}

static void an_alarm_passed_unwatched_left_its_flag(void **state)
{
    struct fixture *f = *state;

    put(f, 5, 0x02);
    (void)get(f, C);
    pass(f, 3 * 3600 * S);
    assert_int_equal(get(f, C) & AF, AF);
}

static void a_paused_clock_drives_nothing_and_catches_up(void **state)
{
    struct fixture *f = *state;

    (void)get(f, C);
    put(f, B, H24 | UIE);
    device_pause(f->dev);
    assert_int_equal(fake_loop_armed(&f->loop), 0);
    pass(f, 5 * S);
    assert_false(irq(f)->level);
    device_resume(f->dev);
    assert_true(irq(f)->level);
    assert_time(f, "2026-01-01 00:00:06");
}

static void a_timer_that_fires_into_a_pause_is_harmless(void **state)
{
    struct fixture *f = *state;

    (void)get(f, C);
    put(f, B, H24 | UIE);
    uint64_t deadline = f->loop.timers[0].deadline_ns;
    device_pause(f->dev);
    f->loop.timers[0].deadline_ns = deadline; /* it was on its way */
    pass(f, 5 * S);
    assert_int_equal(f->loop.fired, 1);
    assert_false(irq(f)->level);
}

static void a_restored_clock_shows_the_time_of_its_new_host(void **state)
{
    struct fixture *f = *state;
    struct writer w = {0};
    struct device *target;
    struct fake_platform fake;
    struct error err;

    pass(f, 400 * MS);
    put(f, A, DIVIDER_RESET | RATE_1024);
    put(f, 4, 0x12);               /* 12 hours ahead, */
    put(f, A, NORMAL | RATE_1024); /* and 100 ms in phase */
    put(f, B, H24 | AIE);
    put(f, 5, 0x14);
    device_pause(f->dev);
    assert_int_equal(state_save(f->dev->ops->state, f->dev, &w, &err), 0);

    f->step_ns = (int64_t)(3600 * S); /* an hour later */
    fake_platform_init(&fake);
    assert_int_equal(rtc_create_with_clock(&fake.platform, (struct loop *)&f->loop, INDEX, GSI,
                                           clock_of, f, &target, &err),
                     0);
    device_pause(target);
    struct reader r = {.data = w.data, .len = w.len};
    assert_int_equal(state_load(target->ops->state, target, &r, &err), 0);
    device_resume(target);
    fake_outb(&fake, INDEX, 4);
    assert_int_equal(fake_inb(&fake, DATA), 0x13);
    fake_outb(&fake, INDEX, 0);
    assert_int_equal(fake_inb(&fake, DATA), 0x01);
    pass(f, 500 * MS);
    assert_int_equal(fake_inb(&fake, DATA), 0x02);
    assert_false(fake.irqs[GSI].level);
    pass(f, 3600 * S);
    assert_true(fake.irqs[GSI].level);
    device_destroy(target);
    free(w.data);
}

static void a_timer_that_cannot_be_had_is_told(void **state)
{
    struct fixture f = {0};
    struct error err;

    (void)state;
    fake_platform_init(&f.fake);
    struct loop *loop = fake_loop_init(&f.loop);
    f.loop.fails = true;
    assert_int_equal(rtc_create(&f.fake.platform, loop, INDEX, GSI, &f.dev, &err), -EMFILE);
    assert_string_equal(err.msg, "rtc: no timer, as the test wants it");
    assert_null(f.dev);
    assert_int_equal(f.fake.map_count, 0);
}

static void the_hosts_own_clock_is_utc(void **state)
{
    struct fixture f = {0};
    struct error err;
    struct tm tm;
    time_t before, after;

    (void)state;
    fake_platform_init(&f.fake);
    assert_int_equal(
        rtc_create(&f.fake.platform, fake_loop_init(&f.loop), INDEX, GSI, &f.dev, &err), 0);
    put(&f, B, SET | H24 | BINARY);
    time(&after);
    tm = (struct tm){.tm_sec = get(&f, 0),
                     .tm_min = get(&f, 2),
                     .tm_hour = get(&f, 4),
                     .tm_mday = get(&f, 7),
                     .tm_mon = get(&f, 8) - 1,
                     .tm_year = get(&f, CENTURY) * 100 + get(&f, 9) - 1900};
    before = timegm(&tm);
    assert_true(after - before >= 0 && after - before <= 2);
    device_destroy(f.dev);
}

/* Conformance */

static int create(void *opaque, struct platform *platform, struct device **ret_dev,
                  struct error *err)
{
    struct fixture *f = opaque;

    return rtc_create_with_clock(platform, (struct loop *)&f->loop, INDEX, GSI, clock_of, f,
                                 ret_dev, err);
}

static void disturb(void *opaque, struct device *dev, uint32_t random)
{
    struct fixture *f = opaque;

    (void)dev;
    if (random % 16 == 0)
        f->step_ns += (int64_t)(random >> 8) * 1000 - (int64_t)(8 * S);
    else
        pass(f, (random >> 8) * US);
}

static void it_conforms(void **state)
{
    static struct fixture f;

    (void)state;
    fake_loop_init(&f.loop);
    conformance_run(&(struct conformance_case){.create = create, .disturb = disturb, .opaque = &f});
    assert_int_equal(fake_loop_timers(&f.loop), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(it_starts_with_the_hosts_time_in_bcd),
        TEST(time_goes_by),
        TEST(binary_mode_reads_in_binary),
        TEST(twelve_hour_mode_counts_from_12_and_marks_the_afternoon),
        TEST(bit_7_of_the_index_is_ignored),
        TEST(the_index_port_is_write_only),
        TEST(register_d_says_that_the_battery_is_good),
        TEST(cmos_ram_survives_a_reset),
        TEST(uip_is_on_244_us_before_a_second_ends),
        TEST(set_stops_the_clock_and_lets_it_be_set),
        TEST(a_register_written_while_the_clock_runs_changes_it),
        TEST(linux_sets_the_time_and_the_phase),
        TEST(set_alone_keeps_the_phase),
        TEST(the_time_that_was_set_survives_a_reset),
        TEST(a_reset_in_the_middle_of_setting_starts_the_clock),
        TEST(any_date_reads_back_as_it_was_set),
        TEST(weekdays_agree_with_the_c_library),
        TEST(what_no_calendar_has_is_carried_over),
        TEST(the_hosts_clock_set_back_raises_no_flag),
        TEST(flags_rise_without_interrupts_and_fall_when_read),
        TEST(an_idle_clock_arms_no_timer),
        TEST(the_update_interrupt_comes_each_second),
        TEST(an_interrupt_that_nobody_serves_wakes_nobody_again),
        TEST(a_flag_that_is_up_interrupts_when_it_is_enabled),
        TEST(set_clears_the_update_interrupt_enable),
        TEST(the_periodic_interrupt_has_the_rate_of_register_a),
        TEST(periodic_ticks_that_were_missed_are_one),
        TEST(an_alarm_comes_once_a_day_at_its_time),
        TEST(an_alarm_earlier_in_the_day_comes_tomorrow),
        TEST(dont_care_values_match_anything),
        TEST(an_alarm_of_no_time_never_comes),
        TEST(an_alarm_in_twelve_hour_mode_knows_the_afternoon),
        TEST(an_alarm_passed_unwatched_left_its_flag),
        TEST(a_paused_clock_drives_nothing_and_catches_up),
        TEST(a_timer_that_fires_into_a_pause_is_harmless),
        TEST(a_restored_clock_shows_the_time_of_its_new_host),
        cmocka_unit_test(a_timer_that_cannot_be_had_is_told),
        cmocka_unit_test(the_hosts_own_clock_is_utc),
        cmocka_unit_test(it_conforms),
    };

    return cmocka_run_group_tests_name("rtc", tests, NULL, NULL);
}
