/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMRUN_HISTOGRAM_H
#define VMRUN_HISTOGRAM_H

/*
 * How long things took: four buckets to each doubling, from a microsecond to a minute, so that what
 * is read off is wrong by a fifth at most. Adding costs no division and no loop. One thread at a
 * time adds; any thread reads meanwhile, and sees each bucket as it was at some moment.
 */

#include <stdint.h>

#define HISTOGRAM_STEPS 4u /* to a doubling */
#define HISTOGRAM_FIRST_BIT 10u
#define HISTOGRAM_LAST_BIT 36u
/* The first bucket is for what is shorter, the last one for what is longer. */
#define HISTOGRAM_BUCKETS ((HISTOGRAM_LAST_BIT - HISTOGRAM_FIRST_BIT) * HISTOGRAM_STEPS + 2)

struct histogram {
    uint64_t buckets[HISTOGRAM_BUCKETS];
    uint64_t max_ns;
};

void histogram_add(struct histogram *histogram, uint64_t ns);

/* The longest time that falls into a bucket; of the last one INT64_MAX. */
uint64_t histogram_limit_ns(unsigned bucket);

/* Called for each bucket with something in it, in order. */
typedef void histogram_fn(void *opaque, uint64_t limit_ns, uint64_t count);
void histogram_tell(const struct histogram *histogram, histogram_fn *fn, void *opaque);
uint64_t histogram_max_ns(const struct histogram *histogram); /* 0: nothing was added */

#endif
