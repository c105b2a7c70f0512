/* SPDX-License-Identifier: Apache-2.0 */
/* Snapshot files that build on others: what they hold together, and chains that are none. */
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
#include "../../src/migration/snapfile_rewrite.h"
#include "folder.h"
#include "snapshot.h"

#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)
#define PAGE SNAPSHOT_PAGE

/* Two regions of 5 MiB and three pages; of the upper one a chunk is short. */
static struct snapshot_like wide(uint8_t fill)
{
    return (struct snapshot_like){
        .regions = {{0, 5 * MIB}, {4 * GIB, 3 * PAGE}},
        .region_count = 2,
        .pages = {0, PAGE, 64 * PAGE, 3 * MIB, 4 * GIB, 4 * GIB + PAGE, UINT64_MAX},
        .fill = fill,
        .ticks = fill,
    };
}

/* base: fill 1. one: pages 1, 2 and 4 GiB anew, with 2. two: page 2 and 3 MiB, with 3. */
static void make_three(void)
{
    struct snapshot_like base = wide(1), one = wide(2), two = wide(3);

    memcpy(one.pages, (uint64_t[]){PAGE, 2 * PAGE, 4 * GIB, UINT64_MAX}, 4 * sizeof(uint64_t));
    memcpy(two.pages, (uint64_t[]){2 * PAGE, 3 * MIB, UINT64_MAX}, 3 * sizeof(uint64_t));
    snapshot_make("base", &base);
    snapshot_make_on("one", "base", &one);
    snapshot_make_on("two", "one", &two);
}

/* Of a page at a guest address: what it was filled with, 0: zeros. */
static void expect_page(const struct snapfile *file, uint64_t gpa, uint8_t fill)
{
    uint8_t *chunk = malloc(SNAPFILE_CHUNK_BYTES), page[PAGE] = {0};
    uint64_t start, bytes, number = 0;
    struct error err;

    assert_non_null(chunk);
    memset(chunk, 0xee, SNAPFILE_CHUNK_BYTES); /* zeros must be written where they are not */
    for (;; number++) {
        snapfile_chunk_range(file, number, &start, &bytes);
        if (gpa >= start && gpa < start + bytes)
            break;
    }
    if (snapfile_verify_chunk(file, number, chunk, &err) < 0)
        fail_msg("%s", err.msg);
    if (fill)
        snapshot_fill_page(page, gpa, fill);
    if (memcmp(chunk + (gpa - start), page, PAGE) != 0)
        fail_msg("page at 0x%llx is not what it must be", (unsigned long long)gpa);
    free(chunk);
}

static void expect_two(const struct snapfile *file)
{
    expect_page(file, 0, 1);
    expect_page(file, PAGE, 2);
    expect_page(file, 2 * PAGE, 3);
    expect_page(file, 3 * PAGE, 0);
    expect_page(file, 64 * PAGE, 1);
    expect_page(file, 3 * MIB, 3);
    expect_page(file, 5 * MIB - PAGE, 0);
    expect_page(file, 4 * GIB, 2);
    expect_page(file, 4 * GIB + PAGE, 1);
    expect_page(file, 4 * GIB + 2 * PAGE, 0);
}

static int open_chain(const char *path, struct error *err)
{
    struct snapfile *file = NULL;
    int r = snapfile_open(path, &file, err);

    snapfile_close(file);
    return r;
}

static void expect_error(const char *path, int code, const char *words)
{
    struct error err = {0};
    int r = open_chain(path, &err);

    if (r != code || strcmp(err.msg, words) != 0)
        fail_msg("%d \"%s\", expected %d \"%s\"", r, err.msg, code, words);
}

