/* SPDX-License-Identifier: Apache-2.0 */
/*
 * snapfile_flatten: a chain as one file that needs no other. All is verified on its way; sections
 * go over as they are, also those that nobody here knows, and so does the time of the machine.
 */
#include <errno.h>
#include <stdlib.h>

#include "snapfile_format.h"
#include "snapfile_writer.h"

static int copy_ram(const struct snapfile *file, struct snapfile_writer *writer, uint8_t *piece,
                    snapfile_progress_fn *progress, void *opaque, struct error *err)
{
    const struct snapfile_region *regions;
    unsigned count = snapfile_regions(file, &regions);
    uint64_t chunk = 0, done = 0, all = 0, gpa, bytes;
    int r = 0;

    for (unsigned i = 0; i < count; i++)
        all += regions[i].size;
    for (unsigned i = 0; r == 0 && i < count; i++) {
        for (uint64_t at = 0; r == 0 && at < regions[i].size; at += bytes) {
            snapfile_chunk_range(file, chunk, &gpa, &bytes);
            r = snapfile_verify_chunk(file, chunk++, piece, err);
            if (r == 0)
                r = snapfile_put_pages(writer, i, at, piece, bytes, err);
            done += bytes;
            if (r == 0 && progress && !progress(opaque, done, all))
                r = error_set(err, ECANCELED, "%s: cancelled", snapfile_name(file));
        }
    }
    return r;
}

static int copy_sections(const struct snapfile *file, struct snapfile_writer *writer,
                         struct error *err)
{
    uint64_t checksum;
    const void *data;
    const char *name;
    bool critical;
    size_t len;
    int r = 0;

    for (unsigned i = 0;
         r == 0 && snapfile_section_at(file, i, &name, &critical, &data, &len, &checksum); i++)
        if (!snapfile_is_own(name))
            r = snapfile_put_section(writer, name, critical, data, len, err);
    return r;
}

int snapfile_flatten(const struct snapfile *file, const char *path, bool replace,
                     snapfile_progress_fn *progress, void *opaque,
                     struct snapfile_written *ret_written, struct error *err)
{
    const struct snapfile_region *regions;
    unsigned count = snapfile_regions(file, &regions);
    struct snapfile_writer *writer = NULL;

    if (snapfile_is_of_chain(file, path))
        return error_set(err, EINVAL, "%s: is one of the files that it would be made of", path);
    uint8_t *piece = malloc(SNAPFILE_CHUNK_BYTES);
    int r = piece ? snapfile_create(path, replace, regions, count, &writer, err)
                  : error_set(err, ENOMEM, "%s: out of memory", path);

    if (r == 0) {
        snapfile_write_as(writer, snapfile_architecture(file), snapfile_created_ns(file));
        r = copy_ram(file, writer, piece, progress, opaque, err);
    }
    if (r == 0)
        r = copy_sections(file, writer, err);
    free(piece);
    if (r < 0) {
        snapfile_abandon(writer);
        return r;
    }
    return snapfile_publish(writer, ret_written, err);
}
