/* SPDX-License-Identifier: Apache-2.0 */
/*
 * snapfile_ram: the RAM of a chain of files, chunk by chunk: from the oldest to the youngest, each
 * lays the pages that it holds over those before. A file alone is a chain of one.
 *
 * Each file's chunk is verified by itself: what a file does not hold is zero there.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "snapfile_chain.h"

#define PIECE_PAGES 16u

uint64_t snapfile_chunks(const struct snapfile *file)
{
    return file->map.chunks;
}

void snapfile_chunk_range(const struct snapfile *file, uint64_t chunk, uint64_t *ret_gpa,
                          uint64_t *ret_bytes)
{
    uint64_t offset;
    unsigned region = snapfile_map_chunk(&file->map, chunk, &offset, ret_bytes);

    *ret_gpa = file->map.regions[region].gpa + offset;
}

static uint64_t checksum_of(const struct snapfile *file, uint64_t chunk)
{
    assert(chunk < file->map.chunks);
    return snapfile_get_le(file->chunks + 8 * chunk, 8);
}

static bool holds_any(const struct snapfile *file, uint64_t chunk)
{
    bool any = !file->pages;

    for (unsigned i = 0; !any && i < SNAPFILE_PAGES_BYTES; i++)
        any = file->pages[chunk * SNAPFILE_PAGES_BYTES + i];
    return any;
}

bool snapfile_same_chunk(const struct snapfile *a, uint64_t chunk_a, const struct snapfile *b,
                         uint64_t chunk_b)
{
    while (a->base && !holds_any(a, chunk_a))
        a = a->base;
    while (b->base && !holds_any(b, chunk_b))
        b = b->base;
    if (a->ram_checksum == b->ram_checksum && chunk_a == chunk_b)
        return memcmp(a->super.id, b->super.id, SNAPFILE_ID_BYTES) == 0;
    return !a->pages && !b->pages && checksum_of(a, chunk_a) == checksum_of(b, chunk_b);
}

/* Pages */

uint64_t snapfile_pages_held(const struct snapfile *file)
{
    uint64_t pages = 0;

    for (unsigned i = 0; !file->pages && i < file->map.count; i++)
        pages += file->map.regions[i].size / SNAPFILE_PAGE;
    for (uint64_t i = 0; file->pages && i < file->map.chunks * SNAPFILE_PAGES_BYTES; i++)
        pages += (uint64_t)__builtin_popcount(file->pages[i]);
    return pages;
}

/* Of the 64 pages from there on in a region, those that come from the file `from` of the chain. */
static uint64_t sources_word(const struct snapfile *file, const struct snapfile *from, uint64_t at)
{
    uint64_t younger = 0;

    for (; file != from; file = file->base)
        younger |= snapfile_get_le(file->pages + at / 8, 8);
    return (from->base ? snapfile_get_le(from->pages + at / 8, 8) : UINT64_MAX) & ~younger;
}

const struct snapfile *snapfile_source(const struct snapfile *file, unsigned region, uint64_t page,
                                       uint64_t *ret_pages)
{
    uint64_t start = file->map.first_chunk[region] * SNAPFILE_CHUNK_PAGES;
    uint64_t end = file->map.regions[region].size / SNAPFILE_PAGE, next = page;
    const struct snapfile *from = file;

    assert(page < end);
    while (from->base && !snapfile_holds(from, 0, start + page))
        from = from->base;
    if (!file->base) { /* what it does not hold is nobody's, and counts as its own */
        *ret_pages = end - page;
        return from;
    }
    while (next < end) {
        uint64_t others = ~sources_word(file, from, start + next / 64 * 64) >> next % 64;

        if (others) {
            next += (uint64_t)__builtin_ctzll(others);
            break;
        }
        next = (next / 64 + 1) * 64;
    }
    *ret_pages = (next < end ? next : end) - page;
    return from;
}

/* A chunk on its way through memory; `done` counts its bytes. */
struct passage {
    const struct snapfile *file;
    uint64_t chunk;
    uint64_t start, done, bytes; /* start: in the file */
    uint8_t *into;               /* or NULL */
    uint8_t *piece;
    uint64_t hashes[SNAPFILE_CHUNK_PAGES];
};

