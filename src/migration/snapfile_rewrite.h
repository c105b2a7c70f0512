/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MIGRATION_SNAPFILE_REWRITE_H
#define MIGRATION_SNAPFILE_REWRITE_H

/*
 * A snapshot once more, with one section put in or replaced, in a new file that takes the name of
 * the old one. It has the same identity, since it is the same machine: what builds on the old file
 * builds on the new one. Who has the old one open or mapped keeps it as it was.
 */
#include <stdatomic.h>

#include "vmrun/snapfile.h"

struct snapfile_rewrite;

/*
 * file, to be kept open, is what lies at path. Errors: -ESTALE, by now another does; those of
 * snapfile_create().
 */
int snapfile_rewrite_create(const struct snapfile *file, const char *path,
                            struct snapfile_rewrite **ret_rewrite, struct error *err);
/*
 * Copy, add the section (not critical), take the name. Any thread. It is done with in any case.
 * Errors: -ECANCELED, leave was set; -ESTALE, as above; -EPROTO, the file was cut off; those of
 * snapfile_put_section() and snapfile_publish().
 */
int snapfile_rewrite_publish(struct snapfile_rewrite *rewrite, const char *name, const void *data,
                             size_t len, const atomic_bool *leave, struct error *err);
void snapfile_rewrite_abandon(struct snapfile_rewrite *rewrite); /* NULL is fine */

#endif
