/* SPDX-License-Identifier: Apache-2.0 */
/*
 * source_check: what a move would be like, without one.
 *
 * The other side has built a machine and held all that it was told against its host by then. Here
 * the network is tried, the stop is rehearsed, and the guest's writes are watched for a second;
 * then the rounds are worked out on paper.
 */
#include "source.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define ANSWER_MS 10000
#define RTT_PINGS 8
#define LOAD_BYTES (1u << 20)
#define LOAD_PINGS 64
#define FEW_BYTES (256u << 10)
#define FEW_PINGS 4
#define LOAD_NS UINT64_C(500000000) /* no longer than that */
#define SHORT_NS UINT64_C(100000000)
#define LONG_NS UINT64_C(1000000000)
#define SMALL_BYTES (256u << 10)
#define MAX_ROUNDS 30

/* There and back, with so many bytes. */
static int ping(struct source *s, void *data, size_t len, uint64_t *ret_ns, struct error *err)
{
    uint64_t start = loop_now_ns();
    void *body = NULL;
    size_t body_len = 0;
    int r = source_send(s, FRAME_PING, data, len, err);

    if (r == 0)
        r = source_await(s, ANSWER_MS, true, "PONG", err);
    if (r == 0)
        r = frame_expect(source_control(s), FRAME_PONG, &body, &body_len, err);
    if (r < 0)
        return r;
    free(body);
    *ret_ns = loop_now_ns() - start;
    return body_len == len ? 0 : error_set(err, EPROTO, "PONG: of another length");
}

/* The round trip, and the rate that so many bytes there and back come to at best: without our own
 * limit, which does not hold in the stop, and is known for the rounds. */
static int try_network(struct source *s, size_t bytes, unsigned pings, uint64_t *ret_rate,
                       struct error *err)
{
    uint64_t start, ns = 0, least = UINT64_MAX;
    uint8_t *load = malloc(bytes);
    int r = load ? 0 : error_set(err, ENOMEM, "out of memory");

    for (unsigned i = 0; r == 0 && i < RTT_PINGS; i++) {
        r = ping(s, NULL, 0, &ns, err);
        least = ns < least ? ns : least;
    }
    s->job.report.rtt_ns = least;
    if (s->limit)
        channel_limit_set(s->limit, 0);
    start = loop_now_ns();
    if (load)
        memset(load, 0x5a, bytes);
    for (unsigned i = 0; r == 0 && i < pings && loop_now_ns() - start < LOAD_NS; i++) {
        uint64_t rate;

        r = ping(s, load, bytes, &ns, err);
        ns = ns > least ? ns - least : 1;
        rate = (uint64_t)(2e9 * (double)bytes / (double)ns); /* it came back */
        if (r == 0 && rate > *ret_rate)
            *ret_rate = rate;
    }
    if (s->limit)
        channel_limit_set(s->limit, s->bandwidth);
    free(load);
    return r;
}

int source_try_link(struct source *s, struct error *err)
{
    return try_network(s, FEW_BYTES, FEW_PINGS, &s->prediction.link_rate, err);
}

static int size_ram(struct job *job, struct error *err)
{
    struct machine_info info;

    (void)err;
    machine_info(job->migration->machine, &info);
    job->report.check.ram_bytes = info.memory_host_bytes;
    return 0;
}

/* Bytes that the guest has written after so long, of what it wrote in both times that were watched.
 */
static double dirty_after(const double watched[2], double ns)
{
    if (ns <= (double)SHORT_NS)
        return watched[0] * ns / (double)SHORT_NS;
    return watched[0] +
           (watched[1] - watched[0]) * (ns - (double)SHORT_NS) / (double)(LONG_NS - SHORT_NS);
}

static void work_out(struct source *s, const double watched[2])
{
    struct migration_check *check = &s->job.report.check;
    double link = check->bandwidth ? (double)check->bandwidth : 1, rate = link,
           ram = (double)check->ram_bytes, owed = ram;
    double total_ns = 0;

    if (s->bandwidth && (double)s->bandwidth < rate)
        rate = (double)s->bandwidth;
    for (check->rounds = 1; check->rounds < MAX_ROUNDS; check->rounds++) {
        double ns = owed / rate * 1e9, next = dirty_after(watched, ns);

        next = next > ram ? ram : next;
        total_ns += ns;
        if (next <= SMALL_BYTES || next > owed * 0.9) {
            owed = next < owed ? next : owed;
            break;
        }
        owed = next;
    }
    check->dirty_rate = (uint64_t)(watched[0] * 1e9 / (double)SHORT_NS);
    check->pause_ns = source_fixed_pause(s) + (uint64_t)(owed / link * 1e9);
    check->total_ns = (uint64_t)total_ns + check->pause_ns;
    check->converges = check->pause_ns <= s->max_pause_ns;
}

int source_check(struct source *s, struct error *err)
{
    double watched[2];
    uint64_t pages = 0;
    int r = try_network(s, LOAD_BYTES, LOAD_PINGS, &s->job.report.check.bandwidth, err);

    if (r == 0)
        r = source_rehearse(s, err);
    if (r == 0)
        r = job_call_machine(&s->job, size_ram, err);
    if (r == 0)
        r = rounds_watch(s->job.rounds, SHORT_NS, &pages, err);
    watched[0] = (double)(pages * GUEST_PAGE_SIZE);
    if (r == 0)
        r = rounds_watch(s->job.rounds, LONG_NS, &pages, err);
    watched[1] = (double)(pages * GUEST_PAGE_SIZE);
    if (r == 0)
        r = source_send_mark(source_control(s), 0, err);
    if (r < 0)
        return r;
    work_out(s, watched);
    s->job.report.checked = true;
    return 0;
}
