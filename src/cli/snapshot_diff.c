/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmrun snapshot diff: two files' descriptions and states by name; snapshot_diff_ram.c has RAM.
 *
 * Everything that differs becomes a JSON object first, {where, a, b}; the form for people is
 * printed from these.
 */
#include "snapshot_diff.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define PATH_MAX_SHOWN 256
#define SHOWN_TEXT 60 /* of a value, in the form for people */

static void add(json_t *found, const char *where, const json_t *a, const json_t *b)
{
    json_t *item = json_pack("{s:s}", "where", where);

    if (a)
        json_object_set(item, "a", (json_t *)a);
    if (b)
        json_object_set(item, "b", (json_t *)b);
    json_array_append_new(found, item);
}

/* Descriptions */

static void compare_json(json_t *found, const char *where, json_t *a, json_t *b);

static void compare_objects(json_t *found, const char *where, json_t *a, json_t *b)
{
    char path[PATH_MAX_SHOWN];
    const char *key;
    json_t *value;

    json_object_foreach(a, key, value)
    {
        snprintf(path, sizeof(path), "%s%s%s", where, *where ? "." : "", key);
        compare_json(found, path, value, json_object_get(b, key));
    }
    json_object_foreach(b, key, value)
    {
        snprintf(path, sizeof(path), "%s%s%s", where, *where ? "." : "", key);
        if (!json_object_get(a, key))
            compare_json(found, path, NULL, value);
    }
}

static void compare_json(json_t *found, const char *where, json_t *a, json_t *b)
{
    char path[PATH_MAX_SHOWN];

    if (json_is_object(a) && json_is_object(b)) {
        compare_objects(found, where, a, b);
        return;
    }
    if (!json_is_array(a) || !json_is_array(b)) {
        if (!a || !b || !json_equal(a, b))
            add(found, where, a, b);
        return;
    }
    for (size_t i = 0; i < json_array_size(a) || i < json_array_size(b); i++) {
        snprintf(path, sizeof(path), "%s[%zu]", where, i);
        compare_json(found, path, json_array_get(a, i), json_array_get(b, i));
    }
}

/* State */

static int compare_names(const char *a, size_t a_len, const char *b, size_t b_len)
{
    int order = memcmp(a, b, a_len < b_len ? a_len : b_len);

    return order ? order : (a_len > b_len) - (a_len < b_len);
}

static int by_name(const void *left, const void *right)
{
    const struct state_told *a = left, *b = right;
    int order = compare_names(a->id, a->id_len, b->id, b->id_len);

    return order ? order : compare_names(a->field, a->field_len, b->field, b->field_len);
}

/* In the order of their names: of that, a hostile file cannot make quadratic work. */
static int read_fields(const struct snapfile *file, const char *path,
                       struct snapshot_fields *fields, struct error *err)
{
    int r = snapshot_read_fields(file, path, fields, err);

    if (r == 0 && fields->count)
        qsort(fields->all, fields->count, sizeof(fields->all[0]), by_name);
    return r;
}

static void add_element(json_t *item, const char *key, const struct state_told *told,
                        uint32_t index)
{
    char text[24];

    snprintf(text, sizeof(text), "0x%" PRIx64, snapshot_element(told, index));
    json_object_set_new(item, key, json_string(text));
}

/* Of an array, the first element that differs is more to the point than all of them. */
static void add_elements(json_t *item, const struct state_told *a, const struct state_told *b)
{
    uint32_t differ = 0, first = 0;

    for (uint32_t i = a->count; i-- > 0;) {
        if (snapshot_element(a, i) == snapshot_element(b, i))
            continue;
        differ++;
        first = i;
    }
    json_object_set_new(item, "elements", json_integer(a->count));
    json_object_set_new(item, "differ", json_integer(differ));
    json_object_set_new(item, "first", json_integer(first));
    add_element(item, "first_a", a, first);
    add_element(item, "first_b", b, first);
}

static void compare_field(json_t *found, const struct state_told *a, const struct state_told *b)
{
    const struct state_told *told = a ? a : b;
    bool shape = a && b && a->size == b->size && a->count == b->count;
    char where[PATH_MAX_SHOWN];

    if (shape && memcmp(a->values, b->values, (size_t)a->size * a->count) == 0)
        return;
    json_t *value_a = a ? snapshot_state_value(a) : NULL;
    json_t *value_b = b ? snapshot_state_value(b) : NULL;
    snprintf(where, sizeof(where), "%.*s.%.*s", (int)told->id_len, told->id, (int)told->field_len,
             told->field);
    add(found, where, value_a, value_b);
    if (shape && a->count > 1)
        add_elements(json_array_get(found, json_array_size(found) - 1), a, b);
    json_decref(value_a);
    json_decref(value_b);
}

static int compare_states(json_t *found, const struct snapfile *const files[2],
                          const char *const paths[2], struct error *err)
{
    struct snapshot_fields a = {0}, b = {0};
    int r = read_fields(files[0], paths[0], &a, err);

    if (r == 0)
        r = read_fields(files[1], paths[1], &b, err);
    for (size_t i = 0, j = 0; r == 0 && (i < a.count || j < b.count);) {
        int order = i == a.count ? 1 : j == b.count ? -1 : by_name(&a.all[i], &b.all[j]);

        compare_field(found, order <= 0 ? &a.all[i] : NULL, order >= 0 ? &b.all[j] : NULL);
        i += order <= 0;
        j += order >= 0;
    }
    snapshot_fields_fini(&a);
    snapshot_fields_fini(&b);
    return r;
}

