/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMRUN_SRC_BACKENDS_BLOCK_IMAGE_H
#define VMRUN_SRC_BACKENDS_BLOCK_IMAGE_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "vmrun/error.h"

/* An image file or a block device, open and locked. Sizes in bytes. */
struct block_image {
    int fd;                 /* -1: not open */
    bool direct, read_only; /* how to open it */
    bool elsewhere; /* somebody else has its locks now: open it without, and leave it alone */
    bool is_device, can_discard;
    unsigned alignment, memory_alignment; /* of O_DIRECT; else SECTOR_SIZE */
    unsigned logical, physical;
    /* Of one that was offered to another process (block_handover.c): its times then and before. */
    struct timespec stamp, time_before;
    bool stamped;
};

/* Errors: as block_open(), without the path before the message. */
int block_image_open(struct block_image *image, const char *path, struct error *err);
void block_image_close(struct block_image *image); /* -1 is fine */
/* Take the locks of a writable image, or give them up: from then on it is elsewhere. Errors: of
 * block_lock(). */
int block_image_lock(struct block_image *image, struct error *err);
void block_image_unlock(struct block_image *image);
int block_image_size(const struct block_image *image, uint64_t *ret_bytes);
struct block_identity;
int block_image_identity(const struct block_image *image, struct block_identity *ret_identity);

struct block;
struct block_image *block_image_of(struct block *block);

#endif
