/* SPDX-License-Identifier: Apache-2.0 */
/* The working set in a snapshot: its section, good and hostile, and what fetching it does. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "folder.h"
#include "snapshot.h"
#include "vmrun/working_set.h"

#define MIB (UINT64_C(1) << 20)
#define PAGES 1024u /* of RAM: 512 in each of two regions */
#define HERE (UINT64_C(1) << 63)
#define OF_FILE (UINT64_C(1) << 61)
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static struct bench {
    struct guest_memory *memory;
    struct snapfile *file;
} bench;

static void make_file(const void *section, size_t len)
{
    struct snapfile_writer *writer;
    struct error err;

    assert_int_equal(snapfile_create("file", true, snapshot_halves, 2, &writer, &err), 0);
    snapshot_put_halves(writer, (uint64_t[]){2 * MIB, 2 * MIB});
    if (section)
        assert_int_equal(
            snapfile_put_section(writer, WORKING_SET_SECTION, false, section, len, &err), 0);
    snapshot_file_publish(writer);
    bench.file = snapshot_file_open("file");
}

static void make_file_with(const struct working_run *runs, size_t count)
{
    struct writer section = {0};

    for (size_t i = 0; i < count; i++)
        working_set_put(&section, &runs[i]);
    assert_false(section.failed);
    make_file(section.data, section.len);
    free(section.data);
}

static int teardown(void **state)
{
    (void)state;
    guest_memory_destroy(bench.memory);
    snapfile_close(bench.file);
    bench = (struct bench){0};
    return 0;
}

static uint64_t page_table_entry(unsigned region, uint64_t page)
{
    uint64_t entry, at = (uintptr_t)bench.memory->regions[region].host / GUEST_PAGE_SIZE + page;
    int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

    assert_int_equal(pread(fd, &entry, sizeof(entry), (off_t)(at * sizeof(entry))), sizeof(entry));
    close(fd);
    return entry;
}

static void must_be_refused(const char *words)
{
    struct working_set set = {.runs = 99};
    struct error err;

    assert_int_equal(working_set_find(bench.file, &set, &err), -EPROTO);
    assert_string_equal(err.msg, words);
    assert_int_equal(set.runs, 99);
}

/* Tests */

static void runs_come_back_in_their_order(void **state)
{
    static const struct working_run runs[] = {
        {700, 3, true}, {0, 1, false}, {PAGES - 1, 1, true}, {511, 1, false}, {512, 100, false}};
    struct working_set set;
    struct error err;

    (void)state;
    make_file_with(runs, COUNT(runs));
    assert_int_equal(working_set_find(bench.file, &set, &err), 0);
    assert_int_equal(set.runs, COUNT(runs));
    assert_int_equal(set.pages, 106);
    assert_int_equal(set.written_pages, 4);
    for (size_t i = 0; i < COUNT(runs); i++) {
        struct working_run run = working_set_run(&set, i);

        assert_int_equal(run.first, runs[i].first);
        assert_int_equal(run.pages, runs[i].pages);
        assert_int_equal(run.written, runs[i].written);
    }
}

static void a_file_without_one_says_how_to_get_one(void **state)
{
    struct working_set set;
    struct error err;

    (void)state;
    make_file(NULL, 0);
    assert_int_equal(working_set_find(bench.file, &set, &err), -ENOENT);
    assert_string_equal(err.msg,
                        "no working set was recorded in it; 'vmrun restore --record' does that");
}

static void runs_that_are_not_in_ram_are_refused(void **state)
{
    static const struct working_run bad[] = {
        {PAGES, 1, false}, {PAGES - 1, 2, false},       {0, 0, false},  {UINT32_MAX, 1, false},
        {511, 2, false},   {512, UINT32_MAX / 2, true}, {0, 513, false}};

    for (size_t i = 0; i < COUNT(bad); i++) {
        const struct working_run runs[] = {{0, 1, false}, bad[i]};

        make_file_with(runs, 2);
        must_be_refused("section 'working': run 1 is not in RAM");
        teardown(state);
    }
}

