/* SPDX-License-Identifier: Apache-2.0 */
/*
 * source: the side that has the machine, and gives it away.
 *
 *   COPYING ──stop()──▶ STOPPED ──READY, commit()──▶ COMMITTED ──DONE──▶ GONE
 *      │                   │                             │
 *      └── anything wrong ─┴──▶ RUNS ◀── as it was ── ASKING ── taken ──▶ GONE
 *                                                        └── unknown ──▶ UNCERTAIN
 *
 * The one thing to know: whether it runs here is decided by handover_source() alone; follow()
 * does what that says.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "handover.h"
#include "hello.h"
#include "job.h"
#include "pages.h"
#include "snapfile_format.h"

#define CONNECT_MS 10000
#define PREPARE_MS 60000 /* to build a machine there */
#define READY_MS 30000
#define DONE_MS 10000
#define ASK_NS UINT64_C(120000000000)
#define LOOK_MS 100 /* between two looks at whether it was cancelled */
#define PROBE_NS UINT64_C(2000000)

struct lane {
    struct frame_stream stream;
    uint8_t *buffer;
    struct pages_counts counts;
};

struct source {
    struct job job;
    char *url;
    struct channel_security security;
    uint64_t bandwidth;
    unsigned channels;

    struct hello hello;
    struct channel_limit *limit;
    struct lane lanes[HELLO_MAX_CHANNELS];
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
};

static struct source *source_of(struct job *job)
{
    return (struct source *)job;
}

static struct machine *machine_of(const struct source *s)
{
    return s->job.migration->machine;
}

static struct frame_stream *control(struct source *s)
{
    return &s->lanes[0].stream;
}

/* Talking */

