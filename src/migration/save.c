/* SPDX-License-Identifier: Apache-2.0 */
/*
 * save: a machine's RAM and state into a snapshot file, while it runs.
 *
 * Each page has a fixed place in the file, so a page that is written again overwrites itself; what
 * makes it right is said in rounds.c.
 *
 * The thread never touches the machine's life: it asks the machine's thread to hold it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "job.h"
#include "vmrun/snapfile.h"

#define PROBE_NS UINT64_C(2000000)
#define MOST_WORKERS 2u /* the kernel takes one write to a file at a time: one hashes meanwhile */
#define PACKING_NS UINT64_C(100000000)
#define STAGE_MIN_PAGES 1024 /* room for the last pages, as many as three times those left */
#define STAGE_MAX_PAGES UINT64_C(65536)

struct staged {
    unsigned region;
    uint64_t page;
};

struct save {
    struct job job;
    bool stop;
    struct snapfile_writer *file;
    struct writer state, cpuid;
    struct job_extras extras;
    char *description;

    struct changed changed;
    bool track, compress;
    struct changed_mark written; /* the file, when it is there */

    uint8_t *stage;
    struct staged *staged;
    size_t stage_room, stage_used; /* pages */
};

static struct save *save_of(struct job *job)
{
    return (struct save *)job;
}

static struct machine *machine_of(const struct save *save)
{
    return save->job.migration->machine;
}

/* Rounds */

static int put(void *opaque, unsigned worker, const struct rounds_chunk *chunk, struct error *err)
{
    struct save *save = opaque;
    uint64_t bits[ROUNDS_CHUNK_WORDS], at = 0, length;
    int r = 0;

    memcpy(bits, chunk->bits, sizeof(bits));
    if (save->changed.comparing)
        r = changed_compare(&save->changed, worker, chunk, bits, err);
    for (; r == 0 && rounds_next_run(bits, &at, chunk->pages, &length); at += length)
        r = snapfile_put_pages(save->file, chunk->region, (chunk->first + at) * GUEST_PAGE_SIZE,
                               chunk->host + at * GUEST_PAGE_SIZE, length * GUEST_PAGE_SIZE, err);
    return r;
}

static int tick(void *opaque, struct error *err)
{
    struct save *save = opaque;

    return job_tick(&save->job, err);
}

static const struct rounds_sink sink = {.put = put, .tick = tick, .starts_zero = true};
/* What is zero here may be something else there. */
static const struct rounds_sink sink_on_base = {.put = put, .tick = tick};

static int copy_rounds(struct save *save, struct error *err)
{
    struct rounds_plan plan = {0};
    enum rounds_next next = ROUNDS_COPY;
    int r = changed_begin(&save->changed, save->job.rounds, machine_memory(machine_of(save)), err);

    while (r == 0 && next != ROUNDS_STOP) {
        struct rounds_round round;

        if (next == ROUNDS_PROBE)
            r = rounds_probe(save->job.rounds, PROBE_NS, err);
        if (r == 0)
            r = job_copy_round(&save->job, &round, err);
        save->changed.comparing = false;
        if (r == 0)
            next = rounds_plan_next(&plan, &round);
    }
    return r;
}

/* The stop */

static void stage_free(struct save *save)
{
    if (save->stage)
        munmap(save->stage, save->stage_room * GUEST_PAGE_SIZE);
    free(save->staged);
    save->stage = NULL;
    save->staged = NULL;
}

