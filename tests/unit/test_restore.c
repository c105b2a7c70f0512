/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A machine out of a file, before a machine that is a fake: RAM that is really mapped or read, and
 * a crash that is only noted.
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
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../src/migration/restore_map.h"
#include "folder.h"
#include "vmrun/iothread.h"
#include "vmrun/memory.h"
#include "vmrun/migration.h"
#include "vmrun/snapfile.h"
#include "vmrun/working_set.h"

#define MIB (UINT64_C(1) << 20)
#define SIZE (6 * MIB)
#define FILE_RAM (2 * MIB) /* where RAM begins in a file */

struct machine {
    struct guest_memory *memory;
    uint64_t size; /* the machine that the description describes */
    bool crashed, told_restored, destroyed;
    char report[256];
    char state[16], cpuid[16], console[16];
    uint64_t saved_ns, advance_ns;
    enum machine_end end;
};

static struct bench {
    struct machine machine;
    struct loop *loop;
    struct snapfile *file;
    struct restore *restore;
    const char *working_set; /* WORKING_SET_RUN_BYTES for the file, or NULL */
    unsigned record_seconds;
} bench;

/* The machine */

int machine_create_from(const struct vm_config *config, struct loop *loop,
                        const struct machine_image *image, struct machine **ret_machine,
                        struct error *err)
{
    struct machine *m = &bench.machine;
    const struct memory_layout layout = {
        .size = m->size, .hole_start = 4 * MIB, .hole_end = 4096 * MIB};

    (void)config, (void)loop;
    memcpy(m->cpuid, image->cpuid, image->cpuid_len);
    assert_int_equal(guest_memory_create(&layout, &m->memory, err), 0);
    for (unsigned i = 0; image->ram_fd >= 0 && i < m->memory->count; i++)
        assert_int_equal(
            guest_memory_map_file(m->memory, i, image->ram_fd, image->ram_offset[i], err), 0);
    *ret_machine = m;
    return 0;
}

void machine_destroy(struct machine *m)
{
    if (!m)
        return;
    guest_memory_destroy(m->memory);
    m->memory = NULL;
    m->destroyed = true;
}

struct guest_memory *machine_memory(struct machine *m)
{
    return m->memory;
}

int machine_load_state(struct machine *m, const void *state, size_t len,
                       machine_advance_fn *advance, void *opaque, struct error *err)
{
    memcpy(m->state, state, len);
    m->advance_ns = advance(opaque, m->saved_ns);
    return strcmp(m->state, "bad") == 0 ? error_set(err, EPROTO, "vcpu0: no") : 0;
}

int machine_tell_restored(struct machine *m, struct error *err)
{
    (void)err;
    m->told_restored = true;
    return 0;
}

enum machine_end machine_end(const struct machine *m, int *ret_status)
{
    *ret_status = 0;
    return m->end;
}

bool machine_load_extra(struct machine *m, const char *name, const void *data, size_t len)
{
    assert_false(m->told_restored);
    assert_true(strcmp(name, "machine") && strcmp(name, "state")); /* those are needed */
    if (strcmp(name, "console") != 0)
        return false;
    assert_in_range(len, 1, sizeof(m->console));
    memcpy(m->console, data, len);
    return true;
}

void machine_crash(struct machine *m, const char *report)
{
    m->crashed = true;
    snprintf(m->report, sizeof(m->report), "%s", report);
    loop_stop(bench.loop);
}

/* The bench */

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* In a file that builds on another; in that other one these pages are all 0xee. */
static bool is_young(uint64_t at)
{
    uint64_t page = at / GUEST_PAGE_SIZE;

    return page % 7 == 3 || (page >= 600 && page < 700) || (page >= 1020 && page < 1030);
}

enum which { OF_ALL, OF_OLD, OF_YOUNG };

