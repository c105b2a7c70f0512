/* SPDX-License-Identifier: Apache-2.0 */
/*
 * changed: by the log that was kept on since the earlier snapshot, by the private copies that Linux
 * made of the mapped file's pages, or by comparing all RAM with what the file has.
 *
 * The order that makes the last two right: the log is emptied first. What was written before can be
 * seen in RAM, and what is written later is in the log.
 */
#include "changed.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "snapfile_chain.h"
#include "vmrun/log.h"

void changed_remember(struct changed_mark *mark, const struct snapfile *file)
{
    *mark = (struct changed_mark){.known = true, .checksum = file->ram_checksum};
    memcpy(mark->id, file->super.id, sizeof(mark->id));
}

bool changed_is_mark(const struct changed_mark *mark, const struct snapfile *file)
{
    return mark->known && mark->checksum == file->ram_checksum &&
           memcmp(mark->id, file->super.id, sizeof(mark->id)) == 0;
}

int changed_open(struct changed *changed, const char *base, const struct guest_memory *memory,
                 unsigned workers, struct error *err)
{
    const struct snapfile_region *regions;
    int r = snapfile_open(base, &changed->base, err);

    if (r < 0)
        return r;
    unsigned count = snapfile_regions(changed->base, &regions);
    bool same = count == memory->count;

    for (unsigned i = 0; same && i < count; i++)
        same =
            regions[i].gpa == memory->regions[i].gpa && regions[i].size == memory->regions[i].size;
    if (!same)
        return error_set(err, EINVAL, "%s: is of a machine with other memory", base);
    changed->how = MIGRATION_BY_COMPARISON;
    changed->pieces = malloc(workers * SNAPFILE_CHUNK_BYTES);
    return changed->pieces ? 0 : error_set(err, ENOMEM, "out of memory");
}

void changed_close(struct changed *changed)
{
    snapfile_close(changed->base);
    free(changed->pieces);
}

static int owe_copies(struct rounds *rounds, const struct guest_memory *memory, struct error *err)
{
    int r = 0;

    for (unsigned i = 0; r == 0 && i < memory->count; i++) {
        uint64_t *bitmap = calloc(guest_memory_bitmap_words(memory, i), sizeof(uint64_t));

        r = bitmap ? guest_memory_find_copies(memory, i, false, bitmap, err)
                   : error_set(err, ENOMEM, "out of memory");
        if (r == 0)
            rounds_owe(rounds, i, bitmap);
        free(bitmap);
    }
    return r;
}

int changed_begin(struct changed *changed, struct rounds *rounds, const struct guest_memory *memory,
                  struct error *err)
{
    struct error why;
    int r;

    if (changed->how == MIGRATION_BY_LOG)
        return rounds_harvest(rounds, err);
    r = changed->base ? rounds_forget(rounds, err) : 0;
    if (r < 0)
        return r;
    if (changed->how == MIGRATION_BY_MAPPINGS) {
        if (owe_copies(rounds, memory, &why) == 0)
            return 0;
        log_warn("what changed is found by comparing: %s", why.msg);
        changed->how = MIGRATION_BY_COMPARISON;
    }
    rounds_owe_all(rounds);
    changed->comparing = changed->how == MIGRATION_BY_COMPARISON;
    return 0;
}

int changed_compare(struct changed *changed, unsigned worker, const struct rounds_chunk *chunk,
                    uint64_t *bits, struct error *err)
{
    const struct snapfile_map *map = &changed->base->map;
    uint64_t number = map->first_chunk[chunk->region] + chunk->first / SNAPFILE_CHUNK_PAGES;
    uint8_t *piece = changed->pieces + worker * SNAPFILE_CHUNK_BYTES;
    int r = snapfile_verify_chunk(changed->base, number, piece, err);

    static_assert(ROUNDS_CHUNK_PAGES == SNAPFILE_CHUNK_PAGES, "a chunk is a chunk");
    for (unsigned page = 0; r == 0 && page < chunk->pages; page++)
        if (memcmp(piece + (size_t)page * GUEST_PAGE_SIZE,
                   chunk->host + (size_t)page * GUEST_PAGE_SIZE, GUEST_PAGE_SIZE) == 0)
            bits[page / 64] &= ~(UINT64_C(1) << page % 64);
    return r;
}
