/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmrun snapshot flatten, pack and unpack: files made of files. A file that builds on another is
 * packed without it; flattened, it needs none.
 */
#include "snapshot.h"

static bool draw(void *opaque, uint64_t done, uint64_t all)
{
    snapshot_bar_draw(opaque, done, all);
    return true;
}

static int print_result(const char *from, const char *to, uint64_t bytes, bool json)
{
    if (json)
        cli_print_json(json_pack("{s:o, s:o, s:I}", "from", snapshot_path(from), "file",
                                 snapshot_path(to), "bytes", (json_int_t)bytes));
    else
        printf("%s: %.1f MiB\n", to, (double)bytes / (1 << 20));
    return CLI_OK;
}

int snapshot_flatten(const char *const paths[2], bool replace, bool json, struct error *err)
{
    struct snapshot_bar bar = snapshot_bar("flatten");
    struct snapfile_written written;
    struct snapfile *file;

    if (snapfile_open(paths[0], &file, err) < 0)
        return CLI_FAILED;
    int r = snapfile_flatten(file, paths[1], replace, draw, &bar, &written, err);
    snapfile_close(file);
    snapshot_bar_clear(&bar);
    return r < 0 ? CLI_FAILED : print_result(paths[0], paths[1], written.file_bytes, json);
}

int snapshot_pack(const char *const paths[2], bool replace, bool json, struct error *err)
{
    struct snapshot_bar bar = snapshot_bar("pack");
    struct snapfile *file;
    uint64_t bytes;

    if (snapfile_open_alone(paths[0], &file, err) < 0)
        return CLI_FAILED;
    int r = snapfile_pack(file, paths[1], replace, draw, &bar, &bytes, err);
    snapfile_close(file);
    snapshot_bar_clear(&bar);
    return r < 0 ? CLI_FAILED : print_result(paths[0], paths[1], bytes, json);
}

int snapshot_unpack(const char *const paths[2], bool replace, bool json, struct error *err)
{
    struct snapshot_bar bar = snapshot_bar("unpack");
    uint64_t bytes;
    int r = snapfile_unpack(paths[0], paths[1], replace, draw, &bar, &bytes, err);

    snapshot_bar_clear(&bar);
    return r < 0 ? CLI_FAILED : print_result(paths[0], paths[1], bytes, json);
}
