/* SPDX-License-Identifier: Apache-2.0 */
/*
 * source_link: what the side that gives a machine away says and hears, but for the words that
 * decide who runs it.
 */
#include "source.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "snapfile_format.h"

#define CONNECT_MS 10000
#define WELCOME_MS 20000 /* strangers may come first, for some seconds each */
#define PREPARE_MS 60000 /* to build a machine there */

/* It speaks when nothing was asked: it can only refuse. */
int source_hear_refusal(struct source *s, struct error *err)
{
    void *body;
    size_t len;
    int r = frame_expect(source_control(s), FRAME_REFUSED, &body, &len, err);

    if (r < 0)
        return r;
    r = frame_refusal(body, len, err);
    free(body);
    return r;
}

/*
 * What is wrong when something could not be sent: the other side may have said why, and that says
 * more than a broken pipe.
 */
int source_last_words(struct source *s, struct error *err)
{
    struct error words;

    if (source_control(s)->channel && err->code != ECANCELED && err->code != ECONNREFUSED &&
        channel_readable(source_control(s)->channel, SOURCE_LOOK_MS) &&
        source_hear_refusal(s, &words) == -ECONNREFUSED)
        *err = words;
    return -err->code;
}

static int await(struct source *s, struct channel *channel, int timeout_ms, bool cancellable,
                 const char *what, struct error *err)
{
    uint64_t end = loop_now_ns() + (uint64_t)timeout_ms * 1000000;

    while (!channel_readable(channel, SOURCE_LOOK_MS)) {
        if (cancellable && job_cancelled(&s->job))
            return job_tell_cancelled(&s->job, err);
        if (loop_now_ns() > end)
            return error_set(err, ETIMEDOUT, "%s: the other side has not said %s for %d s", s->url,
                             what, timeout_ms / 1000);
    }
    return 0;
}

int source_await(struct source *s, int timeout_ms, bool cancellable, const char *what,
                 struct error *err)
{
    return await(s, source_control(s)->channel, timeout_ms, cancellable, what, err);
}

static int open_lane(struct source *s, unsigned index, struct error *err)
{
    struct source_lane *lane = &s->lanes[index];
    int r = channel_connect(&s->security, s->url, CONNECT_MS, &lane->stream.channel, err);

    if (r < 0)
        return r;
    if (s->limit)
        channel_set_limit(lane->stream.channel, s->limit);
    s->hello.channel = index;
    r = pages_sender_init(&lane->sender, &lane->stream, s->hello.zstd ? &s->zstd : NULL, err);
    if (r < 0)
        return r;
    uint64_t start = loop_now_ns();
    r = hello_send(&lane->stream, &s->hello, err);
    if (r == 0)
        r = await(s, lane->stream.channel, WELCOME_MS, true, "WELCOME", err);
    if (r == 0)
        r = hello_expect_welcome(&lane->stream, &s->hello, err);
    if (r == -EPIPE || r == -ECONNRESET)
        r = error_set(err, -r,
                      "%s: who listens there hung up at once: is it a vmrun receive, and with the "
                      "same of --tls-psk, --tls-cert or --insecure?",
                      s->url);
    s->job.report.rtt_ns = loop_now_ns() - start;
    return r;
}

static int describe(struct job *job, struct error *err)
{
    struct source *s = (struct source *)job;
    int r = machine_describe(source_machine(s), &s->description, err);

    return r < 0 ? r : machine_save_cpuid(source_machine(s), &s->cpuid, err);
}

int source_send(struct source *s, enum frame_type type, const void *data, size_t len,
                struct error *err)
{
    return frame_send(source_control(s), type, 0, &(struct iovec){(void *)data, len}, 1, err);
}

