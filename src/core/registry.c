/* SPDX-License-Identifier: Apache-2.0 */
/*
 * registry: everything of one machine that has a state table, and all of it as one stream.
 *
 * Each entry on the wire says how long it is, so it can be passed over, and found, before any
 * table looks into it: first the stream as a whole is judged, then it is loaded, in the order in
 * which the entries were added and not in the order of the stream.
 */
#include "vmrun/state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MAX_ID 47u

struct entry {
    char id[MAX_ID + 1];
    const struct state_desc *desc;
    void *obj;
    pthread_mutex_t *lock; /* of the object, or NULL */
};

struct state_registry {
    unsigned count, room;
    struct entry *entries;
};

/* One entry as it lies in a stream. */
struct span {
    const char *id; /* NULL: not met yet */
    unsigned id_len;
    const uint8_t *data;
    uint32_t len;
};

int state_registry_create(struct state_registry **ret_registry, struct error *err)
{
    struct state_registry *registry = calloc(1, sizeof(*registry));

    if (!registry)
        return error_set(err, ENOMEM, "list of states: out of memory");
    *ret_registry = registry;
    return 0;
}

void state_registry_destroy(struct state_registry *registry)
{
    if (!registry)
        return;
    free(registry->entries);
    free(registry);
}

static bool is_printable(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (text[i] <= ' ' || text[i] > '~')
            return false;
    return len > 0;
}

/* The entry of this id or, when there is none, the count. Streams mostly keep the order: see hint.
 */
static unsigned find(const struct state_registry *registry, const char *id, size_t len,
                     unsigned hint)
{
    for (unsigned i = 0; i < registry->count; i++) {
        unsigned at = (hint + i) % registry->count;

        if (memcmp(registry->entries[at].id, id, len) == 0 && !registry->entries[at].id[len])
            return at;
    }
    return registry->count;
}

int state_registry_add(struct state_registry *registry, const char *id,
                       const struct state_desc *desc, void *obj, pthread_mutex_t *entry_lock,
                       struct error *err)
{
    size_t len = strlen(id);

    if (len > MAX_ID || !is_printable(id, len))
        return error_set(err, EINVAL, "'%s' cannot name a state: 1 to %u printable bytes can", id,
                         MAX_ID);
    if (find(registry, id, len, 0) < registry->count)
        return error_set(err, EEXIST, "two parts of the machine are named '%s'", id);

    if (registry->count == registry->room) {
        unsigned room = registry->room ? 2 * registry->room : 64;
        struct entry *grown = realloc(registry->entries, room * sizeof(*grown));

        if (!grown)
            return error_set(err, ENOMEM, "%s: out of memory", id);
        registry->entries = grown;
        registry->room = room;
    }
    struct entry *entry = &registry->entries[registry->count++];
    *entry = (struct entry){.desc = desc, .obj = obj, .lock = entry_lock};
    memcpy(entry->id, id, len);
    return 0;
}

static void lock(const struct entry *entry)
{
    if (entry->lock)
        pthread_mutex_lock(entry->lock);
}

static void unlock(const struct entry *entry)
{
    if (entry->lock)
        pthread_mutex_unlock(entry->lock);
}

int state_registry_save(const struct state_registry *registry, struct writer *w, struct error *err)
{
    struct writer one = {0}; /* its length comes before it */
    int r = 0;

    for (unsigned i = 0; r == 0 && i < registry->count; i++) {
        const struct entry *entry = &registry->entries[i];

        one.len = 0;
        lock(entry);
        r = state_save(entry->desc, entry->obj, &one, err);
        unlock(entry);
        if (r == 0 && one.len > UINT32_MAX)
            r = error_set(err, E2BIG, "4 GiB or more");
        if (r < 0) {
            error_prefix(err, "%s", entry->id);
            break;
        }
        put_uint(w, strlen(entry->id), 1);
        put_bytes(w, entry->id, strlen(entry->id));
        put_uint(w, one.len, 4);
        put_bytes(w, one.data, one.len);
    }
    if (r == 0 && w->failed)
        r = error_set(err, ENOMEM, "state of the machine: out of memory");
    free(one.data);
    return r;
}

