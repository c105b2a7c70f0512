/* SPDX-License-Identifier: Apache-2.0 */
/*
 * value: one value between text, JSON and struct vm_config. JSON strings and
 * flags go through the same config_value_parse(), so that a rule is written
 * once; what JSON adds is its own types.
 */
#include "value.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "quote.h"
#include "vmrun/forward.h"
#include "vmrun/text.h"

/* A size that is right, for who gave one that is not. */
static const char *size_example(const struct config_key *key)
{
    return key->start ? key->start : "100M";
}

char *config_value_join(const char *folder, const char *path)
{
    char *joined;

    if (!folder || path[0] == '/')
        return strdup(path);
    return asprintf(&joined, "%s%s", folder, path) < 0 ? NULL : joined;
}

static void list_choices(const struct config_key *key, char *buf, size_t len)
{
    size_t at = 0;

    for (unsigned i = 0; key->choices[i] && at < len; i++)
        at += (size_t)snprintf(buf + at, len - at, "%s%s", i ? ", " : "", key->choices[i]);
}

static int refuse_choice(const struct config_key *key, const char *text, struct error *err)
{
    char quoted[QUOTE_SIZE], list[200];

    list_choices(key, list, sizeof(list));
    return error_set(err, EINVAL, "%s is not one of %s", config_quote(text, quoted), list);
}

static int find_choice(const struct config_key *key, const char *text, uint64_t *ret_choice)
{
    for (unsigned i = 0; key->choices[i]; i++) {
        if (strcmp(key->choices[i], text) == 0) {
            *ret_choice = i;
            return 0;
        }
    }
    return -ENOENT;
}

static int check_text(const struct config_key *key, const char *text, struct error *err)
{
    char quoted[QUOTE_SIZE];

    if (strlen(text) > key->max)
        return error_set(err, EINVAL, "%zu bytes long; at most %llu are allowed", strlen(text),
                         (unsigned long long)key->max);
    switch (config_text_check(text)) {
    case CONFIG_TEXT_CONTROL:
        return error_set(err, EINVAL,
                         "%s holds a control character; only printable text is allowed",
                         config_quote(text, quoted));
    case CONFIG_TEXT_NOT_UTF8:
        return error_set(err, EINVAL, "%s is not UTF-8 text", config_quote(text, quoted));
    case CONFIG_TEXT_PRINTABLE: break;
    }
    return 0;
}

static int check_name(const struct config_key *key, const char *text, struct error *err)
{
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                                  "0123456789._-";
    char quoted[QUOTE_SIZE];
    size_t len = strlen(text);

    if (len == 0 || len > key->max || strspn(text, allowed) != len || text[0] == '.' ||
        text[0] == '-')
        return error_set(err, EINVAL,
                         "%s is not a name: 1 to %llu of A-Z a-z 0-9 . _ - that do not start with "
                         ". or -",
                         config_quote(text, quoted), (unsigned long long)key->max);
    return 0;
}

static int check_mac(const char *text, struct error *err)
{
    char quoted[QUOTE_SIZE];
    uint8_t mac[6];

    if (text_parse_mac(text, mac) < 0)
        return error_set(err, EINVAL,
                         "%s is not a card's address: six bytes as in \"52:54:00:12:34:56\", the "
                         "first one even",
                         config_quote(text, quoted));
    return 0;
}

static int check_forwards(const char *text, struct error *err)
{
    char word[60], quoted[QUOTE_SIZE];
    size_t len;

    for (; (len = forward_next(&text)) > 0; text += len) {
        struct forward f;
        int r = forward_parse(text, len, &f);

        if (r == 0)
            continue;
        snprintf(word, sizeof(word), "%.*s", (int)len, text);
        config_quote(word, quoted);
        if (r == -ERANGE)
            return error_set(err, EINVAL, "%s: a port is 1 to 65535", quoted);
        return error_set(err, EINVAL,
                         "%s is no forward: tcp or udp, then :HOSTPORT:GUESTPORT or "
                         ":ADDRESS:HOSTPORT:GUESTPORT, such as \"tcp:127.0.0.1:8080:80\"",
                         quoted);
    }
    return 0;
}

/* Takes over copy, also when it fails. NULL: memory ran out. */
static int set_string(const struct config_key *key, char **at, char *copy, struct error *err)
{
    if (!copy)
        return error_set(err, ENOMEM, "out of memory");
    int r = check_text(key, copy, err);

    if (r < 0) {
        free(copy);
        return r;
    }
    free(*at);
    *at = copy;
    return 0;
}

/* Words with one blank between; none at all is no value. */
static int parse_forwards(const struct config_key *key, char **at, const char *text,
                          struct error *err)
{
    char *copy;
    size_t used = 0, len;
    int r = check_text(key, text, err);

