/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Both sides of a move in one process, over the loopback: source and target are vmrun's own, the
 * machines are fakes (moving/moving.c).
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "moving.h"
#include "slow_link.h"

/* It arrives */

static void moves_over(unsigned channels)
{
    moving_run(&(struct migration_move){.channels = channels});
    moving_expect_there();
    assert_int_equal(moving.report.channels, channels);
}

static void a_machine_arrives_as_it_was(void **state)
{
    (void)state;
    moves_over(1);
    assert_int_equal(moving.target->state, MACHINE_RUNNING);
    assert_true(moving.target->loads > MOVING_REHEARSALS);
    assert_int_equal(moving.source.throttles, 0);
    assert_true(moving.report.pause_ns > 0);
    assert_in_range(moving.report.pause_bytes / GUEST_PAGE_SIZE, 1, 100);
    assert_true(moving.report.sent_bytes > MOVING_PAGES / 2 * GUEST_PAGE_SIZE / 2);
}

static void two_channels_carry_it_as_well(void **state)
{
    (void)state;
    moves_over(2);
}

static void and_five(void **state)
{
    (void)state;
    moves_over(5);
}

static void seventeen_channels_are_refused_at_once(void **state)
{
    const struct migration_move move = {.url = "tcp://127.0.0.1:1", .channels = 17};
    struct error err;

    (void)state;
    assert_int_equal(migration_move(moving.migration, &move, &err), -EINVAL);
    assert_string_equal(err.msg, "17 channels: at most 16");
    assert_false(moving.source.guest.logging);
}

static unsigned a_hundred(const struct machine *m, unsigned n)
{
    (void)m;
    return n < 8 ? 800 - 100 * n : 100;
}

static void what_is_written_meanwhile_arrives_as_well(void **state)
{
    (void)state;
    moving.source.writes = a_hundred;
    moving.source.writes_at_hold = 900;
    moves_over(2);
    assert_true(moving.report.rounds > 1);
    assert_in_range(moving.report.pause_bytes / GUEST_PAGE_SIZE, 900, 1000);
}

/* Zeros where the target has something by then. */
static void clear_a_page(void)
{
    if (moving.source.harvests++ == 1) {
        memset(moving.source.guest.memory->regions[0].host + 300 * GUEST_PAGE_SIZE, 0,
               GUEST_PAGE_SIZE);
        moving.source.guest.log[0][300 / 64] |= UINT64_C(1) << 300 % 64;
    }
}

static void a_page_that_has_become_zero_is_zero_there(void **state)
{
    (void)state;
    moving.step = MOVING_HARVEST;
    moving.act = clear_a_page;
    moves_over(1);
    assert_int_equal(moving.target->guest.memory->regions[0].host[300 * GUEST_PAGE_SIZE], 0);
}

static void the_guests_clock_has_stood_still_only_while_it_did(void **state)
{
    (void)state;
    moves_over(2);
    assert_in_range(moving.target->advanced_ns, 1, moving.report.pause_ns);
}

static void a_paused_machine_arrives_paused(void **state)
{
    (void)state;
    moving.source.state = MACHINE_PAUSED;
    moves_over(2);
    assert_int_equal(moving.target->state, MACHINE_PAUSED);
    assert_int_equal(moving.report.pause_ns, 0);
    assert_string_equal(migration_moved_to(moving.migration), receive_url(moving.receive));
}

static void say_a_word(void)
{
    moving_say(&moving.source, "Bye.", 4);
}

static void of_a_mebibyte_on_the_console_the_stop_sends_the_last_word(void **state)
{
    uint8_t *much = malloc(MOVING_MIB);

    (void)state;
    assert_non_null(much);
    memset(much, 'x', MOVING_MIB);
    moving_say(&moving.source, much, MOVING_MIB);
    free(much);
    moving.step = MOVING_HOLD;
    moving.act = say_a_word;
    moves_over(2);
    assert_int_equal(moving.source.said_in_stop, 4);
    assert_true(moving.report.sent_bytes > MOVING_MIB);
}