/* A byte of each page tells which it is; the last MiB is zero. */
static void put_all(struct snapfile_writer *writer, enum which which, const char *state)
{
    uint8_t page[GUEST_PAGE_SIZE] = {0};
    struct snapfile_written written;
    struct error err;

    for (uint64_t at = 0; at < 5 * MIB; at += sizeof(page)) {
        bool hidden = which == OF_OLD && is_young(at);

        memset(page, hidden ? 0xee : (int)(at / sizeof(page) % 255 + 1), sizeof(page));
        if (which == OF_YOUNG && !is_young(at))
            continue;
        assert_int_equal(snapfile_put_pages(writer, at < 4 * MIB ? 0 : 1, at % (4 * MIB), page,
                                            sizeof(page), &err),
                         0);
    }
    assert_int_equal(snapfile_put_section(writer, "cpuid", true, "cpuid", 6, &err), 0);
    if (bench.working_set)
        assert_int_equal(snapfile_put_section(writer, WORKING_SET_SECTION, false, bench.working_set,
                                              WORKING_SET_RUN_BYTES, &err),
                         0);
    if (state)
        assert_int_equal(
            snapfile_put_section(writer, "state", true, state, strlen(state) + 1, &err), 0);
    assert_int_equal(snapfile_put_section(writer, "console", false, "login: ", 8, &err), 0);
    assert_int_equal(snapfile_put_section(writer, "console.hvc7", false, "later", 6, &err), 0);
    assert_int_equal(snapfile_publish(writer, &written, &err), 0);
}

static const struct snapfile_region regions[] = {{0, 4 * MIB}, {4096 * MIB, 2 * MIB}};

static void write_file(const char *state)
{
    struct snapfile_writer *writer;
    struct error err;

    assert_int_equal(snapfile_create("file", true, regions, 2, &writer, &err), 0);
    put_all(writer, OF_ALL, state);
}

/* The same as two files. */
static void write_chain(void)
{
    struct snapfile_writer *writer;
    struct snapfile *old;
    struct error err;

    assert_int_equal(snapfile_create("old", true, regions, 2, &writer, &err), 0);
    put_all(writer, OF_OLD, "old");
    assert_int_equal(snapfile_open("old", &old, &err), 0);
    assert_int_equal(snapfile_create_on("file", true, old, &writer, &err), 0);
    snapfile_close(old);
    put_all(writer, OF_YOUNG, "good");
}

static int setup(void **state)
{
    struct error err;

    bench = (struct bench){.machine.size = SIZE};
    *state = &bench;
    write_file("good");
    return loop_create(&bench.loop, &err);
}

static int teardown(void **state)
{
    (void)state;
    restore_destroy(bench.restore);
    machine_destroy(bench.machine.memory ? &bench.machine : NULL);
    snapfile_close(bench.file);
    loop_destroy(bench.loop);
    return 0;
}

static int restore(enum restore_mode mode, bool freeze, struct error *err)
{
    const struct restore_params params = {.mode = mode,
                                          .freeze = freeze,
                                          .record_seconds = bench.record_seconds,
                                          .record_path = "file"};
    struct machine *machine;

    assert_int_equal(snapfile_open("file", &bench.file, err), 0);
    bench.machine.saved_ns = now_ns() - 5000000000u;
    return restore_machine(&params, bench.file, NULL, bench.loop, &bench.restore, &machine, err);
}

static void must_restore(enum restore_mode mode, bool freeze)
{
    struct error err;

    if (restore(mode, freeze, &err) < 0)
        fail_msg("%s", err.msg);
}

static void flip_in(const char *path, uint64_t offset)
{
    int fd;
    uint8_t byte;

    assert_int_equal(chmod(path, 0600), 0);
    fd = open(path, O_RDWR);
    assert_int_equal(pread(fd, &byte, 1, (off_t)offset), 1);
    byte ^= 0x40;
    assert_int_equal(pwrite(fd, &byte, 1, (off_t)offset), 1);
    close(fd);
}

static void flip(uint64_t offset)
{
    flip_in("file", offset);
}

