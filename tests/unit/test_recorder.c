/* SPDX-License-Identifier: Apache-2.0 */
/* Recording what is touched first, and the file that takes the place of the one before. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../src/migration/recorder.h"
#include "folder.h"
#include "snapshot.h"
#include "vmrun/working_set.h"

#define MIB (UINT64_C(1) << 20)
#define LONG 3600 /* seconds: until it is stopped */

static struct bench {
    struct guest_memory *memory;
    struct snapfile *file;
    struct recorder *recorder;
    ino_t inode;
} bench;

static ino_t inode_of(const char *path)
{
    struct stat st;

    assert_int_equal(stat(path, &st), 0);
    return st.st_ino;
}

/* All of a region has data, and a MiB of the other. */
static void write_file(void)
{
    struct snapfile_writer *writer;
    struct error err;

    assert_int_equal(snapfile_create("file", true, snapshot_halves, 2, &writer, &err), 0);
    snapshot_put_halves(writer, (uint64_t[]){2 * MIB, MIB});
    assert_int_equal(snapfile_put_section(writer, "about", false, "{}", 2, &err), 0);
    snapshot_file_publish(writer);
}

static void open_and_map(const char *path)
{
    bench.file = snapshot_file_open(path);
    bench.inode = inode_of(path);
    bench.memory = snapshot_map_halves(bench.file);
}

static int setup(void **state)
{
    (void)state;
    write_file();
    open_and_map("file");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    recorder_stop(bench.recorder, false);
    guest_memory_destroy(bench.memory);
    snapfile_close(bench.file);
    bench = (struct bench){0};
    return 0;
}

static void start(const char *path, unsigned seconds)
{
    struct error err;

    if (recorder_start(bench.memory, bench.file, path, seconds, &bench.recorder, &err) < 0)
        fail_msg("%s", err.msg);
}

static void stop(bool keep)
{
    recorder_stop(bench.recorder, keep);
    bench.recorder = NULL;
}

static void look_at(unsigned region, uint64_t page)
{
    volatile uint8_t *at = bench.memory->regions[region].host + page * GUEST_PAGE_SIZE;

    (void)*at;
}

static void write_to(unsigned region, uint64_t page)
{
    volatile uint8_t *at = bench.memory->regions[region].host + page * GUEST_PAGE_SIZE;

    *at = 1;
}

/* What is touched before is seen before what is touched after. */
static void let_it_look(void)
{
    usleep(1000000); /* many of its looks, on a host that is not busy */
}

static struct snapfile *open_new(struct working_set *ret_set)
{
    struct snapfile *file = snapshot_file_open("file");
    struct error err;

    snapshot_file_verify(file);
    if (working_set_find(file, ret_set, &err) < 0)
        fail_msg("%s", err.msg);
    return file;
}

static void expect_run(const struct working_set *set, size_t index, uint64_t first, uint64_t pages,
                       bool written)
{
    struct working_run run = working_set_run(set, index);

    assert_int_equal(run.first, first);
    assert_int_equal(run.pages, pages);
    assert_int_equal(run.written, written);
}

/* It is as it was, and alone. */
static void expect_nothing_new(ino_t inode)
{
    DIR *folder = opendir(".");
    const struct dirent *entry;

    assert_non_null(folder);
    while ((entry = readdir(folder)))
        if (entry->d_name[0] != '.' || strncmp(entry->d_name, ".vmrun", 6) == 0)
            assert_string_equal(entry->d_name, "file");
    closedir(folder);
    assert_int_equal(inode_of("file"), inode);
}

/* Tests */

static void what_is_touched_is_recorded_in_its_order(void **state)
{
    struct working_set set;

    (void)state;
    start("file", LONG);
    look_at(1, 200);
    let_it_look();
    write_to(0, 41);
    look_at(0, 40);
    let_it_look();
    look_at(0, 3);
    look_at(0, 4);
    let_it_look();
    write_to(0, 3); /* later than its first touch */
    stop(true);

    struct snapfile *file = open_new(&set);

    expect_run(&set, 0, 512 + 200, 1, false);
    expect_run(&set, 1, 40, 1, false);
    expect_run(&set, 2, 41, 1, true);
    expect_run(&set, 3, 3, 1, true);
    expect_run(&set, 4, 4, 1, false);
    assert_int_equal(set.runs, 5); /* and no neighbours */
    snapfile_close(file);
}

