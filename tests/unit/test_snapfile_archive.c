/* SPDX-License-Identifier: Apache-2.0 */
/* Archives of snapshots: there and back, and what is not one is refused and leaves nothing. */
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
#define MOST_BLOCK 131072u

struct bytes {
    uint8_t *data;
    size_t len;
};

static struct bytes load(const char *path)
{
    struct bytes bytes = {0};
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(fstat(fd, &st), 0);
    bytes.len = (size_t)st.st_size;
    bytes.data = malloc(bytes.len + 8);
    assert_non_null(bytes.data);
    assert_int_equal(read(fd, bytes.data, bytes.len), bytes.len);
    close(fd);
    return bytes;
}

static int pack(const char *from, const char *to, struct error *err)
{
    struct snapfile *file = snapshot_file_open(from);
    uint64_t bytes;
    int r = snapfile_pack(file, to, true, NULL, NULL, &bytes, err);

    snapfile_close(file);
    return r;
}

static int unpack(const char *from, const char *to, struct error *err)
{
    uint64_t bytes;

    return snapfile_unpack(from, to, true, NULL, NULL, &bytes, err);
}

static void check_same(const char *one, const char *two)
{
    struct bytes a = load(one), b = load(two);

    assert_int_equal(a.len, b.len);
    assert_memory_equal(a.data, b.data, a.len);
    free(a.data);
    free(b.data);
}

