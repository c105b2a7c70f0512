/* SPDX-License-Identifier: Apache-2.0 */
/*
 * restore_map: each run of pages that comes from a younger file becomes a mapping of its own, as
 * long as there are not too many of them: then the short ones are read into place, which are
 * private copies from the beginning.
 */
#include "restore_map.h"

#include "snapfile_format.h"

typedef int run_fn(void *opaque, const struct snapfile *from, unsigned region, uint64_t page,
                   uint64_t pages, struct error *err);

const struct snapfile *restore_oldest(const struct snapfile *file)
{
    const struct snapfile *base;

    while ((base = snapfile_base(file)))
        file = base;
    return file;
}

/* Each run that does not come from the oldest file. */
static int for_each_run(const struct snapfile *file, run_fn *fn, void *opaque, struct error *err)
{
    const struct snapfile *oldest = restore_oldest(file), *from;
    const struct snapfile_region *regions;
    unsigned count = snapfile_regions(file, &regions);
    uint64_t run;
    int r = 0;

    for (unsigned i = 0; r == 0 && file != oldest && i < count; i++)
        for (uint64_t page = 0; r == 0 && page < regions[i].size / SNAPFILE_PAGE; page += run) {
            from = snapfile_source(file, i, page, &run);
            if (from != oldest)
                r = fn(opaque, from, i, page, run, err);
        }
    return r;
}

/* How many runs there are of 2^n pages or more, but less than 2^(n+1). */
struct lengths {
    uint64_t counts[64];
};

static int count_run(void *opaque, const struct snapfile *from, unsigned region, uint64_t page,
                     uint64_t pages, struct error *err)
{
    struct lengths *lengths = opaque;

    (void)from, (void)region, (void)page, (void)err;
    lengths->counts[63 - __builtin_clzll(pages)]++;
    return 0;
}

struct laying {
    struct guest_memory *memory;
    uint64_t shortest; /* pages of a run that is mapped */
};

static int lay_run(void *opaque, const struct snapfile *from, unsigned region, uint64_t page,
                   uint64_t pages, struct error *err)
{
    const struct laying *laying = opaque;
    uint64_t start = page * SNAPFILE_PAGE, bytes = pages * SNAPFILE_PAGE;
    uint64_t offset = snapfile_ram_offset(from, region) + start;

    if (pages >= laying->shortest)
        return guest_memory_map_pages(laying->memory, region, start, bytes, snapfile_fd(from),
                                      offset, err);
    return snapfile_read(from, offset, laying->memory->regions[region].host + start, bytes, err);
}

int restore_map_younger(struct guest_memory *memory, const struct snapfile *file, unsigned most,
                        struct error *err)
{
    struct laying laying = {.memory = memory, .shortest = 1};
    struct lengths lengths = {0};
    uint64_t mappings = 0;
    int r = for_each_run(file, count_run, &lengths, err);

    for (unsigned n = 64; n-- > 0;) {
        mappings += lengths.counts[n];
        if (mappings > most) {
            laying.shortest = n < 63 ? UINT64_C(2) << n : UINT64_MAX;
            break;
        }
    }
    return r < 0 ? r : for_each_run(file, lay_run, &laying, err);
}
