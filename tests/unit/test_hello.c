/* SPDX-License-Identifier: Apache-2.0 */
/* The first words of both sides, of this version, of older ones and of newer ones. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../src/migration/hello.h"
#include "memory_channel.h"

#define SESSION "00112233445566778899aabbccddeeff"

/* As if that had come. */
static int hear(enum frame_type type, const char *text, struct hello *hello, bool welcome,
                struct error *err)
{
    struct channel out = {.in = NULL}, in;
    struct frame_stream sender = {.channel = &out}, receiver = {.channel = &in};

    assert_int_equal(
        frame_send(&sender, type, 0, &(struct iovec){(void *)text, strlen(text)}, 1, err), 0);
    in = (struct channel){.in = out.out, .in_len = out.out_len};
    int r = welcome ? hello_expect_welcome(&receiver, hello, err)
                    : hello_receive(&receiver, hello, err);
    free(out.out);
    return r;
}

static int hear_hello(const char *text, struct hello *hello, struct error *err)
{
    return hear(FRAME_HELLO, text, hello, false, err);
}

static void what_one_side_says_the_other_understands(void **state)
{
    struct hello said = {.session = {1, 2, 0xfe}, .channel = 3, .channels = 5, .early = true};
    struct channel out = {.in = NULL}, in, back = {.in = NULL};
    struct frame_stream source = {.channel = &out}, target = {.channel = &in};
    struct hello heard;
    struct error err;

    (void)state;
    assert_int_equal(hello_send(&source, &said, &err), 0);
    in = (struct channel){.in = out.out, .in_len = out.out_len};
    if (hello_receive(&target, &heard, &err) < 0)
        fail_msg("%s", err.msg);
    assert_memory_equal(heard.session, said.session, sizeof(said.session));
    assert_int_equal(heard.channel, 3);
    assert_int_equal(heard.channels, 5);
    assert_true(heard.early);
    assert_int_equal(hello_welcome(&target, &heard, &err), 0);
    back = (struct channel){.in = in.out, .in_len = in.out_len};
    source = (struct frame_stream){.channel = &back};
    if (hello_expect_welcome(&source, &said, &err) < 0)
        fail_msg("%s", err.msg);
    assert_true(said.early);
    free(out.out);
    free(in.out);
}

static void who_speaks_newer_versions_too_is_answered_in_this_one(void **state)
{
    struct hello hello;
    struct error err;

    (void)state;
    if (hear_hello("{\"versions\":[1,9],\"features\":[\"teleport\"],\"session\":\"" SESSION
                   "\",\"channel\":0,\"channels\":16,\"of\":[\"the\",\"future\"]}",
                   &hello, &err) < 0)
        fail_msg("%s", err.msg);
    assert_int_equal(hello.channels, 16);
    assert_int_equal(hello.session[1], 0x11);
}

static void who_speaks_newer_versions_only_is_told_which_there_are(void **state)
{
    struct hello hello;
    struct error err;

    (void)state;
    assert_int_equal(hear_hello("{\"versions\":[7,9],\"session\":\"" SESSION
                                "\",\"channel\":0,\"channels\":1,\"vmrun\":\"9.9\"}",
                                &hello, &err),
                     -ENOTSUP);
    assert_string_equal(err.msg, "vmrun 9.9 there speaks the protocol's versions 7 to 9, vmrun " //
                        VMRUN_VERSION " here 1 to 1");
}

static void a_hello_that_makes_no_sense_is_refused_in_words(void **state)
{
    static const struct {
        const char *text, *words;
    } wrong[] = {
        {"[]", "no JSON object"},
        {"{\"versions\"", "no JSON object"},
        {"{}", "no versions"},
        {"{\"versions\":[0,1]}", "no versions"},
        {"{\"versions\":[2,1]}", "no versions"},
        {"{\"versions\":[\"1\",\"1\"]}", "no versions"},
        {"{\"versions\":1}", "no versions"},
        {"{\"versions\":[1,1]}", "no session"},
        {"{\"versions\":[1,1],\"session\":\"0011\"}", "no session"},
        {"{\"versions\":[1,1],\"session\":\"00112233445566778899AABBCCDDEEFF\"}", "no session"},
        {"{\"versions\":[1,1],\"session\":\"" SESSION "00\"}", "no session"},
        {"{\"versions\":[1,1],\"session\":\"" SESSION "\"}", "no such channel"},
        {"{\"versions\":[1,1],\"session\":\"" SESSION "\",\"channel\":0,\"channels\":0}",
         "no such channel"},
        {"{\"versions\":[1,1],\"session\":\"" SESSION "\",\"channel\":1,\"channels\":1}",
         "no such channel"},
        {"{\"versions\":[1,1],\"session\":\"" SESSION "\",\"channel\":-1,\"channels\":17}",
         "no such channel"},
        {"{\"versions\":[1,1],\"session\":\"" SESSION
         "\",\"channel\":4294967296,\"channels\":4294967297}",
         "no such channel"},
        {"{\"versions\":[1,1],\"versions\":[1,1]}", "no JSON object"},
    };
    struct hello hello;
    struct error err;

    (void)state;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        assert_int_equal(hear_hello(wrong[i].text, &hello, &err), -EPROTO);
        if (!strstr(err.msg, wrong[i].words) || !strstr(err.msg, "(HELLO)"))
            fail_msg("%s: %s", wrong[i].text, err.msg);
    }
}

static void another_frame_in_its_place_is_refused(void **state)
{
    struct hello hello;
    struct error err;

    (void)state;
    assert_int_equal(hear(FRAME_WELCOME, "{}", &hello, false, &err), -EPROTO);
    assert_int_equal(hear(FRAME_REFUSED, "{\"reasons\":[\"no\"]}", &hello, true, &err),
                     -ECONNREFUSED);
    assert_string_equal(err.msg, "the other side refuses: no");
}

static void a_welcome_in_a_version_that_was_not_offered_is_refused(void **state)
{
    struct hello said = {.channels = 1};
    struct error err;

    (void)state;
    assert_int_equal(hear(FRAME_WELCOME, "{\"version\":2}", &said, true, &err), -EPROTO);
    assert_non_null(strstr(err.msg, "version 2 was not asked for"));
    assert_int_equal(hear(FRAME_WELCOME, "{}", &said, true, &err), -EPROTO);
    assert_int_equal(hear(FRAME_WELCOME, "{\"version\":1,\"new\":{}}", &said, true, &err), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_one_side_says_the_other_understands),
        cmocka_unit_test(who_speaks_newer_versions_too_is_answered_in_this_one),
        cmocka_unit_test(who_speaks_newer_versions_only_is_told_which_there_are),
        cmocka_unit_test(a_hello_that_makes_no_sense_is_refused_in_words),
        cmocka_unit_test(another_frame_in_its_place_is_refused),
        cmocka_unit_test(a_welcome_in_a_version_that_was_not_offered_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
