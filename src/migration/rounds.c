/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rounds: what is owed, page by page, and its way to the sink.
 *
 * The order that makes it right: the log is cleared, then the page is read; a write in between or
 * after is in the log again, and the last pages are taken while nothing runs. What was read torn in
 * a round is therefore always read again.
 */
#include "rounds.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "vmrun/loop.h"
#include "vmrun/thread.h"

#define SMALL_PAGES 64 /* that many are left to the stop: 256 KiB */
#define MAX_ROUNDS 60
#define MAX_FLAT_ROUNDS 3
#define FORGET_PAGES 32768 /* at once: no vCPU is kept waiting for long */
#define ALONE_PAGES 2048   /* a round of fewer is not worth other threads */
#define TICK_CHUNKS 256

#define TOUCHED \
    (UINT64_C(3) << 62) /* of a page in /proc/self/pagemap: in memory, or swapped out \
                         */

struct rounds {
    struct machine *machine;
    struct guest_memory *memory;
    const struct rounds_sink *sink;
    void *opaque;
    unsigned workers;

    uint64_t *owed[MEMORY_MAX_REGIONS];
    uint64_t *before[MEMORY_MAX_REGIONS];   /* what the last look at the log found */
    uint64_t *deferred[MEMORY_MAX_REGIONS]; /* of what is owed */
    uint64_t *fresh;

    int pagemap_fd;            /* -1: what was never touched is read like the rest */
    bool first;                /* nothing was put yet */
    bool last;                 /* nobody writes any more */
    uint64_t round_pages;      /* to copy in this round */
    atomic_uint_fast64_t done; /* of these */
    atomic_uint_fast64_t copied;

    atomic_bool leave; /* somebody failed: the others end the round */
    pthread_mutex_t lock;
    struct error error; /* lock: the first failure */
};

struct worker {
    struct rounds *rounds;
    unsigned index;
    pthread_t thread;
    bool started;
};

static size_t words_of(const struct rounds *r, unsigned region)
{
    return guest_memory_bitmap_words(r->memory, region);
}

static uint64_t pages_of(const struct rounds *r, unsigned region)
{
    return r->memory->regions[region].size / GUEST_PAGE_SIZE;
}

static uint64_t count(const struct rounds *r, uint64_t *const maps[])
{
    uint64_t pages = 0;

    for (unsigned i = 0; i < r->memory->count; i++)
        for (size_t w = 0; w < words_of(r, i); w++)
            pages += (uint64_t)__builtin_popcountll(maps[i][w]);
    return pages;
}

/* Life */

static int allocate(struct rounds *r, struct error *err)
{
    size_t most = 0;

    for (unsigned i = 0; i < r->memory->count; i++) {
        /* Whole chunks, so that each has all its words. */
        size_t words = (words_of(r, i) / ROUNDS_CHUNK_WORDS + 1) * ROUNDS_CHUNK_WORDS;

        assert(words > 0);
        most = words > most ? words : most;
        r->owed[i] = calloc(words, sizeof(uint64_t));
        r->before[i] = calloc(words, sizeof(uint64_t));
        r->deferred[i] = calloc(words, sizeof(uint64_t));
        if (!r->owed[i] || !r->before[i] || !r->deferred[i])
            return error_set(err, ENOMEM, "out of memory");
    }
    assert(most > 0); /* a machine has memory */
    r->fresh = calloc(most, sizeof(uint64_t));
    return r->fresh ? 0 : error_set(err, ENOMEM, "out of memory");
}

int rounds_create(struct machine *machine, const struct rounds_sink *sink, void *opaque,
                  unsigned workers, struct rounds **ret_rounds, struct error *err)
{
    struct rounds *r = calloc(1, sizeof(*r));

    assert(workers > 0 && workers <= ROUNDS_MAX_WORKERS);
    if (!r)
        return error_set(err, ENOMEM, "out of memory");
    *r = (struct rounds){.machine = machine,
                         .memory = machine_memory(machine),
                         .sink = sink,
                         .opaque = opaque,
                         .workers = workers,
                         .pagemap_fd = -1};
    pthread_mutex_init(&r->lock, NULL);
    if (allocate(r, err) < 0) {
        rounds_destroy(r);
        return -ENOMEM;
    }
    if (sink->starts_zero)
        r->pagemap_fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    *ret_rounds = r;
    return 0;
}

