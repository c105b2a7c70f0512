/* SPDX-License-Identifier: Apache-2.0 */
/* Snapshot files: what is written is read back, and is sparse and private. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../src/migration/snapfile_format.h"
#include "folder.h"
#include "snapshot.h"

#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)

static struct snapfile_writer *create(const char *path, bool replace, uint64_t bytes)
{
    const struct snapfile_region region = {0, bytes};
    struct snapfile_writer *writer;
    struct error err;

    if (snapfile_create(path, replace, &region, 1, &writer, &err) < 0)
        fail_msg("%s", err.msg);
    return writer;
}

static void what_is_written_is_read_back(void **state)
{
    struct snapshot_like like = {.regions = {{0, 5 * MIB}, {4 * GIB, 3 * MIB + SNAPSHOT_PAGE}},
                                 .region_count = 2,
                                 .pages = {0, 3 * MIB, 4 * GIB, 4 * GIB + 3 * MIB, UINT64_MAX},
                                 .fill = 9};
    uint8_t *chunk = malloc(SNAPFILE_CHUNK_BYTES), page[SNAPSHOT_PAGE];
    const struct snapfile_region *regions;
    uint64_t gpa, bytes;
    struct error err;
    size_t len;

    (void)state;
    snapshot_make("both", &like);
    struct snapfile *file = snapshot_file_open("both");
    assert_int_equal(snapfile_regions(file, &regions), 2);
    assert_memory_equal(regions, like.regions, 2 * sizeof(*regions));
    assert_int_equal(snapfile_data_bytes(file), 4 * SNAPSHOT_PAGE);
    assert_int_equal(snapfile_architecture(file), SNAPFILE_X86_64);
    assert_memory_equal(snapfile_section(file, "machine", &len), SNAPSHOT_MACHINE, len);
    assert_int_equal(len, strlen(SNAPSHOT_MACHINE));
    assert_null(snapfile_section(file, "nothing", &len));

    assert_int_equal(snapfile_chunks(file), 5);
    snapfile_chunk_range(file, 2, &gpa, &bytes);
    assert_int_equal(gpa, 4 * MIB);
    assert_int_equal(bytes, 1 * MIB);
    snapfile_chunk_range(file, 4, &gpa, &bytes);
    assert_int_equal(gpa, 4 * GIB + 2 * MIB);
    assert_int_equal(bytes, 1 * MIB + SNAPSHOT_PAGE);
    memset(chunk, 0xaa, SNAPFILE_CHUNK_BYTES);
    assert_int_equal(snapfile_verify_chunk(file, 4, chunk, &err), 0);
    snapshot_fill_page(page, 4 * GIB + 3 * MIB, 9);
    assert_memory_equal(chunk + MIB, page, sizeof(page));
    for (size_t i = 0; i < MIB; i++)
        assert_int_equal(chunk[i], 0);
    assert_int_equal(chunk[MIB + SNAPSHOT_PAGE], 0xaa); /* the chunk is short */
    snapshot_file_verify(file);
    snapfile_close(file);
    free(chunk);
}

static void ram_can_be_mapped_as_it_lies(void **state)
{
    struct snapshot_like like = snapshot_small();
    uint8_t page[SNAPSHOT_PAGE];

    (void)state;
    snapshot_make("mapped", &like);
    struct snapfile *file = snapshot_file_open("mapped");
    assert_int_equal(snapfile_ram_offset(file, 0) % SNAPFILE_CHUNK_BYTES, 0);
    uint8_t *ram = mmap(NULL, 4 * SNAPSHOT_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE,
                        snapfile_fd(file), (off_t)snapfile_ram_offset(file, 0));
    assert_ptr_not_equal(ram, MAP_FAILED);
    snapshot_fill_page(page, 2 * SNAPSHOT_PAGE, like.fill);
    assert_memory_equal(ram + 2 * SNAPSHOT_PAGE, page, sizeof(page));
    assert_true(snapfile_is_zero_page(ram + SNAPSHOT_PAGE));
    munmap(ram, 4 * SNAPSHOT_PAGE);
    snapfile_close(file);
}

