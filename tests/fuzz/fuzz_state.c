/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A state stream from nowhere: it is refused, or it loads into a struct whose
 * fields keep their promises and which saves to a stream that loads again.
 */
#include <stdlib.h>
#include <string.h>

#include "program.h"
#include "vmrun/state.h"

struct thing {
    uint8_t small;
    bool flag;
    bool flags[3];
    uint16_t model;
    uint32_t words[4];
    uint64_t wide;
};

static const struct state_field fields[] = {
    STATE(struct thing, small, .max = 5),
    STATE(struct thing, flag),
    STATE_ARRAY(struct thing, flags),
    STATE(struct thing, model, .match = true),
    STATE_ARRAY(struct thing, words, .max = 0x7fffffff),
    STATE(struct thing, wide, .since = 2),
    STATE_END,
};

static const struct state_desc desc = {.name = "thing", .version = 2, .fields = fields};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct thing first = {.model = 0x16f8}, second = {.model = 0x16f8};
    struct reader r = {.data = data, .len = size};
    struct writer w = {0};
    struct error err = {0};
    int rc = state_load(&desc, &first, &r, &err);

    if (rc < 0) {
        require(rc == -err.code && err.msg[0] && strlen(err.msg) < sizeof(err.msg));
        return 0;
    }
    require(first.small <= 5 && first.model == 0x16f8 && first.words[3] <= 0x7fffffff);
    require(r.at <= size);

    require(state_save(&desc, &first, &w, &err) == 0);
    struct reader again = {.data = w.data, .len = w.len};
    require(state_load(&desc, &second, &again, &err) == 0);
    require(again.at == w.len);
    require(memcmp(first.words, second.words, sizeof(first.words)) == 0);
    require(first.small == second.small && first.flag == second.flag && first.wide == second.wide);
    free(w.data);
    return 0;
}
