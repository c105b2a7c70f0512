/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bucket: tokens as time. What is taken costs units / rate of time, behind what was taken before;
 * as long as that runs ahead of the clock by less than the slack, the next one is admitted.
 *
 * The one thing to know: nothing counts down and nothing is filled up. A bucket that nobody asks
 * costs nothing, and one that is asked late has lost no tokens but those that did not fit in.
 */
#include "vmrun/bucket.h"

#define SECOND_NS UINT64_C(1000000000)
#define DEFAULT_SLACK_NS UINT64_C(100000000)
#define LEAST_SLACK_NS UINT64_C(10000000)
#define MOST_SLACK_S UINT64_C(100000000) /* three years */

static uint64_t slack_of(uint64_t rate, uint64_t burst)
{
    uint64_t slack_ns = DEFAULT_SLACK_NS;

    /* In two steps: burst * SECOND_NS may be more than 64 bits. */
    if (burst / rate >= MOST_SLACK_S)
        return MOST_SLACK_S * SECOND_NS;
    if (burst)
        slack_ns = burst / rate * SECOND_NS +
                   (uint64_t)((double)(burst % rate) * (double)SECOND_NS / (double)rate);
    return slack_ns > LEAST_SLACK_NS ? slack_ns : LEAST_SLACK_NS;
}

void bucket_set(struct bucket *bucket, uint64_t rate, uint64_t burst, bool full, uint64_t now_ns)
{
    *bucket = (struct bucket){.rate = rate};
    if (rate)
        bucket->slack_ns = slack_of(rate, burst);
    if (!full)
        bucket->paid_ns = now_ns + bucket->slack_ns;
}

uint64_t bucket_wait(const struct bucket *bucket, uint64_t now_ns)
{
    if (!bucket->rate || bucket->paid_ns <= now_ns + bucket->slack_ns)
        return 0;
    return bucket->paid_ns - bucket->slack_ns;
}

void bucket_take(struct bucket *bucket, uint64_t units, uint64_t now_ns)
{
    uint64_t cost;

    if (!bucket->rate)
        return;
    if (bucket->paid_ns < now_ns) {
        bucket->paid_ns = now_ns;
        bucket->rest = 0;
    }
    cost = units * SECOND_NS + bucket->rest;
    bucket->paid_ns += cost / bucket->rate;
    bucket->rest = cost % bucket->rate;
}