/* Room for the last pages, touched now: the host is slow to give what it must clear first. */
static int stage_prepare(struct save *save, struct error *err)
{
    uint64_t room = 3 * rounds_owed(save->job.rounds);

    room = room < STAGE_MIN_PAGES ? STAGE_MIN_PAGES : room;
    save->stage_room = room > STAGE_MAX_PAGES ? STAGE_MAX_PAGES : (size_t)room;
    save->stage = mmap(NULL, save->stage_room * GUEST_PAGE_SIZE, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    save->staged = malloc(save->stage_room * sizeof(save->staged[0]));
    if (save->stage == MAP_FAILED || !save->staged) {
        save->stage = save->stage == MAP_FAILED ? NULL : save->stage;
        return error_set(err, ENOMEM, "no memory for the last pages");
    }
    return 0;
}

static void stage_run(struct save *save, unsigned index, uint64_t page, uint64_t pages)
{
    const struct memory_region *region = &machine_memory(machine_of(save))->regions[index];

    memcpy(save->stage + save->stage_used * GUEST_PAGE_SIZE, region->host + page * GUEST_PAGE_SIZE,
           pages * GUEST_PAGE_SIZE);
    for (uint64_t i = 0; i < pages; i++)
        save->staged[save->stage_used++] = (struct staged){.region = index, .page = page + i};
}

/* Take the last pages aside; more than there is room for stay owed, to be written directly. */
static bool stage_owed(struct save *save)
{
    if (rounds_owed(save->job.rounds) > save->stage_room)
        return false;
    for (unsigned i = 0; i < machine_memory(machine_of(save))->count; i++) {
        uint64_t at = 0, length;

        for (; rounds_next_owed(save->job.rounds, i, &at, &length); at += length)
            stage_run(save, i, at, length);
    }
    return true;
}

static int take_state(struct save *save, struct error *err)
{
    int r = machine_save_state(machine_of(save), &save->state, err);

    job_take_extras(machine_of(save), &save->extras);
    return r < 0 ? r : machine_describe(machine_of(save), &save->description, err);
}

/* The log comes last: to save a state may be to write RAM. */
static int take_last(struct save *save, struct error *err)
{
    int r = save->stop ? machine_sync_disks(machine_of(save), err) : 0;

    if (r == 0)
        r = take_state(save, err);
    return r == 0 ? rounds_harvest(save->job.rounds, err) : r;
}

/* On the machine's thread. What can go on, goes on when this returns. */
static int stop_and_take(struct job *job, struct error *err)
{
    struct save *save = save_of(job);
    struct machine *machine = job->migration->machine;
    uint64_t start = loop_now_ns();
    bool was_running = machine_state(machine) == MACHINE_RUNNING;
    int r = machine_hold(machine, err);

    if (r < 0)
        return r;
    job->held = true;
    if (save->stop && was_running) {
        r = machine_pause(machine, err); /* for all to see: it will not go on */
        job->paused = r == 0;
    }
    if (r == 0)
        r = take_last(save, err);
    job->pause_pages = rounds_owed(job->rounds);
    if (r < 0 || (!save->stop && stage_owed(save))) {
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

static int write_staged(struct save *save, struct error *err)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < save->stage_used; i++)
        r = snapfile_put_pages(save->file, save->staged[i].region,
                               save->staged[i].page * GUEST_PAGE_SIZE,
                               save->stage + i * GUEST_PAGE_SIZE, GUEST_PAGE_SIZE, err);
    save->job.progress.written_bytes += save->stage_used * GUEST_PAGE_SIZE;
    return r;
}

/* It stands still: it is not to go on, or there was no room and it does so for longer. */
static int write_held(struct save *save, struct error *err)
{
    struct job *job = &save->job;
    uint64_t start = loop_now_ns();
    struct error ignored;
    int r = rounds_copy_last(job->rounds, err);

    job->progress.written_bytes = rounds_copied_pages(job->rounds) * GUEST_PAGE_SIZE;
    job->pause_ns += job->pause_ns ? loop_now_ns() - start : 0;
    if (!save->stop)
        (void)job_call_machine(job, let_go, &ignored); /* or else the end of the job does it */
    return r;
}

static int write_sections(struct save *save, struct error *err)
{
    int r = snapfile_put_section(save->file, "machine", true, save->description,
                                 strlen(save->description), err);

    if (r == 0)
        r = snapfile_put_section(save->file, "cpuid", true, save->cpuid.data, save->cpuid.len, err);
    if (r == 0)
        r = snapfile_put_section(save->file, "state", true, save->state.data, save->state.len, err);
    for (unsigned i = 0; r == 0 && i < MACHINE_MAX_EXTRAS; i++) {
        const struct job_extra *extra = &save->extras.extra[i];

        if (extra->data.len)
            r = snapfile_put_section(save->file, extra->name, false, extra->data.data,
                                     extra->data.len, err);
    }
    return r;
}

static bool tell_packed(void *opaque, uint64_t done, uint64_t all)
{
    struct job *job = opaque;
    bool begins = job->progress.phase != MIGRATION_PACKING;

    job->progress.phase = MIGRATION_PACKING;
    job->progress.round_bytes = all;
    job->progress.done_bytes = done;
    job_tell_progress(job, begins ? 0 : PACKING_NS);
    return !job_cancelled(job);
}

static int publish(struct save *save, struct error *err)
{
    struct migration_report *report = &save->job.report;
    struct snapfile_writer *file = save->file;
    struct snapfile_written written;
    int r;

    save->file = NULL; /* done with in any case */
    if (save->compress)
        r = snapfile_publish_archive(file, tell_packed, &save->job, &written, err);
    else
        r = snapfile_publish(file, &written, err);
    if (r < 0)
        return r;
    report->data_bytes = written.data_bytes;
    report->file_bytes = written.file_bytes;
    report->held_bytes = written.held_bytes;
    report->found = save->changed.how;
    save->written.known = true;
    save->written.checksum = written.ram_checksum;
    memcpy(save->written.id, written.id, sizeof(written.id));
    return 0;
}

static int work(struct job *job, struct error *err)
{
    struct save *save = save_of(job);
    int r;

    job->progress.phase = MIGRATION_COPYING;
    r = copy_rounds(save, err);
    if (r == 0 && !save->stop)
        r = stage_prepare(save, err);
    if (r == 0)
        r = job_call_machine(job, stop_and_take, err);
    job->progress.phase = MIGRATION_WRITING;
    if (r == 0)
        r = job->held ? write_held(save, err) : write_staged(save, err);
    if (r == 0)
        r = write_sections(save, err);
    if (r == 0 && job_cancelled(job))
        r = job_tell_cancelled(job, err);
    if (r == 0)
        r = publish(save, err);
    stage_free(save);
    return r;
}

/* The beginning and the end */

static bool settle(struct job *job)
{
    struct save *save = save_of(job);

    snapfile_abandon(save->file); /* before anybody is told that there is none */
    save->file = NULL;
    if (save->track && !job->report.error.code)
        job->migration->tracked = save->written;
    return save->stop && !job->report.error.code;
}

static void free_save(struct job *job)
{
    struct save *save = save_of(job);

    snapfile_abandon(save->file);
    changed_close(&save->changed);
    free(save->state.data);
    free(save->cpuid.data);
    job_free_extras(&save->extras);
    free(save->description);
}

static const struct job_ops save_ops = {
    .thread = "save", .work = work, .settle = settle, .free = free_save};

static int open_file(struct save *save, struct machine *machine,
                     const struct migration_save *params, struct error *err)
{
    const struct guest_memory *mem = machine_memory(machine);
    struct snapfile_region regions[MEMORY_MAX_REGIONS];

    if (save->changed.base)
        return snapfile_create_on(params->path, params->replace, save->changed.base, &save->file,
                                  err);
    for (unsigned i = 0; i < mem->count; i++)
        regions[i] =
            (struct snapfile_region){.gpa = mem->regions[i].gpa, .size = mem->regions[i].size};
    return snapfile_create(params->path, params->replace, regions, mem->count, &save->file, err);
}

/* On CPUs that the guest leaves: else it is the guest that waits, for a turn of the scheduler. */
static unsigned workers(const struct machine *machine)
{
    long rest = sysconf(_SC_NPROCESSORS_ONLN) - (long)machine_cpus(machine);

    return rest < (long)MOST_WORKERS ? 1 : MOST_WORKERS;
}

static int open_base(struct save *save, const struct migration *migration,
                     const struct migration_save *params, struct error *err)
{
    struct changed *changed = &save->changed;

    if (!params->base)
        return 0;
    if (changed_open(changed, params->base, machine_memory(migration->machine),
                     workers(migration->machine), err) < 0)
        return -err->code;
    if (changed_is_mark(&migration->origin, changed->base))
        changed->how = MIGRATION_BY_MAPPINGS;
    if (changed_is_mark(&migration->tracked, changed->base))
        changed->how = MIGRATION_BY_LOG;
    save->job.log_on = changed->how == MIGRATION_BY_LOG;
    return 0;
}

int migration_save(struct migration *migration, const struct migration_save *params,
                   struct error *err)
{
    struct save *save = calloc(1, sizeof(*save));
    int r;

    if (!save)
        return error_set(err, ENOMEM, "out of memory");
    save->job.ops = &save_ops;
    save->stop = params->stop;
    save->track = save->job.keep_log = params->track;
    save->compress = params->compress;
    r = job_admit(migration, "save", err);
    if (r == 0 && params->stop && params->track)
        r = error_set(err, EINVAL, "a machine that ends cannot be tracked: either stop or track");
    if (r == 0)
        r = open_base(save, migration, params, err);
    if (r == 0)
        r = open_file(save, migration->machine, params, err);
    if (r == 0)
        r = machine_save_cpuid(migration->machine, &save->cpuid, err);
    if (r < 0) {
        free_save(&save->job);
        free(save);
        return r;
    }
    return job_start(migration, &save->job, save->changed.base ? &sink_on_base : &sink,
                     workers(migration->machine), err);
}
