/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rounds over the RAM of a machine that is a fake: what is copied by whom, what is deferred, and
 * when the stop comes.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../src/migration/rounds.h"

#define LOW_PAGES UINT64_C(4096)
#define HIGH_PAGES UINT64_C(550) /* of whole words and chunks no multiple */
#define MAX_PAGES LOW_PAGES

struct machine {
    struct guest_memory *memory;
    uint64_t log[2][MAX_PAGES / 64];
    uint64_t writes[2][MAX_PAGES / 64]; /* what the guest writes before each look at the log */
    bool cleared_late;                  /* a page was put before its log was cleared */
};

static struct bench {
    struct machine machine;
    struct rounds *rounds;
    struct rounds_round round;
    unsigned puts[2][MAX_PAGES];
    atomic_uint calls[ROUNDS_MAX_WORKERS];
    unsigned ticks, fails_at_tick;
    int failing_worker; /* -1: none */
} bench;

struct guest_memory *machine_memory(struct machine *m)
{
    return m->memory;
}

int machine_dirty_harvest(struct machine *m, unsigned region, uint64_t *bitmap, struct error *err)
{
    (void)err;
    for (size_t w = 0; w < guest_memory_bitmap_words(m->memory, region); w++) {
        m->log[region][w] |= m->writes[region][w];
        bitmap[w] |= m->log[region][w];
    }
    return 0;
}

int machine_dirty_clear(struct machine *m, unsigned region, uint64_t first_page, uint64_t pages,
                        const uint64_t *bitmap, struct error *err)
{
    (void)err;
    for (uint64_t w = 0; w < (pages + 63) / 64; w++)
        m->log[region][first_page / 64 + w] &= ~bitmap[w];
    return 0;
}

static int put(void *opaque, unsigned worker, const struct rounds_chunk *chunk, struct error *err)
{
    (void)opaque;
    atomic_fetch_add(&bench.calls[worker], 1);
    if ((int)worker == bench.failing_worker)
        return error_set(err, EIO, "worker %u: told to", worker);
    for (unsigned i = 0; i < chunk->pages; i++) {
        uint64_t page = chunk->first + i;

        if (!(chunk->bits[i / 64] >> i % 64 & 1))
            continue;
        bench.puts[chunk->region][page]++;
        if (bench.machine.log[chunk->region][page / 64] >> page % 64 & 1)
            bench.machine.cleared_late = true;
    }
    for (unsigned i = chunk->pages; i < ROUNDS_CHUNK_PAGES; i++)
        assert_false(chunk->bits[i / 64] >> i % 64 & 1);
    return 0;
}

static int tick(void *opaque, struct error *err)
{
    (void)opaque;
    return ++bench.ticks == bench.fails_at_tick ? error_set(err, ECANCELED, "cancelled") : 0;
}

static const struct rounds_sink sink = {.put = put, .tick = tick};
static const struct rounds_sink zero_sink = {.put = put, .tick = tick, .starts_zero = true};

static int setup(void **state)
{
    const struct memory_layout layout = {.size = (LOW_PAGES + HIGH_PAGES) * GUEST_PAGE_SIZE,
                                         .hole_start = LOW_PAGES * GUEST_PAGE_SIZE,
                                         .hole_end = UINT64_C(4) << 30};
    struct error err;

    (void)state;
    bench = (struct bench){.failing_worker = -1};
    return guest_memory_create(&layout, &bench.machine.memory, &err);
}

static int teardown(void **state)
{
    (void)state;
    rounds_destroy(bench.rounds);
    guest_memory_destroy(bench.machine.memory);
    return 0;
}

static void begin(unsigned workers)
{
    struct error err;

    assert_int_equal(rounds_create(&bench.machine, &sink, NULL, workers, &bench.rounds, &err), 0);
    rounds_owe_all(bench.rounds);
}

static void copy(void)
{
    struct error err;

    if (rounds_copy(bench.rounds, &bench.round, &err) < 0)
        fail_msg("%s", err.msg);
}

static void writes(unsigned region, uint64_t page)
{
    bench.machine.writes[region][page / 64] |= UINT64_C(1) << page % 64;
}

static void forget_writes(void)
{
    memset(bench.machine.writes, 0, sizeof(bench.machine.writes));
}

static void every_page_is_put(unsigned times)
{
    for (unsigned i = 0; i < LOW_PAGES; i++)
        assert_int_equal(bench.puts[0][i], times);
    for (unsigned i = 0; i < HIGH_PAGES; i++)
        assert_int_equal(bench.puts[1][i], times);
    assert_int_equal(bench.puts[1][HIGH_PAGES], 0);
}

/* Rounds */

static void the_first_round_copies_every_page_once(void **state)
{
    (void)state;
    begin(1);
    assert_int_equal(rounds_owed(bench.rounds), LOW_PAGES + HIGH_PAGES);
    copy();
    every_page_is_put(1);
    assert_int_equal(bench.round.pages, LOW_PAGES + HIGH_PAGES);
    assert_int_equal(bench.round.owed, 0);
    assert_int_equal(bench.ticks, LOW_PAGES / ROUNDS_CHUNK_PAGES + 2);
    assert_false(bench.machine.cleared_late);
}

