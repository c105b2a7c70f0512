/* SPDX-License-Identifier: Apache-2.0 */
/* scrollback: an endless stream of which the end is held. Byte n of it is pattern(n). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "../../src/backends/scrollback.h"

#define LIMIT 65536

static uint8_t pattern(uint64_t at)
{
    return (uint8_t)(at * 131 + at / 256);
}

static size_t append(struct scrollback *s, size_t len, uint64_t keep)
{
    uint8_t data[3 * LIMIT];

    for (size_t i = 0; i < len; i++)
        data[i] = pattern(s->head + i);
    return scrollback_append(s, data, len, keep);
}

/* Everything from `at` to the head is what was appended there. */
static void check_from(const struct scrollback *s, uint64_t at)
{
    size_t len;

    while (at < s->head) {
        const uint8_t *data = scrollback_peek(s, at, &len);

        assert_true(len > 0 && at + len <= s->head);
        for (size_t i = 0; i < len; i++)
            assert_int_equal(data[i], pattern(at + i));
        at += len;
    }
    assert_null(scrollback_peek(s, s->head, &len));
    assert_int_equal(len, 0);
}

static void what_is_appended_is_held_up_to_the_limit(void **state)
{
    struct scrollback s = {.limit = LIMIT};

    (void)state;
    for (unsigned i = 0; i < 1000; i++) {
        size_t len = i * 37 % 511;

        assert_int_equal(append(&s, len, s.head + len), len);
        assert_true(s.head - scrollback_tail(&s) <= LIMIT);
        check_from(&s, scrollback_tail(&s));
    }
    assert_true(s.head - scrollback_tail(&s) == LIMIT);
    scrollback_fini(&s);
}

static void memory_grows_with_what_is_held(void **state)
{
    struct scrollback s = {.limit = LIMIT};

    (void)state;
    assert_int_equal(s.room, 0);
    append(&s, 1, 0);
    assert_int_equal(s.room, 4096);
    append(&s, 4096, 0);
    assert_int_equal(s.room, 8192);
    check_from(&s, 0);
    scrollback_fini(&s);
    assert_null(s.data);
}

static void what_a_reader_still_needs_is_not_overwritten(void **state)
{
    struct scrollback s = {.limit = LIMIT};

    (void)state;
    assert_int_equal(append(&s, 100, 0), 100);
    assert_int_equal(append(&s, 2 * LIMIT, 50), LIMIT - 50);
    assert_int_equal(append(&s, 1, 50), 0);
    check_from(&s, 50);
    assert_int_equal(append(&s, 10, 53), 3);
    check_from(&s, 53);
    scrollback_fini(&s);
}

static void more_than_it_holds_in_one_go_leaves_the_end(void **state)
{
    struct scrollback s = {.limit = LIMIT};

    (void)state;
    assert_int_equal(append(&s, 3 * LIMIT - 7, UINT64_MAX), 3 * LIMIT - 7);
    assert_true(scrollback_tail(&s) == 2 * LIMIT - 7);
    check_from(&s, scrollback_tail(&s));
    scrollback_fini(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_appended_is_held_up_to_the_limit),
        cmocka_unit_test(memory_grows_with_what_is_held),
        cmocka_unit_test(what_a_reader_still_needs_is_not_overwritten),
        cmocka_unit_test(more_than_it_holds_in_one_go_leaves_the_end),
    };
    return cmocka_run_group_tests_name("scrollback", tests, NULL, NULL);
}
