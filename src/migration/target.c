/* SPDX-License-Identifier: Apache-2.0 */
/*
 * target: the side that is given a machine.
 *
 *   RECEIVING ──all loaded──▶ LOADED ──COMMIT──▶ TAKING ──the locks──▶ RUNS
 *       │                        │                  │
 *       └──── anything wrong ────┴──────────────────┴──▶ GAVE UP, never to run
 *
 * The one thing to know: until the source has said COMMIT, and the locks are taken, the machine
 * belongs to the source; handover_target() alone says when that is. Everything that comes is
 * hostile, and nothing that was asked for by it outlives it.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "handover.h"
#include "hello.h"
#include "pages.h"
#include "snapfile_format.h"
#include "vmrun/log.h"
#include "vmrun/thread.h"

#define HELLO_MS 5000 /* a stranger who says nothing keeps the others waiting */
#define JOIN_MS 10000 /* for the other channels to come */
#define LOOK_MS 100   /* between two looks at whether the source gave up meanwhile */
#define MOVES_MS 15000
#define COMMIT_MS 60000
#define REGION_BYTES 16u /* of MEMORY, for each */

struct lane {
    struct receive *receive;
    struct frame_stream stream;
    pthread_t thread;
    bool started;
};

struct receive {
    struct channel_listener *listener; /* NULL: all channels are there */
    char *url;
    struct hello hello;
    struct lane lanes[HELLO_MAX_CHANNELS];

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

    pthread_mutex_t lock;
    struct error error; /* lock: the first that a lane met */
};

static struct frame_stream *control(struct receive *r)
{
    return &r->lanes[0].stream;
}

/* Before there is a machine */

int receive_listen(const char *url, const struct channel_security *security,
                   struct receive **ret_receive, struct error *err)
{
    struct receive *r = calloc(1, sizeof(*r));
    int result;

    if (!r)
        return error_set(err, ENOMEM, "out of memory");
    pthread_mutex_init(&r->lock, NULL);
    for (unsigned i = 0; i < HELLO_MAX_CHANNELS; i++)
        r->lanes[i].receive = r;
    result = channel_listen(security, url, &r->listener, err);
    if (result == 0) {
        r->url = strdup(channel_listener_url(r->listener));
        result = r->url ? 0 : error_set(err, ENOMEM, "out of memory");
    }
    if (result < 0) {
        receive_destroy(r);
        return result;
    }
    *ret_receive = r;
    return 0;
}

const char *receive_url(const struct receive *r)
{
    return r->url;
}

void receive_forget(struct receive *r)
{
    for (unsigned i = 0; i < HELLO_MAX_CHANNELS; i++) {
        channel_destroy(r->lanes[i].stream.channel);
        r->lanes[i].stream = (struct frame_stream){.channel = NULL};
    }
    free(r->description);
    free(r->cpuid);
    free(r->regions);
    r->description = NULL;
    r->cpuid = r->regions = NULL;
    pages_target_fini(&r->pages);
}

static int hear_hello(struct frame_stream *stream, struct hello *ret_hello, struct error *err)
{
    int result;

    channel_set_timeout(stream->channel, HELLO_MS);
    result = hello_receive(stream, ret_hello, err);
    channel_set_timeout(stream->channel, MOVES_MS);
    return result;
}

/* Errors: -EPROTO …, this one is to be sent away. */
static int hear_machine(struct receive *r, struct error *err)
{
    struct error ignored;
    void *text;
    int result = hear_hello(control(r), &r->hello, err);

    if (result == 0 && r->hello.channel != 0)
        result = error_set(err, EPROTO, "a channel of a move that nobody began");
    /* What is not installed here is not agreed upon. */
    if (result == 0 && r->hello.zstd && !r->zstd.library)
        r->hello.zstd = zstd_open(&r->zstd, &ignored) == 0;
    if (result == 0)
        result = hello_welcome(control(r), &r->hello, err);
    if (result == 0)
        result = frame_expect(control(r), FRAME_MACHINE, &text, &r->description_len, err);
    if (result == 0) {
        r->description = text;
        result = frame_expect(control(r), FRAME_CPUID, &r->cpuid, &r->cpuid_len, err);
    }
    if (result == 0)
        result = frame_expect(control(r), FRAME_MEMORY, &r->regions, &r->regions_len, err);
    return result;
}

