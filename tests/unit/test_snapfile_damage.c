/* SPDX-License-Identifier: Apache-2.0 */
/* Snapshot files that are not what was written, by accident or on purpose: each is refused. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../src/migration/snapfile_format.h"
#include "folder.h"
#include "snapshot.h"

#define MIB (UINT64_C(1) << 20)
#define HEAD (2 * SNAPSHOT_PAGE)
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* What `vmrun snapshot verify` does. */
static int verify(const char *path, struct error *err)
{
    struct snapfile *file;
    int r = snapfile_open(path, &file, err);

    if (r < 0)
        return r;
    for (uint64_t i = 0; r == 0 && i < snapfile_chunks(file); i++)
        r = snapfile_verify_chunk(file, i, NULL, err);
    snapfile_close(file);
    return r;
}

static int make(const char *path, const struct snapshot_like *like)
{
    struct error err;
    int fd;

    snapshot_make(path, like);
    if (verify(path, &err) < 0)
        fail_msg("%s", err.msg);
    fd = open(path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    return fd;
}

/* Which section a byte belongs to; the padding after one is its own. */
static const char *section_of(const struct snapfile_entry *entries, unsigned count, uint64_t at)
{
    while (count > 1 && at < entries[count - 1].offset)
        count--;
    return entries[count - 1].name;
}

static uint64_t size_of(int fd)
{
    struct stat st;

    assert_int_equal(fstat(fd, &st), 0);
    return (uint64_t)st.st_size;
}

static void flip(int fd, const char *path, uint64_t at, const char *words)
{
    uint8_t byte, bad;
    struct error err = {0};

    assert_int_equal(pread(fd, &byte, 1, (off_t)at), 1);
    bad = byte ^ (uint8_t)(1u << at % 8);
    assert_int_equal(pwrite(fd, &bad, 1, (off_t)at), 1);
    int r = verify(path, &err);
    if ((r != -EPROTO && r != -ENOTSUP) || !strstr(err.msg, words))
        fail_msg("byte %llu flipped: %d \"%s\", expected \"%s\"", (unsigned long long)at, r,
                 err.msg, words);
    assert_int_equal(pwrite(fd, &byte, 1, (off_t)at), 1);
}

/* A gap is compared as a whole: in its middle one byte of each 61 stands for the others. */
static void flip_gap(int fd, const char *path, uint64_t from, uint64_t end)
{
    char words[40];

    for (uint64_t page = from; page < end; page += SNAPSHOT_PAGE) {
        bool edge = page == from || page + SNAPSHOT_PAGE == end;

        snprintf(words, sizeof(words), "bytes from %llu on", (unsigned long long)page);
        for (uint64_t at = page; at < page + SNAPSHOT_PAGE; at += (edge ? 1 : 61) * SNAPSHOT_STEP)
            flip(fd, path, at, words);
        assert_int_equal(
            fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)page, SNAPSHOT_PAGE),
            0);
    }
}

/* All of a file of one region that is at 0, but for the gap before RAM. */
static void flip_each_byte(int fd, const char *ram_words)
{
    struct snapfile_entry entries[SNAPFILE_MAX_SECTIONS];
    unsigned count = snapshot_file_table(fd, entries);
    uint64_t size = size_of(fd);
    struct error err;
    char words[40];

    for (uint64_t at = 0; at < SNAPSHOT_PAGE; at += SNAPSHOT_STEP)
        flip(fd, "flipped", at, "flipped: superblock: ");
    for (uint64_t at = SNAPSHOT_PAGE; at < HEAD; at += SNAPSHOT_STEP)
        flip(fd, "flipped", at, "flipped: section table: ");
    for (uint64_t at = 2 * MIB; at < entries[0].offset; at += SNAPSHOT_STEP)
        flip(fd, "flipped", at, ram_words);
    for (uint64_t at = entries[0].offset; at < size; at += SNAPSHOT_STEP) {
        snprintf(words, sizeof(words), "flipped: section '%s': ", section_of(entries, count, at));
        flip(fd, "flipped", at, words);
    }
    assert_int_equal(verify("flipped", &err), 0);
    close(fd);
}

