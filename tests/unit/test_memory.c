/* SPDX-License-Identifier: Apache-2.0 */
/* memory: guest addresses are hostile, and what the VMM wrote is known. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "vmrun/memory.h"

#define MIB UINT64_C(0x100000)
#define GIB (1024 * MIB)
#define PAGE ((uint64_t)GUEST_PAGE_SIZE)

/* 8 MiB: 4 below a small hole, 4 above 4 GiB; the rules are those of a large guest. */
static const struct memory_layout layout = {
    .size = 8 * MIB, .hole_start = 4 * MIB, .hole_end = 4 * GIB};

static int setup_backing(void **state, enum memory_backing backing)
{
    struct memory_layout l = layout;
    struct error err;

    l.backing = backing;
    return guest_memory_create(&l, (struct guest_memory **)state, &err);
}

static int setup(void **state)
{
    return setup_backing(state, MEMORY_ANONYMOUS);
}

static int setup_memfd(void **state)
{
    return setup_backing(state, MEMORY_MEMFD);
}

static int setup_transparent(void **state)
{
    struct memory_layout l = layout;
    struct error err;

    l.pages = MEMORY_PAGES_TRANSPARENT;
    return guest_memory_create(&l, (struct guest_memory **)state, &err);
}

static int teardown(void **state)
{
    guest_memory_destroy(*state);
    return 0;
}

static void ram_lies_around_the_hole(void **state)
{
    struct guest_memory *mem = *state;

    assert_int_equal(mem->count, 2);
    assert_true(mem->regions[0].gpa == 0 && mem->regions[0].size == 4 * MIB);
    assert_true(mem->regions[1].gpa == 4 * GIB && mem->regions[1].size == 4 * MIB);
    assert_true(guest_memory_size(mem) == 8 * MIB);
    for (unsigned i = 0; i < mem->count; i++) {
        assert_true((uintptr_t)mem->regions[i].host % (2 * MIB) == 0);
        assert_int_equal(mem->regions[i].fd, -1);
    }
}

static void a_small_guest_has_one_region(void **state)
{
    struct memory_layout l = layout;
    struct guest_memory *mem;
    struct error err;

    (void)state;
    l.size = 4 * MIB;
    assert_int_equal(guest_memory_create(&l, &mem, &err), 0);
    assert_int_equal(mem->count, 1);
    assert_non_null(guest_memory_at(mem, 4 * MIB - 1, 1));
    assert_null(guest_memory_at(mem, 4 * MIB, 1));
    guest_memory_destroy(mem);
}

static void only_what_lies_wholly_inside_one_region_is_reached(void **state)
{
    static const struct {
        uint64_t gpa, len;
    } outside[] = {
        {4 * MIB, 1},           {4 * MIB - 1, 2},
        {0, 4 * MIB + 1},       {0, UINT64_MAX},
        {1, UINT64_MAX},        {4 * MIB - 1, UINT64_MAX},
        {4 * GIB - 1, 1},       {4 * GIB - 1, 2},
        {4 * GIB + 4 * MIB, 1}, {4 * GIB + 4 * MIB - 8, 9},
        {UINT64_MAX, 1},        {UINT64_MAX, UINT64_MAX},
        {0, 4 * GIB + 4 * MIB},
    };
    struct guest_memory *mem = *state;
    uint8_t byte = 0x55;

    for (unsigned i = 0; i < sizeof(outside) / sizeof(outside[0]); i++) {
        assert_null(guest_memory_at(mem, outside[i].gpa, outside[i].len));
        assert_int_equal(guest_memory_read(mem, outside[i].gpa, &byte, outside[i].len), -EFAULT);
        assert_int_equal(guest_memory_write(mem, outside[i].gpa, &byte, outside[i].len), -EFAULT);
        assert_int_equal(guest_memory_zero(mem, outside[i].gpa, outside[i].len), -EFAULT);
        guest_memory_mark_dirty(mem, outside[i].gpa, outside[i].len);
    }
    assert_int_equal(byte, 0x55);
    for (uint64_t at = 0; at < 4 * MIB; at += PAGE)
        assert_false(guest_memory_test_dirty(mem, at, false) ||
                     guest_memory_test_dirty(mem, 4 * GIB + at, false));
    assert_ptr_equal(guest_memory_at(mem, 4 * GIB + 4 * MIB - 8, 8),
                     mem->regions[1].host + 4 * MIB - 8);
    assert_non_null(guest_memory_at(mem, 0, 4 * MIB));
}