static void a_page_is_that_of_the_youngest_file_that_holds_it(void **state)
{
    (void)state;
    make_three();
    struct snapfile *file = snapshot_file_open("two");
    const struct snapfile *one = snapfile_base(file), *base = snapfile_base(one);

    expect_two(file);
    snapshot_file_verify(file);
    assert_string_equal(snapfile_name(one), "one");
    assert_null(snapfile_base(base));
    assert_int_equal(snapfile_pages_held(file), 2);
    assert_int_equal(snapfile_pages_held(one), 3);
    assert_int_equal(snapfile_pages_held(base), 5 * MIB / PAGE + 3);
    assert_int_equal(snapfile_data_bytes(file), 2 * PAGE);
    expect_page(one, 2 * PAGE, 2);
    expect_page(base, 2 * PAGE, 0);
    snapfile_close(file);
}

static void where_each_page_comes_from_is_told_in_runs(void **state)
{
    struct {
        unsigned region;
        uint64_t page, pages, from; /* from: steps down the chain */
    } expected[] = {
        {0, 0, 1, 2},   {0, 1, 1, 1},     {0, 2, 1, 0}, {0, 3, 765, 2}, {0, 64, 704, 2},
        {0, 768, 1, 0}, {0, 769, 511, 2}, {1, 0, 1, 1}, {1, 1, 2, 2},   {1, 2, 1, 2},
    };

    (void)state;
    make_three();
    struct snapfile *file = snapshot_file_open("two");
    for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++) {
        const struct snapfile *from = file;
        uint64_t pages = 0;

        for (uint64_t n = 0; n < expected[i].from; n++)
            from = snapfile_base(from);
        assert_ptr_equal(snapfile_source(file, expected[i].region, expected[i].page, &pages), from);
        assert_int_equal(pages, expected[i].pages);
    }
    assert_ptr_equal(snapfile_source(snapfile_base(snapfile_base(file)), 0, 5, &(uint64_t){0}),
                     snapfile_base(snapfile_base(file)));
    snapfile_close(file);

    uint64_t pages = 0;
    struct error err;
    assert_int_equal(snapfile_open_alone("two", &file, &err), 0);
    assert_ptr_equal(snapfile_source(file, 0, 5, &pages), file);
    assert_int_equal(pages, 5 * MIB / PAGE - 5);
    snapfile_close(file);
}

static void a_page_that_became_zero_hides_the_older_one(void **state)
{
    static const uint8_t zeros[2 * PAGE];
    struct snapshot_like base = wide(1), none = wide(2);
    struct snapfile_writer *writer;
    struct error err;

    (void)state;
    none.pages[0] = UINT64_MAX;
    snapshot_make("base", &base);
    struct snapfile *file = snapshot_file_open("base");
    assert_int_equal(snapfile_create_on("zeroed", true, file, &writer, &err), 0);
    snapfile_close(file);
    snapshot_put(writer, &none);
    assert_int_equal(snapfile_put_pages(writer, 0, PAGE, zeros, sizeof(zeros), &err), 0);
    assert_int_equal(snapshot_file_publish(writer).data_bytes, 0);
    file = snapshot_file_open("zeroed");
    expect_page(file, 0, 1);
    expect_page(file, PAGE, 0);
    expect_page(file, 2 * PAGE, 0);
    assert_int_equal(snapfile_pages_held(file), 2);
    snapfile_close(file);
}

static void a_chain_can_be_moved_with_its_folder(void **state)
{
    struct snapfile_parent parent;

    (void)state;
    assert_int_equal(mkdir("here", 0700), 0);
    assert_int_equal(mkdir("here/deep", 0700), 0);
    struct snapshot_like base = wide(1), young = wide(2);
    snapshot_make("here/deep/base", &base);
    snapshot_make_on("here/young", "here/deep/base", &young);
    assert_int_equal(rename("here", "there"), 0);
    struct snapfile *file = snapshot_file_open("there/young");
    assert_true(snapfile_parent(file, &parent));
    assert_string_equal(parent.name, "deep/base");
    assert_string_equal(snapfile_name(snapfile_base(file)), "there/deep/base");
    snapfile_close(file);

    /* From elsewhere it is called from the root on. */
    snapshot_make_on("there/deep/other", "there/young", &young);
    file = snapshot_file_open("there/deep/other");
    assert_true(snapfile_parent(file, &parent));
    assert_int_equal(parent.name[0], '/');
    snapfile_close(file);
}

