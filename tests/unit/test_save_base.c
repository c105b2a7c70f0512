/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Saving what changed since an earlier snapshot, before a machine that is a fake: whichever way it
 * is known, the chain holds what RAM held when the machine was held.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "fake_guest.h"
#include "folder.h"
#include "vmrun/migration.h"
#include "vmrun/snapfile.h"

#define MIB (UINT64_C(1) << 20)
#define LOW (8 * MIB)
#define SIZE (11 * MIB) /* the upper region's chunks do not fill it */
#define PAGE GUEST_PAGE_SIZE
#define PAGES (SIZE / PAGE)

struct machine {
    struct fake_guest guest;
    bool held;
    unsigned writes; /* pages from 1000 on, at each look at the log */
    int state_fails;
    uint8_t *held_ram;
};

static struct bench {
    struct machine machine;
    struct loop *loop;
    struct migration *migration;
    struct migration_report report;
    unsigned packing;
} bench;

/* The guest, which is seen by the log, and a device, which marks what it wrote. */

static void clear_page(struct fake_guest *g, uint64_t page)
{
    fake_guest_write(g, page);
    memset(fake_guest_page(g, page), 0, PAGE);
}

static void write_by_device(struct fake_guest *g, uint64_t page)
{
    uint8_t data[16] = {(uint8_t)++g->stamp, 1};
    uint64_t gpa = fake_guest_gpa(g, page);

    assert_int_equal(guest_memory_write(g->memory, gpa, data, sizeof(data)), 0);
}

/* The machine */

int machine_refuse(const struct machine *m, const char *verb, struct error *err)
{
    (void)m;
    return error_set(err, EBUSY, "cannot %s", verb);
}

enum machine_state machine_state(const struct machine *m)
{
    (void)m;
    return MACHINE_RUNNING;
}

struct guest_memory *machine_memory(struct machine *m)
{
    return m->guest.memory;
}

int machine_dirty_log(struct machine *m, bool on, struct error *err)
{
    (void)err;
    fake_guest_log(&m->guest, on);
    return 0;
}

int machine_dirty_harvest(struct machine *m, unsigned region, uint64_t *bitmap, struct error *err)
{
    (void)err;
    assert_true(m->guest.logging);
    for (unsigned i = 0; region == 0 && !m->held && i < m->writes; i++)
        fake_guest_write(&m->guest, 1000 + i);
    fake_guest_log_look(&m->guest, region, bitmap);
    guest_memory_harvest_dirty(m->guest.memory, region, bitmap);
    return 0;
}

int machine_dirty_clear(struct machine *m, unsigned region, uint64_t first_page, uint64_t pages,
                        const uint64_t *bitmap, struct error *err)
{
    (void)err;
    fake_guest_log_clear(&m->guest, region, first_page, pages, bitmap);
    return 0;
}

static void keep_ram(struct machine *m)
{
    for (uint64_t page = 0; page < PAGES; page++)
        memcpy(m->held_ram + page * PAGE, fake_guest_page(&m->guest, page), PAGE);
}

int machine_hold(struct machine *m, struct error *err)
{
    (void)err;
    m->held = true;
    return 0;
}

void machine_release(struct machine *m)
{
    for (unsigned i = 0; m->held && i < m->writes; i++)
        fake_guest_write(&m->guest,
                         2000 + i); /* after the stop: in the next file, if there is one */
    m->held = false;
}

int machine_pause(struct machine *m, struct error *err)
{
    (void)m, (void)err;
    return 0;
}

int machine_resume(struct machine *m, struct error *err)
{
    (void)m, (void)err;
    return 0;
}

void machine_kill(struct machine *m)
{
    (void)m;
    loop_stop(bench.loop);
}

int machine_save_state(struct machine *m, struct writer *w, struct error *err)
{
    put_bytes(w, "state", 5);
    keep_ram(m);
    return m->state_fails ? error_set(err, m->state_fails, "vcpu0 does not say") : 0;
}

bool machine_save_extra(struct machine *m, unsigned index, const char **ret_name, uint64_t *from,
                        struct writer *w)
{
    (void)m, (void)index, (void)ret_name, (void)from, (void)w;
    return false;
}

int machine_save_cpuid(const struct machine *m, struct writer *w, struct error *err)
{
    (void)m, (void)err;
    put_bytes(w, "cpuid", 5);
    return 0;
}

int machine_describe(const struct machine *m, char **ret_text, struct error *err)
{
    (void)m, (void)err;
    *ret_text = strdup("{}");
    return 0;
}

int machine_sync_disks(struct machine *m, struct error *err)
{
    (void)m, (void)err;
    return 0;
}

/* The bench */

static void take_progress(void *opaque, const struct migration_progress *progress)
{
    (void)opaque;
    bench.packing += progress->phase == MIGRATION_PACKING;
}

