/* SPDX-License-Identifier: Apache-2.0 */
/*
 * target_ram: what comes before the machine stands still there: the other connections, RAM on all
 * of them, and the rehearsal.
 */
#include "target.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "snapfile_format.h"
#include "vmrun/log.h"
#include "vmrun/thread.h"

#define HELLO_MS 5000 /* a stranger who says nothing keeps the others waiting */
#define JOIN_MS 10000 /* for the other channels to come */
#define LAST_WORDS_MS 1000
#define LAST_WORDS_LOOK_MS 10

int target_hear_hello(struct frame_stream *stream, struct hello *ret_hello, struct error *err)
{
    int result;

    channel_set_patience(stream->channel, HELLO_MS);
    result = hello_receive(stream, ret_hello, err);
    channel_set_patience(stream->channel, -1);
    return result;
}

/* The source speaks, or is gone, where it had nothing to say but why it gave up. */
int target_hear_end(struct receive *r, struct error *err)
{
    void *body;
    size_t len;
    int result = frame_expect(target_control(r), FRAME_REFUSED, &body, &len, err);

    if (result < 0)
        return result;
    result = frame_refusal(body, len, err);
    free(body);
    return result;
}

/* One of the others that knocks: of the same move, or sent away. */
static void admit(struct receive *r, struct frame_stream *stream)
{
    struct hello hello;
    struct error err;
    int result = target_hear_hello(stream, &hello, &err);

    if (result == 0 && (memcmp(hello.session, r->hello.session, sizeof(hello.session)) != 0 ||
                        hello.channels != r->hello.channels || hello.channel == 0 ||
                        r->lanes[hello.channel].stream.channel))
        result = error_set(&err, EBUSY, "another machine is being received here");
    if (result == 0)
        result = hello_welcome(stream, &r->hello, &err);
    if (result == 0) {
        /* Rounds may have nothing for it for long; when the first one breaks it is interrupted. */
        channel_set_timeout(stream->channel, -1);
        r->lanes[hello.channel].stream = *stream;
        return;
    }
    log_warn_limited(&r->warned, "%s: somebody was sent away: %s", r->url, err.msg);
    frame_refuse(stream, &err);
    channel_destroy(stream->channel);
}

static unsigned joined(const struct receive *r)
{
    unsigned count = 0;

    for (unsigned i = 0; i < r->hello.channels; i++)
        count += r->lanes[i].stream.channel != NULL;
    return count;
}

/*
 * The other connections of the same move, whoever else may knock. Afterwards nobody is listened to,
 * so that who comes then hears of it at once.
 */
int target_join(struct receive *r, struct error *err)
{
    uint64_t end = loop_now_ns() + (uint64_t)JOIN_MS * 1000000;
    unsigned count;

    while ((count = joined(r)) < r->hello.channels) {
        struct frame_stream stream = {.channel = NULL};
        int result = channel_accept(r->listener, TARGET_LOOK_MS, &stream.channel, err);

        if (result == 0) {
            admit(r, &stream);
            if (joined(r) > count)
                end = loop_now_ns() + (uint64_t)JOIN_MS * 1000000;
            continue;
        }
        if (result != -EPROTO && result != -ETIMEDOUT)
            return result;
        /* Nothing but a refusal comes before all are there. */
        if (channel_readable(target_control(r)->channel, 0))
            return target_hear_end(r, err);
        if (loop_now_ns() > end)
            return error_set(err, ETIMEDOUT, "%s: of its %u connections %u have not come for %u s",
                             r->url, r->hello.channels, r->hello.channels - count, JOIN_MS / 1000);
    }
    channel_listener_destroy(r->listener);
    r->listener = NULL;
    return 0;
}

/* The frame's body; the caller frees it, failed or not. */
int target_take_body(struct frame_stream *stream, const struct frame *frame, char **ret_body,
                     struct error *err)
{
    int result;

    *ret_body = malloc((size_t)frame->length + 1);
    if (!*ret_body)
        return error_set(err, ENOMEM, "out of memory");
    result = frame_recv_body(stream, &(struct iovec){*ret_body, frame->length}, 1, err);
    return result == 0 ? frame_recv_end(stream, err) : result;
}

/* The other side gave up, and says why. */
int target_hear_refusal(struct frame_stream *stream, const struct frame *frame, struct error *err)
{
    char *body = NULL;
    int result = target_take_body(stream, frame, &body, err);

    if (result == 0)
        result = frame_refusal(body, frame->length, err);
    free(body);
    return result;
}

static int hear_mark(struct receive *r, struct frame_stream *stream, struct error *err)
{
    uint8_t mark[8];
    int result = frame_recv_body(stream, &(struct iovec){mark, sizeof(mark)}, 1, err);

    if (result == 0)
        result = frame_recv_end(stream, err);
    if (result == 0 && stream == target_control(r)) {
        r->mark_ns = snapfile_get_le(mark, sizeof(mark));
        r->marked_ns = loop_now_ns();
    }
    return result;
}

/* The guest's clock stood still on two hosts whose own clocks need not agree. */
uint64_t target_advance(void *opaque, uint64_t when_ns)
{
    const struct receive *r = opaque;

    (void)when_ns;
    return r->mark_ns + (loop_now_ns() - r->marked_ns);
}

