/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tables, the schema, the manual and config_init() say the same of every
 * key: they are held against each other here.
 */
#include <errno.h>
#include <regex.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "../../src/config/tables.h"
#include "config_text.h"
#include "folder.h"
#include "vmrun/config.h"

static json_t *print_json(const struct vm_config *config)
{
    char *text = config_text_print(config);
    json_t *json = json_loads(text, 0, NULL);

    assert_non_null(json);
    free(text);
    return json;
}

static json_t *schema_json(void)
{
    char *text = NULL;
    size_t len;
    FILE *out = open_memstream(&text, &len);
    struct error err;

    assert_non_null(out);
    assert_int_equal(config_print_schema(out, &err), 0);
    fclose(out);
    json_t *json = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(json);
    free(text);
    return json;
}

static const char *string_of(const json_t *json, const char *key)
{
    return json_string_value(json_object_get(json, key));
}

static void compare_with_table(const struct config_object *object, const json_t *schema);

static void compare_with_array(const struct config_key *array, const json_t *property)
{
    const json_t *items = json_object_get(property, "items");
    const json_t *required = json_object_get(items, "required");
    size_t count = 0;

    assert_string_equal(string_of(property, "type"), "array");
    assert_int_equal(json_integer_value(json_object_get(property, "maxItems")), array->max);
    compare_with_table(array->object, items);
    for (const struct config_key *key = array->object->keys; key->name; key++) {
        if (key->required)
            assert_string_equal(json_string_value(json_array_get(required, count++)), key->name);
    }
    assert_int_equal(json_array_size(required), count);
}

/* One object of the schema against its table. */
static void compare_with_table(const struct config_object *object, const json_t *schema)
{
    const json_t *properties = json_object_get(schema, "properties");
    size_t count = 0;

    assert_string_equal(string_of(schema, "type"), "object");
    assert_string_equal(string_of(schema, "title"), object->title);
    assert_true(json_is_false(json_object_get(schema, "additionalProperties")));
    for (const struct config_key *key = object->keys; key->name; key++, count++) {
        const json_t *property = json_object_get(properties, key->name);
        const json_t *words = json_object_get(property, "enum");

        assert_non_null(property);
        assert_memory_equal(string_of(property, "description"), key->description,
                            strlen(key->description));
        assert_int_equal(json_object_get(property, "default") != NULL, key->start != NULL);
        if (key->type == CONFIG_TYPE_ARRAY) {
            compare_with_array(key, property);
        } else if (key->type == CONFIG_TYPE_OBJECT) {
            compare_with_table(key->object, property);
        } else if (key->type == CONFIG_TYPE_UINT) {
            assert_string_equal(string_of(property, "type"), "integer");
            assert_int_equal(json_integer_value(json_object_get(property, "minimum")), key->min);
            assert_int_equal(json_integer_value(json_object_get(property, "maximum")), key->max);
        } else if (key->type == CONFIG_TYPE_FORWARDS) {
            assert_string_equal(string_of(property, "type"), "array");
            assert_string_equal(string_of(json_object_get(property, "items"), "type"), "string");
        } else if (key->type == CONFIG_TYPE_BOOL) {
            assert_string_equal(string_of(property, "type"), "boolean");
        } else {
            assert_string_equal(string_of(property, "type"), "string");
            assert_non_null(key->type == CONFIG_TYPE_CHOICE ? words
                                                            : json_object_get(property, "pattern"));
        }
        for (size_t i = 0; key->type == CONFIG_TYPE_CHOICE && key->choices[i]; i++) {
            assert_string_equal(json_string_value(json_array_get(words, i)), key->choices[i]);
            assert_int_equal(i < json_array_size(words), 1);
        }
    }
    assert_int_equal(json_object_size(properties), count);
}

static void the_schema_has_every_key_of_the_tables_and_no_other(void **state)
{
    json_t *schema = schema_json();

    (void)state;
    assert_string_equal(string_of(schema, "$schema"),
                        "https://json-schema.org/draft/2020-12/schema");
    compare_with_table(&config_root, schema);
    json_decref(schema);
}

/* Every default in the schema, against the values of a fresh configuration. */
static void compare_defaults(const json_t *schema, const json_t *value)
{
    const json_t *property;
    const char *name;

    json_object_foreach(json_object_get(schema, "properties"), name, property)
    {
        /* An object of which nothing is set is not there, and then nothing has a default. */
        if (json_object_get(property, "properties") && !json_object_get(value, name) &&
            config_object_find(&config_root, name)->optional)
            continue;
        if (json_object_get(property, "properties"))
            compare_defaults(property, json_object_get(value, name));
        else
            assert_true(
                json_equal(json_object_get(property, "default"), json_object_get(value, name)) ||
                (!json_object_get(property, "default") && !json_object_get(value, name)));
    }
}

static void every_default_in_the_schema_is_the_one_that_is_used(void **state)
{
    struct vm_config config;
    json_t *schema = schema_json();

    (void)state;
    config_init(&config);
    json_t *printed = print_json(&config);
    compare_defaults(schema, printed);
    json_decref(printed);
    json_decref(schema);
    config_fini(&config);
}

