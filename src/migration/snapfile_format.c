/* SPDX-License-Identifier: Apache-2.0 */
/*
 * snapfile_format: superblock, section table and memory map, to bytes and back.
 *
 * Every number that comes from a file is checked here, against the one layout that there is, before
 * anybody uses it.
 */
#include "snapfile_format.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#define MAJOR 1u
#define MINOR 0u
#define MINOR_PARTIAL 1u /* came with 1.1; other files are what they were */
#define PARTIAL UINT64_C(1)
#define KNOWN_INCOMPATIBLE PARTIAL
#define FLAG_CRITICAL 1u
#define MAX_ADDRESS (UINT64_C(1) << 52)
#define SUPERBLOCK_CHECKSUM (SNAPFILE_PAGE - 8)

/* The first byte is no ASCII and the last is a newline: who reads it as text damages it visibly. */
static const uint8_t magic[8] = {0x89, 'V', 'M', 'S', 'N', 'A', 'P', '\n'};

/* Critical sections that this version understands: whoever writes a new one lists it here. */
static const char *const known[] = {SNAPFILE_MEMORY, SNAPFILE_CHUNKS, SNAPFILE_BASE, SNAPFILE_PAGES,
                                    "machine",       "cpuid",         "state"};
#define OWN 4u /* the first of them */

enum superblock_field {
    AT_MAGIC = 0,
    AT_MAJOR = 8,
    AT_MINOR = 10,
    AT_ARCHITECTURE = 12,
    AT_INCOMPATIBLE = 16,
    AT_COMPATIBLE = 24,
    AT_PAGE_SIZE = 32,
    AT_CHUNK_SIZE = 36,
    AT_ID = 40,
    AT_PARENT = 56,
    AT_CREATED = 72,
    AT_TABLE_OFFSET = 80,
    AT_TABLE_BYTES = 88,
    AT_TABLE_CHECKSUM = 96,
    AT_FILE_BYTES = 104,
    AT_RESERVED = 112,
};

enum entry_field {
    AT_NAME = 0,
    AT_FLAGS = 16,
    AT_RESERVED_FLAGS = 20,
    AT_OFFSET = 24,
    AT_LENGTH = 32,
    AT_CHECKSUM = 40,
    AT_RESERVED_END = 48,
};

void snapfile_put_le(uint8_t *at, uint64_t value, unsigned size)
{
    for (unsigned i = 0; i < size; i++)
        at[i] = (uint8_t)(value >> (8 * i));
}

uint64_t snapfile_get_le(const uint8_t *at, unsigned size)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < size; i++)
        value |= (uint64_t)at[i] << (8 * i);
    return value;
}

static bool all_zero(const uint8_t *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (bytes[i])
            return false;
    return true;
}

bool snapfile_is_name(const char *name, size_t len)
{
    if (len < 1 || len >= SNAPFILE_NAME_BYTES)
        return false;
    for (size_t i = 0; i < len; i++)
        if (!(name[i] >= 'a' && name[i] <= 'z') && !(name[i] >= '0' && name[i] <= '9') &&
            name[i] != '.' && name[i] != '-' && name[i] != '_')
            return false;
    return true;
}

bool snapfile_is_own(const char *name)
{
    for (size_t i = 0; i < OWN; i++)
        if (strcmp(known[i], name) == 0)
            return true;
    return false;
}

uint64_t snapfile_ram_checksum(const struct snapfile_entry *entries, unsigned count)
{
    uint64_t sums[OWN];
    size_t found = 0;

    for (size_t own = 0; own < OWN; own++)
        for (unsigned i = 0; i < count; i++)
            if (strcmp(entries[i].name, known[own]) == 0)
                sums[found++] = entries[i].checksum;
    return snapfile_hash_of_hashes(sums, found);
}

bool snapfile_is_known(const char *name)
{
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (strcmp(known[i], name) == 0)
            return true;
    return false;
}

/* Superblock */