static void expect_ram(void)
{
    for (uint64_t at = 0; at < SIZE; at += GUEST_PAGE_SIZE) {
        const uint8_t *page = guest_memory_at(
            bench.machine.memory, at < 4 * MIB ? at : at - 4 * MIB + 4096 * MIB, GUEST_PAGE_SIZE);
        uint8_t expected = at < 5 * MIB ? (uint8_t)(at / GUEST_PAGE_SIZE % 255 + 1) : 0;

        if (page[0] != expected || page[GUEST_PAGE_SIZE - 1] != expected)
            fail_msg("page at %llx: %u", (unsigned long long)at, page[0]);
    }
}

/* Until the machine crashes. */
static void run_on(const char *words)
{
    struct error err;

    assert_int_equal(loop_run(bench.loop, &err), 0);
    assert_true(bench.machine.crashed);
    if (!strstr(bench.machine.report, words))
        fail_msg("expected \"%s\" in: %s", words, bench.machine.report);
}

/* Tests */

static void ram_and_state_come_from_the_file(void **state)
{
    static const enum restore_mode modes[] = {RESTORE_LAZY, RESTORE_PREFETCH, RESTORE_EAGER};

    for (unsigned i = 0; i < 3; i++) {
        if (i > 0) {
            teardown(state);
            setup(state);
        }
        bench.working_set = "\2\0\0\0\1\0\0\x80";
        write_file("good");
        must_restore(modes[i], false);
        assert_string_equal(bench.machine.state, "good");
        assert_string_equal(bench.machine.cpuid, "cpuid");
        assert_true(bench.machine.told_restored);
        assert_string_equal(bench.machine.console, "login: ");
        expect_ram();
    }
}

static void what_a_guest_writes_stays_its_own(void **state)
{
    uint8_t byte;
    int fd = open("file", O_RDONLY);

    (void)state;
    must_restore(RESTORE_LAZY, false);
    memset(guest_memory_at(bench.machine.memory, 0, MIB), 0xee, MIB);
    assert_int_equal(pread(fd, &byte, 1, FILE_RAM), 1);
    assert_int_equal(byte, 1);
    close(fd);
}

static void the_time_between_passes_or_does_not(void **state)
{
    must_restore(RESTORE_LAZY, false);
    assert_in_range(bench.machine.advance_ns, 5000000000u, 60000000000u);
    teardown(state);
    setup(state);
    must_restore(RESTORE_LAZY, true);
    assert_int_equal(bench.machine.advance_ns, 0);
}

static void a_flipped_byte_of_ram_is_refused_by_eager(void **state)
{
    struct error err;

    (void)state;
    flip(FILE_RAM + 3 * MIB);
    assert_int_equal(restore(RESTORE_EAGER, false, &err), -EPROTO);
    assert_non_null(strstr(err.msg, "RAM at 0x200000: checksum does not match"));
    assert_true(bench.machine.destroyed);
    assert_string_equal(bench.machine.state, "");
}

static void and_ends_a_machine_that_runs_lazily(void **state)
{
    (void)state;
    flip(FILE_RAM + 4 * MIB + 5);
    must_restore(RESTORE_LAZY, false);
    run_on("RAM at 0x100000000: checksum does not match");
}

static void a_file_without_a_working_set_is_not_prefetched(void **state)
{
    struct error err;

    (void)state;
    assert_int_equal(restore(RESTORE_PREFETCH, false, &err), -ENOENT);
    assert_non_null(strstr(err.msg, "'vmrun restore --record' does that"));
    assert_null(bench.machine.memory); /* none was built */
}

static void a_working_set_that_makes_no_sense_is_refused_by_prefetch_alone(void **state)
{
    struct error err;

    bench.working_set = "\xff\xff\xff\xff\1\0\0\0";
    write_file("good");
    assert_int_equal(restore(RESTORE_PREFETCH, false, &err), -EPROTO);
    assert_string_equal(err.msg, "section 'working': run 0 is not in RAM");
    snapfile_close(bench.file);
    must_restore(RESTORE_LAZY, false);
    expect_ram();
    (void)state;
}

