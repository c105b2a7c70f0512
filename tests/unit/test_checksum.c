/* SPDX-License-Identifier: Apache-2.0 */
/* The checksum is XXH3-64 on every CPU, at once or in pieces, wherever its state lies. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "../../src/migration/checksum.h"

#define MOST 5000u

static uint8_t data[MOST];

static int fill(void **state)
{
    (void)state;
    for (unsigned i = 0; i < MOST; i++)
        data[i] = (uint8_t)(i * 31 + i / 256);
    return 0;
}

static const struct checksum_ops *kinds[] = {
    &checksum_plain,
#ifdef __x86_64__
    &checksum_avx2,
#endif
};

/* How many of them this CPU can run. */
static unsigned kind_count(void)
{
#ifdef __x86_64__
    if (!__builtin_cpu_supports("avx2"))
        print_message("this CPU has no AVX2: that one is not tried\n");
    return __builtin_cpu_supports("avx2") ? 2 : 1;
#else
    return 1;
#endif
}

static void nothing_has_the_checksum_that_is_published(void **state)
{
    (void)state;
    assert_int_equal(checksum_of(NULL, 0), UINT64_C(0x2d06800538d394c2));
}

static void every_length_up_to_5000_has_the_checksum_of_xxh3(void **state)
{
    (void)state;
    for (unsigned k = 0; k < kind_count(); k++)
        for (unsigned len = 0; len <= MOST; len++)
            assert_int_equal(kinds[k]->of(data, len), XXH3_64bits(data, len));
}

static void pieces_have_the_checksum_of_the_whole(void **state)
{
    (void)state;
    for (unsigned k = 0; k < kind_count(); k++)
        for (unsigned piece = 1; piece < 1500; piece += 13) {
            struct checksum checksum;

            kinds[k]->begin(&checksum);
            for (unsigned at = 0; at < MOST; at += piece)
                kinds[k]->add(&checksum, data + at, MOST - at < piece ? MOST - at : piece);
            assert_int_equal(kinds[k]->end(&checksum), XXH3_64bits(data, MOST));
        }
}

static void a_state_may_lie_anywhere(void **state)
{
    static uint8_t memory[sizeof(struct checksum) + 64];

    (void)state;
    for (unsigned k = 0; k < kind_count(); k++)
        for (unsigned at = 0; at < 64; at++) {
            struct checksum *checksum = (struct checksum *)(memory + at);

            kinds[k]->begin(checksum);
            kinds[k]->add(checksum, data, MOST);
            assert_int_equal(kinds[k]->end(checksum), XXH3_64bits(data, MOST));
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_has_the_checksum_that_is_published),
        cmocka_unit_test(every_length_up_to_5000_has_the_checksum_of_xxh3),
        cmocka_unit_test(pieces_have_the_checksum_of_the_whole),
        cmocka_unit_test(a_state_may_lie_anywhere),
    };

    return cmocka_run_group_tests_name("checksum", tests, fill, NULL);
}
