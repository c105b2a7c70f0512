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

/* What is known of a stop before it comes. */
struct source_prediction {
    bool rehearsed;
    uint64_t sync_ns;      /* to sync disks that were synced a moment ago */
    uint64_t call_ns;      /* until the machine's thread hears */
    uint64_t began_ns;     /* when the rehearsal's stop did */
    uint64_t ended_ns;     /* when it was over */
    uint64_t rehearsed_ns; /* from there to the word that the state could be loaded */
    uint64_t answer_ns;    /* of that, there and back, without the loading */
    uint64_t extra_bytes;  /* beside the state: a console may have a megabyte to say */
    uint64_t mark_ns;      /* to lock a byte of each image */
    uint64_t arrived;      /* bytes, up to the beginning of this round */
    uint64_t rate;         /* bytes a second that arrived in one that was large enough */
    uint64_t link_rate;    /* that can, when we limit ourselves in the rounds; else 0 */
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
    uint64_t data_pages;
    struct source_prediction prediction;
    unsigned throttle; /* percent */
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
/* Before a move with a limit: what the network can do without it. */
int source_try_link(struct source *s, struct error *err);
/* Connect all lanes; when it returns 0 a machine is built there. */
int source_prepare(struct source *s, struct error *err);

/* Before each round, and after it: what arrives, and what a stop would take if it came now. */
void source_begin_round(struct source *s);
void source_measure_rate(struct source *s, const struct rounds_round *round);
uint64_t source_predict_pause(const struct source *s, const struct rounds_round *round);
/* Of that, what waits in this host's kernel, and passes by itself. */
uint64_t source_queue_ns(const struct source *s);
/* To the other side, or from there. */
uint64_t source_way_ns(const struct source *s);
/* Of a stop, what it takes however little is owed. */
uint64_t source_fixed_pause(const struct source *s);
/*
 * The stop would be too long. When that is not for what the guest writes, rest and rehearse once
 * more: it may have been a bad moment. Returns 1 then; 0 when it is the guest, and then also there
 * is a rehearsal now and then, for the other side takes silence for an end.
 */
int source_rehearse_again(struct source *s, struct error *err);

int source_send(struct source *s, enum frame_type type, const void *data, size_t len,
                struct error *err);
/* All that was to be sent before it was. since_ns: how long the guest's clock has stood still. */
int source_send_mark(struct frame_stream *stream, uint64_t since_ns, struct error *err);
int source_send_extras(struct source *s, struct error *err);
/* Those of before the stop, where the other side takes them: then there is little left for it. */
int source_send_early(struct source *s, struct error *err);
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
