/* SPDX-License-Identifier: Apache-2.0 */
/* text: the small grammars that people type. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "vmrun/text.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static void sizes_are_in_powers_of_1024(void **state)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {
        {"0", 0},
        {"512", 512},
        {"1K", 1024},
        {"512M", 512ull << 20},
        {"512MB", 512ull << 20},
        {"512MiB", 512ull << 20},
        {"4g", 4ull << 30},
        {"2T", 2ull << 40},
        {"007K", 7 * 1024},
        {"9223372036854775807", INT64_MAX},
        {"8388607T", 8388607ull << 40},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(good); i++) {
        uint64_t bytes = 1;

        assert_int_equal(text_parse_size(good[i].text, &bytes), 0);
        assert_true(bytes == good[i].bytes);
    }
}

static void what_is_no_size_is_refused_and_nothing_is_returned(void **state)
{
    static const struct {
        const char *text;
        int code;
    } bad[] = {
        {"", -EINVAL},
        {"M", -EINVAL},
        {"-1", -EINVAL},
        {"+1", -EINVAL},
        {" 1", -EINVAL},
        {"1 ", -EINVAL},
        {"1 M", -EINVAL},
        {"1.5G", -EINVAL},
        {"1X", -EINVAL},
        {"1B", -EINVAL},
        {"1MM", -EINVAL},
        {"1MiBs", -EINVAL},
        {"0x10", -EINVAL},
        {"9223372036854775808", -ERANGE},
        {"99999999999999999999999", -ERANGE},
        {"8388608T", -ERANGE},
        {"18014398509481984K", -ERANGE},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(bad); i++) {
        uint64_t bytes = 77;

        assert_int_equal(text_parse_size(bad[i].text, &bytes), bad[i].code);
        assert_int_equal(bytes, 77);
    }
}

static void numbers_are_decimal_or_hexadecimal(void **state)
{
    uint64_t value;

    (void)state;
    assert_int_equal(text_parse_uint("010", 100, &value), 0);
    assert_int_equal(value, 10);
    assert_int_equal(text_parse_uint("0x1F", 100, &value), 0);
    assert_int_equal(value, 31);
    assert_int_equal(text_parse_uint("18446744073709551615", UINT64_MAX, &value), 0);
    assert_true(value == UINT64_MAX);
}

static void what_is_no_number_is_refused(void **state)
{
    static const char *const bad[] = {"",
                                      "-1",
                                      "+1",
                                      " 1",
                                      "1 ",
                                      "1k",
                                      "x1",
                                      "0x",
                                      "0x-1",
                                      "0x 1",
                                      "0xg",
                                      "0x0x1",
                                      "99999999999999999999x"};
    uint64_t value = 77;

    (void)state;
    for (size_t i = 0; i < COUNT(bad); i++)
        assert_int_equal(text_parse_uint(bad[i], UINT64_MAX, &value), -EINVAL);
    assert_int_equal(text_parse_uint("101", 100, &value), -ERANGE);
    assert_int_equal(text_parse_uint("18446744073709551616", UINT64_MAX, &value), -ERANGE);
    assert_int_equal(value, 77);
}

static void sizes_are_shown_in_the_largest_unit_that_divides_them(void **state)
{
    char buf[24];

    (void)state;
    assert_string_equal(text_format_size(0, buf, sizeof(buf)), "0");
    assert_string_equal(text_format_size(1023, buf, sizeof(buf)), "1023");
    assert_string_equal(text_format_size(1025, buf, sizeof(buf)), "1025");
    assert_string_equal(text_format_size(512ull << 20, buf, sizeof(buf)), "512M");
    assert_string_equal(text_format_size(1536ull << 20, buf, sizeof(buf)), "1536M");
    assert_string_equal(text_format_size(UINT64_C(1) << 63, buf, sizeof(buf)), "8388608T");
    assert_string_equal(text_format_size(UINT64_MAX, buf, sizeof(buf)), "18446744073709551615");
}

static void a_size_that_is_shown_is_read_back(void **state)
{
    char buf[24];
    uint64_t back;

    (void)state;
    for (unsigned shift = 0; shift < 63; shift++) {
        uint64_t size = (UINT64_C(1) << shift) + (shift > 12 ? 4096 : 0);

        assert_int_equal(text_parse_size(text_format_size(size, buf, sizeof(buf)), &back), 0);
        assert_true(back == size);
    }
}

static void durations_are_shown_in_their_two_largest_units(void **state)
{
    char buf[24];

    (void)state;
    assert_string_equal(text_format_duration(0, buf, sizeof(buf)), "0s");
    assert_string_equal(text_format_duration(59, buf, sizeof(buf)), "59s");
    assert_string_equal(text_format_duration(62, buf, sizeof(buf)), "1m 2s");
    assert_string_equal(text_format_duration(3599, buf, sizeof(buf)), "59m 59s");
    assert_string_equal(text_format_duration(3600, buf, sizeof(buf)), "1h 0m");
    assert_string_equal(text_format_duration(93784, buf, sizeof(buf)), "1d 2h");
    assert_string_equal(text_format_duration(UINT64_MAX, buf, sizeof(buf)), "213503982334601d 7h");
}

static void a_slip_of_the_finger_finds_the_word_that_was_meant(void **state)
{
    static const char *const words[] = {"memory", "machine", "cpus", "disks", "nets", NULL};

    (void)state;
    assert_string_equal(text_nearest("memroy", words), "memory"); /* neighbours swapped */
    assert_string_equal(text_nearest("memor", words), "memory");
    assert_string_equal(text_nearest("mmemory", words), "memory");
    assert_string_equal(text_nearest("cpu", words), "cpus");
    assert_string_equal(text_nearest("disks", words), "disks");
    assert_string_equal(text_nearest("nats", words), "nets");
}

