/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMRUN_BOOT_UNPACK_IMPL_H
#define VMRUN_BOOT_UNPACK_IMPL_H

/* Between unpack.c and unpack_lz4.c only. */

#include "unpack.h"

int unpack_damaged(const struct unpack_source *source, const char *why, struct error *err);
void *unpack_symbol(void *library, const char *name); /* NULL when it has none */

int unpack_lz4_head(void *library, const struct unpack_source *source, uint8_t *out, size_t len,
                    struct error *err);
int unpack_lz4_all(void *library, const struct unpack_source *source, uint8_t *out, size_t len,
                   struct error *err);

#endif