static void every_section_is_listed_in_its_order(void **state)
{
    static const char *const names[] = {"machine", "about", "state", "memory", "chunks"};
    struct snapshot_like like = snapshot_small();
    const void *data;
    uint64_t checksum;
    const char *name;
    bool critical;
    size_t len;

    (void)state;
    snapshot_make("sections", &like);
    struct snapfile *file = snapshot_file_open("sections");
    for (unsigned i = 0; i < 5; i++) {
        assert_true(snapfile_section_at(file, i, &name, &critical, &data, &len, &checksum));
        assert_string_equal(name, names[i]);
        assert_int_equal(critical, strcmp(name, "about") != 0);
        assert_int_equal(checksum, snapfile_hash(data, len));
    }
    assert_false(snapfile_section_at(file, 5, &name, &critical, &data, &len, &checksum));
    snapfile_close(file);
}

static void a_page_of_zeros_takes_no_room_and_neither_does_one_that_became_zero(void **state)
{
    uint8_t *ram = calloc(1, 16 * MIB);
    struct snapfile_writer *writer = create("sparse", true, 16 * MIB);
    struct snapfile_written written;
    struct error err;
    struct stat st;

    (void)state;
    memset(ram, 0x55, 8 * MIB);
    assert_int_equal(snapfile_put_pages(writer, 0, 0, ram, 16 * MIB, &err), 0);
    memset(ram + 64 * SNAPSHOT_PAGE, 0, 8 * MIB - 64 * SNAPSHOT_PAGE);
    assert_int_equal(snapfile_put_pages(writer, 0, 0, ram, 16 * MIB, &err), 0);
    written = snapshot_file_publish(writer);
    assert_int_equal(written.data_bytes, 64 * SNAPSHOT_PAGE);
    assert_int_equal(stat("sparse", &st), 0);
    assert_int_equal(st.st_size, written.file_bytes);
    assert_in_range(st.st_blocks * 512, 64 * SNAPSHOT_PAGE, 64 * SNAPSHOT_PAGE + 128 * 1024);
    struct snapfile *file = snapshot_file_open("sparse");
    assert_memory_equal(snapfile_id(file), written.id, SNAPFILE_ID_BYTES);
    snapshot_file_verify(file);
    snapfile_close(file);
    free(ram);
}

static void the_last_of_several_writes_of_a_page_counts(void **state)
{
    struct snapfile_writer *writer = create("twice", true, 4 * SNAPSHOT_PAGE);
    uint8_t pages[4 * SNAPSHOT_PAGE], got[4 * SNAPSHOT_PAGE];
    struct error err;

    (void)state;
    for (uint8_t round = 1; round < 6; round++) {
        memset(pages, round, sizeof(pages));
        memset(pages + (size_t)(round % 4) * SNAPSHOT_PAGE, 0, SNAPSHOT_PAGE);
        assert_int_equal(snapfile_put_pages(writer, 0, 0, pages, sizeof(pages), &err), 0);
    }
    memset(pages + SNAPSHOT_PAGE, 0x77, SNAPSHOT_PAGE);
    assert_int_equal(
        snapfile_put_pages(writer, 0, SNAPSHOT_PAGE, pages + SNAPSHOT_PAGE, SNAPSHOT_PAGE, &err),
        0);
    snapshot_file_publish(writer);
    struct snapfile *file = snapshot_file_open("twice");
    assert_int_equal(snapfile_verify_chunk(file, 0, got, &err), 0);
    assert_memory_equal(got, pages, sizeof(pages));
    snapfile_close(file);
}

struct part {
    struct snapfile_writer *writer;
    const uint8_t *ram;
    unsigned first;
    int result;
};

static void *put_every_fourth_chunk(void *opaque)
{
    struct part *part = opaque;
    struct error err;

    for (uint64_t at = part->first * SNAPFILE_CHUNK_BYTES; at < 32 * MIB && part->result == 0;
         at += 4 * SNAPFILE_CHUNK_BYTES)
        part->result =
            snapfile_put_pages(part->writer, 0, at, part->ram + at, SNAPFILE_CHUNK_BYTES, &err);
    return NULL;
}

