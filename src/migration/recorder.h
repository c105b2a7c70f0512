/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MIGRATION_RECORDER_H
#define MIGRATION_RECORDER_H

/*
 * Finds out which pages a machine touches first when it runs from a mapped snapshot, and writes
 * the snapshot once more, with them as its working set (vmrun/working_set.h).
 */
#include <stdbool.h>

#include "vmrun/error.h"
#include "vmrun/memory.h"
#include "vmrun/snapfile.h"

struct recorder;

/*
 * Before anything touches memory, which is mapped from file, which lies at path. After that many
 * seconds the file gets its working set, and it is told in the log how that went. Errors: those of
 * snapfile_rewrite_create(); -ENOMEM; /proc/self/pagemap cannot be read.
 */
int recorder_start(const struct guest_memory *memory, const struct snapfile *file, const char *path,
                   unsigned seconds, struct recorder **ret_recorder, struct error *err);
/*
 * While memory is still there. keep: the machine will touch no more, so what was recorded until now
 * is all there is, and goes into the file; else what is not in the file yet is given up. NULL is
 * fine.
 */
void recorder_stop(struct recorder *recorder, bool keep);

#endif
