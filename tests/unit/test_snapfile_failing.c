/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk that fails under a snapshot: each call that touches it in its turn, until all went well.
 *
 * The calls are defined here, in the place of the C library's.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../src/migration/snapfile_format.h"
#include "folder.h"
#include "snapshot.h"

static struct {
    unsigned turn, calls; /* the call of that number, from 1, fails */
    int failure;          /* with this */
    bool on_folder;       /* it was the last one: fsync of the folder */
    int no_tmpfile;       /* what O_TMPFILE fails with, or 0 */
    bool no_holes;        /* as on a file system that cannot punch them */
    bool piecemeal;       /* pwrite takes a few bytes, or is interrupted */
} disk;

static bool fails(void)
{
    if (++disk.calls != disk.turn)
        return false;
    errno = disk.failure;
    return true;
}

ssize_t pwrite(int fd, const void *data, size_t len, off_t at)
{
    static unsigned count;

    if (fails())
        return -1;
    if (disk.piecemeal && ++count % 3 == 0) {
        errno = EINTR;
        return -1;
    }
    if (disk.piecemeal && len > 1000)
        len = 1000;
    return syscall(SYS_pwrite64, fd, data, len, at);
}

int fallocate(int fd, int mode, off_t at, off_t len)
{
    if (disk.no_holes) {
        errno = EOPNOTSUPP;
        return -1;
    }
    return fails() ? -1 : (int)syscall(SYS_fallocate, fd, mode, at, len);
}

int ftruncate(int fd, off_t len)
{
    return fails() ? -1 : (int)syscall(SYS_ftruncate, fd, len);
}

int fdatasync(int fd)
{
    return fails() ? -1 : (int)syscall(SYS_fdatasync, fd);
}

int fsync(int fd)
{
    struct stat st;

    if (!fails())
        return (int)syscall(SYS_fsync, fd);
    disk.on_folder = fstat(fd, &st) == 0 && S_ISDIR(st.st_mode);
    errno = disk.failure;
    return -1;
}

int linkat(int old_dir, const char *old, int new_dir, const char *new, int flags)
{
    return fails() ? -1 : (int)syscall(SYS_linkat, old_dir, old, new_dir, new, flags);
}

int renameat(int old_dir, const char *old, int new_dir, const char *new)
{
    return fails() ? -1 : (int)syscall(SYS_renameat2, old_dir, old, new_dir, new, 0);
}

int openat(int dir, const char *path, int flags, ...)
{
    va_list args;

    va_start(args, flags);
    mode_t mode = flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(args, mode_t) : 0;
    va_end(args);
    if (disk.no_tmpfile && (flags & O_TMPFILE) == O_TMPFILE) {
        errno = disk.no_tmpfile;
        return -1;
    }
    return fails() ? -1 : (int)syscall(SYS_openat, dir, path, flags, mode);
}

/* Two pages and one that becomes a hole, a section, and the end. */
static int save(bool replace, struct error *err)
{
    const struct snapfile_region region = {0, 4 * SNAPSHOT_PAGE};
    uint8_t pages[3 * SNAPSHOT_PAGE];
    struct snapfile_written written;
    struct snapfile_writer *writer;
    int r = snapfile_create("vm", replace, &region, 1, &writer, err);

    if (r < 0)
        return r;
    memset(pages, 0x5a, sizeof(pages));
    r = snapfile_put_pages(writer, 0, 0, pages, sizeof(pages), err);
    memset(pages + SNAPSHOT_PAGE, 0, SNAPSHOT_PAGE);
    if (r == 0)
        r = snapfile_put_pages(writer, 0, 0, pages, sizeof(pages), err);
    if (r == 0)
        r = snapfile_put_section(writer, "machine", true, "{}", 2, err);
    if (r == 0)
        return snapfile_publish(writer, &written, err);
    snapfile_abandon(writer);
    return r;
}

static void check_saved(void)
{
    struct snapfile *file = snapshot_file_open("vm");

    assert_int_equal(snapfile_data_bytes(file), 2 * SNAPSHOT_PAGE);
    snapshot_file_verify(file);
    snapfile_close(file);
}

static void check_left_alone(bool replace)
{
    struct stat st;

    assert_int_equal(folder_count(), replace ? 1 : 0);
    if (!replace)
        return;
    assert_int_equal(stat("vm", &st), 0);
    assert_int_equal(st.st_size, 3);
}

/* The number of calls that it took when all went well. */
static unsigned fail_at_each_call(bool replace, int failure)
{
    for (unsigned turn = 1;; turn++) {
        struct error err = {0};

        unlink("vm");
        if (replace)
            folder_write("vm", "old", 3);
        disk.turn = turn;
        disk.calls = 0;
        disk.on_folder = false;
        disk.failure = failure;
        int r = save(replace, &err);
        disk.turn = 0;
        if (r == 0) {
            check_saved();
            return turn - 1;
        }
        assert_int_equal(r, -failure);
        if (!strstr(err.msg, "vm") || !strstr(err.msg, strerror(failure)))
            fail_msg("call %u: \"%s\"", turn, err.msg);
        if (!disk.on_folder) {
            check_left_alone(replace);
            continue;
        }
        assert_non_null(strstr(err.msg, "is there, but"));
        check_saved();
    }
}

static void whichever_call_fails_nothing_is_left_and_the_older_file_stays(void **state)
{
    static const int failures[] = {EIO, ENOSPC, EDQUOT};
    static const int tmpfile_failures[] = {0, EOPNOTSUPP};

    (void)state;
    for (unsigned i = 0; i < 12; i++) {
        disk.no_tmpfile = tmpfile_failures[i / 6];
        /* 4 writes, a hole, 2 sections of the file's own, table, superblock, 3 syncs, ... */
        assert_in_range(fail_at_each_call(i & 1, failures[i / 2 % 3]), 12, 16);
    }
    disk.no_tmpfile = 0;
}

static void a_file_system_without_o_tmpfile_is_met_with_a_hidden_name(void **state)
{
    static const int failures[] = {EOPNOTSUPP, EISDIR, EINVAL};
    struct error err;

    (void)state;
    for (unsigned i = 0; i < 6; i++) {
        disk.no_tmpfile = failures[i / 2];
        unlink("vm");
        if (i & 1)
            folder_write("vm", "old", 3);
        assert_int_equal(save(i & 1, &err), 0);
        assert_int_equal(folder_count(), 1);
        check_saved();
    }
    disk.no_tmpfile = EACCES; /* no reason to try it otherwise */
    assert_int_equal(save(true, &err), -EACCES);
    disk.no_tmpfile = 0;
}

static void where_no_holes_can_be_made_there_are_zeros(void **state)
{
    struct error err;

    (void)state;
    disk.no_holes = true;
    assert_int_equal(save(true, &err), 0);
    disk.no_holes = false;
    check_saved();
}

static void a_write_that_takes_only_a_part_is_continued(void **state)
{
    struct error err;

    (void)state;
    disk.piecemeal = true;
    assert_int_equal(save(true, &err), 0);
    disk.piecemeal = false;
    check_saved();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whichever_call_fails_nothing_is_left_and_the_older_file_stays),
        cmocka_unit_test(a_file_system_without_o_tmpfile_is_met_with_a_hidden_name),
        cmocka_unit_test(where_no_holes_can_be_made_there_are_zeros),
        cmocka_unit_test(a_write_that_takes_only_a_part_is_continued),
    };

    return cmocka_run_group_tests_name("snapfile_failing", tests, folder_enter, folder_leave);
}
