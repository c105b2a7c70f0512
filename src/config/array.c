/* SPDX-License-Identifier: Apache-2.0 */
/*
 * array: lists of like things (disks), as the tables describe them. An item is
 * a struct in a fixed array inside struct vm_config; the offsets of its keys
 * count from the item.
 */
#include "array.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "quote.h"
#include "value.h"
#include "vmrun/text.h"

#define KEYS_MAX 32 /* of one item */

uint64_t *config_array_count(const struct config_key *key, const struct vm_config *config)
{
    return (uint64_t *)((char *)config + key->items.count_offset);
}

void *config_array_item(const struct config_key *key, const struct vm_config *config, size_t index)
{
    return (char *)config + key->offset + index * key->items.size;
}

static void clear_item(const struct config_key *array, void *item)
{
    for (const struct config_key *key = array->object->keys; key->name; key++)
        config_value_clear(key, item);
    memset(item, 0, array->items.size);
}

int config_array_add(const struct config_key *array, struct vm_config *config, void **ret_item,
                     struct error *err)
{
    uint64_t *count = config_array_count(array, config);
    void *item;

    if (*count == array->max)
        return error_set(err, EINVAL, "at most %llu are allowed", (unsigned long long)array->max);
    item = config_array_item(array, config, (size_t)*count);
    memset(item, 0, array->items.size);
    for (const struct config_key *key = array->object->keys; key->name; key++) {
        int r = key->start ? config_value_parse(key, item, NULL, key->start, err) : 0;

        if (r < 0) {
            clear_item(array, item);
            return r;
        }
    }
    ++*count;
    *ret_item = item;
    return 0;
}

static void *member(const struct config_key *key, const void *item)
{
    return (char *)item + key->offset;
}

int config_array_finish(const struct config_key *array, const struct vm_config *config, void *item,
                        struct error *err)
{
    size_t index =
        (size_t)((char *)item - (char *)config_array_item(array, config, 0)) / array->items.size;
    char id[32];

    for (const struct config_key *key = array->object->keys; key->name; key++) {
        if (key->type == CONFIG_TYPE_ID && !*(char **)member(key, item)) {
            snprintf(id, sizeof(id), "%s%zu", array->items.word, index);
            int r = config_value_parse(key, item, NULL, id, err);

            if (r < 0)
                return r;
        }
        /* Only strings can be missing: all other types have a value from the start. */
        if (key->required && !*(char **)member(key, item))
            return error_set(err, EINVAL, "\"%s\" is missing", key->name);
    }
    if (array->items.settle)
        array->items.settle(item);
    return 0;
}

void config_array_clear(const struct config_key *array, struct vm_config *config)
{
    uint64_t *count = config_array_count(array, config);

    while (*count > 0)
        clear_item(array, config_array_item(array, config, (size_t)-- * count));
}

/* Cut the next word off *text, which is changed: ends at a comma, ",," stands for one. */
static char *next_word(char **text)
{
    char *word = *text, *from = word, *to = word;

    if (!word)
        return NULL;
    while (*from && (*from != ',' || from[1] == ',')) {
        from += *from == ',';
        *to++ = *from++;
    }
    *text = *from ? from + 1 : NULL;
    *to = '\0';
    return word;
}

static int refuse_word(const struct config_key *array, const char *name, struct error *err)
{
    const char *candidates[KEYS_MAX + 1] = {0};
    char list[200], quoted[QUOTE_SIZE];
    const char *near;
    size_t count = 0;

    for (const struct config_key *key = array->object->keys; key->name && count < KEYS_MAX; key++)
        candidates[count++] = key->name;
    config_quote(name, quoted);
    near = text_nearest(name, candidates);
    if (near)
        return error_set(err, EINVAL, "%s is not known here; did you mean \"%s\"?", quoted, near);
    config_object_list(array->object, list, sizeof(list));
    return error_set(err, EINVAL, "%s is not known here; known: %s (a comma in a value is \",,\")",
                     quoted, list);
}

