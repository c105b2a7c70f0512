/* SPDX-License-Identifier: Apache-2.0 */
/*
 * histogram: a time's bucket is its highest bit and the two bits behind it.
 *
 * The one thing to know: the buckets' limits are told to whoever asks for statistics, and they keep
 * them; other limits would not add up with those of yesterday.
 */
#include "vmrun/histogram.h"

#include <assert.h>

static_assert(HISTOGRAM_STEPS == 4, "two bits say which of the steps it is");

static unsigned bucket_of(uint64_t ns)
{
    unsigned bit;

    if (ns >> HISTOGRAM_FIRST_BIT == 0)
        return 0;
    if (ns >> HISTOGRAM_LAST_BIT)
        return HISTOGRAM_BUCKETS - 1;
    bit = 63u - (unsigned)__builtin_clzll(ns);
    return 1 + (bit - HISTOGRAM_FIRST_BIT) * HISTOGRAM_STEPS + (unsigned)(ns >> (bit - 2) & 3);
}

static void store(uint64_t *at, uint64_t value)
{
    __atomic_store_n(at, value, __ATOMIC_RELAXED);
}

static uint64_t load(const uint64_t *at)
{
    return __atomic_load_n(at, __ATOMIC_RELAXED);
}

void histogram_add(struct histogram *histogram, uint64_t ns)
{
    uint64_t *bucket = &histogram->buckets[bucket_of(ns)];

    store(bucket, *bucket + 1);
    if (ns > histogram->max_ns)
        store(&histogram->max_ns, ns);
}

uint64_t histogram_limit_ns(unsigned bucket)
{
    unsigned bit, step;

    if (bucket == 0)
        return (UINT64_C(1) << HISTOGRAM_FIRST_BIT) - 1;
    if (bucket >= HISTOGRAM_BUCKETS - 1)
        return INT64_MAX; /* JSON's largest */
    bit = HISTOGRAM_FIRST_BIT + (bucket - 1) / HISTOGRAM_STEPS;
    step = (bucket - 1) % HISTOGRAM_STEPS;
    return (UINT64_C(1) << bit) + (UINT64_C(1) << (bit - 2)) * (step + 1) - 1;
}

void histogram_tell(const struct histogram *histogram, histogram_fn *fn, void *opaque)
{
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
        uint64_t count = load(&histogram->buckets[i]);

        if (count)
            fn(opaque, histogram_limit_ns(i), count);
    }
}

uint64_t histogram_max_ns(const struct histogram *histogram)
{
    return load(&histogram->max_ns);
}
