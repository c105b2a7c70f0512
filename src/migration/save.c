/* SPDX-License-Identifier: Apache-2.0 */
/*
 * save: a machine's RAM and state into a snapshot file, while it runs.
 *
 * Each page has a fixed place in the file, so a page that is written again overwrites itself. The
 * order that makes it right: the log is cleared, then the page is read; a write in between or after
 * is in the log again, and the last pages are taken while nothing runs. What was read torn in a
 * round is therefore always read again.
 *
 * The thread never touches the machine's life: it asks the machine's thread to hold it.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "job.h"

#define CHUNK_PAGES (SNAPFILE_CHUNK_BYTES / GUEST_PAGE_SIZE)
#define CHUNK_WORDS (CHUNK_PAGES / 64)

#define SMALL_PAGES 256 /* that many are left to the stop: 1 MiB */
#define MAX_ROUNDS 30
#define MAX_FLAT_ROUNDS 3    /* that shrink by less than a tenth */
#define STAGE_MIN_PAGES 1024 /* room for the last pages, as many as three times those left */
#define STAGE_MAX_PAGES UINT64_C(65536)
#define PROGRESS_NS UINT64_C(100000000)

static const struct memory_region *region(const struct job *job, unsigned index)
{
    return &machine_memory(job->migration->machine)->regions[index];
}

static unsigned region_count(const struct job *job)
{
    return machine_memory(job->migration->machine)->count;
}

/* Rounds */

static int take_dirty(struct job *job, struct error *err)
{
    for (unsigned i = 0; i < region_count(job); i++) {
        size_t words = guest_memory_bitmap_words(machine_memory(job->migration->machine), i);
        int r;

        memset(job->fresh, 0, words * sizeof(uint64_t));
        r = machine_dirty_harvest(job->migration->machine, i, job->fresh, err);
        if (r < 0)
            return r;
        for (size_t w = 0; w < words; w++)
            job->dirty[i][w] |= job->fresh[w];
    }
    return 0;
}

static uint64_t count_dirty(const struct job *job)
{
    uint64_t pages = 0;

    for (unsigned i = 0; i < region_count(job); i++) {
        size_t words = guest_memory_bitmap_words(machine_memory(job->migration->machine), i);

        for (size_t w = 0; w < words; w++)
            pages += (uint64_t)__builtin_popcountll(job->dirty[i][w]);
    }
    return pages;
}

static void mark_all(struct job *job)
{
    for (unsigned i = 0; i < region_count(job); i++) {
        uint64_t pages = region(job, i)->size / GUEST_PAGE_SIZE;

        memset(job->dirty[i], 0xff, pages / 64 * sizeof(uint64_t));
        if (pages % 64)
            job->dirty[i][pages / 64] = (UINT64_C(1) << pages % 64) - 1;
    }
}

/* The next run of set bits in [*at, end); false: none. */
static bool next_run(const uint64_t *bits, uint64_t *at, uint64_t end, uint64_t *ret_length)
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

static int put_run(struct job *job, unsigned index, uint64_t page, uint64_t pages,
                   struct error *err)
{
    uint64_t offset = page * GUEST_PAGE_SIZE, bytes = pages * GUEST_PAGE_SIZE;

    job->progress.written_bytes += bytes;
    return snapfile_put_pages(job->file, index, offset, region(job, index)->host + offset, bytes,
                              err);
}

static int copy_chunk(struct job *job, unsigned index, uint64_t first, uint64_t pages,
                      struct error *err)
{
    uint64_t *bits = job->dirty[index] + first / 64;
    uint64_t at = first, length;
    bool any = false;
    int r;

    for (uint64_t w = 0; w < (pages + 63) / 64; w++)
        any = any || bits[w];
    if (!any)
        return 0;
    if (job->logging) {
        r = machine_dirty_clear(job->migration->machine, index, first, pages, bits, err);
        if (r < 0)
            return r;
    }
    for (; next_run(job->dirty[index], &at, first + pages, &length); at += length) {
        r = put_run(job, index, at, length, err);
        if (r < 0)
            return r;
        job->progress.done_bytes += length * GUEST_PAGE_SIZE;
    }
    memset(bits, 0, (pages + 63) / 64 * sizeof(uint64_t));
    return 0;
}

static int copy_round(struct job *job, struct error *err)
{
    job->progress.round++;
    job->progress.round_bytes = count_dirty(job) * GUEST_PAGE_SIZE;
    job->progress.done_bytes = 0;
    for (unsigned i = 0; i < region_count(job); i++) {
        uint64_t pages = region(job, i)->size / GUEST_PAGE_SIZE;

        for (uint64_t first = 0; first < pages; first += CHUNK_PAGES) {
            uint64_t left = pages - first;
            int r = copy_chunk(job, i, first, left < CHUNK_PAGES ? left : CHUNK_PAGES, err);

            if (r < 0)
                return r;
            if (job_cancelled(job))
                return error_set(err, ECANCELED, "cancelled");
            job_tell_progress(job, PROGRESS_NS);
        }
    }
    return 0;
}

/* Until a round pays no longer: what is left is in job->dirty. */
static int copy_rounds(struct job *job, struct error *err)
{
    uint64_t before = UINT64_MAX;
    unsigned flat = 0;

    mark_all(job);
    for (;;) {
        int r = copy_round(job, err);

        if (r == 0 && job->logging)
            r = take_dirty(job, err);
        if (r < 0 || !job->logging)
            return r;
        uint64_t left = count_dirty(job);

        flat = left > before / 10 * 9 ? flat + 1 : 0;
        before = left;
        if (left <= SMALL_PAGES || flat >= MAX_FLAT_ROUNDS || job->progress.round >= MAX_ROUNDS)
            return 0;
    }
}

/* The stop */