static void a_missing_file_of_a_chain_is_named(void **state)
{
    (void)state;
    make_three();
    assert_int_equal(unlink("base"), 0);
    expect_error("two", -ENOENT, "one builds on: base: No such file or directory");
    struct snapfile *alone;
    struct error err;
    assert_int_equal(snapfile_open_alone("two", &alone, &err), 0);
    assert_null(snapfile_base(alone));
    snapshot_file_verify(alone);
    snapfile_close(alone);
}

static void another_file_in_the_place_of_one_is_refused(void **state)
{
    struct snapshot_like base = wide(1);

    (void)state;
    make_three();
    snapshot_make("base", &base); /* the same pages, but another snapshot */
    expect_error("two", -ESTALE, "one builds on: base: is another snapshot by now");
    make_three();
    assert_int_equal(rename("one", "two"), 0);
    snapshot_make_on("one", "base", &base);
    expect_error("one", 0, "");
}

/* The same identity, and checksums that match, but other RAM. */
static void a_base_that_was_changed_with_care_is_refused(void **state)
{
    struct snapshot_like like = wide(9);
    uint8_t id[SNAPFILE_ID_BYTES];

    (void)state;
    make_three();
    struct snapfile *file = snapshot_file_open("base");
    memcpy(id, snapfile_id(file), sizeof(id));
    snapfile_close(file);
    snapshot_make("base", &like);
    int fd = open("base", O_RDWR | O_CLOEXEC);
    assert_int_equal(pwrite(fd, id, sizeof(id), 40), sizeof(id));
    snapshot_mend(fd, SNAPSHOT_ALL);
    close(fd);
    expect_error("base", 0, "");
    expect_error("two", -ESTALE, "one builds on: base: its RAM is not what it was");
}

/* As a working set is put into it: another section, at another place. */
static void what_builds_on_a_file_does_so_when_other_sections_of_it_change(void **state)
{
    struct snapfile_rewrite *rewrite;
    const atomic_bool go_on = false;
    struct error err;

    (void)state;
    make_three();
    for (unsigned i = 0; i < 3; i++) {
        static const char *const paths[] = {"base", "one", "two"};
        struct snapfile *file = snapshot_file_open(paths[i]);

        assert_int_equal(snapfile_rewrite_create(file, paths[i], &rewrite, &err), 0);
        assert_int_equal(snapfile_rewrite_publish(rewrite, "more", "more", 4, &go_on, &err), 0);
        snapfile_close(file);
    }
    struct snapfile *file = snapshot_file_open("two");
    size_t len;
    expect_two(file);
    assert_non_null(snapfile_section(file, "more", &len));
    snapfile_close(file);
}

static void what_is_no_file_is_not_opened_as_a_base(void **state)
{
    (void)state;
    make_three();
    assert_int_equal(unlink("base"), 0);
    assert_int_equal(mkfifo("base", 0600), 0);
    expect_error("one", -EINVAL, "one builds on: base: is no regular file");
    assert_int_equal(unlink("base"), 0);
    assert_int_equal(symlink("/dev/zero", "base"), 0);
    expect_error("one", -EINVAL, "one builds on: base: is no regular file");
}

static void damage_in_any_file_of_a_chain_is_found_and_the_file_named(void **state)
{
    static const struct {
        const char *path, *words;
        off_t at;
    } cases[] = {
        {"base", "base: RAM at 0x0: checksum does not match", 2 * MIB},
        {"one", "one: RAM at 0x0: checksum does not match", 2 * MIB + PAGE},
        /* What it does not hold is nobody's, but not unseen. */
        {"one", "one: RAM at 0x0: a page that is not its own, but not zero", 2 * MIB},
        {"two", "two: RAM at 0x0: checksum does not match", 2 * MIB + 2 * PAGE},
    };
    struct snapfile *file;
    struct error err;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        make_three();
        int fd = open(cases[i].path, O_RDWR | O_CLOEXEC);
        assert_int_equal(pwrite(fd, "\xa5\x5a", 2, cases[i].at + 9), 2);
        close(fd);
        file = snapshot_file_open("two");
        assert_int_equal(snapfile_verify_chunk(file, 0, NULL, &err), -EPROTO);
        assert_string_equal(err.msg, cases[i].words);
        assert_int_equal(snapfile_verify_chunk(file, 1, NULL, &err), 0);
        snapfile_close(file);
    }
}

