/* SPDX-License-Identifier: Apache-2.0 */
/* registry: a whole machine's state as one stream, and every way in which a stream can be wrong. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "vmrun/state.h"

/* Which objects were loaded, in this order. */
static char order[64];

struct lamp {
    uint16_t colour;
    uint8_t level;
    char mark;
};

struct meter {
    int8_t trim;
    int64_t total;
    int32_t steps[2];
    unsigned long long kernel_word;
    int answer; /* of pre_save */
};

static int note(void *obj, struct error *err)
{
    (void)err;
    strncat(order, &((struct lamp *)obj)->mark, 1);
    return 0;
}

static int fetch(void *obj, struct error *err)
{
    return ((struct meter *)obj)->answer < 0 ? error_set(err, EIO, "no reading") : 0;
}

static const struct state_field lamp_fields[] = {STATE(struct lamp, colour),
                                                 STATE(struct lamp, level, .max = 9), STATE_END};
static const struct state_field meter_fields[] = {
    STATE(struct meter, trim), STATE(struct meter, total), STATE_ARRAY(struct meter, steps),
    STATE(struct meter, kernel_word), STATE_END};
static const struct state_desc lamp_desc = {
    .name = "lamp", .version = 1, .fields = lamp_fields, .post_load = note};
static const struct state_desc meter_desc = {
    .name = "meter", .version = 1, .fields = meter_fields, .pre_save = fetch};

struct house {
    struct state_registry *registry;
    struct lamp a, b;
    struct meter meter;
};

static void build(struct house *h)
{
    struct error err;

    *h = (struct house){
        .a = {.colour = 0x1234, .level = 1, .mark = 'a'},
        .b = {.colour = 0xabcd, .level = 9, .mark = 'b'},
        .meter = {.trim = -3,
                  .total = INT64_MIN,
                  .steps = {-1, INT32_MAX},
                  .kernel_word = UINT64_MAX - 1},
    };
    order[0] = '\0';
    assert_int_equal(state_registry_create(&h->registry, &err), 0);
    assert_int_equal(state_registry_add(h->registry, "lamp0", &lamp_desc, &h->a, NULL, &err), 0);
    assert_int_equal(state_registry_add(h->registry, "meter", &meter_desc, &h->meter, NULL, &err),
                     0);
    assert_int_equal(state_registry_add(h->registry, "lamp1", &lamp_desc, &h->b, NULL, &err), 0);
}

static struct writer save(struct house *h)
{
    struct writer w = {0};
    struct error err;

    assert_int_equal(state_registry_save(h->registry, &w, &err), 0);
    return w;
}

static int load(struct house *h, const struct writer *w, struct error *err)
{
    struct reader r = {.data = w->data, .len = w->len};

    return state_registry_load(h->registry, &r, err);
}

/* An entry by hand, around what a table put. */
static void put_entry(struct writer *w, const char *id, const void *data, size_t len)
{
    put_uint(w, strlen(id), 1);
    put_bytes(w, id, strlen(id));
    put_uint(w, len, 4);
    put_bytes(w, data, len);
}

static void put_lamp(struct writer *w, const char *id, struct lamp lamp)
{
    struct writer one = {0};
    struct error err;

    assert_int_equal(state_save(&lamp_desc, &lamp, &one, &err), 0);
    put_entry(w, id, one.data, one.len);
    free(one.data);
}

static void put_meter(struct writer *w, struct meter meter)
{
    struct writer one = {0};
    struct error err;

    assert_int_equal(state_save(&meter_desc, &meter, &one, &err), 0);
    put_entry(w, "meter", one.data, one.len);
    free(one.data);
}

/* Load the stream, which must be refused with these words before any object was touched; free it.
 */
static void refused(struct writer *w, const char *words)
{
    struct house h;
    struct error err;

    build(&h);
    assert_int_equal(load(&h, w, &err), -EPROTO);
    assert_string_equal(err.msg, words);
    assert_int_equal(h.a.colour, 0x1234);
    assert_string_equal(order, "");
    state_registry_destroy(h.registry);
    free(w->data);
}

static void what_is_saved_is_loaded_into_another_machine(void **state)
{
    struct house h, other;
    struct error err;

    (void)state;
    build(&h);
    struct writer w = save(&h);
    build(&other);
    other.a = other.b = (struct lamp){.mark = 'x'};
    other.meter = (struct meter){0};
    assert_int_equal(load(&other, &w, &err), 0);
    assert_int_equal(other.a.colour, 0x1234);
    assert_int_equal(other.b.colour, 0xabcd);
    assert_int_equal(other.b.level, 9);
    state_registry_destroy(h.registry);
    state_registry_destroy(other.registry);
    free(w.data);
}