void snapfile_put_superblock(const struct snapfile_superblock *super, uint8_t *block)
{
    memset(block, 0, SNAPFILE_PAGE);
    memcpy(block + AT_MAGIC, magic, sizeof(magic));
    snapfile_put_le(block + AT_MAJOR, MAJOR, 2);
    snapfile_put_le(block + AT_MINOR, super->partial ? MINOR_PARTIAL : MINOR, 2);
    snapfile_put_le(block + AT_ARCHITECTURE, super->architecture, 4);
    snapfile_put_le(block + AT_INCOMPATIBLE, super->partial ? PARTIAL : 0, 8);
    snapfile_put_le(block + AT_COMPATIBLE, super->compatible, 8);
    snapfile_put_le(block + AT_PAGE_SIZE, SNAPFILE_PAGE, 4);
    snapfile_put_le(block + AT_CHUNK_SIZE, SNAPFILE_CHUNK_BYTES, 4);
    memcpy(block + AT_ID, super->id, SNAPFILE_ID_BYTES);
    memcpy(block + AT_PARENT, super->parent, SNAPFILE_ID_BYTES);
    snapfile_put_le(block + AT_CREATED, super->created_ns, 8);
    snapfile_put_le(block + AT_TABLE_OFFSET, SNAPFILE_TABLE_OFFSET, 8);
    snapfile_put_le(block + AT_TABLE_BYTES, super->table_bytes, 8);
    snapfile_put_le(block + AT_TABLE_CHECKSUM, super->table_checksum, 8);
    snapfile_put_le(block + AT_FILE_BYTES, super->file_bytes, 8);
    snapfile_put_le(block + SUPERBLOCK_CHECKSUM, snapfile_hash(block, SUPERBLOCK_CHECKSUM), 8);
}

void snapfile_change_superblock(uint8_t *block, uint64_t table_bytes, uint64_t table_checksum,
                                uint64_t file_bytes)
{
    snapfile_put_le(block + AT_TABLE_BYTES, table_bytes, 8);
    snapfile_put_le(block + AT_TABLE_CHECKSUM, table_checksum, 8);
    snapfile_put_le(block + AT_FILE_BYTES, file_bytes, 8);
    snapfile_put_le(block + SUPERBLOCK_CHECKSUM, snapfile_hash(block, SUPERBLOCK_CHECKSUM), 8);
}

/* What must be as in every file of this version. */
static int check_version(const uint8_t *block, struct error *err)
{
    unsigned major = (unsigned)snapfile_get_le(block + AT_MAJOR, 2);
    unsigned minor = (unsigned)snapfile_get_le(block + AT_MINOR, 2);
    unsigned architecture = (unsigned)snapfile_get_le(block + AT_ARCHITECTURE, 4);
    uint64_t unknown = snapfile_get_le(block + AT_INCOMPATIBLE, 8) & ~KNOWN_INCOMPATIBLE;

    if (major != MAJOR)
        return error_set(err, ENOTSUP, "format %u.%u: this vmrun reads %u.x; %s", major, minor,
                         MAJOR, major > MAJOR ? "a newer one reads it" : "an older one reads it");
    if (unknown)
        return error_set(err, ENOTSUP, "needs features of a newer vmrun: bits 0x%llx",
                         (unsigned long long)unknown);
    if (architecture != SNAPFILE_X86_64 && architecture != SNAPFILE_AARCH64)
        return error_set(err, ENOTSUP, "superblock: architecture %u is unknown", architecture);
    if (snapfile_get_le(block + AT_PAGE_SIZE, 4) != SNAPFILE_PAGE ||
        snapfile_get_le(block + AT_CHUNK_SIZE, 4) != SNAPFILE_CHUNK_BYTES)
        return error_set(err, ENOTSUP, "superblock: pages or chunks of another size");
    return 0;
}

int snapfile_get_superblock(const uint8_t *block, struct snapfile_superblock *ret_super,
                            struct error *err)
{
    struct snapfile_superblock super = {
        .architecture = (uint32_t)snapfile_get_le(block + AT_ARCHITECTURE, 4),
        .partial = snapfile_get_le(block + AT_INCOMPATIBLE, 8) & PARTIAL,
        .compatible = snapfile_get_le(block + AT_COMPATIBLE, 8),
        .created_ns = snapfile_get_le(block + AT_CREATED, 8),
        .table_bytes = snapfile_get_le(block + AT_TABLE_BYTES, 8),
        .table_checksum = snapfile_get_le(block + AT_TABLE_CHECKSUM, 8),
        .file_bytes = snapfile_get_le(block + AT_FILE_BYTES, 8),
    };
    int r;

