/* SPDX-License-Identifier: Apache-2.0 */
/* vmrun snapshot info: all that a file says of itself and its machine, without the machine. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>

#include "snapshot.h"
#include "vmrun/text.h"
#include "vmrun/working_set.h"

#define PAGE_BYTES UINT64_C(4096)
#define SHOWN_BYTES 16u /* of an array, in the form for people */
#define SHOWN_ELEMENTS 4u

static const char *architecture(const struct snapfile *file)
{
    return snapfile_architecture(file) == SNAPFILE_X86_64 ? "x86_64" : "aarch64";
}

static uint64_t file_bytes(const struct snapfile *file)
{
    struct stat st;

    return fstat(snapfile_fd(file), &st) == 0 ? (uint64_t)st.st_size : 0;
}

/* JSON */

static json_t *memory_json(const struct snapfile *file)
{
    const struct snapfile_region *regions;
    unsigned count = snapfile_regions(file, &regions);
    json_t *memory = json_array();

    for (unsigned i = 0; i < count; i++)
        json_array_append_new(memory,
                              json_pack("{s:I, s:I, s:I}", "address", (json_int_t)regions[i].gpa,
                                        "bytes", (json_int_t)regions[i].size, "file_offset",
                                        (json_int_t)snapfile_ram_offset(file, i)));
    return memory;
}

/* Whether all is there that it builds on, and is as it was: that need not be. */
static void add_base(json_t *info, const struct snapfile *file, const char *path)
{
    char id[2 * SNAPFILE_ID_BYTES + 1];
    struct snapfile_parent parent;
    struct snapfile *chain;
    struct error why;

    if (!snapfile_parent(file, &parent))
        return;
    json_object_set_new(info, "base",
                        json_pack("{s:o, s:s}", "file", snapshot_path(parent.name), "id",
                                  snapshot_id_text(parent.id, id)));
    json_object_set_new(info, "pages_held", json_integer((json_int_t)snapfile_pages_held(file)));
    if (snapfile_open(path, &chain, &why) < 0) {
        json_object_set_new(info, "chain_error", snapshot_path(why.msg));
        return;
    }
    json_t *below = json_array();
    for (const struct snapfile *at = chain; (at = snapfile_base(at));)
        json_array_append_new(below, json_pack("{s:o, s:s, s:I, s:I}", "file",
                                               snapshot_path(snapfile_name(at)), "id",
                                               snapshot_id_text(snapfile_id(at), id), "pages_held",
                                               (json_int_t)snapfile_pages_held(at), "data_bytes",
                                               (json_int_t)snapfile_data_bytes(at)));
    json_object_set_new(info, "chain", below);
    snapfile_close(chain);
}

json_t *snapshot_sections_json(const struct snapfile *file)
{
    json_t *sections = json_array();
    const void *data;
    uint64_t checksum;
    const char *name;
    bool critical;
    size_t len;

    for (unsigned i = 0; snapfile_section_at(file, i, &name, &critical, &data, &len, &checksum);
         i++) {
        char text[24];

        snprintf(text, sizeof(text), "%016" PRIx64, checksum);
        json_array_append_new(sections,
                              json_pack("{s:s, s:I, s:b, s:s}", "name", name, "bytes",
                                        (json_int_t)len, "critical", critical, "checksum", text));
    }
    return sections;
}

/* NULL: none, or none that could be used. */
static json_t *working_set_json(const struct snapfile *file)
{
    struct working_set set;
    struct error err;

    if (working_set_find(file, &set, &err) < 0)
        return NULL;
    uint64_t bytes = set.pages * PAGE_BYTES, written = set.written_pages * PAGE_BYTES;

    return json_pack("{s:I, s:I, s:I}", "runs", (json_int_t)set.runs, "bytes", (json_int_t)bytes,
                     "written_bytes", (json_int_t)written);
}

