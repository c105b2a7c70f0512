/* SPDX-License-Identifier: Apache-2.0 */
/* histogram: which bucket a time falls into, and what is told of them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "vmrun/histogram.h"

struct told {
    unsigned buckets;
    uint64_t limit_ns, count, all;
};

static void note(void *opaque, uint64_t limit_ns, uint64_t count)
{
    struct told *told = opaque;

    assert_true(!told->buckets || limit_ns > told->limit_ns);
    told->buckets++;
    told->limit_ns = limit_ns;
    told->count = count;
    told->all += count;
}

static struct told tell(const struct histogram *h)
{
    struct told told = {0};

    histogram_tell(h, note, &told);
    return told;
}

static void a_time_falls_into_the_first_bucket_that_holds_it(void **state)
{
    static const uint64_t times[] = {0,    1,    1023, 1024,    1279,          1280,   1535,
                                     1536, 2047, 2048, 1000000, 1234567890123, 1 << 30};

    (void)state;
    for (unsigned i = 0; i < sizeof(times) / sizeof(times[0]); i++) {
        struct histogram h = {0};
        unsigned bucket = 0;

        while (histogram_limit_ns(bucket) < times[i])
            bucket++;
        histogram_add(&h, times[i]);
        assert_int_equal(h.buckets[bucket], 1);
        assert_int_equal(histogram_max_ns(&h), times[i]);
    }
}

static void limits_grow_by_a_quarter_at_most(void **state)
{
    (void)state;
    assert_int_equal(histogram_limit_ns(0), 1023);
    for (unsigned i = 1; i < HISTOGRAM_BUCKETS - 1; i++) {
        uint64_t before = histogram_limit_ns(i - 1) + 1, limit = histogram_limit_ns(i) + 1;

        assert_true(limit > before && limit - before <= before / 4);
    }
    assert_int_equal(histogram_limit_ns(HISTOGRAM_BUCKETS - 2), (UINT64_C(1) << 36) - 1);
    assert_int_equal(histogram_limit_ns(HISTOGRAM_BUCKETS - 1), INT64_MAX);
}

static void only_buckets_with_something_in_them_are_told(void **state)
{
    struct histogram h = {0};

    (void)state;
    assert_int_equal(tell(&h).buckets, 0);
    for (unsigned i = 0; i < 1000; i++)
        histogram_add(&h, 50000);
    histogram_add(&h, UINT64_MAX);
    struct told told = tell(&h);
    assert_int_equal(told.buckets, 2);
    assert_int_equal(told.all, 1001);
    assert_int_equal(told.limit_ns, INT64_MAX);
    assert_int_equal(told.count, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_time_falls_into_the_first_bucket_that_holds_it),
        cmocka_unit_test(limits_grow_by_a_quarter_at_most),
        cmocka_unit_test(only_buckets_with_something_in_them_are_told),
    };

    return cmocka_run_group_tests_name("histogram", tests, NULL, NULL);
}