static void the_new_file_is_the_same_machine(void **state)
{
    struct working_set set;
    struct stat old, new;
    uint8_t byte;
    size_t len;

    (void)state;
    assert_int_equal(chmod("file", 0640), 0);
    start("file", LONG);
    write_to(0, 7);
    stop(true);
    struct snapfile *file = open_new(&set);

    assert_true(inode_of("file") != bench.inode);
    assert_memory_equal(snapfile_id(file), snapfile_id(bench.file), SNAPFILE_ID_BYTES);
    assert_int_equal(snapfile_created_ns(file), snapfile_created_ns(bench.file));
    assert_int_equal(snapfile_data_bytes(file), 3 * MIB);
    assert_memory_equal(snapfile_section(file, "about", &len), "{}", 2);
    assert_int_equal(fstat(snapfile_fd(bench.file), &old), 0);
    assert_int_equal(fstat(snapfile_fd(file), &new), 0);
    assert_int_equal(new.st_mode, S_IFREG | 0640);
    assert_in_range(new.st_blocks, 1, old.st_blocks + 16); /* holes are holes */
    /* A clone that runs from the old one has what it had, and the guest's writes are in neither. */
    assert_int_equal(pread(snapfile_fd(bench.file), &byte, 1, 2 * MIB + 7 * GUEST_PAGE_SIZE), 1);
    assert_int_equal(byte, 0x5a);
    snapshot_file_verify(bench.file);
    snapfile_close(file);
}

static void a_second_recording_takes_the_place_of_the_first(void **state)
{
    struct working_set set;
    uint64_t checksum;
    const char *name;
    const void *data;
    unsigned count;
    bool critical;
    size_t len;

    start("file", LONG);
    write_to(0, 7);
    stop(true);
    teardown(state);
    open_and_map("file");
    start("file", LONG);
    look_at(1, 9);
    stop(true);

    struct snapfile *file = open_new(&set);
    for (count = 0; snapfile_section_at(file, count, &name, &critical, &data, &len, &checksum);)
        count++;
    assert_int_equal(count, 4); /* about, memory, chunks, working */
    assert_int_equal(set.runs, 1);
    expect_run(&set, 0, 512 + 9, 1, false);
    snapfile_close(file);
}

static void it_ends_when_its_time_is_over(void **state)
{
    struct working_set set;

    (void)state;
    start("file", 1);
    look_at(0, 7);
    for (unsigned i = 0; i < 600 && inode_of("file") == bench.inode; i++)
        usleep(100000);
    snapfile_close(open_new(&set));
    assert_int_equal(set.pages, 1);
    look_at(0, 100);
    stop(true); /* too late for that page */
    snapfile_close(open_new(&set));
    assert_int_equal(set.pages, 1);
}

static void what_is_given_up_leaves_the_file_as_it_was(void **state)
{
    (void)state;
    start("file", LONG);
    write_to(0, 7);
    stop(false);
    expect_nothing_new(bench.inode);
    start("file", LONG); /* and nothing was touched */
    stop(false);
    expect_nothing_new(bench.inode);
}

static void a_link_stays_and_leads_to_the_new_file(void **state)
{
    struct working_set set;
    struct stat st;

    (void)state;
    assert_int_equal(symlink("file", "link"), 0);
    start("link", LONG);
    look_at(0, 7);
    stop(true);
    assert_int_equal(lstat("link", &st), 0);
    assert_true(S_ISLNK(st.st_mode));
    unlink("link");
    snapfile_close(open_new(&set));
}

static void a_file_that_took_the_name_meanwhile_is_not_replaced(void **state)
{
    struct error err;
    ino_t other;

    (void)state;
    start("file", LONG);
    look_at(0, 7);
    write_file();
    other = inode_of("file");
    stop(true);
    expect_nothing_new(other);
    assert_int_equal(recorder_start(bench.memory, bench.file, "file", 1, &bench.recorder, &err),
                     -ESTALE);
    assert_non_null(strstr(err.msg, "is another file by now"));
    assert_null(bench.recorder);
}

static void a_file_without_a_name_is_refused_at_once(void **state)
{
    struct error err;

    (void)state;
    assert_int_equal(unlink("file"), 0);
    assert_int_equal(recorder_start(bench.memory, bench.file, "file", 1, &bench.recorder, &err),
                     -ENOENT);
    assert_string_equal(err.msg, "file: No such file or directory");
}

static void a_file_that_was_cut_off_or_changed_is_not_made_good(void **state)
{
    uint8_t byte = 0xff;
    int fd;

    (void)state;
    start("file", LONG);
    look_at(0, 7);
    let_it_look();
    fd = open("file", O_RDWR | O_CLOEXEC);
    assert_int_equal(pwrite(fd, &byte, 1, 73), 1); /* when it was made */
    stop(true);
    expect_nothing_new(bench.inode);
    byte = 0;
    assert_int_equal(ftruncate(fd, 4 * MIB), 0);
    close(fd);
    start("file", LONG);
    stop(true);
    expect_nothing_new(bench.inode);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_is_touched_is_recorded_in_its_order),
        TEST(the_new_file_is_the_same_machine),
        TEST(a_second_recording_takes_the_place_of_the_first),
        TEST(it_ends_when_its_time_is_over),
        TEST(what_is_given_up_leaves_the_file_as_it_was),
        TEST(a_link_stays_and_leads_to_the_new_file),
        TEST(a_file_that_took_the_name_meanwhile_is_not_replaced),
        TEST(a_file_without_a_name_is_refused_at_once),
        TEST(a_file_that_was_cut_off_or_changed_is_not_made_good),
    };
    return cmocka_run_group_tests_name("recorder", tests, folder_enter, folder_leave);
}