static void what_is_written_is_read_back(void **state)
{
    struct guest_memory *mem = *state;
    char text[6] = "";

    assert_int_equal(guest_memory_write(mem, 4 * GIB + PAGE - 3, "hello", 6), 0);
    assert_int_equal(guest_memory_read(mem, 4 * GIB + PAGE - 3, text, 6), 0);
    assert_string_equal(text, "hello");
    assert_int_equal(guest_memory_write(mem, UINT64_MAX, text, 0), 0);
}

static void a_write_marks_the_pages_that_it_touches_and_no_other(void **state)
{
    struct guest_memory *mem = *state;
    uint8_t bytes[4096] = {1};

    guest_memory_write(mem, 10 * PAGE + 4095, bytes, 2);
    guest_memory_write(mem, 4 * GIB + 63 * PAGE, bytes, 4096);
    for (uint64_t page = 0; page < 1024; page++) {
        assert_int_equal(guest_memory_test_dirty(mem, page * PAGE, false),
                         page == 10 || page == 11);
        assert_int_equal(guest_memory_test_dirty(mem, 4 * GIB + page * PAGE, false), page == 63);
    }
}

static void the_last_page_of_a_region_can_be_marked(void **state)
{
    struct guest_memory *mem = *state;

    guest_memory_mark_dirty(mem, 4 * MIB - 1, 1);
    guest_memory_mark_dirty(mem, 4 * GIB + 4 * MIB - PAGE, PAGE);
    assert_true(guest_memory_test_dirty(mem, 4 * MIB - PAGE, false));
    assert_true(guest_memory_test_dirty(mem, 4 * GIB + 4 * MIB - 1, false));
    guest_memory_mark_dirty(mem, 0, 0);
    assert_false(guest_memory_test_dirty(mem, 0, false));
}

static void a_mark_lasts_until_it_is_cleared(void **state)
{
    struct guest_memory *mem = *state;

    guest_memory_mark_dirty(mem, 0, 4 * MIB);
    assert_true(guest_memory_test_dirty(mem, PAGE, false));
    assert_true(guest_memory_test_dirty(mem, PAGE, true));
    assert_false(guest_memory_test_dirty(mem, PAGE, true));
    assert_true(guest_memory_test_dirty(mem, 0, false));
    assert_true(guest_memory_test_dirty(mem, 2 * PAGE, false));
    assert_false(guest_memory_test_dirty(mem, 4 * MIB, true)); /* the hole has no pages */
}

static void zeroing_clears_what_was_asked_and_nothing_beside(void **state)
{
    static const struct {
        uint64_t from, len;
    } pieces[] = {{0, 1},        {PAGE - 1, 2},        {5, 100},
                  {PAGE, PAGE},  {1, 3 * PAGE},        {PAGE - 1, PAGE + 2},
                  {0, 8 * PAGE}, {PAGE, 2 * PAGE + 1}, {8 * PAGE, 0}};
    struct guest_memory *mem = *state;
    uint8_t *bytes = guest_memory_at(mem, 4 * GIB, 8 * PAGE);

    for (unsigned i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++) {
        memset(bytes, 0xee, 8 * PAGE);
        assert_int_equal(guest_memory_zero(mem, 4 * GIB + pieces[i].from, pieces[i].len), 0);
        for (uint64_t at = 0; at < 8 * PAGE; at++)
            if (bytes[at] != (at - pieces[i].from < pieces[i].len ? 0 : 0xee))
                fail_msg("piece %u, byte %llu", i, (unsigned long long)at);
        for (uint64_t page = 0; page < 8; page++)
            assert_int_equal(guest_memory_test_dirty(mem, 4 * GIB + page * PAGE, true),
                             pieces[i].len && page * PAGE < pieces[i].from + pieces[i].len &&
                                 (page + 1) * PAGE > pieces[i].from);
    }
}

