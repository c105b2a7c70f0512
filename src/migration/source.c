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
#include "source.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "snapfile_format.h"
#include "vmrun/log.h"

#define READY_MS 30000
#define DONE_MS 10000
#define ONLY_DONE_MS 60000 /* there is nobody else to ask */
#define STOP_MS 30000      /* besides what was predicted, four times */
#define LATE_MS 1000       /* for the rest of a word that has begun */
#define FAREWELL_MS 1000
#define ASK_NS UINT64_C(120000000000)
#define PROBE_NS UINT64_C(2000000)
#define QUEUE_REST_NS 5000000               /* while what waits in the kernel is sent */
#define ONE_IS_ENOUGH (UINT64_C(512) << 20) /* bytes a second for one connection */

#define DEFAULT_MAX_PAUSE_NS UINT64_C(300000000)
#define DEFAULT_TIMEOUT_NS UINT64_C(600000000000)

/* Percent of the time that the guest does not run. */
#define FIRST_THROTTLE 20u
#define THROTTLE_STEP 10u
#define MAX_THROTTLE 90u

static struct source *source_of(struct job *job)
{
    return (struct source *)job;
}

/* Rounds */

static int put(void *opaque, unsigned worker, const struct rounds_chunk *chunk, struct error *err)
{
    struct source *s = opaque;
    struct source_lane *lane = &s->lanes[worker];

    return pages_send(&lane->sender, chunk, err);
}

static int tick(void *opaque, struct error *err)
{
    struct source *s = opaque;

    if (channel_readable(source_control(s)->channel, 0))
        return source_hear_refusal(s, err);
    return s->at == SOURCE_COPYING ? job_tick(&s->job, err) : 0;
}

static const struct rounds_sink sink = {.put = put, .tick = tick, .starts_zero = true};

static void note_round(struct source *s, const struct rounds_round *round)
{
    struct migration_progress *p = &s->job.progress;
    uint64_t data = 0;

    for (unsigned i = 0; i < s->channels; i++)
        data += s->lanes[i].sender.counts.data;
    source_measure_rate(s, round);
    p->send_rate = s->prediction.rate;
    p->dirty_rate = round->ns ? round->written * GUEST_PAGE_SIZE * 1000000000 / round->ns : 0;
    p->predicted_pause_ns = source_predict_pause(s, round);
    p->throttle_percent = s->throttle;
    if (p->round <= MIGRATION_MAX_ROUNDS)
        s->round[p->round - 1] = (struct migration_round){
            .ns = round->ns,
            .bytes = round->pages * GUEST_PAGE_SIZE,
            .zero_bytes = (round->pages - (data - s->data_pages)) * GUEST_PAGE_SIZE,
            .dirty_bytes = round->written * GUEST_PAGE_SIZE,
            .owed_bytes = round->owed * GUEST_PAGE_SIZE,
            .deferred_bytes = round->deferred * GUEST_PAGE_SIZE,
            .predicted_pause_ns = p->predicted_pause_ns,
            .throttle_percent = s->throttle};
    s->data_pages = data;
}

/* The guest writes faster than the network carries: let it run for less of the time. */
static int slow_down(struct source *s, struct error *err)
{
    if (s->throttle >= MAX_THROTTLE)
        return 0;
    s->throttle = s->throttle ? s->throttle + THROTTLE_STEP : FIRST_THROTTLE;
    return machine_throttle(source_machine(s), s->throttle, err);
}

static int give_up_for_time(struct source *s, double predicted_ms, struct error *err)
{
    if (source_fixed_pause(s) > s->max_pause_ns)
        return error_set(err, ETIMEDOUT,
                         "time is up, and the stop would take %.0f ms, even with nothing left to "
                         "send: allow more with --max-downtime, or use --on-timeout force",
                         predicted_ms);
    return error_set(err, ETIMEDOUT,
                     "time is up, and the stop would take %.0f ms: the guest writes faster "
                     "than the network carries; allow more with --max-downtime, or use "
                     "--on-timeout force",
                     predicted_ms);
}

