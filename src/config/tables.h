/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMRUN_SRC_CONFIG_TABLES_H
#define VMRUN_SRC_CONFIG_TABLES_H

/*
 * What a machine's description may hold: one struct config_object per JSON
 * object, one struct config_key per key. Start-up values, parser, checker,
 * flags, schema and printed form walk these tables and know nothing else, so a
 * new key is one row in tables.c (and its paragraph in docs/vmrun.json.5,
 * which a test asks for).
 */

#include <stddef.h>
#include <stdint.h>

#include "vmrun/config.h"

enum config_type {
    CONFIG_TYPE_OBJECT,   /* nested: .object */
    CONFIG_TYPE_ARRAY,    /* of objects like .object, at most .max of them: .items says where */
    CONFIG_TYPE_NAME,     /* char *: 1 to .max of [A-Za-z0-9._-], not starting with . or - */
    CONFIG_TYPE_ID,       /* NAME of an item, once in its array; the default is made of its index */
    CONFIG_TYPE_TEXT,     /* char *: UTF-8 without control characters, at most .max bytes */
    CONFIG_TYPE_PATH,     /* char *: TEXT, not empty; in a file, relative to that file's folder */
    CONFIG_TYPE_MAC,      /* char *: "52:54:00:12:34:56", of one station */
    CONFIG_TYPE_FORWARDS, /* char *: port forwards, blanks between; in JSON an array of them */
    CONFIG_TYPE_UINT,     /* uint64_t: .min to .max; without .start 0 is for "not given" */
    CONFIG_TYPE_SIZE,     /* uint64_t: "512M"; .min to .max, a multiple of .step; else as UINT */
    CONFIG_TYPE_PERCENT,  /* uint64_t: "150%"; otherwise as UINT */
    CONFIG_TYPE_CHOICE,   /* uint64_t: index in .choices */
    CONFIG_TYPE_BOOL,     /* bool */
    CONFIG_TYPE_CONSOLE,  /* struct config_serial: a word of .choices, or "file:PATH" */
};

/*
 * How an array lies in struct vm_config: room for .max items at the key's
 * offset, and how many there are. A flag adds one item: "FIRST,KEY=VALUE,KEY",
 * where FIRST is the value of the key `first`, a boolean KEY alone is true, and
 * ",," is a comma within a value.
 */
struct config_items {
    size_t size;         /* of one */
    size_t count_offset; /* in struct vm_config: a uint64_t */
    const char *word;    /* "disk": of the default id, "disk0" */
    const char *first;
    const char *of_first; /* or NULL: "FIRST=VALUE" in the first place sets this key as well */
    void (*settle)(void *item); /* or NULL: what follows from the keys that were given */
};

struct config_key {
    const char *name; /* NULL ends the table */
    enum config_type type;
    size_t offset; /* in struct vm_config; of an item's key: in the item */
    uint64_t min, max, step;
    const char *const *choices;         /* NULL-ended, in the order of the enum */
    const char *start;                  /* the default, as a flag would give it; NULL: none */
    const struct config_object *object; /* CONFIG_TYPE_OBJECT, CONFIG_TYPE_ARRAY */
    bool optional; /* CONFIG_TYPE_OBJECT: offset is of a bool, whether it is there; else false */
    struct config_items items; /* CONFIG_TYPE_ARRAY */
    bool required;             /* in an item: there is no machine without it */
    const char *description;   /* for the schema: a sentence or two */
};

struct config_object {
    const char *title;
    const char *description;
    const struct config_key *keys;
};

extern const struct config_object config_root;

/*
 * What a path from the root ("boot.kernel", "boot", "disks[0].path") names, or
 * NULL; *ret_base is the struct that its offset counts from. An item of config
 * that is not there is named by nothing.
 */
const struct config_key *config_key_find(const char *path, struct vm_config *config,
                                         void **ret_base);

/* The key of one object by its name, or NULL. */
const struct config_key *config_object_find(const struct config_object *object, const char *name);

/* "name, cpus, memory": the names of an object's keys, cut to len. */
void config_object_list(const struct config_object *object, char *buf, size_t len);

#endif