static uint64_t ram_checksum(const char *path)
{
    struct snapfile_entry entries[SNAPFILE_MAX_SECTIONS];
    struct snapfile_superblock super;
    uint8_t head[2 * PAGE];
    struct error err;
    unsigned count;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    assert_int_equal(pread(fd, head, sizeof(head), 0), sizeof(head));
    close(fd);
    assert_int_equal(snapfile_get_superblock(head, &super, &err), 0);
    assert_int_equal(snapfile_get_table(head + PAGE, &super, entries, &count, &err), 0);
    return snapfile_ram_checksum(entries, count);
}

/* Have a file say that it builds on what has its base's name by now. */
static void forge_base(const char *path, const char *base)
{
    struct snapfile *file, *parent;
    const uint8_t *section;
    uint64_t offset = 0, page = 0;
    uint8_t bytes[24];
    struct error err;
    size_t len;
    int fd = open(path, O_RDWR | O_CLOEXEC);

    assert_int_equal(snapfile_open_alone(path, &file, &err), 0);
    assert_int_equal(snapfile_open_alone(base, &parent, &err), 0);
    section = snapfile_section(file, "base", &len);
    for (uint8_t there[24]; pread(fd, there, 24, (off_t)page) == 24; page += PAGE)
        if (memcmp(there, section, sizeof(there)) == 0)
            offset = page;
    assert_true(offset > 0);
    memcpy(bytes, snapfile_id(parent), SNAPFILE_ID_BYTES);
    snapfile_close(file);
    snapfile_close(parent);
    assert_int_equal(pwrite(fd, bytes, SNAPFILE_ID_BYTES, 56), SNAPFILE_ID_BYTES);
    snapfile_put_le(bytes + SNAPFILE_ID_BYTES, ram_checksum(base), 8);
    assert_int_equal(pwrite(fd, bytes, sizeof(bytes), (off_t)offset), sizeof(bytes));
    snapshot_mend(fd, SNAPSHOT_ALL);
    close(fd);
}

static void a_chain_has_an_end(void **state)
{
    struct snapshot_like like = snapshot_small();
    struct snapfile_writer *writer;
    struct snapfile *file;
    char name[8] = "c0", before[8];
    struct error err;

    (void)state;
    snapshot_make(name, &like);
    for (unsigned i = 1; i < SNAPFILE_MAX_CHAIN; i++) {
        memcpy(before, name, sizeof(before));
        snprintf(name, sizeof(name), "c%u", i);
        like.fill++;
        snapshot_make_on(name, before, &like);
    }
    file = snapshot_file_open(name);
    expect_page(file, 0, SNAPFILE_MAX_CHAIN);
    assert_int_equal(snapfile_create_on("more", false, file, &writer, &err), -EMLINK);
    assert_string_equal(err.msg, "c15: is the last of 16 files, each on another: more are not "
                                 "possible; 'vmrun snapshot flatten' makes one of them");
    snapfile_close(file);

    /* What is longer, though nobody would write it: one more below them all. */
    like = snapshot_small();
    snapshot_make("bottom", &like);
    snapshot_make_on("c0", "bottom", &like);
    for (unsigned i = 1; i < SNAPFILE_MAX_CHAIN; i++) {
        snprintf(before, sizeof(before), "c%u", i - 1);
        snprintf(name, sizeof(name), "c%u", i);
        forge_base(name, before);
    }
    expect_error("c14", 0, "");
    expect_error("c15", -EMLINK, "c15: builds on more than 15 files");
}

