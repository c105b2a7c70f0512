/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMRUN_SRC_CONFIG_PRINT_H
#define VMRUN_SRC_CONFIG_PRINT_H

#include <stdio.h>

#include <jansson.h>

#include "vmrun/error.h"

/* Indented, with a final newline, flushed. Takes over json. Errors: -EIO and others of out. */
int config_print_json(json_t *json, FILE *out, struct error *err);

#endif
