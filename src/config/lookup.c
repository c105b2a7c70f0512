/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lookup: from a path, as a person writes it ("disks[0].iops"), to the row of the tables and the
 * struct that its offset counts from.
 */
#include <stdio.h>
#include <string.h>

#include "array.h"
#include "tables.h"
#include "vmrun/text.h"

static const struct config_key *find(const struct config_object *object, const char *name,
                                     size_t len)
{
    for (const struct config_key *key = object->keys; key->name; key++)
        if (strlen(key->name) == len && memcmp(key->name, name, len) == 0)
            return key;
    return NULL;
}

const struct config_key *config_object_find(const struct config_object *object, const char *name)
{
    return find(object, name, strlen(name));
}

/* "[1]" behind an array's name: its length and the item, or 0 when there is no such item. */
static size_t find_item(const struct config_key *key, const char *text, struct vm_config *config,
                        void **ret_item)
{
    char digits[4];
    size_t len = text[0] == '[' ? strspn(text + 1, "0123456789") : 0;
    uint64_t index;

    if (len == 0 || len >= sizeof(digits) || text[1 + len] != ']')
        return 0;
    snprintf(digits, sizeof(digits), "%.*s", (int)len, text + 1);
    if (text_parse_uint(digits, 999, &index) < 0 || index >= *config_array_count(key, config))
        return 0;
    *ret_item = config_array_item(key, config, (size_t)index);
    return len + 2;
}

const struct config_key *config_key_find(const char *path, struct vm_config *config,
                                         void **ret_base)
{
    const struct config_object *object = &config_root;
    void *base = config;

    while (object) {
        size_t len = strcspn(path, ".[");
        const struct config_key *key = find(object, path, len);

        if (!key)
            return NULL;
        path += len;
        if (!*path) {
            *ret_base = base;
            return key;
        }
        if (key->type == CONFIG_TYPE_ARRAY)
            path += find_item(key, path, config, &base);
        if (*path != '.' || (key->type == CONFIG_TYPE_ARRAY && base == config))
            return NULL;
        object = key->object;
        path++;
    }
    return NULL;
}

void config_object_list(const struct config_object *object, char *buf, size_t len)
{
    size_t at = 0;

    buf[0] = '\0';
    for (const struct config_key *key = object->keys; key->name && at < len; key++)
        at += (size_t)snprintf(buf + at, len - at, "%s%s", at ? ", " : "", key->name);
}