static void any_byte_flipped_is_noticed_and_named(void **state)
{
    struct snapshot_like like = snapshot_small();
    int fd = make("flipped", &like);

    (void)state;
    flip_gap(fd, "flipped", HEAD, 2 * MIB);
    flip_each_byte(fd, "flipped: RAM at 0x0: checksum does not match");
}

/* It holds the second page alone. */
static int make_on(const char *path)
{
    struct snapshot_like like = snapshot_small();

    snapshot_make("base", &like);
    memcpy(like.pages, (uint64_t[]){SNAPSHOT_PAGE, UINT64_MAX}, 2 * sizeof(uint64_t));
    snapshot_make_on(path, "base", &like);
    return open(path, O_RDWR | O_CLOEXEC);
}

static void and_so_it_is_in_a_file_that_builds_on_another(void **state)
{
    (void)state;
    flip_each_byte(make_on("flipped"), "flipped: RAM at 0x0: ");
}

static void the_gap_between_two_regions_is_looked_at_too(void **state)
{
    const struct snapshot_like like = {.regions = {{0, SNAPSHOT_PAGE}, {8 * MIB, SNAPSHOT_PAGE}},
                                       .region_count = 2,
                                       .pages = {0, 8 * MIB, UINT64_MAX}};
    int fd = make("gap", &like);

    (void)state;
    flip_gap(fd, "gap", 2 * MIB + SNAPSHOT_PAGE, 2 * MIB + 3 * SNAPSHOT_PAGE);
    flip_gap(fd, "gap", 4 * MIB - 2 * SNAPSHOT_PAGE, 4 * MIB);
    flip(fd, "gap", 4 * MIB, "gap: RAM at 0x800000: checksum does not match");
    close(fd);
}

static void cut(const char *path, int fd, uint64_t size, const char *words)
{
    struct error err = {0};

    assert_int_equal(ftruncate(fd, (off_t)size), 0);
    int r = verify(path, &err);
    if (r != -EPROTO || !strstr(err.msg, words))
        fail_msg("cut to %llu bytes: %d \"%s\", expected \"%s\"", (unsigned long long)size, r,
                 err.msg, words);
}

/* From the end on: what is cut off stays off. */
static void a_file_cut_anywhere_is_refused_and_told_where(void **state)
{
    struct snapfile_entry entries[SNAPFILE_MAX_SECTIONS];
    struct snapshot_like like = snapshot_small();
    int fd = make("cut", &like);
    unsigned count = snapshot_file_table(fd, entries);
    char words[48];

    (void)state;
    for (unsigned i = count; i-- > 0;) {
        snprintf(words, sizeof(words), "cut: section '%s': cut off", entries[i].name);
        for (uint64_t size = entries[i].offset + entries[i].length; size-- > entries[i].offset;)
            cut("cut", fd, size, words);
        if (i > 0) /* into the padding of the one before: what is missing is this one */
            cut("cut", fd, entries[i - 1].offset + entries[i - 1].length, words);
    }
    for (uint64_t size = entries[0].offset; size > 2 * MIB; size -= 512)
        cut("cut", fd, size - 1, "cut: cut off in RAM");
    for (uint64_t size = 2 * MIB; size >= HEAD; size -= SNAPSHOT_PAGE)
        cut("cut", fd, size, "cut: cut off in RAM");
    for (uint64_t size = HEAD; size-- > 0;)
        cut("cut", fd, size, "cut: superblock: not a snapshot of vmrun, or cut off");
    close(fd);
}

