/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cgroup, before a folder that does as cgroup2 does, as far as it matters here: a cgroup has
 * files when it is made, cannot be removed with processes in it, and but for the root has either
 * processes or limits for those below.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "folder.h"
#include "vmrun/cgroup.h"

#define ROOT "tree"
#define STRANGER "4711" /* a process that is not ours */

static const char *const files[] = {"cgroup.procs", "cgroup.controllers", "cgroup.subtree_control",
                                    "cpu.max", "memory.max"};
static const char *readonly; /* a folder that may not be changed, or NULL */

static void put(const char *folder, const char *file, const char *text)
{
    char path[400];

    snprintf(path, sizeof(path), "%s/%s", folder, file);
    folder_write(path, text, strlen(text));
}

static const char *get(const char *folder, const char *file)
{
    static char text[300];
    char path[400];
    int fd;

    snprintf(path, sizeof(path), "%s/%s", folder, file);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);
    text[n > 0 ? n : 0] = '\0';
    if (fd >= 0)
        close(fd);
    return text;
}

static int fake_mkdir(const char *path, mode_t mode)
{
    if (readonly && strncmp(path, readonly, strlen(readonly)) == 0) {
        errno = EACCES;
        return -1;
    }
    if (mkdir(path, mode) < 0)
        return -1;
    char above[300];
    snprintf(above, sizeof(above), "%.*s", (int)(strrchr(path, '/') - path), path);
    char controllers[300];
    snprintf(controllers, sizeof(controllers), "%s", get(above, "cgroup.subtree_control"));
    for (size_t i = 0; i < 5; i++)
        put(path, files[i], i == 1 ? controllers : "");
    return 0;
}

static int fake_rmdir(const char *path)
{
    char file[300];

    if (*get(path, "cgroup.procs")) {
        errno = EBUSY;
        return -1;
    }
    for (size_t i = 0; i < 5; i++) {
        snprintf(file, sizeof(file), "%s/%s", path, files[i]);
        unlink(file);
    }
    return rmdir(path);
}

/* Our process is where it was put last: nowhere else. */
static void forget_process(const char *folder)
{
    struct dirent *entry;
    DIR *dir = opendir(folder);
    char path[300], pid[24];

    snprintf(pid, sizeof(pid), "%d", (int)getpid());
    if (strcmp(get(folder, "cgroup.procs"), pid) == 0)
        put(folder, "cgroup.procs", "");
    while (dir && (entry = readdir(dir)))
        if (entry->d_type == DT_DIR && entry->d_name[0] != '.') {
            snprintf(path, sizeof(path), "%.140s/%.140s", folder, entry->d_name);
            forget_process(path);
        }
    closedir(dir);
}

static int fake_write(const char *path, const char *text)
{
    char folder[300];
    const char *file = strrchr(path, '/') + 1;

    snprintf(folder, sizeof(folder), "%.*s", (int)(file - 1 - path), path);
    bool is_root = strcmp(folder, ROOT) == 0, is_procs = strcmp(file, "cgroup.procs") == 0;
    bool is_control = strcmp(file, "cgroup.subtree_control") == 0;
    if (access(path, W_OK) < 0)
        return -1;
    errno = EBUSY;
    if (!is_root && is_procs && *get(folder, "cgroup.subtree_control"))
        return -1;
    if (!is_root && is_control && text[0] == '+' && *get(folder, "cgroup.procs"))
        return -1;
    if (is_procs)
        forget_process(ROOT);
    if (!is_control) {
        put(folder, file, text);
        return 0;
    }
    char now[300], *at;
    snprintf(now, sizeof(now), "%s", get(folder, file));
    if (text[0] == '+' && !strstr(now, text + 1))
        snprintf(now + strlen(now), 20, "%s%s", *now ? " " : "", text + 1);
    else if (text[0] == '-' && (at = strstr(now, text + 1)))
        memmove(at, at + strlen(text + 1) + (at[strlen(text + 1)] == ' '),
                strlen(at + strlen(text + 1)) + 1 - (at[strlen(text + 1)] == ' '));
    if (*now && now[strlen(now) - 1] == ' ')
        now[strlen(now) - 1] = '\0';
    put(folder, file, now);
    return 0;
}