    if (r == 0)
        r = check_forwards(text, err);
    if (r < 0)
        return r;
    copy = malloc(strlen(text) + 1);
    for (const char *w = text; copy && (len = forward_next(&w)) > 0; w += len) {
        if (used)
            copy[used++] = ' ';
        memcpy(copy + used, w, len);
        used += len;
    }
    if (copy && used) {
        copy[used] = '\0';
        return set_string(key, at, copy, err);
    }
    free(copy);
    if (!copy)
        return error_set(err, ENOMEM, "out of memory");
    free(*at);
    *at = NULL;
    return 0;
}

int config_value_add(const struct config_key *key, void *base, const char *text, struct error *err)
{
    char **at = config_value_at(key, base), *both = NULL;
    int r;

    if (asprintf(&both, "%s %s", *at ? *at : "", text) < 0)
        return error_set(err, ENOMEM, "out of memory");
    r = parse_forwards(key, at, both, err);
    free(both);
    return r;
}

/* An array of strings, each one forward or more. */
static int load_forwards(const struct config_key *key, void *base, const json_t *json,
                         struct error *err)
{
    struct config_net scratch = {0};
    struct config_key there = *key;
    char **at = config_value_at(key, base);
    size_t index;
    json_t *item;
    int r = 0;

    there.offset = offsetof(struct config_net, hostfwd);
    json_array_foreach(json, index, item)
    {
        if (!json_is_string(item))
            r = error_set(err, EINVAL, "item %zu is no string", index);
        else
            r = config_value_add(&there, &scratch, json_string_value(item), err);
        if (r < 0)
            break;
    }
    if (r < 0) {
        free(scratch.hostfwd);
        return r;
    }
    free(*at);
    *at = scratch.hostfwd;
    return 0;
}

static int parse_path(const struct config_key *key, char **at, const char *folder, const char *text,
                      struct error *err)
{
    if (!text[0])
        return error_set(err, EINVAL, "\"\" names no file; name one, or leave it out");
    return set_string(key, at, config_value_join(folder, text), err);
}

static int parse_console(const struct config_key *key, struct config_serial *serial,
                         const char *folder, const char *text, struct error *err)
{
    uint64_t kind;

    if (strncmp(text, CONFIG_FILE_PREFIX, strlen(CONFIG_FILE_PREFIX)) == 0) {
        const char *path = text + strlen(CONFIG_FILE_PREFIX);

        if (!path[0])
            return error_set(err, EINVAL, "\"%s\" names no file; write \"%sPATH\"", text, text);
        int r = set_string(key, &serial->path, config_value_join(folder, path), err);

        if (r < 0)
            return r;
        serial->kind = CONFIG_CONSOLE_FILE;
        return 0;
    }
    if (find_choice(key, text, &kind) < 0)
        return refuse_choice(key, text, err);
    free(serial->path);
    serial->path = NULL;
    serial->kind = kind;
    return 0;
}

static int refuse_range(const struct config_key *key, const char *text, struct error *err)
{
    char least[24], most[24];

    if (key->type == CONFIG_TYPE_SIZE)
        return error_set(err, EINVAL, "%s is out of range: %s to %s", text,
                         text_format_size(key->min, least, sizeof(least)),
                         text_format_size(key->max, most, sizeof(most)));
    return error_set(err, EINVAL, "%s is out of range: %llu to %llu", text,
                     (unsigned long long)key->min, (unsigned long long)key->max);
}

static int parse_uint(const struct config_key *key, uint64_t *at, const char *text,
                      struct error *err)
{
    char quoted[QUOTE_SIZE];
    uint64_t value;
    int r = text_parse_uint(text, key->max, &value);

    config_quote(text, quoted);
    if (r == -EINVAL)
        return error_set(err, EINVAL, "%s is not a whole number from %llu to %llu", quoted,
                         (unsigned long long)key->min, (unsigned long long)key->max);
    if (r < 0 || value < key->min)
        return refuse_range(key, quoted, err);
    *at = value;
    return 0;
}

static bool size_fits(const struct config_key *key, uint64_t bytes)
{
    return bytes >= key->min && bytes <= key->max && bytes % key->step == 0;
}

static int parse_size(const struct config_key *key, uint64_t *at, const char *text,
                      struct error *err)
{
    char quoted[QUOTE_SIZE], next[24];
    uint64_t value;
    int r = text_parse_size(text, &value);