/* JSON Schema's pattern, as far as ours go: the set of control characters has POSIX's name. */
static bool pattern_fits(const char *pattern, const char *text)
{
    const char *set = strstr(pattern, "[^\\u0000");
    char posix[200];
    regex_t regex;

    if (set)
        snprintf(posix, sizeof(posix), "%.*s[^[:cntrl:]]%s", (int)(set - pattern), pattern,
                 strchr(set, ']') + 1);
    else
        snprintf(posix, sizeof(posix), "%s", pattern);
    assert_int_equal(regcomp(&regex, posix, REG_EXTENDED | REG_NOSUB), 0);
    bool fits = regexec(&regex, text, 0, NULL, 0) == 0;
    regfree(&regex);
    return fits;
}

/* The keywords of JSON Schema that ours uses. */
static bool conforms(const json_t *schema, const json_t *value)
{
    const json_t *least = json_object_get(schema, "minimum");
    const json_t *most = json_object_get(schema, "maximum");
    const json_t *longest = json_object_get(schema, "maxLength");
    const json_t *words = json_object_get(schema, "enum");
    const char *type = string_of(schema, "type");
    const char *pattern = string_of(schema, "pattern");
    const char *name;
    json_t *member;

    if (strcmp(type, "object") == 0) {
        if (!json_is_object(value))
            return false;
        json_object_foreach((json_t *)value, name, member)
        {
            const json_t *property = json_object_get(json_object_get(schema, "properties"), name);

            if (!property || !conforms(property, member))
                return false;
        }
        const json_t *required = json_object_get(schema, "required");
        for (size_t i = 0; i < json_array_size(required); i++)
            if (!json_object_get(value, json_string_value(json_array_get(required, i))))
                return false;
        return true;
    }
    if (strcmp(type, "array") == 0) {
        bool fits = json_is_array(value) &&
                    json_array_size(value) <=
                        (size_t)json_integer_value(json_object_get(schema, "maxItems"));

        for (size_t i = 0; i < json_array_size(value); i++)
            fits = fits && conforms(json_object_get(schema, "items"), json_array_get(value, i));
        return fits;
    }
    if (strcmp(type, "boolean") == 0)
        return json_is_boolean(value);
    if (strcmp(type, "integer") == 0)
        return json_is_integer(value) && json_integer_value(value) >= json_integer_value(least) &&
               json_integer_value(value) <= json_integer_value(most);
    if (!json_is_string(value))
        return false;
    bool known = !words;
    for (size_t i = 0; i < json_array_size(words); i++)
        known = known || json_equal(json_array_get(words, i), value);
    return known && (!pattern || pattern_fits(pattern, json_string_value(value))) &&
           (!longest || json_string_length(value) <= (size_t)json_integer_value(longest));
}

static void what_is_printed_conforms_to_the_schema(void **state)
{
    json_t *schema = schema_json();
    struct vm_config config;

    (void)state;
    config_text_load(&config, "web1.json", CONFIG_TEXT_EVERY_KEY);
    json_t *printed = print_json(&config);
    assert_true(conforms(schema, printed));
    json_decref(printed);
    config_fini(&config);

    config_init(&config);
    printed = print_json(&config);
    assert_true(conforms(schema, printed));
    json_decref(printed);
    config_fini(&config);
    json_decref(schema);
}

static void the_schema_refuses_what_the_loader_refuses(void **state)
{
    static const char *const texts[] = {
        "[]",
        "{\"cpus\": 0}",
        "{\"cpus\": 256}",
        "{\"cpus\": \"2\"}",
        "{\"memory\": 512}",
        "{\"memory\": \"lots\"}",
        "{\"memory\": \"1.5G\"}",
        "{\"memory_options\": {\"pages\": \"big\"}}",
        "{\"kernel\": \"a\"}",
        "{\"boot\": \"a\"}",
        "{\"boot\": {\"kernal\": \"a\"}}",
        "{\"boot\": {\"kernel\": \"\"}}",
        "{\"boot\": {\"initrd\": \"a\\nb\"}}",
        "{\"boot\": {\"cmdline\": \"a\\nb\"}}",
        "{\"cpu\": {\"model\": \"\"}}",
        "{\"console\": {\"serial\": \"tty\"}}",
        "{\"console\": {\"serial\": \"file:\"}}",
        "{\"name\": \"-a\"}",
        "{\"name\": \"\"}",
        "{\"debug_exit\": 1}",
        "{\"on_reboot\": null}",
        "{\"nets\": [{\"backend\": \"slirp\"}]}",
        "{\"nets\": [{\"hostfwd\": [\"tcp:80\"]}]}",
        "{\"nets\": [{\"hostfwd\": [\"sctp:80:80\"]}]}",
        "{\"nets\": [{\"hostfwd\": [80]}]}",
        "{\"nets\": [{\"hostfwd\": {}}]}",
        "{\"nets\": [{\"ifname\": \"a\", \"mac\": \"52:54:00:12:34\"}]}",
        "{\"nets\": [{\"ifname\": \"a\", \"mac\": \"01:00:00:00:00:01\"}]}",
        "{\"nets\": [{\"ifname\": \"a\", \"queues\": 0}]}",
        "{\"rng\": \"true\"}",
        "{\"disks\": {}}",
        "{\"disks\": [1]}",
        "{\"disks\": [{}]}",
        "{\"disks\": [{\"path\": \"\"}]}",
        "{\"disks\": [{\"path\": \"a\", \"cache\": \"fast\"}]}",
        "{\"disks\": [{\"path\": \"a\", \"queues\": 0}]}",
        "{\"disks\": [{\"path\": \"a\", \"id\": \"-a\"}]}",
    };
    json_t *schema = schema_json();

    (void)state;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        json_t *json = json_loads(texts[i], 0, NULL);
        struct vm_config config;
        struct error err;

        assert_non_null(json);
        assert_false(conforms(schema, json));
        folder_write("web1.json", texts[i], strlen(texts[i]));
        config_init(&config);
        assert_int_equal(config_load(&config, "web1.json", &err), -EINVAL);
        config_fini(&config);
        json_decref(json);
    }
    json_decref(schema);
}

