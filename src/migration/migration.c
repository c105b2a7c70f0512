/* SPDX-License-Identifier: Apache-2.0 */
/*
 * migration: starts a job on a thread of its own, carries its calls to the machine's thread, and
 * brings it to its end, good or bad.
 *
 * The one thing to know: the end is told on the machine's thread, when the job's is joined; only
 * then is the machine as it was, or has it ended.
 */
#include <errno.h>
#include <stdlib.h>

#include "job.h"
#include "vmrun/log.h"
#include "vmrun/thread.h"

#define PROGRESS_NS UINT64_C(100000000)

bool job_cancelled(struct job *job)
{
    pthread_mutex_lock(&job->lock);
    bool cancelled = job->cancelled;
    pthread_mutex_unlock(&job->lock);
    return cancelled;
}

static int tell_cancelled(bool abandoned, struct error *err)
{
    return error_set(err, ECANCELED, abandoned ? "the machine has ended" : "cancelled");
}

int job_tell_cancelled(struct job *job, struct error *err)
{
    pthread_mutex_lock(&job->lock);
    bool abandoned = job->abandoned;
    pthread_mutex_unlock(&job->lock);
    return tell_cancelled(abandoned, err);
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
    else if (r == -ENOMEM)
        (void)error_set(err, ENOMEM, "out of memory");
    else
        r = tell_cancelled(job->abandoned, err);
    job->call = NULL;
    pthread_mutex_unlock(&job->lock);
    return r;
}

int job_tick(struct job *job, struct error *err)
{
    if (job_cancelled(job))
        return job_tell_cancelled(job, err);
    job->progress.round_bytes = rounds_round_pages(job->rounds) * GUEST_PAGE_SIZE;
    job->progress.done_bytes = rounds_done_pages(job->rounds) * GUEST_PAGE_SIZE;
    job->progress.written_bytes = rounds_copied_pages(job->rounds) * GUEST_PAGE_SIZE;
    job_tell_progress(job, PROGRESS_NS);
    return 0;
}

int job_copy_round(struct job *job, struct rounds_round *ret_round, struct error *err)
{
    job->progress.round++;
    job->progress.done_bytes = 0;
    int r = rounds_copy(job->rounds, ret_round, err);

    job->progress.written_bytes = rounds_copied_pages(job->rounds) * GUEST_PAGE_SIZE;
    return r;
}

void job_take_extras(struct machine *machine, struct job_extras *extras)
{
    for (unsigned i = 0; i < MACHINE_MAX_EXTRAS; i++) {
        struct job_extra *extra = &extras->extra[i];

        uint64_t from = extra->from;

        extra->data.len = 0;
        extra->data.failed = false;
        if (machine_save_extra(machine, i, &extra->name, &from, &extra->data) &&
            !extra->data.failed)
            extra->from = from;
        else
            extra->data.len = 0;
    }
}

void job_free_extras(struct job_extras *extras)
{
    for (unsigned i = 0; i < MACHINE_MAX_EXTRAS; i++)
        free(extras->extra[i].data.data);
}

static void job_free(struct job *job)
{
    job->ops->free(job);
    rounds_destroy(job->rounds);
    pthread_cond_destroy(&job->answered);
    pthread_mutex_destroy(&job->lock);
    free(job);
}

/* The machine as it was, or about to end: the job's thread is done. */
static bool settle(struct job *job)
{
    struct machine *machine = job->migration->machine;
    bool ends = job->ops->settle(job);
    struct error err;

    if (!job->gone)
        machine_release(machine);
    if (job->paused && job->report.error.code && machine_state(machine) == MACHINE_PAUSED &&
        machine_resume(machine, &err) < 0)
        log_warn("%s", err.msg);
    if ((!job->keep_log || job->report.error.code) && machine_dirty_log(machine, false, &err) < 0)
        log_warn("the log of written pages stays on: %s", err.msg);
    job->report.rounds = job->progress.round;
    job->report.total_ns = loop_now_ns() - job->start_ns;
    job->report.pause_ns = job->pause_ns;
    job->report.pause_bytes = job->pause_pages * GUEST_PAGE_SIZE;
    job->report.written_bytes = job->progress.written_bytes;
    return ends;
}

/* It is over: joined, settled, told. Returns whether the machine is to end. */
static bool finish(struct job *job)
{
    struct migration *migration = job->migration;

    pthread_join(job->thread, NULL);
    bool kill = settle(job);
    migration->job = NULL;
    if (migration->listener)
        migration->listener->ended(migration->opaque, &job->report);
    job_free(job);
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

    if (job->ops->work(job, &err) < 0)
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
    if (migration)
        free(migration->moved_to);
    free(migration);
}

void migration_set_origin(struct migration *migration, const struct snapfile *file)
{
    changed_remember(&migration->origin, file);
}

const char *migration_moved_to(const struct migration *migration)
{
    return migration->moved_to;
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

int job_admit(const struct migration *migration, const char *what, struct error *err)
{
    enum machine_state state = machine_state(migration->machine);

    if (migration->job)
        return error_set(err, EBUSY, "another %s is under way", migration->job->ops->thread);
    if (state != MACHINE_RUNNING && state != MACHINE_PAUSED)
        return machine_refuse(migration->machine, what, err);
    return 0;
}

int job_start(struct migration *migration, struct job *job, const struct rounds_sink *sink,
              unsigned workers, struct error *err)
{
    struct error ignored;
    int r;

    job->migration = migration;
    job->start_ns = loop_now_ns();
    pthread_mutex_init(&job->lock, NULL);
    pthread_cond_init(&job->answered, NULL);

    r = rounds_create(migration->machine, sink, job, workers, &job->rounds, err);
    if (r == 0 && !job->log_on)
        r = machine_dirty_log(migration->machine, true, err);
    if (r < 0)
        goto fail;
    migration->tracked.known = false;
    r = thread_start(&job->thread, job->ops->thread, 0, work, job, err);
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
