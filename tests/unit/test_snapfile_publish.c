/* SPDX-License-Identifier: Apache-2.0 */
/* A snapshot has a name when it is whole, and not before, whatever fails. */
#include <errno.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../src/migration/snapfile_format.h"
#include "folder.h"
#include "snapshot.h"

#define MIB (UINT64_C(1) << 20)

/* With and without O_TMPFILE. */
typedef int create_fn(const char *path, bool replace, const struct snapfile_region *regions,
                      unsigned count, struct snapfile_writer **ret_writer, struct error *err);
static create_fn *const creators[] = {snapfile_create, snapfile_create_named};

static struct snapfile_writer *created(create_fn *fn, const char *path, bool replace)
{
    struct snapshot_like like = snapshot_small();
    struct snapfile_writer *writer;
    struct error err;

    if (fn(path, replace, like.regions, 1, &writer, &err) < 0)
        fail_msg("%s", err.msg);
    snapshot_put(writer, &like);
    return writer;
}

static void an_abandoned_file_leaves_nothing(void **state)
{
    unsigned before = folder_count();

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        snapfile_abandon(created(creators[i], "gone", false));
        assert_int_equal(folder_count(), before);
    }
    snapfile_abandon(NULL);
}

static void without_o_tmpfile_it_is_the_same(void **state)
{
    unsigned before = folder_count();

    (void)state;
    struct snapfile_writer *writer = created(snapfile_create_named, "named", false);
    assert_int_equal(access("named", F_OK), -1);
    snapshot_file_publish(writer);
    snapshot_file_publish(created(snapfile_create_named, "named", true));
    assert_int_equal(folder_count(), before + 1);
    struct snapfile *file = snapshot_file_open("named");
    snapshot_file_verify(file);
    snapfile_close(file);
}

static void a_file_that_is_replaced_is_whole_until_then(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        unsigned before;
        struct stat st;

        folder_write("old", "old", 3);
        before = folder_count();
        struct snapfile_writer *writer = created(creators[i], "old", true);
        assert_int_equal(stat("old", &st), 0);
        assert_int_equal(st.st_size, 3);
        snapshot_file_publish(writer);
        assert_int_equal(folder_count(), before);
        snapfile_close(snapshot_file_open("old"));
    }
}

static void of_two_writers_the_first_has_the_name(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        char path[16];
        struct snapfile_written written;
        struct error err;
        unsigned before = folder_count();

        snprintf(path, sizeof(path), "race%u", i);
        struct snapfile_writer *one = created(creators[i & 1], path, false);
        struct snapfile_writer *two = created(creators[i >> 1], path, false);
        struct snapfile_written first = snapshot_file_publish(one);
        assert_int_equal(snapfile_publish(two, &written, &err), -EEXIST);
        assert_non_null(strstr(err.msg, "exists; --force replaces it"));
        assert_int_equal(folder_count(), before + 1);
        struct snapfile *file = snapshot_file_open(path);
        assert_memory_equal(snapfile_id(file), first.id, SNAPFILE_ID_BYTES);
        snapfile_close(file);
    }
}

static void a_target_that_became_a_folder_stays_one(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        unsigned before = folder_count();
        struct snapfile_written written;
        struct error err;
        struct stat st;

        struct snapfile_writer *writer = created(creators[i], "became", true);
        assert_int_equal(mkdir("became", 0700), 0);
        assert_true(snapfile_publish(writer, &written, &err) < 0);
        assert_int_equal(stat("became", &st), 0);
        assert_true(S_ISDIR(st.st_mode));
        assert_int_equal(folder_count(), before + 1);
        assert_int_equal(rmdir("became"), 0);
    }
}

static void a_writer_killed_in_the_middle_leaves_nothing(void **state)
{
    unsigned before = folder_count();

    (void)state;
    for (unsigned at = 0; at < 8; at++) {
        int pipes[2], status;
        char ready;

        assert_int_equal(pipe(pipes), 0);
        pid_t pid = fork();
        if (pid == 0) {
            const struct snapfile_region region = {0, 64 * MIB};
            uint8_t *ram = malloc(MIB);
            struct snapfile_writer *writer;
            struct error err;

            memset(ram, 0x42, MIB);
            if (snapfile_create("killed", false, &region, 1, &writer, &err) == 0)
                for (unsigned i = 0;
                     snapfile_put_pages(writer, 0, i % 64 * MIB, ram, MIB, &err) == 0; i++)
                    if (i == at)
                        (void)!write(pipes[1], "x", 1);
            _exit(1);
        }
        assert_int_equal(read(pipes[0], &ready, 1), 1);
        assert_int_equal(kill(pid, SIGKILL), 0);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFSIGNALED(status));
        assert_int_equal(folder_count(), before);
        close(pipes[0]);
        close(pipes[1]);
    }
}

