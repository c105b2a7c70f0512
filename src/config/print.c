/* SPDX-License-Identifier: Apache-2.0 */
/* print: the effective configuration as JSON, in a form that loads again from anywhere. */
#include "print.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "array.h"
#include "tables.h"
#include "value.h"
#include "vmrun/config.h"

int config_print_json(json_t *json, FILE *out, struct error *err)
{
    int r = 0;

    errno = 0;
    if (json_dumpf(json, out, JSON_INDENT(2)) < 0 && !ferror(out))
        r = error_set(err, ENOMEM, "out of memory");
    else if (fputc('\n', out) == EOF || fflush(out) == EOF)
        r = error_errno(err, errno ? errno : EIO, "cannot write");
    json_decref(json);
    return r;
}

/* What is being printed. */
struct save {
    const struct vm_config *config;
    const char *folder; /* that paths are relative to */
};

static int save_object(const struct save *save, const struct config_object *object,
                       const void *base, const char *prefix, json_t **ret_json, struct error *err);

/* path: the array's own. No array when it has no items. */
static int save_array(const struct save *save, const struct config_key *array, const char *path,
                      json_t **ret_json, struct error *err)
{
    size_t count = (size_t)*config_array_count(array, save->config);
    json_t *json = count ? json_array() : NULL;
    int r = count && !json ? error_set(err, ENOMEM, "out of memory") : 0;

    for (size_t i = 0; r == 0 && i < count; i++) {
        json_t *item = NULL;
        char prefix[160];

        snprintf(prefix, sizeof(prefix), "%s[%zu].", path, i);
        r = save_object(save, array->object, config_array_item(array, save->config, i), prefix,
                        &item, err);
        if (r == 0 && json_array_append_new(json, item) < 0)
            r = error_set(err, ENOMEM, "out of memory");
    }
    if (r < 0) {
        json_decref(json);
        return r;
    }
    *ret_json = json;
    return 0;
}

/* base: what the keys' offsets count from; prefix: the object's own path and a dot, or "". */
static int save_object(const struct save *save, const struct config_object *object,
                       const void *base, const char *prefix, json_t **ret_json, struct error *err)
{
    json_t *json = json_object();
    int r = 0;

    if (!json)
        goto no_memory;
    for (const struct config_key *key = object->keys; key->name; key++) {
        json_t *value = NULL;
        bool nested = key->type == CONFIG_TYPE_OBJECT;
        char path[120];

        snprintf(path, sizeof(path), "%s%s%s", prefix, key->name, nested ? "." : "");
        if (key->optional && !*(const bool *)((const char *)base + key->offset))
            continue;
        if (nested) {
            r = save_object(save, key->object, base, path, &value, err);
            if (r == 0 && json_object_size(value) == 0) {
                json_decref(value); /* of what the machine does not have */
                value = NULL;
            }
        } else if (key->type == CONFIG_TYPE_ARRAY) {
            r = save_array(save, key, path, &value, err);
        } else {
            r = config_value_save(key, base, save->folder, &value, err);
            if (r < 0)
                error_prefix(err, "%s", path);
        }
        if (r < 0)
            goto fail;
        if (value && json_object_set_new(json, key->name, value) < 0)
            goto no_memory;
    }
    *ret_json = json;
    return 0;
no_memory:
    r = error_set(err, ENOMEM, "out of memory");
fail:
    json_decref(json);
    return r;
}

int config_print(const struct vm_config *config, FILE *out, struct error *err)
{
    char *working = getcwd(NULL, 0);
    char *folder = NULL;
    json_t *json;
    int r;

    if (!working)
        return error_errno(err, errno, "cannot tell the working folder");
    if (asprintf(&folder, "%s%s", working, working[1] ? "/" : "") < 0) {
        free(working);
        return error_set(err, ENOMEM, "out of memory");
    }
    const struct save save = {.config = config, .folder = folder};
    r = save_object(&save, &config_root, config, "", &json, err);
    if (r == 0)
        r = config_print_json(json, out, err);
    free(folder);
    free(working);
    return r;
}
