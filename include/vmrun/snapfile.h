/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMRUN_SNAPFILE_H
#define VMRUN_SNAPFILE_H

/*
 * The file that holds a whole machine: docs/snapshot-format.md is its specification.
 *
 * Sections of named bytes, and RAM: each page at a fixed place, zero pages as holes, so that the
 * file can be mapped as it is. All is covered by checksums: every section by one, RAM by one for
 * each 2 MiB chunk, which is the checksum of the checksums of its 512 pages.
 *
 * A file may hold only what changed since another one, on which it builds, and so on: a chain. Each
 * file of it can be verified alone; RAM is that of the youngest that holds a page.
 *
 * Nothing here knows a machine, a device or KVM.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vmrun/error.h"
#include "vmrun/state.h"

#define SNAPFILE_CHUNK_BYTES (UINT64_C(2) << 20)
#define SNAPFILE_MAX_REGIONS 4
#define SNAPFILE_ID_BYTES 16
#define SNAPFILE_NAME_BYTES 16 /* of a section, with the terminator */
#define SNAPFILE_MAX_CHAIN 16  /* files */

/* Architectures, numbered as in ELF. */
#define SNAPFILE_X86_64 62u
#define SNAPFILE_AARCH64 183u

struct snapfile_region {
    uint64_t gpa, size; /* bytes; multiples of 4096; ascending, disjoint */
};

/*
 * Writing. The file has no name until it is published: a half snapshot never has one. (Where the
 * file system has no O_TMPFILE it is .vmrun-RANDOM until then, which stays after a SIGKILL.)
 * Whoever has a limit on the size of files ignores SIGXFSZ.
 *
 * path: where it is to be; replace: an older file there gives way, at once and only at the end.
 * Errors: -EEXIST "FILE exists; --force replaces it"; -EISDIR; -EINVAL, no such RAM, or what is to
 * be replaced is no regular file; -ENOMEM; what open(2) says of the folder.
 */
struct snapfile_writer;
int snapfile_create(const char *path, bool replace, const struct snapfile_region *regions,
                    unsigned count, struct snapfile_writer **ret_writer, struct error *err);

/*
 * A file that builds on base: it has the same regions and holds only the pages that are put. base
 * may be closed before it is published. Errors: also -EINVAL, path is a file of base's chain, or
 * base has a name that cannot be written down; -EMLINK, the chain is as long as one may be; -EFBIG,
 * more RAM than such a file can have (2 TiB).
 */
struct snapfile;
int snapfile_create_on(const char *path, bool replace, const struct snapfile *base,
                       struct snapfile_writer **ret_writer, struct error *err);

/*
 * Pages from a region's offset on, taking the place of what was there; zero pages become holes.
 * offset and bytes: multiples of 4096. Several threads at once for ranges in different chunks.
 * data may change under it: then that page must be put once more. After a failure the writer is
 * fit only to be abandoned. Errors: -ENOSPC, -EFBIG, -EIO … of the file.
 */
int snapfile_put_pages(struct snapfile_writer *writer, unsigned region, uint64_t offset,
                       const void *data, uint64_t bytes, struct error *err);

/*
 * A section; the name 1 to 15 bytes of a-z, 0-9 and .-_. critical: a reader that does not know it
 * must refuse; such names are listed in src/migration/snapfile_format.c. One thread at a time.
 * Errors: -EINVAL, no such name, or it is taken; -EFBIG, over 64 MiB, or too many; of the file.
 */
int snapfile_put_section(struct snapfile_writer *writer, const char *name, bool critical,
                         const void *data, size_t len, struct error *err);

struct snapfile_written {
    uint64_t data_bytes; /* of pages that are not holes */
    uint64_t held_bytes; /* of pages that it holds, zeros too */
    uint64_t file_bytes; /* its length */
    uint8_t id[SNAPFILE_ID_BYTES];
    uint64_t ram_checksum; /* of all RAM, for who wants to know it again */
};
/*
 * Checksums, section table, data to the disk, superblock, name: in this order. The writer is done
 * with in any case. Errors: as above; -EEXIST when another file took the name meanwhile; what
 * fsync(2) says of the folder: only then the file is there and whole, and the message says so.
 */
int snapfile_publish(struct snapfile_writer *writer, struct snapfile_written *ret_written,
                     struct error *err);
void snapfile_abandon(struct snapfile_writer *writer); /* leaves nothing behind; NULL is fine */

/*
 * Reading. Everything but RAM is read and verified by snapfile_open(), of all files of a chain;
 * they are hostile until then. Errors: -EPROTO "FILE: section 'state': checksum does not match";
 * -ENOTSUP, a newer format or an unknown critical section, named; -ENOENT …; of a chain also
 * -ESTALE, a file is not the one that another was built on; -EMLINK, it is too long.
 */
int snapfile_open(const char *path, struct snapfile **ret_file, struct error *err);
/* Without what it builds on: what is said of RAM below is then said of the pages that it holds. */
int snapfile_open_alone(const char *path, struct snapfile **ret_file, struct error *err);
void snapfile_close(struct snapfile *file); /* with its chain; NULL is fine */

