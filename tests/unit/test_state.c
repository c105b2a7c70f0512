/* SPDX-License-Identifier: Apache-2.0 */
/* state: what a table promises, against every stream that breaks it. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "vmrun/state.h"

struct thing {
    uint8_t small;
    bool flag;
    uint16_t model;
    uint32_t words[3];
    uint64_t wide;
    int not_saved;
    unsigned fetched, rebuilt;
    int answer; /* of both hooks */
};

static int fetch(void *obj, struct error *err)
{
    struct thing *t = obj;

    t->fetched++;
    return t->answer < 0 ? error_set(err, EIO, "clock is gone") : 0;
}

static int rebuild(void *obj, struct error *err)
{
    struct thing *t = obj;

    t->rebuilt++;
    return t->answer < 0 ? error_set(err, EPROTO, "fields contradict") : 0;
}

static const struct state_field fields[] = {
    STATE(struct thing, small, .max = 5),      STATE(struct thing, flag),
    STATE(struct thing, model, .match = true), STATE_ARRAY(struct thing, words),
    STATE(struct thing, wide, .since = 2),     STATE_END,
};
static const struct state_desc desc = {
    .name = "thing", .version = 2, .fields = fields, .pre_save = fetch, .post_load = rebuild};

static const struct thing sample = {.small = 5,
                                    .flag = true,
                                    .model = 0x16f8,
                                    .words = {1, 0x80000000, UINT32_MAX},
                                    .wide = UINT64_C(0x0102030405060708),
                                    .not_saved = -1};

static struct writer save(const struct thing *from)
{
    struct thing t = *from;
    struct writer w = {0};
    struct error err;

    assert_int_equal(state_save(&desc, &t, &w, &err), 0);
    assert_int_equal(t.fetched, 1);
    return w;
}

static int load(struct thing *t, const struct writer *w, struct error *err)
{
    struct reader r = {.data = w->data, .len = w->len};

    memset(t, 0, sizeof(*t));
    t->model = 0x16f8;
    return state_load(&desc, t, &r, err);
}

/* A stream by hand: version, the number of fields, and each field. */
static struct writer begin(uint32_t version, unsigned count)
{
    struct writer w = {0};

    put_uint(&w, version, 4);
    put_uint(&w, count, 2);
    return w;
}

static void add(struct writer *w, const char *name, unsigned size, uint32_t count, uint64_t value)
{
    put_uint(w, strlen(name), 1);
    put_bytes(w, name, strlen(name));
    put_uint(w, size, 1);
    put_uint(w, count, 4);
    for (uint32_t i = 0; i < count; i++)
        put_uint(w, value, size);
}

/* Load the stream, which must be refused with these words, and free it. */
static void refused(struct writer *w, int code, const char *words)
{
    struct thing t;
    struct error err;

    assert_int_equal(load(&t, w, &err), code);
    assert_string_equal(err.msg, words);
    assert_int_equal(t.rebuilt, 0);
    free(w->data);
}

static void what_is_saved_is_loaded_and_nothing_else(void **state)
{
    struct writer w = save(&sample);
    struct thing t;
    struct error err;

    (void)state;
    assert_int_equal(load(&t, &w, &err), 0);
    assert_int_equal(t.small, 5);
    assert_true(t.flag);
    assert_memory_equal(t.words, sample.words, sizeof(t.words));
    assert_true(t.wide == sample.wide);
    assert_int_equal(t.not_saved, 0);
    assert_int_equal(t.rebuilt, 1);
    free(w.data);
}

static void the_bytes_on_the_wire_are_these(void **state)
{
    static const struct state_field two[] = {STATE(struct thing, flag), STATE(struct thing, model),
                                             STATE_END};
    static const struct state_desc small = {.name = "s", .version = 1, .fields = two};
    static const uint8_t expected[] = "\x01\0\0\0\x02\0\x04"
                                      "flag\x01\x01\0\0\0\x01\x05"
                                      "model\x02\x01\0\0\0\xf8\x16";
    struct thing t = sample;
    struct writer w = {0};
    struct error err;

    (void)state;
    assert_int_equal(state_save(&small, &t, &w, &err), 0);
    assert_int_equal(w.len, sizeof(expected) - 1);
    assert_memory_equal(w.data, expected, w.len);
    free(w.data);
}

