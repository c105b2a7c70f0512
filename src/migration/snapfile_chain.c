/* SPDX-License-Identifier: Apache-2.0 */
/*
 * snapfile_chain: a file and what it builds on, found by the names that the files say and held
 * against what they say of it. A name is hostile: what is no regular file is not even opened.
 */
#include "snapfile_chain.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

bool snapfile_parent(const struct snapfile *file, struct snapfile_parent *ret_parent)
{
    if (file->super.partial)
        *ret_parent = file->parent;
    return file->super.partial;
}

const struct snapfile *snapfile_base(const struct snapfile *file)
{
    return file->base;
}

const char *snapfile_name(const struct snapfile *file)
{
    return file->name;
}

bool snapfile_is_of_chain(const struct snapfile *file, const char *path)
{
    struct stat named, ours;
    bool found = false;

    if (stat(path, &named) < 0)
        return false;
    for (; !found && file; file = file->base)
        found = fstat(file->fd, &ours) == 0 && named.st_dev == ours.st_dev &&
                named.st_ino == ours.st_ino;
    return found;
}

/* The name that a file says, from where we are; NULL: out of memory. */
static char *base_path(const struct snapfile *file)
{
    const char *name = file->parent.name, *slash = strrchr(file->name, '/');
    size_t folder = name[0] != '/' && slash ? (size_t)(slash - file->name) + 1 : 0;
    size_t len = strlen(name);
    char *path = malloc(folder + len + 1);

    if (path) {
        memcpy(path, file->name, folder);
        memcpy(path + folder, name, len + 1);
    }
    return path;
}

static int check_base(const struct snapfile *file, const struct snapfile *base, struct error *err)
{
    const struct snapfile_map *a = &file->map, *b = &base->map;
    bool same = a->count == b->count && file->super.architecture == base->super.architecture;

    if (memcmp(base->super.id, file->super.parent, SNAPFILE_ID_BYTES) != 0)
        return error_set(err, ESTALE, "is another snapshot by now");
    if (base->ram_checksum != file->parent.checksum)
        return error_set(err, ESTALE, "its RAM is not what it was");
    for (unsigned i = 0; same && i < a->count; i++)
        same = a->regions[i].gpa == b->regions[i].gpa && a->regions[i].size == b->regions[i].size;
    return same ? 0 : error_set(err, EPROTO, "has other memory");
}

static int open_base(struct snapfile *file, struct error *err)
{
    struct snapfile *base = NULL;
    char *path = base_path(file);
    struct stat st;
    int r;

    if (!path)
        return error_set(err, ENOMEM, "%s: out of memory", file->name);
    if (stat(path, &st) < 0)
        r = error_errno(err, errno, "%s", path);
    else if (!S_ISREG(st.st_mode))
        r = error_set(err, EINVAL, "%s: is no regular file", path);
    else
        r = snapfile_open_alone(path, &base, err);
    if (r == 0) {
        r = check_base(file, base, err);
        if (r < 0)
            error_prefix(err, "%s", path);
    }
    free(path);
    if (r < 0) {
        snapfile_close(base);
        return error_prefix(err, "%s builds on", file->name);
    }
    file->base = base;
    return 0;
}

int snapfile_open(const char *path, struct snapfile **ret_file, struct error *err)
{
    struct snapfile *file, *last;
    int r = snapfile_open_alone(path, &file, err);

    if (r < 0)
        return r;
    last = file;
    for (unsigned files = 1; r == 0 && last->super.partial; files++) {
        if (files == SNAPFILE_MAX_CHAIN)
            r = error_set(err, EMLINK, "%s: builds on more than %u files", path,
                          SNAPFILE_MAX_CHAIN - 1);
        else
            r = open_base(last, err);
        last = r == 0 ? last->base : last;
    }
    if (r < 0) {
        snapfile_close(file);
        return r;
    }
    *ret_file = file;
    return 0;
}