static void stage_free(struct job *job)
{
    if (job->stage)
        munmap(job->stage, job->stage_room * GUEST_PAGE_SIZE);
    free(job->staged);
    job->stage = NULL;
    job->staged = NULL;
}

/* Room for the last pages, touched now: the host is slow to give what it must clear first. */
static int stage_prepare(struct job *job, struct error *err)
{
    uint64_t room = 3 * count_dirty(job);

    room = room < STAGE_MIN_PAGES ? STAGE_MIN_PAGES : room;
    job->stage_room = room > STAGE_MAX_PAGES ? STAGE_MAX_PAGES : (size_t)room;
    job->stage = mmap(NULL, job->stage_room * GUEST_PAGE_SIZE, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    job->staged = malloc(job->stage_room * sizeof(job->staged[0]));
    if (job->stage == MAP_FAILED || !job->staged) {
        job->stage = job->stage == MAP_FAILED ? NULL : job->stage;
        return error_set(err, ENOMEM, "no memory for the last pages");
    }
    return 0;
}

static void stage_run(struct job *job, unsigned index, uint64_t page, uint64_t pages)
{
    const uint8_t *from = region(job, index)->host + page * GUEST_PAGE_SIZE;

    memcpy(job->stage + job->stage_used * GUEST_PAGE_SIZE, from, pages * GUEST_PAGE_SIZE);
    for (uint64_t i = 0; i < pages; i++)
        job->staged[job->stage_used++] = (struct staged){.region = index, .page = page + i};
}

/* Take the last pages aside; more than there is room for stay marked, to be written directly. */
static bool stage_dirty(struct job *job)
{
    if (count_dirty(job) > job->stage_room)
        return false;
    for (unsigned i = 0; i < region_count(job); i++) {
        uint64_t pages = region(job, i)->size / GUEST_PAGE_SIZE, at = 0, length;

        for (; next_run(job->dirty[i], &at, pages, &length); at += length)
            stage_run(job, i, at, length);
    }
    return true;
}

static int take_state(struct job *job, struct error *err)
{
    int r = machine_save_state(job->migration->machine, &job->state, err);

    return r < 0 ? r : machine_describe(job->migration->machine, &job->description, err);
}

/* The log comes last: to save a state may be to write RAM. */
static int take_last(struct job *job, struct error *err)
{
    int r = job->stop ? machine_sync_disks(job->migration->machine, err) : 0;

    if (r == 0)
        r = take_state(job, err);
    return r == 0 && job->logging ? take_dirty(job, err) : r;
}

/* On the machine's thread. What can go on, goes on when this returns. */
static int stop_and_take(struct job *job, struct error *err)
{
    struct machine *machine = job->migration->machine;
    uint64_t start = loop_now_ns();
    bool was_running = machine_state(machine) == MACHINE_RUNNING;
    int r = machine_hold(machine, err);

    if (r < 0)
        return r;
    job->held = true;
    if (job->stop && was_running) {
        r = machine_pause(machine, err); /* for all to see: it will not go on */
        job->paused = r == 0;
    }
    if (r == 0)
        r = take_last(job, err);
    job->pause_pages = count_dirty(job);
    if (r < 0 || (!job->stop && stage_dirty(job))) {
        machine_release(machine);
        job->held = false;
    }
    if (was_running)
        job->pause_ns = loop_now_ns() - start;
    return r;
}

static int let_go(struct job *job, struct error *err)
{
    (void)err;
    machine_release(job->migration->machine);
    job->held = false;
    return 0;
}

static int write_staged(struct job *job, struct error *err)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < job->stage_used; i++)
        r = snapfile_put_pages(job->file, job->staged[i].region,
                               job->staged[i].page * GUEST_PAGE_SIZE,
                               job->stage + i * GUEST_PAGE_SIZE, GUEST_PAGE_SIZE, err);
    job->progress.written_bytes += job->stage_used * GUEST_PAGE_SIZE;
    return r;
}

/* It stands still: it is not to go on, or there was no room and it does so for longer. */
static int write_held(struct job *job, struct error *err)
{
    uint64_t start = loop_now_ns();
    struct error ignored;
    int r;

    job->logging = false;
    r = copy_round(job, err);
    job->pause_ns += job->pause_ns ? loop_now_ns() - start : 0;
    if (!job->stop)
        (void)job_call_machine(job, let_go, &ignored); /* or else the end of the job does it */
    return r;
}

static int write_sections(struct job *job, struct error *err)
{
    int r = snapfile_put_section(job->file, "machine", true, job->description,
                                 strlen(job->description), err);

    if (r == 0)
        r = snapfile_put_section(job->file, "cpuid", true, job->cpuid.data, job->cpuid.len, err);
    if (r == 0)
        r = snapfile_put_section(job->file, "state", true, job->state.data, job->state.len, err);
    return r;
}

int save_work(struct job *job, struct error *err)
{
    struct snapfile_written written;
    int r = copy_rounds(job, err);

    if (r == 0 && !job->stop)
        r = stage_prepare(job, err);
    if (r == 0)
        r = job_call_machine(job, stop_and_take, err);
    job->progress.phase = MIGRATION_WRITING;
    if (r == 0)
        r = job->held ? write_held(job, err) : write_staged(job, err);
    if (r == 0)
        r = write_sections(job, err);
    if (r == 0 && job_cancelled(job))
        r = error_set(err, ECANCELED, "cancelled");
    if (r == 0) {
        struct snapfile_writer *file = job->file;

        job->file = NULL; /* done with in any case */
        r = snapfile_publish(file, &written, err);
    }
    if (r == 0) {
        job->report.data_bytes = written.data_bytes;
        job->report.file_bytes = written.file_bytes;
    }
    stage_free(job);
    return r;
}
