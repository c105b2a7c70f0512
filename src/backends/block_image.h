/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMRUN_SRC_BACKENDS_BLOCK_IMAGE_H
#define VMRUN_SRC_BACKENDS_BLOCK_IMAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "vmrun/error.h"

/* An image file or a block device, open and locked. Sizes in bytes. */
struct block_image {
    int fd;                 /* -1: not open */
    bool direct, read_only; /* how to open it */
    bool is_device, can_discard;
    unsigned alignment, memory_alignment; /* of O_DIRECT; else SECTOR_SIZE */
    unsigned logical, physical;
};

/* Errors: as block_open(), without the path before the message. */
int block_image_open(struct block_image *image, const char *path, struct error *err);
void block_image_close(struct block_image *image); /* -1 is fine */
int block_image_size(const struct block_image *image, uint64_t *ret_bytes);
struct block_identity;
int block_image_identity(const struct block_image *image, struct block_identity *ret_identity);

#endif