static void take_end(void *opaque, const struct migration_report *report)
{
    (void)opaque;
    bench.report = *report;
    loop_stop(bench.loop);
}

static const struct migration_listener listener = {take_progress, take_end};

static int setup(void **state)
{
    struct error err;

    if (folder_enter(state) < 0)
        return -1;
    bench = (struct bench){.machine.held_ram = malloc(SIZE)};
    fake_guest_create(&bench.machine.guest, SIZE, LOW);
    if (loop_create(&bench.loop, &err) < 0 ||
        migration_create(&bench.machine, bench.loop, &bench.migration, &err) < 0)
        return -1;
    for (uint64_t page = 0; page < PAGES; page += 3)
        fake_guest_write(&bench.machine.guest, page);
    migration_set_listener(bench.migration, &listener, NULL);
    return 0;
}

static int teardown(void **state)
{
    migration_destroy(bench.migration);
    loop_destroy(bench.loop);
    fake_guest_destroy(&bench.machine.guest);
    free(bench.machine.held_ram);
    return folder_leave(state);
}

static void run_save(const struct migration_save *params)
{
    struct error err;

    if (migration_save(bench.migration, params, &err) < 0)
        fail_msg("%s", err.msg);
    assert_int_equal(loop_run(bench.loop, &err), 0);
    if (bench.report.error.code)
        fail_msg("%s", bench.report.error.msg);
}

/* The chain is what RAM was, page by page. */
static void expect_saved(const char *path)
{
    uint8_t *chunk = malloc(SNAPFILE_CHUNK_BYTES);
    struct snapfile *file;
    struct error err;
    uint64_t page = 0;

    assert_non_null(chunk);
    if (snapfile_open(path, &file, &err) < 0)
        fail_msg("%s", err.msg);
    for (uint64_t i = 0; i < snapfile_chunks(file); i++) {
        uint64_t gpa, bytes;

        snapfile_chunk_range(file, i, &gpa, &bytes);
        if (snapfile_verify_chunk(file, i, chunk, &err) < 0)
            fail_msg("%s", err.msg);
        for (uint64_t at = 0; at < bytes; at += PAGE, page++)
            if (memcmp(chunk + at, bench.machine.held_ram + page * PAGE, PAGE) != 0)
                fail_msg("page %llu is not as it was", (unsigned long long)page);
    }
    assert_int_equal(page, PAGES);
    snapfile_close(file);
    free(chunk);
}

static void save_on(const char *path, const char *base, bool track, enum migration_found how)
{
    run_save(&(struct migration_save){.path = path, .base = base, .track = track});
    expect_saved(path);
    assert_int_equal(bench.report.found, how);
    assert_int_equal(bench.machine.guest.logging, track);
}

/* 8 pages: of both regions, one that became zero, one that a device wrote, some in a row. */
static void change_some(struct machine *m)
{
    static const uint64_t pages[] = {1, 2, 3, 700, LOW / PAGE, PAGES - 1};

    for (size_t i = 0; i < sizeof(pages) / sizeof(pages[0]); i++)
        fake_guest_write(&m->guest, pages[i]);
    clear_page(&m->guest, 9);
    write_by_device(&m->guest, 1500);
}

/* Tests */

static void all_is_compared_with_a_base_of_which_nothing_else_is_known(void **state)
{
    (void)state;
    save_on("base", NULL, false, MIGRATION_ALL);
    assert_int_equal(bench.report.held_bytes, SIZE);
    change_some(&bench.machine);
    guest_memory_mark_dirty(bench.machine.guest.memory, 0, 4 * MIB); /* written, but as it was */
    save_on("file", "base", false, MIGRATION_BY_COMPARISON);
    assert_int_equal(bench.report.held_bytes, 8 * PAGE);
    assert_int_equal(bench.report.data_bytes, 7 * PAGE);
    save_on("next", "file", false, MIGRATION_BY_COMPARISON);
    assert_int_equal(bench.report.held_bytes, 0);
}

/* The host has it back, and so it was never touched; base has something else. */
static void a_page_that_was_given_back_is_zero_in_the_file_too(void **state)
{
    (void)state;
    save_on("base", NULL, true, MIGRATION_ALL);
    assert_int_equal(guest_memory_zero(bench.machine.guest.memory,
                                       fake_guest_gpa(&bench.machine.guest, 15), PAGE),
                     0);
    save_on("one", "base", false, MIGRATION_BY_LOG);
    assert_int_equal(guest_memory_zero(bench.machine.guest.memory,
                                       fake_guest_gpa(&bench.machine.guest, 18), PAGE),
                     0);
    save_on("two", "one", false, MIGRATION_BY_COMPARISON);
    assert_int_equal(bench.report.held_bytes, PAGE);
    assert_int_equal(bench.report.data_bytes, 0);
}

