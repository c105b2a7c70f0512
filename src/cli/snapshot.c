/* SPDX-License-Identifier: Apache-2.0 */
/* vmrun snapshot: which action, and what all of them need to show a file's contents. */
#include "snapshot.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define BAR_WIDTH 40
#define BAR_NS 100000000

int snapshot_load_json(const struct snapfile *file, const char *path, const char *section,
                       json_t **ret_value, struct error *err)
{
    json_error_t why;
    size_t len = 0;
    const char *text = snapfile_section(file, section, &len);

    if (!text)
        return error_set(err, ENOENT, "%s: section '%s': missing", path, section);
    json_t *value = json_loadb(text, len, JSON_REJECT_DUPLICATES, &why);
    if (!value)
        return error_set(err, EPROTO, "%s: section '%s': not JSON (line %d)", path, section,
                         why.line);
    *ret_value = value;
    return 0;
}

char *snapshot_id_text(const uint8_t *id, char text[2 * SNAPFILE_ID_BYTES + 1])
{
    for (unsigned i = 0; i < SNAPFILE_ID_BYTES; i++)
        snprintf(text + 2 * (size_t)i, 3, "%02x", id[i]);
    return text;
}

json_t *snapshot_path(const char *path)
{
    json_t *value = json_string(path);

    return value ? value : json_null();
}

void snapshot_print_value(const json_t *value)
{
    char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_ENSURE_ASCII | JSON_COMPACT);
    size_t len = text ? strlen(text) : 0;
    bool quoted = json_is_string(value) && len >= 2;

    for (size_t i = quoted ? 1 : 0; i < len - (quoted ? 1 : 0); i++)
        putchar(text[i] == 0x7f ? '?' : text[i]);
    free(text);
}

uint64_t snapshot_element(const struct state_told *told, uint32_t index)
{
    const uint8_t *at = told->values + (size_t)index * told->size;
    uint64_t value = 0;

    for (unsigned i = 0; i < told->size; i++)
        value |= (uint64_t)at[i] << (8 * i);
    return value;
}

static json_t *bytes_value(const uint8_t *bytes, uint32_t count)
{
    static const char digits[] = "0123456789abcdef";
    char *text = malloc(2 * (size_t)count + 1);

    if (!text)
        return NULL;
    for (uint32_t i = 0; i < count; i++) {
        text[2 * (size_t)i] = digits[bytes[i] >> 4];
        text[2 * (size_t)i + 1] = digits[bytes[i] & 15];
    }
    json_t *value = json_stringn(text, 2 * (size_t)count);
    free(text);
    return value;
}

static json_t *element_value(const struct state_told *told, uint32_t index)
{
    uint64_t value = snapshot_element(told, index);
    char text[24];

    if (told->size < 8)
        return json_integer((json_int_t)value);
    snprintf(text, sizeof(text), "0x%" PRIx64, value);
    return json_string(text);
}

json_t *snapshot_state_value(const struct state_told *told)
{
    if (told->count == 1)
        return element_value(told, 0);
    if (told->size == 1)
        return bytes_value(told->values, told->count);
    json_t *array = json_array();
    for (uint32_t i = 0; i < told->count; i++)
        json_array_append_new(array, element_value(told, i));
    return array;
}

struct snapshot_bar snapshot_bar(const char *what)
{
    return (struct snapshot_bar){.what = what, .terminal = isatty(STDERR_FILENO)};
}

void snapshot_bar_draw(struct snapshot_bar *bar, uint64_t done, uint64_t all)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    uint64_t now_ns = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
    if (!bar->terminal || all == 0 || now_ns - bar->last_ns < BAR_NS)
        return;
    int full = (int)((double)done / (double)all * BAR_WIDTH);
    fprintf(stderr, "\r%s [%.*s%*s] %3d %%", bar->what, full,
            "########################################", BAR_WIDTH - full, "",
            (int)((double)done / (double)all * 100));
    bar->drawn = true;
    bar->last_ns = now_ns;
}

void snapshot_bar_clear(struct snapshot_bar *bar)
{
    if (bar->drawn)
        fprintf(stderr, "\r\033[K");
    bar->drawn = false;
}

int cli_snapshot(const struct cli_args *args, struct error *err)
{
    const char *action = args->operands[0];
    const char *const *files = &args->operands[1];
    bool json = cli_has(args, "--json"), force = cli_has(args, "--force");
    bool diff = strcmp(action, "diff") == 0, pack = strcmp(action, "pack") == 0;
    bool unpack = strcmp(action, "unpack") == 0, flatten = strcmp(action, "flatten") == 0;
    unsigned count = diff || pack || unpack || flatten ? 2 : 1;

    if (args->operand_count < 1 + count)
        return cli_wrong(args, err, "%s: %s is missing", action,
                         args->operand_count == 2 ? "a second FILE" : "FILE");
    if (args->operand_count > 1 + count)
        return cli_wrong(args, err, "one argument too many: '%.64s'", files[count]);
    if (force && !pack && !unpack && !flatten)
        return cli_wrong(args, err, "%s: makes no file that --force could replace", action);
    if (diff)
        return snapshot_diff(files, json, err);
    if (flatten)
        return snapshot_flatten(files, force, json, err);
    if (pack)
        return snapshot_pack(files, force, json, err);
    if (unpack)
        return snapshot_unpack(files, force, json, err);
    if (strcmp(action, "verify") == 0)
        return snapshot_verify(files[0], json, err);
    return snapshot_info(files[0], json, err);
}