    config_quote(text, quoted);
    if (r == -EINVAL)
        return error_set(err, EINVAL,
                         "%s is not a size: a whole number and K, M, G or T, such as \"%s\"",
                         quoted, size_example(key));
    if (r == 0 && value < key->min && strspn(text, "0123456789") == strlen(text) &&
        size_fits(key, value << 20))
        return error_set(err, EINVAL, "%s is a number of bytes; did you mean \"%lluM\"?", quoted,
                         (unsigned long long)value);
    if (r < 0 || value < key->min || value > key->max)
        return refuse_range(key, quoted, err);
    if (value % key->step != 0)
        return error_set(err, EINVAL, "%s is not a multiple of %s; the next is \"%s\"", quoted,
                         text_format_size(key->step, (char[24]){0}, 24),
                         text_format_size((value / key->step + 1) * key->step, next, sizeof(next)));
    *at = value;
    return 0;
}

static int parse_percent(const struct config_key *key, uint64_t *at, const char *text,
                         struct error *err)
{
    size_t digits = strspn(text, "0123456789");
    char number[24], quoted[QUOTE_SIZE];
    uint64_t value;

    config_quote(text, quoted);
    if (digits == 0 || digits >= sizeof(number) || strcmp(text + digits, "%") != 0)
        return error_set(err, EINVAL,
                         "%s is not a percentage: a whole number and %%, such as \"150%%\"",
                         quoted);
    snprintf(number, sizeof(number), "%.*s", (int)digits, text);
    if (text_parse_uint(number, key->max, &value) < 0)
        return error_set(err, EINVAL, "%s is out of range: %llu%% to %llu%%", quoted,
                         (unsigned long long)key->min, (unsigned long long)key->max);
    *at = value;
    return 0;
}

static int parse_bool(bool *at, const char *text, struct error *err)
{
    char quoted[QUOTE_SIZE];
    bool value = strcmp(text, "true") == 0 || strcmp(text, "on") == 0;

    if (!value && strcmp(text, "false") != 0 && strcmp(text, "off") != 0)
        return error_set(err, EINVAL, "%s is not true or false", config_quote(text, quoted));
    *at = value;
    return 0;
}

int config_value_parse(const struct config_key *key, void *base, const char *folder,
                       const char *text, struct error *err)
{
    void *at = config_value_at(key, base);
    int r;

    switch (key->type) {
    case CONFIG_TYPE_NAME:
    case CONFIG_TYPE_ID:
        r = check_name(key, text, err);
        return r < 0 ? r : set_string(key, at, strdup(text), err);
    case CONFIG_TYPE_MAC:
        r = check_mac(text, err);
        return r < 0 ? r : set_string(key, at, strdup(text), err);
    case CONFIG_TYPE_TEXT: return set_string(key, at, strdup(text), err);
    case CONFIG_TYPE_PATH: return parse_path(key, at, folder, text, err);
    case CONFIG_TYPE_FORWARDS: return parse_forwards(key, at, text, err);
    case CONFIG_TYPE_UINT: return parse_uint(key, at, text, err);
    case CONFIG_TYPE_SIZE: return parse_size(key, at, text, err);
    case CONFIG_TYPE_PERCENT: return parse_percent(key, at, text, err);
    case CONFIG_TYPE_CHOICE:
        return find_choice(key, text, at) < 0 ? refuse_choice(key, text, err) : 0;
    case CONFIG_TYPE_BOOL: return parse_bool(at, text, err);
    case CONFIG_TYPE_CONSOLE: return parse_console(key, at, folder, text, err);
    case CONFIG_TYPE_OBJECT:
    case CONFIG_TYPE_ARRAY: break;
    }
    assert(!"an object has no text");
    return -EINVAL;
}

/* "a whole number from 1 to 255": what belongs here, to stand behind "not". */
static void describe_expected(const struct config_key *key, char *buf, size_t len)
{
    size_t at;

    switch (key->type) {
    case CONFIG_TYPE_OBJECT: snprintf(buf, len, "an object"); break;
    case CONFIG_TYPE_ARRAY: snprintf(buf, len, "an array of objects"); break;
    case CONFIG_TYPE_NAME:
    case CONFIG_TYPE_ID:
    case CONFIG_TYPE_TEXT:
    case CONFIG_TYPE_MAC:
    case CONFIG_TYPE_PATH: snprintf(buf, len, "a string"); break;
    case CONFIG_TYPE_FORWARDS: snprintf(buf, len, "an array of strings"); break;
    case CONFIG_TYPE_UINT:
        snprintf(buf, len, "a whole number from %llu to %llu", (unsigned long long)key->min,
                 (unsigned long long)key->max);
        break;
    case CONFIG_TYPE_SIZE: snprintf(buf, len, "a size such as \"%s\"", size_example(key)); break;
    case CONFIG_TYPE_PERCENT: snprintf(buf, len, "a percentage such as \"150%%\""); break;
    case CONFIG_TYPE_BOOL: snprintf(buf, len, "true or false"); break;
    case CONFIG_TYPE_CHOICE:
    case CONFIG_TYPE_CONSOLE:
        at = (size_t)snprintf(buf, len, "one of ");
        list_choices(key, buf + at, len - at);
        break;
    }
}