void rounds_destroy(struct rounds *r)
{
    if (!r)
        return;
    for (unsigned i = 0; i < MEMORY_MAX_REGIONS; i++) {
        free(r->owed[i]);
        free(r->before[i]);
        free(r->deferred[i]);
    }
    free(r->fresh);
    if (r->pagemap_fd >= 0)
        close(r->pagemap_fd);
    pthread_mutex_destroy(&r->lock);
    free(r);
}

/* What is owed */

void rounds_owe_all(struct rounds *r)
{
    for (unsigned i = 0; i < r->memory->count; i++) {
        uint64_t pages = pages_of(r, i);

        memset(r->owed[i], 0xff, pages / 64 * sizeof(uint64_t));
        if (pages % 64)
            r->owed[i][pages / 64] = (UINT64_C(1) << pages % 64) - 1;
    }
    r->first = true;
}

void rounds_owe(struct rounds *r, unsigned region, const uint64_t *bitmap)
{
    for (size_t w = 0; w < words_of(r, region); w++)
        r->owed[region][w] |= bitmap[w];
}

/* A machine has stale marks of its devices, and a new log says that everything was written. */
int rounds_forget(struct rounds *r, struct error *err)
{
    for (unsigned i = 0; i < r->memory->count; i++) {
        uint64_t pages = pages_of(r, i);
        int result = machine_dirty_harvest(r->machine, i, r->fresh, err);

        memset(r->fresh, 0xff, words_of(r, i) * sizeof(uint64_t));
        if (pages % 64)
            r->fresh[pages / 64] = (UINT64_C(1) << pages % 64) - 1;
        for (uint64_t first = 0; result == 0 && first < pages; first += FORGET_PAGES) {
            uint64_t left = pages - first;

            result =
                machine_dirty_clear(r->machine, i, first, left < FORGET_PAGES ? left : FORGET_PAGES,
                                    r->fresh + first / 64, err);
        }
        if (result < 0)
            return result;
    }
    return 0;
}

uint64_t rounds_owed(const struct rounds *r)
{
    return count(r, r->owed);
}

uint64_t rounds_done_pages(const struct rounds *r)
{
    return atomic_load(&r->done);
}

uint64_t rounds_round_pages(const struct rounds *r)
{
    return r->round_pages;
}

uint64_t rounds_copied_pages(const struct rounds *r)
{
    return atomic_load(&r->copied);
}

bool rounds_next_run(const uint64_t *bits, uint64_t *at, uint64_t end, uint64_t *ret_length)
{
    uint64_t first = *at;

    while (first < end && !(bits[first / 64] >> first % 64 & 1))
        first = bits[first / 64] >> first % 64 ? first + 1 : (first / 64 + 1) * 64;
    if (first >= end)
        return false;
    uint64_t last = first + 1;
    while (last < end && bits[last / 64] >> last % 64 & 1)
        last++;
    *at = first;
    *ret_length = last - first;
    return true;
}

bool rounds_next_owed(const struct rounds *r, unsigned region, uint64_t *at, uint64_t *ret_length)
{
    return rounds_next_run(r->owed[region], at, pages_of(r, region), ret_length);
}

/* What one look at the log finds is owed; what two in a row find is not worth a round. */
int rounds_harvest(struct rounds *r, struct error *err)
{
    for (unsigned i = 0; i < r->memory->count; i++) {
        size_t words = words_of(r, i);
        int result;

        memset(r->fresh, 0, words * sizeof(uint64_t));
        result = machine_dirty_harvest(r->machine, i, r->fresh, err);
        if (result < 0)
            return result;
        for (size_t w = 0; w < words; w++) {
            r->deferred[i][w] |= r->fresh[w] & r->before[i][w];
            r->before[i][w] = r->fresh[w];
            r->owed[i][w] |= r->fresh[w];
        }
    }
    return 0;
}

/* Rounds */

/* Of a memfd its holes were never touched, or given back; what is swapped out is none. */
static void drop_holes(const struct memory_region *region, const struct rounds_chunk *chunk,
                       uint64_t *bits)
{
    off_t start = (off_t)(region->fd_offset + chunk->first * GUEST_PAGE_SIZE);
    unsigned page = 0;

    while (page < chunk->pages) {
        off_t data = lseek(region->fd, start + (off_t)page * GUEST_PAGE_SIZE, SEEK_DATA);
        off_t next = data < 0 ? chunk->pages : (data - start) / GUEST_PAGE_SIZE;

        if (data < 0 && errno != ENXIO) /* ENXIO: holes up to the end */
            return;
        for (; page < chunk->pages && page < next; page++)
            bits[page / 64] &= ~(UINT64_C(1) << page % 64);
        off_t hole = page < chunk->pages ? lseek(region->fd, data, SEEK_HOLE) : -1;
        if (hole < 0)
            return;
        page = (unsigned)((hole - start) / GUEST_PAGE_SIZE);
    }
}