int receive_accept(struct receive *r, const char **ret_description, size_t *ret_len,
                   struct error *err)
{
    for (;;) {
        int result = channel_accept(r->listener, -1, &control(r)->channel, err);

        if (result < 0 && result != -EPROTO)
            return result;
        if (result == 0)
            result = hear_machine(r, err);
        if (result == 0)
            break;
        if (control(r)->channel)
            frame_refuse(control(r), err);
        log_warn("%s: somebody was sent away: %s", receive_url(r), err->msg);
        receive_forget(r);
    }
    *ret_description = r->description;
    *ret_len = r->description_len;
    return 0;
}

bool receive_is_check(const struct receive *r)
{
    return r->hello.check;
}

const void *receive_cpuid(const struct receive *r, size_t *ret_len)
{
    *ret_len = r->cpuid_len;
    return r->cpuid;
}

void receive_refuse(struct receive *r, const struct error *why)
{
    if (control(r)->channel)
        frame_refuse(control(r), why);
}

/* The machine */

static int check_memory(const struct receive *r, const struct guest_memory *mem, struct error *err)
{
    struct reader regions = {.data = r->regions, .len = r->regions_len};
    bool same = r->regions_len == (size_t)mem->count * REGION_BYTES;

    for (unsigned i = 0; same && i < mem->count; i++)
        same = get_uint(&regions, 8) == mem->regions[i].gpa &&
               get_uint(&regions, 8) == mem->regions[i].size;
    return same ? 0
                : error_set(err, EPROTO,
                            "MEMORY: not the memory of the machine that MACHINE describes");
}

int receive_build(struct receive *r, const struct vm_config *config, struct loop *loop,
                  struct machine **ret_machine, struct error *err)
{
    const struct machine_image image = {
        .cpuid = r->cpuid, .cpuid_len = r->cpuid_len, .ram_fd = -1, .disks_elsewhere = true};
    struct machine *machine;
    int result = machine_create_from(config, loop, &image, &machine, err);

    if (result == 0) {
        r->machine = machine;
        result = check_memory(r, machine_memory(machine), err);
        if (result == 0)
            result = machine_disks_shared(machine, r->hello.session, err);
        if (result == 0)
            result = pages_target_init(&r->pages, machine_memory(machine),
                                       r->hello.zstd ? &r->zstd : NULL, err);
        if (result < 0)
            machine_destroy(machine);
    }
    if (result == 0)
        *ret_machine = machine;
    return result;
}

/* RAM */