/* Given back to the host they would come again with what the file has. */
static void zeroed_pages_of_a_mapped_file_are_zero_and_the_file_is_as_it_was(void **state)
{
    struct guest_memory *mem = *state;
    uint64_t from = 4 * GIB + PAGE, len = 3 * MIB;
    int fd = memfd_create("file", MFD_CLOEXEC);
    struct error err;
    uint8_t byte;

    assert_int_equal(ftruncate(fd, 4 * MIB), 0);
    for (uint64_t at = 0; at < 4 * MIB; at += PAGE)
        assert_int_equal(pwrite(fd, "f", 1, (off_t)at), 1);
    assert_int_equal(guest_memory_map_file(mem, 1, fd, 0, &err), 0);
    assert_int_equal(guest_memory_read(mem, from, &byte, 1), 0);
    assert_int_equal(byte, 'f');
    assert_int_equal(guest_memory_zero(mem, from, len), 0);
    for (uint64_t at = 0; at < len; at += PAGE) {
        assert_int_equal(guest_memory_read(mem, from + at, &byte, 1), 0);
        assert_int_equal(byte, 0);
        assert_int_equal(pread(fd, &byte, 1, (off_t)(PAGE + at)), 1);
        assert_int_equal(byte, 'f');
    }
    assert_int_equal(guest_memory_read(mem, from - PAGE, &byte, 1), 0);
    assert_int_equal(byte, 'f');
    close(fd);
}

static void pages_of_a_mapped_file_that_were_written_are_told(void **state)
{
    struct guest_memory *mem = *state;
    uint64_t bitmaps[2][4 * MIB / 4096 / 64] = {{0}}, expected[16] = {0};
    int fd = memfd_create("file", MFD_CLOEXEC);
    struct error err;
    uint8_t byte;

    assert_int_equal(ftruncate(fd, 4 * MIB), 0);
    assert_int_equal(guest_memory_find_copies(mem, 1, false, bitmaps[0], &err), -ENOTSUP);
    assert_int_equal(guest_memory_map_file(mem, 1, fd, 0, &err), 0);
    for (uint64_t page = 0; page < 100; page++) /* to read is not to write */
        assert_int_equal(guest_memory_read(mem, 4 * GIB + page * PAGE, &byte, 1), 0);
    for (uint64_t page = 7; page < 200; page += page % 3 ? 1 : 5) {
        assert_int_equal(guest_memory_write(mem, 4 * GIB + page * PAGE, "x", 1), 0);
        expected[page / 64] |= UINT64_C(1) << page % 64;
    }
    for (unsigned old_way = 0; old_way < 2; old_way++) {
        if (guest_memory_find_copies(mem, 1, old_way, bitmaps[old_way], &err) < 0)
            fail_msg("%s", err.msg);
        assert_memory_equal(bitmaps[old_way], expected, sizeof(expected));
    }
    close(fd);
}

static void zeroed_pages_are_given_back_to_the_host(void **state)
{
    struct guest_memory *mem = *state;
    uint8_t *bytes = guest_memory_at(mem, 0, 4 * MIB);
    unsigned char resident[1024];
    unsigned held = 0;

    memset(bytes, 0xee, 4 * MIB);
    guest_memory_zero(mem, 0, 4 * MIB);
    assert_int_equal(mincore(bytes, 4 * MIB, resident), 0);
    for (unsigned i = 0; i < 1024; i++)
        held += resident[i] & 1;
    assert_int_equal(held, 0);
}