static void a_file_that_grew_is_refused(void **state)
{
    struct snapshot_like like = snapshot_small();
    int fd = make("grown", &like);
    struct error err;

    (void)state;
    assert_int_equal(pwrite(fd, "", 1, (off_t)size_of(fd)), 1);
    assert_int_equal(verify("grown", &err), -EPROTO);
    assert_string_equal(err.msg, "grown: 1 bytes longer than it was made");
    close(fd);
}

/* Numbers that somebody wrote there, with checksums that match. */
static const struct forgery {
    uint64_t
        at; /* in the file; from the end of RAM on with AT_SECTIONS, of "memory" with AT_MEMORY */
    uint64_t value;
    unsigned size;
    int code;
    const char *words;
} forgeries[] = {
    {8, 2, 2, -ENOTSUP, "format 2.0: this vmrun reads 1.x; a newer one reads it"},
    {8, 0, 2, -ENOTSUP, "format 0.0: this vmrun reads 1.x; an older one reads it"},
    {10, 7, 2, 0, ""},
    {12, 3, 4, -ENOTSUP, "superblock: architecture 3 is unknown"},
    {12, 183, 4, 0, ""},
    {16, 1, 8, -EPROTO, "superblock: no word of the earlier snapshot that it builds on"},
    {16, 3, 8, -ENOTSUP, "needs features of a newer vmrun: bits 0x2"},
    {16, UINT64_C(1) << 63, 8, -ENOTSUP, "newer vmrun: bits 0x8000000000000000"},
    {24, UINT64_MAX, 8, 0, ""},
    {32, 65536, 4, -ENOTSUP, "superblock: pages or chunks of another size"},
    {36, 4096, 4, -ENOTSUP, "superblock: pages or chunks of another size"},
    {56, 1, 8, -EPROTO, "superblock: an earlier snapshot that it does not need"},
    {80, 8192, 8, -EPROTO, "superblock: no such section table"},
    {88, 0, 8, -EPROTO, "superblock: no such section table"},
    {88, 63, 8, -EPROTO, "superblock: no such section table"},
    {88, 65 * 64, 8, -EPROTO, "superblock: no such section table"},
    {88, UINT64_MAX - 63, 8, -EPROTO, "superblock: no such section table"},
    {88, 4 * 64, 8, -EPROTO, "section table: bytes after it are not zero"},
    {88, 6 * 64, 8, -EPROTO, "section table: entry 5 has no proper name"},
    {104, 0, 8, -EPROTO, "section table: the last section does not end the file"},
    {112, 1, 1, -EPROTO, "superblock: unused bytes are not zero"},
    {4087, 1, 1, -EPROTO, "superblock: unused bytes are not zero"},
    {4096, 'M', 1, -EPROTO, "section table: entry 0 has no proper name"},
    {4096, 0, 1, -EPROTO, "section table: entry 0 has no proper name"},
    {4096 + 15, 'x', 1, -EPROTO, "section table: entry 0 has no proper name"},
    {4096 + 2, 0, 1, -EPROTO, "section table: entry 0 has no proper name"},
    {4096, 'n', 1, -ENOTSUP, "section 'nachine': needs a newer vmrun"},
    {4096 + 16, 3, 4, -EPROTO, "section 'machine': flags that nobody knows"},
    {4096 + 20, 1, 4, -EPROTO, "section 'machine': flags that nobody knows"},
    {4096 + 48, 1, 8, -EPROTO, "section 'machine': flags that nobody knows"},
    {4096 + 24, 0, 8, -EPROTO, "section 'machine': not where it must be"},
    {4096 + 24, UINT64_MAX - 4095, 8, -EPROTO, "section 'machine': not where it must be"},
    {4096 + 32, UINT64_MAX, 8, -EPROTO, "section 'machine': larger than any may be"},
    {4096 + 32, (64 << 20) + 1, 8, -EPROTO, "section 'machine': larger than any may be"},
    {4096 + 32, 64 << 20, 8, -EPROTO, "section 'about': not where it must be"},
    {4096 + 64 + 24, 2 * MIB + 4 * 4096, 8, -EPROTO, "section 'about': not where it must be"},
    {4096 + 64 * 3, 'n', 1, -ENOTSUP, "section 'nemory': needs a newer vmrun"},
    {4096 + 64 * 4 + 32, 0, 8, -EPROTO, "section table: the last section does not end the file"},
};