static void add_field(json_t *state, const struct state_told *told)
{
    char id[256], field[256];

    snprintf(id, sizeof(id), "%.*s", (int)told->id_len, told->id);
    snprintf(field, sizeof(field), "%.*s", (int)told->field_len, told->field);
    json_t *part = json_object_get(state, id);
    if (!part) {
        part = json_object();
        json_object_set_new(state, id, part);
    }
    json_object_set_new(part, field, snapshot_state_value(told));
}

static json_t *state_json(const struct snapshot_fields *fields)
{
    json_t *state = json_object();

    for (size_t i = 0; i < fields->count; i++)
        add_field(state, &fields->all[i]);
    return state;
}

static void print_json(const struct snapfile *file, const char *path,
                       const struct snapshot_fields *fields, json_t *machine, json_t *about)
{
    char id[2 * SNAPFILE_ID_BYTES + 1];
    json_t *set = working_set_json(file);
    json_t *info =
        json_pack("{s:o, s:s, s:I, s:s, s:I, s:I, s:o, s:o, s:O, s:o}", "file", snapshot_path(path),
                  "id", snapshot_id_text(snapfile_id(file), id), "created_ns",
                  (json_int_t)snapfile_created_ns(file), "architecture", architecture(file),
                  "file_bytes", (json_int_t)file_bytes(file), "data_bytes",
                  (json_int_t)snapfile_data_bytes(file), "memory", memory_json(file), "sections",
                  snapshot_sections_json(file), "machine", machine, "state", state_json(fields));

    add_base(info, file, path);
    if (about)
        json_object_set(info, "about", about);
    if (set)
        json_object_set_new(info, "working_set", set);
    cli_print_json(info);
}

/* Text */

