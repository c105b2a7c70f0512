/* SPDX-License-Identifier: Apache-2.0 */
/*
 * frame_mend: a stream whose frames have their magic, numbers and checksums made right, so that
 * what lies behind these checks is reached. The targets that take frames have this in common.
 */
#ifndef FRAME_MEND_H
#define FRAME_MEND_H

#include <stddef.h>
#include <stdint.h>

/* The first two bits of an input's first byte, its choices. */
#define FRAME_MEND 1u        /* mend it at all */
#define FRAME_CUT_LENGTHS 2u /* no frame is longer than what is left of the stream */

/* In place, up to the first frame that is not whole; nothing unless `choices` say so. */
void frame_mend(uint8_t *stream, size_t len, unsigned choices);

#endif