static void a_machine_without_disks_moves_too(void **state)
{
    (void)state;
    moving.source.has_disks = false;
    moves_over(2);
}

static void a_second_move_is_refused_while_one_is_under_way(void **state)
{
    const struct migration_move move = {.url = "tcp://127.0.0.1:1"};
    const struct migration_save save = {.path = "/nowhere/file"};
    struct error err;

    (void)state;
    moving_listen(); /* and nobody accepts */
    assert_int_equal(migration_move(moving.migration,
                                    &(struct migration_move){.url = receive_url(moving.receive)},
                                    &err),
                     0);
    assert_int_equal(migration_move(moving.migration, &move, &err), -EBUSY);
    assert_string_equal(err.msg, "another move is under way");
    assert_int_equal(migration_save(moving.migration, &save, &err), -EBUSY);
    assert_int_equal(migration_cancel(moving.migration, &err), 0);
    assert_int_equal(loop_run(moving.loop, &err), 0);
    moving_expect_here("cancelled");
    assert_int_equal(migration_cancel(moving.migration, &err), -ENOENT);
}

/* It writes faster than the network carries */

static unsigned a_thousand(const struct machine *m, unsigned n)
{
    (void)n;
    return m->throttle >= 40 ? 10 : 1000;
}

static const struct migration_move slow = {.channels = 1, .max_pause_ns = 50000000};

/* All of it, over a link of some 20 MB/s. */
static void run_slowly(const struct migration_move *params)
{
    struct slow_link link;

    moving_listen();
    moving_receive();
    slow_link_start(&link, receive_url(moving.receive), 20 << 20);
    moving_move(link.url, params);
    moving_join();
    slow_link_join(&link);
    assert_int_equal(moving.ended, 1);
}

static void a_guest_that_writes_too_fast_is_slowed_down_until_it_does_not(void **state)
{
    (void)state;
    moving.source.writes = a_thousand; /* 4 MB a round, some 200 ms */
    run_slowly(&slow);
    moving_expect_there();
    assert_int_equal(moving.source.most_throttle, 40);
    assert_int_equal(moving.report.throttle_percent, 40);
    assert_true(moving.report.predicted_pause_ns <= slow.max_pause_ns);
}

static unsigned ever_a_thousand(const struct machine *m, unsigned n)
{
    (void)m, (void)n;
    return 1000;
}

static void when_time_is_up_it_stays_and_runs_at_full_speed(void **state)
{
    struct migration_move move = slow;

    (void)state;
    moving.source.writes = ever_a_thousand;
    move.timeout_ns = 1;
    run_slowly(&move);
    moving_expect_here("time is up, and the stop would take ");
    assert_int_equal(moving.taken, -ECONNREFUSED);
    assert_non_null(strstr(moving.taken_err.msg, "time is up"));
}

static void or_it_stands_still_for_longer_when_that_is_wanted(void **state)
{
    struct migration_move move = slow;

    (void)state;
    moving.source.writes = ever_a_thousand;
    move.timeout_ns = 1;
    move.force = true;
    run_slowly(&move);
    moving_expect_there();
    assert_true(moving.report.pause_ns > slow.max_pause_ns);
}

static void a_limit_of_our_own_does_not_hold_while_it_stands_still(void **state)
{
    const struct migration_move limited = {.channels = 1, .bandwidth = 2 << 20};

    (void)state;
    moving.source.writes_at_hold = 1000; /* two seconds at that rate */
    moving_run(&limited);
    moving_expect_there();
    assert_true(moving.report.pause_ns < 1000000000);
}

