/* SPDX-License-Identifier: Apache-2.0 */
/* What the verbs that talk to a machine share. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "verbs.h"
#include "vmrun/text.h"

/* A name that nobody has: was it a slip, or did the machine crash? */
static void help_with_name(const char *name, struct error *err)
{
    char log[CONTROL_PATH_MAX + CONTROL_NAME_MAX];
    struct error unused;
    char **names;
    size_t count;

    if (control_log_path(name, log, sizeof(log), &unused) == 0 && access(log, R_OK) == 0) {
        error_set(err, ENOENT, "no machine named '%s' is running; its last words are in %s", name,
                  log);
        return;
    }
    if (control_list(&names, &count, &unused) < 0)
        return;
    const char **candidates = calloc(count + 1, sizeof(*candidates));
    for (size_t i = 0; candidates && i < count; i++)
        candidates[i] = names[i];
    const char *near = candidates ? text_nearest(name, candidates) : NULL;
    if (near)
        error_set(err, ENOENT, "no machine named '%s' is running, did you mean '%s'?", name, near);
    free(candidates);
    control_list_free(names, count);
}

int cli_open(const char *name, struct control_client **ret_client, struct error *err)
{
    int r = control_client_open(name, ret_client, err);

    if (r == -ENOENT)
        help_with_name(name, err);
    return r;
}

int cli_call(const char *name, const char *method, json_t **ret_result, struct error *err)
{
    return cli_call_with(name, method, NULL, ret_result, err);
}

int cli_call_with(const char *name, const char *method, json_t *params, json_t **ret_result,
                  struct error *err)
{
    struct control_client *client;
    int r = cli_open(name, &client, err);

    if (r < 0) {
        json_decref(params);
        return r;
    }
    r = control_client_call(client, method, params, CLI_CALL_TIMEOUT_MS, ret_result, err);
    control_client_close(client);
    return r;
}

void cli_print_json(json_t *value)
{
    json_dumpf(value, stdout, 0);
    putchar('\n');
    json_decref(value);
}

struct cli_colours cli_colours(FILE *out)
{
    const char *no_colour = getenv("NO_COLOR"), *term = getenv("TERM");

    if (!isatty(fileno(out)) || (no_colour && *no_colour) || !term || strcmp(term, "dumb") == 0)
        return (struct cli_colours){"", "", "", ""};
    return (struct cli_colours){"\033[32m", "\033[33m", "\033[31m", "\033[0m"};
}

uint64_t cli_seconds(const json_t *object, const char *key)
{
    return (uint64_t)json_integer_value(json_object_get(object, key)) / 1000000000u;
}
