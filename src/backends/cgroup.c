/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cgroup: a leaf of cgroup2's tree for this process alone.
 *
 * The one thing to know: but for the root, a cgroup has either processes or children with limits,
 * never both. So we go into our leaf first, and only then are limits switched on for it above; and
 * who leaves switches them off again before it goes back, unless somebody else needs them.
 */
#include "vmrun/cgroup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PREFIX "vmrun-"
#define TRIES 3
#define PERIOD_US 100000 /* of cpu.max */
#define CURE \
    "; start it with 'systemd-run --user --scope -p Delegate=yes vmrun ...' (as root without " \
    "--user), or do without \"limits\""

enum { CPU, MEMORY, CONTROLLERS };
static const char *const names[CONTROLLERS] = {"cpu", "memory"};

struct cgroup {
    struct cgroup_host host;
    char home[PATH_MAX]; /* where the process was */
    char base[PATH_MAX]; /* in which our leaf is: home, or the one above */
    char leaf[PATH_MAX];
    size_t mount_len; /* of how these begin */
    bool made, entered;
    bool enabled[CONTROLLERS]; /* in base, by us */
};

static int write_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC), code;
    ssize_t n;

    if (fd < 0)
        return -1;
    n = write(fd, text, strlen(text));
    code = errno;
    close(fd);
    errno = code;
    return n < 0 ? -1 : 0;
}

static const struct cgroup_host real_host = {
    .self = "/proc/self/cgroup", .mkdir = mkdir, .rmdir = rmdir, .write = write_file};

/* A file of a cgroup; false: its name would be too long. */
static bool file_of(const char *folder, const char *file, char path[PATH_MAX])
{
    return snprintf(path, PATH_MAX, "%s/%s", folder, file) < PATH_MAX;
}

/* 0 or -errno. */
static int put(const struct cgroup *cg, const char *folder, const char *file, const char *text)
{
    char path[PATH_MAX];

    if (!file_of(folder, file, path))
        return -ENAMETOOLONG;
    return cg->host.write(path, text) < 0 ? -errno : 0;
}

/* Whether a word stands in a file of words. */
static bool has_word(const char *folder, const char *file, const char *word)
{
    char path[PATH_MAX], line[512];
    bool found = false;
    FILE *in = file_of(folder, file, path) ? fopen(path, "re") : NULL;

    if (!in)
        return false;
    if (fgets(line, sizeof(line), in)) {
        char *rest = line, *next;

        while (!found && (next = strsep(&rest, " \n")))
            found = strcmp(next, word) == 0;
    }
    fclose(in);
    return found;
}