/*
 * The rounds no longer shrink. Whether that is the end of them: not before the rehearsal, and not
 * while the stop would be longer than it may be and there is time.
 */
static int consider_stop(struct source *s, struct rounds_plan *plan, enum rounds_next *next,
                         struct error *err)
{
    bool late = s->timeout_ns && loop_now_ns() - s->job.start_ns > s->timeout_ns;
    double predicted = (double)s->job.progress.predicted_pause_ns / 1e6;
    int r;

    *next = ROUNDS_COPY;
    if (!s->prediction.rehearsed)
        return source_rehearse(s, err);
    if (s->job.progress.predicted_pause_ns <= s->max_pause_ns) {
        *next = ROUNDS_STOP;
        return 0;
    }
    if (late && s->force) {
        log_warn("the guest is stopped for some %.0f ms, more than was wanted: time is up",
                 predicted);
        *next = ROUNDS_STOP;
        return 0;
    }
    if (late)
        return give_up_for_time(s, predicted, err);
    plan->flat = 0;
    if (s->job.progress.predicted_pause_ns <= s->max_pause_ns + source_queue_ns(s)) {
        nanosleep(&(struct timespec){.tv_nsec = QUEUE_REST_NS}, NULL);
        return 0;
    }
    r = source_rehearse_again(s, err);
    if (r == 0)
        r = slow_down(s, err);
    return r < 0 ? r : 0;
}

static int copy_rounds(struct source *s, struct error *err)
{
    struct rounds_plan plan = {0};
    enum rounds_next next = ROUNDS_COPY;
    int r = 0;

    s->job.progress.phase = MIGRATION_COPYING;
    rounds_owe_all(s->job.rounds);
    while (r == 0 && next != ROUNDS_STOP) {
        struct rounds_round round = {0};

        if (next == ROUNDS_PROBE)
            r = rounds_probe(s->job.rounds, PROBE_NS, err);
        source_begin_round(s);
        if (r == 0)
            r = job_copy_round(&s->job, &round, err);
        if (r < 0)
            break;
        note_round(s, &round);
        next = rounds_plan_next(&plan, &round);
        if (next == ROUNDS_STOP)
            r = consider_stop(s, &plan, &next, err);
    }
    return r;
}

/* The stop, and who runs then */

/* On the machine's thread; it stands still from here on. The log comes last: to save a state may be
 * to write RAM. */