static unsigned resident_pages(struct guest_memory *mem, uint64_t gpa, uint64_t len)
{
    static unsigned char resident[1024];
    unsigned held = 0;

    assert_true(len <= sizeof(resident) * PAGE);
    assert_int_equal(mincore(guest_memory_at(mem, gpa, len), len, resident), 0);
    for (unsigned i = 0; i < len / PAGE; i++)
        held += resident[i] & 1;
    return held;
}

static void pages_that_the_guest_gives_up_cost_no_memory_and_are_zero_and_marked(void **state)
{
    struct guest_memory *mem = *state;
    uint8_t *bytes = guest_memory_at(mem, 0, 4 * MIB);

    memset(bytes, 0xee, 4 * MIB);
    assert_int_equal(guest_memory_give_back(mem, 4 * PAGE, 1000 * PAGE), 1000 * PAGE);
    assert_int_equal(resident_pages(mem, 4 * PAGE, 1000 * PAGE), 0);
    for (uint64_t page = 0; page < 1024; page++) {
        bool given = page >= 4 && page < 1004;

        assert_int_equal(guest_memory_test_dirty(mem, page * PAGE, false), given);
        assert_int_equal(bytes[page * PAGE], given ? 0 : 0xee);
        assert_int_equal(bytes[page * PAGE + PAGE - 1], given ? 0 : 0xee);
    }
    bytes[4 * PAGE] = 1; /* and are there again */
    assert_int_equal(resident_pages(mem, 4 * PAGE, PAGE), 1);
}

static void only_whole_pages_inside_ram_are_given_back(void **state)
{
    static const struct {
        uint64_t from, len, given;
    } cases[] = {{0, PAGE - 1, 0},
                 {1, PAGE, 0},
                 {1, 2 * PAGE, PAGE},
                 {PAGE - 1, PAGE + 2, PAGE},
                 {0, 0, 0},
                 {4 * MIB - PAGE, 2 * PAGE, 0}, /* into the hole */
                 {4 * MIB, PAGE, 0},
                 {4 * GIB + 4 * MIB, PAGE, 0},
                 {UINT64_MAX - PAGE + 1, PAGE, 0},
                 {0, UINT64_MAX, 0}};
    struct guest_memory *mem = *state;
    uint8_t *bytes = guest_memory_at(mem, 0, 4 * MIB);

    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint64_t zeros = 0;

        memset(bytes, 0xee, 4 * MIB);
        assert_int_equal(guest_memory_give_back(mem, cases[i].from, cases[i].len), cases[i].given);
        for (uint64_t at = 0; at < 4 * MIB; at++)
            zeros += bytes[at] == 0;
        assert_int_equal(zeros, cases[i].given);
    }
}

static void reserved_large_pages_are_kept(void **state)
{
    struct guest_memory *mem = *state;

    mem->host_page_size = 2 * MIB; /* as if they were */
    assert_int_equal(guest_memory_write(mem, 0, "x", 1), 0);
    assert_int_equal(guest_memory_give_back(mem, 0, 4 * MIB), 0);
    assert_int_equal(*(char *)guest_memory_at(mem, 0, 1), 'x');
}

static int map_letters(struct guest_memory *mem, unsigned region)
{
    uint64_t size = mem->regions[region].size;
    int fd = memfd_create("file", MFD_CLOEXEC);
    struct error err;

    assert_int_equal(ftruncate(fd, (off_t)size), 0);
    for (uint64_t at = 0; at < size; at += PAGE)
        assert_int_equal(pwrite(fd, "f", 1, (off_t)at), 1);
    assert_int_equal(guest_memory_map_file(mem, region, fd, 0, &err), 0);
    return fd;
}