/* The guest's last pages are as many as are written while the others go, at most. */
static void a_check_tells_of_the_network_and_of_our_limit_where_each_holds(void **state)
{
    const struct migration_move limited = {.channels = 1, .bandwidth = 2 << 20, .check = true};
    const struct migration_check *check = &moving.report.check;

    (void)state;
    moving.source.writes = a_thousand;
    moving_run(&limited);
    assert_int_equal(moving.taken, 0);
    assert_true(moving.report.checked);
    assert_true(check->bandwidth > 8 * limited.bandwidth);
    assert_true(check->total_ns > check->ram_bytes * 1000000000 / limited.bandwidth);
    assert_true(check->pause_ns < 1000000000); /* and not two seconds */
    assert_false(moving.source.guest.logging);
    assert_int_equal(moving.source.state, MACHINE_RUNNING);
}

/* The stop would be too long, whatever the guest writes */

static void a_slow_moment_passes_and_the_guest_is_not_slowed_down_for_it(void **state)
{
    const struct migration_move move = {.channels = 1, .timeout_ns = UINT64_C(60000000000)};

    (void)state;
    moving.slow_loads = (1u << MOVING_REHEARSALS) - 1;
    moving_run(&move);
    moving_expect_there();
    assert_true(moving.target->loads > 2 * MOVING_REHEARSALS);
    assert_int_equal(moving.source.throttles, 0);
    assert_true(moving.report.predicted_pause_ns < MOVING_SLOW_NS);
}

static void of_two_rehearsals_the_quicker_one_is_believed(void **state)
{
    const struct migration_move move = {.channels = 1, .timeout_ns = UINT64_C(60000000000)};

    (void)state;
    moving.slow_loads = 1u << (MOVING_REHEARSALS - 1); /* the last one of them */
    moving_run(&move);
    moving_expect_there();
    assert_int_equal(moving.target->loads, MOVING_REHEARSALS + 1); /* and the state itself */
    assert_true(moving.report.predicted_pause_ns < MOVING_SLOW_NS);
}

static void a_limit_that_no_stop_can_meet_is_told_as_such(void **state)
{
    const struct migration_move move = {
        .channels = 1, .max_pause_ns = 1000, .timeout_ns = 500000000};

    (void)state;
    moving_run(&move);
    moving_expect_here("even with nothing left to send: allow more with --max-downtime");
    assert_int_equal(moving.source.throttles, 0);
}

/* It fails, at each step and on either side */

static void again(void)
{
    void *state;

    moving_teardown(&state);
    assert_int_equal(moving_setup(&state), 0);
}

static void what_fails_at_any_step_is_told_on_both_sides_and_leaves_it_as_it_was(void **state)
{
    (void)state;
    for (unsigned step = MOVING_MARK; step < MOVING_STEPS; step++) {
        char words[64];

        if (step == MOVING_OFFER) /* it cannot fail */
            continue;
        again();
        snprintf(words, sizeof(words), "%s: told to", moving_step_name(step));
        moving.step = step;
        moving.fails = true;
        moving_listen();
        moving_receive();
        moving_move(receive_url(moving.receive), NULL);
        if (step <= MOVING_CPUID) {
            /* The target waits for another one; give it that. */
            moving_expect_here(words);
            moving.step = MOVING_NOTHING;
            moving_move(receive_url(moving.receive), NULL);
            moving_join();
            moving.ended = 1;
            moving_expect_there();
            continue;
        }
        moving_join();
        moving_expect_here(words);
        assert_true(moving.taken < 0);
        if (!strstr(moving.taken_err.msg, words))
            fail_msg("the target says: %s", moving.taken_err.msg);
        assert_int_equal(moving.source.asked, step == MOVING_TAKE);
    }
}

static void memory_of_another_layout_is_refused(void **state)
{
    (void)state;
    moving.other_memory = true;
    moving_listen();
    moving_receive();
    moving_move(receive_url(moving.receive), NULL);
    pthread_join(moving.thread, NULL);
    moving.target = NULL; /* destroyed by receive_build() */
    moving_expect_here("not the memory of the machine that MACHINE describes");
}

static void nobody_listens(void **state)
{
    char url[64];

    (void)state;
    moving_listen();
    snprintf(url, sizeof(url), "%s", receive_url(moving.receive));
    receive_destroy(moving.receive);
    moving.receive = NULL;
    moving_move(url, NULL);
    moving_expect_here(url);
    assert_non_null(strstr(moving.report.error.msg, "Connection refused"));
}