/* Three pages of a word, one more beyond it, and one that was given back again. */
static void touch_some_of(enum memory_backing backing, bool from_file)
{
    static const uint64_t touched[] = {0, 5, 63, 70, 511, 512, 4095};
    struct memory_layout layout = {.size = LOW_PAGES * GUEST_PAGE_SIZE,
                                   .hole_start = LOW_PAGES * GUEST_PAGE_SIZE,
                                   .hole_end = UINT64_C(4) << 30,
                                   .backing = backing};
    struct error err;

    guest_memory_destroy(bench.machine.memory);
    assert_int_equal(guest_memory_create(&layout, &bench.machine.memory, &err), 0);
    struct guest_memory *mem = bench.machine.memory;
    int fd = memfd_create("file", MFD_CLOEXEC);

    assert_int_equal(ftruncate(fd, LOW_PAGES * GUEST_PAGE_SIZE), 0);
    if (from_file)
        assert_int_equal(guest_memory_map_file(mem, 0, fd, 0, &err), 0);
    close(fd);
    for (size_t i = 0; i < sizeof(touched) / sizeof(touched[0]); i++)
        assert_int_equal(guest_memory_write(mem, touched[i] * GUEST_PAGE_SIZE, "x", 1), 0);
    assert_int_equal(guest_memory_give_back(mem, 63 * GUEST_PAGE_SIZE, GUEST_PAGE_SIZE),
                     GUEST_PAGE_SIZE);
    assert_int_equal(rounds_create(&bench.machine, &zero_sink, NULL, 1, &bench.rounds, &err), 0);
    rounds_owe_all(bench.rounds);
    copy();
    for (uint64_t page = 0, i = 0; page < LOW_PAGES; page++) {
        bool is_touched = page == touched[i];

        i += is_touched;
        assert_int_equal(bench.puts[0][page], from_file || (is_touched && page != 63));
    }
}

static void what_was_never_touched_or_given_back_is_not_put_where_all_starts_zero(void **state)
{
    (void)state;
    touch_some_of(MEMORY_ANONYMOUS, false);
}

static void likewise_of_a_memfd(void **state)
{
    (void)state;
    touch_some_of(MEMORY_MEMFD, false);
}

static void but_all_of_what_is_mapped_from_a_file_is_put(void **state)
{
    (void)state;
    touch_some_of(MEMORY_MEMFD, true);
}

static void several_workers_share_it_and_each_chunk_is_always_the_same_ones(void **state)
{
    (void)state;
    begin(3);
    copy();
    every_page_is_put(1);
    assert_int_equal(bench.calls[0], 4); /* chunks 0 3 6 9 of ten */
    assert_int_equal(bench.calls[1], 3);
    assert_int_equal(bench.calls[2], 3);
    writes(1, HIGH_PAGES - 1); /* in chunk 9; a round so small is one thread's */
    copy();
    forget_writes();
    copy();
    assert_int_equal(bench.calls[0], 5);
    assert_int_equal(bench.calls[1] + bench.calls[2], 6);
}

static void what_was_written_is_owed_and_copied_next(void **state)
{
    (void)state;
    begin(1);
    writes(0, 77);
    writes(1, HIGH_PAGES - 1);
    copy();
    assert_int_equal(bench.round.written, 2);
    assert_int_equal(bench.round.owed, 2);
    forget_writes();
    copy();
    assert_int_equal(bench.round.pages, 2);
    assert_int_equal(bench.puts[0][77], 2);
    assert_int_equal(bench.puts[1][HIGH_PAGES - 1], 2);
    assert_int_equal(bench.puts[0][78], 1);
    assert_int_equal(rounds_owed(bench.rounds), 0);
}

static void a_page_that_is_written_every_time_waits_for_the_stop(void **state)
{
    struct error err;

    (void)state;
    begin(1);
    writes(0, 5);
    for (unsigned i = 0; i < 6; i++)
        copy();
    assert_int_equal(bench.round.deferred, 1);
    assert_int_equal(bench.round.owed, 1);
    assert_int_equal(bench.puts[0][5], 2); /* at first, and before it was known */
    assert_int_equal(rounds_copy_last(bench.rounds, &err), 0);
    assert_int_equal(bench.puts[0][5], 3);
    assert_int_equal(rounds_owed(bench.rounds), 0);
}

static void a_probe_lets_it_take_part_again_when_it_has_become_quiet(void **state)
{
    struct error err;

    (void)state;
    begin(1);
    writes(0, 5);
    writes(0, 6);
    for (unsigned i = 0; i < 4; i++)
        copy();
    assert_int_equal(bench.round.deferred, 2);
    forget_writes();
    writes(0, 6);
    assert_int_equal(rounds_probe(bench.rounds, 1000, &err), 0);
    copy();
    assert_int_equal(bench.puts[0][5], 3);
    assert_int_equal(bench.puts[0][6], 2); /* still hot */
    assert_int_equal(bench.round.owed, 1);
}

