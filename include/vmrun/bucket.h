/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMRUN_BUCKET_H
#define VMRUN_BUCKET_H

/*
 * A token bucket: so many units (requests, bytes) a second, and after a rest so many at once.
 *
 * Time is an argument, so it needs no clock and no thread of its own. Whoever is admitted takes as
 * much as it turns out to need, also more than there was; the next ones wait until that is paid.
 * Nobody is asked for a size beforehand. Any thread; one at a time for each bucket.
 */

#include <stdbool.h>
#include <stdint.h>

#define BUCKET_MAX_RATE UINT64_C(1000000000000) /* units a second, and units of a burst */
#define BUCKET_MAX_TAKE (UINT64_C(1) << 33)     /* units at once */

struct bucket {
    uint64_t rate;     /* units a second; 0: no limit */
    uint64_t slack_ns; /* how far what was taken may be ahead of the time: the burst, as time */
    uint64_t paid_ns;  /* what was taken is paid by then */
    uint64_t rest;     /* of the division, so that no part of a nanosecond is lost */
};

/*
 * burst 0: what comes in 100 ms. It is never less than what comes in 10 ms, or a timer that is late
 * would take away from the rate. full: as after a rest; else the rate holds from now on without a
 * burst, and what was taken too much before is forgotten. rate and burst: at most BUCKET_MAX_RATE.
 */
void bucket_set(struct bucket *bucket, uint64_t rate, uint64_t burst, bool full, uint64_t now_ns);

/* 0: somebody may take; else when (on now_ns' clock) somebody may. */
uint64_t bucket_wait(const struct bucket *bucket, uint64_t now_ns);

/* Who was admitted just now takes this; units: at most BUCKET_MAX_TAKE. */
void bucket_take(struct bucket *bucket, uint64_t units, uint64_t now_ns);

#endif
