/* SPDX-License-Identifier: Apache-2.0 */
/* checksum_plain: the checksum for any CPU. */
#define CHECKSUM_OPS checksum_plain
#include "checksum_xxh3.h"