/* The next entry of a stream that has more. */
static int next_span(struct reader *r, struct span *ret_span, struct error *err)
{
    struct span span = {.id_len = (unsigned)get_uint(r, 1)};

    span.id = get_bytes(r, span.id_len);
    if (!r->failed && (span.id_len > MAX_ID || !is_printable(span.id, span.id_len)))
        return error_set(err, EPROTO, "byte %zu of the state: no name", r->at - span.id_len);
    span.len = (uint32_t)get_uint(r, 4);
    span.data = get_bytes(r, span.len);
    if (r->failed)
        return error_set(err, EPROTO, "the state ends early, after %zu bytes", r->len);
    *ret_span = span;
    return 0;
}

/* All of the stream, sorted into spans[], one for each entry of the registry. */
static int collect(const struct state_registry *registry, struct reader *r, struct span *spans,
                   struct error *err)
{
    unsigned next = 0;

    while (r->failed || r->at < r->len) {
        struct span span = {.id = ""};
        int rc = next_span(r, &span, err);

        if (rc < 0)
            return rc;
        unsigned at = find(registry, span.id, span.id_len, next);
        if (at == registry->count)
            return error_set(err, EPROTO, "%.*s: this machine has no such part", (int)span.id_len,
                             span.id);
        if (spans[at].id)
            return error_set(err, EPROTO, "%s: comes twice", registry->entries[at].id);
        spans[at] = span;
        next = at + 1;
    }
    for (unsigned i = 0; i < registry->count; i++)
        if (!spans[i].id)
            return error_set(err, EPROTO, "%s: missing", registry->entries[i].id);
    return 0;
}

int state_registry_load(const struct state_registry *registry, struct reader *r, struct error *err)
{
    struct span *spans = calloc(registry->count + 1, sizeof(*spans));
    int rc;

    if (!spans)
        return error_set(err, ENOMEM, "state of the machine: out of memory");
    rc = collect(registry, r, spans, err);
    for (unsigned i = 0; rc == 0 && i < registry->count; i++) {
        const struct entry *entry = &registry->entries[i];
        struct reader table = {.data = spans[i].data, .len = spans[i].len};

        lock(entry);
        rc = state_load(entry->desc, entry->obj, &table, err);
        unlock(entry);
        if (rc == 0 && table.at < table.len)
            rc = error_set(err, EPROTO, "%zu bytes too many", table.len - table.at);
        if (rc < 0)
            error_prefix(err, "%s", entry->id);
    }
    free(spans);
    return rc;
}

/* The next field of a table, as far as anybody can tell who does not know the table. */
static int next_field(struct reader *r, struct state_told *told, struct error *err)
{
    told->field_len = (unsigned)get_uint(r, 1);
    told->field = get_bytes(r, told->field_len);
    told->size = (unsigned)get_uint(r, 1);
    told->count = (uint32_t)get_uint(r, 4);
    if (!r->failed) {
        if (!is_printable(told->field, told->field_len))
            return error_set(err, EPROTO, "%.*s: a field without a name", (int)told->id_len,
                             told->id);
        if (told->size != 1 && told->size != 2 && told->size != 4 && told->size != 8)
            return error_set(err, EPROTO, "%.*s: %.*s has elements of %u bytes", (int)told->id_len,
                             told->id, (int)told->field_len, told->field, told->size);
    }
    told->values = get_bytes(r, (size_t)told->size * told->count);
    if (r->failed)
        return error_set(err, EPROTO, "%.*s: ends early", (int)told->id_len, told->id);
    return 0;
}

/* fn may be NULL, and then it is only seen whether all could be told. */
static int tell(struct reader *r, state_told_fn *fn, void *opaque, struct error *err)
{
    while (r->failed || r->at < r->len) {
        struct span span = {.id = ""};
        int rc = next_span(r, &span, err);

        if (rc < 0)
            return rc;
        struct state_told told = {.id = span.id, .id_len = span.id_len};
        struct reader table = {.data = span.data, .len = span.len};
        unsigned fields;

        get_uint(&table, 4); /* the version: whoever only looks takes any */
        fields = (unsigned)get_uint(&table, 2);
        for (unsigned i = 0; i < fields; i++) {
            rc = next_field(&table, &told, err);
            if (rc < 0)
                return rc;
            if (fn)
                fn(opaque, &told);
        }
        if (table.failed || table.at < table.len)
            return error_set(err, EPROTO, "%.*s: %s", (int)span.id_len, span.id,
                             table.failed ? "ends early" : "bytes too many");
    }
    return 0;
}

int state_registry_tell(struct reader *r, state_told_fn *fn, void *opaque, struct error *err)
{
    struct reader first = *r;
    int rc = tell(&first, NULL, NULL, err);

    return rc < 0 ? rc : tell(r, fn, opaque, err);
}