/* It fails */

static void a_worker_that_fails_ends_the_round_for_all_and_nothing_is_forgotten(void **state)
{
    struct error err;

    (void)state;
    for (int failing = 0; failing < 3; failing++) {
        teardown(NULL);
        setup(NULL);
        begin(3);
        bench.failing_worker = failing;
        assert_int_equal(rounds_copy(bench.rounds, &bench.round, &err), -EIO);
        assert_string_equal(err.msg, failing == 0   ? "worker 0: told to"
                                     : failing == 1 ? "worker 1: told to"
                                                    : "worker 2: told to");
        bench.failing_worker = -1;
        copy();
        every_page_is_put(1);
    }
}

static void a_tick_that_fails_ends_the_round_for_all(void **state)
{
    struct error err;

    (void)state;
    begin(2);
    bench.fails_at_tick = 3;
    assert_int_equal(rounds_copy(bench.rounds, &bench.round, &err), -ECANCELED);
    assert_true(rounds_owed(bench.rounds) > 0);
    copy();
    every_page_is_put(1);
}

/* The plan */

static enum rounds_next next(struct rounds_plan *plan, uint64_t owed, uint64_t deferred)
{
    const struct rounds_round round = {.owed = owed, .deferred = deferred};

    return rounds_plan_next(plan, &round);
}

static void as_long_as_it_shrinks_there_is_another_round(void **state)
{
    struct rounds_plan plan = {0};

    (void)state;
    for (uint64_t owed = 100000; owed > 100; owed = owed * 4 / 5)
        assert_int_equal(next(&plan, owed, 0), ROUNDS_COPY);
    assert_int_equal(next(&plan, 64, 0), ROUNDS_STOP);
}

static void what_no_longer_shrinks_ends_after_three_rounds(void **state)
{
    struct rounds_plan plan = {0};

    (void)state;
    assert_int_equal(next(&plan, 1000, 0), ROUNDS_COPY);
    assert_int_equal(next(&plan, 990, 0), ROUNDS_COPY);
    assert_int_equal(next(&plan, 1000, 0), ROUNDS_COPY);
    assert_int_equal(next(&plan, 995, 0), ROUNDS_STOP);
}

static void at_a_peak_it_is_waited_for_a_while(void **state)
{
    struct rounds_plan plan = {0};
    unsigned rounds = 1;

    (void)state;
    assert_int_equal(next(&plan, 1000, 0), ROUNDS_COPY);
    while (next(&plan, 5000, 0) == ROUNDS_COPY)
        rounds++;
    assert_in_range(rounds, 4, 7);
    plan = (struct rounds_plan){0};
    assert_int_equal(next(&plan, 1000, 0), ROUNDS_COPY);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(next(&plan, 5000, 0), ROUNDS_COPY);
    assert_int_equal(next(&plan, 1010, 0), ROUNDS_STOP); /* the peak is over */
}

static void where_most_is_deferred_it_is_looked_whether_that_is_still_so(void **state)
{
    struct rounds_plan plan = {0};

    (void)state;
    assert_int_equal(next(&plan, 1000, 700), ROUNDS_COPY);
    assert_int_equal(next(&plan, 800, 700), ROUNDS_PROBE);
}

static void it_comes_to_an_end_whatever_the_guest_does(void **state)
{
    struct rounds_plan plan = {0};
    unsigned rounds = 1;

    (void)state;
    for (uint64_t owed = UINT64_MAX / 8; next(&plan, owed, 0) != ROUNDS_STOP; owed = owed / 5 * 4)
        assert_in_range(++rounds, 1, 100);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_first_round_copies_every_page_once),
        TEST(what_was_never_touched_or_given_back_is_not_put_where_all_starts_zero),
        TEST(likewise_of_a_memfd),
        TEST(but_all_of_what_is_mapped_from_a_file_is_put),
        TEST(several_workers_share_it_and_each_chunk_is_always_the_same_ones),
        TEST(what_was_written_is_owed_and_copied_next),
        TEST(a_page_that_is_written_every_time_waits_for_the_stop),
        TEST(a_probe_lets_it_take_part_again_when_it_has_become_quiet),
        TEST(a_worker_that_fails_ends_the_round_for_all_and_nothing_is_forgotten),
        TEST(a_tick_that_fails_ends_the_round_for_all),
        cmocka_unit_test(as_long_as_it_shrinks_there_is_another_round),
        cmocka_unit_test(what_no_longer_shrinks_ends_after_three_rounds),
        cmocka_unit_test(at_a_peak_it_is_waited_for_a_while),
        cmocka_unit_test(where_most_is_deferred_it_is_looked_whether_that_is_still_so),
        cmocka_unit_test(it_comes_to_an_end_whatever_the_guest_does),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