static void what_is_built_on_is_not_replaced(void **state)
{
    struct snapfile_writer *writer;
    struct snapfile_written written;
    struct error err;

    (void)state;
    make_three();
    assert_int_equal(link("base", "alias"), 0);
    struct snapfile *file = snapshot_file_open("two");
    assert_int_equal(snapfile_create_on("two", true, file, &writer, &err), -EINVAL);
    assert_string_equal(err.msg, "two: is what the new file would build on");
    assert_int_equal(snapfile_create_on("alias", true, file, &writer, &err), -EINVAL);
    assert_int_equal(snapfile_create_on("one", false, file, &writer, &err), -EINVAL);
    assert_int_equal(snapfile_flatten(file, "base", true, NULL, NULL, &written, &err), -EINVAL);
    assert_string_equal(err.msg, "base: is one of the files that it would be made of");
    snapfile_close(file);
    expect_error("two", 0, "");
}

static void a_flattened_chain_is_the_same_machine_in_one_file(void **state)
{
    struct snapfile_written written;
    struct snapfile_parent parent;
    struct error err;
    size_t len, flat_len;

    (void)state;
    make_three();
    struct snapfile *file = snapshot_file_open("two");
    if (snapfile_flatten(file, "flat", false, NULL, NULL, &written, &err) < 0)
        fail_msg("%s", err.msg);
    assert_int_equal(snapfile_flatten(file, "flat", false, NULL, NULL, &written, &err), -EEXIST);
    struct snapfile *flat = snapshot_file_open("flat");
    assert_false(snapfile_parent(flat, &parent));
    expect_two(flat);
    snapshot_file_verify(flat);
    assert_int_equal(written.data_bytes, 7 * PAGE);
    assert_int_equal(snapfile_data_bytes(flat), 7 * PAGE);
    const void *kept = snapfile_section(file, "state", &len);
    assert_memory_equal(snapfile_section(flat, "state", &flat_len), kept, len);
    assert_int_equal(flat_len, len);
    assert_non_null(snapfile_section(flat, "about", &len));
    assert_int_equal(snapfile_created_ns(flat), snapfile_created_ns(file));
    assert_memory_not_equal(snapfile_id(flat), snapfile_id(file), SNAPFILE_ID_BYTES);
    snapfile_close(flat);
    snapfile_close(file);
    expect_error("flat", 0, "");
}

static void a_damaged_chain_is_not_flattened(void **state)
{
    struct snapfile_written written;
    struct error err;

    (void)state;
    make_three();
    int fd = open("base", O_RDWR | O_CLOEXEC);
    assert_int_equal(pwrite(fd, "\xa5\x5a", 2, 2 * MIB + PAGE), 2); /* a page that is hidden */
    close(fd);
    struct snapfile *file = snapshot_file_open("two");
    assert_int_equal(snapfile_flatten(file, "flat", false, NULL, NULL, &written, &err), -EPROTO);
    assert_string_equal(err.msg, "base: RAM at 0x0: checksum does not match");
    assert_int_equal(access("flat", F_OK), -1);
    snapfile_close(file);
}

static bool give_up(void *opaque, uint64_t done, uint64_t all)
{
    (void)opaque;
    assert_true(done <= all);
    return done < 4 * MIB;
}

static void flattening_can_be_given_up(void **state)
{
    struct snapfile_written written;
    struct error err;

    (void)state;
    make_three();
    struct snapfile *file = snapshot_file_open("two");
    assert_int_equal(snapfile_flatten(file, "flat", false, give_up, NULL, &written, &err),
                     -ECANCELED);
    assert_int_equal(access("flat", F_OK), -1);
    snapfile_close(file);
}

