/* SPDX-License-Identifier: Apache-2.0 */
/* print: the effective configuration as JSON, in a form that loads again from anywhere. */
#include "print.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

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

/* prefix: the object's own path and a dot, or "". */
static int save_object(const struct config_object *object, const char *prefix,
                       const struct vm_config *config, const char *folder, json_t **ret_json,
                       struct error *err)
{
    json_t *json = json_object();
    int r = 0;

    if (!json)
        goto no_memory;
    for (const struct config_key *key = object->keys; key->name; key++) {
        json_t *value = NULL;
        char path[80];

        snprintf(path, sizeof(path), "%s%s%s", prefix, key->name, key->object ? "." : "");
        if (key->object) {
            r = save_object(key->object, path, config, folder, &value, err);
        } else {
            r = config_value_save(key, config, folder, &value, err);
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
    r = save_object(&config_root, "", config, folder, &json, err);
    if (r == 0)
        r = config_print_json(json, out, err);
    free(folder);
    free(working);
    return r;
}
