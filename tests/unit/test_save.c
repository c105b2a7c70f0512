/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine that saves, before a machine that is a fake: its guest writes whenever the log is
 * read, and once more when it is let go, so that what the file holds can be told from what it
 * must not hold.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "fake_guest.h"
#include "folder.h"
#include "vmrun/migration.h"
#include "vmrun/snapfile.h"

#define MIB (UINT64_C(1) << 20)
#define LOW (8 * MIB)
#define SIZE (11 * MIB) /* the upper region's chunks do not fill it */
#define HOLE_END (UINT64_C(4) << 30)
#define PAGES (SIZE / GUEST_PAGE_SIZE)

struct machine {
    struct fake_guest guest;
    enum machine_state state;
    bool held, killed, synced;
    unsigned harvests, resumes;
    /* How many pages the guest writes before the log is read for the nth time, from 1. */
    unsigned (*writes)(struct machine *m, unsigned n);
    unsigned writes_at_hold;
    int state_fails;
    bool unseen; /* nobody is to sum it up */
    bool cannot_be_held;
    uint64_t held_sum; /* of all RAM, when it was held */
};

/* One test's world. */
static struct bench {
    struct machine machine;
    struct loop *loop;
    struct migration *migration;
    struct migration_report report;
    unsigned ended, progress;
    _Atomic bool cancelled;
} bench;

static uint64_t sum_of(const struct guest_memory *mem)
{
    uint64_t sum = 14695981039346656037u;

    for (unsigned i = 0; i < mem->count; i++)
        for (uint64_t at = 0; at < mem->regions[i].size; at += 8) {
            uint64_t word;

            memcpy(&word, mem->regions[i].host + at, 8);
            sum = (sum ^ word) * 1099511628211u;
        }
    return sum;
}

/* The machine */

int machine_refuse(const struct machine *m, const char *verb, struct error *err)
{
    return error_set(err, EBUSY, "cannot %s: state %d", verb, (int)m->state);
}

