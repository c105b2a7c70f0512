/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MIGRATION_HELLO_H
#define MIGRATION_HELLO_H

/* The first words of both sides on each channel: versions, and what belongs together. */
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "frame.h"
#include "rounds.h"

#define PROTOCOL_VERSION 1
#define PROTOCOL_OLDEST 1
#define HELLO_MAX_CHANNELS ROUNDS_MAX_WORKERS
/* The name of the EXTRA that says that the machine was paused, and is not to be started. */
#define HELLO_PAUSED "paused"

struct hello {
    uint8_t session[HANDOVER_SESSION_BYTES]; /* of this one move */
    unsigned channel, channels;
    bool check; /* it is not to move: only whether it could */
    bool zstd;  /* PAGES may be compressed: wanted, and then agreed upon */
    bool early; /* EXTRA may come among PAGES, and more of the same later: likewise */
};

/* A body that is JSON. Takes body; NULL is -ENOMEM. */
int hello_send_json(struct frame_stream *stream, enum frame_type type, json_t *body,
                    struct error *err);
/* Errors: those of frame_expect(); -EPROTO, it is no object. */
int hello_expect_json(struct frame_stream *stream, enum frame_type type, json_t **ret_body,
                      struct error *err);
/* Not a number, or negative: 0. */
uint64_t hello_number(const json_t *body, const char *name);

int hello_send(struct frame_stream *stream, const struct hello *hello, struct error *err);
/* Errors: as above; -ENOTSUP, no version that both know. */
int hello_receive(struct frame_stream *stream, struct hello *ret_hello, struct error *err);
/* hello: what is agreed upon. */
int hello_welcome(struct frame_stream *stream, const struct hello *hello, struct error *err);
/*
 * hello: what was wanted, and then what is agreed upon. Errors: as above; -ENOTSUP, the other side
 * cannot do what was asked for by a person.
 */
int hello_expect_welcome(struct frame_stream *stream, struct hello *hello, struct error *err);

#endif
