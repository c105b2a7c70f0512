/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMRUN_CLI_H
#define VMRUN_CLI_H

/*
 * The command line. One table of verbs drives parsing, help and completion.
 *
 * Here functions return vmrun's exit status, not 0 or -errno; with CLI_FAILED and
 * CLI_WRONG_LINE, err holds the one line for stderr, unless err->msg is empty
 * because all has been said. Start err as {0}.
 */

#include <stdbool.h>
#include <stddef.h>

#include "vmrun/error.h"

enum cli_status {
    CLI_OK = 0,
    CLI_FAILED = 1,     /* the operator's error, or the host's */
    CLI_WRONG_LINE = 2, /* the command line makes no sense */
    CLI_CRASHED = 3,    /* the guest did */
};

struct cli_option {
    const char *name; /* "--memory" */
    /* "SIZE", "FILE", "host|x86-64-v2"; "[SECONDS]": only after a '='; NULL: a flag */
    const char *argument;
    const char *help;
    const char *config; /* the JSON path that it sets, or NULL */
};

struct cli_args;

struct cli_verb {
    const char *name;
    const char *operands; /* "NAME": what a person types, in help */
    const char *summary;
    const char *details;              /* paragraphs for help, or NULL */
    const struct cli_option *options; /* ended by a NULL name; may be NULL */
    unsigned min, max;                /* operands */
    const char *const *words;         /* first operand: one of these (NULL-ended), or NULL */
    enum { CLI_NOTHING, CLI_FILES, CLI_MACHINES, CLI_VERBS } completes; /* operands complete to */
    int (*run)(const struct cli_args *args, struct error *err);
};

/* Ended by a NULL name. */
extern const struct cli_verb cli_verbs[];

struct cli_value {
    const struct cli_option *option;
    const char *text; /* NULL: a flag, or its argument was left out */
};

/* A parsed command line; its strings are argv's. */
struct cli_args {
    const struct cli_verb *verb;
    struct cli_value *values; /* as given, in order */
    size_t value_count;
    const char **operands;
    size_t operand_count;
    bool help; /* -h or --help was among them */
};

/* argv[0] is the program. CLI_OK, CLI_WRONG_LINE, or CLI_FAILED: out of memory. */
int cli_parse(int argc, char *const argv[], struct cli_args *ret_args, struct error *err);
void cli_args_fini(struct cli_args *args);

bool cli_has(const struct cli_args *args, const char *option);
/* The option's last value, or NULL. */
const char *cli_get(const struct cli_args *args, const char *option);

/* Parse and run. */
int cli_execute(int argc, char *const argv[], struct error *err);

#endif