static void a_word_that_is_near_to_none_finds_none(void **state)
{
    static const char *const words[] = {"memory", "cpus", "", NULL};
    static const char *const none[] = {NULL};

    (void)state;
    assert_null(text_nearest("", words));
    assert_null(text_nearest("kernel", words));
    assert_null(text_nearest("cp", none));
    assert_null(text_nearest("a word that is far too long for anything", words));
}

static void a_cards_address_is_six_bytes_of_one_station(void **state)
{
    static const uint8_t expected[6] = {0x52, 0x54, 0x00, 0xab, 0xCD, 0xff};
    static const char *const bad[] = {"",
                                      "52:54:00:ab:cd",
                                      "52:54:00:ab:cd:f",
                                      "52:54:00:ab:cd:ff:",
                                      "52:54:00:ab:cd:ff:00",
                                      "5:54:00:ab:cd:ff0",
                                      "52-54-00-ab-cd-ff",
                                      "52:54:00:ab:cd:fg",
                                      "53:54:00:ab:cd:ff",
                                      "ff:ff:ff:ff:ff:ff",
                                      " 2:54:00:ab:cd:ff"};
    uint8_t mac[6] = {9, 9, 9, 9, 9, 9};

    (void)state;
    for (size_t i = 0; i < COUNT(bad); i++) {
        assert_int_equal(text_parse_mac(bad[i], mac), -EINVAL);
        assert_int_equal(mac[0], 9);
    }
    assert_int_equal(text_parse_mac("52:54:00:aB:cD:ff", mac), 0);
    assert_memory_equal(mac, expected, 6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_are_in_powers_of_1024),
        cmocka_unit_test(what_is_no_size_is_refused_and_nothing_is_returned),
        cmocka_unit_test(numbers_are_decimal_or_hexadecimal),
        cmocka_unit_test(what_is_no_number_is_refused),
        cmocka_unit_test(sizes_are_shown_in_the_largest_unit_that_divides_them),
        cmocka_unit_test(a_size_that_is_shown_is_read_back),
        cmocka_unit_test(durations_are_shown_in_their_two_largest_units),
        cmocka_unit_test(a_slip_of_the_finger_finds_the_word_that_was_meant),
        cmocka_unit_test(a_word_that_is_near_to_none_finds_none),
        cmocka_unit_test(a_cards_address_is_six_bytes_of_one_station),
    };
    return cmocka_run_group_tests_name("text", tests, NULL, NULL);
}