/*
 * Pages of our own memory that were never touched are zero, and to read them would be to touch
 * them. Who writes to one after this look is in the log, which was cleared before.
 */
static void drop_untouched(const struct rounds *r, const struct memory_region *region,
                           const struct rounds_chunk *chunk, uint64_t *bits)
{
    uint64_t entries[ROUNDS_CHUNK_PAGES];
    size_t bytes = chunk->pages * sizeof(entries[0]);
    off_t at = (off_t)((uintptr_t)chunk->host / GUEST_PAGE_SIZE * sizeof(entries[0]));

    if (r->sink->starts_zero && region->fd >= 0 && !region->from_file)
        drop_holes(region, chunk, bits);
    if (r->pagemap_fd < 0 || region->fd >= 0 || region->from_file ||
        pread(r->pagemap_fd, entries, bytes, at) != (ssize_t)bytes)
        return;
    for (unsigned i = 0; i < chunk->pages; i++)
        if (!(entries[i] & TOUCHED))
            bits[i / 64] &= ~(UINT64_C(1) << i % 64);
}

static uint64_t count_bits(const uint64_t *bits)
{
    uint64_t number = 0;

    for (unsigned w = 0; w < ROUNDS_CHUNK_WORDS; w++)
        number += (uint64_t)__builtin_popcountll(bits[w]);
    return number;
}

/* Whether there was something to copy, or an error. */
static int copy_chunk(struct rounds *r, const struct worker *worker, unsigned region,
                      uint64_t first, struct error *err)
{
    const struct memory_region *memory = &r->memory->regions[region];
    uint64_t left = pages_of(r, region) - first;
    unsigned pages = left < ROUNDS_CHUNK_PAGES ? (unsigned)left : ROUNDS_CHUNK_PAGES;
    uint64_t *owed = r->owed[region] + first / 64, *deferred = r->deferred[region] + first / 64;
    uint64_t bits[ROUNDS_CHUNK_WORDS], wanted[ROUNDS_CHUNK_WORDS];
    const struct rounds_chunk chunk = {.region = region,
                                       .first = first,
                                       .pages = pages,
                                       .bits = wanted,
                                       .host = memory->host + first * GUEST_PAGE_SIZE};
    int result;

    for (unsigned w = 0; w < ROUNDS_CHUNK_WORDS; w++)
        bits[w] = owed[w] & (r->last ? UINT64_MAX : ~deferred[w]);
    if (!count_bits(bits))
        return 0;
    if (!r->last) {
        result = machine_dirty_clear(r->machine, region, first, pages, bits, err);
        if (result < 0)
            return result;
    }
    memcpy(wanted, bits, sizeof(wanted));
    if (r->first)
        drop_untouched(r, memory, &chunk, wanted);
    result = count_bits(wanted) ? r->sink->put(r->opaque, worker->index, &chunk, err) : 0;
    if (result < 0)
        return result;
    for (unsigned w = 0; w < ROUNDS_CHUNK_WORDS; w++)
        owed[w] &= ~bits[w];
    atomic_fetch_add(&r->done, count_bits(bits));
    atomic_fetch_add(&r->copied, count_bits(wanted));
    return 1;
}

/*
 * The chunks that are this worker's. The first one ticks, and so ends the round for all: not at
 * each chunk with nothing to do, for a tick may be a system call, and the last round keeps a guest
 * waiting.
 */
static int copy_share(struct rounds *r, const struct worker *worker, struct error *err)
{
    uint64_t chunk = 0;

    for (unsigned i = 0; i < r->memory->count; i++) {
        for (uint64_t first = 0; first < pages_of(r, i); first += ROUNDS_CHUNK_PAGES, chunk++) {
            int result = 0;

            if (atomic_load(&r->leave))
                return 0;
            if (chunk % r->workers == worker->index)
                result = copy_chunk(r, worker, i, first, err);
            if (result >= 0 && worker->index == 0 && (result > 0 || chunk % TICK_CHUNKS == 0))
                result = r->sink->tick(r->opaque, err);
            if (result < 0)
                return result;
        }
    }
    return 0;
}

