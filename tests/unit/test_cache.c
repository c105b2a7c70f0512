/* SPDX-License-Identifier: Apache-2.0 */
/* Kernels kept unpacked: what is read back, what is passed over, and what is never followed. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "folder.h"
#include "kernel_file.h"
#include "vmrun/boot.h"

#define MIB (UINT64_C(1) << 20)
#define MEMORY (96 * MIB)
#define ENTRY 0x40   /* of vmlinux_build() */
#define MARK_AT 4096 /* in an entry: behind its header */
#define GZIPPED 6    /* kernels: two more than are kept */
#define KERNELS (GZIPPED + 3)

static char root[64], folder[80]; /* where this program works, and the cache in it */

static void kernel_path(unsigned i, char path[96])
{
    snprintf(path, 96, "%s/vmlinuz%u", root, i);
}

/* Kernel i, of a size of its own; the last ones of several pieces, in the other formats. */
static void write_kernel(unsigned i)
{
    static const char *const others[] = {"lz4", "zstd", "xz"};
    const char *format = i < GZIPPED ? "gzip" : others[i - GZIPPED];
    struct writer vmlinux = vmlinux_build(i < GZIPPED ? i * UINT64_C(0x1000) : 9 * MIB, 3), packed,
                  image;
    char path[96];

    kernel_path(i, path);
    assert_true(kernel_pack(format, &vmlinux, &packed));
    image = bzimage_build(packed.data, packed.len);
    folder_write(path, image.data, image.len);
    free(image.data);
    free(packed.data);
    free(vmlinux.data);
}

/* A file that was changed just now is neither looked for nor kept. */
static void let_it_settle(void)
{
    usleep(3100000);
}

static int enter(void **state)
{
    if (folder_enter(state) < 0 || !getcwd(root, sizeof(root)))
        return -1;
    snprintf(folder, sizeof(folder), "%s/cache", root);
    for (unsigned i = 0; i < KERNELS; i++)
        write_kernel(i);
    let_it_settle();
    return setenv("VMRUN_CACHE_DIR", folder, 1);
}

/* No entries, and the folder as vmrun makes it. */
static int start_empty(void **state)
{
    (void)state;
    char command[128];

    snprintf(command, sizeof(command), "rm -rf %s", folder);
    return system(command);
}

struct start {
    struct boot *boot;
    struct guest_memory *mem;
    struct cpu_entry entry;
};

static void start(struct start *s, unsigned i, const char *cmdline, enum boot_unpack unpack)
{
    struct error err = {.msg = ""};
    char path[96];

    kernel_path(i, path);
    struct boot_params_host host = {
        .kernel = path, .cmdline = cmdline, .memory_size = MEMORY, .unpack = unpack};
    s->mem = kernel_memory(MEMORY);
    assert_int_equal(boot_open(&host, &s->boot, &err), 0);
    assert_int_equal(boot_load(s->boot, s->mem, 0, NULL, 0, &s->entry, &err), 0);
}

static void end(struct start *s)
{
    boot_close(s->boot);
    guest_memory_destroy(s->mem);
}

/* The entries; the path of the first that is found. */
static unsigned entries(char ret_path[400])
{
    DIR *dir = opendir(folder);
    struct dirent *entry;
    unsigned count = 0;

    while (dir && (entry = readdir(dir)))
        if (entry->d_name[0] != '.') {
            if (count++ == 0 && ret_path)
                snprintf(ret_path, 400, "%s/%s", folder, entry->d_name);
        }
    if (dir)
        closedir(dir);
    return count;
}

/* Start kernel i and wait until the folder has `want` entries; closing at once would give up. */
static void start_and_keep(unsigned i, unsigned want)
{
    struct start s;

    start(&s, i, "nokaslr", BOOT_UNPACK_AUTO);
    for (unsigned n = 0; n < 15000 && entries(NULL) != want; n++)
        usleep(2000);
    end(&s);
    assert_int_equal(entries(NULL), want);
}

/* Change one byte of the kernel in the entry: what is loaded then tells where it came from. */
static void mark(const char *entry)
{
    int fd = open(entry, O_RDWR);

    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, "\xa5", 1, MARK_AT + 0x1000 + 0x700), 1); /* of the first segment */
    close(fd);
}

