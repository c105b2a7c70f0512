/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MIGRATION_RESTORE_MAP_H
#define MIGRATION_RESTORE_MAP_H

/*
 * RAM that is mapped from a chain of files. The oldest file lies beneath, mapped as a whole when
 * the machine was created; the pages of the others are laid over it.
 */
#include "vmrun/memory.h"
#include "vmrun/snapfile.h"

const struct snapfile *restore_oldest(const struct snapfile *file);

/*
 * Before anything touches RAM. most: mappings, of which a process may only have so many
 * (RESTORE_MOST_MAPPINGS); where there would be more, short runs of pages are read instead.
 * Errors: what mmap(2) and pread(2) say, -EPROTO, a file was cut.
 */
#define RESTORE_MOST_MAPPINGS 16384u
int restore_map_younger(struct guest_memory *memory, const struct snapfile *file, unsigned most,
                        struct error *err);

#endif