static void a_flipped_byte_ends_a_machine_that_prefetched_it(void **state)
{
    (void)state;
    bench.working_set = "\2\0\0\0\1\0\0\x80";
    write_file("good");
    flip(FILE_RAM + 2 * GUEST_PAGE_SIZE);
    must_restore(RESTORE_PREFETCH, false);
    run_on("RAM at 0x0: checksum does not match");
}

/* Returns the pages that were recorded, 0: none. */
static uint64_t record_until(enum machine_end end)
{
    struct snapfile *file;
    struct working_set set = {0};
    struct error err;

    bench.record_seconds = 3600;
    must_restore(RESTORE_LAZY, false);
    expect_ram();
    bench.machine.end = end;
    restore_destroy(bench.restore);
    bench.restore = NULL;
    assert_int_equal(snapfile_open("file", &file, &err), 0);
    (void)working_set_find(file, &set, &err);
    snapfile_close(file);
    return set.pages;
}

static void a_recording_is_kept_when_the_guest_ends_by_itself(void **state)
{
    static const enum machine_end by_itself[] = {MACHINE_END_POWEROFF, MACHINE_END_EXIT};
    static const enum machine_end not [] = {MACHINE_END_KILLED, MACHINE_END_CRASH,
                                            MACHINE_END_NONE};

    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(record_until(not [i]), 0);
        teardown(state);
        setup(state);
    }
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(record_until(by_itself[i]), SIZE / GUEST_PAGE_SIZE);
        teardown(state);
        setup(state);
    }
}

static void touch_last_page(void *opaque)
{
    uint8_t *last = guest_memory_at(bench.machine.memory, 4 * MIB - GUEST_PAGE_SIZE, 1);

    *(uint8_t *)opaque = *last;
    last[1] = 7;
}

static void a_file_that_is_cut_ends_the_machine_and_no_thread(void **state)
{
    uint8_t seen = 0xff;
    struct iothread *thread;
    struct error err;

    (void)state;
    must_restore(RESTORE_LAZY, false);
    assert_false(restore_file_was_cut(bench.restore));
    assert_int_equal(truncate("file", FILE_RAM), 0);
    assert_true(restore_file_was_cut(bench.restore));
    assert_int_equal(iothread_create("disk", &thread, &err), 0);
    iothread_call(thread, touch_last_page, &seen);
    assert_int_equal(seen, 0);
    iothread_destroy(thread);
    run_on("the snapshot was cut off: "); /* whoever told it, who verifies or who touched it */
}

static void ram_of_a_chain_is_that_of_the_youngest_file(void **state)
{
    static const enum restore_mode modes[] = {RESTORE_LAZY, RESTORE_EAGER};

    for (unsigned i = 0; i < 2; i++) {
        if (i > 0) {
            teardown(state);
            setup(state);
        }
        write_chain();
        must_restore(modes[i], false);
        assert_string_equal(bench.machine.state, "good");
        expect_ram();
    }
}

/* 180 runs, of 1, 10 and 102 pages. */
static void what_would_be_too_many_mappings_is_read(void **state)
{
    static const unsigned most[] = {0, 1, 2, 179, 1000};
    const struct memory_layout layout = {
        .size = SIZE, .hole_start = 4 * MIB, .hole_end = 4096 * MIB};
    struct error err;

    (void)state;
    write_chain();
    assert_int_equal(snapfile_open("file", &bench.file, &err), 0);
    for (size_t n = 0; n < sizeof(most) / sizeof(most[0]); n++) {
        const struct snapfile *old = restore_oldest(bench.file);
        struct guest_memory *mem;

        assert_int_equal(guest_memory_create(&layout, &mem, &err), 0);
        for (unsigned i = 0; i < 2; i++)
            assert_int_equal(
                guest_memory_map_file(mem, i, snapfile_fd(old), snapfile_ram_offset(old, i), &err),
                0);
        assert_int_equal(restore_map_younger(mem, bench.file, most[n], &err), 0);
        bench.machine.memory = mem;
        expect_ram();
        bench.machine.memory = NULL;
        guest_memory_destroy(mem);
    }
}