static void signed_numbers_travel_as_their_bits(void **state)
{
    struct house h;
    struct error err;

    (void)state;
    build(&h);
    struct writer w = save(&h);
    h.meter = (struct meter){0};
    assert_int_equal(load(&h, &w, &err), 0);
    assert_int_equal(h.meter.trim, -3);
    assert_true(h.meter.total == INT64_MIN);
    assert_int_equal(h.meter.steps[0], -1);
    assert_int_equal(h.meter.steps[1], INT32_MAX);
    assert_true(h.meter.kernel_word == UINT64_MAX - 1);
    state_registry_destroy(h.registry);
    free(w.data);
}

static void the_bytes_on_the_wire_are_these(void **state)
{
    static const uint8_t expected[] = "\x05"
                                      "lamp0\x20\0\0\0"
                                      "\x01\0\0\0\x02\0\x06"
                                      "colour\x02\x01\0\0\0\x34\x12\x05"
                                      "level\x01\x01\0\0\0\x07";
    struct writer w = {0};
    struct error err;
    struct state_registry *registry;
    struct lamp lamp = {.colour = 0x1234, .level = 7};

    (void)state;
    assert_int_equal(state_registry_create(&registry, &err), 0);
    assert_int_equal(state_registry_add(registry, "lamp0", &lamp_desc, &lamp, NULL, &err), 0);
    assert_int_equal(state_registry_save(registry, &w, &err), 0);
    assert_int_equal(w.len, sizeof(expected) - 1);
    assert_memory_equal(w.data, expected, w.len);
    state_registry_destroy(registry);
    free(w.data);
}

static void any_order_of_the_stream_is_loaded_in_the_order_of_the_registry(void **state)
{
    struct house h;
    struct writer w = {0};
    struct error err;

    (void)state;
    build(&h);
    put_lamp(&w, "lamp1", (struct lamp){.colour = 11, .mark = 'x'});
    put_meter(&w, (struct meter){.trim = 5});
    put_lamp(&w, "lamp0", (struct lamp){.colour = 10, .mark = 'x'});
    order[0] = '\0';
    assert_int_equal(load(&h, &w, &err), 0);
    assert_string_equal(order, "ab");
    assert_int_equal(h.a.colour, 10);
    assert_int_equal(h.b.colour, 11);
    assert_int_equal(h.meter.trim, 5);
    state_registry_destroy(h.registry);
    free(w.data);
}

static void a_stream_cut_anywhere_is_refused_before_it_is_loaded(void **state)
{
    struct house h;

    (void)state;
    build(&h);
    struct writer w = save(&h);
    for (size_t len = 0; len < w.len; len++) {
        struct writer cut = {.data = malloc(len ? len : 1), .len = len};
        struct error err;

        memcpy(cut.data, w.data, len); /* of just that size: a sanitizer sees one byte more */
        assert_int_equal(load(&h, &cut, &err), -EPROTO);
        assert_string_equal(order, "");
        free(cut.data);
    }
    state_registry_destroy(h.registry);
    free(w.data);
}

static void an_unknown_part_is_refused_by_its_name(void **state)
{
    struct writer w = {0};

    (void)state;
    put_lamp(&w, "lamp2", (struct lamp){0});
    refused(&w, "lamp2: this machine has no such part");
}

static void a_name_that_is_only_the_beginning_of_one_is_unknown(void **state)
{
    struct writer w = {0}, longer = {0};

    (void)state;
    put_lamp(&w, "lamp", (struct lamp){0});
    refused(&w, "lamp: this machine has no such part");
    put_lamp(&longer, "lamp00", (struct lamp){0});
    refused(&longer, "lamp00: this machine has no such part");
}

static void a_missing_part_is_refused_by_its_name(void **state)
{
    struct writer w = {0}, nothing = {0};

    (void)state;
    put_lamp(&w, "lamp0", (struct lamp){0});
    put_meter(&w, (struct meter){0});
    refused(&w, "lamp1: missing");
    refused(&nothing, "lamp0: missing");
}

static void a_part_that_comes_twice_is_refused(void **state)
{
    struct writer w = {0};

    (void)state;
    put_lamp(&w, "lamp0", (struct lamp){0});
    put_lamp(&w, "lamp0", (struct lamp){0});
    refused(&w, "lamp0: comes twice");
}

