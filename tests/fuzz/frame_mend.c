/* SPDX-License-Identifier: Apache-2.0 */
/* frame_mend: headers made right by the layout of docs/migration-protocol.md, not by frame.c. */
#include "frame_mend.h"

#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "../../src/migration/frame.h"

static void put_le(uint8_t *to, uint64_t value, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        to[i] = (uint8_t)(value >> (8 * i));
}

void frame_mend(uint8_t *stream, size_t len, unsigned choices)
{
    uint32_t sequence = 0, length;

    while (choices & FRAME_MEND && len >= FRAME_HEADER_BYTES) {
        memcpy(&length, stream + 8, 4);
        if (length > len - FRAME_HEADER_BYTES && choices & FRAME_CUT_LENGTHS)
            length = (uint32_t)(len - FRAME_HEADER_BYTES);
        put_le(stream, 0x6d76, 2);
        put_le(stream + 6, 0, 2);
        put_le(stream + 8, length, 4);
        put_le(stream + 12, sequence++, 4);
        put_le(stream + 16, 0, 8);
        put_le(stream + 6, XXH3_64bits(stream, FRAME_HEADER_BYTES), 2);
        if (length > len - FRAME_HEADER_BYTES)
            return;
        put_le(stream + 16, XXH3_64bits(stream, FRAME_HEADER_BYTES + (size_t)length), 8);
        stream += FRAME_HEADER_BYTES + length;
        len -= FRAME_HEADER_BYTES + length;
    }
}