static int stop(struct job *job, struct error *err)
{
    struct source *s = source_of(job);
    struct machine *machine = source_machine(s);
    struct migration_pause *pause = &job->report.pause;
    int r;

    s->ran = machine_state(machine) == MACHINE_RUNNING;
    s->stood_ns = loop_now_ns();
    r = machine_hold(machine, err);
    if (r < 0)
        return r;
    job->held = true;
    machine_leave(machine, MACHINE_LEAVES);
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

static int send_last(struct source *s, struct error *err)
{
    uint64_t start = loop_now_ns();
    int r;

    s->job.pause_pages = rounds_owed(s->job.rounds);
    r = rounds_copy_last(s->job.rounds, err);
    for (unsigned i = s->channels; r == 0 && i-- > 0;)
        r = source_send_mark(&s->lanes[i].stream, loop_now_ns() - s->stood_ns, err);
    if (r == 0)
        r = source_send_extras(s, err);
    if (r == 0)
        r = source_send(s, FRAME_STATE, s->state.data, s->state.len, err);
    s->job.report.pause.pages_ns = loop_now_ns() - start;
    return r;
}

/* On the machine's thread. */
static int give_up_disks(struct job *job, struct error *err)
{
    struct source *s = source_of(job);

    if (machine_state(source_machine(s)) == MACHINE_ENDED)
        return error_set(err, ECANCELED, "the machine has ended");
    machine_leave(source_machine(s), MACHINE_IS_GIVEN);
    s->times = machine_handover_offer(source_machine(s), s->hello.session);
    return 0;
}

static int ask_arbiter(struct job *job, struct error *err)
{
    struct source *s = source_of(job);
    enum block_handover_answer answer;

    if (machine_handover_ask(source_machine(s), s->hello.session, &answer, &s->why, err) < 0)
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
    int r = source_await(s, timeout_ms, may_cancel, frame_name(wanted), &s->why);

    if (r == 0)
        r = hello_expect_json(source_control(s), wanted, ret_body, &s->why);
    if (r == 0)
        return wanted == FRAME_READY ? SOURCE_READY : SOURCE_DONE;
    return r == -ECANCELED ? SOURCE_CANCEL : r == -ECONNREFUSED ? SOURCE_REFUSED : SOURCE_BROKEN;
}

/* The guest ran before the word of it was here. */
static void note_pause(struct source *s)
{
    uint64_t *commit_ns = &s->job.report.pause.commit_ns, way_ns = source_way_ns(s);

    way_ns = way_ns < *commit_ns ? way_ns : *commit_ns;
    *commit_ns -= way_ns;
    s->job.pause_ns = loop_now_ns() - s->stood_ns - way_ns;
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
    channel_set_patience(source_control(s)->channel, -1);
    snapfile_put_le(times, s->times, sizeof(times));
    if (source_send(s, FRAME_COMMIT, times, sizeof(times), &s->why) < 0)
        return SOURCE_BROKEN;
    event = hear(s, FRAME_DONE, s->has_arbiter ? DONE_MS : ONLY_DONE_MS, &done);
    json_decref(done);
    s->job.report.pause.commit_ns = loop_now_ns() - start;
    if (event == SOURCE_DONE && s->ran)
        note_pause(s);
    return event;
}

/* Rest before the arbiter is asked again, and hear whether the word comes that was missed. */
static bool hear_late_done(struct source *s, bool *listens)
{
    json_t *done = NULL;
    struct error ignored;

    if (!*listens)
        nanosleep(&(struct timespec){.tv_nsec = SOURCE_LOOK_MS * 1000000L}, NULL);
    if (!*listens || !channel_readable(source_control(s)->channel, SOURCE_LOOK_MS))
        return false;
    channel_set_timeout(source_control(s)->channel, LATE_MS);
    /* Anything else is an end: after a REFUSED the arbiter is to be had, and a cut says nothing. */
    *listens = hello_expect_json(source_control(s), FRAME_DONE, &done, &ignored) == 0;
    json_decref(done);
    return *listens;
}

static enum source_event ask(struct source *s)
{
    uint64_t end = loop_now_ns() + ASK_NS;
    bool listens = true;
    struct error err;

    for (;;) {
        int r = job_call_machine(&s->job, ask_arbiter, &err);

        if (r >= 0)
            return (enum source_event)r;
        if (r == -ECANCELED || loop_now_ns() > end)
            break;
        /* The target is in the midst of taking its locks, or a file server does not answer. */
        if (hear_late_done(s, &listens))
            return SOURCE_DONE;
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

/* Who takes or says a byte now and then does not keep a guest that stands still for ever. */
static void lose_patience(struct source *s)
{
    double ms = STOP_MS + 4e-6 * (double)s->job.progress.predicted_pause_ns;

    for (unsigned i = 0; i < s->channels; i++)
        channel_set_patience(s->lanes[i].stream.channel, ms < INT_MAX ? (int)ms : INT_MAX);
}

static int hand_over(struct source *s, struct error *err)
{
    enum source_event event;
    json_t *ready = NULL;

    s->job.progress.phase = MIGRATION_HANDOVER;
    job_tell_progress(&s->job, 0);
    s->has_arbiter = machine_has_arbiter(source_machine(s));
    s->job.report.predicted_pause_ns = s->job.progress.predicted_pause_ns;
    int r = source_send_early(s, err);
    if (s->limit)
        channel_limit_set(s->limit, 0);
    if (r == 0)
        r = job_call_machine(&s->job, stop, err);
    lose_patience(s);
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
    if (event != SOURCE_REFUSED && s->at == SOURCE_RUNS)
        frame_refuse(source_control(s), &s->why);
    *err = s->why;
    return -err->code;
}

static int work(struct job *job, struct error *err)
{
    struct source *s = source_of(job);
    int r = source_prepare(s, err);

    if (r == 0 && s->hello.check)
        return source_check(s, err);
    if (r == 0 && s->limit)
        r = source_try_link(s, err);
    if (r == 0)
        r = copy_rounds(s, err);
    if (r == 0)
        r = hand_over(s, err);
    if (r < 0 && s->at == SOURCE_COPYING) {
        r = source_last_words(s, err);
        if (source_control(s)->channel && r != -ECONNREFUSED) {
            frame_refuse(source_control(s), err);
            if (!job->held) /* the guest does not wait for it */
                channel_finish(source_control(s)->channel, FAREWELL_MS);
        }
        (void)handover_source(&s->at, r == -ECANCELED ? SOURCE_CANCEL : SOURCE_BROKEN,
                              s->has_arbiter);
    }
    return r;
}

/* The beginning and the end */

static bool settle(struct job *job)
{
    struct source *s = source_of(job);
    struct error err;

    if (s->throttle && machine_throttle(source_machine(s), 0, &err) < 0)
        log_warn("%s", err.msg);
    job->report.round = s->round;
    job->report.throttle_percent = s->throttle;
    job->report.channels = s->channels;
    for (unsigned i = 0; i < s->channels; i++)
        if (s->lanes[i].stream.channel)
            job->report.sent_bytes += channel_sent_bytes(s->lanes[i].stream.channel);
    if (s->at == SOURCE_UNCERTAIN)
        machine_set_uncertain(source_machine(s), job->report.error.msg);
    if (s->marked && s->at == SOURCE_RUNS)
        machine_handover_unmark(source_machine(s), s->hello.session);
    job->report.outcome = s->at == SOURCE_GONE        ? MIGRATION_THERE
                          : s->at == SOURCE_UNCERTAIN ? MIGRATION_UNCERTAIN
                                                      : MIGRATION_HERE;
    job->gone = s->at == SOURCE_GONE;
    if (job->gone) {
        job->migration->moved_to = s->url;
        s->url = NULL;
    }
    return job->gone;
}

static void free_source(struct job *job)
{
    struct source *s = source_of(job);

    for (unsigned i = 0; i < HELLO_MAX_CHANNELS; i++) {
        channel_destroy(s->lanes[i].stream.channel);
        pages_sender_fini(&s->lanes[i].sender);
    }
    channel_limit_destroy(s->limit);
    zstd_close(&s->zstd);
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

/* A connection keeps one CPU busy on each side, and the guest needs some too; of two CPUs it takes
 * no more than one. */
static unsigned default_channels(uint64_t bandwidth)
{
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);

    if (cpus < 2 || (bandwidth && bandwidth < ONE_IS_ENOUGH))
        return 1;
    return cpus < 4 ? 2 : cpus > 8 ? 4 : (unsigned)cpus / 2;
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
    s->channels = params->check      ? 1
                  : params->channels ? (unsigned)params->channels
                                     : default_channels(params->bandwidth);
    s->hello.check = params->check;
    s->hello.early = true;
    s->bandwidth = params->bandwidth;
    s->hello.channels = s->channels;
    s->max_pause_ns = params->max_pause_ns ? params->max_pause_ns : DEFAULT_MAX_PAUSE_NS;
    s->timeout_ns = params->timeout_ns ? params->timeout_ns : DEFAULT_TIMEOUT_NS;
    s->force = params->force;
    r = job_admit(migration, "move", err);
    if (r == 0 && params->channels > HELLO_MAX_CHANNELS)
        r = error_set(err, EINVAL, "%" PRIu64 " channels: at most %u", params->channels,
                      HELLO_MAX_CHANNELS);
    if (r == 0 && getrandom(s->hello.session, sizeof(s->hello.session), 0) < 0)
        r = error_errno(err, errno, "random numbers");
    if (r == 0)
        r = source_copy_params(s, params, err);
    if (r == 0 && params->bandwidth)
        r = channel_limit_create(params->bandwidth, &s->limit, err);
    if (r < 0) {
        free_source(&s->job);
        free(s);
        return r;
    }
    return job_start(migration, &s->job, &sink, s->channels, err);
}