static const struct cgroup_host host = {
    .mount = ROOT, .self = "self", .mkdir = fake_mkdir, .rmdir = fake_rmdir, .write = fake_write};

static struct cgroup_params params(void)
{
    return (struct cgroup_params){
        .name = "web1", .cpu_percent = 150, .memory_bytes = 1 << 30, .host = &host};
}

/* We are in this one; the root has both controllers. */
static void build(const char *home)
{
    char line[300];
    int unused = system("rm -rf " ROOT);

    (void)unused;
    readonly = NULL;
    put(".", "self", "1:name=systemd:/elsewhere\n");
    assert_int_equal(mkdir(ROOT, 0755), 0);
    for (size_t i = 0; i < 3; i++)
        put(ROOT, files[i], i == 1 ? "cpuset cpu io memory\n" : "");
    for (const char *at = home; *at; at += strcspn(at + 1, "/") + 1) {
        snprintf(line, sizeof(line), ROOT "%.*s", (int)(strcspn(at + 1, "/") + 1 + (at - home)),
                 home);
        assert_int_equal(fake_mkdir(line, 0755), 0);
        put(line, "cgroup.controllers", "cpu memory");
    }
    snprintf(line, sizeof(line), "%d", (int)getpid());
    char folder[200];
    snprintf(folder, sizeof(folder), ROOT "%s", home);
    put(folder, "cgroup.procs", line);
    snprintf(line, sizeof(line), "1:name=systemd:/elsewhere\n0::%s\n", *home ? home : "/");
    put(".", "self", line);
}

static const char *leaf_in(const char *folder)
{
    static char path[300];

    snprintf(path, sizeof(path), "%s/vmrun-web1-%d", folder, (int)getpid());
    return path;
}

static void assert_in(const char *folder)
{
    char pid[24];

    snprintf(pid, sizeof(pid), "%d", (int)getpid());
    assert_string_equal(get(folder, "cgroup.procs"), pid);
}

static struct cgroup *enter(void)
{
    const struct cgroup_params p = params();
    struct error err = {.msg = ""};
    struct cgroup *cg = NULL;

    cgroup_enter(&p, &cg, &err);
    assert_string_equal(err.msg, "");
    return cg;
}

static void assert_refused(int code, const char *words)
{
    const struct cgroup_params p = params();
    struct cgroup *cg = NULL;
    struct error err;

    assert_int_equal(cgroup_enter(&p, &cg, &err), -code);
    if (!strstr(err.msg, words) || (code != ENOTSUP && !strstr(err.msg, "systemd-run")))
        fail_msg("%s", err.msg);
    assert_null(cg);
}

static void the_process_goes_into_a_leaf_with_its_limits_and_back(void **state)
{
    static const char *const homes[] = {"", "/user.slice/run-1.scope"};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        char folder[200];

        build(homes[i]);
        snprintf(folder, sizeof(folder), ROOT "%s", homes[i]);
        struct cgroup *cg = enter();
        assert_in(leaf_in(folder));
        assert_string_equal(get(folder, "cgroup.procs"), "");
        assert_string_equal(get(folder, "cgroup.subtree_control"), "cpu memory");
        assert_string_equal(get(leaf_in(folder), "cpu.max"), "150000 100000");
        assert_string_equal(get(leaf_in(folder), "memory.max"), "1073741824");
        cgroup_leave(cg);
        assert_in(folder);
        assert_int_equal(access(leaf_in(folder), F_OK), -1);
        assert_string_equal(get(folder, "cgroup.subtree_control"), "");
    }
}

