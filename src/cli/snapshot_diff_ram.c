/* SPDX-License-Identifier: Apache-2.0 */
/* Chunks whose checksums are equal are equal; only the others are read, and verified on the way. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "snapshot_diff.h"

#define PAGE 4096u
#define MOST_RANGES 10000u
#define SHOWN_RANGES 20u

static int add_page(struct ram_diff *diff, uint64_t gpa, struct error *err)
{
    struct ram_range *last = diff->range_count ? &diff->ranges[diff->range_count - 1] : NULL;

    diff->pages++;
    if (last && last->end == gpa && diff->ranges_left_out == 0) {
        last->end += PAGE;
        return 0;
    }
    if (diff->range_count == MOST_RANGES) {
        diff->ranges_left_out++;
        return 0;
    }
    if (!diff->ranges || diff->range_count == diff->room) {
        size_t room = diff->room ? 2 * diff->room : 64;
        struct ram_range *grown = realloc(diff->ranges, room * sizeof(*grown));

        if (!grown)
            return error_set(err, ENOMEM, "out of memory");
        diff->ranges = grown;
        diff->room = room;
    }
    diff->ranges[diff->range_count++] = (struct ram_range){gpa, gpa + PAGE};
    return 0;
}

struct cursor {
    const struct snapfile *file;
    uint64_t chunk, gpa, bytes;
    uint8_t *data; /* of one chunk */
};

/* False: past the last chunk. */
static bool look(struct cursor *at)
{
    if (at->chunk >= snapfile_chunks(at->file))
        return false;
    snapfile_chunk_range(at->file, at->chunk, &at->gpa, &at->bytes);
    return true;
}

static int compare_chunk(struct ram_diff *diff, struct cursor *a, struct cursor *b,
                         struct error *err)
{
    int r;

    if (snapfile_same_chunk(a->file, a->chunk, b->file, b->chunk))
        return 0;
    diff->chunks++;
    r = snapfile_verify_chunk(a->file, a->chunk, a->data, err);
    if (r == 0)
        r = snapfile_verify_chunk(b->file, b->chunk, b->data, err);
    for (uint64_t at = 0; r == 0 && at < a->bytes; at += PAGE)
        if (memcmp(a->data + at, b->data + at, PAGE) != 0)
            r = add_page(diff, a->gpa + at, err);
    return r;
}

/* Chunks come by ascending address in both. */
static int walk(struct ram_diff *diff, struct cursor *a, struct cursor *b, struct error *err)
{
    int r = 0;

    while (r == 0) {
        bool in_a = look(a), in_b = look(b);

        if (!in_a && !in_b)
            break;
        bool same = in_a && in_b && a->gpa == b->gpa;
        bool step_a = in_a && (!in_b || a->gpa <= b->gpa);
        bool step_b = in_b && (!in_a || b->gpa <= a->gpa);
        if (same && a->bytes == b->bytes) {
            r = compare_chunk(diff, a, b, err);
        } else {
            diff->only[0] += step_a ? a->bytes : 0;
            diff->only[1] += step_b ? b->bytes : 0;
        }
        a->chunk += step_a;
        b->chunk += step_b;
    }
    return r;
}

int ram_diff_compare(struct ram_diff *diff, const struct snapfile *const files[2],
                     struct error *err)
{
    struct cursor a = {.file = files[0], .data = malloc(SNAPFILE_CHUNK_BYTES)};
    struct cursor b = {.file = files[1], .data = malloc(SNAPFILE_CHUNK_BYTES)};
    int r = a.data && b.data ? walk(diff, &a, &b, err) : error_set(err, ENOMEM, "out of memory");

    free(a.data);
    free(b.data);
    return r;
}

bool ram_diff_is_none(const struct ram_diff *diff)
{
    return diff->pages == 0 && diff->only[0] == 0 && diff->only[1] == 0;
}

json_t *ram_diff_json(const struct ram_diff *diff)
{
    json_t *ranges = json_array();

    for (size_t i = 0; i < diff->range_count; i++) {
        const struct ram_range *range = &diff->ranges[i];

        json_array_append_new(ranges, json_pack("{s:I, s:I}", "address", (json_int_t)range->start,
                                                "bytes", (json_int_t)(range->end - range->start)));
    }
    return json_pack("{s:I, s:I, s:I, s:I, s:o, s:I}", "pages", (json_int_t)diff->pages, "chunks",
                     (json_int_t)diff->chunks, "only_in_a_bytes", (json_int_t)diff->only[0],
                     "only_in_b_bytes", (json_int_t)diff->only[1], "ranges", ranges,
                     "pages_left_out", (json_int_t)diff->ranges_left_out);
}

void ram_diff_print(const struct ram_diff *diff)
{
    if (ram_diff_is_none(diff))
        return;
    printf("memory\n  %" PRIu64 " pages in %" PRIu64 " chunks of 2 MiB differ\n", diff->pages,
           diff->chunks);
    for (unsigned i = 0; i < 2; i++)
        if (diff->only[i])
            printf("  %" PRIu64 " KiB are only in %s, or laid out otherwise\n",
                   diff->only[i] / 1024, i ? "B" : "A");
    for (size_t i = 0; i < diff->range_count && i < SHOWN_RANGES; i++)
        printf("  0x%09" PRIx64 " to 0x%09" PRIx64 "\n", diff->ranges[i].start,
               diff->ranges[i].end - 1);
    if (diff->range_count > SHOWN_RANGES || diff->ranges_left_out)
        printf("  ...\n");
}

void ram_diff_fini(struct ram_diff *diff)
{
    free(diff->ranges);
}
