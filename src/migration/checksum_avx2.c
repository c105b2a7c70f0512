/* SPDX-License-Identifier: Apache-2.0 */
/* checksum_avx2: the same checksum; the build compiles this file for CPUs with AVX2. */
#define CHECKSUM_OPS checksum_avx2
#include "checksum_xxh3.h"
