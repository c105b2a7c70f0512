/* SPDX-License-Identifier: Apache-2.0 */
/*
 * source_predict: what a stop would take, from what was measured while the machine ran.
 *
 * A round ends when its last bytes are with this host's kernel. A slow link has megabytes of them
 * still before it: they are no part of the rate, and the stop has to wait for them.
 */
#include "source.h"

#include <stdlib.h>
#include <time.h>

#define REHEARSED_MS 30000
#define OLD_NS UINT64_C(2000000000) /* a rehearsal */
#define REST_NS 100000000
#define QUEUE_LOOK_NS 1000000
#define QUEUE_LOOKS 2000u
#define RATE_BYTES (UINT64_C(1) << 20) /* less says nothing of the network */
#define LOCKS 4u /* images are locked that often from COMMIT to DONE, one after the other */
#define NS_PER_S 1e9
/* A guest's first steps there, where no page table is filled yet: the median of 100 moves. */
#define FIRST_STEPS_NS UINT64_C(420000)

static void count_bytes(const struct source *s, uint64_t *ret_sent, uint64_t *ret_unsent)
{
    *ret_sent = *ret_unsent = 0;
    for (unsigned i = 0; i < s->channels; i++) {
        const struct channel *channel = s->lanes[i].stream.channel;

        *ret_sent += channel_sent_bytes(channel);
        *ret_unsent += channel_unsent_bytes(channel);
    }
}

static uint64_t count_arrived(const struct source *s)
{
    uint64_t sent, unsent;

    count_bytes(s, &sent, &unsent);
    return sent - unsent;
}

/* What arrives between two rounds, in a rehearsal, arrived in a time that is no round's. */
void source_begin_round(struct source *s)
{
    s->prediction.arrived = count_arrived(s);
}

void source_measure_rate(struct source *s, const struct rounds_round *round)
{
    struct source_prediction *p = &s->prediction;
    uint64_t arrived = count_arrived(s);

    arrived = arrived > p->arrived ? arrived - p->arrived : 0;
    if (round->ns && (arrived >= RATE_BYTES || !p->rate))
        p->rate = (uint64_t)((double)arrived * NS_PER_S / (double)round->ns);
}

static uint64_t rate_of(const struct source_prediction *p)
{
    return p->link_rate ? p->link_rate : p->rate;
}

uint64_t source_queue_ns(const struct source *s)
{
    uint64_t sent, unsent, rate = rate_of(&s->prediction);

    count_bytes(s, &sent, &unsent);
    return rate ? (uint64_t)((double)unsent * NS_PER_S / (double)rate) : 0;
}

/* What waits before a rehearsal would be taken for the way there. */
static void let_queue_pass(struct source *s)
{
    uint64_t sent, unsent = 1;

    for (unsigned i = 0; i < QUEUE_LOOKS && unsent && !job_cancelled(&s->job); i++) {
        count_bytes(s, &sent, &unsent);
        if (unsent)
            nanosleep(&(struct timespec){.tv_nsec = QUEUE_LOOK_NS}, NULL);
    }
}

/* With the bytes that a page has become on its way so far. */
static double bytes_of_pages(const struct source *s, uint64_t pages, uint64_t sent)
{
    uint64_t before = 0;

    for (unsigned i = 0; i < s->channels; i++)
        before += s->lanes[i].sender.counts.data;
    return (double)pages *
           (before > ROUNDS_CHUNK_PAGES ? (double)sent / (double)before : (double)GUEST_PAGE_SIZE);
}

uint64_t source_way_ns(const struct source *s)
{
    return (s->prediction.rehearsed ? s->prediction.answer_ns : s->job.report.rtt_ns) / 2;
}

uint64_t source_fixed_pause(const struct source *s)
{
    const struct source_prediction *p = &s->prediction;

    /* COMMIT has but one way to go before the guest runs. */
    return FIRST_STEPS_NS + p->sync_ns + LOCKS * p->mark_ns + p->call_ns +
           (p->rehearsed ? p->rehearsed_ns + source_way_ns(s) : 3 * source_way_ns(s));
}