/* The child has a limit on the size of files; what fails, and what stays. */
static int run_out_of_room(rlim_t limit, create_fn *fn)
{
    int status;
    pid_t pid = fork();

    if (pid == 0) {
        const struct rlimit small = {limit, limit};
        struct snapshot_like like = snapshot_small();
        uint8_t pages[4 * SNAPSHOT_PAGE];
        struct snapfile_written written;
        struct snapfile_writer *writer;
        struct error err = {0};

        signal(SIGXFSZ, SIG_IGN);
        setrlimit(RLIMIT_FSIZE, &small);
        memset(pages, 1, sizeof(pages));
        if (fn("full-disk", false, like.regions, 1, &writer, &err) < 0)
            _exit(1);
        if (snapfile_put_pages(writer, 0, 0, pages, sizeof(pages), &err) < 0 ||
            snapfile_put_section(writer, "machine", true, "{}", 2, &err) < 0) {
            snapfile_abandon(writer);
            _exit(err.code == EFBIG ? 0 : 2);
        }
        _exit(snapfile_publish(writer, &written, &err) == -EFBIG ? 0 : 3);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void without_room_for_all_of_it_there_is_no_file(void **state)
{
    static const rlim_t limits[] = {
        0,
        2 * MIB,
        2 * MIB + 6000,                   /* pages */
        2 * MIB + 4 * SNAPSHOT_PAGE + 1,  /* a section */
        2 * MIB + 5 * SNAPSHOT_PAGE + 31, /* "memory" */
        2 * MIB + 6 * SNAPSHOT_PAGE + 7,  /* "chunks", a byte short */
    };
    unsigned before = folder_count();

    (void)state;
    for (size_t i = 0; i < 2 * sizeof(limits) / sizeof(limits[0]); i++) {
        assert_int_equal(run_out_of_room(limits[i / 2], creators[i & 1]), 0);
        assert_int_equal(folder_count(), before);
    }
}

/* On a file system of half a MiB that only this process sees. */
static int fill_a_file_system(void)
{
    const struct snapfile_region region = {0, 4 * MIB};
    uint8_t *ram = malloc(4 * MIB);
    struct snapfile_writer *writer;
    struct error err = {0};

    if (!ram || unshare(CLONE_NEWNS) < 0 ||
        mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("vmrun", "full-fs", "tmpfs", 0, "size=512k") < 0)
        return 77;
    memset(ram, 0x11, 4 * MIB);
    if (snapfile_create("full-fs/vm", false, &region, 1, &writer, &err) < 0)
        return 1;
    int r = snapfile_put_pages(writer, 0, 0, ram, 4 * MIB, &err);
    snapfile_abandon(writer);
    free(ram);
    if (r != -ENOSPC || strcmp(err.msg, "full-fs/vm: No space left on device") != 0)
        return 2;
    return access("full-fs/vm", F_OK) == 0 ? 3 : 0;
}

static void on_a_full_file_system_there_is_no_file(void **state)
{
    int status;

    (void)state;
    assert_int_equal(mkdir("full-fs", 0700), 0);
    pid_t pid = fork();
    if (pid == 0)
        _exit(fill_a_file_system());
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77) {
        print_message("no file system can be mounted here\n");
        skip();
    }
    assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_abandoned_file_leaves_nothing),
        cmocka_unit_test(without_o_tmpfile_it_is_the_same),
        cmocka_unit_test(a_file_that_is_replaced_is_whole_until_then),
        cmocka_unit_test(of_two_writers_the_first_has_the_name),
        cmocka_unit_test(a_target_that_became_a_folder_stays_one),
        cmocka_unit_test(a_writer_killed_in_the_middle_leaves_nothing),
        cmocka_unit_test(without_room_for_all_of_it_there_is_no_file),
        cmocka_unit_test(on_a_full_file_system_there_is_no_file),
    };

    return cmocka_run_group_tests_name("snapfile_publish", tests, folder_enter, folder_leave);
}