static void a_stream_cut_anywhere_is_refused(void **state)
{
    struct writer w = save(&sample);
    struct error err;

    (void)state;
    for (size_t len = 0; len < w.len; len++) {
        struct writer cut = {.data = malloc(len ? len : 1), .len = len};
        struct thing t;

        memcpy(cut.data, w.data,
               len); /* a copy of just that size: a sanitizer sees one byte more */
        assert_int_equal(load(&t, &cut, &err), -EPROTO);
        assert_int_equal(t.rebuilt, 0);
        free(cut.data);
    }
    free(w.data);
}

static void bytes_after_the_last_field_are_left_for_the_next_reader(void **state)
{
    struct writer w = save(&sample);
    size_t len = w.len;
    struct thing t = {.model = 0x16f8};
    struct error err;

    (void)state;
    put_uint(&w, 0xabcd, 2);
    struct reader r = {.data = w.data, .len = w.len};
    assert_int_equal(state_load(&desc, &t, &r, &err), 0);
    assert_int_equal(r.at, len);
    free(w.data);
}

static void any_one_byte_changed_is_refused_or_loads_within_bounds(void **state)
{
    struct writer w = save(&sample);
    struct error err;
    struct thing t;

    (void)state;
    for (size_t i = 0; i < w.len; i++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            w.data[i] ^= (uint8_t)(1u << bit);
            if (load(&t, &w, &err) == 0) {
                assert_true(t.small <= 5);
                assert_int_equal(t.model, 0x16f8);
            }
            w.data[i] ^= (uint8_t)(1u << bit);
        }
    }
    free(w.data);
}

static void a_value_over_its_maximum_is_refused(void **state)
{
    struct writer w = begin(2, 1);

    (void)state;
    add(&w, "small", 1, 1, 6);
    refused(&w, -EPROTO, "thing: small: 6 is over 5");
}

static void a_bool_that_is_neither_0_nor_1_is_refused(void **state)
{
    struct writer w = begin(2, 1);

    (void)state;
    add(&w, "flag", 1, 1, 2);
    refused(&w, -EPROTO, "thing: flag: 2 is over 1");
}

static void a_field_that_must_match_is_compared(void **state)
{
    struct writer w = begin(2, 1);

    (void)state;
    add(&w, "model", 2, 1, 1);
    refused(&w, -EPROTO, "thing: model: source has 1, target has 5880");
}

static void a_field_of_another_shape_is_refused(void **state)
{
    static const struct {
        const char *name;
        unsigned size;
        uint32_t count;
    } shapes[] = {{"small", 2, 1}, {"small", 1, 2}, {"small", 1, 0},          {"small", 0, 1},
                  {"words", 4, 2}, {"words", 8, 3}, {"words", 4, UINT32_MAX}, {"wide", 255, 1}};

    (void)state;
    for (unsigned i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        struct writer w = begin(2, 1);
        struct thing t;
        struct error err;

        add(&w, shapes[i].name, shapes[i].size, 0, 0);
        w.len -= 4;
        put_uint(&w, shapes[i].count, 4);
        assert_int_equal(load(&t, &w, &err), -EPROTO);
        assert_non_null(strstr(err.msg, "has the wrong shape"));
        free(w.data);
    }
}

static void an_unknown_field_is_refused_by_its_name(void **state)
{
    struct writer w = begin(2, 1);

    (void)state;
    add(&w, "colour", 1, 1, 0);
    refused(&w, -EPROTO, "thing: unknown field 'colour'");
}

static void a_name_that_is_only_the_beginning_of_one_is_unknown(void **state)
{
    struct writer w = begin(2, 1), empty = begin(2, 1), longer = begin(2, 1);

    (void)state;
    add(&w, "sma", 1, 1, 0);
    refused(&w, -EPROTO, "thing: unknown field 'sma'");
    add(&longer, "smaller", 1, 1, 0);
    refused(&longer, -EPROTO, "thing: unknown field 'smaller'");
    add(&empty, "", 1, 1, 0);
    refused(&empty, -EPROTO, "thing: unknown field ''");
}

static void a_hostile_name_cannot_write_on_the_terminal(void **state)
{
    struct writer w = begin(2, 1), longest = begin(2, 1);
    char name[256];

    (void)state;
    add(&w, "\033[2J\nvmrun: all is well", 1, 1, 0);
    refused(&w, -EPROTO, "thing: unknown field '?[2J?vmrun:?all?is?well'");
    memset(name, 'n', 255);
    name[255] = '\0';
    add(&longest, name, 1, 1, 0);
    refused(&longest, -EPROTO, "thing: unknown field 'nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn'");
}