/* It speaks when nothing was asked: it can only refuse. */
static int hear_refusal(struct source *s, struct error *err)
{
    void *body;
    size_t len;
    int r = frame_expect(control(s), FRAME_REFUSED, &body, &len, err);

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
static int last_words(struct source *s, struct error *err)
{
    struct error words;

    if (control(s)->channel && err->code != ECANCELED && err->code != ECONNREFUSED &&
        channel_readable(control(s)->channel, LOOK_MS) && hear_refusal(s, &words) == -ECONNREFUSED)
        *err = words;
    return -err->code;
}

/* Until there is something to hear. Errors: -ECANCELED; -ETIMEDOUT. */
static int await(struct source *s, int timeout_ms, bool cancellable, const char *what,
                 struct error *err)
{
    uint64_t end = loop_now_ns() + (uint64_t)timeout_ms * 1000000;

    while (!channel_readable(control(s)->channel, LOOK_MS)) {
        if (cancellable && job_cancelled(&s->job))
            return error_set(err, ECANCELED, "cancelled");
        if (loop_now_ns() > end)
            return error_set(err, ETIMEDOUT, "%s: the other side has not said %s for %d s", s->url,
                             what, timeout_ms / 1000);
    }
    return 0;
}

static int open_lane(struct source *s, unsigned index, struct error *err)
{
    struct lane *lane = &s->lanes[index];
    int r = channel_connect(&s->security, s->url, CONNECT_MS, &lane->stream.channel, err);

    if (r < 0)
        return r;
    if (s->limit)
        channel_set_limit(lane->stream.channel, s->limit);
    s->hello.channel = index;
    lane->buffer = malloc(PAGES_BUFFER_BYTES);
    if (!lane->buffer)
        return error_set(err, ENOMEM, "out of memory");
    uint64_t start = loop_now_ns();
    r = hello_send(&lane->stream, &s->hello, err);
    if (r == 0)
        r = hello_expect_welcome(&lane->stream, err);
    s->job.report.rtt_ns = loop_now_ns() - start;
    return r < 0 ? error_prefix(err, "%s", s->url) : 0;
}

static int describe(struct job *job, struct error *err)
{
    struct source *s = source_of(job);
    int r = machine_describe(machine_of(s), &s->description, err);

    return r < 0 ? r : machine_save_cpuid(machine_of(s), &s->cpuid, err);
}

static int send_bytes(struct source *s, enum frame_type type, const void *data, size_t len,
                      struct error *err)
{
    return frame_send(control(s), type, 0, &(struct iovec){(void *)data, len}, 1, err);
}

static int send_machine(struct source *s, struct error *err)
{
    const struct guest_memory *mem = machine_memory(machine_of(s));
    struct writer regions = {0};
    int r = send_bytes(s, FRAME_MACHINE, s->description, strlen(s->description), err);

    if (r == 0)
        r = send_bytes(s, FRAME_CPUID, s->cpuid.data, s->cpuid.len, err);
    for (unsigned i = 0; i < mem->count; i++) {
        put_uint(&regions, mem->regions[i].gpa, 8);
        put_uint(&regions, mem->regions[i].size, 8);
    }
    if (r == 0 && regions.failed)
        r = error_set(err, ENOMEM, "out of memory");
    if (r == 0)
        r = send_bytes(s, FRAME_MEMORY, regions.data, regions.len, err);
    free(regions.data);
    return r;
}

/* Connected, and a machine is built there. */
static int prepare(struct source *s, struct error *err)
{
    json_t *prepared;
    int r = open_lane(s, 0, err);

    if (r == 0)
        r = machine_handover_mark(machine_of(s), s->hello.session, err);
    s->marked = r == 0;
    if (r == 0)
        r = job_call_machine(&s->job, describe, err);
    if (r == 0)
        r = send_machine(s, err);
    if (r == 0)
        r = await(s, PREPARE_MS, true, "PREPARED", err);
    if (r == 0)
        r = hello_expect_json(control(s), FRAME_PREPARED, &prepared, err);
    if (r < 0)
        return r;
    json_decref(prepared);
    for (unsigned i = 1; r == 0 && i < s->channels; i++)
        r = open_lane(s, i, err);
    return r;
}

/* Rounds */

static int put(void *opaque, unsigned worker, const struct rounds_chunk *chunk, struct error *err)
{
    struct source *s = opaque;
    struct lane *lane = &s->lanes[worker];

    return pages_send(&lane->stream, lane->buffer, chunk, &lane->counts, err);
}

static int tick(void *opaque, struct error *err)
{
    struct source *s = opaque;

    if (channel_readable(control(s)->channel, 0))
        return hear_refusal(s, err);
    return s->at == SOURCE_COPYING ? job_tick(&s->job, err) : 0;
}

static const struct rounds_sink sink = {.put = put, .tick = tick};

static void note_round(struct source *s, const struct rounds_round *round)
{
    struct migration_progress *p = &s->job.progress;
    uint64_t zero = 0, rate;

    for (unsigned i = 0; i < s->channels; i++)
        zero += s->lanes[i].counts.zero;
    rate = round->ns ? round->pages * GUEST_PAGE_SIZE * 1000000000 / round->ns : 0;
    /* A round of a few pages says nothing of the network. */
    if (p->round == 1 || (round->pages > 4096 && rate > p->send_rate))
        p->send_rate = rate;
    p->dirty_rate = round->ns ? round->written * GUEST_PAGE_SIZE * 1000000000 / round->ns : 0;
    p->predicted_pause_ns =
        2 * s->job.report.rtt_ns + 2000000 +
        (p->send_rate ? round->owed * GUEST_PAGE_SIZE * 1000 / (p->send_rate / 1000000 + 1) : 0);
    if (p->round <= MIGRATION_MAX_ROUNDS)
        s->round[p->round - 1] =
            (struct migration_round){.ns = round->ns,
                                     .bytes = round->pages * GUEST_PAGE_SIZE,
                                     .zero_bytes = (zero - s->zero_pages) * GUEST_PAGE_SIZE,
                                     .dirty_bytes = round->written * GUEST_PAGE_SIZE,
                                     .owed_bytes = round->owed * GUEST_PAGE_SIZE,
                                     .deferred_bytes = round->deferred * GUEST_PAGE_SIZE,
                                     .predicted_pause_ns = p->predicted_pause_ns};
    s->zero_pages = zero;
}

static int copy_rounds(struct source *s, struct error *err)
{
    struct rounds_plan plan = {0};
    enum rounds_next next = ROUNDS_COPY;
    int r = 0;

    s->job.progress.phase = MIGRATION_COPYING;
    rounds_owe_all(s->job.rounds);
    while (r == 0 && next != ROUNDS_STOP) {
        struct rounds_round round;

        if (next == ROUNDS_PROBE)
            r = rounds_probe(s->job.rounds, PROBE_NS, err);
        if (r == 0)
            r = job_copy_round(&s->job, &round, err);
        if (r == 0) {
            note_round(s, &round);
            next = rounds_plan_next(&plan, &round);
        }
    }
    return r;
}

/* The stop, and who runs then */

/* On the machine's thread; it stands still from here on. The log comes last: to save a state may be
 * to write RAM. */
static int stop(struct job *job, struct error *err)
{
    struct source *s = source_of(job);
    struct machine *machine = machine_of(s);
    struct migration_pause *pause = &job->report.pause;
    int r;

    s->ran = machine_state(machine) == MACHINE_RUNNING;
    s->stood_ns = loop_now_ns();
    r = machine_hold(machine, err);
    if (r < 0)
        return r;
    job->held = true;
    r = machine_sync_disks(machine, err);
    pause->stop_ns = loop_now_ns() - s->stood_ns;
    if (r == 0)
        r = machine_save_state(machine, &s->state, err);
    job_take_extras(machine, &s->extras);
    if (r == 0)
        r = rounds_harvest(job->rounds, err);
    pause->state_ns = loop_now_ns() - s->stood_ns - pause->stop_ns;
    return r;
}

/* All that was to be sent before it was. since_ns: how long the guest's clock has stood still. */
static int send_mark(struct frame_stream *stream, uint64_t since_ns, struct error *err)
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
            r = frame_send(control(s), FRAME_EXTRA, 0, body, 2, err);
    }
    return r;
}