/* Set one key of an item, once. */
static int set_key(const struct config_key *array, void *item, const struct config_key *key,
                   const char *value, uint64_t *seen, struct error *err)
{
    unsigned nth = (unsigned)(key - array->object->keys);
    bool again = *seen & UINT64_C(1) << nth;
    int r;

    if (again && key->type == CONFIG_TYPE_FORWARDS) {
        r = config_value_add(key, item, value, err);
        return r < 0 ? error_prefix(err, "%s", key->name) : 0;
    }
    if (again)
        return error_set(err, EINVAL, "%s is there twice", key->name);
    *seen |= UINT64_C(1) << nth;
    r = config_value_parse(key, item, NULL, value, err);
    return r < 0 ? error_prefix(err, "%s", key->name) : 0;
}

/* The first word when it names no key: "root.img", or "tap=tap0" where that has a key of its own.
 */
static int parse_first(const struct config_key *array, void *item, char *word, char *equals,
                       uint64_t *seen, struct error *err)
{
    const struct config_key *first = config_object_find(array->object, array->items.first);
    const struct config_key *more =
        array->items.of_first ? config_object_find(array->object, array->items.of_first) : NULL;
    int r;

    assert(first && (more || !array->items.of_first));
    if (equals && !more)
        *equals = '='; /* it is a part of the value */
    r = set_key(array, item, first, word, seen, err);
    return r == 0 && equals && more ? set_key(array, item, more, equals + 1, seen, err) : r;
}

/* One word of a flag; is_first: it may be a value without its key. */
static int parse_word(const struct config_key *array, void *item, char *word, bool is_first,
                      uint64_t *seen, struct error *err)
{
    char *equals = strchr(word, '=');
    const char *value = equals ? equals + 1 : "true";
    const struct config_key *key;

    if (equals)
        *equals = '\0';
    key = config_object_find(array->object, word);
    if (is_first && (!key || !equals))
        return parse_first(array, item, word, equals, seen, err);
    if (!key)
        return refuse_word(array, word, err);
    if (!equals && key->type != CONFIG_TYPE_BOOL)
        return error_set(err, EINVAL, "%s has no value; write %s=VALUE", word, word);
    return set_key(array, item, key, value, seen, err);
}

int config_array_parse(const struct config_key *array, struct vm_config *config, const char *text,
                       struct error *err)
{
    char *copy = strdup(text), *rest = copy;
    uint64_t seen = 0;
    void *item = NULL;
    int r;

    if (!copy)
        return error_set(err, ENOMEM, "out of memory");
    r = config_array_add(array, config, &item, err);
    if (r < 0)
        goto done;
    for (char *word = next_word(&rest); r == 0 && word; word = next_word(&rest))
        r = parse_word(array, item, word, word == copy, &seen, err);
    if (r == 0)
        r = config_array_finish(array, config, item, err);
    if (r < 0) {
        clear_item(array, item);
        --*config_array_count(array, config);
    }
done:
    free(copy);
    return r;
}

static int parse_keys(const struct config_key *object, struct vm_config *config, const char *text,
                      struct error *err)
{
    char *copy = strdup(text), *rest = copy;
    uint64_t seen = 0;
    int r = copy ? 0 : error_set(err, ENOMEM, "out of memory");

    for (char *word = next_word(&rest); r == 0 && word; word = next_word(&rest))
        r = parse_word(object, config, word, false, &seen, err);
    free(copy);
    return r;
}

int config_object_parse(const struct config_key *object, struct vm_config *config, const char *text,
                        struct error *err)
{
    struct vm_config trial;
    int r;

    config_init(&trial);
    r = parse_keys(object, &trial, text, err);
    config_fini(&trial);
    return r < 0 ? r : parse_keys(object, config, text, err);
}

int config_array_check_ids(const struct config_key *array, const struct vm_config *config,
                           struct error *err)
{
    const struct config_key *key = array->object->keys;
    uint64_t count = *config_array_count(array, config);
    char quoted[QUOTE_SIZE];

    while (key->type != CONFIG_TYPE_ID)
        if (!(++key)->name)
            return 0;
    for (size_t i = 0; i < count; i++) {
        const char *id = *(char **)member(key, config_array_item(array, config, i));

        for (size_t j = 0; id && j < i; j++) {
            const char *other = *(char **)member(key, config_array_item(array, config, j));

            if (other && strcmp(id, other) == 0)
                return error_set(err, EINVAL, "%s[%zu].%s: %s is the id of %s[%zu] already",
                                 array->name, i, key->name, config_quote(id, quoted), array->name,
                                 j);
        }
    }
    return 0;
}