static void forge(int fd, const struct forgery *forgery, uint64_t base)
{
    uint8_t head[HEAD], bytes[8], before[8];
    off_t at = (off_t)(base + forgery->at);
    struct error err = {0};

    assert_int_equal(pread(fd, head, sizeof(head), 0), sizeof(head));
    assert_int_equal(pread(fd, before, forgery->size, at), forgery->size);
    snapfile_put_le(bytes, forgery->value, forgery->size);
    assert_int_equal(pwrite(fd, bytes, forgery->size, at), forgery->size);
    snapshot_mend(fd, SNAPSHOT_ALL);
    int r = verify("forged", &err);
    if (r != forgery->code || !strstr(err.msg, forgery->words))
        fail_msg("%llu at byte %llu: %d \"%s\", expected \"%s\"",
                 (unsigned long long)forgery->value, (unsigned long long)forgery->at, r, err.msg,
                 forgery->words);
    assert_int_equal(pwrite(fd, before, forgery->size, at), forgery->size);
    assert_int_equal(pwrite(fd, head, sizeof(head), 0), sizeof(head));
}

static void numbers_that_cannot_be_are_refused_though_checksums_match(void **state)
{
    struct snapshot_like like = snapshot_small();
    int fd = make("forged", &like);

    (void)state;
    for (size_t i = 0; i < COUNT(forgeries); i++)
        forge(fd, &forgeries[i], 0);
    close(fd);
}

static void memory_that_cannot_be_is_refused(void **state)
{
    static const struct forgery cases[] = {
        {0, 1, 8, -EPROTO, "section 'memory': region 0 of RAM has no proper address or size"},
        {0, UINT64_MAX - 4095, 8, -EPROTO, "section 'memory': region 0 of RAM has no proper"},
        {8, 0, 8, -EPROTO, "section 'memory': region 0 of RAM has no proper address or size"},
        {8, UINT64_MAX - 4095, 8, -EPROTO, "section 'memory': region 0 of RAM has no proper"},
        {8, UINT64_C(4) << 40, 8, -EPROTO, "section 'chunks': has the wrong size"},
        {8, 8192, 8, -EPROTO, "section 'machine': not where it must be"},
        {16, 0, 8, -EPROTO, "section 'memory': region 0 is not where it must be"},
        {24, 5 * 4096, 8, -EPROTO, "section 'memory': region 0 is not where it must be"},
        {24, 1, 8, -EPROTO, "section 'memory': region 0 is not where it must be"},
    };
    struct snapfile_entry entries[SNAPFILE_MAX_SECTIONS];
    struct snapshot_like like = snapshot_small();
    int fd = make("forged", &like);

    (void)state;
    snapshot_file_table(fd, entries);
    assert_string_equal(entries[3].name, "memory");
    for (size_t i = 0; i < COUNT(cases); i++)
        forge(fd, &cases[i], entries[3].offset);
    close(fd);
}