static void *work(void *opaque)
{
    struct worker *worker = opaque;
    struct rounds *r = worker->rounds;
    struct error err;

    if (copy_share(r, worker, &err) < 0) {
        pthread_mutex_lock(&r->lock);
        if (!r->error.code)
            r->error = err;
        pthread_mutex_unlock(&r->lock);
        atomic_store(&r->leave, true);
    }
    return NULL;
}

/* A worker whose thread cannot be had does its share here. */
static int copy_shares(struct rounds *r, struct error *err)
{
    struct worker workers[ROUNDS_MAX_WORKERS];
    struct error ignored;

    atomic_store(&r->leave, false);
    r->error.code = 0;
    for (unsigned i = 0; i < r->workers; i++) {
        workers[i] = (struct worker){.rounds = r, .index = i};
        workers[i].started =
            i > 0 && r->round_pages >= ALONE_PAGES &&
            thread_start(&workers[i].thread, "copy", 0, work, &workers[i], &ignored) == 0;
    }
    for (unsigned i = 0; i < r->workers; i++)
        if (!workers[i].started)
            work(&workers[i]);
    for (unsigned i = 0; i < r->workers; i++)
        if (workers[i].started)
            pthread_join(workers[i].thread, NULL);
    if (r->error.code)
        *err = r->error;
    return -r->error.code;
}

int rounds_copy(struct rounds *r, struct rounds_round *ret_round, struct error *err)
{
    uint64_t start = loop_now_ns();
    int result;

    r->round_pages = rounds_owed(r) - count(r, r->deferred);
    atomic_store(&r->done, 0);
    result = copy_shares(r, err);
    r->first = false;
    if (result == 0)
        result = rounds_harvest(r, err);
    if (result < 0)
        return result;
    *ret_round = (struct rounds_round){.pages = atomic_load(&r->done),
                                       .ns = loop_now_ns() - start,
                                       .written = count(r, r->before),
                                       .owed = rounds_owed(r),
                                       .deferred = count(r, r->deferred)};
    return 0;
}

int rounds_copy_last(struct rounds *r, struct error *err)
{
    r->last = true;
    r->round_pages = rounds_owed(r);
    atomic_store(&r->done, 0);
    return copy_shares(r, err);
}

int rounds_watch(struct rounds *r, uint64_t window_ns, uint64_t *ret_pages, struct error *err)
{
    struct timespec window = {.tv_sec = (time_t)(window_ns / 1000000000),
                              .tv_nsec = (long)(window_ns % 1000000000)};
    int result = 0;

    rounds_owe_all(r);
    for (unsigned i = 0; result == 0 && i < r->memory->count; i++)
        result = machine_dirty_clear(r->machine, i, 0, pages_of(r, i), r->owed[i], err);
    if (result < 0)
        return result;
    nanosleep(&window, NULL);
    result = rounds_harvest(r, err);
    if (result == 0)
        *ret_pages = count(r, r->before);
    return result;
}

int rounds_probe(struct rounds *r, uint64_t window_ns, struct error *err)
{
    struct timespec window = {.tv_sec = (time_t)(window_ns / 1000000000),
                              .tv_nsec = (long)(window_ns % 1000000000)};

    for (unsigned i = 0; i < r->memory->count; i++) {
        int result = machine_dirty_clear(r->machine, i, 0, pages_of(r, i), r->deferred[i], err);

        if (result < 0)
            return result;
        for (size_t w = 0; w < words_of(r, i); w++)
            r->before[i][w] |= r->deferred[i][w];
        memset(r->deferred[i], 0, words_of(r, i) * sizeof(uint64_t));
    }
    nanosleep(&window, NULL);
    /* They were written before: what is written now twice in a row is deferred again. */
    return rounds_harvest(r, err);
}

/*
 * The stop is to come where least is owed: as long as it shrinks, and then not at a peak. When most
 * of it is deferred another round alone would be of no use.
 */
enum rounds_next rounds_plan_next(struct rounds_plan *plan, const struct rounds_round *round)
{
    uint64_t least = plan->rounds++ ? plan->least : UINT64_MAX;
    bool peak = round->owed / 5 * 4 > least;

    plan->flat = round->owed > least / 10 * 9 ? plan->flat + 1 : 0;
    plan->least = round->owed < least ? round->owed : least;
    if (round->owed <= SMALL_PAGES || plan->rounds >= MAX_ROUNDS ||
        plan->flat >= (peak ? 2 * MAX_FLAT_ROUNDS : MAX_FLAT_ROUNDS))
        return ROUNDS_STOP;
    return round->deferred > round->owed / 4 * 3 ? ROUNDS_PROBE : ROUNDS_COPY;
}