    if (memcmp(block + AT_MAGIC, magic, sizeof(magic)) != 0)
        return error_set(err, EPROTO, "superblock: not a snapshot of vmrun");
    if (snapfile_get_le(block + SUPERBLOCK_CHECKSUM, 8) !=
        snapfile_hash(block, SUPERBLOCK_CHECKSUM))
        return error_set(err, EPROTO, "superblock: checksum does not match");
    r = check_version(block, err);
    if (r < 0)
        return r;
    memcpy(super.id, block + AT_ID, SNAPFILE_ID_BYTES);
    memcpy(super.parent, block + AT_PARENT, SNAPFILE_ID_BYTES);
    if (!all_zero(block + AT_RESERVED, SUPERBLOCK_CHECKSUM - AT_RESERVED))
        return error_set(err, EPROTO, "superblock: unused bytes are not zero");
    if (all_zero(super.parent, SNAPFILE_ID_BYTES) == super.partial)
        return error_set(err, EPROTO, "superblock: %s",
                         super.partial ? "no word of the earlier snapshot that it builds on"
                                       : "an earlier snapshot that it does not need");
    if (snapfile_get_le(block + AT_TABLE_OFFSET, 8) != SNAPFILE_TABLE_OFFSET ||
        super.table_bytes == 0 || super.table_bytes % SNAPFILE_TABLE_ENTRY != 0 ||
        super.table_bytes > (uint64_t)SNAPFILE_MAX_SECTIONS * SNAPFILE_TABLE_ENTRY)
        return error_set(err, EPROTO, "superblock: no such section table");
    *ret_super = super;
    return 0;
}

/* Section table */

void snapfile_put_table(const struct snapfile_entry *entries, unsigned count, uint8_t *page)
{
    static_assert((uint64_t)SNAPFILE_MAX_SECTIONS * SNAPFILE_TABLE_ENTRY == SNAPFILE_PAGE,
                  "the table is one page");

    memset(page, 0, SNAPFILE_PAGE);
    for (unsigned i = 0; i < count; i++) {
        uint8_t *at = page + (size_t)i * SNAPFILE_TABLE_ENTRY;

        memcpy(at + AT_NAME, entries[i].name, strlen(entries[i].name));
        snapfile_put_le(at + AT_FLAGS, entries[i].critical ? FLAG_CRITICAL : 0, 4);
        snapfile_put_le(at + AT_OFFSET, entries[i].offset, 8);
        snapfile_put_le(at + AT_LENGTH, entries[i].length, 8);
        snapfile_put_le(at + AT_CHECKSUM, entries[i].checksum, 8);
    }
}

static int get_entry(const uint8_t *at, unsigned number, struct snapfile_entry *entry,
                     struct error *err)
{
    size_t len = strnlen((const char *)at + AT_NAME, SNAPFILE_NAME_BYTES);
    uint64_t flags = snapfile_get_le(at + AT_FLAGS, 4);

    if (!snapfile_is_name((const char *)at + AT_NAME, len) ||
        !all_zero(at + AT_NAME + len, SNAPFILE_NAME_BYTES - len))
        return error_set(err, EPROTO, "section table: entry %u has no proper name", number);
    memcpy(entry->name, at + AT_NAME, SNAPFILE_NAME_BYTES);
    if (flags & ~(uint64_t)FLAG_CRITICAL || !all_zero(at + AT_RESERVED_FLAGS, 4) ||
        !all_zero(at + AT_RESERVED_END, SNAPFILE_TABLE_ENTRY - AT_RESERVED_END))
        return error_set(err, EPROTO, "section '%s': flags that nobody knows", entry->name);
    entry->critical = flags & FLAG_CRITICAL;
    entry->offset = snapfile_get_le(at + AT_OFFSET, 8);
    entry->length = snapfile_get_le(at + AT_LENGTH, 8);
    entry->checksum = snapfile_get_le(at + AT_CHECKSUM, 8);
    if (entry->length > SNAPFILE_MAX_SECTION_BYTES)
        return error_set(err, EPROTO, "section '%s': larger than any may be", entry->name);
    return 0;
}

