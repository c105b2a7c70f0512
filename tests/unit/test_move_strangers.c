/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who else knocks where a machine is waited for, and sources that go, or say what they should not:
 * the side that receives is vmrun's own, the other one is a script.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "../../src/migration/hello.h"
#include "moving.h"

#define WAIT_MS 10000

static const uint8_t session[HANDOVER_SESSION_BYTES] = {1, 2, 3};

static void ok(int r, const struct error *err)
{
    if (r < 0)
        fail_msg("%s", err->msg);
}

static struct frame_stream knock(void)
{
    const struct channel_security none = {.insecure = false};
    struct frame_stream s = {.channel = NULL};
    struct error err;

    ok(channel_connect(&none, receive_url(moving.receive), WAIT_MS, &s.channel, &err), &err);
    return s;
}

static void say_hello(struct frame_stream *s, uint8_t first, unsigned channel, unsigned channels)
{
    struct hello hello = {.channel = channel, .channels = channels};
    struct error err;

    memcpy(hello.session, session, sizeof(session));
    hello.session[0] = first;
    ok(hello_send(s, &hello, &err), &err);
}

static void is_welcome(struct frame_stream *s)
{
    struct hello hello = {.channels = 1};
    struct error err;

    ok(hello_expect_welcome(s, &hello, &err), &err);
}

static void is_refused(struct frame_stream *s, const char *words)
{
    struct hello hello = {.channels = 1};
    struct error err;

    assert_int_equal(hello_expect_welcome(s, &hello, &err), -ECONNREFUSED);
    if (!strstr(err.msg, words))
        fail_msg("\"%s\" is not in: %s", words, err.msg);
}

static void send_frame(struct frame_stream *s, enum frame_type type, const void *body, size_t len)
{
    struct error err;

    ok(frame_send(s, type, 0, &(struct iovec){(void *)body, len}, 1, &err), &err);
}

/* What the fake machine has, as MEMORY says it. */
static void send_machine(struct frame_stream *s)
{
    uint64_t regions[4] = {0, MOVING_LOW, UINT64_C(4) << 30, MOVING_SIZE - MOVING_LOW};

    send_frame(s, FRAME_MACHINE, "{}", 2);
    send_frame(s, FRAME_CPUID, "cpuid", 5);
    send_frame(s, FRAME_MEMORY, regions, sizeof(regions)); /* this host is little-endian */
}

static void is_prepared(struct frame_stream *s)
{
    json_t *body;
    struct error err;

    ok(hello_expect_json(s, FRAME_PREPARED, &body, &err), &err);
    json_decref(body);
}

/* Up to where pages are expected, on one channel. */
static struct frame_stream begin(void)
{
    struct frame_stream s;

    moving_listen();
    moving_receive();
    s = knock();
    say_hello(&s, 1, 0, 1);
    is_welcome(&s);
    send_machine(&s);
    is_prepared(&s);
    return s;
}

static void commit(struct frame_stream *s)
{
    uint8_t zeros[8] = {0}, times[8] = {0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11};
    json_t *body;
    struct error err;

    send_frame(s, FRAME_MARK, zeros, sizeof(zeros));
    send_frame(s, FRAME_STATE, "state", 5);
    ok(hello_expect_json(s, FRAME_READY, &body, &err), &err);
    json_decref(body);
    send_frame(s, FRAME_COMMIT, times, sizeof(times));
    ok(hello_expect_json(s, FRAME_DONE, &body, &err), &err);
    json_decref(body);
}

static void gave_up(struct frame_stream *s, int code, const char *words)
{
    if (s)
        channel_destroy(s->channel);
    moving_join();
    assert_int_equal(moving.taken, code);
    if (!strstr(moving.taken_err.msg, words))
        fail_msg("\"%s\" is not in: %s", words, moving.taken_err.msg);
}

