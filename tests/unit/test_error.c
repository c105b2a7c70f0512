/* SPDX-License-Identifier: Apache-2.0 */
/* error: what the operator reads, however long the words get. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "vmrun/error.h"

static void an_error_has_its_code_and_its_words(void **state)
{
    struct error err;

    (void)state;
    assert_int_equal(error_set(&err, ENOENT, "no %s here", "kernel"), -ENOENT);
    assert_int_equal(err.code, ENOENT);
    assert_string_equal(err.msg, "no kernel here");
}

static void a_failed_system_call_says_why(void **state)
{
    struct error err;

    (void)state;
    assert_int_equal(error_errno(&err, EACCES, "open '%s'", "disk.img"), -EACCES);
    assert_int_equal(err.code, EACCES);
    assert_string_equal(err.msg, "open 'disk.img': Permission denied");
}

static void context_is_put_in_front_as_an_error_climbs(void **state)
{
    struct error err;

    (void)state;
    error_set(&err, EINVAL, "too small");
    assert_int_equal(error_prefix(&err, "disks[%d]", 0), -EINVAL);
    assert_int_equal(error_prefix(&err, "web1.json"), -EINVAL);
    assert_string_equal(err.msg, "web1.json: disks[0]: too small");
    assert_int_equal(err.code, EINVAL);
}

static void words_that_are_too_long_are_cut_and_nothing_else_is_touched(void **state)
{
    struct {
        struct error err;
        char beyond[8];
    } s;
    char words[2000];

    (void)state;
    memset(words, 'w', sizeof(words));
    words[sizeof(words) - 1] = '\0';
    memcpy(s.beyond, "beyond!", 8);

    error_set(&s.err, EIO, "%s", words);
    assert_int_equal(strlen(s.err.msg), sizeof(s.err.msg) - 1);
    error_errno(&s.err, EIO, "%s", words);
    assert_int_equal(strlen(s.err.msg), sizeof(s.err.msg) - 1);
    error_prefix(&s.err, "%s", words);
    assert_int_equal(strlen(s.err.msg), sizeof(s.err.msg) - 1);
    error_set(&s.err, EIO, "cause");
    error_prefix(&s.err, "%.500s", words);
    assert_string_equal(s.err.msg + 500, ": cause");
    assert_string_equal(s.beyond, "beyond!");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_error_has_its_code_and_its_words),
        cmocka_unit_test(a_failed_system_call_says_why),
        cmocka_unit_test(context_is_put_in_front_as_an_error_climbs),
        cmocka_unit_test(words_that_are_too_long_are_cut_and_nothing_else_is_touched),
    };
    return cmocka_run_group_tests_name("error", tests, NULL, NULL);
}