static void print_time(uint64_t ns)
{
    time_t seconds = (time_t)(ns / 1000000000u);
    struct tm tm;
    char text[64];

    if (gmtime_r(&seconds, &tm) && strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S UTC", &tm))
        printf("%-10s %s\n", "created", text);
}

static void print_about(json_t *about)
{
    const char *key;
    json_t *value;

    json_object_foreach(about, key, value)
    {
        json_t *name = json_string(key);

        printf("%-10s ", "");
        snapshot_print_value(name);
        putchar(' ');
        snapshot_print_value(value);
        putchar('\n');
        json_decref(name);
    }
}

static void print_memory(const struct snapfile *file)
{
    const struct snapfile_region *regions;
    unsigned count = snapfile_regions(file, &regions);
    char size[24];

    for (unsigned i = 0; i < count; i++)
        printf("%-10s 0x%09" PRIx64 " %s, in the file at 0x%" PRIx64 "\n", i ? "" : "memory",
               regions[i].gpa, text_format_size(regions[i].size, size, sizeof(size)),
               snapfile_ram_offset(file, i));
    printf("%-10s %.1f MiB are not zero\n", "", (double)snapfile_data_bytes(file) / (1 << 20));
}

static void print_working_set(const struct snapfile *file)
{
    struct working_set set;
    struct error err;
    int r = working_set_find(file, &set, &err);

    if (r == 0)
        printf("%-10s %.1f MiB in %zu runs; %.1f MiB of it the guest wrote to\n", "prefetch",
               (double)(set.pages * PAGE_BYTES) / (1 << 20), set.runs,
               (double)(set.written_pages * PAGE_BYTES) / (1 << 20));
    else if (r != -ENOENT)
        printf("%-10s %s\n", "prefetch", err.msg);
}

static void print_base(const struct snapfile *file, const char *path)
{
    char id[2 * SNAPFILE_ID_BYTES + 1];
    struct snapfile_parent parent;
    struct snapfile *chain;
    struct error why;

    if (!snapfile_parent(file, &parent))
        return;
    printf("%-10s %" PRIu64 " pages are of this file, the others of what it builds on\n", "",
           snapfile_pages_held(file));
    printf("%-10s %s, %s\n", "base", parent.name, snapshot_id_text(parent.id, id));
    if (snapfile_open(path, &chain, &why) < 0) {
        printf("%-10s cannot be restored: %s\n", "", why.msg);
        return;
    }
    for (const struct snapfile *at = chain; (at = snapfile_base(at));)
        printf("%-10s %s: %.1f MiB\n", at == snapfile_base(chain) ? "chain" : "", snapfile_name(at),
               (double)snapfile_data_bytes(at) / (1 << 20));
    snapfile_close(chain);
}

static void print_sections(const struct snapfile *file)
{
    const void *data;
    uint64_t checksum;
    const char *name;
    bool critical;
    size_t len;

    for (unsigned i = 0; snapfile_section_at(file, i, &name, &critical, &data, &len, &checksum);
         i++)
        printf("%-10s %-15s %10zu bytes  %016" PRIx64 "%s\n", i ? "" : "sections", name, len,
               checksum, critical ? "" : "  optional");
}

static void print_elements(const struct state_told *told)
{
    uint32_t most = told->size == 1 ? SHOWN_BYTES : SHOWN_ELEMENTS;

    printf("[%" PRIu32 "]", told->count);
    for (uint32_t i = 0; i < told->count && i < most; i++)
        printf("%s%0*" PRIx64, told->size == 1 ? " " : " 0x", told->size == 1 ? 2 : 1,
               snapshot_element(told, i));
    printf("%s\n", told->count > most ? " ..." : "");
}

static void print_field(const struct state_told *told, bool first)
{
    if (first)
        printf("%.*s\n", (int)told->id_len, told->id);
    printf("  %-24.*s ", (int)told->field_len, told->field);
    if (told->count != 1) {
        print_elements(told);
        return;
    }
    uint64_t value = snapshot_element(told, 0);
    printf("%" PRIu64, value);
    if (value >= 10)
        printf(" (0x%" PRIx64 ")", value);
    putchar('\n');
}

static void print_text(const struct snapfile *file, const char *path,
                       const struct snapshot_fields *fields, const json_t *machine, json_t *about)
{
    char id[2 * SNAPFILE_ID_BYTES + 1];

    printf("%-10s %s\n%-10s %s, %s\n", "file", path, "id", snapshot_id_text(snapfile_id(file), id),
           architecture(file));
    print_time(snapfile_created_ns(file));
    if (about)
        print_about(about);
    print_memory(file);
    print_working_set(file);
    print_base(file, path);
    print_sections(file);
    printf("\n");
    char *text = json_dumps(machine, JSON_INDENT(2) | JSON_ENSURE_ASCII);
    printf("%s\n\n", text ? text : "");
    free(text);
    for (size_t i = 0; i < fields->count; i++)
        print_field(&fields->all[i], i == 0 || fields->all[i].id != fields->all[i - 1].id);
}

int snapshot_info(const char *path, bool json, struct error *err)
{
    json_t *machine = NULL, *about = NULL;
    struct snapshot_fields fields = {0};
    struct snapfile *file;
    struct error unused;
    int r;

    if (snapfile_open_alone(path, &file, err) < 0)
        return CLI_FAILED;
    r = snapshot_load_json(file, path, "machine", &machine, err);
    if (r == 0)
        r = snapshot_read_fields(file, path, &fields, err);
    if (r == 0) {
        /* Whatever it says, or not, is of no consequence. */
        if (snapshot_load_json(file, path, "about", &about, &unused) == 0 &&
            !json_is_object(about)) {
            json_decref(about);
            about = NULL;
        }
        if (json)
            print_json(file, path, &fields, machine, about);
        else
            print_text(file, path, &fields, machine, about);
    }
    snapshot_fields_fini(&fields);
    json_decref(machine);
    json_decref(about);
    snapfile_close(file);
    return r < 0 ? CLI_FAILED : CLI_OK;
}