/* It is cancelled */

static void cancel(void)
{
    struct error err;

    (void)migration_cancel(moving.migration, &err);
}

static void it_can_be_cancelled_at_any_step_before_the_disks_are_given_up(void **state)
{
    (void)state;
    for (unsigned step = MOVING_CREATE; step < MOVING_STEPS; step++) {
        again();
        moving.step = step;
        moving.act = cancel;
        moving_run(NULL);
        if (step >= MOVING_OFFER) {
            moving_expect_there();
            continue;
        }
        /* Who has heard of READY already may have gone on. */
        if (moving.report.outcome == MIGRATION_THERE) {
            assert_in_range(step, MOVING_HOLD, MOVING_LOAD);
            moving_expect_there();
            continue;
        }
        moving_expect_here("cancelled");
        if (moving.taken != -ECONNREFUSED || !strstr(moving.taken_err.msg, "cancelled"))
            fail_msg("at %s the target says: %s", moving_step_name(step), moving.taken_err.msg);
    }
}

static void kill_it(void *opaque)
{
    (void)opaque;
    machine_kill(&moving.source);
}

static void have_it_killed(void)
{
    (void)loop_post(moving.loop, kill_it, NULL);
}

static void a_machine_that_ends_at_any_step_before_that_ends_on_both_sides(void **state)
{
    struct error err;

    (void)state;
    for (unsigned step = MOVING_CREATE; step < MOVING_HOLD; step++) {
        again();
        moving.step = step;
        moving.act = have_it_killed;
        moving_listen();
        moving_receive();
        moving_move(receive_url(moving.receive), NULL); /* the loop has stopped */
        migration_destroy(moving.migration);
        moving.migration = NULL;
        moving_join();
        assert_int_equal(moving.ended, 1);
        assert_int_equal(moving.taken, -ECONNREFUSED);
        assert_non_null(strstr(moving.taken_err.msg, "the machine has ended"));
        assert_false(moving.source.guest.logging);
        assert_int_equal(migration_create(&moving.source, moving.loop, &moving.migration, &err), 0);
    }
}

static void one_that_ends_in_the_stop_is_not_given_away(void **state)
{
    struct error err;

    (void)state;
    for (unsigned step = MOVING_HOLD; step <= MOVING_LOAD; step++) {
        again();
        moving.step = step;
        moving.act = have_it_killed;
        moving_listen();
        moving_receive();
        moving_move(receive_url(moving.receive), NULL);
        migration_destroy(moving.migration);
        moving.migration = NULL;
        moving_join();
        assert_true(moving.taken < 0);
        assert_false(moving.source.offered);
        assert_int_equal(moving.report.error.code, ECANCELED);
        assert_int_equal(migration_create(&moving.source, moving.loop, &moving.migration, &err), 0);
    }
}

/* Nobody knows */

static void refused_commit(enum block_handover_answer answer, bool has_disks)
{
    moving.step = MOVING_TAKE;
    moving.fails = true;
    moving.answer = answer;
    moving.source.has_disks = has_disks;
    moving_run(NULL);
    assert_int_equal(moving.source.asked, has_disks);
    assert_true(moving.taken < 0);
}

static void the_arbiter_says_that_it_runs_there(void **state)
{
    (void)state;
    refused_commit(HANDOVER_TAKEN, true);
    assert_int_equal(moving.report.outcome, MIGRATION_THERE);
    assert_int_equal(moving.report.error.code, 0);
    assert_true(moving.source.killed);
}

static void the_arbiter_says_that_it_is_as_it_was(void **state)
{
    (void)state;
    refused_commit(HANDOVER_AS_IT_WAS, true);
    moving_expect_here("take: told to");
}

