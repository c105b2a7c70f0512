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

/* ret_base may be set also when this fails. */
static int open_base(const struct snapfile *file, const char *path, struct snapfile **ret_base,
                     struct error *err)
{
    struct stat st;

    if (stat(path, &st) < 0)
        return error_errno(err, errno, "%s", path);
    if (!S_ISREG(st.st_mode))
        return error_set(err, EINVAL, "%s: is no regular file", path);
    if (snapfile_open_alone(path, ret_base, err) < 0)
        return -err->code;
    return check_base(file, *ret_base, err) < 0 ? error_prefix(err, "%s", path) : 0;
}

static int join_base(struct snapfile *file, struct error *err)
{
    char *path = base_path(file);
    int r;

    if (!path)
        return error_set(err, ENOMEM, "%s: out of memory", file->name);
    r = open_base(file, path, &file->base, err);
    free(path);
    return r < 0 ? error_prefix(err, "%s builds on", file->name) : 0;
}

int snapfile_open(const char *path, struct snapfile **ret_file, struct error *err)
{
    struct snapfile *file = NULL;
    unsigned files = 0;
    int r = snapfile_open_alone(path, &file, err);

    for (struct snapfile *last = file; r == 0 && last && last->super.partial; last = last->base) {
        if (++files < SNAPFILE_MAX_CHAIN)
            r = join_base(last, err);
        else
            r = error_set(err, EMLINK, "%s: builds on more than %u files", path,
                          SNAPFILE_MAX_CHAIN - 1);
    }
    if (r < 0) {
        snapfile_close(file);
        return r;
    }
    *ret_file = file;
    return 0;
}