static void runs_there(struct frame_stream *s)
{
    moving_join();
    ok(moving.taken, &moving.taken_err);
    assert_int_equal(moving.target->state, MACHINE_RUNNING);
    assert_string_equal(moving.target->loaded, "state");
    channel_destroy(s->channel);
}

/* Strangers */

static void before_a_machine_comes_strangers_are_sent_away(void **state)
{
    struct frame_stream s;
    struct error err;

    (void)state;
    moving_listen();
    moving_receive();
    s = knock(); /* and goes without a word */
    channel_destroy(s.channel);
    s = knock();
    ok(channel_send(s.channel, &(struct iovec){(void *)"GET / HTTP/1.0\r\n\r\n12345678", 26}, 1,
                    &err),
       &err);
    is_refused(&s, "begins with 0x4547: not what vmrun sends");
    channel_destroy(s.channel);
    s = knock();
    say_hello(&s, 1, 1, 2);
    is_refused(&s, "a channel of a move that nobody began");
    channel_destroy(s.channel);
    s = knock();
    say_hello(&s, 1, 0, 1);
    is_welcome(&s);
    channel_destroy(s.channel); /* the machine does not come */
    s = knock();
    say_hello(&s, 1, 0, 1);
    is_welcome(&s);
    send_machine(&s);
    is_prepared(&s);
    commit(&s);
    runs_there(&s);
}

static void between_its_channels_strangers_are_sent_away(void **state)
{
    struct frame_stream s, second, stranger;
    uint8_t zeros[8] = {0};

    (void)state;
    moving_listen();
    moving_receive();
    s = knock();
    say_hello(&s, 1, 0, 2);
    is_welcome(&s);
    send_machine(&s);
    is_prepared(&s);
    static const struct {
        uint8_t first;
        unsigned channel, channels;
    } wrong[] = {{2, 1, 2}, {1, 0, 2}, {1, 1, 3}};
    for (unsigned i = 0; i < 3; i++) {
        stranger = knock();
        say_hello(&stranger, wrong[i].first, wrong[i].channel, wrong[i].channels);
        is_refused(&stranger, "another machine is being received here");
        channel_destroy(stranger.channel);
    }
    stranger = knock(); /* and is silent: the next waits for as long as that is borne */
    second = knock();
    say_hello(&second, 1, 1, 2);
    is_welcome(&second);
    send_frame(&second, FRAME_MARK, zeros, sizeof(zeros));
    commit(&s);
    runs_there(&s);
    channel_destroy(second.channel);
    channel_destroy(stranger.channel);
}

/* A second for each byte: none of them is late, and all of them are. */
static void who_drips_his_hello_is_sent_away_as_who_is_silent(void **state)
{
    struct frame_stream s, real;
    uint8_t byte = 0x6d; /* a frame's first */
    uint64_t start = loop_now_ns();
    struct error err;

    (void)state;
    moving_listen();
    moving_receive();
    s = knock();
    for (unsigned i = 0; i < 60 && !channel_readable(s.channel, 1000); i++)
        if (channel_send(s.channel, &(struct iovec){&byte, 1}, 1, &err) < 0)
            break;
    assert_in_range((loop_now_ns() - start) / 1000000, 4000, 12000);
    is_refused(&s, "it did not all come in time");
    channel_destroy(s.channel);
    real = knock();
    say_hello(&real, 1, 0, 1);
    is_welcome(&real);
    send_machine(&real);
    is_prepared(&real);
    commit(&real);
    runs_there(&real);
}

static void when_all_channels_are_there_nobody_is_listened_to(void **state)
{
    const struct channel_security none = {.insecure = false};
    struct frame_stream s = begin();
    struct channel *other;
    struct error err;

    (void)state;
    commit(&s);
    assert_int_equal(channel_connect(&none, receive_url(moving.receive), WAIT_MS, &other, &err),
                     -ECONNREFUSED);
    runs_there(&s);
}