static void what_a_guest_writes_meanwhile_is_in_the_file(void **state)
{
    (void)state;
    save_on("base", NULL, false, MIGRATION_ALL);
    change_some(&bench.machine);
    bench.machine.writes = 100;
    save_on("file", "base", false, MIGRATION_BY_COMPARISON);
    assert_int_equal(bench.report.held_bytes, 108 * PAGE);
}

static void a_log_that_was_kept_on_says_what_changed(void **state)
{
    (void)state;
    bench.machine.writes = 10;
    save_on("base", NULL, true, MIGRATION_ALL);
    change_some(&bench.machine);
    save_on("one", "base", true, MIGRATION_BY_LOG);
    /* What was written when the first save was nearly done is there again. */
    assert_in_range(bench.report.held_bytes, 28 * PAGE, 100 * PAGE);
    fake_guest_write(&bench.machine.guest, 5);
    save_on("two", "one", false, MIGRATION_BY_LOG);
    fake_guest_write(&bench.machine.guest, 6);
    save_on("three", "two", false, MIGRATION_BY_COMPARISON);
}

static void a_log_since_another_file_says_nothing(void **state)
{
    (void)state;
    save_on("base", NULL, false, MIGRATION_ALL);
    fake_guest_write(&bench.machine.guest, 5);
    save_on("other", NULL, true, MIGRATION_ALL);
    fake_guest_write(&bench.machine.guest, 8);
    save_on("file", "base", false, MIGRATION_BY_COMPARISON);
    assert_int_equal(bench.report.held_bytes, 2 * PAGE);
    /* It has given way to this one. */
    fake_guest_write(&bench.machine.guest, 11);
    save_on("late", "other", false, MIGRATION_BY_COMPARISON);
}

static void a_save_that_fails_ends_the_tracking_and_costs_no_page(void **state)
{
    const struct migration_save params = {.path = "failed", .base = "base", .track = true};
    struct error err;

    (void)state;
    save_on("base", NULL, true, MIGRATION_ALL);
    change_some(&bench.machine);
    bench.machine.state_fails = EIO;
    assert_int_equal(migration_save(bench.migration, &params, &err), 0);
    assert_int_equal(loop_run(bench.loop, &err), 0);
    assert_int_equal(bench.report.error.code, EIO);
    assert_false(bench.machine.guest.logging);
    assert_int_equal(access("failed", F_OK), -1);
    bench.machine.state_fails = 0;
    save_on("file", "base", false, MIGRATION_BY_COMPARISON);
    assert_int_equal(bench.report.held_bytes, 8 * PAGE);
}

static void one_that_cannot_begin_does_not(void **state)
{
    struct error err;

    (void)state;
    save_on("base", NULL, true, MIGRATION_ALL);
    change_some(&bench.machine);
    assert_int_equal(
        migration_save(bench.migration,
                       &(struct migration_save){.path = "base", .base = "base", .replace = true},
                       &err),
        -EINVAL);
    assert_string_equal(err.msg, "base: is what the new file would build on");
    assert_int_equal(migration_save(bench.migration,
                                    &(struct migration_save){.path = "x", .base = "none"}, &err),
                     -ENOENT);
    assert_int_equal(
        migration_save(bench.migration,
                       &(struct migration_save){.path = "x", .stop = true, .track = true}, &err),
        -EINVAL);
    assert_true(bench.machine.guest.logging);
    save_on("file", "base", false, MIGRATION_BY_LOG);
}

/* As a machine is that was restored lazily. */
static void map_from(const char *path, struct snapfile **ret_file)
{
    struct error err;

    assert_int_equal(snapfile_open(path, ret_file, &err), 0);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(guest_memory_map_file(bench.machine.guest.memory, i,
                                               snapfile_fd(*ret_file),
                                               snapfile_ram_offset(*ret_file, i), &err),
                         0);
    migration_set_origin(bench.migration, *ret_file);
}

static void linux_says_what_changed_of_ram_that_is_mapped(void **state)
{
    struct snapfile *file;

    (void)state;
    save_on("base", NULL, false, MIGRATION_ALL);
    map_from("base", &file);
    for (uint64_t page = 0; page < PAGES; page++)
        bench.machine.guest.stamp +=
            *fake_guest_page(&bench.machine.guest, page); /* to read is no change */
    change_some(&bench.machine);
    save_on("one", "base", false, MIGRATION_BY_MAPPINGS);
    assert_int_equal(bench.report.held_bytes, 8 * PAGE);

    /* The next one has what this one has, and more. */
    fake_guest_write(&bench.machine.guest, 20);
    bench.machine.writes = 50;
    save_on("two", "base", false, MIGRATION_BY_MAPPINGS);
    assert_int_equal(bench.report.held_bytes, 59 * PAGE);
    bench.machine.writes = 0;
    save_on("three", "two", false, MIGRATION_BY_COMPARISON);
    save_on("four", "base", true, MIGRATION_BY_MAPPINGS);
    fake_guest_write(&bench.machine.guest, 30);
    save_on("five", "four", false, MIGRATION_BY_LOG);
    snapfile_close(file);
}