enum machine_state machine_state(const struct machine *m)
{
    return m->state;
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
    if (region == 0 && !m->held && m->writes)
        fake_guest_write_many(&m->guest, m->writes(m, ++m->harvests));
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

int machine_hold(struct machine *m, struct error *err)
{
    if (m->state == MACHINE_ENDED)
        return error_set(err, EBUSY, "the machine has ended");
    if (m->cannot_be_held)
        return error_set(err, ETIMEDOUT, "disk root: 1 request in flight");
    if (m->state == MACHINE_RUNNING)
        fake_guest_write_many(&m->guest, m->writes_at_hold);
    m->held = true;
    m->held_sum = m->unseen ? 0 : sum_of(m->guest.memory);
    return 0;
}

void machine_release(struct machine *m)
{
    if (m->held && m->state == MACHINE_RUNNING)
        fake_guest_write_many(&m->guest, PAGES); /* nothing of this may be in the file */
    m->held = false;
}

int machine_pause(struct machine *m, struct error *err)
{
    (void)err;
    m->state = MACHINE_PAUSED;
    return 0;
}

int machine_resume(struct machine *m, struct error *err)
{
    if (m->held)
        return error_set(err, EBUSY, "held");
    m->state = MACHINE_RUNNING;
    m->resumes++;
    return 0;
}

void machine_kill(struct machine *m)
{
    m->killed = true;
    m->state = MACHINE_ENDED;
    loop_stop(bench.loop);
}

int machine_save_state(struct machine *m, struct writer *w, struct error *err)
{
    assert_true(m->held);
    put_bytes(w, "state", 5);
    /* What is written by saving belongs to it. */
    fake_guest_write(&m->guest, 7);
    m->held_sum = m->unseen ? 0 : sum_of(m->guest.memory);
    return m->state_fails ? error_set(err, m->state_fails, "vcpu0 does not say") : 0;
}

/* A console with a byte that no text has, and one without a word. */
bool machine_save_extra(struct machine *m, unsigned index, const char **ret_name, uint64_t *from,
                        struct writer *w)
{
    assert_true(m->held);
    assert_in_range(index, 0, MACHINE_MAX_EXTRAS - 1);
    assert_true(*from == 0);
    *ret_name = index == 0 ? "console" : "console.hvc0";
    if (index == 0)
        put_bytes(w, "boot\0\n", 6);
    return true;
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
    (void)err;
    assert_true(m->held);
    m->synced = true;
    return 0;
}

/* The bench */

static void take_progress(void *opaque, const struct migration_progress *progress)
{
    (void)opaque;
    assert_true(progress->done_bytes <= progress->round_bytes);
    bench.progress++;
}

static void take_end(void *opaque, const struct migration_report *report)
{
    (void)opaque;
    assert_false(bench.machine.held);
    assert_false(bench.machine.guest.logging);
    bench.report = *report;
    bench.ended++;
    if (report->error.code || bench.machine.state != MACHINE_PAUSED)
        loop_stop(bench.loop);
}

static const struct migration_listener listener = {take_progress, take_end};

static int setup(void **state)
{
    struct error err;

    bench = (struct bench){.machine.state = MACHINE_RUNNING};
    *state = &bench;
    fake_guest_create(&bench.machine.guest, SIZE, LOW);
    if (loop_create(&bench.loop, &err) < 0 ||
        migration_create(&bench.machine, bench.loop, &bench.migration, &err) < 0)
        return -1;
    fake_guest_write_many(&bench.machine.guest, PAGES / 2);
    migration_set_listener(bench.migration, &listener, NULL);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    migration_destroy(bench.migration);
    loop_destroy(bench.loop);
    fake_guest_destroy(&bench.machine.guest);
    unlink("file");
    return 0;
}

static void save(bool stop)
{
    const struct migration_save params = {.path = "file", .stop = stop};
    struct error err;

    if (migration_save(bench.migration, &params, &err) < 0)
        fail_msg("%s", err.msg);
    assert_int_equal(loop_run(bench.loop, &err), 0);
    assert_int_equal(bench.ended, 1);
}

/* Written anew from the file; what it sums up to. */
static uint64_t sum_of_file(void)
{
    const struct memory_layout layout = {.size = SIZE, .hole_start = LOW, .hole_end = HOLE_END};
    struct guest_memory *memory;
    struct snapfile *file;
    struct error err;
    size_t len;

    assert_int_equal(guest_memory_create(&layout, &memory, &err), 0);
    assert_int_equal(snapfile_open("file", &file, &err), 0);
    for (uint64_t chunk = 0; chunk < snapfile_chunks(file); chunk++) {
        uint64_t gpa, bytes;

        snapfile_chunk_range(file, chunk, &gpa, &bytes);
        assert_int_equal(
            snapfile_verify_chunk(file, chunk, guest_memory_at(memory, gpa, bytes), &err), 0);
    }
    assert_memory_equal(snapfile_section(file, "state", &len), "state", 5);
    assert_memory_equal(snapfile_section(file, "cpuid", &len), "cpuid", 5);
    assert_memory_equal(snapfile_section(file, "machine", &len), "{}", 2);
    assert_memory_equal(snapfile_section(file, "console", &len), "boot\0\n", 6);
    assert_int_equal(len, 6);
    assert_null(snapfile_section(file, "console.hvc0", &len));
    uint64_t sum = sum_of(memory);
    guest_memory_destroy(memory);
    snapfile_close(file);
    return sum;
}

static void expect_saved(void)
{
    if (bench.report.error.code)
        fail_msg("%s", bench.report.error.msg);
    assert_true(sum_of_file() == bench.machine.held_sum);
}

static void expect_no_file(int code)
{
    assert_int_equal(bench.report.error.code, code);
    assert_int_equal(access("file", F_OK), -1);
    assert_false(bench.machine.held);
    assert_false(bench.machine.guest.logging);
}

/* Tests */

static void a_quiet_guest_is_saved_in_one_round(void **state)
{
    (void)state;
    save(false);
    expect_saved();
    assert_int_equal(bench.report.rounds, 1);
    assert_int_equal(bench.machine.state, MACHINE_RUNNING);
    assert_true(bench.report.pause_ns > 0);
    assert_int_equal(bench.report.pause_bytes, GUEST_PAGE_SIZE); /* of the saving itself */
    assert_int_equal(bench.report.written_bytes, (PAGES / 2 + 1) * GUEST_PAGE_SIZE);
}

static unsigned a_thousand(struct machine *m, unsigned n)
{
    (void)m, (void)n;
    return 1000;
}

static void a_page_that_was_never_touched_stays_so(void **state)
{
    uint8_t *last = fake_guest_page(&bench.machine.guest, PAGES - 1);
    uint64_t entry;
    int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

    (void)state;
    bench.machine.unseen = true;
    save(false);
    assert_int_equal(bench.report.error.code, 0);
    assert_int_equal(pread(fd, &entry, sizeof(entry), (off_t)((uintptr_t)last / 4096 * 8)), 8);
    close(fd);
    assert_int_equal(entry >> 62, 0);
}

/* It becomes zero by losing its memory, as in a guest that restarts: the file has the old one. */
static unsigned give_back(struct machine *m, unsigned n)
{
    if (n != 1)
        return 0;
    fake_guest_write(&m->guest, 300);
    assert_int_equal(madvise(fake_guest_page(&m->guest, 300), GUEST_PAGE_SIZE, MADV_DONTNEED), 0);
    return 100; /* from page 0 on, so that there is another round */
}

static void a_page_that_was_given_back_is_zero_in_the_file(void **state)
{
    (void)state;
    bench.machine.writes = give_back;
    save(false);
    expect_saved();
    assert_true(bench.report.rounds > 1);
}

/* Nobody wrote to it, so that the log has nothing; the device marked it. */
static unsigned inflate(struct machine *m, unsigned n)
{
    if (n != 1)
        return 0;
    assert_int_equal(
        guest_memory_give_back(m->guest.memory, 300 * GUEST_PAGE_SIZE, GUEST_PAGE_SIZE),
        GUEST_PAGE_SIZE);
    return 100;
}

static void a_page_that_went_into_the_balloon_meanwhile_is_zero_in_the_file(void **state)
{
    (void)state;
    fake_guest_write(&bench.machine.guest, 300);
    bench.machine.writes = inflate;
    save(false);
    expect_saved();
    assert_true(bench.report.rounds > 1);
}

static void rounds_end_when_they_no_longer_shrink(void **state)
{
    (void)state;
    bench.machine.writes = a_thousand;
    save(false);
    expect_saved();
    assert_int_equal(bench.report.rounds, 4); /* all; then three with as many as before */
    assert_in_range(bench.report.pause_bytes / GUEST_PAGE_SIZE, 1000, 1001);
}

static unsigned a_fifth_less(struct machine *m, unsigned n)
{
    unsigned pages = 2000;

    (void)m;
    while (--n > 0)
        pages = pages * 4 / 5;
    return pages;
}

static void rounds_go_on_as_long_as_they_shrink(void **state)
{
    (void)state;
    bench.machine.writes = a_fifth_less;
    save(false);
    expect_saved();
    /* 2000 1600 1280 1024 … in each look at the log, of which a round takes two. */
    assert_int_equal(bench.report.rounds, 10);
    assert_in_range(bench.report.pause_bytes / GUEST_PAGE_SIZE, 1, 64);
    /* What is written every time is not copied every time. */
    assert_in_range(bench.report.written_bytes / GUEST_PAGE_SIZE, PAGES + 2000, PAGES + 4000);
}

static unsigned more_and_less(struct machine *m, unsigned n)
{
    (void)m;
    return n % 2 ? 1000 : 700;
}

static void the_stop_does_not_come_at_a_peak(void **state)
{
    (void)state;
    bench.machine.writes = more_and_less;
    save(false);
    expect_saved();
    assert_in_range(bench.report.pause_bytes / GUEST_PAGE_SIZE, 700, 1001);
    assert_in_range(bench.report.rounds, 4, 12);
}

static void what_is_written_after_the_stop_is_not_in_the_file(void **state)
{
    (void)state;
    bench.machine.writes_at_hold = 100; /* staged, and the guest runs on while they are written */
    save(false);
    expect_saved();
    assert_true(sum_of(bench.machine.guest.memory) != bench.machine.held_sum);
}

static void more_last_pages_than_there_is_room_for_are_written_while_it_stands_still(void **state)
{
    (void)state;
    bench.machine.writes_at_hold = 1800;
    save(false);
    expect_saved();
    assert_in_range(bench.report.pause_bytes / GUEST_PAGE_SIZE, 1800, 1801);
    assert_true(sum_of(bench.machine.guest.memory) != bench.machine.held_sum); /* it was let go */
    assert_int_equal(bench.machine.state, MACHINE_RUNNING);
}

static void a_machine_that_is_to_stop_is_paused_synced_and_ended(void **state)
{
    (void)state;
    bench.machine.writes_at_hold = 1800;
    save(true);
    expect_saved();
    assert_true(bench.machine.synced);
    assert_true(bench.machine.killed);
    assert_int_equal(bench.machine.resumes, 0);
    assert_true(sum_of(bench.machine.guest.memory) == bench.machine.held_sum); /* it ran no more */
}

static void a_paused_machine_stays_paused(void **state)
{
    const struct migration_save params = {.path = "file"};
    struct error err;

    (void)state;
    bench.machine.state = MACHINE_PAUSED;
    assert_int_equal(migration_save(bench.migration, &params, &err), 0);
    migration_destroy(bench.migration); /* or it ends before: both are fine */
    bench.migration = NULL;
    assert_int_equal(bench.ended, 1);
    assert_int_equal(bench.machine.state, MACHINE_PAUSED);
    assert_int_equal(bench.machine.resumes, 0);
}

static void a_state_that_cannot_be_taken_leaves_all_as_it_was(void **state)
{
    (void)state;
    bench.machine.state_fails = EIO;
    save(false);
    expect_no_file(EIO);
    assert_string_equal(bench.report.error.msg, "vcpu0 does not say");
    assert_int_equal(bench.machine.state, MACHINE_RUNNING);
    assert_false(bench.machine.killed);
}

static void a_machine_that_cannot_be_held_runs_on_and_there_is_no_file(void **state)
{
    (void)state;
    bench.machine.cannot_be_held = true;
    save(true);
    expect_no_file(ETIMEDOUT);
    assert_string_equal(bench.report.error.msg, "disk root: 1 request in flight");
    assert_int_equal(bench.machine.state, MACHINE_RUNNING);
    assert_int_equal(bench.machine.resumes, 0);
    assert_false(bench.machine.killed);
}

static void a_machine_that_was_paused_to_be_saved_runs_on_when_that_fails(void **state)
{
    (void)state;
    bench.machine.state_fails = EIO;
    save(true);
    expect_no_file(EIO);
    assert_int_equal(bench.machine.state, MACHINE_RUNNING);
    assert_int_equal(bench.machine.resumes, 1);
    assert_false(bench.machine.killed);
}

static void cancel(void *opaque)
{
    struct error err;

    (void)opaque;
    assert_int_equal(migration_cancel(bench.migration, &err), 0);
    bench.cancelled = true;
}

/* On the job's thread, between two rounds. */
static unsigned until_it_is_cancelled(struct machine *m, unsigned n)
{
    (void)m;
    if (n == 2)
        assert_int_equal(loop_post(bench.loop, cancel, NULL), 0);
    while (n == 2 && !bench.cancelled)
        sched_yield();
    return 1000;
}

static void a_cancelled_save_leaves_no_file_and_the_machine_running(void **state)
{
    (void)state;
    bench.machine.writes = until_it_is_cancelled;
    save(true);
    expect_no_file(ECANCELED);
    assert_string_equal(bench.report.error.msg, "cancelled");
    assert_int_equal(bench.machine.state, MACHINE_RUNNING);
    assert_int_equal(bench.report.rounds, 3);
}

static void an_engine_that_goes_takes_its_save_along(void **state)
{
    const struct migration_save params = {.path = "file"};
    struct error err;

    (void)state;
    bench.machine.writes = a_thousand;
    assert_int_equal(migration_save(bench.migration, &params, &err), 0);
    migration_destroy(bench.migration); /* it waits for the machine's thread, which is here */
    bench.migration = NULL;
    assert_int_equal(bench.ended, 1);
    expect_no_file(ECANCELED);
}

static void one_thing_at_a_time_and_only_of_a_live_machine(void **state)
{
    const struct migration_save params = {.path = "file"};
    struct error err;

    (void)state;
    assert_int_equal(migration_cancel(bench.migration, &err), -ENOENT);
    assert_int_equal(migration_save(bench.migration, &params, &err), 0);
    assert_int_equal(migration_save(bench.migration, &params, &err), -EBUSY);
    assert_int_equal(loop_run(bench.loop, &err), 0);
    expect_saved();
    assert_int_equal(migration_save(bench.migration, &params, &err), -EEXIST);
    bench.machine.state = MACHINE_ENDED;
    assert_int_equal(migration_save(bench.migration, &params, &err), -EBUSY);
    bench.machine.state = MACHINE_CREATED;
    assert_int_equal(migration_save(bench.migration, &params, &err), -EBUSY);
    assert_false(bench.machine.guest.logging);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_quiet_guest_is_saved_in_one_round),
        TEST(a_page_that_was_never_touched_stays_so),
        TEST(a_page_that_was_given_back_is_zero_in_the_file),
        TEST(a_page_that_went_into_the_balloon_meanwhile_is_zero_in_the_file),
        TEST(rounds_end_when_they_no_longer_shrink),
        TEST(rounds_go_on_as_long_as_they_shrink),
        TEST(the_stop_does_not_come_at_a_peak),
        TEST(what_is_written_after_the_stop_is_not_in_the_file),
        TEST(more_last_pages_than_there_is_room_for_are_written_while_it_stands_still),
        TEST(a_machine_that_is_to_stop_is_paused_synced_and_ended),
        TEST(a_paused_machine_stays_paused),
        TEST(a_state_that_cannot_be_taken_leaves_all_as_it_was),
        TEST(a_machine_that_cannot_be_held_runs_on_and_there_is_no_file),
        TEST(a_machine_that_was_paused_to_be_saved_runs_on_when_that_fails),
        TEST(a_cancelled_save_leaves_no_file_and_the_machine_running),
        TEST(an_engine_that_goes_takes_its_save_along),
        TEST(one_thing_at_a_time_and_only_of_a_live_machine),
    };
    return cmocka_run_group_tests_name("save", tests, folder_enter, folder_leave);
}
