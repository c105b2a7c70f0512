/* SPDX-License-Identifier: Apache-2.0 */
/* bucket: how much is admitted, by a clock that the test holds in its hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "vmrun/bucket.h"

#define MS UINT64_C(1000000)
#define SECOND (1000 * MS)
#define START (UINT64_C(1) << 40) /* a clock that has run for a while */

/* Whoever wants `unit` at a time takes all that he can get until then. Returns units. */
static uint64_t take_all(struct bucket *b, uint64_t unit, uint64_t *now_ns, uint64_t until_ns,
                         uint64_t late_ns)
{
    uint64_t taken = 0;

    for (;;) {
        uint64_t when = bucket_wait(b, *now_ns);

        if (when && when + late_ns > until_ns)
            break;
        if (when) {
            assert_true(when > *now_ns);
            *now_ns = when + late_ns;
            continue;
        }
        bucket_take(b, unit, *now_ns);
        taken += unit;
    }
    *now_ns = until_ns;
    return taken;
}

static void assert_about(uint64_t got, uint64_t meant)
{
    assert_in_range(got, meant - meant / 100 - 1, meant + meant / 100 + 1);
}

static void without_a_rate_all_are_admitted(void **state)
{
    struct bucket b = {0};

    (void)state;
    bucket_take(&b, BUCKET_MAX_TAKE, START);
    assert_int_equal(bucket_wait(&b, START), 0);
    bucket_set(&b, 0, 500, false, START);
    bucket_take(&b, BUCKET_MAX_TAKE, START);
    assert_int_equal(bucket_wait(&b, START), 0);
}

static void the_rate_holds_whatever_it_is_and_whatever_is_taken_at_once(void **state)
{
    static const uint64_t rates[] = {1, 3, 100, 7919, 1000000, 125000000, 12500000000};
    static const uint64_t units[] = {1, 60, 1514, 4096, 65536};

    (void)state;
    for (size_t i = 0; i < sizeof(rates) / sizeof(rates[0]); i++)
        for (size_t j = 0; j < sizeof(units) / sizeof(units[0]); j++) {
            uint64_t now = START, seconds = 10 * units[j] / rates[i] + 1;
            struct bucket b;

            if (rates[i] / units[j] > 100000)
                continue; /* the same, but a test of minutes */
            bucket_set(&b, rates[i], 0, false, now);
            uint64_t taken = take_all(&b, units[j], &now, now + seconds * SECOND, 0);
            assert_in_range(taken, seconds * rates[i] - units[j], seconds * rates[i] + units[j]);
        }
}

static void a_part_of_a_nanosecond_is_not_lost(void **state)
{
    uint64_t now = START;
    struct bucket b;

    (void)state;
    /* 60 bytes take 4.8 ns: rounded they would be 4 or 5. */
    bucket_set(&b, 12500000000, 0, false, now);
    for (unsigned i = 0; i < 1000000; i++)
        bucket_take(&b, 60, now);
    assert_int_equal(b.paid_ns - b.slack_ns - now, 4800000);
}

static void a_timer_that_is_late_takes_nothing_from_the_rate(void **state)
{
    uint64_t now = START;
    struct bucket b;

    (void)state;
    bucket_set(&b, 1000, 0, false, now);
    assert_about(take_all(&b, 1, &now, now + 10 * SECOND, 20 * MS), 10000);
    bucket_set(&b, 1000, 1, false, now); /* nor with a burst that is too small for it */
    assert_about(take_all(&b, 1, &now, now + 10 * SECOND, 9 * MS), 10000);
}

static void a_burst_is_as_large_as_was_said_and_comes_back_with_the_rate(void **state)
{
    uint64_t now = START;
    struct bucket b;

    (void)state;
    bucket_set(&b, 100, 500, true, now);
    assert_in_range(take_all(&b, 1, &now, now, 0), 500, 501);
    assert_about(take_all(&b, 1, &now, now + SECOND, 0), 100);
    now += 3 * SECOND; /* a rest, for 300 of them */
    assert_in_range(take_all(&b, 1, &now, now, 0), 299, 301);
    now += 60 * SECOND; /* and not more than there may be */
    assert_in_range(take_all(&b, 1, &now, now, 0), 500, 501);
}

static void what_is_larger_than_the_burst_goes_and_is_paid_afterwards(void **state)
{
    uint64_t now = START;
    struct bucket b;

    (void)state;
    bucket_set(&b, 1000, 100, true, now);
    bucket_take(&b, 5000, now);
    assert_int_equal(bucket_wait(&b, now), now + 4900 * MS);
    assert_int_equal(bucket_wait(&b, now + 4900 * MS), 0);
}

static void another_rate_holds_at_once_in_both_directions(void **state)
{
    uint64_t now = START;
    struct bucket b;

    (void)state;
    bucket_set(&b, 10, 0, true, now);
    bucket_take(&b, 1000000, now); /* a day's worth */
    bucket_set(&b, 1000, 0, false, now);
    assert_about(take_all(&b, 1, &now, now + 2 * SECOND, 0), 2000);
    bucket_set(&b, 50, 0, false, now);
    assert_about(take_all(&b, 1, &now, now + 2 * SECOND, 0), 100);
    bucket_set(&b, 0, 0, false, now);
    assert_int_equal(bucket_wait(&b, now), 0);
}

static void the_largest_numbers_do_not_run_over(void **state)
{
    struct bucket b;

    (void)state;
    bucket_set(&b, BUCKET_MAX_RATE, BUCKET_MAX_RATE, true, START);
    bucket_take(&b, BUCKET_MAX_TAKE, START);
    assert_in_range(b.paid_ns, START + 8589934, START + 8589935);
    bucket_set(&b, 1, BUCKET_MAX_RATE, true, START);
    assert_int_equal(b.slack_ns, UINT64_C(100000000) * SECOND);
    assert_int_equal(bucket_wait(&b, START), 0);
    bucket_take(&b, BUCKET_MAX_TAKE, START);
    assert_int_equal(b.paid_ns, START + BUCKET_MAX_TAKE * SECOND);
    assert_int_equal(bucket_wait(&b, START), b.paid_ns - b.slack_ns);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_rate_all_are_admitted),
        cmocka_unit_test(the_rate_holds_whatever_it_is_and_whatever_is_taken_at_once),
        cmocka_unit_test(a_part_of_a_nanosecond_is_not_lost),
        cmocka_unit_test(a_timer_that_is_late_takes_nothing_from_the_rate),
        cmocka_unit_test(a_burst_is_as_large_as_was_said_and_comes_back_with_the_rate),
        cmocka_unit_test(what_is_larger_than_the_burst_goes_and_is_paid_afterwards),
        cmocka_unit_test(another_rate_holds_at_once_in_both_directions),
        cmocka_unit_test(the_largest_numbers_do_not_run_over),
    };

    return cmocka_run_group_tests_name("bucket", tests, NULL, NULL);
}
