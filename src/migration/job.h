/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MIGRATION_JOB_H
#define MIGRATION_JOB_H

/*
 * One thing that is under way: its thread, and how that thread and the machine's talk. Whoever
 * works on the thread owns everything here but what `lock` guards. save.c and source.c are jobs:
 * each has a struct of its own that begins with this one.
 */
#include <pthread.h>

#include "changed.h"
#include "rounds.h"
#include "vmrun/migration.h"

struct job;
typedef int job_fn(struct job *job, struct error *err);

struct job_ops {
    const char *thread; /* its name */
    job_fn *work;       /* on the thread */
    /*
     * On the machine's thread, when the job's is joined and the engine has put the machine back to
     * what it was before: the rest. Returns whether the machine is to end.
     */
    bool (*settle)(struct job *job);
    void (*free)(struct job *job); /* what it has beside itself */
};

struct job {
    const struct job_ops *ops;
    struct migration *migration;
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

    struct rounds *rounds;
    bool log_on;   /* the log is on already, and what it has is wanted */
    bool keep_log; /* leave it on when all went well */
    bool paused;   /* by us: to be undone when it fails */
    bool gone;     /* it runs elsewhere, and never again here */
    bool held;     /* the machine stands still while its last pages are copied */
};

/* What travels beside the state, so that nobody misses it. */
struct job_extras {
    struct job_extra {
        const char *name;
        uint64_t from;      /* up to where it was taken */
        struct writer data; /* empty: there is none */
    } extra[MACHINE_MAX_EXTRAS];
};
/* What has come since the last time; all, at the first. */
void job_take_extras(struct machine *machine, struct job_extras *extras);
void job_free_extras(struct job_extras *extras);

struct migration {
    struct machine *machine;
    struct loop *loop;
    const struct migration_listener *listener;
    void *opaque;
    struct job *job; /* what is under way, or NULL */
    char *moved_to;  /* or NULL */

    /* What is known of RAM: that it is mapped from a file, and since which one the log is on. */
    struct changed_mark origin, tracked;
};

/* Whether something new may begin. Errors: -EBUSY, something is under way, or the machine has ended
 * or never ran. what: "save". */
int job_admit(const struct migration *migration, const char *what, struct error *err);
/*
 * Begin: job is of the caller's own kind, zeroed but for ops and what these need; the machine's log
 * is on from here to the end, and nothing is tracked any more. The sink is given the job. Freed in
 * any case. Errors: -ENOMEM; KVM's.
 */
int job_start(struct migration *migration, struct job *job, const struct rounds_sink *sink,
              unsigned workers, struct error *err);

bool job_cancelled(struct job *job);
int job_tell_cancelled(struct job *job, struct error *err); /* -ECANCELED, and by what */
/* -ECANCELED when it is; a word about progress now and then. For a sink's tick. */
int job_tick(struct job *job, struct error *err);
/* Tell the listener, unless the last word is younger than that. */
void job_tell_progress(struct job *job, uint64_t interval_ns);
/* Have fn called on the machine's thread, and wait. Errors: fn's; -ECANCELED. */
int job_call_machine(struct job *job, job_fn *fn, struct error *err);

/* As a round begins and ends, for progress. */
int job_copy_round(struct job *job, struct rounds_round *ret_round, struct error *err);

#endif