static void a_name_that_is_none_is_refused_and_not_printed(void **state)
{
    struct writer w = {0}, empty = {0}, longest = {0};
    char name[49];

    (void)state;
    put_entry(&w, "\033[2J", "", 0);
    refused(&w, "byte 1 of the state: no name");
    put_entry(&empty, "", "", 0);
    refused(&empty, "byte 1 of the state: no name");
    memset(name, 'n', 48);
    name[48] = '\0';
    put_entry(&longest, name, "", 0);
    refused(&longest, "byte 1 of the state: no name");
}

static void bytes_that_a_table_does_not_use_are_refused(void **state)
{
    struct house h;
    struct error err;

    (void)state;
    build(&h);
    struct writer w = {0}, one = {0}, told = {0};
    put_meter(&w, h.meter);
    put_lamp(&w, "lamp0", h.a);
    assert_int_equal(state_save(&lamp_desc, &h.b, &one, &err), 0);
    put_uint(&one, 0, 3);
    put_entry(&w, "lamp1", one.data, one.len);
    put_entry(&told, "lamp1", one.data, one.len);
    assert_int_equal(load(&h, &w, &err), -EPROTO);
    assert_string_equal(err.msg, "lamp1: 3 bytes too many");

    struct reader r = {.data = told.data, .len = told.len};
    assert_int_equal(state_registry_tell(&r, NULL, NULL, &err), -EPROTO);
    assert_string_equal(err.msg, "lamp1: bytes too many");
    state_registry_destroy(h.registry);
    free(w.data);
    free(one.data);
    free(told.data);
}

static void what_a_table_says_comes_back_with_the_id_in_front(void **state)
{
    struct house h;
    struct writer w = {0};
    struct error err;

    (void)state;
    build(&h);
    put_lamp(&w, "lamp0", (struct lamp){.level = 10});
    put_meter(&w, (struct meter){0});
    put_lamp(&w, "lamp1", (struct lamp){0});
    assert_int_equal(load(&h, &w, &err), -EPROTO);
    assert_string_equal(err.msg, "lamp0: lamp: level: 10 is over 9");

    struct writer saved = {0};
    h.meter.answer = -1;
    assert_int_equal(state_registry_save(h.registry, &saved, &err), -EIO);
    assert_string_equal(err.msg, "meter: meter: no reading");
    h.meter.answer = 0;
    struct writer failed = {.failed = true};
    assert_int_equal(state_registry_save(h.registry, &failed, &err), -ENOMEM);
    assert_string_equal(err.msg, "state of the machine: out of memory");
    state_registry_destroy(h.registry);
    free(w.data);
    free(saved.data);
}

static void an_id_is_taken_once_and_must_be_printable(void **state)
{
    char longest[49];
    struct house h;
    struct error err;

    (void)state;
    build(&h);
    assert_int_equal(state_registry_add(h.registry, "lamp0", &lamp_desc, &h.a, NULL, &err),
                     -EEXIST);
    assert_string_equal(err.msg, "two parts of the machine are named 'lamp0'");
    assert_int_equal(state_registry_add(h.registry, "", &lamp_desc, &h.a, NULL, &err), -EINVAL);
    assert_int_equal(state_registry_add(h.registry, "a b", &lamp_desc, &h.a, NULL, &err), -EINVAL);
    memset(longest, 'n', 48);
    longest[48] = '\0';
    assert_int_equal(state_registry_add(h.registry, longest, &lamp_desc, &h.a, NULL, &err),
                     -EINVAL);
    longest[47] = '\0';
    assert_int_equal(state_registry_add(h.registry, longest, &lamp_desc, &h.a, NULL, &err), 0);
    state_registry_destroy(h.registry);
    state_registry_destroy(NULL);
}

static void a_thousand_parts_are_saved_and_loaded(void **state)
{
    static struct lamp lamps[1000];
    struct state_registry *registry;
    struct writer w = {0};
    struct error err;
    char id[16];

    (void)state;
    assert_int_equal(state_registry_create(&registry, &err), 0);
    for (unsigned i = 0; i < 1000; i++) {
        snprintf(id, sizeof(id), "lamp%u", i);
        lamps[i].colour = (uint16_t)i;
        assert_int_equal(state_registry_add(registry, id, &lamp_desc, &lamps[i], NULL, &err), 0);
    }
    assert_int_equal(state_registry_save(registry, &w, &err), 0);
    memset(lamps, 0, sizeof(lamps));
    struct reader r = {.data = w.data, .len = w.len};
    assert_int_equal(state_registry_load(registry, &r, &err), 0);
    for (unsigned i = 0; i < 1000; i++)
        assert_int_equal(lamps[i].colour, i);
    state_registry_destroy(registry);
    free(w.data);
}