static void a_base_that_cannot_be_is_refused(void **state)
{
    static const struct forgery in_superblock[] = {
        {16, 0, 8, -EPROTO, "superblock: an earlier snapshot that it does not need"},
        {56, 7, 8, -EPROTO, "section 'base': names no file"},
    };
    static const struct forgery in_base[] = {
        {0, 7, 8, -EPROTO, "section 'base': names no file"},
        {16, 7, 8, -ESTALE, "forged builds on: base: its RAM is not what it was"},
        {24, 0, 1, -EPROTO, "section 'base': names no file"},
        {25, '\n', 1, -EPROTO, "section 'base': names no file"},
        {26, 0x9bc2, 2, -EPROTO, "section 'base': names no file"}, /* CSI, in UTF-8 */
        {27, 0x7f, 1, -EPROTO, "section 'base': names no file"},
        {24, '.', 1, -ENOENT, "forged builds on: .ase: No such file or directory"},
        {24, 0x2f2f2e2e, 4, -EINVAL, "forged builds on: ..//: is no regular file"},
    };
    static const struct forgery in_pages[] = {
        {0, 0x12, 1, -EPROTO, "section 'pages': more pages than there are"},
        {63, 0x80, 1, -EPROTO, "section 'pages': more pages than there are"},
        {0, 0, 1, -EPROTO, "RAM at 0x0: a page that is not its own, but not zero"},
    };
    struct snapfile_entry entries[SNAPFILE_MAX_SECTIONS];
    int fd = make_on("forged");

    (void)state;
    assert_int_equal(snapshot_file_table(fd, entries), 7);
    assert_string_equal(entries[5].name, "base");
    assert_string_equal(entries[6].name, "pages");
    for (size_t i = 0; i < COUNT(in_superblock); i++)
        forge(fd, &in_superblock[i], 0);
    for (size_t i = 0; i < COUNT(in_base); i++)
        forge(fd, &in_base[i], entries[5].offset);
    for (size_t i = 0; i < COUNT(in_pages); i++)
        forge(fd, &in_pages[i], entries[6].offset);
    close(fd);
}

/* Give a section another name, with a table that is right otherwise. */
static int rename_section_of(int fd, const char *from, const char *to, bool critical,
                             struct error *err)
{
    struct snapfile_entry entries[SNAPFILE_MAX_SECTIONS];
    unsigned count = snapshot_file_table(fd, entries);
    uint8_t page[SNAPSHOT_PAGE];

    for (unsigned i = 0; i < count; i++) {
        if (strcmp(entries[i].name, from) != 0)
            continue;
        memset(entries[i].name, 0, sizeof(entries[i].name));
        memcpy(entries[i].name, to, strlen(to));
        entries[i].critical = critical;
    }
    snapfile_put_table(entries, count, page);
    assert_int_equal(pwrite(fd, page, sizeof(page), SNAPSHOT_PAGE), sizeof(page));
    snapshot_mend(fd, SNAPSHOT_ALL);
    close(fd);
    return verify("renamed", err);
}

static int rename_section(const char *from, const char *to, bool critical, struct error *err)
{
    struct snapshot_like like = snapshot_small();

    return rename_section_of(make("renamed", &like), from, to, critical, err);
}

static void sections_that_are_missing_or_unknown_or_there_twice_are_named(void **state)
{
    struct error err;

    (void)state;
    assert_int_equal(rename_section("memory", "other", false, &err), -EPROTO);
    assert_string_equal(err.msg, "renamed: section 'memory': missing");
    assert_int_equal(rename_section("chunks", "other", false, &err), -EPROTO);
    assert_string_equal(err.msg, "renamed: section 'chunks': missing");
    assert_int_equal(rename_section("about", "machine", true, &err), -EPROTO);
    assert_string_equal(err.msg, "renamed: section 'machine': comes twice");
    assert_int_equal(rename_section("about", "telepathy", true, &err), -ENOTSUP);
    assert_string_equal(err.msg, "renamed: section 'telepathy': needs a newer vmrun");
    assert_int_equal(rename_section("about", "telepathy", false, &err), 0);
    assert_int_equal(rename_section("about", "base", true, &err), -EPROTO);
    assert_string_equal(err.msg, "renamed: section 'base': in a file that builds on none");
    assert_int_equal(rename_section("about", "pages", true, &err), -EPROTO);
    assert_string_equal(err.msg, "renamed: section 'pages': in a file that builds on none");
    assert_int_equal(rename_section_of(make_on("renamed"), "base", "x", false, &err), -EPROTO);
    assert_string_equal(err.msg, "renamed: section 'base': missing");
    assert_int_equal(rename_section_of(make_on("renamed"), "pages", "x", false, &err), -EPROTO);
    assert_string_equal(err.msg, "renamed: section 'pages': missing");
}

