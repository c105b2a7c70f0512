/* SPDX-License-Identifier: Apache-2.0 */
/* vmrun list: one row for each live machine, also for one that does not answer. */
#include <errno.h>
#include <string.h>

#include "verbs.h"
#include "vmrun/text.h"

/* A stuck machine must not hold up the list of the others for long. */
#define ANSWER_MS 2000
#define COLUMNS 6

/* 0: *ret_row (a status, or what can be said without one). -ENOENT: gone meanwhile. */
static int ask(const char *name, json_t **ret_row, struct error *err)
{
    struct control_client *client = NULL;
    int r = control_client_open(name, &client, err);

    if (r == 0)
        r = control_client_call(client, "vm.status", NULL, ANSWER_MS, ret_row, err);
    if (r == -ETIMEDOUT || r == -EAGAIN) {
        *ret_row = json_pack("{s:s, s:s, s:i}", "name", name, "state", "silent", "pid",
                             client ? (int)control_client_pid(client) : 0);
        r = 0;
    }
    control_client_close(client);
    return r == -EPIPE ? -ENOENT : r;
}

static void fill_row(const json_t *status, char cells[COLUMNS][80])
{
    static const char *const texts[] = {"name", "state"};

    for (unsigned i = 0; i < 2; i++) {
        const char *text = json_string_value(json_object_get(status, texts[i]));
        snprintf(cells[i], sizeof(cells[i]), "%s", text ? text : "-");
    }
    const json_t *cpus = json_object_get(status, "cpus");
    for (unsigned i = 2; i < 5; i++)
        strcpy(cells[i], "-");
    if (cpus) {
        snprintf(cells[2], sizeof(cells[2]), "%lld", json_integer_value(cpus));
        text_format_size((uint64_t)json_integer_value(json_object_get(status, "memory_bytes")),
                         cells[3], sizeof(cells[3]));
        text_format_duration(cli_seconds(status, "uptime_ns"), cells[4], sizeof(cells[4]));
    }
    snprintf(cells[5], sizeof(cells[5]), "%lld",
             json_integer_value(json_object_get(status, "pid")));
}

static void print_table(const json_t *rows)
{
    static const char *const titles[COLUMNS] = {"NAME", "STATE", "CPUS", "MEMORY", "UPTIME", "PID"};
    int widths[COLUMNS];
    char cells[COLUMNS][80];
    const json_t *row;
    size_t i;

    for (unsigned c = 0; c < COLUMNS; c++)
        widths[c] = (int)strlen(titles[c]);
    json_array_foreach(rows, i, row)
    {
        fill_row(row, cells);
        for (unsigned c = 0; c < COLUMNS; c++)
            if ((int)strlen(cells[c]) > widths[c])
                widths[c] = (int)strlen(cells[c]);
    }
    for (unsigned c = 0; c < COLUMNS; c++)
        printf("%-*s%s", c + 1 < COLUMNS ? widths[c] : 0, titles[c], c + 1 < COLUMNS ? "  " : "\n");
    json_array_foreach(rows, i, row)
    {
        fill_row(row, cells);
        for (unsigned c = 0; c < COLUMNS; c++)
            printf("%-*s%s", c + 1 < COLUMNS ? widths[c] : 0, cells[c],
                   c + 1 < COLUMNS ? "  " : "\n");
    }
}

int cli_list(const struct cli_args *args, struct error *err)
{
    json_t *rows = json_array();
    char **names;
    size_t count;
    int r = control_list(&names, &count, err);

    if (r < 0) {
        json_decref(rows);
        return CLI_FAILED;
    }
    for (size_t i = 0; i < count; i++) {
        json_t *row = NULL;

        r = ask(names[i], &row, err);
        if (r == 0)
            json_array_append_new(rows, row);
        else if (r != -ENOENT)
            break;
        *err = (struct error){0};
        r = 0;
    }
    control_list_free(names, count);
    if (r < 0) {
        json_decref(rows);
        return CLI_FAILED;
    }
    if (cli_has(args, "--json")) {
        cli_print_json(rows);
        return CLI_OK;
    }
    print_table(rows);
    json_decref(rows);
    return CLI_OK;
}
