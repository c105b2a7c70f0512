/* SPDX-License-Identifier: Apache-2.0 */
/*
 * snapfile_hash: checksums of a file's parts, and pages that are zero.
 */
#include <string.h>

#include "checksum.h"
#include "snapfile_format.h"

static const uint8_t zero_page[SNAPFILE_PAGE];

uint64_t snapfile_hash(const void *data, size_t len)
{
    return checksum_of(data, len);
}

uint64_t snapfile_hash_of_zero_page(void)
{
    return snapfile_hash(zero_page, sizeof(zero_page));
}

bool snapfile_is_zero_page(const void *page)
{
    /* memcmp() is the vector loop: it stops at the first difference. */
    return memcmp(page, zero_page, sizeof(zero_page)) == 0;
}

uint64_t snapfile_hash_of_hashes(const uint64_t *hashes, size_t count)
{
    uint8_t bytes[SNAPFILE_CHUNK_PAGES * 8];

    for (size_t i = 0; i < count; i++)
        snapfile_put_le(bytes + 8 * i, hashes[i], 8);
    return snapfile_hash(bytes, 8 * count);
}
