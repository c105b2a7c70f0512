/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMRUN_BOOT_CACHE_H
#define VMRUN_BOOT_CACHE_H

/*
 * Unpacked kernels, kept in the user's cache folder: the next start of the
 * same kernel file reads what it needs of it instead of decompressing.
 *
 * The folder is $VMRUN_CACHE_DIR, else $XDG_CACHE_HOME/vmrun, else
 * $HOME/.cache/vmrun. A cache only saves time, so nothing here is ever an
 * error: what cannot be used is passed over with a line for --verbose.
 */

#include <sys/types.h>

#include "unpack.h"

struct cache;

/*
 * NULL when there is no folder to keep anything in. Nothing is opened or created yet.
 * delay_ms: from cache_keep() to when it begins.
 */
struct cache *cache_create(unsigned delay_ms);
/* Gives up what cache_keep() has begun, waits for it to stop (milliseconds), and closes all. */
void cache_destroy(struct cache *cache); /* NULL is fine */

/*
 * Whether `packed` is there, unpacked to unpacked_size bytes. Then *ret_stored is it, until the
 * next call or cache_destroy().
 */
bool cache_find(struct cache *cache, const struct unpack_source *packed, uint64_t unpacked_size,
                struct unpack_source *ret_stored);

/*
 * Unpack `packed` once more and keep it, on a thread that rests most of the time. The source's file
 * must stay open until cache_destroy(). Only the first call does anything. anew: also when it is
 * there.
 */
void cache_keep(struct cache *cache, const struct unpack_source *packed, uint64_t unpacked_size,
                bool anew);

#endif
