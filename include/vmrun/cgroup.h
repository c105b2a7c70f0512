/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMRUN_CGROUP_H
#define VMRUN_CGROUP_H

/*
 * Limits on what this process may use of the host's CPUs and memory: a cgroup (version 2) of its
 * own, below the one it is in, or beside it where that one has others in it. One at a time; the
 * machine's thread.
 */

#include <stdint.h>
#include <sys/types.h>

#include "vmrun/error.h"

struct cgroup;

/* The host, for tests: NULL is the real thing. */
struct cgroup_host {
    const char *mount; /* of cgroup2 */
    const char *self;  /* as /proc/self/cgroup */
    /* As the system calls; write puts a text into a file that is there. 0, or -1 and errno. */
    int (*mkdir)(const char *path, mode_t mode);
    int (*rmdir)(const char *path);
    int (*write)(const char *path, const char *text);
};

struct cgroup_params {
    const char *name;      /* of the machine; its cgroup is "vmrun-NAME-PID" */
    uint64_t cpu_percent;  /* of one CPU; 0: no limit */
    uint64_t memory_bytes; /* likewise */
    const struct cgroup_host *host;
};

/*
 * Make it, go into it with all threads, and have the limits hold. What a vmrun that was killed has
 * left there is removed on the way. The message says what would help. Errors: -ENOTSUP, no cgroup2,
 * or without what is needed; -EPERM, -EBUSY and others, with the file named.
 */
int cgroup_enter(const struct cgroup_params *params, struct cgroup **ret_cgroup, struct error *err);

/* From now on; 0: no limit. Errors: of the cgroup's file, which is named. */
int cgroup_set_cpu(struct cgroup *cgroup, uint64_t percent, struct error *err);
int cgroup_set_memory(struct cgroup *cgroup, uint64_t bytes, struct error *err);

/* Back to where it was, and remove it. NULL is fine. */
void cgroup_leave(struct cgroup *cgroup);

#endif
