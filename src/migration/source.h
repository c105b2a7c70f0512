/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MIGRATION_SOURCE_H
#define MIGRATION_SOURCE_H

/* The side that has the machine: what source.c, which decides, and source_link.c, which talks,
 * share. All of it belongs to the job's thread. */
#include "handover.h"
#include "hello.h"
#include "job.h"
#include "pages.h"

#define SOURCE_LOOK_MS 100 /* between two looks at whether it was cancelled */

struct source_lane {
    struct frame_stream stream;
    struct pages_sender sender;
};

struct source {
    struct job job;
    char *url;
    struct channel_security security;
    unsigned channels;
    uint64_t bandwidth;
    uint64_t max_pause_ns, timeout_ns;
    bool force; /* when time is up */

    struct hello hello;
    struct channel_limit *limit;
    struct zstd zstd;
    struct source_lane lanes[HELLO_MAX_CHANNELS];
    bool marked; /* the images, for the other side to see */

    struct writer state, cpuid;
    struct job_extras extras;
    char *description;
    uint64_t times; /* of the images, when they were given up */
    enum source_state at;
    bool has_arbiter;
    struct error why; /* of what ended it */
    struct migration_round round[MIGRATION_MAX_ROUNDS];
    uint64_t stood_ns; /* when it came to stand still */
    bool ran;          /* until then */
    uint64_t zero_pages;
    bool rehearsed;
    uint64_t rehearsed_ns; /* to stop, take the state, and load it there */
    unsigned throttle;     /* percent */
};

static inline struct machine *source_machine(const struct source *s)
{
    return s->job.migration->machine;
}

static inline struct frame_stream *source_control(struct source *s)
{
    return &s->lanes[0].stream;
}

/* Copies; a failure leaves what free_source() copes with. Errors: -ENOMEM. */
int source_copy_params(struct source *s, const struct migration_move *params, struct error *err);
/*
 * A stop of half a millisecond, whose state the other side loads and reads back: so it is known
 * before the machine is given up that it can be, and how long that takes.
 */
int source_rehearse(struct source *s, struct error *err);
/* In the place of a move: source_check.c. */
int source_check(struct source *s, struct error *err);
/* Connect all lanes; when it returns 0 a machine is built there. */
int source_prepare(struct source *s, struct error *err);

int source_send(struct source *s, enum frame_type type, const void *data, size_t len,
                struct error *err);
/* All that was to be sent before it was. since_ns: how long the guest's clock has stood still. */
int source_send_mark(struct frame_stream *stream, uint64_t since_ns, struct error *err);
int source_send_extras(struct source *s, struct error *err);
/* Until there is something to hear. what: for people. Errors: -ECANCELED; -ETIMEDOUT. */
int source_await(struct source *s, int timeout_ms, bool cancellable, const char *what,
                 struct error *err);
/* It speaks when nothing was asked: it can only refuse. Errors: -ECONNREFUSED, its words. */
int source_hear_refusal(struct source *s, struct error *err);
/*
 * What is wrong when something could not be sent: the other side may have said why, and that says
 * more than a broken pipe. Returns err's code.
 */
int source_last_words(struct source *s, struct error *err);

#endif
