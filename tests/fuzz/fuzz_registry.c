/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A machine's whole state from nowhere: whatever loads can be told too, saves again and is then the
 * same; and telling stays within the bytes that there are, whatever they are.
 */
#include <stdlib.h>
#include <string.h>

#include "program.h"
#include "vmrun/state.h"

struct thing {
    uint8_t small;
    int32_t words[3];
    uint64_t wide;
};

static const struct state_field fields[] = {STATE(struct thing, small, .max = 5),
                                            STATE_ARRAY(struct thing, words),
                                            STATE(struct thing, wide), STATE_END};
static const struct state_desc desc = {.name = "thing", .version = 1, .fields = fields};

struct telling {
    const uint8_t *data;
    size_t len;
    unsigned fields;
};

static void inspect(void *opaque, const struct state_told *told)
{
    struct telling *telling = opaque;

    telling->fields++;
    require(told->id_len >= 1 && told->id_len <= 47 && told->field_len >= 1);
    for (unsigned i = 0; i < told->id_len; i++)
        require(told->id[i] > ' ' && told->id[i] <= '~');
    for (unsigned i = 0; i < told->field_len; i++)
        require(told->field[i] > ' ' && told->field[i] <= '~');
    require(told->size == 1 || told->size == 2 || told->size == 4 || told->size == 8);
    if (told->count)
        require(told->values >= telling->data &&
                (uint64_t)told->size * told->count <=
                    telling->len - (size_t)(told->values - telling->data));
}

static struct state_registry *build(struct thing things[2])
{
    struct state_registry *registry;
    struct error err;

    require(state_registry_create(&registry, &err) == 0);
    require(state_registry_add(registry, "a", &desc, &things[0], NULL, &err) == 0);
    require(state_registry_add(registry, "b", &desc, &things[1], NULL, &err) == 0);
    return registry;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct thing first[2] = {0}, second[2] = {0};
    struct state_registry *one = build(first), *two = build(second);
    struct reader r = {.data = data, .len = size}, told = r;
    struct telling telling = {.data = data, .len = size};
    struct writer w = {0};
    struct error err = {0};
    int tell = state_registry_tell(&told, inspect, &telling, &err);

    require(tell == 0 || (tell == -err.code && telling.fields == 0));
    if (state_registry_load(one, &r, &err) == 0) {
        require(tell == 0 && telling.fields == 6);
        require(first[0].small <= 5 && first[1].small <= 5);
        require(state_registry_save(one, &w, &err) == 0);
        struct reader again = {.data = w.data, .len = w.len};
        require(state_registry_load(two, &again, &err) == 0);
        require(first[1].wide == second[1].wide);
        require(memcmp(first[0].words, second[0].words, sizeof(first[0].words)) == 0);
    } else {
        require(err.code > 0 && err.msg[0]);
    }
    free(w.data);
    state_registry_destroy(one);
    state_registry_destroy(two);
    return 0;
}
