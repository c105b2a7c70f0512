/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MIGRATION_CHECKSUM_XXH3_H
#define MIGRATION_CHECKSUM_XXH3_H

/*
 * checksum_xxh3: XXH3-64, compiled in from its header: a process that runs a machine need not load
 * one more library before it starts. checksum_plain.c and checksum_avx2.c include it, once each,
 * and say in CHECKSUM_OPS what theirs is called.
 */
#ifndef CHECKSUM_OPS
#define CHECKSUM_OPS checksum_plain
#endif

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "checksum.h"

_Static_assert(sizeof(XXH3_state_t) <= CHECKSUM_STATE_BYTES, "room for it");
_Static_assert(_Alignof(XXH3_state_t) <= CHECKSUM_ALIGN, "aligned for it");

static XXH3_state_t *state_of(const struct checksum *checksum)
{
    size_t over = (uintptr_t)checksum->state % CHECKSUM_ALIGN;

    return (XXH3_state_t *)(void *)(checksum->state + (over ? CHECKSUM_ALIGN - over : 0));
}

static uint64_t of(const void *data, size_t len)
{
    return XXH3_64bits(data, len);
}

static void begin(struct checksum *checksum)
{
    (void)XXH3_64bits_reset(state_of(checksum));
}

static void add(struct checksum *checksum, const void *data, size_t len)
{
    (void)XXH3_64bits_update(state_of(checksum), data, len);
}

static uint64_t end(const struct checksum *checksum)
{
    return XXH3_64bits_digest(state_of(checksum));
}

const struct checksum_ops CHECKSUM_OPS = {.of = of, .begin = begin, .add = add, .end = end};

#endif