/* "VALUE is a KIND, not …": of the wrong type. */
static int refuse_type(const struct config_key *key, const json_t *json, struct error *err)
{
    char value[QUOTE_SIZE], expected[240];
    const char *kind = NULL;

    describe_expected(key, expected, sizeof(expected));
    switch (json_typeof(json)) {
    case JSON_NULL: return error_set(err, EINVAL, "null is no value; leave the key out instead");
    case JSON_OBJECT:
        snprintf(value, sizeof(value), "{...}");
        kind = "an object";
        break;
    case JSON_ARRAY:
        snprintf(value, sizeof(value), "[...]");
        kind = "an array";
        break;
    case JSON_STRING:
        config_quote(json_string_value(json), value);
        kind = "a string";
        break;
    case JSON_INTEGER:
        snprintf(value, sizeof(value), "%lld", (long long)json_integer_value(json));
        kind = "a number";
        break;
    case JSON_REAL:
        snprintf(value, sizeof(value), "%g", json_real_value(json));
        kind = key->type == CONFIG_TYPE_UINT ? "a number with a fraction" : "a number";
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        snprintf(value, sizeof(value), "%s", json_is_true(json) ? "true" : "false");
        kind = "a boolean";
        break;
    }
    return error_set(err, EINVAL, "%s is %s, not %s", value, kind, expected);
}

/* 512 where "512M" belongs: the cure depends on how large the number is. */
static int refuse_plain_size(const struct config_key *key, json_int_t number, struct error *err)
{
    char cure[24];
    uint64_t value = number > 0 ? (uint64_t)number : 0;

    if (size_fits(key, value))
        text_format_size(value, cure, sizeof(cure));
    else if (value <= key->max >> 20 && size_fits(key, value << 20))
        snprintf(cure, sizeof(cure), "%lluM", (unsigned long long)value);
    else
        snprintf(cure, sizeof(cure), "%s", size_example(key));
    return error_set(err, EINVAL, "%lld is a number; write it with a unit, \"%s\"",
                     (long long)number, cure);
}

/* A string where JSON has a type of its own: refused, with the cure when only the quotes are wrong.
 */
static int refuse_string(const struct config_key *key, const json_t *json, struct error *err)
{
    struct vm_config scratch = {0};
    struct error cause;
    int r = refuse_type(key, json, err);
    size_t len = strlen(err->msg);

    if (!key->object &&
        config_value_parse(key, &scratch, NULL, json_string_value(json), &cause) == 0)
        snprintf(err->msg + len, sizeof(err->msg) - len, "; take the quotes away");
    return r;
}

int config_value_load(const struct config_key *key, void *base, const char *folder,
                      const json_t *json, struct error *err)
{
    bool is_text = key->type != CONFIG_TYPE_UINT && key->type != CONFIG_TYPE_BOOL && !key->object;

    if (json_is_string(json) && is_text)
        return config_value_parse(key, base, folder, json_string_value(json), err);
    if (json_is_string(json))
        return refuse_string(key, json, err);
    if (key->type == CONFIG_TYPE_FORWARDS && json_is_array(json))
        return load_forwards(key, base, json, err);
    if (key->type == CONFIG_TYPE_BOOL && json_is_boolean(json)) {
        *(bool *)config_value_at(key, base) = json_is_true(json);
        return 0;
    }
    if (json_is_integer(json) && key->type == CONFIG_TYPE_SIZE)
        return refuse_plain_size(key, json_integer_value(json), err);
    if (json_is_integer(json) && key->type == CONFIG_TYPE_UINT) {
        json_int_t value = json_integer_value(json);
        char text[24];

        snprintf(text, sizeof(text), "%lld", (long long)value);
        if (value < 0 || (uint64_t)value < key->min || (uint64_t)value > key->max)
            return refuse_range(key, text, err);
        *(uint64_t *)config_value_at(key, base) = (uint64_t)value;
        return 0;
    }
    return refuse_type(key, json, err);
}

void config_value_clear(const struct config_key *key, void *base)
{
    char **owned = NULL;

    if (key->type == CONFIG_TYPE_NAME || key->type == CONFIG_TYPE_ID ||
        key->type == CONFIG_TYPE_MAC || key->type == CONFIG_TYPE_TEXT ||
        key->type == CONFIG_TYPE_PATH || key->type == CONFIG_TYPE_FORWARDS)
        owned = config_value_at(key, base);
    else if (key->type == CONFIG_TYPE_CONSOLE)
        owned = &((struct config_serial *)config_value_at(key, base))->path;
    if (owned) {
        free(*owned);
        *owned = NULL;
    }
}