/* They are not there, so Linux does not call them copies; and the file has something else. */
static void pages_that_were_given_back_are_zero_on_a_base_that_ram_is_mapped_from(void **state)
{
    struct guest_memory *mem = bench.machine.guest.memory;
    struct snapfile *file;

    (void)state;
    for (uint64_t page = 0; page < 30; page++)
        fake_guest_write(&bench.machine.guest, page);
    save_on("base", NULL, false, MIGRATION_ALL);
    map_from("base", &file);
    fake_guest_write(&bench.machine.guest, 10);
    assert_int_equal(
        guest_memory_give_back(mem, fake_guest_gpa(&bench.machine.guest, 10), 5 * PAGE), 5 * PAGE);
    save_on("one", "base", false, MIGRATION_BY_MAPPINGS);
    assert_int_equal(bench.report.held_bytes, 5 * PAGE);
    assert_int_equal(*fake_guest_page(&bench.machine.guest, 12), 0);
    snapfile_close(file);
}

static void a_base_with_other_memory_is_refused(void **state)
{
    const struct snapfile_region regions[] = {{0, LOW}};
    struct snapfile_written written;
    struct snapfile_writer *writer;
    struct error err;

    (void)state;
    assert_int_equal(snapfile_create("other", false, regions, 1, &writer, &err), 0);
    assert_int_equal(snapfile_publish(writer, &written, &err), 0);
    assert_int_equal(migration_save(bench.migration,
                                    &(struct migration_save){.path = "x", .base = "other"}, &err),
                     -EINVAL);
    assert_string_equal(err.msg, "other: is of a machine with other memory");
    assert_int_equal(access("x", F_OK), -1);
}

static void a_damaged_base_is_not_compared_with(void **state)
{
    struct error err;

    (void)state;
    save_on("base", NULL, false, MIGRATION_ALL);
    FILE *file = fopen("base", "r+e");
    assert_non_null(file);
    assert_int_equal(fseek(file, 4 * MIB, SEEK_SET), 0);
    assert_int_equal(fputc(0x55, file), 0x55);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(migration_save(bench.migration,
                                    &(struct migration_save){.path = "x", .base = "base"}, &err),
                     0);
    assert_int_equal(loop_run(bench.loop, &err), 0);
    assert_string_equal(bench.report.error.msg, "base: RAM at 0x200000: checksum does not match");
    assert_int_equal(access("x", F_OK), -1);
}

static void what_gets_the_name_may_be_an_archive(void **state)
{
    struct snapfile *file;
    struct error err;
    uint64_t bytes;

    (void)state;
    save_on("base", NULL, false, MIGRATION_ALL);
    if (migration_save(bench.migration, &(struct migration_save){.path = "a", .compress = true},
                       &err) < 0)
        fail_msg("%s", err.msg);
    assert_int_equal(loop_run(bench.loop, &err), 0);
    if (bench.report.error.code == ENOTSUP)
        skip();
    assert_int_equal(bench.report.error.code, 0);
    assert_int_equal(snapfile_open("a", &file, &err), -EPROTO);
    assert_non_null(strstr(err.msg, "an archive: 'vmrun snapshot unpack' makes a snapshot of it"));
    assert_int_equal(snapfile_unpack("a", "file", false, NULL, NULL, &bytes, &err), 0);
    expect_saved("file");
    assert_true(bench.report.file_bytes < bytes / 4);

    change_some(&bench.machine);
    run_save(&(struct migration_save){.path = "b", .base = "file", .compress = true});
    assert_int_equal(snapfile_unpack("b", "next", false, NULL, NULL, &bytes, &err), 0);
    expect_saved("next");
    assert_true(bench.packing > 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(all_is_compared_with_a_base_of_which_nothing_else_is_known),
        TEST(a_page_that_was_given_back_is_zero_in_the_file_too),
        TEST(what_a_guest_writes_meanwhile_is_in_the_file),
        TEST(a_log_that_was_kept_on_says_what_changed),
        TEST(a_log_since_another_file_says_nothing),
        TEST(a_save_that_fails_ends_the_tracking_and_costs_no_page),
        TEST(one_that_cannot_begin_does_not),
        TEST(linux_says_what_changed_of_ram_that_is_mapped),
        TEST(pages_that_were_given_back_are_zero_on_a_base_that_ram_is_mapped_from),
        TEST(a_base_with_other_memory_is_refused),
        TEST(a_damaged_base_is_not_compared_with),
        TEST(what_gets_the_name_may_be_an_archive),
    };
    return cmocka_run_group_tests_name("save_base", tests, NULL, NULL);
}