static void what_is_no_snapshot_is_refused_without_waiting(void **state)
{
    struct error err;

    (void)state;
    folder_write("empty", "", 0);
    folder_write("text", "hello\n", 6);
    folder_write("vast", "", 0);
    assert_int_equal(truncate("vast", INT64_C(1) << 42), 0);
    assert_int_equal(mkfifo("pipe", 0600), 0);
    assert_int_equal(verify("nowhere", &err), -ENOENT);
    assert_string_equal(err.msg, "nowhere: No such file or directory");
    assert_int_equal(verify("empty", &err), -EPROTO);
    assert_int_equal(verify("text", &err), -EPROTO);
    assert_int_equal(verify("vast", &err), -EPROTO);
    assert_string_equal(err.msg, "vast: superblock: not a snapshot of vmrun");
    assert_int_equal(verify("pipe", &err), -EINVAL);
    assert_string_equal(err.msg, "pipe: is no regular file");
    assert_int_equal(verify(".", &err), -EINVAL);
    assert_int_equal(verify("/dev/zero", &err), -EINVAL);
}

/* The state is told only when all of it can be. */
static void count_told(void *opaque, const struct state_told *told)
{
    (void)told;
    ++*(unsigned *)opaque;
}

static void a_state_that_cannot_be_read_is_named(void **state)
{
    struct snapfile_entry entries[SNAPFILE_MAX_SECTIONS];
    struct snapshot_like like = snapshot_small();
    int fd = make("state", &like);
    struct snapfile *file;
    unsigned told = 0;
    struct error err;

    (void)state;
    assert_int_equal(snapfile_open("state", &file, &err), 0);
    assert_int_equal(snapfile_tell_state(file, count_told, &told, &err), 0);
    assert_int_equal(told, 3);
    snapfile_close(file);

    snapshot_file_table(fd, entries);
    assert_string_equal(entries[2].name, "state");
    assert_int_equal(pwrite(fd, "\xff", 1, (off_t)entries[2].offset), 1);
    snapshot_mend(fd, SNAPSHOT_ALL);
    close(fd);
    assert_int_equal(snapfile_open("state", &file, &err), 0);
    assert_int_equal(snapfile_tell_state(file, count_told, &told, &err), -EPROTO);
    assert_memory_equal(err.msg, "state: section 'state': ", 24);
    assert_int_equal(told, 3);
    snapfile_close(file);
}

/* In memory where that can be had: on a disk each hole that is made again waits for it. */
static int enter(void **state)
{
    char *path = strdup("/dev/shm/vmrun-test-XXXXXX");

    if (path && mkdtemp(path) && chdir(path) == 0) {
        *state = path;
        return 0;
    }
    free(path);
    return folder_enter(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_byte_flipped_is_noticed_and_named),
        cmocka_unit_test(and_so_it_is_in_a_file_that_builds_on_another),
        cmocka_unit_test(the_gap_between_two_regions_is_looked_at_too),
        cmocka_unit_test(a_file_cut_anywhere_is_refused_and_told_where),
        cmocka_unit_test(a_file_that_grew_is_refused),
        cmocka_unit_test(numbers_that_cannot_be_are_refused_though_checksums_match),
        cmocka_unit_test(memory_that_cannot_be_is_refused),
        cmocka_unit_test(a_base_that_cannot_be_is_refused),
        cmocka_unit_test(sections_that_are_missing_or_unknown_or_there_twice_are_named),
        cmocka_unit_test(what_is_no_snapshot_is_refused_without_waiting),
        cmocka_unit_test(a_state_that_cannot_be_read_is_named),
    };

    return cmocka_run_group_tests_name("snapfile_damage", tests, enter, folder_leave);
}
