/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VIEWER_H
#define VIEWER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "scrollback.h"
#include "terminal.h"
#include "vmrun/log.h"
#include "vmrun/loop.h"

struct console;

/*
 * A watch and what it waits for. Epoll reports a hang-up even to who waits for
 * nothing, for ever: with EPOLLONESHOT alone it does so at most once.
 */
struct waiting {
    struct loop_watch *watch; /* NULL: none was needed yet, or fd cannot be polled */
    uint32_t events;
};
#define WAIT_NOTHING EPOLLONESHOT /* what to create a watch with whose events are 0 */
void wait_for(struct waiting *w, uint32_t events);

/* Somebody who reads the output: the sink, or a client. The console's lock guards it. */
struct viewer {
    struct console *console;
    struct output out;
    struct waiting wait;
    loop_watch_fn *ready; /* called with the viewer when it has room again */
    bool is_client;       /* it is a source of input, too; else it is the sink */
    bool may_stall, stalled;
    bool deaf;            /* a client whose output failed; what it sent is still read */
    bool behind;          /* it could not take all */
    uint64_t progress_ns; /* behind: when it last took something */
    uint64_t at;          /* position in the scrollback */
    uint8_t *pending;     /* a client's input that had been read before it was ours */
    size_t pending_len;
    struct log_limit log_limit;
    struct viewer *next;
};

/*
 * Give the viewer what it will take of s, and wait on the loop for room if that
 * is not all; where s has lost what it needs, a notice first. Returns 0, or
 * -errno when it will never take more.
 */
int viewer_flush(struct viewer *v, const struct scrollback *s, struct loop *loop, uint64_t now_ns);

/* Whether a read or a write is merely to be tried again. */
bool viewer_is_passing(ssize_t r);

#endif