static int send_last(struct source *s, struct error *err)
{
    uint64_t start = loop_now_ns();
    int r;

    s->job.pause_pages = rounds_owed(s->job.rounds);
    r = rounds_copy_last(s->job.rounds, err);
    for (unsigned i = s->channels; r == 0 && i-- > 0;)
        r = send_mark(&s->lanes[i].stream, loop_now_ns() - s->stood_ns, err);
    if (r == 0)
        r = send_extras(s, err);
    if (r == 0)
        r = send_bytes(s, FRAME_STATE, s->state.data, s->state.len, err);
    s->job.report.pause.pages_ns = loop_now_ns() - start;
    return r;
}

/* On the machine's thread. */
static int give_up_disks(struct job *job, struct error *err)
{
    struct source *s = source_of(job);

    (void)err;
    s->times = machine_handover_offer(machine_of(s), s->hello.session);
    return 0;
}

static int ask_arbiter(struct job *job, struct error *err)
{
    struct source *s = source_of(job);
    enum block_handover_answer answer;

    if (machine_handover_ask(machine_of(s), s->hello.session, &answer, &s->why, err) < 0)
        return -err->code;
    return answer == HANDOVER_TAKEN       ? SOURCE_LOCK_DENIED
           : answer == HANDOVER_AS_IT_WAS ? SOURCE_LOCK_GOT
                                          : SOURCE_LOCK_USELESS;
}

/* What the other side says next, or that it says nothing any more. */
static enum source_event hear(struct source *s, enum frame_type wanted, int timeout_ms,
                              json_t **ret_body)
{
    bool may_cancel = s->at != SOURCE_COMMITTED;
    int r = await(s, timeout_ms, may_cancel, frame_name(wanted), &s->why);

    if (r == 0)
        r = hello_expect_json(control(s), wanted, ret_body, &s->why);
    if (r == 0)
        return wanted == FRAME_READY ? SOURCE_READY : SOURCE_DONE;
    return r == -ECANCELED ? SOURCE_CANCEL : r == -ECONNREFUSED ? SOURCE_REFUSED : SOURCE_BROKEN;
}

static enum source_event commit(struct source *s)
{
    uint64_t start = loop_now_ns();
    json_t *done = NULL;
    enum source_event event;
    uint8_t times[8];

    /* Whatever goes wrong from here on, the other side may have heard of it. */
    if (job_call_machine(&s->job, give_up_disks, &s->why) < 0)
        return SOURCE_BROKEN;
    snapfile_put_le(times, s->times, sizeof(times));
    if (send_bytes(s, FRAME_COMMIT, times, sizeof(times), &s->why) < 0)
        return SOURCE_BROKEN;
    event = hear(s, FRAME_DONE, DONE_MS, &done);
    json_decref(done);
    s->job.report.pause.commit_ns = loop_now_ns() - start;
    if (event == SOURCE_DONE && s->ran)
        s->job.pause_ns = loop_now_ns() - s->stood_ns;
    return event;
}

static enum source_event ask(struct source *s)
{
    uint64_t end = loop_now_ns() + ASK_NS;
    struct error err;

    for (;;) {
        int r = job_call_machine(&s->job, ask_arbiter, &err);

        if (r >= 0)
            return (enum source_event)r;
        if (r == -ECANCELED || loop_now_ns() > end)
            break;
        /* The target is in the midst of taking its locks, or a file server does not answer. */
        nanosleep(&(struct timespec){.tv_nsec = LOOK_MS * 1000000}, NULL);
    }
    s->why = err;
    return SOURCE_LOCK_USELESS;
}

/* From what has happened to where the machine runs. */
static void follow(struct source *s, enum source_event event)
{
    for (;;) {
        switch (handover_source(&s->at, event, s->has_arbiter)) {
        case SOURCE_COMMIT: event = commit(s); break;
        case SOURCE_ASK_ARBITER: event = ask(s); break;
        default: return;
        }
    }
}

