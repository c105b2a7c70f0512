/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CHANNEL_PAIR_H
#define CHANNEL_PAIR_H

/*
 * Two ends of one connection in this process, and threads that send and receive a known stream in
 * parts of uneven lengths.
 */
#include <pthread.h>

#include "../../../src/migration/channel.h"

#define PAIR_WAIT_MS 20000

struct channel_pair {
    struct channel_listener *listener;
    struct channel *near, *far; /* who connected, who accepted; NULL: could not */
    int near_result, far_result;
    struct error near_err, far_err;
};

struct flow {
    struct channel *channel;
    uint64_t bytes;
    bool out;
    unsigned seed; /* the same at both ends */
    pthread_t thread;
    uint64_t moved;
    bool wrong; /* other bytes came */
    int result;
    struct error err;
};

/* Both sides, whatever becomes of it. url: what to listen on; the port may be 0. */
void channel_pair_try(struct channel_pair *p, const struct channel_security *near,
                      const struct channel_security *far, const char *url);
/* As that, and the test fails if it does not work. */
void channel_pair_open(struct channel_pair *p, const struct channel_security *near,
                       const struct channel_security *far);
void channel_pair_close(struct channel_pair *p);

/* The test fails when r < 0. */
void channel_ok(int r, const struct error *err);
int channel_send_text(struct channel *channel, const char *text, struct error *err);
/* The test fails if anything but that text comes. */
void channel_expect_text(struct channel *channel, const char *text);

uint64_t channel_pair_now_ms(void);
void channel_pair_rest(unsigned ms);

void flow_start(struct flow *f);
/* Waits for it; the test fails if it did. */
void flow_finish(struct flow *f);

#endif
