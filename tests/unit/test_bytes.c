/* SPDX-License-Identifier: Apache-2.0 */
/* bytes: little-endian streams that remember their first failure. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "vmrun/bytes.h"

static void numbers_are_written_little_endian(void **state)
{
    static const uint8_t expected[] = {0x12, 0x34, 0x12, 0x78, 0x56, 0x34, 0x12, 8,
                                       7,    6,    5,    4,    3,    2,    1};
    struct writer w = {0};

    (void)state;
    put_uint(&w, 0x12, 1);
    put_uint(&w, 0x1234, 2);
    put_uint(&w, 0x12345678, 4);
    put_uint(&w, 0x0102030405060708, 8);

    assert_false(w.failed);
    assert_int_equal(w.len, sizeof(expected));
    assert_memory_equal(w.data, expected, sizeof(expected));
    free(w.data);
}

static void what_was_written_is_read_back(void **state)
{
    struct writer w = {0};

    (void)state;
    for (uint64_t i = 0; i < 10000; i++)
        put_uint(&w, i * UINT64_C(0x9e3779b97f4a7c15), 8);
    put_bytes(&w, "end", 3);
    assert_false(w.failed);

    struct reader r = {.data = w.data, .len = w.len};
    for (uint64_t i = 0; i < 10000; i++)
        assert_true(get_uint(&r, 8) == i * UINT64_C(0x9e3779b97f4a7c15));
    assert_memory_equal(get_bytes(&r, 3), "end", 3);
    assert_false(r.failed);
    assert_int_equal(r.at, r.len);
    free(w.data);
}

static void a_read_past_the_end_gives_zeros_from_then_on(void **state)
{
    static const uint8_t data[] = {1, 2, 3};
    struct reader r = {.data = data, .len = sizeof(data)};

    (void)state;
    assert_int_equal(get_uint(&r, 1), 1);
    assert_int_equal(get_uint(&r, 4), 0);
    assert_true(r.failed);
    assert_int_equal(get_uint(&r, 1), 0); /* though two bytes are left */
    assert_null(get_bytes(&r, 0));
}

static void a_length_that_wraps_around_is_refused(void **state)
{
    static const uint8_t data[] = {1, 2, 3};
    struct reader r = {.data = data, .len = sizeof(data)};

    (void)state;
    get_uint(&r, 2);
    assert_null(get_bytes(&r, SIZE_MAX));
    assert_true(r.failed);
}

static void no_bytes_are_no_failure(void **state)
{
    struct writer w = {0};
    struct reader r = {0};

    (void)state;
    put_bytes(&w, NULL, 0);
    assert_false(w.failed);
    assert_int_equal(w.len, 0);
    assert_non_null(get_bytes(&r, 0));
    assert_false(r.failed);
}

static void a_writer_that_cannot_grow_fails_and_keeps_what_it_has(void **state)
{
    volatile size_t too_much = SIZE_MAX;
    struct writer w = {0};

    (void)state;
    put_uint(&w, 7, 1);
    put_bytes(&w, "x", too_much);
    assert_true(w.failed);
    put_uint(&w, 8, 1);
    assert_int_equal(w.len, 1);
    assert_int_equal(w.data[0], 7);
    free(w.data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_are_written_little_endian),
        cmocka_unit_test(what_was_written_is_read_back),
        cmocka_unit_test(a_read_past_the_end_gives_zeros_from_then_on),
        cmocka_unit_test(a_length_that_wraps_around_is_refused),
        cmocka_unit_test(no_bytes_are_no_failure),
        cmocka_unit_test(a_writer_that_cannot_grow_fails_and_keeps_what_it_has),
    };
    return cmocka_run_group_tests_name("bytes", tests, NULL, NULL);
}