/* The source speaks, or is gone, where it had nothing to say but why it gave up. */
static int hear_end(struct receive *r, struct error *err)
{
    void *body;
    size_t len;
    int result = frame_expect(control(r), FRAME_REFUSED, &body, &len, err);

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
    int result = hear_hello(stream, &hello, &err);

    if (result == 0 && (memcmp(hello.session, r->hello.session, sizeof(hello.session)) != 0 ||
                        hello.channels != r->hello.channels || hello.channel == 0 ||
                        r->lanes[hello.channel].stream.channel))
        result = error_set(&err, EBUSY, "another machine is being received here");
    if (result == 0)
        result = hello_welcome(stream, &r->hello, &err);
    if (result == 0) {
        r->lanes[hello.channel].stream = *stream;
        return;
    }
    log_warn("%s: somebody was sent away: %s", r->url, err.msg);
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
static int join_channels(struct receive *r, struct error *err)
{
    uint64_t end = loop_now_ns() + (uint64_t)JOIN_MS * 1000000;
    unsigned count;

    while ((count = joined(r)) < r->hello.channels) {
        struct frame_stream stream = {.channel = NULL};
        int result = channel_accept(r->listener, LOOK_MS, &stream.channel, err);

        if (result == 0) {
            admit(r, &stream);
            if (joined(r) > count)
                end = loop_now_ns() + (uint64_t)JOIN_MS * 1000000;
            continue;
        }
        if (result != -EPROTO && result != -ETIMEDOUT)
            return result;
        /* Nothing but a refusal comes before all are there. */
        if (channel_readable(control(r)->channel, 0))
            return hear_end(r, err);
        if (loop_now_ns() > end)
            return error_set(err, ETIMEDOUT, "%s: of its %u connections %u have not come for %u s",
                             r->url, r->hello.channels, r->hello.channels - count, JOIN_MS / 1000);
    }
    channel_listener_destroy(r->listener);
    r->listener = NULL;
    return 0;
}

/* The frame's body; the caller frees it, failed or not. */
static int take_body(struct frame_stream *stream, const struct frame *frame, char **ret_body,
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
static int hear_refusal(struct frame_stream *stream, const struct frame *frame, struct error *err)
{
    char *body = NULL;
    int result = take_body(stream, frame, &body, err);

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
    if (result == 0 && stream == control(r)) {
        r->mark_ns = snapfile_get_le(mark, sizeof(mark));
        r->marked_ns = loop_now_ns();
    }
    return result;
}

/* The guest's clock stood still on two hosts whose own clocks need not agree. */
static uint64_t advance(void *opaque, uint64_t when_ns)
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
    int result = take_body(stream, frame, &state, err);

    start = loop_now_ns();
    r->marked_ns = start;
    if (result == 0)
        result = machine_load_state(r->machine, state, frame->length, advance, r, err);
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
    int result = take_body(stream, frame, &body, err);

    if (result == 0)
        result = frame_send(stream, FRAME_PONG, 0, &(struct iovec){body, frame->length}, 1, err);
    free(body);
    return result;
}

int receive_check(struct receive *r, struct error *err)
{
    int result = hello_send_json(control(r), FRAME_PREPARED, json_pack("{}"), err);

    while (result == 0) {
        struct frame frame = {0};

        result = frame_recv(control(r), &frame, err);
        if (result == 0 && frame.type == FRAME_MARK) /* all is known */
            return hear_mark(r, control(r), err);
        if (result == 0 && frame.type == FRAME_PING)
            result = answer_ping(control(r), &frame, err);
        else if (result == 0 && frame.type == FRAME_REHEARSAL)
            result = rehearse(r, control(r), &frame, err);
        else if (result == 0)
            result = frame.type == FRAME_REFUSED
                         ? hear_refusal(control(r), &frame, err)
                         : error_set(err, EPROTO, "frame %u (%s) came in a check",
                                     control(r)->received, frame_name(frame.type));
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
        else if (result == 0 && frame.type == FRAME_REHEARSAL && stream == control(r))
            result = rehearse(r, stream, &frame, err);
        else if (result == 0 && frame.type == FRAME_REFUSED)
            result = hear_refusal(stream, &frame, err);
        else if (result == 0)
            result = error_set(err, EPROTO, "frame %u (%s) came where PAGES were expected",
                               stream->received, frame_name(frame.type));
        if (result < 0)
            return result;
    }
}

static void *work(void *opaque)
{
    struct lane *lane = opaque;
    struct receive *r = lane->receive;
    struct error err;

    if (receive_pages(r, &lane->stream, &err) == 0)
        return NULL;
    pthread_mutex_lock(&r->lock);
    if (!r->error.code)
        r->error = err;
    pthread_mutex_unlock(&r->lock);
    for (unsigned i = 0; i < r->hello.channels; i++)
        if (&r->lanes[i] != lane)
            channel_interrupt(r->lanes[i].stream.channel);
    return NULL;
}

static int receive_ram(struct receive *r, struct error *err)
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
    channel_end_interrupt(control(r)->channel); /* it has words to carry */
    if (result == 0 && r->error.code)
        *err = r->error;
    return result < 0 ? result : -r->error.code;
}

/* State, and whose machine it is */

/* Whatever it is. */
static void take_extra(struct receive *r, const char *body, size_t len)
{
    size_t name = strnlen(body, len) + 1;

    if (name > len)
        return;
    if (strcmp(body, HELLO_PAUSED) == 0)
        r->paused = true;
    else
        (void)machine_load_extra(r->machine, body, body + name, len - name);
}