static void more_pages_than_there_are_are_refused(void **state)
{
    static const struct working_run all[] = {{0, 512, true}, {512, 512, true}, {3, 1, false}};

    make_file_with(all, 3);
    must_be_refused("section 'working': more pages than RAM has");
    teardown(state);

    struct working_set set;
    struct error err;

    make_file_with(all, 2);
    assert_int_equal(working_set_find(bench.file, &set, &err), 0);
    assert_int_equal(set.pages, PAGES);
}

static void sizes_that_cannot_be_are_refused(void **state)
{
    static const size_t sizes[] = {0, 1, 7, 9,
                                   ((size_t)WORKING_SET_MAX_RUNS + 1) * WORKING_SET_RUN_BYTES};
    uint8_t *zeros = calloc(sizes[4], 1);

    assert_non_null(zeros);
    for (size_t i = 0; i < COUNT(sizes); i++) {
        make_file(zeros, sizes[i]);
        must_be_refused("section 'working': has the wrong size");
        teardown(state);
    }
    free(zeros);
}

static void what_is_fetched_is_there_and_what_is_written_to_is_a_copy(void **state)
{
    static const struct working_run runs[] = {
        {512 + 300, 2, true}, {100, 1, false}, {200, 2, true}};
    atomic_bool leave = false;
    struct working_set set;
    struct error err;

    (void)state;
    make_file_with(runs, COUNT(runs));
    bench.memory = snapshot_map_halves(bench.file);
    assert_int_equal(working_set_find(bench.file, &set, &err), 0);
    assert_int_equal(page_table_entry(0, 100) & HERE, 0);
    working_set_prefetch(&set, bench.memory, &leave);
    assert_int_equal(page_table_entry(0, 100) & (HERE | OF_FILE), HERE | OF_FILE);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(page_table_entry(0, 200 + i) & (HERE | OF_FILE), HERE);
        assert_int_equal(page_table_entry(1, 300 + i) & (HERE | OF_FILE), HERE);
    }
    assert_int_equal(page_table_entry(1, 100) & HERE, 0);
    assert_int_equal(bench.memory->regions[1].host[301 * GUEST_PAGE_SIZE], 0x5a);
}

static void fetching_stops_when_it_is_told_to(void **state)
{
    static const struct working_run run = {0, 512, true};
    atomic_bool leave = true;
    struct working_set set;
    struct error err;

    (void)state;
    make_file_with(&run, 1);
    bench.memory = snapshot_map_halves(bench.file);
    assert_int_equal(working_set_find(bench.file, &set, &err), 0);
    working_set_prefetch(&set, bench.memory, &leave);
    assert_int_equal(page_table_entry(0, 0) & HERE, 0);
}

static void a_file_that_was_cut_off_harms_nobody_who_fetches(void **state)
{
    static const struct working_run runs[] = {{0, 512, true}, {512, 512, false}};
    atomic_bool leave = false;
    struct working_set set;
    struct error err;

    (void)state;
    make_file_with(runs, 2);
    bench.memory = snapshot_map_halves(bench.file);
    assert_int_equal(working_set_find(bench.file, &set, &err), 0);
    assert_int_equal(truncate("file", 3 * MIB), 0);
    working_set_prefetch(&set, bench.memory, &leave);
    assert_int_equal(page_table_entry(0, 255) & HERE, HERE);
    assert_int_equal(page_table_entry(0, 256) & HERE, 0);
    assert_int_equal(page_table_entry(1, 0) & HERE, 0);
}

#define TEST(name) cmocka_unit_test_teardown(name, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(runs_come_back_in_their_order),
        TEST(a_file_without_one_says_how_to_get_one),
        TEST(runs_that_are_not_in_ram_are_refused),
        TEST(more_pages_than_there_are_are_refused),
        TEST(sizes_that_cannot_be_are_refused),
        TEST(what_is_fetched_is_there_and_what_is_written_to_is_a_copy),
        TEST(fetching_stops_when_it_is_told_to),
        TEST(a_file_that_was_cut_off_harms_nobody_who_fetches),
    };
    return cmocka_run_group_tests_name("working_set", tests, folder_enter, folder_leave);
}