/* The state as it is now, so that both sides know that it can be loaded, and how fast. */
static int rehearse(struct receive *r, struct frame_stream *stream, const struct frame *frame,
                    struct error *err)
{
    uint64_t start;
    char *state = NULL;
    int result = target_take_body(stream, frame, &state, err);

    start = loop_now_ns();
    r->marked_ns = start;
    if (result == 0)
        result = machine_load_state(r->machine, state, frame->length, target_advance, r, err);
    free(state);
    return result < 0
               ? result
               : hello_send_json(stream, FRAME_REHEARSED,
                                 json_pack("{s:I}", "load_ns", (json_int_t)(loop_now_ns() - start)),
                                 err);
}

static int answer_ping(struct frame_stream *stream, const struct frame *frame, struct error *err)
{
    char *body = NULL;
    int result = target_take_body(stream, frame, &body, err);

    if (result == 0)
        result = frame_send(stream, FRAME_PONG, 0, &(struct iovec){body, frame->length}, 1, err);
    free(body);
    return result;
}

int receive_check(struct receive *r, struct error *err)
{
    int result = hello_send_json(target_control(r), FRAME_PREPARED, json_pack("{}"), err);

    while (result == 0) {
        struct frame frame = {0};

        result = frame_recv(target_control(r), &frame, err);
        if (result == 0 && frame.type == FRAME_MARK) /* all is known */
            return hear_mark(r, target_control(r), err);
        if (result == 0 && frame.type == FRAME_PING)
            result = answer_ping(target_control(r), &frame, err);
        else if (result == 0 && frame.type == FRAME_REHEARSAL)
            result = rehearse(r, target_control(r), &frame, err);
        else if (result == 0)
            result = frame.type == FRAME_REFUSED
                         ? target_hear_refusal(target_control(r), &frame, err)
                         : error_set(err, EPROTO, "frame %u (%s) came in a check", frame.number,
                                     frame_name(frame.type));
    }
    if (result != -ECONNREFUSED)
        receive_refuse(r, err);
    return result;
}

/* Until its MARK. */
static int receive_pages(struct receive *r, struct frame_stream *stream, struct error *err)
{
    for (;;) {
        struct frame frame = {0};
        int result = frame_recv(stream, &frame, err);

        if (result == 0 && frame.type == FRAME_MARK)
            return hear_mark(r, stream, err);
        if (result == 0 && frame.type == FRAME_PAGES)
            result = pages_receive(&r->pages, stream, &frame, err);
        else if (result == 0 && frame.type == FRAME_REHEARSAL && stream == target_control(r))
            result = rehearse(r, stream, &frame, err);
        else if (result == 0 && frame.type == FRAME_PING && stream == target_control(r))
            result = answer_ping(stream, &frame, err);
        else if (result == 0 && frame.type == FRAME_EXTRA && stream == target_control(r))
            result = target_take_extra(r, &frame, err);
        else if (result == 0 && frame.type == FRAME_REFUSED)
            result = target_hear_refusal(stream, &frame, err);
        else if (result == 0)
            result = error_set(err, EPROTO, "frame %u (%s) came where PAGES were expected",
                               frame.number, frame_name(frame.type));
        if (result < 0)
            return result;
    }
}

/* The source closes all of them at once when it gives up, and only the first says why. */
static void await_control(struct receive *r)
{
    for (unsigned i = 0; i < LAST_WORDS_MS / LAST_WORDS_LOOK_MS && !atomic_load(&r->control_done);
         i++)
        nanosleep(&(struct timespec){.tv_nsec = LAST_WORDS_LOOK_MS * 1000000L}, NULL);
}

static void *work(void *opaque)
{
    struct target_lane *lane = opaque;
    struct receive *r = lane->receive;
    bool is_control = &lane->stream == target_control(r);
    struct error err;
    int result = receive_pages(r, &lane->stream, &err);

    if (is_control)
        atomic_store(&r->control_done, true);
    if (result == 0)
        return NULL;
    if (!is_control && (result == -EPIPE || result == -ECONNRESET))
        await_control(r);
    pthread_mutex_lock(&r->lock);
    if (!r->error.code || (is_control && result == -ECONNREFUSED))
        r->error = err;
    pthread_mutex_unlock(&r->lock);
    for (unsigned i = 0; i < r->hello.channels; i++)
        if (&r->lanes[i] != lane)
            channel_interrupt(r->lanes[i].stream.channel);
    return NULL;
}

int target_receive_ram(struct receive *r, struct error *err)
{
    int result = 0;

    for (unsigned i = 1; result == 0 && i < r->hello.channels; i++) {
        result = thread_start(&r->lanes[i].thread, "receive", 0, work, &r->lanes[i], err);
        r->lanes[i].started = result == 0;
    }
    if (result == 0)
        work(&r->lanes[0]);
    for (unsigned i = 1; i < r->hello.channels; i++) {
        if (result < 0)
            channel_interrupt(r->lanes[i].stream.channel);
        if (r->lanes[i].started)
            pthread_join(r->lanes[i].thread, NULL);
    }
    channel_end_interrupt(target_control(r)->channel); /* it has words to carry */
    if (result == 0 && r->error.code)
        *err = r->error;
    return result < 0 ? result : -r->error.code;
}
