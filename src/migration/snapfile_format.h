/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MIGRATION_SNAPFILE_FORMAT_H
#define MIGRATION_SNAPFILE_FORMAT_H

/*
 * What lies where in a snapshot file: superblock, table, RAM, sections. The order is fixed and so
 * is every offset that follows from it, so there is one way to write a file and nothing to overlap.
 * docs/snapshot-format.md specifies it; writer and reader share this and nothing else.
 */
#include "vmrun/snapfile.h"

#define SNAPFILE_PAGE UINT64_C(4096)
#define SNAPFILE_CHUNK_PAGES 512u
#define SNAPFILE_TABLE_OFFSET SNAPFILE_PAGE
#define SNAPFILE_RAM_OFFSET SNAPFILE_CHUNK_BYTES

#define SNAPFILE_MAX_SECTIONS 64u
#define SNAPFILE_TABLE_ENTRY 64u
#define SNAPFILE_MAX_SECTION_BYTES (UINT64_C(64) << 20)
#define SNAPFILE_MAX_SECTIONS_BYTES (UINT64_C(256) << 20)
#define SNAPFILE_MAX_RAM_BYTES (UINT64_C(8) << 40)

/* The sections that this folder writes itself; the last two where a file builds on another. */
#define SNAPFILE_MEMORY "memory"
#define SNAPFILE_CHUNKS "chunks"
#define SNAPFILE_BASE "base"
#define SNAPFILE_PAGES "pages"
#define SNAPFILE_PAGES_BYTES (SNAPFILE_CHUNK_PAGES / 8) /* in it, of a chunk */

struct snapfile_superblock {
    uint32_t architecture;
    bool partial; /* it builds on another file, `parent` */
    uint64_t compatible;
    uint8_t id[SNAPFILE_ID_BYTES], parent[SNAPFILE_ID_BYTES];
    uint64_t created_ns;
    uint64_t table_bytes, table_checksum;
    uint64_t file_bytes;
};

struct snapfile_entry {
    char name[SNAPFILE_NAME_BYTES];
    bool critical;
    uint64_t offset, length, checksum;
};

/* Where RAM lies, in the file and in the count of chunks. */
struct snapfile_map {
    unsigned count;
    struct snapfile_region regions[SNAPFILE_MAX_REGIONS];
    uint64_t offsets[SNAPFILE_MAX_REGIONS];
    uint64_t first_chunk[SNAPFILE_MAX_REGIONS];
    uint64_t data_bytes[SNAPFILE_MAX_REGIONS]; /* of pages that are not holes */
    uint64_t chunks;
    uint64_t end; /* in the file: there the sections begin */
};

static inline uint64_t snapfile_align(uint64_t value, uint64_t to)
{
    return (value + to - 1) / to * to;
}

/* XXH3-64 with seed 0, and of a page that is all zeros. */
uint64_t snapfile_hash(const void *data, size_t len);
uint64_t snapfile_hash_of_zero_page(void);
bool snapfile_is_zero_page(const void *page);
/* As snapfile_hash() of count numbers, each as 8 bytes, little-endian. */
uint64_t snapfile_hash_of_hashes(const uint64_t *hashes, size_t count);

void snapfile_put_le(uint8_t *at, uint64_t value, unsigned size);
uint64_t snapfile_get_le(const uint8_t *at, unsigned size);

/* block: SNAPFILE_PAGE bytes. Errors of get: -EPROTO, -ENOTSUP; the caller adds the file's name. */
void snapfile_put_superblock(const struct snapfile_superblock *super, uint8_t *block);
int snapfile_get_superblock(const uint8_t *block, struct snapfile_superblock *ret_super,
                            struct error *err);

/* The same, but for another table and size. */
void snapfile_change_superblock(uint8_t *block, uint64_t table_bytes, uint64_t table_checksum,
                                uint64_t file_bytes);

/* page: SNAPFILE_PAGE bytes, what the table does not use is zero. */
void snapfile_put_table(const struct snapfile_entry *entries, unsigned count, uint8_t *page);
/* Names, flags and places; also that the last section ends where the file does. */
int snapfile_get_table(const uint8_t *page, const struct snapfile_superblock *super,
                       struct snapfile_entry *ret_entries, unsigned *ret_count, struct error *err);

/*
 * What stands for RAM as a file has it, wherever its other sections lie and whatever they say: the
 * checksum of those of "memory", "chunks", "base" and "pages", as far as it has them.
 */
uint64_t snapfile_ram_checksum(const struct snapfile_entry *entries, unsigned count);
/* Is a section of that name one that this folder writes itself? */
bool snapfile_is_own(const char *name);
/* A name: 1 to 15 of a-z, 0-9, '.', '-' and '_'. */
bool snapfile_is_name(const char *name, size_t len);
/* Is a critical section of that name one that this version understands? */
bool snapfile_is_known(const char *name);

/* Errors: -EINVAL, no such RAM. data_bytes is left at zero. */
int snapfile_map_init(struct snapfile_map *map, const struct snapfile_region *regions,
                      unsigned count, struct error *err);
#define SNAPFILE_MEMORY_ENTRY 32u
void snapfile_put_memory(const struct snapfile_map *map, uint8_t *section);
int snapfile_get_memory(const uint8_t *section, size_t len, struct snapfile_map *ret_map,
                        struct error *err);
/* The region of a chunk, its offset there, and its length; chunk is below map->chunks. */
unsigned snapfile_map_chunk(const struct snapfile_map *map, uint64_t chunk, uint64_t *ret_offset,
                            uint64_t *ret_bytes);

/* Section "base": what a file builds on. */
#define SNAPFILE_BASE_NAME 24u /* the name begins there */
#define SNAPFILE_MAX_BASE_NAME 4095u
/* Errors: -EPROTO. ret_name: allocated. */
int snapfile_get_base(const uint8_t *section, size_t len, const struct snapfile_superblock *super,
                      struct snapfile_parent *ret_parent, char **ret_name, struct error *err);
/* Can it be written as a base's name? It is printed as it is: nothing that moves a cursor. */
bool snapfile_is_base_name(const char *name, size_t len);
/* Section "pages", of as many bytes as it must have: no bits beyond the ends of regions. */
bool snapfile_check_pages(const struct snapfile_map *map, const uint8_t *pages);

/*
 * For tests and fuzzing: as snapfile_create() where there is no O_TMPFILE, and as
 * snapfile_open_alone() of what is open already; name is for messages. The descriptor is the file's
 * from then on, also when this fails.
 */
int snapfile_create_named(const char *path, bool replace, const struct snapfile_region *regions,
                          unsigned count, struct snapfile_writer **ret_writer, struct error *err);
int snapfile_open_fd(int fd, const char *name, struct snapfile **ret_file, struct error *err);

/* Is what has that name a file of the chain? */
bool snapfile_is_of_chain(const struct snapfile *file, const char *path);
/* As snapfile_verify_chunk(), without what the file builds on. */
int snapfile_verify_alone(const struct snapfile *file, uint64_t chunk, void *into,
                          struct error *err);
/* Bytes as they lie in the file. Errors: those of pread(2); -EPROTO, it is shorter by now. */
int snapfile_read(const struct snapfile *file, uint64_t offset, void *data, uint64_t bytes,
                  struct error *err);

#endif