/* With what the file has, an older guest's secrets would be there where it expects zeros. */
static void pages_of_a_mapped_file_that_are_given_back_are_zero_and_told(void **state)
{
    struct guest_memory *mem = *state;
    uint64_t bitmap[16] = {0}, expected[16] = {0};
    int fd = map_letters(mem, 1);
    uint8_t *bytes = guest_memory_at(mem, 4 * GIB, 4 * MIB);
    struct error err;

    bytes[10 * PAGE] = 'x'; /* copies, and pages never looked at */
    bytes[11 * PAGE] = 'x';
    assert_int_equal(guest_memory_give_back(mem, 4 * GIB + 11 * PAGE, 20 * PAGE), 20 * PAGE);
    assert_int_equal(guest_memory_give_back(mem, 4 * GIB + 25 * PAGE, 20 * PAGE), 20 * PAGE);
    for (uint64_t page = 0; page < 1024; page++)
        assert_int_equal(bytes[page * PAGE], page == 10 ? 'x' : page > 10 && page < 45 ? 0 : 'f');
    assert_true(guest_memory_test_dirty(mem, 4 * GIB + 30 * PAGE, false));
    for (uint64_t page = 10; page < 45; page++)
        expected[page / 64] |= UINT64_C(1) << page % 64;
    assert_int_equal(guest_memory_find_copies(mem, 1, false, bitmap, &err), 0);
    assert_memory_equal(bitmap, expected, sizeof(expected));

    memset(bytes + 11 * PAGE, 'y', 34 * PAGE); /* back in use, and given up once more */
    assert_int_equal(guest_memory_give_back(mem, 4 * GIB + 11 * PAGE, 34 * PAGE), 34 * PAGE);
    assert_int_equal(resident_pages(mem, 4 * GIB + 11 * PAGE, 34 * PAGE), 0);
    assert_int_equal(bytes[11 * PAGE], 0);
    close(fd);
}

static unsigned mappings(void)
{
    FILE *file = fopen("/proc/self/maps", "re");
    unsigned lines = 0;

    assert_non_null(file);
    for (int c; (c = fgetc(file)) != EOF;)
        lines += c == '\n';
    fclose(file);
    return lines;
}

/* A process has some 65000, and without one left nothing of it works. */
static void a_guest_cannot_use_up_the_mappings_of_its_process(void **state)
{
    struct memory_layout l = {
        .size = 256 * MIB, .hole_start = 256 * MIB, .hole_end = 4 * GIB, .pages = 0};
    unsigned before, kept = 0, given = 0;
    struct guest_memory *mem;
    struct error err;

    (void)state;
    assert_int_equal(guest_memory_create(&l, &mem, &err), 0);
    int fd = map_letters(mem, 0);
    before = mappings();
    for (unsigned pass = 0; pass < 2; pass++)
        for (uint64_t page = pass; page < 65536; page += 2) {
            char *at = guest_memory_at(mem, page * PAGE, 1);

            if (guest_memory_give_back(mem, page * PAGE, PAGE)) {
                assert_int_equal(*at, 0);
                *at = 'x'; /* so that neighbours have reason to stay apart */
                given++;
            } else {
                assert_int_equal(*at, 'f');
                kept++;
            }
        }
    assert_true(given >= 8192);
    assert_true(kept > 0);
    assert_in_range(mappings(), before, before + 16384);
    guest_memory_destroy(mem);
    close(fd);
}

static void a_host_address_is_found_in_the_guest(void **state)
{
    struct guest_memory *mem = *state;
    uint64_t gpa = 0;

    assert_true(guest_memory_find(mem, guest_memory_at(mem, 5, 1), &gpa));
    assert_int_equal(gpa, 5);
    assert_true(guest_memory_find(mem, guest_memory_at(mem, 4 * GIB + 4 * MIB - 1, 1), &gpa));
    assert_int_equal(gpa, 4 * GIB + 4 * MIB - 1);
    assert_false(guest_memory_find(mem, &gpa, &gpa));
}