uint64_t source_predict_pause(const struct source *s, const struct rounds_round *round)
{
    const struct source_prediction *p = &s->prediction;
    uint64_t sent, unsent, ns = source_fixed_pause(s), rate = rate_of(p);
    double bytes;

    count_bytes(s, &sent, &unsent);
    bytes = bytes_of_pages(s, round->owed, sent) + (double)(unsent + p->extra_bytes);
    if (rate)
        ns += (uint64_t)(bytes * NS_PER_S / (double)rate);
    return ns;
}

/* What would travel beside the state now. */
static uint64_t count_extras(struct source *s)
{
    struct job_extras extras = {0};
    uint64_t bytes = 0;

    for (unsigned i = 0; i < MACHINE_MAX_EXTRAS; i++)
        extras.extra[i].from = s->extras.extra[i].from;
    job_take_extras(source_machine(s), &extras);
    for (unsigned i = 0; i < MACHINE_MAX_EXTRAS; i++)
        bytes += extras.extra[i].data.len;
    job_free_extras(&extras);
    return bytes;
}

/* On the machine's thread: all of a stop but the end. */
static int rehearse_stop(struct job *job, struct error *err)
{
    struct source *s = (struct source *)job;
    struct machine *machine = source_machine(s);
    int r;

    s->prediction.began_ns = loop_now_ns();
    r = machine_hold(machine, err);
    if (r < 0)
        return r;
    r = machine_save_state(machine, &s->state, err);
    s->prediction.extra_bytes = count_extras(s);
    machine_release(machine);
    return r;
}

static int rehearse_once(struct source *s, struct error *err)
{
    struct source_prediction *p = &s->prediction;
    json_t *rehearsed = NULL;
    uint64_t start, load_ns;
    int r = source_send_early(s, err); /* as before the stop */

    start = loop_now_ns();
    if (r == 0)
        r = job_call_machine(&s->job, rehearse_stop, err);
    p->call_ns = p->began_ns - start;
    start = loop_now_ns();
    if (r == 0)
        r = source_send(s, FRAME_REHEARSAL, s->state.data, s->state.len, err);
    free(s->state.data);
    s->state = (struct writer){.data = NULL};
    if (r == 0)
        r = source_await(s, REHEARSED_MS, true, "REHEARSED", err);
    if (r == 0)
        r = hello_expect_json(source_control(s), FRAME_REHEARSED, &rehearsed, err);
    if (r < 0)
        return r;
    p->ended_ns = loop_now_ns();
    p->rehearsed_ns = p->ended_ns - p->began_ns;
    load_ns = hello_number(rehearsed, "load_ns");
    p->answer_ns = p->ended_ns - start;
    p->answer_ns -= load_ns < p->answer_ns ? load_ns : p->answer_ns;
    json_decref(rehearsed);
    return 0;
}

int source_rehearse(struct source *s, struct error *err)
{
    struct source_prediction *p = &s->prediction, other;
    uint64_t start;
    int r;

    let_queue_pass(s);
    r = machine_sync_disks(source_machine(s), err);
    start = loop_now_ns();
    if (r == 0)
        r = machine_sync_disks(source_machine(s), err);
    p->sync_ns = loop_now_ns() - start;
    /* The first one finds cold what the stop will find warm; who took longer of the others was
     * held up by something else. */
    if (r == 0)
        r = rehearse_once(s, err);
    if (r == 0)
        r = rehearse_once(s, err);
    other = *p;
    if (r == 0)
        r = rehearse_once(s, err);
    if (r == 0 && other.call_ns + other.rehearsed_ns < p->call_ns + p->rehearsed_ns)
        *p = other;
    p->rehearsed = r == 0;
    return r;
}

int source_rehearse_again(struct source *s, struct error *err)
{
    bool slow = source_fixed_pause(s) > s->max_pause_ns;
    int r;

    if (!slow && loop_now_ns() - s->prediction.ended_ns < OLD_NS)
        return 0;
    if (slow)
        nanosleep(&(struct timespec){.tv_nsec = REST_NS}, NULL);
    r = source_rehearse(s, err);
    return r < 0 ? r : slow;
}
