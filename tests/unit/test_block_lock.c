/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One image, two programs: a second process of ours, and QEMU's tools where they
 * are installed. Nobody writes what another uses.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "block_bench.h"
#include "folder.h"

/* A child that holds the image open until it is killed, or that could not open it. */
struct holder {
    pid_t pid;
    bool opened;
};

static void hold(bool read_only, int answer)
{
    struct error err = {.msg = ""};
    struct bench b;
    char byte;

    prctl(PR_SET_NAME, "the holder");
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    bench_prepare(&b, BLOCK_CACHE_WRITEBACK);
    b.params.read_only = read_only;
    byte = block_open(&b.params, &b.block, &err) == 0;
    if (write(answer, &byte, 1) == 1)
        pause();
    _exit(0);
}

static void holder_start(struct holder *holder, bool read_only)
{
    int answer[2];
    char byte = 0;

    assert_int_equal(pipe2(answer, O_CLOEXEC), 0);
    holder->pid = fork();
    assert_true(holder->pid >= 0);
    if (holder->pid == 0)
        hold(read_only, answer[1]);
    close(answer[1]);
    assert_int_equal(read(answer[0], &byte, 1), 1);
    close(answer[0]);
    holder->opened = byte;
}

static void holder_end(struct holder *holder)
{
    int status;

    assert_int_equal(kill(holder->pid, SIGKILL), 0);
    assert_int_equal(waitpid(holder->pid, &status, 0), holder->pid);
}

/* Whether we can open it now. */
static bool can_open(bool read_only, struct error *err)
{
    struct bench b;

    bench_prepare(&b, BLOCK_CACHE_WRITEBACK);
    b.params.read_only = read_only;
    *err = (struct error){.msg = ""};
    int r = block_open(&b.params, &b.block, err);
    bench_close(&b);
    assert_true(r == 0 || r == -EBUSY);
    return r == 0;
}

static void a_second_process_neither_writes_nor_reads_what_one_writes(void **state)
{
    struct holder holder;
    struct error err;
    char message[200];

    (void)state;
    make_image(IMAGE, MIB);
    holder_start(&holder, false);
    assert_true(holder.opened);
    assert_false(can_open(false, &err));
    snprintf(message, sizeof(message),
             "disk.img: in use: another process (the holder, pid %d) does not share it",
             (int)holder.pid);
    assert_string_equal(err.msg, message);
    assert_false(can_open(true, &err));
    snprintf(message, sizeof(message),
             "disk.img: in use: another process (the holder, pid %d) writes it", (int)holder.pid);
    assert_string_equal(err.msg, message);
    holder_end(&holder);
    assert_true(can_open(false, &err));
}

static void readers_share_an_image_and_keep_writers_out(void **state)
{
    struct holder holder, other;
    struct error err;

    (void)state;
    make_image(IMAGE, MIB);
    holder_start(&holder, true);
    holder_start(&other, true);
    assert_true(holder.opened && other.opened);
    assert_true(can_open(true, &err));
    assert_false(can_open(false, &err));
    holder_end(&holder);
    assert_false(can_open(false, &err));
    holder_end(&other);
    assert_true(can_open(false, &err));
}

static void a_refused_image_is_left_unlocked(void **state)
{
    struct holder holder, other;
    struct error err;

    (void)state;
    make_image(IMAGE, MIB);
    holder_start(&holder, true);
    assert_false(can_open(false, &err)); /* and what it had locked already is free again */
    holder_start(&other, true);
    assert_true(other.opened);
    holder_end(&holder);
    holder_end(&other);
}

static void need_qemu_io(void)
{
    if (system("command -v qemu-io >/dev/null && command -v qemu-img >/dev/null") != 0) {
        print_message("skipped: qemu-io is missing; Debian's qemu-utils has it\n");
        skip();
    }
}

static bool succeeds(const char *command)
{
    int status = system(command);

    assert_true(status >= 0);
    return status == 0;
}

#define REFUSED_FOR_THE_LOCK " 2>&1 | grep -q 'lock'"

static void qemu_does_not_touch_an_image_that_we_write(void **state)
{
    struct error err = {.msg = ""};
    struct bench b;

    (void)state;
    need_qemu_io();
    bench_open(&b, BLOCK_CACHE_WRITEBACK, MIB);
    assert_true(succeeds("qemu-io -f raw -c 'write 0 512' " IMAGE REFUSED_FOR_THE_LOCK));
    assert_true(succeeds("qemu-img convert -f raw -O raw " IMAGE " copy" REFUSED_FOR_THE_LOCK));
    assert_true(succeeds("qemu-img resize -f raw " IMAGE " 2M" REFUSED_FOR_THE_LOCK));
    assert_false(block_refresh_size(b.block));
    bench_close(&b);
    assert_true(succeeds("qemu-io -f raw -c 'write 0 512' " IMAGE " >/dev/null"));

    bench_prepare(&b, BLOCK_CACHE_NONE);
    b.params.read_only = true;
    assert_int_equal(block_open(&b.params, &b.block, &err), 0);
    assert_true(succeeds("qemu-io -f raw -r -c 'read 0 512' " IMAGE " >/dev/null"));
    assert_true(succeeds("qemu-img info " IMAGE " >/dev/null"));
    assert_true(succeeds("qemu-io -f raw -c 'write 0 512' " IMAGE REFUSED_FOR_THE_LOCK));
    bench_close(&b);
}

/* Whether somebody has a lock on the image; asked without one of our own, that would disturb. */
static bool is_locked_by_somebody(void)
{
    char line[200], inode[40];
    bool found = false;
    struct stat st;

    assert_int_equal(stat(IMAGE, &st), 0);
    snprintf(inode, sizeof(inode), ":%llu ", (unsigned long long)st.st_ino);
    FILE *locks = fopen("/proc/locks", "re");
    assert_non_null(locks);
    while (!found && fgets(line, sizeof(line), locks))
        found = strstr(line, inode) != NULL;
    fclose(locks);
    return found;
}

static void we_do_not_touch_an_image_that_qemu_writes(void **state)
{
    struct error err;

    (void)state;
    need_qemu_io();
    make_image(IMAGE, MIB);
    /* It reads commands from us, and has the image open as long as we give it more. */
    FILE *qemu = popen("qemu-io -f raw " IMAGE " >/dev/null", "we");
    assert_non_null(qemu);
    for (int i = 0; i < 1000 && !is_locked_by_somebody(); i++)
        usleep(10000);
    usleep(100000); /* it has its locks, and looks whether others have */
    assert_false(can_open(false, &err));
    assert_non_null(strstr(err.msg, "disk.img: in use: another process (qemu-io, pid "));
    assert_false(can_open(true, &err));
    assert_non_null(strstr(err.msg, " writes it"));
    fputs("quit\n", qemu);
    assert_int_equal(pclose(qemu), 0);
    assert_true(can_open(false, &err));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_second_process_neither_writes_nor_reads_what_one_writes),
        cmocka_unit_test(readers_share_an_image_and_keep_writers_out),
        cmocka_unit_test(a_refused_image_is_left_unlocked),
        cmocka_unit_test(qemu_does_not_touch_an_image_that_we_write),
        cmocka_unit_test(we_do_not_touch_an_image_that_qemu_writes),
    };
    return cmocka_run_group_tests_name("block lock", tests, folder_enter, folder_leave);
}