static int send_machine(struct source *s, struct error *err)
{
    const struct guest_memory *mem = machine_memory(source_machine(s));
    struct writer regions = {0};
    int r = source_send(s, FRAME_MACHINE, s->description, strlen(s->description), err);

    if (r == 0)
        r = source_send(s, FRAME_CPUID, s->cpuid.data, s->cpuid.len, err);
    for (unsigned i = 0; i < mem->count; i++) {
        put_uint(&regions, mem->regions[i].gpa, 8);
        put_uint(&regions, mem->regions[i].size, 8);
    }
    if (r == 0 && regions.failed)
        r = error_set(err, ENOMEM, "out of memory");
    if (r == 0)
        r = source_send(s, FRAME_MEMORY, regions.data, regions.len, err);
    free(regions.data);
    return r;
}

/* Connected, and a machine is built there. */
int source_prepare(struct source *s, struct error *err)
{
    json_t *prepared = NULL;
    uint64_t start;
    int r = open_lane(s, 0, err);

    start = loop_now_ns();
    if (r == 0)
        r = machine_handover_mark(source_machine(s), s->hello.session, err);
    s->marked = r == 0;
    s->prediction.mark_ns = loop_now_ns() - start;
    if (r == 0)
        r = job_call_machine(&s->job, describe, err);
    if (r == 0)
        r = send_machine(s, err);
    if (r == 0)
        r = source_await(s, PREPARE_MS, true, "PREPARED", err);
    if (r == 0)
        r = hello_expect_json(source_control(s), FRAME_PREPARED, &prepared, err);
    if (r < 0)
        return r;
    json_decref(prepared);
    for (unsigned i = 1; r == 0 && i < s->channels; i++)
        r = open_lane(s, i, err);
    return r;
}

/* All that was to be sent before it was. since_ns: how long the guest's clock has stood still. */
int source_send_mark(struct frame_stream *stream, uint64_t since_ns, struct error *err)
{
    uint8_t bytes[8];

    snapfile_put_le(bytes, since_ns, sizeof(bytes));
    return frame_send(stream, FRAME_MARK, 0, &(struct iovec){bytes, sizeof(bytes)}, 1, err);
}

static int send_extras(struct source *s, struct error *err)
{
    int r = 0;

    for (unsigned i = 0; r == 0 && i < MACHINE_MAX_EXTRAS; i++) {
        const struct job_extra *extra = &s->extras.extra[i];
        const struct iovec body[2] = {
            {(void *)extra->name, extra->data.len ? strlen(extra->name) + 1 : 0},
            {extra->data.data, extra->data.len}};

        if (extra->data.len)
            r = frame_send(source_control(s), FRAME_EXTRA, 0, body, 2, err);
    }
    return r;
}

int source_send_early(struct source *s, struct error *err)
{
    if (!s->hello.early || s->hello.check)
        return 0;
    job_take_extras(source_machine(s), &s->extras);
    return send_extras(s, err);
}

int source_send_extras(struct source *s, struct error *err)
{
    int r = send_extras(s, err);

    if (r == 0 && !s->ran)
        r = source_send(s, FRAME_EXTRA, HELLO_PAUSED, sizeof(HELLO_PAUSED), err);
    return r;
}

static int copy_text(const char *text, const char **ret_text, struct error *err)
{
    *ret_text = text ? strdup(text) : NULL;
    return text && !*ret_text ? error_set(err, ENOMEM, "out of memory") : 0;
}

int source_copy_params(struct source *s, const struct migration_move *params, struct error *err)
{
    const char *url = NULL;
    int r = copy_text(params->url, &url, err);

    s->url = (char *)url;
    s->hello.zstd = params->compress;
    if (r == 0 && params->compress)
        r = zstd_open(&s->zstd, err);
    s->security.insecure = params->security.insecure;
    if (r == 0)
        r = copy_text(params->security.cert, &s->security.cert, err);
    if (r == 0)
        r = copy_text(params->security.key, &s->security.key, err);
    if (r == 0)
        r = copy_text(params->security.ca, &s->security.ca, err);
    if (r == 0)
        r = copy_text(params->security.psk, &s->security.psk, err);
    return r;
}
