/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MIGRATION_SNAPFILE_CHAIN_H
#define MIGRATION_SNAPFILE_CHAIN_H

/*
 * An open snapshot file, alone or with what it builds on: what those who read one share.
 *
 * Whoever asks for a page that this file does not hold goes on to `base`; a file alone has none.
 */
#include "snapfile_format.h"

struct snapfile {
    char *name; /* for messages */
    int fd;
    struct snapfile_superblock super;
    struct snapfile_entry entries[SNAPFILE_MAX_SECTIONS];
    unsigned count;
    uint8_t *sections; /* as they lie in the file, from entries[0].offset on */
    struct snapfile_map map;
    const uint8_t *chunks; /* the checksums' section */
    const uint8_t *pages;  /* the section of that name; NULL: it holds all of them */
    struct snapfile_parent parent;
    char *parent_name;
    struct snapfile *base;
    uint64_t zero_sum, ram_checksum;
};

/* page: in a chunk. */
static inline bool snapfile_holds(const struct snapfile *file, uint64_t chunk, uint64_t page)
{
    return !file->pages || file->pages[chunk * SNAPFILE_PAGES_BYTES + page / 8] >> page % 8 & 1;
}

/*
 * Errors: -EPROTO, it ends early; what pread(2) says. Then what is said of it at or after `from`:
 * the first page that may not be a hole, and the first that may be one.
 */
int snapfile_read_at(int fd, uint64_t offset, void *data, uint64_t bytes, struct error *err);
uint64_t snapfile_next_data(int fd, uint64_t from, uint64_t end);
uint64_t snapfile_next_hole(int fd, uint64_t from, uint64_t end);

#endif
