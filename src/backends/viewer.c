/* SPDX-License-Identifier: Apache-2.0 */
/* viewer: a position in the scrollback, and a descriptor that may be slow. */
#include "viewer.h"

#include <errno.h>
#include <stdio.h>

void wait_for(struct waiting *w, uint32_t events)
{
    if (w->watch && w->events != events)
        loop_watch_set(w->watch, events ? events : WAIT_NOTHING);
    w->events = events;
}

bool viewer_is_passing(ssize_t r)
{
    return r == -EAGAIN || r == -EINTR;
}

/* A sink is watched only once it was full; /dev/null and files never are. */
static void wait_for_room(struct viewer *v, struct loop *loop)
{
    struct error err;

    if (!v->wait.watch && loop_watch_create(loop, v->out.fd, WAIT_NOTHING, NULL, v->ready, v,
                                            &v->wait.watch, &err) < 0) {
        log_warn_limited(&v->log_limit, "console: %s", err.msg);
        return;
    }
    wait_for(&v->wait, v->wait.events | EPOLLOUT);
}

/* Tell a viewer that fell out of the scrollback what it missed. Returns as output_write(). */
static ssize_t skip_lost(struct viewer *v, uint64_t tail)
{
    char line[80];
    int len = snprintf(line, sizeof(line), "\r\n[vmrun: %llu bytes of output left out]\r\n",
                       (unsigned long long)(tail - v->at));
    ssize_t n = output_write(&v->out, line, (size_t)len);

    if (n > 0)
        v->at = tail;
    return n;
}

static ssize_t give_piece(struct viewer *v, const struct scrollback *s)
{
    size_t len;

    if (v->at < scrollback_tail(s))
        return skip_lost(v, scrollback_tail(s));
    const uint8_t *data = scrollback_peek(s, v->at, &len);
    ssize_t n = output_write(&v->out, data, len);
    if (n > 0)
        v->at += (uint64_t)n;
    return n;
}

int viewer_flush(struct viewer *v, const struct scrollback *s, struct loop *loop, uint64_t now_ns)
{
    while (v->at < s->head) {
        ssize_t n = give_piece(v, s);

        if (viewer_is_passing(n)) {
            if (!v->behind)
                v->progress_ns = now_ns;
            v->behind = true;
            wait_for_room(v, loop);
            return 0;
        }
        if (n <= 0)
            return n < 0 ? (int)n : -EIO;
        v->progress_ns = now_ns;
        v->stalled = false;
    }
    v->behind = false;
    wait_for(&v->wait, v->wait.events & EPOLLIN);
    return 0;
}
