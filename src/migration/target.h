/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MIGRATION_TARGET_H
#define MIGRATION_TARGET_H

/* The side that is given a machine: what target.c, which decides, and target_ram.c share. */
#include <pthread.h>
#include <stdatomic.h>

#include "handover.h"
#include "hello.h"
#include "pages.h"
#include "vmrun/log.h"

#define TARGET_LOOK_MS 100 /* between two looks at whether the source gave up meanwhile */

struct target_lane {
    struct receive *receive;
    struct frame_stream stream;
    pthread_t thread;
    bool started;
};

struct receive {
    struct channel_listener *listener; /* NULL: all channels are there */
    struct log_limit warned;           /* of strangers */
    char *url;
    struct hello hello;
    struct target_lane lanes[HELLO_MAX_CHANNELS];

    char *description;
    void *cpuid, *regions;
    size_t description_len, cpuid_len, regions_len;

    struct machine *machine;
    struct pages_target pages;
    struct zstd zstd;
    enum target_state at;
    uint64_t mark_ns, marked_ns; /* how long the clock had stood still; when that was */
    uint64_t commit_ns;          /* when COMMIT was heard */
    bool paused;                 /* there, by a person */

    atomic_bool ended;        /* by a person, or it is too late for that: whoever sets it first */
    atomic_bool control_done; /* the first channel has said all that it had */
    pthread_mutex_t lock;
    struct error error; /* lock: the first that a lane met */
};

static inline struct frame_stream *target_control(struct receive *r)
{
    return &r->lanes[0].stream;
}

/* As hello_receive(), and not for long. */
int target_hear_hello(struct frame_stream *stream, struct hello *ret_hello, struct error *err);
/* The other connections of the same move. */
int target_join(struct receive *r, struct error *err);
/* Until there was a MARK on all of them. */
int target_receive_ram(struct receive *r, struct error *err);
/* For machine_load_state(): the guest's clock stood still on two hosts whose own need not agree. */
uint64_t target_advance(void *opaque, uint64_t when_ns);

/* The frame's body, malloc()ed with room for one byte more; the caller frees it, failed or not. */
int target_take_body(struct frame_stream *stream, const struct frame *frame, char **ret_body,
                     struct error *err);
/* That frame is an EXTRA; what nobody knows here is passed over. */
int target_take_extra(struct receive *r, const struct frame *frame, struct error *err);
/* That frame is a REFUSED. Errors: -ECONNREFUSED, its words. */
int target_hear_refusal(struct frame_stream *stream, const struct frame *frame, struct error *err);
/* The source speaks, or is gone, where it had nothing to say but why it gave up. */
int target_hear_end(struct receive *r, struct error *err);

#endif
