/* SPDX-License-Identifier: Apache-2.0 */
/* vmrun stats: a machine's counters, or what they grow by in each second. */
#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "verbs.h"

static int name_width(json_t *counters)
{
    const char *name;
    json_t *value;
    int width = 0;

    json_object_foreach(counters, name, value)
    {
        if ((int)strlen(name) > width)
            width = (int)strlen(name);
    }
    return width;
}

static void print_totals(json_t *stats)
{
    json_t *counters = json_object_get(stats, "counters"), *value;
    int width = name_width(counters);
    const char *name;

    json_object_foreach(counters, name, value)
        printf("%-*s %15lld\n", width, name, json_integer_value(value));
}

static double seconds_between(const json_t *before, const json_t *now)
{
    json_int_t ns = json_integer_value(json_object_get(now, "time_ns")) -
                    json_integer_value(json_object_get(before, "time_ns"));

    return ns > 0 ? (double)ns / 1e9 : 1;
}

static double rate(const json_t *before, const char *name, const json_t *value, double seconds)
{
    const json_t *old = json_object_get(json_object_get(before, "counters"), name);

    return (double)(json_integer_value(value) - json_integer_value(old)) / seconds;
}

static void print_rates(const json_t *before, json_t *now)
{
    json_t *counters = json_object_get(now, "counters"), *value;
    double seconds = seconds_between(before, now);
    int width = name_width(counters);
    const char *name;

    if (isatty(STDOUT_FILENO))
        printf("\033[H\033[J");
    printf("%-*s %12s %15s\n", width, "", "per second", "total");
    json_object_foreach(counters, name, value)
        printf("%-*s %12.1f %15lld\n", width, name, rate(before, name, value, seconds),
               json_integer_value(value));
    if (!isatty(STDOUT_FILENO))
        printf("\n");
}

static void print_rates_json(const json_t *before, json_t *now)
{
    json_t *counters = json_object_get(now, "counters"), *rates = json_object(), *value;
    double seconds = seconds_between(before, now);
    const char *name;

    json_object_foreach(counters, name, value)
        json_object_set_new(rates, name, json_real(rate(before, name, value, seconds)));
    cli_print_json(json_pack("{s:O, s:O, s:o}", "time_ns", json_object_get(now, "time_ns"),
                             "counters", counters, "per_second", rates));
}

static int watch(struct control_client *client, bool json, struct error *err)
{
    json_t *before = NULL, *now = NULL;
    int r;

    while ((r = control_client_call(client, "vm.stats", NULL, CLI_CALL_TIMEOUT_MS, &now, err)) ==
           0) {
        if (before && json)
            print_rates_json(before, now);
        else if (before)
            print_rates(before, now);
        json_decref(before);
        before = now;
        if (fflush(stdout) != 0)
            break; /* main says why */
        sleep(1);
    }
    json_decref(before);
    return r;
}

int cli_stats(const struct cli_args *args, struct error *err)
{
    struct control_client *client;
    json_t *stats = NULL;
    bool json = cli_has(args, "--json");

    if (cli_open(args->operands[0], &client, err) < 0)
        return CLI_FAILED;
    if (cli_has(args, "--watch")) {
        int r = watch(client, json, err);
        control_client_close(client);
        if (r == -EPIPE) { /* the machine ended: so does the watch */
            *err = (struct error){0};
            return CLI_OK;
        }
        return r < 0 ? CLI_FAILED : CLI_OK;
    }
    int r = control_client_call(client, "vm.stats", NULL, CLI_CALL_TIMEOUT_MS, &stats, err);
    control_client_close(client);
    if (r < 0)
        return CLI_FAILED;
    if (json) {
        cli_print_json(stats);
        return CLI_OK;
    }
    print_totals(stats);
    json_decref(stats);
    return CLI_OK;
}