/* Sections that this vmrun knows nothing of, by their checksums. */

static bool is_looked_into(const char *name)
{
    static const char *const names[] = {"machine", "cpuid", "state", "memory",
                                        "chunks",  "base",  "pages", "about"};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (strcmp(names[i], name) == 0)
            return true;
    return false;
}

static json_t *sums_of(const struct snapfile *file)
{
    json_t *sums = json_object(), *sections = snapshot_sections_json(file), *section;
    size_t i;

    json_array_foreach(sections, i, section)
    {
        const char *name = json_string_value(json_object_get(section, "name"));

        if (!is_looked_into(name))
            json_object_set(sums, name, json_object_get(section, "checksum"));
    }
    json_decref(sections);
    return sums;
}

static void compare_sections(json_t *found, const struct snapfile *const files[2])
{
    json_t *a = sums_of(files[0]), *b = sums_of(files[1]);

    compare_objects(found, "", a, b);
    json_decref(a);
    json_decref(b);
}

/* Print */

static void print_text(const char *text)
{
    json_t *value = json_string(text);

    snapshot_print_value(value);
    json_decref(value);
}

static void print_side(const json_t *value)
{
    char *text = value ? json_dumps(value, JSON_ENCODE_ANY | JSON_ENSURE_ASCII) : NULL;

    if (!text)
        printf("nothing");
    else if (strlen(text) <= SHOWN_TEXT)
        printf("%s", text);
    else
        printf("%.*s...", SHOWN_TEXT, text);
    free(text);
}

static void print_found(const char *title, json_t *found)
{
    json_t *item;
    size_t i;

    if (json_array_size(found))
        printf("%s\n", title);
    json_array_foreach(found, i, item)
    {
        printf("  ");
        print_text(json_string_value(json_object_get(item, "where")));
        printf(": ");
        if (json_object_get(item, "elements")) {
            printf("%lld of %lld elements, the first is [%lld]: %s -> %s\n",
                   json_integer_value(json_object_get(item, "differ")),
                   json_integer_value(json_object_get(item, "elements")),
                   json_integer_value(json_object_get(item, "first")),
                   json_string_value(json_object_get(item, "first_a")),
                   json_string_value(json_object_get(item, "first_b")));
            continue;
        }
        print_side(json_object_get(item, "a"));
        printf(" -> ");
        print_side(json_object_get(item, "b"));
        putchar('\n');
    }
}

static void print(json_t *diff, const struct ram_diff *ram)
{
    if (json_is_true(json_object_get(diff, "same"))) {
        printf("The machines are the same.\n");
        return;
    }
    print_found("description", json_object_get(diff, "machine"));
    print_found("state", json_object_get(diff, "state"));
    print_found("other sections", json_object_get(diff, "sections"));
    ram_diff_print(ram);
}

static int compare(const struct snapfile *const files[2], const char *const paths[2], json_t *diff,
                   struct ram_diff *ram, struct error *err)
{
    json_t *machines[2] = {NULL, NULL};
    int r = snapshot_load_json(files[0], paths[0], "machine", &machines[0], err);

    if (r == 0)
        r = snapshot_load_json(files[1], paths[1], "machine", &machines[1], err);
    if (r == 0)
        compare_json(json_object_get(diff, "machine"), "", machines[0], machines[1]);
    if (r == 0)
        r = compare_states(json_object_get(diff, "state"), files, paths, err);
    if (r == 0)
        compare_sections(json_object_get(diff, "sections"), files);
    if (r == 0)
        r = ram_diff_compare(ram, files, err);
    json_decref(machines[0]);
    json_decref(machines[1]);
    return r;
}

static int open_both(const char *const paths[2], struct snapfile *ret_files[2], struct error *err)
{
    int r = snapfile_open(paths[0], &ret_files[0], err);

    return r < 0 ? r : snapfile_open(paths[1], &ret_files[1], err);
}

int snapshot_diff(const char *const paths[2], bool json, struct error *err)
{
    struct snapfile *files[2] = {NULL, NULL};
    struct ram_diff ram = {0};
    json_t *diff = json_pack("{s:o, s:o, s:[], s:[], s:[]}", "a", snapshot_path(paths[0]), "b",
                             snapshot_path(paths[1]), "machine", "state", "sections");
    int r = open_both(paths, files, err);

    if (r == 0)
        r = compare((const struct snapfile *const *)files, paths, diff, &ram, err);
    if (r == 0) {
        bool same = !json_array_size(json_object_get(diff, "machine")) &&
                    !json_array_size(json_object_get(diff, "state")) &&
                    !json_array_size(json_object_get(diff, "sections")) && ram_diff_is_none(&ram);

        json_object_set_new(diff, "memory", ram_diff_json(&ram));
        json_object_set_new(diff, "same", json_boolean(same));
        if (json)
            cli_print_json(json_incref(diff));
        else
            print(diff, &ram);
    }
    ram_diff_fini(&ram);
    json_decref(diff);
    snapfile_close(files[0]);
    snapfile_close(files[1]);
    return r < 0 ? CLI_FAILED : CLI_OK;
}
