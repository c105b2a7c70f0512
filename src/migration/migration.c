/* SPDX-License-Identifier: Apache-2.0 */
/*
 * migration: starts a job on a thread of its own, carries its calls to the machine's thread, and
 * brings it to its end, good or bad.
 *
 * The one thing to know: the end is told on the machine's thread, when the job's is joined; only
 * then is the machine as it was, or has it ended.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "job.h"
#include "vmrun/log.h"
#include "vmrun/thread.h"

bool job_cancelled(struct job *job)
{
    pthread_mutex_lock(&job->lock);
    bool cancelled = job->cancelled;
    pthread_mutex_unlock(&job->lock);
    return cancelled;
}

static void tell(void *opaque)
{
    struct job *job = opaque;
    const struct migration *migration = job->migration;

    pthread_mutex_lock(&job->lock);
    struct migration_progress progress = job->to_tell;
    job->telling = false;
    pthread_mutex_unlock(&job->lock);
    if (migration->listener)
        migration->listener->progress(migration->opaque, &progress);
}

void job_tell_progress(struct job *job, uint64_t interval_ns)
{
    uint64_t now = loop_now_ns();

    if (now - job->told_ns < interval_ns)
        return;
    job->told_ns = now;
    job->progress.elapsed_ns = now - job->start_ns;
    pthread_mutex_lock(&job->lock);
    job->to_tell = job->progress;
    /* One at a time: the machine's thread may be slow. */
    if (!job->telling && !job->abandoned)
        job->telling = loop_post(job->migration->loop, tell, job) == 0;
    pthread_mutex_unlock(&job->lock);
}

static void serve_call(void *opaque)
{
    struct job *job = opaque;

    pthread_mutex_lock(&job->lock);
    job_fn *call = job->call;
    pthread_mutex_unlock(&job->lock);
    if (!call)
        return; /* it was given up */
    int r = call(job, job->call_err);
    pthread_mutex_lock(&job->lock);
    job->call_result = r;
    job->call = NULL;
    pthread_cond_signal(&job->answered);
    pthread_mutex_unlock(&job->lock);
}

int job_call_machine(struct job *job, job_fn *fn, struct error *err)
{
    int r;

    pthread_mutex_lock(&job->lock);
    job->call = fn;
    job->call_err = err;
    r = job->abandoned ? -ECANCELED : loop_post(job->migration->loop, serve_call, job);
    while (r == 0 && job->call && !job->abandoned)
        pthread_cond_wait(&job->answered, &job->lock);
    if (r == 0 && !job->call)
        r = job->call_result;
    else
        r = error_set(err, r == -ENOMEM ? ENOMEM : ECANCELED,
                      r == -ENOMEM ? "out of memory" : "cancelled");
    job->call = NULL;
    pthread_mutex_unlock(&job->lock);
    return r;
}

static void job_free(struct job *job)
{
    snapfile_abandon(job->file);
    for (unsigned i = 0; i < MEMORY_MAX_REGIONS; i++)
        free(job->dirty[i]);
    free(job->fresh);
    free(job->state.data);
    free(job->cpuid.data);
    free(job->description);
    pthread_cond_destroy(&job->answered);
    pthread_mutex_destroy(&job->lock);
    free(job);
}

/* The machine as it was, or ended: the job's thread is done. */
static void settle(struct job *job)
{
    struct machine *machine = job->migration->machine;
    struct error err;

    machine_release(machine);
    if (job->paused && job->report.error.code && machine_state(machine) == MACHINE_PAUSED &&
        machine_resume(machine, &err) < 0)
        log_warn("%s", err.msg);
    snapfile_abandon(job->file);
    job->file = NULL;
    if (machine_dirty_log(machine, false, &err) < 0)
        log_warn("the log of written pages stays on: %s", err.msg);
    job->report.rounds = job->progress.round;
    job->report.total_ns = loop_now_ns() - job->start_ns;
    job->report.pause_ns = job->pause_ns;
    job->report.pause_bytes = job->pause_pages * GUEST_PAGE_SIZE;
    job->report.written_bytes = job->progress.written_bytes;
}

/* It is over: joined, settled, told. Returns whether the machine is to end. */
static bool finish(struct job *job)
{
    struct migration *migration = job->migration;
    struct migration_report report;
    bool kill;

    pthread_join(job->thread, NULL);
    settle(job);
    report = job->report;
    kill = job->stop && !report.error.code;
    migration->job = NULL;
    job_free(job);
    if (migration->listener)
        migration->listener->ended(migration->opaque, &report);
    return kill;
}