/* Each begins at the first page after the one before it; the first is held against RAM later. */
static int check_place(const struct snapfile_entry *entries, unsigned i, struct error *err)
{
    const struct snapfile_entry *entry = &entries[i];

    if (i == 0 && (entry->offset % SNAPFILE_PAGE || entry->offset <= SNAPFILE_RAM_OFFSET ||
                   entry->offset > MAX_ADDRESS))
        return error_set(err, EPROTO, "section '%s': not where it must be", entry->name);
    if (i > 0 && entry->offset !=
                     snapfile_align(entries[i - 1].offset + entries[i - 1].length, SNAPFILE_PAGE))
        return error_set(err, EPROTO, "section '%s': not where it must be", entry->name);
    for (unsigned j = 0; j < i; j++)
        if (strcmp(entries[j].name, entry->name) == 0)
            return error_set(err, EPROTO, "section '%s': comes twice", entry->name);
    if (entry->critical && !snapfile_is_known(entry->name))
        return error_set(err, ENOTSUP, "section '%s': needs a newer vmrun", entry->name);
    return 0;
}

int snapfile_get_table(const uint8_t *page, const struct snapfile_superblock *super,
                       struct snapfile_entry *ret_entries, unsigned *ret_count, struct error *err)
{
    unsigned count = (unsigned)(super->table_bytes / SNAPFILE_TABLE_ENTRY);
    uint64_t total = 0, end = 0;

    if (snapfile_hash(page, (size_t)super->table_bytes) != super->table_checksum)
        return error_set(err, EPROTO, "section table: checksum does not match");
    if (!all_zero(page + super->table_bytes, SNAPFILE_PAGE - (size_t)super->table_bytes))
        return error_set(err, EPROTO, "section table: bytes after it are not zero");
    for (unsigned i = 0; i < count; i++) {
        int r = get_entry(page + (size_t)i * SNAPFILE_TABLE_ENTRY, i, &ret_entries[i], err);

        if (r == 0)
            r = check_place(ret_entries, i, err);
        if (r < 0)
            return r;
        total += ret_entries[i].length;
        end = ret_entries[i].offset + ret_entries[i].length;
    }
    if (total > SNAPFILE_MAX_SECTIONS_BYTES)
        return error_set(err, EPROTO, "section table: more bytes than sections may have");
    if (end != super->file_bytes)
        return error_set(err, EPROTO, "section table: the last section does not end the file");
    *ret_count = count;
    return 0;
}

/* Memory */

int snapfile_map_init(struct snapfile_map *map, const struct snapfile_region *regions,
                      unsigned count, struct error *err)
{
    uint64_t below = 0, total = 0;

    *map = (struct snapfile_map){.count = count, .end = SNAPFILE_RAM_OFFSET};
    if (count < 1 || count > SNAPFILE_MAX_REGIONS)
        return error_set(err, EINVAL, "1 to %u regions of RAM are possible", SNAPFILE_MAX_REGIONS);
    for (unsigned i = 0; i < count; i++) {
        const struct snapfile_region *r = &regions[i];

        if (r->size == 0 || r->size % SNAPFILE_PAGE || r->gpa % SNAPFILE_PAGE || r->gpa < below ||
            r->gpa > MAX_ADDRESS || r->size > SNAPFILE_MAX_RAM_BYTES - total)
            return error_set(err, EINVAL, "region %u of RAM has no proper address or size", i);
        below = r->gpa + r->size;
        total += r->size;
        map->regions[i] = *r;
        map->offsets[i] = snapfile_align(map->end, SNAPFILE_CHUNK_BYTES);
        map->end = map->offsets[i] + r->size;
        map->first_chunk[i] = map->chunks;
        map->chunks += (r->size + SNAPFILE_CHUNK_BYTES - 1) / SNAPFILE_CHUNK_BYTES;
    }
    return 0;
}

void snapfile_put_memory(const struct snapfile_map *map, uint8_t *section)
{
    for (unsigned i = 0; i < map->count; i++, section += SNAPFILE_MEMORY_ENTRY) {
        snapfile_put_le(section, map->regions[i].gpa, 8);
        snapfile_put_le(section + 8, map->regions[i].size, 8);
        snapfile_put_le(section + 16, map->offsets[i], 8);
        snapfile_put_le(section + 24, map->data_bytes[i], 8);
    }
}

int snapfile_get_memory(const uint8_t *section, size_t len, struct snapfile_map *ret_map,
                        struct error *err)
{
    struct snapfile_region regions[SNAPFILE_MAX_REGIONS] = {0};
    size_t count = len / SNAPFILE_MEMORY_ENTRY;
    struct error why;

