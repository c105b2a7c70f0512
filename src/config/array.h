/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMRUN_SRC_CONFIG_ARRAY_H
#define VMRUN_SRC_CONFIG_ARRAY_H

/* Arrays of objects in struct vm_config, by their row in the tables (CONFIG_TYPE_ARRAY). */

#include <stddef.h>
#include <stdint.h>

#include "tables.h"
#include "vmrun/error.h"

uint64_t *config_array_count(const struct config_key *key, const struct vm_config *config);
void *config_array_item(const struct config_key *key, const struct vm_config *config, size_t index);

/*
 * A new last item with its defaults, the id excepted. Errors: -EINVAL, there
 * are as many as may be; -ENOMEM. Then nothing is added.
 */
int config_array_add(const struct config_key *key, struct vm_config *config, void **ret_item,
                     struct error *err);

/* What an item's own keys do not show: an id is made up, a key that must be there is there. */
int config_array_finish(const struct config_key *key, const struct vm_config *config, void *item,
                        struct error *err);

/* Add an item from a flag's text. Leaves config as it was on failure. Errors: -EINVAL, -ENOMEM. */
int config_array_parse(const struct config_key *key, struct vm_config *config, const char *text,
                       struct error *err);

/* The same for some keys of an object that is none's item. */
int config_object_parse(const struct config_key *key, struct vm_config *config, const char *text,
                        struct error *err);

/* No items any more; what they own is freed. */
void config_array_clear(const struct config_key *key, struct vm_config *config);

/* Two items with one id. The message begins with the JSON path. Errors: -EINVAL. */
int config_array_check_ids(const struct config_key *key, const struct vm_config *config,
                           struct error *err);

#endif
