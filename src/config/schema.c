/* SPDX-License-Identifier: Apache-2.0 */
/*
 * schema: the tables as JSON Schema, draft 2020-12, for editors and other
 * checkers. What a schema cannot say (a size's range, bytes against characters)
 * stands in the description; config_load() has the last word.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "array.h"
#include "print.h"
#include "tables.h"
#include "value.h"
#include "vmrun/config.h"
#include "vmrun/text.h"

#define PRINTABLE "[^\\u0000-\\u001f\\u007f-\\u009f\\u2028-\\u202e\\u2066-\\u2069]"

static json_t *choice_list(const struct config_key *key)
{
    json_t *list = json_array();

    for (unsigned i = 0; list && key->choices[i]; i++) {
        if (json_array_append_new(list, json_string(key->choices[i])) < 0) {
            json_decref(list);
            list = NULL;
        }
    }
    return list;
}

/* "^(stdio|pty|none|file:...)$": the last choice is the one with a path. */
static json_t *console_pattern(const struct config_key *key)
{
    char words[100];
    size_t at = 0;

    for (unsigned i = 0; key->choices[i]; i++)
        if (i != CONFIG_CONSOLE_FILE)
            at += (size_t)snprintf(words + at, sizeof(words) - at, "%s|", key->choices[i]);
    return json_sprintf("^(%sfile:%s+)$", words, PRINTABLE);
}

static json_t *size_description(const struct config_key *key)
{
    char least[24], most[24], step[24];

    if (!key->start)
        return json_sprintf("%s A size such as \"100M\": at most %s.", key->description,
                            text_format_size(key->max, most, sizeof(most)));
    return json_sprintf("%s A size such as \"%s\": %s to %s, a multiple of %s.", key->description,
                        key->start, text_format_size(key->min, least, sizeof(least)),
                        text_format_size(key->max, most, sizeof(most)),
                        text_format_size(key->step, step, sizeof(step)));
}

/* One key without its default; NULL when memory runs out. */
static json_t *describe_value(const struct config_key *key)
{
    const char *text = key->description;
    json_int_t min = (json_int_t)key->min, max = (json_int_t)key->max;

    switch (key->type) {
    case CONFIG_TYPE_NAME:
    case CONFIG_TYPE_ID:
        return json_pack("{s:s, s:s, s:o}", "description", text, "type", "string", "pattern",
                         json_sprintf("^[A-Za-z0-9_][A-Za-z0-9._-]{0,%lld}$", (long long)max - 1));
    case CONFIG_TYPE_MAC:
        return json_pack("{s:s, s:s, s:s}", "description", text, "type", "string", "pattern",
                         "^[0-9A-Fa-f][02468ACEace](:[0-9A-Fa-f]{2}){5}$");
    case CONFIG_TYPE_TEXT:
        return json_pack("{s:s, s:s, s:s, s:I}", "description", text, "type", "string", "pattern",
                         "^" PRINTABLE "*$", "maxLength", max);
    case CONFIG_TYPE_PATH:
        return json_pack("{s:s, s:s, s:s, s:I}", "description", text, "type", "string", "pattern",
                         "^" PRINTABLE "+$", "maxLength", max);
    case CONFIG_TYPE_FORWARDS:
        return json_pack("{s:s, s:s, s:{s:s, s:s}}", "description", text, "type", "array", "items",
                         "type", "string", "pattern",
                         "^(tcp|udp):([0-9.]+:|\\[[0-9A-Fa-f:.]+\\]:)?[0-9]+:[0-9]+$");
    case CONFIG_TYPE_UINT:
        return json_pack("{s:s, s:s, s:I, s:I}", "description", text, "type", "integer", "minimum",
                         min, "maximum", max);
    case CONFIG_TYPE_SIZE:
        return json_pack("{s:o, s:s, s:s}", "description", size_description(key), "type", "string",
                         "pattern", "^[0-9]+([KMGTkmgt](i?B)?)?$");
    case CONFIG_TYPE_PERCENT:
        return json_pack("{s:o, s:s, s:s}", "description", json_sprintf("%s \"150%%\".", text),
                         "type", "string", "pattern", "^[0-9]+%$");
    case CONFIG_TYPE_CHOICE:
        return json_pack("{s:s, s:s, s:o}", "description", text, "type", "string", "enum",
                         choice_list(key));
    case CONFIG_TYPE_BOOL: return json_pack("{s:s, s:s}", "description", text, "type", "boolean");
    case CONFIG_TYPE_CONSOLE:
        return json_pack("{s:s, s:s, s:o}", "description", text, "type", "string", "pattern",
                         console_pattern(key));
    case CONFIG_TYPE_OBJECT:
    case CONFIG_TYPE_ARRAY: break;
    }
    assert(!"an object is described by its keys");
    return NULL;
}

static json_t *describe_keys(const struct config_object *object, const void *start);

static json_t *required_keys(const struct config_object *object)
{
    json_t *list = json_array();

    for (const struct config_key *key = object->keys; list && key->name; key++) {
        if (key->required && json_array_append_new(list, json_string(key->name)) < 0) {
            json_decref(list);
            list = NULL;
        }
    }
    return list;
}

/* NULL when memory runs out. */
static json_t *describe_array(const struct config_key *array)
{
    struct vm_config start = {0};
    struct error ignored;
    void *item;

    if (config_array_add(array, &start, &item, &ignored) < 0)
        return NULL;
    json_t *items = json_pack("{s:s, s:s, s:o, s:o, s:b}", "title", array->object->title, "type",
                              "object", "properties", describe_keys(array->object, item),
                              "required", required_keys(array->object), "additionalProperties", 0);
    config_array_clear(array, &start);
    return json_pack("{s:s, s:s, s:I, s:o}", "description", array->description, "type", "array",
                     "maxItems", (json_int_t)array->max, "items", items);
}

/* The properties of one object; NULL when memory runs out. start: its defaults. */
static json_t *describe_keys(const struct config_object *object, const void *start)
{
    json_t *properties = json_object();

    for (const struct config_key *key = object->keys; properties && key->name; key++) {
        struct error ignored;
        json_t *value, *initial = NULL;
        int r = 0;

        if (key->type == CONFIG_TYPE_ARRAY) {
            value = describe_array(key);
        } else if (key->type == CONFIG_TYPE_OBJECT) {
            value = json_pack("{s:s, s:s, s:s, s:o, s:b}", "title", key->object->title,
                              "description", key->description, "type", "object", "properties",
                              describe_keys(key->object, start), "additionalProperties", 0);
        } else {
            value = describe_value(key);
            r = config_value_save(key, start, NULL, &initial, &ignored);
        }
        if (r == 0 && initial)
            r = json_object_set_new(value, "default", initial);
        if (json_object_set_new(properties, key->name, value) < 0 || r < 0) {
            json_decref(properties);
            properties = NULL;
        }
    }
    return properties;
}

int config_print_schema(FILE *out, struct error *err)
{
    struct vm_config start;
    json_t *schema;

    config_init(&start);
    schema = json_pack("{s:s, s:s, s:s, s:s, s:o, s:b}", "$schema",
                       "https://json-schema.org/draft/2020-12/schema", "title", config_root.title,
                       "description", config_root.description, "type", "object", "properties",
                       describe_keys(&config_root, &start), "additionalProperties", 0);
    config_fini(&start);
    if (!schema)
        return error_set(err, ENOMEM, "out of memory");
    return config_print_json(schema, out, err);
}