static void several_threads_write_different_chunks(void **state)
{
    struct snapfile_writer *writer = create("threads", true, 32 * MIB);
    uint8_t *ram = calloc(1, 32 * MIB), *got = malloc(SNAPFILE_CHUNK_BYTES);
    struct part parts[4];
    pthread_t threads[4];
    struct error err;

    (void)state;
    for (uint64_t at = 0; at < 32 * MIB; at += 3 * SNAPSHOT_PAGE)
        snapshot_fill_page(ram + at, at, 3);
    for (unsigned i = 0; i < 4; i++) {
        parts[i] = (struct part){writer, ram, i, 0};
        assert_int_equal(pthread_create(&threads[i], NULL, put_every_fourth_chunk, &parts[i]), 0);
    }
    for (unsigned i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(parts[i].result, 0);
    }
    snapshot_file_publish(writer);
    struct snapfile *file = snapshot_file_open("threads");
    for (uint64_t i = 0; i < 16; i++) {
        assert_int_equal(snapfile_verify_chunk(file, i, got, &err), 0);
        assert_memory_equal(got, ram + i * SNAPFILE_CHUNK_BYTES, SNAPFILE_CHUNK_BYTES);
    }
    snapfile_close(file);
    free(got);
    free(ram);
}

static void a_file_copied_without_holes_is_the_same_snapshot(void **state)
{
    struct snapshot_like like = snapshot_small();
    struct stat st;

    (void)state;
    snapshot_make("holes", &like);
    assert_int_equal(stat("holes", &st), 0);
    uint8_t *all = malloc((size_t)st.st_size);
    int fd = open("holes", O_RDONLY);
    assert_int_equal(pread(fd, all, (size_t)st.st_size, 0), st.st_size);
    close(fd);
    folder_write("full", all, (size_t)st.st_size);
    free(all);
    struct snapfile *file = snapshot_file_open("full");
    snapshot_file_verify(file);
    snapfile_close(file);
}

