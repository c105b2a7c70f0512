/* SPDX-License-Identifier: Apache-2.0 */
/* Begin something that takes a machine a while, and see it through, with a bar and Ctrl-C. */
#ifndef CLI_WATCH_H
#define CLI_WATCH_H

#include <signal.h>

#include "verbs.h"

struct watch {
    struct control_client *client;
    const char *progress, *ended, *failed; /* types of the events that tell of it */
    const char *also;                      /* one more that ends it, or NULL */
    const char *cancel;                    /* the method that gives it up */

    int signal; /* that came, or 0 */

    /* watch.c's */
    sigset_t signals;
    bool terminal; /* show a bar */
    bool drawn;
};

/*
 * Call method, whose params are stolen, and wait for the event that ends it, which the caller
 * json_decref()s. Returns an exit status.
 */
int watch_to_the_end(struct watch *w, const char *method, json_t *params, json_t **ret_end,
                     struct error *err);

/* A number of an event; 0 when it has none. */
int64_t watch_figure(const json_t *event, const char *name);

/* The machine's process has a working folder of its own. Errors: -ENAMETOOLONG; of getcwd(3). */
int watch_absolute(const char *path, char *buf, size_t len, struct error *err);

#endif