static bool is_marked(unsigned i, enum boot_unpack unpack)
{
    struct start s;

    start(&s, i, "nokaslr", unpack);
    assert_int_equal(s.entry.rip, BZIMAGE_PREF + ENTRY);
    uint8_t byte = *(uint8_t *)guest_memory_at(s.mem, BZIMAGE_PREF + 0x700, 1);
    end(&s);
    assert_true(byte == 0xa5 || byte == vmlinux_byte(0x700));
    return byte == 0xa5;
}

static void keep_one_marked(char entry[400])
{
    start_and_keep(0, 1);
    assert_int_equal(entries(entry), 1);
    mark(entry);
}

/* Until the entry is another file; in between there is never none. */
static void wait_for_another_than(ino_t inode, const char *entry)
{
    struct stat st = {.st_ino = inode};

    for (unsigned n = 0; n < 15000 && st.st_ino == inode; n++) {
        usleep(2000);
        assert_int_equal(stat(entry, &st), 0);
    }
    assert_int_not_equal(st.st_ino, inode);
}

static void the_second_start_reads_what_the_first_has_kept(void **state)
{
    char entry[400];
    struct stat st;

    (void)state;
    keep_one_marked(entry);

    assert_true(is_marked(0, BOOT_UNPACK_AUTO));
    assert_int_equal(stat(folder, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    assert_int_equal(stat(entry, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
}

static void it_is_the_same_kernel_byte_for_byte_in_every_format(void **state)
{
    for (unsigned i = GZIPPED - 1; i < KERNELS; i++) {
        struct start kept, unpacked;

        start_empty(state);
        start_and_keep(i, 1);
        start(&kept, i, "nokaslr", BOOT_UNPACK_AUTO);
        start(&unpacked, i, "nokaslr", BOOT_UNPACK_ALWAYS);

        assert_int_equal(kept.entry.rip, unpacked.entry.rip);
        assert_memory_equal(guest_memory_at(kept.mem, 0, MEMORY),
                            guest_memory_at(unpacked.mem, 0, MEMORY), MEMORY);
        for (uint64_t gpa = BZIMAGE_PREF; gpa < BZIMAGE_PREF + 0x2345; gpa += GUEST_PAGE_SIZE)
            assert_true(guest_memory_test_dirty(kept.mem, gpa, false));
        end(&kept);
        end(&unpacked);
    }
}

/* One that waits to begin, and one that may be at work. */
static void closing_gives_up_at_once_and_leaves_nothing(void **state)
{
    struct timespec before, after;
    char path[96];
    struct error err;

    (void)state;
    kernel_path(KERNELS - 1, path);
    for (unsigned delay_ms = 0; delay_ms <= 60000; delay_ms += 60000) {
        struct boot_params_host host = {
            .kernel = path, .cmdline = "", .memory_size = MEMORY, .cache_delay_ms = delay_ms};
        struct start s = {.mem = kernel_memory(MEMORY)};

        assert_int_equal(boot_open(&host, &s.boot, &err), 0);
        assert_int_equal(boot_load(s.boot, s.mem, 0, NULL, 0, &s.entry, &err), 0);
        clock_gettime(CLOCK_MONOTONIC, &before);
        end(&s);
        clock_gettime(CLOCK_MONOTONIC, &after);
        assert_true(after.tv_sec - before.tv_sec < 10);
        assert_true(entries(NULL) == 0 || delay_ms == 0); /* that one may have been quick */
    }
}

static void it_is_relocated_like_the_other(void **state)
{
    unsigned moved = 0;

    (void)state;
    start_and_keep(0, 1);
    for (unsigned i = 0; i < 6; i++) {
        struct start s;
        uint64_t value;
        uint32_t word, inverse;

        start(&s, 0, "", BOOT_UNPACK_AUTO);
        const uint8_t *base = guest_memory_at(s.mem, s.entry.rip - ENTRY, BZIMAGE_INIT_SIZE);
        memcpy(&value, base + VMLINUX_RELOC_64, sizeof(value));
        memcpy(&word, base + VMLINUX_RELOC_32, sizeof(word));
        memcpy(&inverse, base + VMLINUX_RELOC_INVERSE, sizeof(inverse));
        uint64_t shift = value - (VMLINUX_LINKED + 0x456);
        assert_int_equal(shift % 0x200000, 0);
        assert_int_equal(word, (uint32_t)(VMLINUX_LINKED + 0x123 + shift));
        assert_int_equal(inverse, (uint32_t)(0x40000000 - shift));
        moved += shift != 0;
        end(&s);
    }
    assert_true(moved > 0);
}

static void always_and_guest_leave_the_folder_alone(void **state)
{
    struct start s;
    char entry[400];

    (void)state;
    for (int unpack = BOOT_UNPACK_GUEST; unpack <= BOOT_UNPACK_ALWAYS; unpack++) {
        start(&s, 0, "nokaslr", (enum boot_unpack)unpack);
        end(&s);
    }
    assert_int_not_equal(access(folder, F_OK), 0);

    keep_one_marked(entry);
    assert_false(is_marked(0, BOOT_UNPACK_ALWAYS));
}

static void a_changed_kernel_is_unpacked_anew_and_takes_the_old_ones_place(void **state)
{
    char entry[400], path[96];

    (void)state;
    keep_one_marked(entry);
    kernel_path(0, path);
    assert_int_equal(chmod(path, 0640), 0); /* its change time, which nobody can set back */
    assert_false(is_marked(0, BOOT_UNPACK_AUTO));

    let_it_settle();
    struct stat before;
    assert_int_equal(stat(entry, &before), 0);
    struct start s;
    start(&s, 0, "nokaslr", BOOT_UNPACK_AUTO);
    wait_for_another_than(before.st_ino, entry);
    end(&s);
    assert_int_equal(entries(NULL), 1);
    mark(entry);
    assert_true(is_marked(0, BOOT_UNPACK_AUTO));
}

static void a_kernel_changed_just_now_is_not_kept(void **state)
{
    struct start s;
    char path[96];

    (void)state;
    kernel_path(1, path);
    assert_int_equal(chmod(path, 0644), 0);
    start(&s, 1, "nokaslr", BOOT_UNPACK_AUTO);
    usleep(100000);
    end(&s);
    assert_int_not_equal(access(folder, F_OK), 0);
    let_it_settle();
}

static void an_entry_that_others_may_write_to_is_not_believed(void **state)
{
    char entry[400];

    (void)state;
    keep_one_marked(entry);
    assert_int_equal(chmod(entry, 0620), 0);
    assert_false(is_marked(0, BOOT_UNPACK_AUTO));
    assert_int_equal(chmod(entry, 0602), 0);
    assert_false(is_marked(0, BOOT_UNPACK_AUTO));
}

static void an_entry_of_somebody_else_is_not_believed(void **state)
{
    char entry[400];

    (void)state;
    if (geteuid() != 0)
        skip();
    keep_one_marked(entry);
    assert_int_equal(chown(entry, 1000, 1000), 0);
    assert_false(is_marked(0, BOOT_UNPACK_AUTO));
}

static void a_folder_that_is_not_ours_alone_is_not_used(void **state)
{
    char entry[400];

    (void)state;
    keep_one_marked(entry);
    assert_int_equal(chmod(folder, 0770), 0);
    assert_false(is_marked(0, BOOT_UNPACK_AUTO));
    assert_int_equal(chmod(folder, 0700), 0);
    if (geteuid() == 0) {
        assert_int_equal(chown(folder, 1000, 1000), 0);
        assert_false(is_marked(0, BOOT_UNPACK_AUTO));
        assert_int_equal(chown(folder, 0, 0), 0);
    }
    assert_true(is_marked(0, BOOT_UNPACK_AUTO));
}

static void symbolic_links_are_not_followed(void **state)
{
    char entry[400], moved[96], moved_folder[96];

    (void)state;
    keep_one_marked(entry);
    snprintf(moved, sizeof(moved), "%s/elsewhere", root);
    assert_int_equal(rename(entry, moved), 0);
    assert_int_equal(symlink(moved, entry), 0);
    assert_false(is_marked(0, BOOT_UNPACK_AUTO));
    assert_int_equal(rename(moved, entry), 0);

    snprintf(moved_folder, sizeof(moved_folder), "%s/real", root);
    assert_int_equal(rename(folder, moved_folder), 0);
    assert_int_equal(symlink(moved_folder, folder), 0);
    assert_false(is_marked(0, BOOT_UNPACK_AUTO));
    assert_int_equal(unlink(folder), 0);
    assert_int_equal(rename(moved_folder, folder), 0);
    assert_true(is_marked(0, BOOT_UNPACK_AUTO));
}

static void an_entry_that_is_cut_short_or_too_long_is_passed_over(void **state)
{
    char entry[400];
    struct stat st;

    (void)state;
    keep_one_marked(entry);
    assert_int_equal(stat(entry, &st), 0);
    const off_t lengths[] = {0, 1, 100, 4096, st.st_size - 1, st.st_size + 1};
    for (unsigned i = sizeof(lengths) / sizeof(lengths[0]); i-- > 0;) {
        assert_int_equal(truncate(entry, lengths[i]), 0);
        assert_false(is_marked(0, BOOT_UNPACK_AUTO));
        /* It was mended meanwhile, or will be: begin again from one that is known. */
        start_empty(NULL);
        keep_one_marked(entry);
    }
}

static void every_byte_of_the_header_counts(void **state)
{
    char entry[400];

    (void)state;
    keep_one_marked(entry);
    for (unsigned at = 0; at < 12 * 8; at += 4) {
        int fd = open(entry, O_RDWR), lock = open(folder, O_RDONLY);
        uint8_t byte, other;

        assert_true(fd >= 0);
        assert_int_equal(flock(lock, LOCK_EX), 0); /* so that nobody mends it */
        assert_int_equal(pread(fd, &byte, 1, at), 1);
        other = byte ^ 1;
        assert_int_equal(pwrite(fd, &other, 1, at), 1);
        if (is_marked(0, BOOT_UNPACK_AUTO))
            fail_msg("byte %u may be anything", at);
        assert_int_equal(pwrite(fd, &byte, 1, at), 1);
        assert_true(is_marked(0, BOOT_UNPACK_AUTO));
        close(lock);
        close(fd);
    }
}

/* Whoever damages their own cache gets the kernel from its file, and nothing of the other. */
static void an_entry_whose_kernel_makes_no_sense_is_passed_over(void **state)
{
    const uint8_t zeros[4096] = {0};
    char entry[400];
    struct start s;

    (void)state;
    keep_one_marked(entry);
    int fd = open(entry, O_RDWR);
    struct stat st;
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(pwrite(fd, "\1\1\1\1", 4, st.st_size - 4), 4); /* a relocation to nowhere */
    start(&s, 0, "", BOOT_UNPACK_AUTO);
    assert_int_not_equal(s.entry.rip, BZIMAGE_PREF + 0x200);
    const uint8_t *ram = guest_memory_at(s.mem, 0, MEMORY);
    unsigned copies = 0;
    for (uint64_t gpa = BZIMAGE_PREF; gpa < MEMORY; gpa += 2 * MIB)
        copies +=
            ram[gpa + 0x701] == vmlinux_byte(0x701) && ram[gpa + 0x1801] == vmlinux_byte(0x1801);
    assert_int_equal(copies, 1);
    end(&s);

    assert_int_equal(pwrite(fd, zeros, sizeof(zeros), MARK_AT), sizeof(zeros)); /* no ELF */
    close(fd);
    start(&s, 0, "nokaslr", BOOT_UNPACK_AUTO);
    assert_int_equal(s.entry.rip, BZIMAGE_PREF + ENTRY);
    wait_for_another_than(st.st_ino, entry); /* it was mended */
    end(&s);
    mark(entry);
    assert_true(is_marked(0, BOOT_UNPACK_AUTO));
}

static void the_oldest_goes_when_there_are_more_than_four(void **state)
{
    char first[400];

    (void)state;
    start_and_keep(0, 1);
    assert_int_equal(entries(first), 1);
    for (unsigned i = 2; i < 5; i++) {
        usleep(50000); /* time stamps are no finer than a tick */
        start_and_keep(i, i);
    }
    usleep(50000);
    assert_int_equal(access(first, F_OK), 0);

    struct start s;
    start(&s, 5, "nokaslr", BOOT_UNPACK_AUTO);
    for (unsigned n = 0; n < 15000 && access(first, F_OK) == 0; n++)
        usleep(2000);
    end(&s);
    assert_int_not_equal(access(first, F_OK), 0);
    assert_int_equal(entries(NULL), 4);
}

static void many_processes_at_once_leave_one_whole_entry(void **state)
{
    pid_t children[4];
    char entry[400];
    int status;

    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        children[i] = fork();
        assert_true(children[i] >= 0);
        if (children[i] == 0) {
            for (unsigned n = 0; n < 12; n++)
                (void)is_marked(0, BOOT_UNPACK_AUTO);
            _exit(0);
        }
    }
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(waitpid(children[i], &status, 0), children[i]);
        assert_int_equal(status, 0);
    }
    start_and_keep(0, 1);
    assert_int_equal(entries(entry), 1);
    mark(entry);
    assert_true(is_marked(0, BOOT_UNPACK_AUTO));
}

static void while_another_process_is_at_it_nothing_is_done(void **state)
{
    struct start s;

    (void)state;
    assert_int_equal(mkdir(folder, 0700), 0);
    int lock = open(folder, O_RDONLY);
    assert_int_equal(flock(lock, LOCK_EX), 0);
    start(&s, 0, "nokaslr", BOOT_UNPACK_AUTO);
    usleep(100000);
    end(&s);
    assert_int_equal(entries(NULL), 0);
    close(lock);
}

static void the_folder_is_the_first_that_the_environment_names(void **state)
{
    char home[96], path[160];
    struct start s;

    (void)state;
    snprintf(home, sizeof(home), "%s/home", root);
    assert_int_equal(mkdir(home, 0755), 0);
    setenv("HOME", home, 1);
    unsetenv("XDG_CACHE_HOME");
    setenv("VMRUN_CACHE_DIR", "not/absolute", 1);
    start(&s, 0, "nokaslr", BOOT_UNPACK_AUTO);
    end(&s);
    assert_int_not_equal(access("not", F_OK), 0);

    unsetenv("VMRUN_CACHE_DIR");
    start(&s, 0, "nokaslr", BOOT_UNPACK_AUTO);
    snprintf(path, sizeof(path), "%s/.cache/vmrun", home);
    for (unsigned n = 0; n < 15000 && access(path, F_OK) != 0; n++)
        usleep(2000);
    end(&s);
    assert_int_equal(access(path, F_OK), 0);

    snprintf(path, sizeof(path), "%s/xdg", root);
    setenv("XDG_CACHE_HOME", path, 1);
    start(&s, 0, "nokaslr", BOOT_UNPACK_AUTO);
    snprintf(path, sizeof(path), "%s/xdg/vmrun", root);
    for (unsigned n = 0; n < 15000 && access(path, F_OK) != 0; n++)
        usleep(2000);
    end(&s);
    assert_int_equal(access(path, F_OK), 0);
    setenv("VMRUN_CACHE_DIR", folder, 1);
}

static void in_somebody_elses_home_nothing_is_made(void **state)
{
    char home[96], path[160];
    struct start s;

    (void)state;
    if (geteuid() != 0)
        skip();
    snprintf(home, sizeof(home), "%s/theirs", root);
    assert_int_equal(mkdir(home, 0755), 0);
    assert_int_equal(chown(home, 1000, 1000), 0);
    setenv("HOME", home, 1);
    unsetenv("XDG_CACHE_HOME");
    unsetenv("VMRUN_CACHE_DIR");
    start(&s, 0, "nokaslr", BOOT_UNPACK_AUTO);
    usleep(100000);
    end(&s);
    snprintf(path, sizeof(path), "%s/.cache", home);
    assert_int_not_equal(access(path, F_OK), 0);
    setenv("VMRUN_CACHE_DIR", folder, 1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup(name, start_empty)
    const struct CMUnitTest tests[] = {
        TEST(the_second_start_reads_what_the_first_has_kept),
        TEST(it_is_the_same_kernel_byte_for_byte_in_every_format),
        TEST(closing_gives_up_at_once_and_leaves_nothing),
        TEST(it_is_relocated_like_the_other),
        TEST(always_and_guest_leave_the_folder_alone),
        TEST(a_kernel_changed_just_now_is_not_kept),
        TEST(an_entry_that_others_may_write_to_is_not_believed),
        TEST(an_entry_of_somebody_else_is_not_believed),
        TEST(a_folder_that_is_not_ours_alone_is_not_used),
        TEST(symbolic_links_are_not_followed),
        TEST(an_entry_that_is_cut_short_or_too_long_is_passed_over),
        TEST(every_byte_of_the_header_counts),
        TEST(an_entry_whose_kernel_makes_no_sense_is_passed_over),
        TEST(the_oldest_goes_when_there_are_more_than_four),
        TEST(many_processes_at_once_leave_one_whole_entry),
        TEST(while_another_process_is_at_it_nothing_is_done),
        TEST(the_folder_is_the_first_that_the_environment_names),
        TEST(in_somebody_elses_home_nothing_is_made),
        TEST(a_changed_kernel_is_unpacked_anew_and_takes_the_old_ones_place),
    };
    return cmocka_run_group_tests_name("cache", tests, enter, folder_leave);
}
