/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SUPPORT_SNAPSHOT_H
#define SUPPORT_SNAPSHOT_H

/* Small snapshot files of a machine that never was: for tests of those who read them. */
#include <stdbool.h>
#include <stdint.h>

#include "vmrun/memory.h"
#include "vmrun/snapfile.h"

struct snapfile_entry;

#define SNAPSHOT_PAGE 4096u
#define SNAPSHOT_MACHINE "{\n  \"cpus\": 1,\n  \"disks\": [{\"path\": \"/a.img\"}]\n}\n"
#define SNAPSHOT_ABOUT "{\"version\": \"0.0.1\", \"host\": \"there\", \"kernel\": \"6.1\"}"

struct snapshot_like {
    struct snapfile_region regions[SNAPFILE_MAX_REGIONS];
    unsigned region_count;
    uint64_t pages[16];  /* guest addresses of those that have data, ended by UINT64_MAX */
    uint8_t fill;        /* what their data comes from */
    uint32_t ticks;      /* the state has fields ticks, flags (8 elements) and deadline */
    uint8_t flag;        /* of flags, the last */
    const char *machine; /* its description; NULL: SNAPSHOT_MACHINE */
};

/* 4 pages at 0, of which the first and the third have data. */
struct snapshot_like snapshot_small(void);

void snapshot_fill_page(uint8_t *page, uint64_t gpa, uint8_t fill);
/* What belongs into a new file; it is not published. Failures are the test's. */
void snapshot_put(struct snapfile_writer *writer, const struct snapshot_like *like);
void snapshot_make(const char *path, const struct snapshot_like *like);

/* A file that builds on base, and holds the pages of `like` alone. */
void snapshot_make_on(const char *path, const char *base, const struct snapshot_like *like);

struct snapfile_written snapshot_file_publish(struct snapfile_writer *writer);
struct snapfile *snapshot_file_open(const char *path);
/* All of its RAM. */
void snapshot_file_verify(const struct snapfile *file);

/* The entries of its sections, of which the last one ends the file; how many. */
unsigned snapshot_file_table(int fd, struct snapfile_entry *entries);

/* RAM of two regions of 2 MiB, the upper one behind a hole up to 4 GiB, with pages of the first
 * `data` bytes of each; and memory that is mapped from such a file.
 */
extern const struct snapfile_region snapshot_halves[2];
void snapshot_put_halves(struct snapfile_writer *writer, const uint64_t data[2]);
struct guest_memory *snapshot_map_halves(const struct snapfile *file);

/* Where each byte of a file is tried in turn: one of so many. ThreadSanitizer has nothing to see
 * there, and would take minutes.
 */
#ifdef __SANITIZE_THREAD__
#define SNAPSHOT_STEP 13
#else
#define SNAPSHOT_STEP 1
#endif

/* Make checksums right again, as far as what they are of can be found: of sections, table,
 * superblock.
 */
enum { SNAPSHOT_SECTIONS = 1, SNAPSHOT_TABLE = 2, SNAPSHOT_SUPERBLOCK = 4, SNAPSHOT_ALL = 7 };
void snapshot_mend(int fd, unsigned what);

#endif