/* STATE, and before it what this version may not even know. */
static int take_state(struct receive *r, char **ret_state, size_t *ret_len, struct error *err)
{
    for (;;) {
        struct frame frame = {0};
        char *body = NULL;
        int result = frame_recv(control(r), &frame, err);

        if (result == 0)
            result = take_body(control(r), &frame, &body, err);
        if (result == 0 && frame.type == FRAME_STATE) {
            *ret_state = body;
            *ret_len = frame.length;
            return 0;
        }
        if (result == 0 && frame.type == FRAME_EXTRA) {
            take_extra(r, body, frame.length);
        } else if (result == 0) {
            result = frame.type == FRAME_REFUSED
                         ? frame_refusal(body, frame.length, err)
                         : error_set(err, EPROTO, "frame %u (%s) came where STATE was expected",
                                     control(r)->received, frame_name(frame.type));
        }
        free(body);
        if (result < 0)
            return result;
    }
}

static int load(struct receive *r, struct error *err)
{
    uint64_t start;
    char *state;
    size_t len;
    int result = take_state(r, &state, &len, err);

    if (result < 0)
        return result;
    start = loop_now_ns();
    result = machine_load_state(r->machine, state, len, advance, r, err);
    free(state);
    if (result < 0)
        return result;
    machine_tell_moved(r->machine);
    (void)handover_target(&r->at, TARGET_LOADED_ALL, true);
    return hello_send_json(control(r), FRAME_READY,
                           json_pack("{s:I}", "load_ns", (json_int_t)(loop_now_ns() - start)), err);
}

/* COMMIT, and then the locks. */
static int take_over(struct receive *r, struct error *err)
{
    uint64_t times;
    void *body;
    size_t len;
    bool arbiter;
    int result;

    channel_set_timeout(control(r)->channel, COMMIT_MS);
    result = frame_expect(control(r), FRAME_COMMIT, &body, &len, err);
    if (result < 0)
        return result;
    times = snapfile_get_le(body, sizeof(times));
    free(body);
    r->commit_ns = loop_now_ns();
    if (handover_target(&r->at, TARGET_COMMIT, true) != TARGET_TAKE_LOCK)
        return error_set(err, EPROTO, "COMMIT of nothing");
    result = machine_handover_take(r->machine, r->hello.session, times, &arbiter, err);
    (void)handover_target(&r->at, result < 0 ? TARGET_LOCK_DENIED : TARGET_LOCK_GOT, true);
    return result;
}

/* Something could not be sent: the source may have said before why it went. */
static int hear_last_words(struct receive *r, struct error *err)
{
    struct error words;

    if (channel_readable(control(r)->channel, LOOK_MS) && hear_end(r, &words) == -ECONNREFUSED)
        *err = words;
    return -err->code;
}

int receive_take(struct receive *r, struct error *err)
{
    int result = hello_send_json(control(r), FRAME_PREPARED, json_pack("{}"), err);

    if (result == 0)
        result = join_channels(r, err);
    if (result == 0)
        result = receive_ram(r, err);
    if (result == 0)
        result = load(r, err);
    if (result == 0)
        result = take_over(r, err);
    if (result == -EPIPE || result == -ECONNRESET)
        result = hear_last_words(r, err);
    if (result < 0 && result != -ECONNREFUSED)
        receive_refuse(r, err);
    return result;
}

bool receive_was_paused(const struct receive *r)
{
    return r->paused;
}

const char *receive_from(const struct receive *r)
{
    return channel_peer(r->lanes[0].stream.channel);
}

void receive_done(struct receive *r)
{
    struct error err;

    if (hello_send_json(control(r), FRAME_DONE,
                        json_pack("{s:I}", "resume_ns", (json_int_t)(loop_now_ns() - r->commit_ns)),
                        &err) < 0)
        log_warn("the other side may not have heard that the machine runs here: %s", err.msg);
}

void receive_destroy(struct receive *r)
{
    if (!r)
        return;
    receive_forget(r);
    pages_target_fini(&r->pages);
    zstd_close(&r->zstd);
    channel_listener_destroy(r->listener);
    free(r->url);
    pthread_mutex_destroy(&r->lock);
    free(r);
}
