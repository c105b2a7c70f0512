/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMRUN_SRC_CONFIG_VALUE_H
#define VMRUN_SRC_CONFIG_VALUE_H

/*
 * One value of a configuration, by its row in the tables: out of a text or JSON
 * into struct vm_config, and back. Messages say what is wrong with the value;
 * the caller puts in front where it stands.
 */

#include <jansson.h>

#include "tables.h"
#include "vmrun/error.h"

/*
 * Set a value from a text, as a flag gives it. base: what the key's offset counts
 * from, struct vm_config or an item. folder is put before relative paths: NULL, or
 * it ends in "/". Not for CONFIG_TYPE_OBJECT or CONFIG_TYPE_ARRAY. Leaves base as
 * it was on failure.
 * Errors: -EINVAL, -ENOMEM.
 */
int config_value_parse(const struct config_key *key, void *base, const char *folder,
                       const char *text, struct error *err);

/* More of a CONFIG_TYPE_FORWARDS: it goes on behind what was there. Errors: as above. */
int config_value_add(const struct config_key *key, void *base, const char *text, struct error *err);

/* The same from JSON, whose type must fit: always refuses for those two. */
int config_value_load(const struct config_key *key, void *base, const char *folder,
                      const json_t *json, struct error *err);

/*
 * A value as JSON; *ret_json is NULL when it has none. Not for those two. folder as above: paths
 * in base are relative to it. Errors: -EINVAL a path that is no UTF-8, -ENOMEM.
 */
int config_value_save(const struct config_key *key, const void *base, const char *folder,
                      json_t **ret_json, struct error *err);

/* Free what the value owns. */
void config_value_clear(const struct config_key *key, void *base);

/* Where it is. */
static inline void *config_value_at(const struct config_key *key, const void *base)
{
    return (char *)base + key->offset;
}
/* A path as it is from here: malloc()ed, or NULL. folder: NULL, or it ends with a slash. */
char *config_value_join(const char *folder, const char *path);
#define CONFIG_FILE_PREFIX "file:" /* of a console's path */

#endif
