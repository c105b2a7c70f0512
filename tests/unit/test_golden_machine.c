/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A whole machine of each format that was released, as it was saved then: offline. That it runs is
 * shown by tests/guest/snapshot_golden.sh, which also makes the next one.
 *
 * machine-1.0.zst: two CPUs in the middle of payloads/torture.c, a disk, a network card, entropy
 * and hvc0, which no driver has touched. machine-1.0.fields: every field of it, and how it begins.
 */
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
#include "fake_console.h"
#include "folder.h"
#include "snapshot.h"
#include "virtio_driver.h"
#include "vmrun/acpi_pm.h"
#include "vmrun/cli.h"
#include "vmrun/i8042.h"
#include "vmrun/rtc.h"
#include "vmrun/serial.h"
#include "vmrun/virtio_devices.h"
#include "vmrun/vmgenid.h"

#define NAME "machine-1.0"
#define MIB (UINT64_C(1) << 20)
#define HEAD (2 * SNAPSHOT_PAGE)
#define SHOWN 4 /* elements of a field */

/* Offline: the file is what it was */

static int setup(void **state)
{
    char archive[512];
    struct error err = {0};
    uint64_t bytes;

    if (folder_enter(state) < 0)
        return -1;
    snprintf(archive, sizeof(archive), "%s/%s.zst", VMRUN_TEST_DATA, NAME);
    if (snapfile_unpack(archive, NAME, true, NULL, NULL, &bytes, &err) == 0)
        return 0;
    print_error("%s\n", err.msg);
    return -1;
}

static void it_is_whole(void **state)
{
    struct snapfile *file = snapshot_file_open(NAME);
    const struct snapfile_region *regions;

    (void)state;
    assert_int_equal(snapfile_regions(file, &regions), 1);
    assert_int_equal(regions[0].size, 16 * MIB);
    snapshot_file_verify(file);
    snapfile_close(file);
}

static void tell(void *opaque, const struct state_told *told)
{
    uint32_t count = told->count < SHOWN ? told->count : SHOWN;

    fprintf(opaque, "%.*s %.*s %u*%u", (int)told->id_len, told->id, (int)told->field_len,
            told->field, told->count, told->size);
    for (uint32_t i = 0; i < count * told->size; i++)
        fprintf(opaque, "%s%02x", i % told->size ? "" : " ", told->values[i]);
    fputc('\n', opaque);
}

static void every_field_of_it_is_told_as_ever(void **state)
{
    struct snapfile *file = snapshot_file_open(NAME);
    char path[512], expected[512], got[512];
    FILE *out = tmpfile();
    struct error err;
    unsigned line = 0;

    (void)state;
    assert_non_null(out);
    if (snapfile_tell_state(file, tell, out, &err) < 0)
        fail_msg("%s", err.msg);
    rewind(out);
    snprintf(path, sizeof(path), "%s/%s.fields", VMRUN_TEST_DATA, NAME);
    FILE *fields = fopen(path, "re");
    assert_non_null(fields);
    while (fgets(expected, sizeof(expected), fields)) {
        line++;
        if (!fgets(got, sizeof(got), out) || strcmp(got, expected) != 0)
            fail_msg("%s:%u: expected %s", path, line, expected);
    }
    assert_null(fgets(got, sizeof(got), out));
    assert_true(line > 300);
    fclose(fields);
    fclose(out);
    snapfile_close(file);
}

/* Its tables, in today's devices */

/* The table of this identifier in the section "state"; docs/snapshot-format.md. */
static struct reader table_of(const struct snapfile *file, const char *id)
{
    struct reader r = {0};
    size_t len;

    r.data = snapfile_section(file, "state", &len);
    r.len = len;
    while (!r.failed && r.at < r.len) {
        size_t id_len = (size_t)get_uint(&r, 1);
        const char *name = (const char *)r.data + r.at;

        r.at += id_len;
        size_t table = (size_t)get_uint(&r, 4);

        if (strlen(id) == id_len && memcmp(name, id, id_len) == 0)
            return (struct reader){.data = r.data + r.at, .len = table};
        r.at += table;
    }
    fail_msg("there is no %s", id);
    return r;
}