/* Where we are: of the lines of /proc/self/cgroup the one with the number 0. */
static int find_home(struct cgroup *cg, struct error *err)
{
    static const char *const mounts[] = {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"};
    char line[PATH_MAX], path[PATH_MAX];
    const char *mount = cg->host.mount;
    bool found = false;

    for (unsigned i = 0; !mount && i < sizeof(mounts) / sizeof(mounts[0]); i++)
        if (file_of(mounts[i], "cgroup.controllers", path) && access(path, R_OK) == 0)
            mount = mounts[i];
    if (!mount)
        return error_set(err, ENOTSUP,
                         "limits: this host has no cgroup2 below /sys/fs/cgroup; do without");
    FILE *in = fopen(cg->host.self, "re");
    while (!found && in && fgets(line, sizeof(line), in))
        found = strncmp(line, "0::/", 4) == 0;
    if (in)
        fclose(in);
    if (!found || strncmp(line, "0::/..", 6) == 0)
        return error_set(err, ENOTSUP, "limits: %s does not say in which cgroup this process is",
                         cg->host.self);
    line[strcspn(line, "\n")] = '\0';
    bool fits = snprintf(cg->home, PATH_MAX, "%s%s", mount,
                         strcmp(line, "0::/") == 0 ? "" : line + 3) < PATH_MAX - 64;
    cg->mount_len = strlen(mount);
    return fits ? 0 : error_set(err, ENAMETOOLONG, "limits: the cgroup's name is too long");
}

/* Whatever a vmrun that was killed has left. One that is in use cannot be removed. */
static void remove_stale(const struct cgroup *cg)
{
    char path[PATH_MAX];
    struct dirent *entry;
    DIR *folder = opendir(cg->base);

    while (folder && (entry = readdir(folder)))
        if (strncmp(entry->d_name, PREFIX, strlen(PREFIX)) == 0 &&
            file_of(cg->base, entry->d_name, path))
            (void)cg->host.rmdir(path);
    if (folder)
        closedir(folder);
}

static int move_process(const struct cgroup *cg, pid_t pid, const char *folder)
{
    char text[24];

    snprintf(text, sizeof(text), "%d", (int)pid);
    return put(cg, folder, "cgroup.procs", text);
}

/* The process that waits for this one to be ready (--detach), and would be in the way; or 0. */
static pid_t waiting_parent(void)
{
    char path[32], mine[PATH_MAX], its[PATH_MAX];
    ssize_t my_len = readlink("/proc/self/exe", mine, sizeof(mine));

    snprintf(path, sizeof(path), "/proc/%d/exe", (int)getppid());
    ssize_t its_len = readlink(path, its, sizeof(its));
    bool same = my_len > 0 && my_len == its_len && memcmp(mine, its, (size_t)my_len) == 0;
    return same ? getppid() : 0;
}

/* Make the leaf and go there. Somebody who removes what is stale may be faster than we are. */
static int enter_leaf(struct cgroup *cg)
{
    pid_t parent = waiting_parent();
    int r = -ENOENT;

    for (unsigned i = 0; i < TRIES && (r == -ENOENT || r == -ENODEV); i++) {
        if (cg->host.mkdir(cg->leaf, 0755) < 0)
            return -errno;
        cg->made = true;
        r = move_process(cg, getpid(), cg->leaf);
    }
    cg->entered = r == 0;
    if (r == 0 && parent)
        (void)move_process(cg, parent, cg->leaf); /* it may be somewhere else */
    return r;
}

static int enable(struct cgroup *cg, unsigned which)
{
    char text[16];

    if (has_word(cg->base, "cgroup.subtree_control", names[which]))
        return 0;
    snprintf(text, sizeof(text), "+%s", names[which]);
    int r = put(cg, cg->base, "cgroup.subtree_control", text);
    cg->enabled[which] = r == 0;
    return r;
}

/* Whether somebody else is in a cgroup beside ours. */
static bool has_others(const struct cgroup *cg)
{
    const char *mine = strrchr(cg->leaf, '/') + 1;
    struct dirent *entry;
    DIR *folder = opendir(cg->base);
    bool found = false;

    while (folder && !found && (entry = readdir(folder)))
        found =
            entry->d_type == DT_DIR && entry->d_name[0] != '.' && strcmp(entry->d_name, mine) != 0;
    if (folder)
        closedir(folder);
    return found;
}

static void go_back(struct cgroup *cg)
{
    remove_stale(cg);
    for (unsigned i = 0; i < CONTROLLERS && !has_others(cg); i++) {
        char text[16];

        snprintf(text, sizeof(text), "-%s", names[i]);
        if (cg->enabled[i])
            (void)put(cg, cg->base, "cgroup.subtree_control", text);
        cg->enabled[i] = false;
    }
    /* Where it cannot be left the next vmrun removes it, or systemd with the scope. */
    if (cg->entered && move_process(cg, getpid(), cg->home) == 0)
        cg->entered = false;
    if (cg->made && !cg->entered)
        (void)cg->host.rmdir(cg->leaf);
    cg->made = false;
}

static int refuse(const struct cgroup *cg, int r, const char *what, struct error *err)
{
    const char *shown = cg->base + cg->mount_len;

    if (!*shown)
        shown = "/";
    if (r == -EBUSY)
        return error_set(err, EBUSY, "limits: there are other processes in the cgroup %.128s" CURE,
                         shown);
    return error_set(err, -r, "limits: %s the cgroup %.128s: %s" CURE, what, shown, strerror(-r));
}

/* A leaf in base, if that can be. */
static int enter_at(struct cgroup *cg, const struct cgroup_params *params, struct error *err)
{
    const bool needs[CONTROLLERS] = {params->cpu_percent > 0, params->memory_bytes > 0};
    int r;

    for (unsigned i = 0; i < CONTROLLERS; i++)
        if (needs[i] && !has_word(cg->base, "cgroup.controllers", names[i])) {
            char what[48];

            snprintf(what, sizeof(what), "no controller \"%s\" in", names[i]);
            return refuse(cg, -ENOTSUP, what, err);
        }
    remove_stale(cg);
    snprintf(cg->leaf, PATH_MAX, "%.4000s/" PREFIX "%.64s-%d", cg->base,
             params->name ? params->name : "vm", (int)getpid());
    r = enter_leaf(cg);
    if (r < 0) {
        r = refuse(cg, r, "cannot make one below", err);
        goto fail;
    }
    for (unsigned i = 0; i < CONTROLLERS; i++) {
        int enabled = has_word(cg->base, "cgroup.controllers", names[i]) ? enable(cg, i) : 0;

        if (enabled < 0 && needs[i]) {
            r = refuse(cg, enabled, "cannot switch limits on in", err);
            goto fail;
        }
    }
    if (needs[CPU])
        r = cgroup_set_cpu(cg, params->cpu_percent, err);
    if (r == 0 && needs[MEMORY])
        r = cgroup_set_memory(cg, params->memory_bytes, err);
    if (r == 0)
        return 0;

fail:
    go_back(cg);
    return r;
}

/* The one above ours is as good where limits are switched on there already. */
static bool look_above(struct cgroup *cg, const struct cgroup_params *params)
{
    if (!cg->home[cg->mount_len])
        return false;
    *strrchr(cg->base, '/') = '\0';
    return (!params->cpu_percent || has_word(cg->base, "cgroup.subtree_control", names[CPU])) &&
           (!params->memory_bytes || has_word(cg->base, "cgroup.subtree_control", names[MEMORY]));
}

int cgroup_enter(const struct cgroup_params *params, struct cgroup **ret_cgroup, struct error *err)
{
    struct cgroup *cg = calloc(1, sizeof(*cg));
    struct error first, ignored;
    int r;

    if (!cg)
        return error_set(err, ENOMEM, "limits: out of memory");
    cg->host = params->host ? *params->host : real_host;
    r = find_home(cg, err);
    if (r < 0)
        goto fail;
    memcpy(cg->base, cg->home, sizeof(cg->base));
    r = enter_at(cg, params, &first);
    if (r < 0 && look_above(cg, params) && enter_at(cg, params, &ignored) == 0)
        r = 0;
    if (r < 0) {
        *err = first;
        goto fail;
    }
    *ret_cgroup = cg;
    return 0;

fail:
    free(cg);
    return r;
}

static int set(struct cgroup *cg, const char *file, const char *text, struct error *err)
{
    int r = put(cg, cg->leaf, file, text);

    return r < 0 ? error_errno(err, -r, "limits: %s/%s", cg->leaf, file) : 0;
}

int cgroup_set_cpu(struct cgroup *cg, uint64_t percent, struct error *err)
{
    char text[48];

    if (percent)
        snprintf(text, sizeof(text), "%llu %d", (unsigned long long)percent * (PERIOD_US / 100),
                 PERIOD_US);
    else
        snprintf(text, sizeof(text), "max %d", PERIOD_US);
    return set(cg, "cpu.max", text, err);
}

int cgroup_set_memory(struct cgroup *cg, uint64_t bytes, struct error *err)
{
    char text[24] = "max";

    if (bytes)
        snprintf(text, sizeof(text), "%llu", (unsigned long long)bytes);
    return set(cg, "memory.max", text, err);
}

void cgroup_leave(struct cgroup *cg)
{
    if (!cg)
        return;
    go_back(cg);
    free(cg);
}