static void ended(void *opaque)
{
    struct job *job = opaque;
    struct machine *machine = job->migration->machine;

    if (finish(job))
        machine_kill(machine);
}

static void *work(void *opaque)
{
    struct job *job = opaque;
    struct error err = {0};

    if (job->work(job, &err) < 0)
        job->report.error = err;
    pthread_mutex_lock(&job->lock);
    /* Without memory for a word the end is not told: migration_destroy() settles it. */
    if (!job->abandoned)
        (void)loop_post(job->migration->loop, ended, job);
    pthread_mutex_unlock(&job->lock);
    return NULL;
}

int migration_create(struct machine *machine, struct loop *loop, struct migration **ret_migration,
                     struct error *err)
{
    struct migration *migration = calloc(1, sizeof(*migration));

    if (!migration)
        return error_set(err, ENOMEM, "out of memory");
    *migration = (struct migration){.machine = machine, .loop = loop};
    *ret_migration = migration;
    return 0;
}

void migration_set_listener(struct migration *migration, const struct migration_listener *listener,
                            void *opaque)
{
    migration->listener = listener;
    migration->opaque = opaque;
}

void migration_destroy(struct migration *migration)
{
    struct job *job = migration ? migration->job : NULL;

    if (job) {
        pthread_mutex_lock(&job->lock);
        job->cancelled = job->abandoned = true;
        pthread_cond_signal(&job->answered);
        pthread_mutex_unlock(&job->lock);
        (void)finish(job);
    }
    free(migration);
}

int migration_cancel(struct migration *migration, struct error *err)
{
    struct job *job = migration->job;

    if (!job)
        return error_set(err, ENOENT, "nothing is under way");
    pthread_mutex_lock(&job->lock);
    job->cancelled = true;
    pthread_mutex_unlock(&job->lock);
    return 0;
}

static int allocate(struct job *job, struct error *err)
{
    const struct guest_memory *mem = machine_memory(job->migration->machine);
    size_t most = 0;

    for (unsigned i = 0; i < mem->count; i++) {
        size_t words = guest_memory_bitmap_words(mem, i);

        assert(words > 0);
        most = words > most ? words : most;
        job->dirty[i] = calloc(words, sizeof(uint64_t));
        if (!job->dirty[i])
            return error_set(err, ENOMEM, "out of memory");
    }
    assert(most > 0); /* no region is empty, and there is one */
    job->fresh = calloc(most, sizeof(uint64_t));
    return job->fresh ? 0 : error_set(err, ENOMEM, "out of memory");
}

static int open_file(struct job *job, const struct migration_save *params, struct error *err)
{
    const struct guest_memory *mem = machine_memory(job->migration->machine);
    struct snapfile_region regions[MEMORY_MAX_REGIONS];

    for (unsigned i = 0; i < mem->count; i++)
        regions[i] =
            (struct snapfile_region){.gpa = mem->regions[i].gpa, .size = mem->regions[i].size};
    return snapfile_create(params->path, params->replace, regions, mem->count, &job->file, err);
}

int migration_save(struct migration *migration, const struct migration_save *params,
                   struct error *err)
{
    enum machine_state state = machine_state(migration->machine);
    struct error ignored;
    struct job *job;
    int r;

    if (migration->job)
        return error_set(err, EBUSY, "another save is under way");
    if (state != MACHINE_RUNNING && state != MACHINE_PAUSED)
        return error_set(err, EBUSY, "cannot save: the machine is %s", machine_state_name(state));
    job = calloc(1, sizeof(*job));
    if (!job)
        return error_set(err, ENOMEM, "out of memory");
    job->migration = migration;
    job->work = save_work;
    job->stop = params->stop;
    job->start_ns = loop_now_ns();
    pthread_mutex_init(&job->lock, NULL);
    pthread_cond_init(&job->answered, NULL);

    r = allocate(job, err);
    if (r == 0)
        r = open_file(job, params, err);
    if (r == 0)
        r = machine_save_cpuid(migration->machine, &job->cpuid, err);
    if (r == 0)
        r = machine_dirty_log(migration->machine, true, err);
    if (r < 0)
        goto fail;
    job->logging = true;
    r = thread_start(&job->thread, "save", 0, work, job, err);
    if (r < 0) {
        (void)machine_dirty_log(migration->machine, false, &ignored);
        goto fail;
    }
    migration->job = job;
    return 0;

fail:
    job_free(job);
    return r;
}