/* What it builds on, as it says itself; false: nothing. Valid until close. */
struct snapfile_parent {
    const char *name;  /* absolute, or from the file's own folder on; fit for a terminal */
    const uint8_t *id; /* SNAPFILE_ID_BYTES */
    uint64_t checksum; /* of its RAM */
};
bool snapfile_parent(const struct snapfile *file, struct snapfile_parent *ret_parent);
/* The file that it builds on, opened with it; NULL: none, or it was opened alone. */
const struct snapfile *snapfile_base(const struct snapfile *file);
const char *snapfile_name(const struct snapfile *file);    /* as it was opened */
uint64_t snapfile_pages_held(const struct snapfile *file); /* by this file of the chain */
/*
 * Which file of the chain a page of a region comes from, and how many pages from there on come from
 * the same one; with a file alone, all of them. page: below the region's end.
 */
const struct snapfile *snapfile_source(const struct snapfile *file, unsigned region, uint64_t page,
                                       uint64_t *ret_pages);

/* The section's bytes, valid until close; NULL: there is none. */
const void *snapfile_section(const struct snapfile *file, const char *name, size_t *ret_len);
/* Sections in their order, for info; false: no more. Two are the file's own: memory and chunks. */
bool snapfile_section_at(const struct snapfile *file, unsigned index, const char **ret_name,
                         bool *ret_critical, const void **ret_data, size_t *ret_len,
                         uint64_t *ret_checksum);

unsigned snapfile_regions(const struct snapfile *file, const struct snapfile_region **ret_regions);
unsigned snapfile_architecture(const struct snapfile *file); /* SNAPFILE_X86_64 … */
const uint8_t *snapfile_id(const struct snapfile *file);
uint64_t snapfile_created_ns(const struct snapfile *file); /* CLOCK_REALTIME */
uint64_t snapfile_file_bytes(const struct snapfile *file); /* its length */
uint64_t snapfile_data_bytes(const struct snapfile *file); /* of RAM, without holes */

/* The section "state", field by field: state_registry_tell(). Errors: its own; -EPROTO, missing. */
int snapfile_tell_state(const struct snapfile *file, state_told_fn *fn, void *opaque,
                        struct error *err);

/* For mmap(2) and pread(2): RAM of a region begins there, a multiple of 2 MiB. */
int snapfile_fd(const struct snapfile *file);
uint64_t snapfile_ram_offset(const struct snapfile *file, unsigned region);

/* Chunks are counted through all regions; a region's last one may be short. */
uint64_t snapfile_chunks(const struct snapfile *file);
/* Are two chunks known to be equal, without reading them? They have the same length. */
bool snapfile_same_chunk(const struct snapfile *a, uint64_t chunk_a, const struct snapfile *b,
                         uint64_t chunk_b);
void snapfile_chunk_range(const struct snapfile *file, uint64_t chunk, uint64_t *ret_gpa,
                          uint64_t *ret_bytes);
/*
 * Read a chunk from all files of the chain, each against its own checksum. into: room for its
 * bytes, or NULL; pages that are zero in both are read but not written, so that fresh memory stays
 * untouched, and pages that an incomplete chain does not have stay as they are. Any thread. Errors:
 * -ENOMEM; -EPROTO "FILE: RAM at 0x200000: checksum does not match"; what pread(2) says.
 */
int snapfile_verify_chunk(const struct snapfile *file, uint64_t chunk, void *into,
                          struct error *err);

/*
 * Archives: a snapshot as one frame of zstd, to be kept or sent. It cannot be read or mapped as it
 * is. Of a chain each file is packed by itself. Both verify the whole snapshot on its way, and
 * neither leaves anything when it fails.
 *
 * progress: so many bytes of the snapshot's are done; false gives up. It may be NULL.
 * Errors: those of snapfile_create() and snapfile_verify_chunk(); -ENOTSUP, no libzstd;
 * -ECANCELED; of unpack also those of snapfile_open().
 */
typedef bool snapfile_progress_fn(void *opaque, uint64_t done, uint64_t all);
/* ret_bytes: the length of what was made. */
int snapfile_pack(const struct snapfile *file, const char *path, bool replace,
                  snapfile_progress_fn *progress, void *opaque, uint64_t *ret_bytes,
                  struct error *err);
int snapfile_unpack(const char *archive, const char *path, bool replace,
                    snapfile_progress_fn *progress, void *opaque, uint64_t *ret_bytes,
                    struct error *err);
/*
 * All of a chain in one new file that builds on none. Errors: as of snapfile_pack(); -EINVAL, path
 * is a file of the chain.
 */
int snapfile_flatten(const struct snapfile *file, const char *path, bool replace,
                     snapfile_progress_fn *progress, void *opaque,
                     struct snapfile_written *ret_written, struct error *err);
/* As snapfile_publish(), but what gets the name is an archive; for a while the disk holds both. */
int snapfile_publish_archive(struct snapfile_writer *writer, snapfile_progress_fn *progress,
                             void *opaque, struct snapfile_written *ret_written, struct error *err);

#endif