static void a_memfd_holds_all_of_ram_in_order(void **state)
{
    struct guest_memory *mem = *state;
    char text[2];

    guest_memory_write(mem, 4 * MIB - 1, "a", 1);
    guest_memory_write(mem, 4 * GIB, "b", 1);
    assert_int_equal(mem->regions[0].fd, mem->regions[1].fd);
    assert_int_equal(mem->regions[1].fd_offset, 4 * MIB);
    assert_int_equal(pread(mem->regions[0].fd, text, 2, 4 * MIB - 1), 2);
    assert_memory_equal(text, "ab", 2);
}

static void a_memfd_is_closed_with_the_memory(void **state)
{
    struct memory_layout l = layout;
    struct guest_memory *mem;
    struct error err;
    int before = dup(0);

    (void)state;
    close(before);
    l.backing = MEMORY_MEMFD;
    assert_int_equal(guest_memory_create(&l, &mem, &err), 0);
    guest_memory_destroy(mem);
    int after = dup(0);
    close(after);
    assert_int_equal(after, before);
}

static void a_size_that_is_no_number_of_pages_is_refused(void **state)
{
    static const uint64_t sizes[] = {0, 1, PAGE - 1, PAGE + 1, 4 * MIB + 512};
    struct memory_layout l = layout;
    struct guest_memory *mem = NULL;
    struct error err;

    (void)state;
    for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        l.size = sizes[i];
        assert_int_equal(guest_memory_create(&l, &mem, &err), -EINVAL);
    }
    l.size = 3 * MIB;
    l.pages = MEMORY_PAGES_HUGE;
    assert_int_equal(guest_memory_create(&l, &mem, &err), -EINVAL);
    assert_string_equal(err.msg, "guest memory: 3145728 bytes are not one or more 2M pages");
    assert_null(mem);
}

static void more_than_an_address_space_is_refused_with_the_size(void **state)
{
    struct memory_layout l = {
        .size = UINT64_C(1) << 60, .hole_start = 3 * GIB, .hole_end = 4 * GIB};
    struct guest_memory *mem = NULL;
    struct error err;

    (void)state;
    assert_int_equal(guest_memory_create(&l, &mem, &err), -ENOMEM);
    assert_non_null(strstr(err.msg, "1048576T"));
    assert_null(mem);
}

/* How many 2M pages the host has reserved. */
static unsigned long huge_pages(void)
{
    FILE *file = fopen("/proc/sys/vm/nr_hugepages", "r");
    unsigned long pages = 0;

    if (file && fscanf(file, "%lu", &pages) != 1)
        pages = 0;
    if (file)
        fclose(file);
    return pages;
}