static void the_arbiter_cannot_tell(void **state)
{
    (void)state;
    refused_commit(HANDOVER_UNKNOWN, true);
    assert_int_equal(moving.report.outcome, MIGRATION_UNCERTAIN);
    assert_int_equal(moving.source.state, MACHINE_UNCERTAIN);
    assert_string_equal(moving.source.words, "the disks say so");
    assert_string_equal(moving.report.error.msg, "the disks say so");
    assert_false(moving.source.killed);
    assert_false(moving.source.guest.logging);
}

static void take_long(void)
{
    nanosleep(&(struct timespec){.tv_sec = 11}, NULL); /* DONE is awaited for 10 s */
}

static void a_word_that_comes_late_is_heard_while_the_arbiter_is_asked(void **state)
{
    (void)state;
    moving.step = MOVING_TAKE;
    moving.act = take_long;
    moving.taking = true;
    moving_run(NULL);
    assert_true(moving.source.asked > 0);
    moving_expect_there();
}

static void without_an_arbiter_the_word_is_awaited_for_longer(void **state)
{
    (void)state;
    moving.step = MOVING_TAKE;
    moving.act = take_long;
    moving.source.has_disks = false;
    moving_run(NULL);
    assert_int_equal(moving.source.asked, 0);
    moving_expect_there();
}

static void without_an_arbiter_a_refusal_is_enough(void **state)
{
    (void)state;
    moving.answer = HANDOVER_UNKNOWN;
    moving.step = MOVING_TAKE;
    moving.fails = true;
    moving.source.has_disks = false;
    moving_run(NULL);
    assert_int_equal(moving.source.asked, 0);
    assert_int_equal(moving.report.outcome, MIGRATION_HERE);
    assert_int_equal(moving.source.state, MACHINE_RUNNING);
    assert_false(moving.source.held);
    assert_non_null(strstr(moving.report.error.msg, "take: told to"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, moving_setup, moving_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_machine_arrives_as_it_was),
        TEST(two_channels_carry_it_as_well),
        TEST(and_five),
        TEST(seventeen_channels_are_refused_at_once),
        TEST(what_is_written_meanwhile_arrives_as_well),
        TEST(a_page_that_has_become_zero_is_zero_there),
        TEST(the_guests_clock_has_stood_still_only_while_it_did),
        TEST(a_paused_machine_arrives_paused),
        TEST(of_a_mebibyte_on_the_console_the_stop_sends_the_last_word),
        TEST(a_machine_without_disks_moves_too),
        TEST(a_second_move_is_refused_while_one_is_under_way),
        TEST(a_guest_that_writes_too_fast_is_slowed_down_until_it_does_not),
        TEST(when_time_is_up_it_stays_and_runs_at_full_speed),
        TEST(or_it_stands_still_for_longer_when_that_is_wanted),
        TEST(a_limit_of_our_own_does_not_hold_while_it_stands_still),
        TEST(a_check_tells_of_the_network_and_of_our_limit_where_each_holds),
        TEST(a_slow_moment_passes_and_the_guest_is_not_slowed_down_for_it),
        TEST(of_two_rehearsals_the_quicker_one_is_believed),
        TEST(a_limit_that_no_stop_can_meet_is_told_as_such),
        TEST(what_fails_at_any_step_is_told_on_both_sides_and_leaves_it_as_it_was),
        TEST(memory_of_another_layout_is_refused),
        TEST(nobody_listens),
        TEST(it_can_be_cancelled_at_any_step_before_the_disks_are_given_up),
        TEST(a_machine_that_ends_at_any_step_before_that_ends_on_both_sides),
        TEST(one_that_ends_in_the_stop_is_not_given_away),
        TEST(the_arbiter_says_that_it_runs_there),
        TEST(the_arbiter_says_that_it_is_as_it_was),
        TEST(the_arbiter_cannot_tell),
        TEST(a_word_that_comes_late_is_heard_while_the_arbiter_is_asked),
        TEST(without_an_arbiter_the_word_is_awaited_for_longer),
        TEST(without_an_arbiter_a_refusal_is_enough),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
