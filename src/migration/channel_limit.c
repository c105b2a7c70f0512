/* SPDX-License-Identifier: Apache-2.0 */
/*
 * channel_limit: when the next byte may go.
 *
 * The limit is one instant: until then nothing goes, and what goes moves it on by the time that it
 * is worth. So many senders share it without knowing of each other, and the rate is exact. A sender
 * that comes a little late, because it slept or waited for a CPU, catches up; one that comes later
 * had nothing to send, and has saved up nothing.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "channel_internal.h"

#define NS_PER_S UINT64_C(1000000000)
#define LATE_NS (NS_PER_S / 10)
#define MOST_BYTES_PER_S (UINT64_C(1) << 37) /* as good as none */

struct channel_limit {
    pthread_mutex_t lock;
    uint64_t bytes_per_second; /* 0: none */
    uint64_t next_ns;
};

int channel_limit_create(uint64_t bytes_per_second, struct channel_limit **ret_limit,
                         struct error *err)
{
    struct channel_limit *limit = calloc(1, sizeof(*limit));

    if (!limit)
        return error_set(err, ENOMEM, "out of memory");
    pthread_mutex_init(&limit->lock, NULL);
    channel_limit_set(limit, bytes_per_second);
    *ret_limit = limit;
    return 0;
}

void channel_limit_set(struct channel_limit *limit, uint64_t bytes_per_second)
{
    pthread_mutex_lock(&limit->lock);
    limit->bytes_per_second = bytes_per_second > MOST_BYTES_PER_S ? 0 : bytes_per_second;
    limit->next_ns = 0; /* what goes on was worth another time at the old rate */
    pthread_mutex_unlock(&limit->lock);
}

size_t channel_limit_take(struct channel_limit *limit, uint64_t now_ns, size_t want,
                          uint64_t *ret_wait_ns)
{
    uint64_t rate;

    pthread_mutex_lock(&limit->lock);
    rate = limit->bytes_per_second;
    if (rate && now_ns < limit->next_ns) {
        *ret_wait_ns = limit->next_ns - now_ns;
        want = 0;
    } else if (rate) {
        uint64_t slice = rate / CHANNEL_LIMIT_SLICES_PER_S ? rate / CHANNEL_LIMIT_SLICES_PER_S : 1;

        want = want < slice ? want : (size_t)slice;
        if (now_ns - limit->next_ns > LATE_NS)
            limit->next_ns = now_ns;
        limit->next_ns += want * NS_PER_S / rate;
    }
    pthread_mutex_unlock(&limit->lock);
    return want;
}

void channel_limit_destroy(struct channel_limit *limit)
{
    if (!limit)
        return;
    pthread_mutex_destroy(&limit->lock);
    free(limit);
}