static void large_pages_that_the_host_lacks_come_with_the_command_that_mends_it(void **state)
{
    struct memory_layout l = {
        .size = 2 * GIB, .hole_start = 1 * GIB, .hole_end = 4 * GIB, .pages = MEMORY_PAGES_HUGE};
    struct guest_memory *mem = NULL;
    struct error err;

    (void)state;
    if (huge_pages() >= 512) {
        print_message("skipped: this host has reserved large pages\n");
        skip();
    }
    for (unsigned i = 0; i < 2; i++) {
        l.backing = i ? MEMORY_MEMFD : MEMORY_ANONYMOUS;
        assert_int_equal(guest_memory_create(&l, &mem, &err), -ENOMEM);
        assert_non_null(strstr(err.msg, "sysctl vm.nr_hugepages=1024"));
        assert_null(mem);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(ram_lies_around_the_hole, setup, teardown),
        cmocka_unit_test(a_small_guest_has_one_region),
        cmocka_unit_test_setup_teardown(only_what_lies_wholly_inside_one_region_is_reached, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(what_is_written_is_read_back, setup, teardown),
        cmocka_unit_test_setup_teardown(a_write_marks_the_pages_that_it_touches_and_no_other, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(the_last_page_of_a_region_can_be_marked, setup, teardown),
        cmocka_unit_test_setup_teardown(a_mark_lasts_until_it_is_cleared, setup, teardown),
        cmocka_unit_test_setup_teardown(zeroing_clears_what_was_asked_and_nothing_beside, setup,
                                        teardown),
        {"zeroing_a_memfd_clears_what_was_asked_and_nothing_beside",
         zeroing_clears_what_was_asked_and_nothing_beside, setup_memfd, teardown, NULL},
        cmocka_unit_test_setup_teardown(zeroed_pages_are_given_back_to_the_host, setup, teardown),
        {"zeroing_in_transparent_pages_clears_what_was_asked_and_nothing_beside",
         zeroing_clears_what_was_asked_and_nothing_beside, setup_transparent, teardown, NULL},
        {"zeroed_transparent_pages_are_given_back_to_the_host",
         zeroed_pages_are_given_back_to_the_host, setup_transparent, teardown, NULL},
        {"zeroed_pages_of_a_memfd_are_given_back_to_the_host",
         zeroed_pages_are_given_back_to_the_host, setup_memfd, teardown, NULL},
        cmocka_unit_test_setup_teardown(
            zeroed_pages_of_a_mapped_file_are_zero_and_the_file_is_as_it_was, setup, teardown),
        cmocka_unit_test_setup_teardown(pages_of_a_mapped_file_that_were_written_are_told, setup,
                                        teardown),
        {"zeroed_pages_of_a_file_in_place_of_a_memfd_are_zero",
         zeroed_pages_of_a_mapped_file_are_zero_and_the_file_is_as_it_was, setup_memfd, teardown,
         NULL},
        {"zeroed_pages_of_a_file_in_place_of_transparent_pages_are_zero",
         zeroed_pages_of_a_mapped_file_are_zero_and_the_file_is_as_it_was, setup_transparent,
         teardown, NULL},
        cmocka_unit_test_setup_teardown(
            pages_that_the_guest_gives_up_cost_no_memory_and_are_zero_and_marked, setup, teardown),
        {"pages_of_a_memfd_that_the_guest_gives_up_cost_no_memory_and_are_zero_and_marked",
         pages_that_the_guest_gives_up_cost_no_memory_and_are_zero_and_marked, setup_memfd,
         teardown, NULL},
        {"transparent_pages_that_the_guest_gives_up_cost_no_memory_and_are_zero_and_marked",
         pages_that_the_guest_gives_up_cost_no_memory_and_are_zero_and_marked, setup_transparent,
         teardown, NULL},
        cmocka_unit_test_setup_teardown(only_whole_pages_inside_ram_are_given_back, setup,
                                        teardown),
        {"only_whole_pages_of_a_memfd_are_given_back", only_whole_pages_inside_ram_are_given_back,
         setup_memfd, teardown, NULL},
        cmocka_unit_test_setup_teardown(reserved_large_pages_are_kept, setup, teardown),
        cmocka_unit_test_setup_teardown(
            pages_of_a_mapped_file_that_are_given_back_are_zero_and_told, setup, teardown),
        {"pages_of_a_file_in_place_of_a_memfd_that_are_given_back_are_zero_and_told",
         pages_of_a_mapped_file_that_are_given_back_are_zero_and_told, setup_memfd, teardown, NULL},
        cmocka_unit_test(a_guest_cannot_use_up_the_mappings_of_its_process),
        cmocka_unit_test_setup_teardown(a_host_address_is_found_in_the_guest, setup, teardown),
        cmocka_unit_test_setup_teardown(a_memfd_holds_all_of_ram_in_order, setup_memfd, teardown),
        cmocka_unit_test(a_memfd_is_closed_with_the_memory),
        cmocka_unit_test(a_size_that_is_no_number_of_pages_is_refused),
        cmocka_unit_test(more_than_an_address_space_is_refused_with_the_size),
        cmocka_unit_test(large_pages_that_the_host_lacks_come_with_the_command_that_mends_it),
    };
    return cmocka_run_group_tests_name("memory", tests, NULL, NULL);
}