static void take(const struct snapfile *file, struct device *dev, const char *id)
{
    struct reader r = table_of(file, id);
    struct error err = {0};

    device_pause(dev);
    if (state_load(dev->ops->state, dev, &r, &err) < 0)
        fail_msg("%s: %s", id, err.msg);
    assert_int_equal(r.at, r.len);
    device_destroy(dev);
}

typedef int make_fn(struct virtio_machine *m, struct device **ret_dev, struct error *err);
static struct fake_console console;

static int make_serial(struct virtio_machine *m, struct device **ret_dev, struct error *err)
{
    return serial_create(m->platform, fake_console_init(&console), m->loop, 0x3f8, 4, "serial0",
                         ret_dev, err);
}

static int make_rtc(struct virtio_machine *m, struct device **ret_dev, struct error *err)
{
    return rtc_create(m->platform, m->loop, 0x70, 8, ret_dev, err);
}

static int make_i8042(struct virtio_machine *m, struct device **ret_dev, struct error *err)
{
    return i8042_create(m->platform, ret_dev, err);
}

static int make_acpi_pm(struct virtio_machine *m, struct device **ret_dev, struct error *err)
{
    const struct acpi_pm_params params = {.pm1_event = 0x600,
                                          .pm1_control = 0x604,
                                          .gpe0 = 0x60a,
                                          .reset_port = 0x608,
                                          .reset_value = 1,
                                          .s5_type = 5,
                                          .sci = 9};

    return acpi_pm_create(m->platform, &params, ret_dev, err);
}

static int make_vmgenid(struct virtio_machine *m, struct device **ret_dev, struct error *err)
{
    const struct vmgenid_params params = {.gpa = 0xfeb00000};

    return vmgenid_create(m->platform, &params, ret_dev, err);
}

static int make_rng(struct virtio_machine *m, struct device **ret_dev, struct error *err)
{
    return virtio_rng_create(m->platform, m->host, m->loop, ret_dev, err);
}

static int make_hvc0(struct virtio_machine *m, struct device **ret_dev, struct error *err)
{
    return virtio_console_create(m->platform, m->host, m->loop, fake_console_init(&console),
                                 ret_dev, err);
}

/* vCPUs and KVM's chips need a KVM, disk and network what is behind them: tests/guest has them. */
static void devices_take_their_tables(void **state)
{
    static const struct {
        const char *id;
        make_fn *make;
    } kinds[] = {
        {"serial0", make_serial},  {"rtc", make_rtc},         {"i8042", make_i8042},
        {"acpi-pm", make_acpi_pm}, {"vmgenid", make_vmgenid}, {"rng", make_rng},
        {"hvc0", make_hvc0},
    };
    struct snapfile *file = snapshot_file_open(NAME);

    (void)state;
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        struct error err = {.msg = ""};
        struct virtio_machine m;
        struct device *dev;

        virtio_machine_init(&m, NULL);
        if (kinds[i].make(&m, &dev, &err) < 0)
            fail_msg("%s: %s", kinds[i].id, err.msg);
        take(file, dev, kinds[i].id);
        virtio_machine_fini(&m);
    }
    snapfile_close(file);
}

/* Damage, seen by the verbs themselves */

static bool verb_refuses(const char *verb, const char *words)
{
    const char *restore[] = {"vmrun", "restore", NAME, "--detach", NULL};
    const char *verify[] = {"vmrun", "snapshot", "verify", NAME, NULL};
    bool restores = strcmp(verb, "restore") == 0;
    struct error err = {.msg = ""};
    int status = cli_execute(4, (char *const *)(restores ? restore : verify), &err);

    if (status == CLI_FAILED && strstr(err.msg, words))
        return true;
    print_error("%s: status %d, \"%s\", expected \"%s\"\n", verb, status, err.msg, words);
    return false;
}

static void refused_at(uint64_t at, const char *words)
{
    if (!verb_refuses("restore", words) || !verb_refuses("verify", words))
        fail_msg("byte %llu", (unsigned long long)at);
}

static void flip(int fd, uint64_t at)
{
    uint8_t byte;

    assert_int_equal(pread(fd, &byte, 1, (off_t)at), 1);
    byte ^= (uint8_t)(1u << at % 8);
    assert_int_equal(pwrite(fd, &byte, 1, (off_t)at), 1);
}