static void damage_in_an_older_file_ends_the_machine_too(void **state)
{
    struct error err;

    write_chain();
    flip_in("old", FILE_RAM + 4 * MIB + 5);
    must_restore(RESTORE_LAZY, false);
    run_on("old: RAM at 0x100000000: checksum does not match");
    teardown(state);
    setup(state);
    write_chain();
    flip_in("old", FILE_RAM + 4 * MIB + 5);
    assert_int_equal(restore(RESTORE_EAGER, false, &err), -EPROTO);
    assert_string_equal(err.msg, "old: RAM at 0x100000000: checksum does not match");
}

static void an_older_file_that_is_cut_ends_the_machine(void **state)
{
    (void)state;
    write_chain();
    must_restore(RESTORE_LAZY, false);
    assert_false(restore_file_was_cut(bench.restore));
    assert_int_equal(truncate("old", FILE_RAM), 0);
    assert_true(restore_file_was_cut(bench.restore));
    run_on("the snapshot was cut off: ");
}

static void a_file_alone_that_builds_on_another_is_refused(void **state)
{
    const struct restore_params params = {.mode = RESTORE_LAZY};
    struct machine *machine;
    struct error err;

    (void)state;
    write_chain();
    assert_int_equal(snapfile_open_alone("file", &bench.file, &err), 0);
    assert_int_equal(
        restore_machine(&params, bench.file, NULL, bench.loop, &bench.restore, &machine, &err),
        -EPROTO);
    assert_string_equal(err.msg, "file: without the file that it builds on, old");
}

static void a_state_that_does_not_load_leaves_nothing(void **state)
{
    struct error err;

    (void)state;
    write_file("bad");
    assert_int_equal(restore(RESTORE_LAZY, false, &err), -EPROTO);
    assert_string_equal(err.msg, "vcpu0: no");
    assert_true(bench.machine.destroyed);
    assert_false(bench.machine.told_restored);
}

static void a_file_without_state_is_refused(void **state)
{
    struct error err;

    (void)state;
    write_file(NULL);
    assert_int_equal(restore(RESTORE_LAZY, false, &err), -EPROTO);
    assert_string_equal(err.msg, "section 'state': missing");
}

static void memory_that_is_not_the_machine_s_is_refused(void **state)
{
    struct error err;

    (void)state;
    bench.machine.size = SIZE - 2 * MIB;
    assert_int_equal(restore(RESTORE_LAZY, false, &err), -EPROTO);
    assert_non_null(strstr(err.msg, "not the memory of the machine"));
    assert_string_equal(bench.machine.state, "");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(ram_and_state_come_from_the_file),
        TEST(what_a_guest_writes_stays_its_own),
        TEST(the_time_between_passes_or_does_not),
        TEST(a_flipped_byte_of_ram_is_refused_by_eager),
        TEST(and_ends_a_machine_that_runs_lazily),
        TEST(a_file_without_a_working_set_is_not_prefetched),
        TEST(a_working_set_that_makes_no_sense_is_refused_by_prefetch_alone),
        TEST(a_flipped_byte_ends_a_machine_that_prefetched_it),
        TEST(a_recording_is_kept_when_the_guest_ends_by_itself),
        TEST(a_file_that_is_cut_ends_the_machine_and_no_thread),
        TEST(ram_of_a_chain_is_that_of_the_youngest_file),
        TEST(what_would_be_too_many_mappings_is_read),
        TEST(damage_in_an_older_file_ends_the_machine_too),
        TEST(an_older_file_that_is_cut_ends_the_machine),
        TEST(a_file_alone_that_builds_on_another_is_refused),
        TEST(a_state_that_does_not_load_leaves_nothing),
        TEST(a_file_without_state_is_refused),
        TEST(memory_that_is_not_the_machine_s_is_refused),
    };
    return cmocka_run_group_tests_name("restore", tests, folder_enter, folder_leave);
}
