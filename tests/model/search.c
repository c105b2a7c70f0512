/* SPDX-License-Identifier: Apache-2.0 */
/* search: breadth first through an array of states; a table of hashes says which are known. */
#include "search.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct node {
    uint32_t parent;
    uint32_t step;
};

struct search {
    const struct search_model *model;
    uint8_t *states;
    struct node *nodes;
    size_t count, room;
    uint32_t *table; /* index + 1; 0: free */
    size_t slots;    /* a power of two, at least twice the room */
};

static void *state_at(const struct search *s, size_t i)
{
    return s->states + i * s->model->state_bytes;
}

static uint64_t hash(const uint8_t *bytes, size_t len)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325);

    for (size_t i = 0; i < len; i++)
        h = (h ^ bytes[i]) * UINT64_C(0x100000001b3);
    return h ^ h >> 29;
}

/* Where it is, or is to be. */
static uint32_t *find(const struct search *s, const void *state)
{
    size_t at = hash(state, s->model->state_bytes) & (s->slots - 1);

    while (s->table[at] && memcmp(state_at(s, s->table[at] - 1), state, s->model->state_bytes) != 0)
        at = (at + 1) & (s->slots - 1);
    return &s->table[at];
}

static void grow(struct search *s)
{
    s->room = s->room ? 2 * s->room : 4096;
    s->slots = 2 * s->room;
    free(s->table);
    s->states = realloc(s->states, s->room * s->model->state_bytes);
    s->nodes = realloc(s->nodes, s->room * sizeof(s->nodes[0]));
    s->table = calloc(s->slots, sizeof(s->table[0]));
    if (!s->states || !s->nodes || !s->table) {
        (void)fprintf(stderr, "no memory after %zu states\n", s->count);
        exit(2);
    }
    for (size_t i = 0; i < s->count; i++)
        *find(s, state_at(s, i)) = (uint32_t)i + 1;
}

static void add(struct search *s, const void *state, size_t parent, unsigned step)
{
    uint32_t *slot;

    if (s->count == s->room)
        grow(s);
    slot = find(s, state);
    if (*slot)
        return;
    memcpy(state_at(s, s->count), state, s->model->state_bytes);
    s->nodes[s->count] = (struct node){(uint32_t)parent, step};
    *slot = (uint32_t)++s->count;
}

static void print_trace(const struct search *s, size_t at)
{
    char text[256];

    if (at > 0)
        print_trace(s, s->nodes[at].parent);
    s->model->describe(state_at(s, at), text, sizeof(text));
    printf("  %s\n      %s\n", at ? s->model->steps[s->nodes[at].step].words : "at first", text);
}

/* Everything that can follow; whether something does that will happen by itself. */
static bool expand(struct search *s, size_t at, uint8_t *next)
{
    bool progress = false;

    for (unsigned i = 0; i < s->model->step_count; i++) {
        memcpy(next, state_at(s, at), s->model->state_bytes);
        if (s->model->steps[i].take(next)) {
            progress = progress || s->model->steps[i].progress;
            add(s, next, at, i);
        }
    }
    return progress;
}

struct search_result search_all(const struct search_model *model, const void *initial, bool trace)
{
    struct search s = {.model = model};
    struct search_result result = {0};
    uint8_t *next = malloc(model->state_bytes);

    if (!next)
        exit(2);
    add(&s, initial, 0, 0);
    for (size_t at = 0; at < s.count && !result.broken; at++) {
        bool ended = !expand(&s, at, next);

        result.ended += ended;
        result.broken = model->judge(state_at(&s, at), ended);
        if (result.broken && trace)
            print_trace(&s, at);
    }
    result.states = s.count;
    free(next);
    free(s.states);
    free(s.nodes);
    free(s.table);
    return result;
}