static void a_channel_that_does_not_come_ends_it(void **state)
{
    struct frame_stream s;
    struct error err;
    json_t *body;

    (void)state;
    moving_listen();
    moving_receive();
    s = knock();
    say_hello(&s, 1, 0, 3);
    is_welcome(&s);
    send_machine(&s);
    is_prepared(&s);
    assert_int_equal(hello_expect_json(&s, FRAME_READY, &body, &err), -ECONNREFUSED);
    if (!strstr(err.msg, "of its 3 connections 2 have not come"))
        fail_msg("%s", err.msg);
    gave_up(&s, -ETIMEDOUT, "of its 3 connections 2 have not come");
}

/* Sources that go */

static void a_source_that_goes_at_any_moment_leaves_nothing_that_runs(void **state)
{
    (void)state;
    for (unsigned frames = 0; frames < 3; frames++) {
        struct frame_stream s;
        uint8_t zeros[8] = {0};
        void *again;

        moving_teardown(&again);
        moving_setup(&again);
        s = begin();
        if (frames > 0)
            send_frame(&s, FRAME_MARK, zeros, sizeof(zeros));
        if (frames > 1)
            send_frame(&s, FRAME_STATE, "state", 5);
        gave_up(&s, -EPIPE, "the other side closed the connection");
    }
}

static void a_source_that_gives_up_is_heard(void **state)
{
    const struct error why = {.code = ECANCELED, .msg = "no longer in the mood"};
    struct frame_stream s = begin();

    (void)state;
    frame_refuse(&s, &why);
    gave_up(NULL, -ECONNREFUSED, "the other side refuses: no longer in the mood");
    channel_destroy(s.channel);
}

/* And that say what they should not */

static void says_instead_of_pages(enum frame_type type, const char *words)
{
    struct frame_stream s = begin();
    struct error err;
    json_t *body;

    send_frame(&s, type, "12345678", 8);
    assert_int_equal(hello_expect_json(&s, FRAME_READY, &body, &err), -ECONNREFUSED);
    if (!strstr(err.msg, words))
        fail_msg("\"%s\" is not in: %s", words, err.msg);
    gave_up(&s, -EPROTO, words);
}

static void a_commit_before_anything_is_refused(void **state)
{
    (void)state;
    says_instead_of_pages(FRAME_COMMIT, "frame 4 (COMMIT) came where PAGES were expected");
}

static void a_state_before_the_last_page_is_refused(void **state)
{
    (void)state;
    says_instead_of_pages(FRAME_STATE, "frame 4 (STATE) came where PAGES were expected");
}

static void a_second_machine_is_refused(void **state)
{
    (void)state;
    says_instead_of_pages(FRAME_MACHINE, "frame 4 (MACHINE) came where PAGES were expected");
}

static void extras_that_nobody_knows_are_passed_over(void **state)
{
    struct frame_stream s = begin();
    uint8_t zeros[8] = {0};

    (void)state;
    send_frame(&s, FRAME_MARK, zeros, sizeof(zeros));
    send_frame(&s, FRAME_EXTRA, "teapot\0hot", 10);
    send_frame(&s, FRAME_EXTRA, "no end", 6);
    send_frame(&s, FRAME_EXTRA, "console\0boot\n", 13);
    send_frame(&s, FRAME_STATE, "no machine has so long a state as this one", 42);
    gave_up(&s, -EPROTO, "no state");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, moving_setup, moving_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(before_a_machine_comes_strangers_are_sent_away),
        TEST(between_its_channels_strangers_are_sent_away),
        TEST(who_drips_his_hello_is_sent_away_as_who_is_silent),
        TEST(when_all_channels_are_there_nobody_is_listened_to),
        TEST(a_channel_that_does_not_come_ends_it),
        TEST(a_source_that_goes_at_any_moment_leaves_nothing_that_runs),
        TEST(a_source_that_gives_up_is_heard),
        TEST(a_commit_before_anything_is_refused),
        TEST(a_state_before_the_last_page_is_refused),
        TEST(a_second_machine_is_refused),
        TEST(extras_that_nobody_knows_are_passed_over),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