static void limits_change_and_are_taken_away(void **state)
{
    struct error err = {.msg = ""};

    (void)state;
    build("/scope");
    struct cgroup *cg = enter();
    assert_int_equal(cgroup_set_cpu(cg, 5, &err), 0);
    assert_int_equal(cgroup_set_memory(cg, 1 << 20, &err), 0);
    assert_string_equal(get(leaf_in(ROOT "/scope"), "cpu.max"), "5000 100000");
    assert_string_equal(get(leaf_in(ROOT "/scope"), "memory.max"), "1048576");
    assert_int_equal(cgroup_set_cpu(cg, 0, &err), 0);
    assert_int_equal(cgroup_set_memory(cg, 0, &err), 0);
    assert_string_equal(get(leaf_in(ROOT "/scope"), "cpu.max"), "max 100000");
    assert_string_equal(get(leaf_in(ROOT "/scope"), "memory.max"), "max");
    cgroup_leave(cg);
}

static void what_a_killed_one_left_is_removed_and_what_is_in_use_is_not(void **state)
{
    (void)state;
    build("");
    assert_int_equal(fake_mkdir(ROOT "/vmrun-old-1", 0755), 0);
    assert_int_equal(fake_mkdir(ROOT "/vmrun-busy-2", 0755), 0);
    assert_int_equal(fake_mkdir(ROOT "/somebody", 0755), 0);
    put(ROOT "/vmrun-busy-2", "cgroup.procs", STRANGER);
    struct cgroup *cg = enter();
    assert_int_equal(access(ROOT "/vmrun-old-1", F_OK), -1);
    assert_int_equal(access(ROOT "/vmrun-busy-2", F_OK), 0);
    assert_int_equal(access(ROOT "/somebody", F_OK), 0);
    cgroup_leave(cg);
    /* The other one needs its limits. */
    assert_string_equal(get(ROOT, "cgroup.subtree_control"), "cpu memory");
    assert_in(ROOT);
}

static void beside_other_processes_it_is_refused_and_all_is_as_before(void **state)
{
    (void)state;
    build("/session");
    /* Ours goes into the leaf, and another one stays. */
    put(ROOT "/session", "cgroup.procs", STRANGER);
    assert_refused(EBUSY, "there are other processes in the cgroup /session");
    assert_int_equal(access(leaf_in(ROOT "/session"), F_OK), -1);
    assert_string_equal(get(ROOT "/session", "cgroup.subtree_control"), "");
}

static void where_the_one_above_has_limits_it_goes_beside(void **state)
{
    (void)state;
    build("/scope/shell");
    put(ROOT "/scope", "cgroup.subtree_control", "cpu memory");
    put(ROOT "/scope/shell", "cgroup.procs", STRANGER);
    struct cgroup *cg = enter();
    assert_in(leaf_in(ROOT "/scope"));
    cgroup_leave(cg);
    assert_int_equal(access(leaf_in(ROOT "/scope"), F_OK), -1);
    assert_string_equal(get(ROOT "/scope", "cgroup.subtree_control"), "cpu memory");
}

static void what_may_not_be_is_told_with_the_cure(void **state)
{
    (void)state;
    build("/session");
    readonly = ROOT;
    assert_refused(EACCES, "cannot make one below the cgroup /session: Permission denied");
    build("/session");
    put(ROOT "/session", "cgroup.controllers", "memory pids");
    assert_refused(ENOTSUP, "no controller \"cpu\" in the cgroup /session");
    put(".", "self", "1:name=systemd:/\n");
    assert_refused(ENOTSUP, "self does not say in which cgroup this process is");
    put(".", "self", "0::/../above\n");
    assert_refused(ENOTSUP, "self does not say in which cgroup this process is");
    put(".", "self", "0::/session\n");
    put(ROOT "/session", "cgroup.controllers", "cpuset cpu memory");
    cgroup_leave(enter());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_process_goes_into_a_leaf_with_its_limits_and_back),
        cmocka_unit_test(limits_change_and_are_taken_away),
        cmocka_unit_test(what_a_killed_one_left_is_removed_and_what_is_in_use_is_not),
        cmocka_unit_test(beside_other_processes_it_is_refused_and_all_is_as_before),
        cmocka_unit_test(where_the_one_above_has_limits_it_goes_beside),
        cmocka_unit_test(what_may_not_be_is_told_with_the_cure),
    };

    return cmocka_run_group_tests_name("cgroup", tests, folder_enter, folder_leave);
}