static void a_field_that_comes_twice_is_refused(void **state)
{
    struct writer w = begin(2, 2);

    (void)state;
    add(&w, "small", 1, 1, 1);
    add(&w, "small", 1, 1, 1);
    refused(&w, -EPROTO, "thing: small comes twice");
}

static void a_missing_field_is_refused(void **state)
{
    struct writer w = begin(2, 3);

    (void)state;
    add(&w, "small", 1, 1, 1);
    add(&w, "flag", 1, 1, 1);
    add(&w, "words", 4, 3, 1);
    refused(&w, -EPROTO, "thing: model is missing");
}

static void fields_may_come_in_any_order(void **state)
{
    struct writer w = begin(2, 5);
    struct error err;
    struct thing t;

    (void)state;
    add(&w, "wide", 8, 1, 9);
    add(&w, "words", 4, 3, 8);
    add(&w, "model", 2, 1, 0x16f8);
    add(&w, "flag", 1, 1, 1);
    add(&w, "small", 1, 1, 3);
    assert_int_equal(load(&t, &w, &err), 0);
    assert_int_equal(t.wide, 9);
    assert_int_equal(t.words[2], 8);
    free(w.data);
}

static void an_older_version_may_lack_the_fields_of_a_newer_one(void **state)
{
    struct writer w = begin(1, 4);
    struct error err;
    struct thing t;

    (void)state;
    add(&w, "small", 1, 1, 1);
    add(&w, "flag", 1, 1, 1);
    add(&w, "model", 2, 1, 0x16f8);
    add(&w, "words", 4, 3, 1);
    assert_int_equal(load(&t, &w, &err), 0);
    assert_int_equal(t.wide, 0);
    w.data[0] = 2;
    refused(&w, -EPROTO, "thing: wide is missing");
}

static void a_newer_version_is_refused_as_such(void **state)
{
    struct writer w = save(&sample);

    (void)state;
    w.data[0] = 3;
    refused(&w, -ENOTSUP, "thing: version 3 is newer than 2");
}

static void what_a_hook_says_comes_back_with_the_name_in_front(void **state)
{
    struct thing t = {.answer = -1, .model = 0x16f8};
    struct writer w = {0}, good = save(&sample);
    struct reader r = {.data = good.data, .len = good.len};
    struct error err;

    (void)state;
    assert_int_equal(state_save(&desc, &t, &w, &err), -EIO);
    assert_string_equal(err.msg, "thing: clock is gone");
    assert_int_equal(w.len, 0);
    assert_int_equal(state_load(&desc, &t, &r, &err), -EPROTO);
    assert_string_equal(err.msg, "thing: fields contradict");
    free(good.data);
}

static void a_writer_that_failed_makes_the_save_fail(void **state)
{
    struct thing t = sample;
    struct writer w = {.failed = true};
    struct error err;

    (void)state;
    assert_int_equal(state_save(&desc, &t, &w, &err), -ENOMEM);
    assert_string_equal(err.msg, "thing: out of memory");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_saved_is_loaded_and_nothing_else),
        cmocka_unit_test(the_bytes_on_the_wire_are_these),
        cmocka_unit_test(a_stream_cut_anywhere_is_refused),
        cmocka_unit_test(bytes_after_the_last_field_are_left_for_the_next_reader),
        cmocka_unit_test(any_one_byte_changed_is_refused_or_loads_within_bounds),
        cmocka_unit_test(a_value_over_its_maximum_is_refused),
        cmocka_unit_test(a_bool_that_is_neither_0_nor_1_is_refused),
        cmocka_unit_test(a_field_that_must_match_is_compared),
        cmocka_unit_test(a_field_of_another_shape_is_refused),
        cmocka_unit_test(an_unknown_field_is_refused_by_its_name),
        cmocka_unit_test(a_name_that_is_only_the_beginning_of_one_is_unknown),
        cmocka_unit_test(a_hostile_name_cannot_write_on_the_terminal),
        cmocka_unit_test(a_field_that_comes_twice_is_refused),
        cmocka_unit_test(a_missing_field_is_refused),
        cmocka_unit_test(fields_may_come_in_any_order),
        cmocka_unit_test(an_older_version_may_lack_the_fields_of_a_newer_one),
        cmocka_unit_test(a_newer_version_is_refused_as_such),
        cmocka_unit_test(what_a_hook_says_comes_back_with_the_name_in_front),
        cmocka_unit_test(a_writer_that_failed_makes_the_save_fail),
    };
    return cmocka_run_group_tests_name("state", tests, NULL, NULL);
}
