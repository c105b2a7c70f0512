/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MIGRATION_NEWFILE_H
#define MIGRATION_NEWFILE_H

/*
 * A file that has a name when it is whole, and not before. Without O_TMPFILE it is .vmrun-RANDOM
 * until then.
 */
#include <stdbool.h>
#include <stdint.h>

#include "vmrun/error.h"

struct newfile {
    char *path;         /* as given, for messages */
    const char *base;   /* in path: the last component */
    int dir, fd;        /* -1: not open */
    char temporary[32]; /* a name that is to be removed, or "" */
    bool replace;
};

/*
 * Mode 0600. named: do not try O_TMPFILE. On failure file is fit for newfile_close(). Errors: as
 * snapfile_create().
 */
int newfile_open(struct newfile *file, const char *path, bool replace, bool named,
                 struct error *err);
/* Errors of these: -ENOSPC, -EFBIG, -EIO …, with the file's name. */
int newfile_write(const struct newfile *file, uint64_t offset, const void *data, uint64_t bytes,
                  struct error *err);
int newfile_failed(const struct newfile *file, struct error *err); /* of errno */
/* The name, for what is on the disk already. Errors: also -EEXIST. */
int newfile_take_name(struct newfile *file, struct error *err);
/* What has no name is gone. file is zeros, open or closed. */
void newfile_close(struct newfile *file);

#endif
