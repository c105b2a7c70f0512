/* SPDX-License-Identifier: Apache-2.0 */
/*
 * value_save: a value of struct vm_config as JSON, as value.c would load it.
 */
#include "value.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "quote.h"
#include "vmrun/forward.h"
#include "vmrun/text.h"

static int save_forwards(const char *text, json_t **ret_json, struct error *err)
{
    json_t *list = text ? json_array() : NULL;
    size_t len;

    if (text && !list)
        return error_set(err, ENOMEM, "out of memory");
    for (; text && (len = forward_next(&text)) > 0; text += len) {
        if (json_array_append_new(list, json_stringn(text, len)) < 0) {
            json_decref(list);
            return error_set(err, ENOMEM, "out of memory");
        }
    }
    *ret_json = list;
    return 0;
}

static int keep(json_t *json, json_t **ret_json, struct error *err)
{
    if (!json)
        return error_set(err, ENOMEM, "out of memory");
    *ret_json = json;
    return 0;
}

static int save_text(const char *prefix, const char *folder, const char *text, json_t **ret_json,
                     struct error *err)
{
    char quoted[QUOTE_SIZE];
    char *joined;
    int r;

    if (!text) {
        *ret_json = NULL;
        return 0;
    }
    joined = config_value_join(folder, text);
    if (!joined)
        return error_set(err, ENOMEM, "out of memory");
    if (config_text_check(joined) == CONFIG_TEXT_NOT_UTF8)
        r = error_set(err, EINVAL, "%s is not UTF-8 text and cannot stand in JSON",
                      config_quote(joined, quoted));
    else
        r = keep(json_sprintf("%s%s", prefix, joined), ret_json, err);
    free(joined);
    return r;
}

/* A number without a default, where 0 stands for none. */
static bool is_not_given(const struct config_key *key, const uint64_t *number)
{
    bool is_number = key->type == CONFIG_TYPE_UINT || key->type == CONFIG_TYPE_SIZE ||
                     key->type == CONFIG_TYPE_PERCENT;

    return is_number && !key->start && *number == 0;
}

int config_value_save(const struct config_key *key, const void *base, const char *folder,
                      json_t **ret_json, struct error *err)
{
    const void *at = config_value_at(key, base);
    const struct config_serial *serial = at;
    const uint64_t *number = at;
    char size[24];

    if (is_not_given(key, at)) {
        *ret_json = NULL;
        return 0;
    }
    switch (key->type) {
    case CONFIG_TYPE_NAME:
    case CONFIG_TYPE_ID:
    case CONFIG_TYPE_MAC:
    case CONFIG_TYPE_TEXT: return save_text("", NULL, *(char *const *)at, ret_json, err);
    case CONFIG_TYPE_FORWARDS: return save_forwards(*(char *const *)at, ret_json, err);
    case CONFIG_TYPE_PATH: return save_text("", folder, *(char *const *)at, ret_json, err);
    case CONFIG_TYPE_UINT: return keep(json_integer((json_int_t)*number), ret_json, err);
    case CONFIG_TYPE_PERCENT:
        return keep(json_sprintf("%llu%%", (unsigned long long)*number), ret_json, err);
    case CONFIG_TYPE_BOOL: return keep(json_boolean(*(const bool *)at), ret_json, err);
    case CONFIG_TYPE_SIZE:
        text_format_size(*number, size, sizeof(size));
        return save_text("", NULL, size, ret_json, err);
    case CONFIG_TYPE_CHOICE: return save_text("", NULL, key->choices[*number], ret_json, err);
    case CONFIG_TYPE_CONSOLE:
        if (serial->kind == CONFIG_CONSOLE_FILE)
            return save_text(CONFIG_FILE_PREFIX, folder, serial->path, ret_json, err);
        return save_text("", NULL, key->choices[serial->kind], ret_json, err);
    case CONFIG_TYPE_OBJECT:
    case CONFIG_TYPE_ARRAY: break;
    }
    assert(!"an object is saved by its keys");
    return -EINVAL;
}