static void any_byte_but_those_of_ram_is_looked_at_before_a_restore(void **state)
{
    struct snapfile_entry entries[SNAPFILE_MAX_SECTIONS];
    int fd = open(NAME, O_RDWR | O_CLOEXEC);
    unsigned count = snapshot_file_table(fd, entries);
    char words[40];

    (void)state;
    for (uint64_t at = 0; at < HEAD; at += SNAPSHOT_STEP) {
        flip(fd, at);
        refused_at(at, at < SNAPSHOT_PAGE ? "superblock: " : "section table: ");
        flip(fd, at);
    }
    for (unsigned i = 0; i < count; i++) {
        uint64_t end =
            i + 1 < count ? entries[i + 1].offset : entries[i].offset + entries[i].length;

        snprintf(words, sizeof(words), "section '%.15s': ", entries[i].name);
        for (uint64_t at = entries[i].offset; at < end; at += SNAPSHOT_STEP) {
            flip(fd, at);
            refused_at(at, words);
            flip(fd, at);
        }
    }
    close(fd);
}

/* tests/guest has the same for `restore`, which has read none of it yet. */
static void a_byte_of_any_page_of_ram_is_found_by_verify(void **state)
{
    int fd = open(NAME, O_RDWR | O_CLOEXEC);
    unsigned pages = 0;
    char words[64];
    off_t at = 0;

    (void)state;
    /* Where there is data, and so no hole: in a page's first byte, or its last. */
    while ((at = lseek(fd, at > (off_t)(2 * MIB) ? at : (off_t)(2 * MIB), SEEK_DATA)) >= 0 &&
           at < (off_t)(18 * MIB)) {
        uint64_t byte = (uint64_t)at + (pages % 2 ? 4095 : 0);

        snprintf(words, sizeof(words), "RAM at 0x%llx: checksum does not match",
                 (unsigned long long)(byte - 2 * MIB) / (2 * MIB) * (2 * MIB));
        flip(fd, byte);
        assert_true(verb_refuses("verify", words));
        flip(fd, byte);
        pages++;
        at += SNAPSHOT_PAGE;
    }
    assert_true(pages >= 10);
    close(fd);
}

/* Last: what is cut off stays off. */
static void a_cut_at_any_boundary_is_refused_and_told_where(void **state)
{
    struct snapfile_entry entries[SNAPFILE_MAX_SECTIONS];
    int fd = open(NAME, O_RDWR | O_CLOEXEC);
    unsigned count = snapshot_file_table(fd, entries);
    char words[48];

    (void)state;
    for (unsigned i = count; i-- > 0;) {
        snprintf(words, sizeof(words), "section '%s': cut off", entries[i].name);
        assert_int_equal(ftruncate(fd, (off_t)(entries[i].offset + entries[i].length - 1)), 0);
        refused_at(entries[i].offset, words);
        assert_int_equal(ftruncate(fd, (off_t)entries[i].offset), 0);
        refused_at(entries[i].offset, words);
    }
    assert_int_equal(ftruncate(fd, (off_t)(2 * MIB)), 0);
    refused_at(2 * MIB, "cut off in RAM");
    assert_int_equal(ftruncate(fd, HEAD), 0);
    refused_at(HEAD, "cut off in RAM");
    assert_int_equal(ftruncate(fd, SNAPSHOT_PAGE), 0);
    refused_at(SNAPSHOT_PAGE, "not a snapshot of vmrun, or cut off");
    assert_int_equal(ftruncate(fd, 0), 0);
    refused_at(0, "not a snapshot of vmrun, or cut off");
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_is_whole),
        cmocka_unit_test(every_field_of_it_is_told_as_ever),
        cmocka_unit_test(devices_take_their_tables),
        cmocka_unit_test(any_byte_but_those_of_ram_is_looked_at_before_a_restore),
        cmocka_unit_test(a_byte_of_any_page_of_ram_is_found_by_verify),
        cmocka_unit_test(a_cut_at_any_boundary_is_refused_and_told_where),
    };

    return cmocka_run_group_tests_name("golden machine", tests, setup, folder_leave);
}