static void it_is_the_owners_alone_whatever_the_umask(void **state)
{
    struct snapshot_like like = snapshot_small();
    mode_t before = umask(0);
    struct stat st;

    (void)state;
    snapshot_make("private", &like);
    umask(before);
    assert_int_equal(stat("private", &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
}

static void each_has_an_id_and_the_time_when_it_was_made(void **state)
{
    struct snapshot_like like = snapshot_small();
    uint64_t now = (uint64_t)time(NULL) * 1000000000;

    (void)state;
    snapshot_make("one", &like);
    snapshot_make("two", &like);
    struct snapfile *one = snapshot_file_open("one"), *two = snapshot_file_open("two");
    assert_memory_not_equal(snapfile_id(one), snapfile_id(two), SNAPFILE_ID_BYTES);
    assert_in_range(snapfile_created_ns(one), now, now + 60 * UINT64_C(1000000000));
    snapfile_close(one);
    snapfile_close(two);
}

static void what_cannot_be_a_target_is_refused_at_once(void **state)
{
    static const struct {
        const char *path;
        bool replace;
        int code;
        const char *message;
    } cases[] = {
        {"there", false, EEXIST, "there exists; --force replaces it"},
        {"./there", false, EEXIST, "./there exists; --force replaces it"},
        {"missing/file", false, ENOENT, "missing/file: its folder: No such file or directory"},
        {"there/file", true, ENOTDIR, "there/file: its folder: Not a directory"},
        {"folder", true, EISDIR, "folder: is a folder"},
        {"folder/", true, EISDIR, "folder/: not the name of a file"},
        {"", true, EISDIR, ": not the name of a file"},
        {"..", true, EISDIR, "..: not the name of a file"},
        {"pipe", true, EINVAL, "pipe: exists and is no regular file"},
        {"/dev/null", true, EINVAL, "/dev/null: exists and is no regular file"},
    };
    const struct snapfile_region region = {0, SNAPSHOT_PAGE};
    struct snapfile_writer *writer;

    (void)state;
    folder_write("there", "old", 3);
    assert_int_equal(mkdir("folder", 0700), 0);
    assert_int_equal(mkfifo("pipe", 0600), 0);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct error err = {0};

        assert_int_equal(
            snapfile_create(cases[i].path, cases[i].replace, &region, 1, &writer, &err),
            -cases[i].code);
        assert_string_equal(err.msg, cases[i].message);
    }
    assert_int_equal(unlink("pipe"), 0);
}

static void ram_that_cannot_be_is_refused(void **state)
{
    static const struct {
        struct snapfile_region regions[2];
        unsigned count;
    } cases[] = {
        {{{0, 0}}, 1},
        {{{0, 100}}, 1},
        {{{100, 4096}}, 1},
        {{{0, 8192}, {4096, 4096}}, 2},
        {{{8192, 4096}, {0, 4096}}, 2},
        {{{0, UINT64_MAX - 4095}}, 1},
        {{{UINT64_MAX - 4095, 4096}}, 1},
        {{{0, 4096}}, 0},
    };
    struct snapfile_writer *writer;
    struct error err;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_int_equal(
            snapfile_create("never", false, cases[i].regions, cases[i].count, &writer, &err),
            -EINVAL);
    assert_int_equal(access("never", F_OK), -1);
}

static void sections_that_nobody_could_read_are_refused(void **state)
{
    struct snapfile_writer *writer = create("odd", true, SNAPSHOT_PAGE);
    struct error err;
    char name[24];

    (void)state;
    assert_int_equal(snapfile_put_section(writer, "", false, "x", 1, &err), -EINVAL);
    assert_int_equal(snapfile_put_section(writer, "0123456789abcdef", false, "x", 1, &err),
                     -EINVAL);
    assert_int_equal(snapfile_put_section(writer, "Upper", false, "x", 1, &err), -EINVAL);
    assert_int_equal(snapfile_put_section(writer, "memory", true, "x", 1, &err), -EINVAL);
    assert_int_equal(snapfile_put_section(writer, "never-heard-of", true, "x", 1, &err), -EINVAL);
    assert_int_equal(snapfile_put_section(writer, "state", true, "x", (64 << 20) + 1, &err),
                     -EFBIG);
    assert_int_equal(snapfile_put_section(writer, "state", true, NULL, 0, &err), 0);
    assert_int_equal(snapfile_put_section(writer, "state", true, "x", 1, &err), -EINVAL);
    for (unsigned i = 1; i < 62; i++) {
        snprintf(name, sizeof(name), "extra%u", i);
        assert_int_equal(snapfile_put_section(writer, name, false, name, strlen(name), &err), 0);
    }
    assert_int_equal(snapfile_put_section(writer, "one-more", false, "x", 1, &err), -EFBIG);
    snapshot_file_publish(writer);
    snapfile_close(snapshot_file_open("odd"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read_back),
        cmocka_unit_test(ram_can_be_mapped_as_it_lies),
        cmocka_unit_test(every_section_is_listed_in_its_order),
        cmocka_unit_test(a_page_of_zeros_takes_no_room_and_neither_does_one_that_became_zero),
        cmocka_unit_test(the_last_of_several_writes_of_a_page_counts),
        cmocka_unit_test(several_threads_write_different_chunks),
        cmocka_unit_test(a_file_copied_without_holes_is_the_same_snapshot),
        cmocka_unit_test(it_is_the_owners_alone_whatever_the_umask),
        cmocka_unit_test(each_has_an_id_and_the_time_when_it_was_made),
        cmocka_unit_test(what_cannot_be_a_target_is_refused_at_once),
        cmocka_unit_test(ram_that_cannot_be_is_refused),
        cmocka_unit_test(sections_that_nobody_could_read_are_refused),
    };

    return cmocka_run_group_tests_name("snapfile", tests, folder_enter, folder_leave);
}