static void each_file_of_a_chain_is_packed_by_itself(void **state)
{
    struct error err;
    uint64_t bytes;

    (void)state;
    make_three();
    struct snapfile *file = snapshot_file_open("two");
    if (snapfile_pack(file, "two.zst", false, NULL, NULL, &bytes, &err) == -ENOTSUP)
        skip();
    snapfile_close(file);
    assert_int_equal(unlink("two"), 0);
    assert_int_equal(snapfile_unpack("two.zst", "two", false, NULL, NULL, &bytes, &err), 0);
    file = snapshot_file_open("two");
    expect_two(file);
    snapfile_close(file);

    /* Nothing else is needed for it. */
    assert_int_equal(unlink("one"), 0);
    assert_int_equal(snapfile_open_alone("two", &file, &err), 0);
    assert_int_equal(snapfile_pack(file, "two.zst", true, NULL, NULL, &bytes, &err), 0);
    assert_int_equal(snapfile_unpack("two.zst", "again", false, NULL, NULL, &bytes, &err), 0);
    snapfile_close(file);
}

static void chunks_that_no_file_changed_are_known_to_be_equal(void **state)
{
    (void)state;
    make_three();
    struct snapfile *two = snapshot_file_open("two"), *one = snapshot_file_open("one"),
                    *base = snapshot_file_open("base");
    /* Chunk 1 begins at 2 MiB; chunk 2 was never touched; 3 is the upper region. */
    assert_false(snapfile_same_chunk(two, 0, one, 0));
    assert_false(snapfile_same_chunk(two, 1, one, 1));
    assert_true(snapfile_same_chunk(one, 1, base, 1));
    assert_true(snapfile_same_chunk(two, 2, base, 2));
    assert_true(snapfile_same_chunk(two, 3, one, 3));
    assert_false(snapfile_same_chunk(two, 3, base, 3));
    assert_true(snapfile_same_chunk(base, 2, base, 2));
    snapfile_close(two);
    snapfile_close(one);
    snapfile_close(base);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_page_is_that_of_the_youngest_file_that_holds_it,
                                        folder_enter, folder_leave),
        cmocka_unit_test_setup_teardown(where_each_page_comes_from_is_told_in_runs, folder_enter,
                                        folder_leave),
        cmocka_unit_test_setup_teardown(a_page_that_became_zero_hides_the_older_one, folder_enter,
                                        folder_leave),
        cmocka_unit_test_setup_teardown(a_chain_can_be_moved_with_its_folder, folder_enter,
                                        folder_leave),
        cmocka_unit_test_setup_teardown(a_missing_file_of_a_chain_is_named, folder_enter,
                                        folder_leave),
        cmocka_unit_test_setup_teardown(another_file_in_the_place_of_one_is_refused, folder_enter,
                                        folder_leave),
        cmocka_unit_test_setup_teardown(a_base_that_was_changed_with_care_is_refused, folder_enter,
                                        folder_leave),
        cmocka_unit_test_setup_teardown(
            what_builds_on_a_file_does_so_when_other_sections_of_it_change, folder_enter,
            folder_leave),
        cmocka_unit_test_setup_teardown(what_is_no_file_is_not_opened_as_a_base, folder_enter,
                                        folder_leave),
        cmocka_unit_test_setup_teardown(damage_in_any_file_of_a_chain_is_found_and_the_file_named,
                                        folder_enter, folder_leave),
        cmocka_unit_test_setup_teardown(a_chain_has_an_end, folder_enter, folder_leave),
        cmocka_unit_test_setup_teardown(what_is_built_on_is_not_replaced, folder_enter,
                                        folder_leave),
        cmocka_unit_test_setup_teardown(a_flattened_chain_is_the_same_machine_in_one_file,
                                        folder_enter, folder_leave),
        cmocka_unit_test_setup_teardown(a_damaged_chain_is_not_flattened, folder_enter,
                                        folder_leave),
        cmocka_unit_test_setup_teardown(flattening_can_be_given_up, folder_enter, folder_leave),
        cmocka_unit_test_setup_teardown(each_file_of_a_chain_is_packed_by_itself, folder_enter,
                                        folder_leave),
        cmocka_unit_test_setup_teardown(chunks_that_no_file_changed_are_known_to_be_equal,
                                        folder_enter, folder_leave),
    };

    return cmocka_run_group_tests_name("snapfile_chain", tests, NULL, NULL);
}
