/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MODEL_SEARCH_H
#define MODEL_SEARCH_H

/*
 * Every state that can be reached, breadth first: the first that breaks a promise is reached in the
 * fewest steps. A state is a flat struct without padding, compared by its bytes.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct search_step {
    const char *words;         /* "the target hears COMMIT" */
    bool (*take)(void *state); /* false: not possible now; the state is then dropped */
    bool progress;             /* happens sooner or later, if nothing else does */
};

struct search_model {
    size_t state_bytes;
    const struct search_step *steps;
    unsigned step_count;
    /* What is wrong with it, or NULL. ended: there is no more progress. */
    const char *(*judge)(const void *state, bool ended);
    void (*describe)(const void *state, char *buf, size_t len);
};

struct search_result {
    size_t states, ended;
    const char *broken; /* the promise, or NULL */
};

/* trace: print the steps that led to a broken promise. Ends the program when memory does. */
struct search_result search_all(const struct search_model *model, const void *initial, bool trace);

#endif