/* Only what is not zero is written: memory that was never touched stays so. */
static void give_page(struct passage *p, const uint8_t *page)
{
    uint8_t *to = p->into + p->done;

    if (page != to && (page || !snapfile_is_zero_page(to))) {
        if (page)
            memcpy(to, page, SNAPFILE_PAGE);
        else
            memset(to, 0, SNAPFILE_PAGE);
    }
}

/* page: as it lies in the file, or NULL: zeros. */
static int pass_page(struct passage *p, const uint8_t *page, struct error *err)
{
    uint64_t number = p->done / SNAPFILE_PAGE;
    bool zero = !page || snapfile_is_zero_page(page);

    p->hashes[number] = zero ? p->file->zero_sum : snapfile_hash(page, SNAPFILE_PAGE);
    if (snapfile_holds(p->file, p->chunk, number)) {
        if (p->into)
            give_page(p, zero ? NULL : page);
    } else if (!zero) {
        return error_set(err, EPROTO, "a page that is not its own, but not zero");
    }
    p->done += SNAPFILE_PAGE;
    return 0;
}

static int pass_data(struct passage *p, uint64_t to, struct error *err)
{
    int r = 0;

    while (r == 0 && p->done < to) {
        uint64_t bytes = to - p->done, most = PIECE_PAGES * SNAPFILE_PAGE, end;
        /* A file that holds all can be read into its place. */
        uint8_t *piece = p->into && !p->file->pages ? p->into + p->done : p->piece;

        bytes = bytes < most ? bytes : most;
        end = p->done + bytes;
        r = snapfile_read_at(p->file->fd, p->start + p->done, piece, bytes, err);
        for (; r == 0 && p->done < end; piece += SNAPFILE_PAGE)
            r = pass_page(p, piece, err);
    }
    return r;
}

static int pass_chunk(struct passage *p, struct error *err)
{
    uint64_t end = p->start + p->bytes;
    int r = 0;

    while (r == 0 && p->done < p->bytes) {
        uint64_t data = snapfile_next_data(p->file->fd, p->start + p->done, end);

        while (r == 0 && p->done < data - p->start)
            r = pass_page(p, NULL, err);
        if (r == 0 && data < end)
            r = pass_data(p, snapfile_next_hole(p->file->fd, data, end) - p->start, err);
    }
    return r;
}

static int verify_one(const struct snapfile *file, uint64_t chunk, uint8_t *piece, void *into,
                      struct error *err)
{
    struct passage p = {.file = file, .chunk = chunk, .into = into, .piece = piece};
    uint64_t offset;
    unsigned region = snapfile_map_chunk(&file->map, chunk, &offset, &p.bytes);
    int r;

    p.start = file->map.offsets[region] + offset;
    r = pass_chunk(&p, err);
    if (r == 0 && snapfile_hash_of_hashes(p.hashes, (size_t)(p.bytes / SNAPFILE_PAGE)) !=
                      checksum_of(file, chunk))
        r = error_set(err, EPROTO, "checksum does not match");
    if (r < 0)
        error_prefix(err, "%s: RAM at 0x%" PRIx64, file->name,
                     file->map.regions[region].gpa + offset);
    return r;
}

static int verify_chain(const struct snapfile *const *chain, unsigned count, uint64_t chunk,
                        void *into, struct error *err)
{
    uint8_t *piece = malloc(PIECE_PAGES * SNAPFILE_PAGE);
    int r = 0;

    if (!piece)
        return error_set(err, ENOMEM, "%s: out of memory", chain[0]->name);
    while (r == 0 && count > 0)
        r = verify_one(chain[--count], chunk, piece, into, err);
    free(piece);
    return r;
}

int snapfile_verify_alone(const struct snapfile *file, uint64_t chunk, void *into,
                          struct error *err)
{
    return verify_chain(&file, 1, chunk, into, err);
}

int snapfile_verify_chunk(const struct snapfile *file, uint64_t chunk, void *into,
                          struct error *err)
{
    const struct snapfile *chain[SNAPFILE_MAX_CHAIN];
    unsigned count = 0;

    do
        chain[count++] = file;
    while ((file = file->base));
    return verify_chain(chain, count, chunk, into, err);
}
