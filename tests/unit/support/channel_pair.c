/* SPDX-License-Identifier: Apache-2.0 */
#include "channel_pair.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "vmrun/thread.h"

#define PARTS 7
#define PART_BYTES ((size_t)100000)

static void *accept_one(void *opaque)
{
    struct channel_pair *p = opaque;

    p->far_result = channel_accept(p->listener, PAIR_WAIT_MS, &p->far, &p->far_err);
    return NULL;
}

void channel_pair_try(struct channel_pair *p, const struct channel_security *near,
                      const struct channel_security *far, const char *url)
{
    pthread_t thread;
    struct error err;
    char where[128];

    memset(p, 0, sizeof(*p));
    channel_ok(channel_listen(far, url, &p->listener, &err), &err);
    channel_ok(thread_start(&thread, "accept", 0, accept_one, p, &err), &err);
    /* The host as the url has it, and the port that it became. */
    snprintf(where, sizeof(where), "%.*s%s", (int)(strrchr(url, ':') - url), url,
             strrchr(channel_listener_url(p->listener), ':'));
    p->near_result = channel_connect(near, where, PAIR_WAIT_MS, &p->near, &p->near_err);
    pthread_join(thread, NULL);
}

void channel_pair_open(struct channel_pair *p, const struct channel_security *near,
                       const struct channel_security *far)
{
    channel_pair_try(p, near, far, "tcp://127.0.0.1:0");
    channel_ok(p->near_result, &p->near_err);
    channel_ok(p->far_result, &p->far_err);
}

void channel_pair_close(struct channel_pair *p)
{
    channel_destroy(p->near);
    channel_destroy(p->far);
    channel_listener_destroy(p->listener);
    memset(p, 0, sizeof(*p));
}

void channel_ok(int r, const struct error *err)
{
    if (r < 0)
        fail_msg("%s", err->msg);
}

int channel_send_text(struct channel *channel, const char *text, struct error *err)
{
    struct iovec iov = {(void *)text, strlen(text)};

    return channel_send(channel, &iov, 1, err);
}

void channel_expect_text(struct channel *channel, const char *text)
{
    char got[256] = "";
    struct iovec iov = {got, strlen(text)};
    struct error err;

    assert_true(strlen(text) < sizeof(got));
    channel_ok(channel_recv(channel, &iov, 1, &err), &err);
    assert_string_equal(got, text);
}

static uint32_t next(uint32_t *random)
{
    *random = *random * 1664525 + 1013904223;
    return *random >> 8;
}

/* Both ends cut the stream as they like: neither knows of the other's parts. */
static unsigned cut(struct flow *f, uint32_t *random, uint8_t *room, struct iovec *iov)
{
    uint64_t left = f->bytes - f->moved;
    unsigned used = 0;

    while (used < PARTS && left > 0) {
        size_t len = next(random) % (next(random) % 3 ? 60 : PART_BYTES);

        len = len < left ? len : (size_t)left;
        iov[used] = (struct iovec){room + used * PART_BYTES, len};
        left -= len;
        used++;
    }
    return used;
}

/* The stream's next bytes: written, or compared. */
static void walk(struct flow *f, uint64_t *at, const struct iovec *iov)
{
    uint8_t *bytes = iov->iov_base;

    for (size_t i = 0; i < iov->iov_len; i++, (*at)++) {
        uint8_t byte = (uint8_t)((*at * 2654435761U + f->seed) >> 13);

        if (f->out)
            bytes[i] = byte;
        else if (bytes[i] != byte)
            f->wrong = true;
    }
}

static void *flow_work(void *opaque)
{
    struct flow *f = opaque;
    uint8_t *room = calloc(PARTS, PART_BYTES);
    uint32_t random = f->seed + f->out;
    struct iovec iov[PARTS];
    uint64_t written = 0, read = 0;

    while (room && f->moved < f->bytes && f->result == 0) {
        unsigned count = cut(f, &random, room, iov);

        for (unsigned i = 0; i < count && f->out; i++)
            walk(f, &written, &iov[i]);
        f->result = f->out ? channel_send(f->channel, iov, count, &f->err)
                           : channel_recv(f->channel, iov, count, &f->err);
        for (unsigned i = 0; i < count && f->result == 0; i++) {
            if (!f->out)
                walk(f, &read, &iov[i]);
            f->moved += iov[i].iov_len;
        }
    }
    free(room);
    return NULL;
}

void flow_start(struct flow *f)
{
    struct error err;

    f->moved = 0;
    f->wrong = false;
    f->result = 0;
    channel_ok(thread_start(&f->thread, f->out ? "send" : "receive", 0, flow_work, f, &err), &err);
}

void flow_finish(struct flow *f)
{
    pthread_join(f->thread, NULL);
    channel_ok(f->result, &f->err);
    assert_false(f->wrong);
    assert_int_equal(f->moved, f->bytes);
}

uint64_t channel_pair_now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

void channel_pair_rest(unsigned ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L}, NULL);
}
