/* SPDX-License-Identifier: Apache-2.0 */
/* What the actions of `vmrun snapshot` share. Strings of a file are not fit for a terminal as they
 * are. */
#ifndef CLI_SNAPSHOT_H
#define CLI_SNAPSHOT_H

#include "verbs.h"
#include "vmrun/snapfile.h"

/* Each returns a status of cli_status. */
int snapshot_info(const char *path, bool json, struct error *err);
int snapshot_verify(const char *path, bool json, struct error *err);
int snapshot_diff(const char *const paths[2], bool json, struct error *err);
/* From the first to the second. */
int snapshot_flatten(const char *const paths[2], bool replace, bool json, struct error *err);
int snapshot_pack(const char *const paths[2], bool replace, bool json, struct error *err);
int snapshot_unpack(const char *const paths[2], bool replace, bool json, struct error *err);

/* How far something is, on standard error if that is a terminal; no more often than fits the eye.
 */
struct snapshot_bar {
    const char *what;
    bool terminal, drawn;
    uint64_t last_ns;
};
struct snapshot_bar snapshot_bar(const char *what);
void snapshot_bar_draw(struct snapshot_bar *bar, uint64_t done, uint64_t all);
void snapshot_bar_clear(struct snapshot_bar *bar);

/* A section's JSON text. Errors: -EPROTO "FILE: section 'machine': ..."; -ENOENT, there is none. */
int snapshot_load_json(const struct snapfile *file, const char *path, const char *section,
                       json_t **ret_value, struct error *err);
/* As text; returns it. */
char *snapshot_id_text(const uint8_t *id, char text[2 * SNAPFILE_ID_BYTES + 1]);
/* A file's name; null when it is not UTF-8. */
json_t *snapshot_path(const char *path);
/* An object {name, bytes, critical, checksum} for each section, in the file's order. */
json_t *snapshot_sections_json(const struct snapfile *file);
/* For a line of text: what would not print is escaped, and a string has no quotes. */
void snapshot_print_value(const json_t *value);

/* All fields in the file's order; they are valid as long as the file is open. */
struct snapshot_fields {
    struct state_told *all;
    size_t count, room;
    char (*leaves)[24]; /* what leaves of CPUID are called */
    bool failed;
};
/* Errors: those of snapfile_tell_state(); -EPROTO "FILE: section 'cpuid': ..."; -ENOMEM. */
int snapshot_read_fields(const struct snapfile *file, const char *path,
                         struct snapshot_fields *ret_fields, struct error *err);
void snapshot_fields_fini(struct snapshot_fields *fields); /* zeros are fine */

/* 8-byte elements become "0x..." (JSON readers lose bits of large numbers), arrays of bytes hex. */
json_t *snapshot_state_value(const struct state_told *told);
uint64_t snapshot_element(const struct state_told *told, uint32_t index);

#endif