static void a_snapshot_is_the_same_when_it_comes_back(void **state)
{
    const struct snapshot_like like = {
        .regions = {{0, 5 * MIB}, {64 * MIB, 3 * MIB + SNAPSHOT_PAGE}},
        .region_count = 2,
        .pages = {0, 3 * MIB, 5 * MIB - SNAPSHOT_PAGE, 64 * MIB, 67 * MIB, UINT64_MAX},
        .fill = 9};
    struct error err;
    struct stat st;

    (void)state;
    snapshot_make("vm", &like);
    assert_int_equal(pack("vm", "archive", &err), 0);
    assert_int_equal(stat("archive", &st), 0);
    assert_in_range(st.st_size, 100, 100000);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(unpack("archive", "back", &err), 0);
    check_same("vm", "back");
    assert_int_equal(stat("back", &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_in_range(st.st_blocks * 512, 0, 512 * 1024);
}

static void a_machine_can_be_saved_as_an_archive(void **state)
{
    struct snapshot_like like = snapshot_small();
    struct snapfile_written written;
    struct snapfile_writer *writer;
    struct error err;
    struct stat st;

    (void)state;
    assert_int_equal(snapfile_create("saved", true, like.regions, 1, &writer, &err), 0);
    snapshot_put(writer, &like);
    assert_int_equal(snapfile_publish_archive(writer, NULL, NULL, &written, &err), 0);
    assert_int_equal(stat("saved", &st), 0);
    assert_int_equal(st.st_size, written.file_bytes);
    assert_int_equal(written.data_bytes, 2 * SNAPSHOT_PAGE);
    assert_int_equal(unpack("saved", "back", &err), 0);
    struct snapfile *file = snapshot_file_open("back");
    assert_memory_equal(snapfile_id(file), written.id, SNAPFILE_ID_BYTES);
    snapfile_close(file);
}

static void what_is_there_stays_unless_it_is_to_be_replaced(void **state)
{
    struct snapshot_like like = snapshot_small();
    struct snapfile *file;
    struct error err;
    uint64_t bytes;

    (void)state;
    snapshot_make("vm", &like);
    assert_int_equal(pack("vm", "archive", &err), 0);
    folder_write("there", "old", 3);
    assert_int_equal(snapfile_unpack("archive", "there", false, NULL, NULL, &bytes, &err), -EEXIST);
    file = snapshot_file_open("vm");
    assert_int_equal(snapfile_pack(file, "there", false, NULL, NULL, &bytes, &err), -EEXIST);
    snapfile_close(file);
    assert_int_equal(unpack("archive", "there", &err), 0);
    check_same("vm", "there");
}

/* Whatever was done to it: a snapshot that is exactly the one that went in, or none. */
static void refuse_or_restore(const char *original, unsigned before)
{
    struct error err = {0};
    int r = unpack("bad", "bad-back", &err);

    if (r == 0) {
        check_same(original, "bad-back");
        assert_int_equal(unlink("bad-back"), 0);
    } else {
        assert_int_equal(r, -EPROTO);
        assert_memory_equal(err.msg, "bad: ", 5);
    }
    assert_int_equal(folder_count(), before);
}

static void an_archive_with_a_byte_flipped_or_cut_off_gives_nothing_wrong(void **state)
{
    struct snapshot_like like = snapshot_small();
    struct error err;

    (void)state;
    snapshot_make("vm", &like);
    assert_int_equal(pack("vm", "archive", &err), 0);
    struct bytes archive = load("archive");
    folder_write("bad", "", 0);
    unsigned before = folder_count();
    for (size_t i = 0; i < archive.len; i += SNAPSHOT_STEP) {
        archive.data[i] ^= (uint8_t)(1u << i % 8);
        folder_write("bad", archive.data, archive.len);
        refuse_or_restore("vm", before);
        archive.data[i] ^= (uint8_t)(1u << i % 8);
    }
    for (size_t len = 0; len < archive.len; len += 5 * SNAPSHOT_STEP) {
        folder_write("bad", archive.data, len);
        assert_true(unpack("bad", "bad-back", &err) == -EPROTO);
        assert_int_equal(folder_count(), before);
    }
    free(archive.data);
}

/* A frame of zstd with these bytes as they are (RFC 8878: one segment, raw blocks). */
static void write_frame(const char *path, const uint8_t *data, size_t len, const char *after)
{
    uint8_t head[] = {0x28, 0xb5, 0x2f, 0xfd, 0xa0, 0, 0, 0, 0};
    FILE *file = fopen(path, "we");

    assert_non_null(file);
    snapfile_put_le(head + 5, len, 4);
    fwrite(head, 1, sizeof(head), file);
    do {
        size_t part = len < MOST_BLOCK ? len : MOST_BLOCK;
        uint8_t block[3];

        snapfile_put_le(block, part << 3 | (part == len), 3);
        fwrite(block, 1, sizeof(block), file);
        fwrite(data, 1, part, file);
        data += part;
        len -= part;
    } while (len > 0);
    fputs(after, file);
    assert_int_equal(fclose(file), 0);
}

static void refused(const char *words)
{
    unsigned before = folder_count();
    struct error err = {0};

    assert_int_equal(unpack("odd", "odd-back", &err), -EPROTO);
    assert_string_equal(err.msg, words);
    assert_int_equal(folder_count(), before);
}

static void what_is_inside_is_verified_before_it_has_a_name(void **state)
{
    struct snapshot_like like = snapshot_small();
    struct error err;

    (void)state;
    snapshot_make("vm", &like);
    struct bytes vm = load("vm");
    write_frame("odd", vm.data, vm.len, "");
    assert_int_equal(unpack("odd", "odd-back", &err), 0);
    check_same("vm", "odd-back");
    assert_int_equal(unlink("odd-back"), 0);

    write_frame("odd", vm.data, vm.len, "x");
    refused("odd: as an archive of a snapshot: something follows it");
    write_frame("odd", vm.data, vm.len - 1, "");
    refused("odd: as an archive of a snapshot: shorter than it says");
    vm.data[vm.len] = 0;
    write_frame("odd", vm.data, vm.len + 1, "");
    refused("odd: as an archive of a snapshot: longer than it says");
    write_frame("odd", vm.data, 4095, "");
    refused("odd: as an archive of a snapshot: too short");
    write_frame("odd", vm.data, 0, "");
    refused("odd: as an archive of a snapshot: too short");
    vm.data[2 * MIB + 4 * SNAPSHOT_PAGE] ^= 1;
    write_frame("odd", vm.data, vm.len, "");
    refused("odd: section 'machine': checksum does not match");
    vm.data[2 * MIB + 4 * SNAPSHOT_PAGE] ^= 1;
    vm.data[2 * MIB] ^= 1;
    write_frame("odd", vm.data, vm.len, "");
    refused("odd: RAM at 0x0: checksum does not match");
    vm.data[0] ^= 1;
    write_frame("odd", vm.data, vm.len, "");
    refused("odd: superblock: not a snapshot of vmrun");
    folder_write("odd", "", 0);
    refused("odd: as an archive of a snapshot: cut off");
    free(vm.data);
}

static void a_damaged_snapshot_is_not_packed(void **state)
{
    struct snapshot_like like = snapshot_small();
    struct error err;

    (void)state;
    snapshot_make("hurt", &like);
    int fd = open("hurt", O_RDWR | O_CLOEXEC);
    assert_int_equal(pwrite(fd, "!", 1, (off_t)(2 * MIB)), 1);
    close(fd);
    unsigned before = folder_count();
    assert_int_equal(pack("hurt", "never", &err), -EPROTO);
    assert_string_equal(err.msg, "hurt: RAM at 0x0: checksum does not match");
    assert_int_equal(folder_count(), before);
}

struct watcher {
    unsigned calls, give_up_at;
    uint64_t last;
};

static bool watch(void *opaque, uint64_t done, uint64_t all)
{
    struct watcher *w = opaque;

    assert_true(done >= w->last && done <= all);
    w->last = done;
    return ++w->calls != w->give_up_at;
}

static void both_tell_how_far_they_are_and_can_be_given_up(void **state)
{
    struct snapshot_like like = {
        .regions = {{0, 9 * MIB}}, .region_count = 1, .pages = {0, 5 * MIB, UINT64_MAX}};
    struct error err;
    uint64_t bytes;

    (void)state;
    snapshot_make("vm", &like);
    assert_int_equal(pack("vm", "archive", &err), 0);
    struct snapfile *file = snapshot_file_open("vm");
    unsigned before = folder_count();
    for (unsigned turn = 1; turn < 7; turn++) {
        struct watcher w = {.give_up_at = turn};

        assert_int_equal(snapfile_pack(file, "never", true, watch, &w, &bytes, &err), -ECANCELED);
        assert_int_equal(w.calls, turn);
        w = (struct watcher){.give_up_at = turn};
        assert_int_equal(snapfile_unpack("archive", "never", true, watch, &w, &bytes, &err),
                         -ECANCELED);
        assert_int_equal(folder_count(), before);
    }
    struct watcher w = {0};
    assert_int_equal(snapfile_pack(file, "other", true, watch, &w, &bytes, &err), 0);
    assert_int_equal(w.last, snapfile_file_bytes(file));
    snapfile_close(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_snapshot_is_the_same_when_it_comes_back),
        cmocka_unit_test(a_machine_can_be_saved_as_an_archive),
        cmocka_unit_test(what_is_there_stays_unless_it_is_to_be_replaced),
        cmocka_unit_test(an_archive_with_a_byte_flipped_or_cut_off_gives_nothing_wrong),
        cmocka_unit_test(what_is_inside_is_verified_before_it_has_a_name),
        cmocka_unit_test(a_damaged_snapshot_is_not_packed),
        cmocka_unit_test(both_tell_how_far_they_are_and_can_be_given_up),
    };

    return cmocka_run_group_tests_name("snapfile_archive", tests, folder_enter, folder_leave);
}
