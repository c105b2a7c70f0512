/* SPDX-License-Identifier: Apache-2.0 */
/*
 * checksum: XXH3-64 with the widest vectors that this CPU has.
 *
 * Debian's CPUs have SSE2, most have AVX2: with it a checksum takes half the time, and each page
 * that is moved is summed up twice.
 */
#include "checksum.h"

static const struct checksum_ops *ops(void)
{
#ifdef __x86_64__
    if (__builtin_cpu_supports("avx2"))
        return &checksum_avx2;
#endif
    return &checksum_plain;
}

uint64_t checksum_of(const void *data, size_t len)
{
    return ops()->of(data, len);
}

void checksum_begin(struct checksum *checksum)
{
    ops()->begin(checksum);
}

void checksum_add(struct checksum *checksum, const void *data, size_t len)
{
    ops()->add(checksum, data, len);
}

uint64_t checksum_end(const struct checksum *checksum)
{
    return ops()->end(checksum);
}
