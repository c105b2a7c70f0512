/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MIGRATION_JOB_H
#define MIGRATION_JOB_H

/*
 * One thing that is under way: its thread, and how that thread and the machine's talk. Whoever
 * works on the thread owns everything here but what `lock` guards.
 */
#include <pthread.h>

#include "vmrun/migration.h"
#include "vmrun/snapfile.h"

struct job;
typedef int job_fn(struct job *job, struct error *err);

struct staged {
    unsigned region;
    uint64_t page;
};

struct job {
    struct migration *migration;
    job_fn *work;
    pthread_t thread;

    pthread_mutex_t lock;
    pthread_cond_t answered;
    bool cancelled, abandoned; /* lock; abandoned: the machine's thread serves no more calls */
    job_fn *call;              /* lock: for the machine's thread, or NULL */
    struct error *call_err;
    int call_result;
    bool telling;                      /* lock: a word about progress is on its way */
    struct migration_progress to_tell; /* lock */

    uint64_t start_ns, told_ns;
    struct migration_progress progress;
    struct migration_report report;
    uint64_t pause_ns, pause_pages;

    bool stop, logging;
    bool paused; /* by us: to be undone when it fails */
    bool held;   /* the machine stands still while its last pages are written */
    uint64_t *dirty[MEMORY_MAX_REGIONS], *fresh;
    uint8_t *stage;
    struct staged *staged;
    size_t stage_room, stage_used; /* pages */
    struct snapfile_writer *file;
    struct writer state, cpuid;
    char *description;
};

struct migration {
    struct machine *machine;
    struct loop *loop;
    const struct migration_listener *listener;
    void *opaque;
    struct job *job; /* what is under way, or NULL */
};

bool job_cancelled(struct job *job);
/* Tell the listener, unless the last word is younger than that. */
void job_tell_progress(struct job *job, uint64_t interval_ns);
/* Have fn called on the machine's thread, and wait. Errors: fn's; -ECANCELED. */
int job_call_machine(struct job *job, job_fn *fn, struct error *err);

/* save.c: the work of a job that saves. */
job_fn save_work;

#endif