/* A file of the source tree in which this test lies. */
static char *source_path(const char *below)
{
    const char *here = strstr(__FILE__, "tests/unit/");
    char *path;

    assert_non_null(here);
    assert_true(asprintf(&path, "%.*s%s", (int)(here - __FILE__), __FILE__, below) > 0);
    return path;
}

static char *read_whole(const char *path)
{
    char *text = calloc(1, 1 << 16);
    FILE *file = fopen(path, "r");

    assert_non_null(text);
    assert_non_null(file);
    assert_in_range(fread(text, 1, (1 << 16) - 1, file), 1, (1 << 16) - 2);
    fclose(file);
    return text;
}

/* In roff a hyphen that is typed is written "\-". */
static const char *roff(const char *text, char buf[200])
{
    char *out = buf;

    for (; *text && out < buf + 197; text++) {
        if (*text == '-')
            *out++ = '\\';
        *out++ = *text;
    }
    *out = '\0';
    return buf;
}

static void assert_within(const char *begin, const char *end, const char *needle, const char *path)
{
    const char *found = strstr(begin, needle);

    if (!found || found > end)
        fail_msg("vmrun.json.5, about %s, lacks \"%s\"", path, needle);
}

static const char *earlier(const char *a, const char *b)
{
    return !a || (b && b < a) ? b : a;
}

static void find_in_manual(const char *manual, const struct config_object *object,
                           const char *prefix)
{
    for (const struct config_key *key = object->keys; key->name; key++) {
        char path[80], line[300], word[200];

        snprintf(path, sizeof(path), "%s%s%s", prefix, prefix[0] ? "." : "", key->name);
        if (key->object) {
            snprintf(line, sizeof(line), "%s%s", path, key->type == CONFIG_TYPE_ARRAY ? "[]" : "");
            find_in_manual(manual, key->object, line);
            continue;
        }
        snprintf(line, sizeof(line), "\n.TP\n.BR %s \" (", path);
        assert_within(manual, manual + strlen(manual), line, path);
        const char *begin = strstr(manual, line);
        const char *end = earlier(strstr(begin + 1, "\n.TP\n.BR "), strstr(begin, "\n.S"));
        snprintf(line, sizeof(line), "\nDefault: %s.\n", key->start ? key->start : "none");
        assert_within(begin, end, line, path);
        for (size_t i = 0; key->choices && key->choices[i]; i++) {
            snprintf(line, sizeof(line), "\n.B %s\n", roff(key->choices[i], word));
            assert_within(begin, end, strchr(key->choices[i], ':') ? "\n.BI file: PATH\n" : line,
                          path);
        }
    }
}

static void the_manual_has_every_key_with_its_default(void **state)
{
    char *path = source_path("docs/vmrun.json.5");
    char *manual = read_whole(path);

    (void)state;
    find_in_manual(manual, &config_root, "");
    free(manual);
    free(path);
}

static void the_example_is_a_machine_and_stands_in_the_manual(void **state)
{
    char *path = source_path("docs/examples/hello.json");
    char *manual_path = source_path("docs/vmrun.json.5");
    char *example = read_whole(path), *manual = read_whole(manual_path);
    struct vm_config config;
    struct error err = {.msg = ""};

    (void)state;
    config_init(&config);
    config_load(&config, path, &err);
    assert_string_equal(err.msg, "");
    config_validate(&config, &err);
    assert_string_equal(err.msg, "");
    assert_non_null(strstr(manual, example));
    config_fini(&config);
    free(example);
    free(manual);
    free(path);
    free(manual_path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_schema_has_every_key_of_the_tables_and_no_other),
        cmocka_unit_test(every_default_in_the_schema_is_the_one_that_is_used),
        cmocka_unit_test(what_is_printed_conforms_to_the_schema),
        cmocka_unit_test(the_schema_refuses_what_the_loader_refuses),
        cmocka_unit_test(the_manual_has_every_key_with_its_default),
        cmocka_unit_test(the_example_is_a_machine_and_stands_in_the_manual),
    };
    return cmocka_run_group_tests_name("config schema", tests, folder_enter, folder_leave);
}