static int hand_over(struct source *s, struct error *err)
{
    enum source_event event;
    json_t *ready = NULL;

    s->job.progress.phase = MIGRATION_HANDOVER;
    job_tell_progress(&s->job, 0);
    s->has_arbiter = machine_has_arbiter(machine_of(s));
    s->job.report.predicted_pause_ns = s->job.progress.predicted_pause_ns;
    int r = job_call_machine(&s->job, stop, err);
    if (r == 0)
        r = send_last(s, err);
    if (r < 0)
        return r;
    uint64_t start = loop_now_ns();
    (void)handover_source(&s->at, SOURCE_SENT_ALL, s->has_arbiter);
    event = hear(s, FRAME_READY, READY_MS, &ready);
    json_decref(ready);
    s->job.report.pause.load_ns = loop_now_ns() - start;
    follow(s, event);
    if (s->at == SOURCE_GONE)
        return 0;
    *err = s->why;
    return -err->code;
}

static int work(struct job *job, struct error *err)
{
    struct source *s = source_of(job);
    int r = prepare(s, err);

    if (r == 0)
        r = copy_rounds(s, err);
    if (r == 0)
        r = hand_over(s, err);
    if (r < 0 && s->at == SOURCE_COPYING) {
        r = last_words(s, err);
        if (control(s)->channel && r != -ECONNREFUSED)
            frame_refuse(control(s), err);
        (void)handover_source(&s->at, r == -ECANCELED ? SOURCE_CANCEL : SOURCE_BROKEN,
                              s->has_arbiter);
    }
    return r;
}

/* The beginning and the end */

static bool settle(struct job *job)
{
    struct source *s = source_of(job);

    job->report.round = s->round;
    job->report.channels = s->channels;
    for (unsigned i = 0; i < s->channels; i++)
        if (s->lanes[i].stream.channel)
            job->report.sent_bytes += channel_sent_bytes(s->lanes[i].stream.channel);
    if (s->at == SOURCE_UNCERTAIN)
        machine_set_uncertain(machine_of(s), job->report.error.msg);
    if (s->marked && s->at == SOURCE_RUNS)
        machine_handover_unmark(machine_of(s), s->hello.session);
    job->report.outcome = s->at == SOURCE_GONE        ? MIGRATION_THERE
                          : s->at == SOURCE_UNCERTAIN ? MIGRATION_UNCERTAIN
                                                      : MIGRATION_HERE;
    job->gone = s->at == SOURCE_GONE;
    return job->gone;
}

static void free_source(struct job *job)
{
    struct source *s = source_of(job);

    for (unsigned i = 0; i < HELLO_MAX_CHANNELS; i++) {
        channel_destroy(s->lanes[i].stream.channel);
        free(s->lanes[i].buffer);
    }
    channel_limit_destroy(s->limit);
    free(s->url);
    free((char *)s->security.cert);
    free((char *)s->security.key);
    free((char *)s->security.ca);
    free((char *)s->security.psk);
    free(s->state.data);
    free(s->cpuid.data);
    job_free_extras(&s->extras);
    free(s->description);
}

static const struct job_ops source_ops = {
    .thread = "move", .work = work, .settle = settle, .free = free_source};

static int copy_text(const char *text, const char **ret_text, struct error *err)
{
    *ret_text = text ? strdup(text) : NULL;
    return text && !*ret_text ? error_set(err, ENOMEM, "out of memory") : 0;
}

static int copy_params(struct source *s, const struct migration_move *params, struct error *err)
{
    const char *url = NULL;
    int r = copy_text(params->url, &url, err);

    s->url = (char *)url;
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

/* A connection keeps one CPU busy on each side, and the guest needs some too. */
static unsigned default_channels(void)
{
    long cpus = sysconf(_SC_NPROCESSORS_ONLN) / 2;

    return cpus < 1 ? 1 : cpus > 4 ? 4 : (unsigned)cpus;
}

int migration_move(struct migration *migration, const struct migration_move *params,
                   struct error *err)
{
    struct source *s = calloc(1, sizeof(*s));
    int r;

    if (!s)
        return error_set(err, ENOMEM, "out of memory");
    s->job.ops = &source_ops;
    s->job.report.kind = s->job.progress.kind = MIGRATION_MOVE;
    s->channels = params->channels ? params->channels : default_channels();
    s->hello.channels = s->channels;
    r = job_admit(migration, "move", err);
    if (r == 0 && s->channels > HELLO_MAX_CHANNELS)
        r = error_set(err, EINVAL, "%u channels: at most %u", s->channels, HELLO_MAX_CHANNELS);
    if (r == 0 && getrandom(s->hello.session, sizeof(s->hello.session), 0) < 0)
        r = error_errno(err, errno, "random numbers");
    if (r == 0)
        r = copy_params(s, params, err);
    if (r == 0 && params->bandwidth)
        r = channel_limit_create(params->bandwidth, &s->limit, err);
    if (r < 0) {
        free_source(&s->job);
        free(s);
        return r;
    }
    return job_start(migration, &s->job, &sink, s->channels, err);
}