/* What was told, as text. */
static void write_down(void *opaque, const struct state_told *told)
{
    char *text = opaque;
    size_t len = strlen(text);

    snprintf(text + len, 512 - len, "%.*s %.*s %ux%u %02x;", (int)told->id_len, told->id,
             (int)told->field_len, told->field, told->count, told->size, told->values[0]);
}

static void a_stream_is_told_without_its_tables(void **state)
{
    char text[512] = "";
    struct house h;
    struct error err;

    (void)state;
    build(&h);
    struct writer w = save(&h);
    struct reader r = {.data = w.data, .len = w.len};
    assert_int_equal(state_registry_tell(&r, write_down, text, &err), 0);
    assert_string_equal(text, "lamp0 colour 1x2 34;lamp0 level 1x1 01;meter trim 1x1 fd;"
                              "meter total 1x8 00;meter steps 2x4 ff;meter kernel_word 1x8 fe;"
                              "lamp1 colour 1x2 cd;lamp1 level 1x1 09;");
    state_registry_destroy(h.registry);
    free(w.data);
}

static void nothing_is_told_of_a_stream_that_is_cut_within_an_entry(void **state)
{
    struct house h;
    struct error err;
    unsigned whole = 0;

    (void)state;
    build(&h);
    struct writer w = save(&h);
    for (size_t len = 0; len < w.len; len++) {
        uint8_t *cut = malloc(len ? len : 1);
        struct reader r = {.data = cut, .len = len};
        char text[512] = "";

        memcpy(cut, w.data, len);
        if (state_registry_tell(&r, write_down, text, &err) == 0)
            whole++; /* nothing, one entry, two */
        else
            assert_string_equal(text, "");
        free(cut);
    }
    assert_int_equal(whole, 3);
    state_registry_destroy(h.registry);
    free(w.data);
}

static void tell_refused(const char *field, size_t field_len, unsigned size, uint32_t count,
                         const char *words)
{
    struct writer table = {0}, w = {0};
    struct error err;

    put_uint(&table, 1, 4);
    put_uint(&table, 1, 2);
    put_uint(&table, field_len, 1);
    put_bytes(&table, field, field_len);
    put_uint(&table, size, 1);
    put_uint(&table, count, 4);
    put_uint(&table, 0, 8);
    put_entry(&w, "thing", table.data, table.len);
    struct reader r = {.data = w.data, .len = w.len};
    assert_int_equal(state_registry_tell(&r, NULL, NULL, &err), -EPROTO);
    assert_string_equal(err.msg, words);
    free(table.data);
    free(w.data);
}

static void hostile_fields_are_not_told(void **state)
{
    (void)state;
    tell_refused("a\nb", 3, 1, 8, "thing: a field without a name");
    tell_refused("", 0, 1, 8, "thing: a field without a name");
    tell_refused("a", 1, 3, 1, "thing: a has elements of 3 bytes");
    tell_refused("a", 1, 0, UINT32_MAX, "thing: a has elements of 0 bytes");
    tell_refused("a", 1, 8, UINT32_MAX, "thing: ends early");
    tell_refused("a", 1, 8, 2, "thing: ends early");
    tell_refused("a", 1, 4, 1, "thing: bytes too many");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_saved_is_loaded_into_another_machine),
        cmocka_unit_test(signed_numbers_travel_as_their_bits),
        cmocka_unit_test(the_bytes_on_the_wire_are_these),
        cmocka_unit_test(any_order_of_the_stream_is_loaded_in_the_order_of_the_registry),
        cmocka_unit_test(a_stream_cut_anywhere_is_refused_before_it_is_loaded),
        cmocka_unit_test(an_unknown_part_is_refused_by_its_name),
        cmocka_unit_test(a_name_that_is_only_the_beginning_of_one_is_unknown),
        cmocka_unit_test(a_missing_part_is_refused_by_its_name),
        cmocka_unit_test(a_part_that_comes_twice_is_refused),
        cmocka_unit_test(a_name_that_is_none_is_refused_and_not_printed),
        cmocka_unit_test(bytes_that_a_table_does_not_use_are_refused),
        cmocka_unit_test(what_a_table_says_comes_back_with_the_id_in_front),
        cmocka_unit_test(an_id_is_taken_once_and_must_be_printable),
        cmocka_unit_test(a_thousand_parts_are_saved_and_loaded),
        cmocka_unit_test(a_stream_is_told_without_its_tables),
        cmocka_unit_test(nothing_is_told_of_a_stream_that_is_cut_within_an_entry),
        cmocka_unit_test(hostile_fields_are_not_told),
    };
    return cmocka_run_group_tests_name("registry", tests, NULL, NULL);
}
