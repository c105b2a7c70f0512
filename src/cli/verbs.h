/* SPDX-License-Identifier: Apache-2.0 */
/* The verbs, one file or family each, and what they share. */
#ifndef CLI_VERBS_H
#define CLI_VERBS_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "vmrun/cli.h"
#include "vmrun/control.h"

/* How long a healthy machine may take to answer. */
#define CLI_CALL_TIMEOUT_MS 10000

int cli_run(const struct cli_args *args, struct error *err);
int cli_list(const struct cli_args *args, struct error *err);
int cli_status(const struct cli_args *args, struct error *err);
int cli_pause(const struct cli_args *args, struct error *err);
int cli_resume(const struct cli_args *args, struct error *err);
int cli_reset(const struct cli_args *args, struct error *err);
int cli_refresh(const struct cli_args *args, struct error *err);
int cli_set(const struct cli_args *args, struct error *err);
#define CLI_SET_MAX 64 /* pairs at once */
int cli_stop(const struct cli_args *args, struct error *err);
int cli_kill(const struct cli_args *args, struct error *err);
int cli_console(const struct cli_args *args, struct error *err);
int cli_stats(const struct cli_args *args, struct error *err);
int cli_doctor(const struct cli_args *args, struct error *err);
int cli_save(const struct cli_args *args, struct error *err);
int cli_migrate(const struct cli_args *args, struct error *err);
int cli_receive(const struct cli_args *args, struct error *err);
int cli_restore(const struct cli_args *args, struct error *err);
int cli_snapshot(const struct cli_args *args, struct error *err);
int cli_config(const struct cli_args *args, struct error *err);
int cli_version(const struct cli_args *args, struct error *err);
int cli_help(const struct cli_args *args, struct error *err);

/* Say that the command line is wrong: the verb before, the hint after. Returns CLI_WRONG_LINE. */
int cli_wrong(const struct cli_args *args, struct error *err, const char *fmt, ...)
    PRINTF_LIKE(3, 4);

/* An option's value in whole seconds; fallback when it was not given. */
int cli_get_seconds(const struct cli_args *args, const char *option, unsigned max,
                    unsigned fallback, unsigned *ret_seconds, struct error *err);

const struct cli_verb *cli_find_verb(const char *name);
/* Its argument may be left out, and follows a '=' when it is there. */
bool cli_is_optional(const struct cli_option *option);
void cli_print_usage(FILE *out);
void cli_print_verb(const struct cli_verb *verb, FILE *out);
void cli_print_bash_completion(FILE *out);

/* As control_client_open(), and helps with a name that nobody has. */
int cli_open(const char *name, struct control_client **ret_client, struct error *err);
/* Open, call, close. params is stolen, and params and ret_result may be NULL. */
int cli_call_with(const char *name, const char *method, json_t *params, json_t **ret_result,
                  struct error *err);
int cli_call(const char *name, const char *method, json_t **ret_result, struct error *err);

/* One line of JSON. Takes value. */
void cli_print_json(json_t *value);

/* SGR codes on a terminal that wants colour, else "". */
struct cli_colours {
    const char *good, *warn, *bad, *off;
};
struct cli_colours cli_colours(FILE *out);

/* Whole seconds of a JSON "…_ns", for people. */
uint64_t cli_seconds(const json_t *object, const char *key);

#endif