    if (len % SNAPFILE_MEMORY_ENTRY || count > SNAPFILE_MAX_REGIONS)
        return error_set(err, EPROTO, "section '" SNAPFILE_MEMORY "': has the wrong size");
    for (size_t i = 0; i < count; i++)
        regions[i] = (struct snapfile_region){
            .gpa = snapfile_get_le(section + i * SNAPFILE_MEMORY_ENTRY, 8),
            .size = snapfile_get_le(section + i * SNAPFILE_MEMORY_ENTRY + 8, 8)};
    if (snapfile_map_init(ret_map, regions, (unsigned)count, &why) < 0)
        return error_set(err, EPROTO, "section '" SNAPFILE_MEMORY "': %s", why.msg);
    for (size_t i = 0; i < count; i++) {
        const uint8_t *at = section + i * SNAPFILE_MEMORY_ENTRY;

        ret_map->data_bytes[i] = snapfile_get_le(at + 24, 8);
        if (snapfile_get_le(at + 16, 8) != ret_map->offsets[i] ||
            ret_map->data_bytes[i] > regions[i].size || ret_map->data_bytes[i] % SNAPFILE_PAGE)
            return error_set(err, EPROTO,
                             "section '" SNAPFILE_MEMORY "': region %zu is not where it must be",
                             i);
    }
    return 0;
}

/* What a file builds on */

bool snapfile_is_base_name(const char *name, size_t len)
{
    if (len < 1 || len > SNAPFILE_MAX_BASE_NAME)
        return false;
    for (size_t i = 0; i < len; i++) {
        unsigned char at = (unsigned char)name[i];

        if (at < 0x20 || at == 0x7f)
            return false;
        /* U+0080 to U+009F in UTF-8 */
        if (at == 0xc2 && i + 1 < len && ((unsigned char)name[i + 1] & 0xe0) == 0x80)
            return false;
    }
    return true;
}

int snapfile_get_base(const uint8_t *section, size_t len, const struct snapfile_superblock *super,
                      struct snapfile_parent *ret_parent, char **ret_name, struct error *err)
{
    if (len <= SNAPFILE_BASE_NAME || memcmp(section, super->parent, SNAPFILE_ID_BYTES) != 0 ||
        !snapfile_is_base_name((const char *)section + SNAPFILE_BASE_NAME,
                               len - SNAPFILE_BASE_NAME))
        return error_set(err, EPROTO, "section '" SNAPFILE_BASE "': names no file");
    *ret_name = strndup((const char *)section + SNAPFILE_BASE_NAME, len - SNAPFILE_BASE_NAME);
    if (!*ret_name)
        return error_set(err, ENOMEM, "out of memory");
    *ret_parent = (struct snapfile_parent){
        .name = *ret_name,
        .id = section,
        .checksum = snapfile_get_le(section + SNAPFILE_ID_BYTES, 8),
    };
    return 0;
}

bool snapfile_check_pages(const struct snapfile_map *map, const uint8_t *pages)
{
    uint64_t offset, bytes;

    for (uint64_t chunk = 0; chunk < map->chunks; chunk++) {
        const uint8_t *bits = pages + chunk * SNAPFILE_PAGES_BYTES;

        (void)snapfile_map_chunk(map, chunk, &offset, &bytes);
        for (uint64_t page = bytes / SNAPFILE_PAGE; page < SNAPFILE_CHUNK_PAGES; page++)
            if (bits[page / 8] >> page % 8 & 1)
                return false;
    }
    return true;
}

unsigned snapfile_map_chunk(const struct snapfile_map *map, uint64_t chunk, uint64_t *ret_offset,
                            uint64_t *ret_bytes)
{
    unsigned region = map->count - 1;

    assert(chunk < map->chunks);
    while (chunk < map->first_chunk[region])
        region--;
    uint64_t offset = (chunk - map->first_chunk[region]) * SNAPFILE_CHUNK_BYTES;
    uint64_t left = map->regions[region].size - offset;

    *ret_offset = offset;
    *ret_bytes = left < SNAPFILE_CHUNK_BYTES ? left : SNAPFILE_CHUNK_BYTES;
    return region;
}
