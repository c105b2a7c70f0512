/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fields of a snapshot: those of the section "state", and of "cpuid" each leaf as one field of
 * four registers. Both as docs/snapshot-format.md has them; no table of any device is needed.
 */
#include "snapshot.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#define MOST_FIELDS (1u << 20)
#define MOST_LEAVES 1024u
#define LEAF_BYTES 28u /* function, index, flags, eax, ebx, ecx, edx */
#define AT_REGISTERS 12u

static void take(struct snapshot_fields *fields, const struct state_told *told)
{
    if (fields->failed)
        return;
    if (fields->count == fields->room) {
        size_t room = fields->room ? 2 * fields->room : 256;
        struct state_told *grown =
            room <= MOST_FIELDS ? realloc(fields->all, room * sizeof(*grown)) : NULL;

        if (!grown) {
            fields->failed = true;
            return;
        }
        fields->all = grown;
        fields->room = room;
    }
    fields->all[fields->count++] = *told;
}

static void take_told(void *opaque, const struct state_told *told)
{
    take(opaque, told);
}

static uint32_t word(const uint8_t *at)
{
    return at[0] | at[1] << 8 | at[2] << 16 | (uint32_t)at[3] << 24;
}

static int take_leaves(const struct snapfile *file, const char *path,
                       struct snapshot_fields *fields, struct error *err)
{
    size_t len = 0;
    const uint8_t *at = snapfile_section(file, "cpuid", &len);

    if (!at)
        return 0;
    uint32_t count = len >= 4 ? word(at) : 0;
    if (count < 1 || count > MOST_LEAVES || len != 4 + (size_t)count * LEAF_BYTES)
        return error_set(err, EPROTO, "%s: section 'cpuid': not the description of a CPU", path);
    fields->leaves = calloc(count, sizeof(*fields->leaves));
    if (!fields->leaves)
        return error_set(err, ENOMEM, "%s: out of memory", path);
    at += 4;
    for (uint32_t i = 0; i < count; i++, at += LEAF_BYTES) {
        char *name = fields->leaves[i];
        int length = snprintf(name, sizeof(fields->leaves[i]), "0x%" PRIx32 ".%" PRIu32, word(at),
                              word(at + 4));
        const struct state_told leaf = {.id = "cpuid",
                                        .id_len = 5,
                                        .field = name,
                                        .field_len = (unsigned)length,
                                        .size = 4,
                                        .count = 4,
                                        .values = at + AT_REGISTERS};

        take(fields, &leaf);
    }
    return 0;
}

int snapshot_read_fields(const struct snapfile *file, const char *path,
                         struct snapshot_fields *ret_fields, struct error *err)
{
    struct snapshot_fields fields = {0};
    int r = take_leaves(file, path, &fields, err);

    if (r == 0)
        r = snapfile_tell_state(file, take_told, &fields, err);
    if (r == 0 && fields.failed)
        r = fields.room < MOST_FIELDS
                ? error_set(err, ENOMEM, "%s: out of memory", path)
                : error_set(err, EPROTO, "%s: section 'state': more fields than any machine has",
                            path);
    if (r < 0)
        snapshot_fields_fini(&fields);
    else
        *ret_fields = fields;
    return r;
}

void snapshot_fields_fini(struct snapshot_fields *fields)
{
    free(fields->all);
    free(fields->leaves);
}
