/* SPDX-License-Identifier: Apache-2.0 */
/* vmrun migrate: asks the machine to move to another host, and watches (watch.c). */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#include "vmrun/text.h"
#include "watch.h"

#define GONE_MS 10000
#define MAX_CHANNELS 1024

static int parse_numbers(const struct cli_args *args, uint64_t *ret_channels,
                         uint64_t *ret_bandwidth, struct error *err)
{
    const char *channels = cli_get(args, "--channels"), *bandwidth = cli_get(args, "--bandwidth");
    char *end;

    *ret_channels = *ret_bandwidth = 0;
    if (channels) {
        *ret_channels = strtoul(channels, &end, 10);
        if (*end || end == channels || *ret_channels < 1 || *ret_channels > MAX_CHANNELS)
            return cli_wrong(args, err, "--channels: \"%.40s\" is no number from 1 up", channels);
    }
    if (bandwidth && (text_parse_size(bandwidth, ret_bandwidth) < 0 || *ret_bandwidth == 0))
        return cli_wrong(args, err, "--bandwidth: \"%.40s\" is no size: 100M", bandwidth);
    return CLI_OK;
}

/* Paths are of this process's folder. */
static int add_path(const struct cli_args *args, const char *option, json_t *params,
                    const char *key, struct error *err)
{
    const char *path = cli_get(args, option);
    char absolute[PATH_MAX];

    if (!path)
        return CLI_OK;
    if (watch_absolute(path, absolute, sizeof(absolute), err) < 0)
        return CLI_FAILED;
    if (json_object_set_new(params, key, json_string(absolute)) < 0) {
        error_set(err, EINVAL, "%s: a path must be UTF-8", option);
        return CLI_FAILED;
    }
    return CLI_OK;
}

static int make_params(const struct cli_args *args, json_t **ret_params, struct error *err)
{
    static const char *const paths[][2] = {{"--tls-cert", "tls_cert"},
                                           {"--tls-key", "tls_key"},
                                           {"--tls-ca", "tls_ca"},
                                           {"--tls-psk", "tls_psk"}};
    uint64_t channels, bandwidth;
    int status = parse_numbers(args, &channels, &bandwidth, err);
    json_t *params;

    if (status != CLI_OK)
        return status;
    params = json_pack("{s:s, s:I, s:I, s:b}", "url", args->operands[1], "channels",
                       (json_int_t)channels, "bandwidth", (json_int_t)bandwidth, "insecure",
                       (int)cli_has(args, "--insecure"));
    for (size_t i = 0; params && status == CLI_OK && i < sizeof(paths) / sizeof(paths[0]); i++)
        status = add_path(args, paths[i][0], params, paths[i][1], err);
    if (status == CLI_OK)
        *ret_params = params;
    else
        json_decref(params);
    return status;
}

static void print_end(const char *name, const char *url, const json_t *end)
{
    const json_t *pause = json_object_get(end, "pause");
    char sent[24];

    text_format_size((uint64_t)watch_figure(end, "sent_bytes") >> 20 << 20, sent, sizeof(sent));
    printf("%s runs at %s: %s in %.1f s, %lld round%s\n", name, url, sent,
           (double)watch_figure(end, "total_ns") / 1e9, (long long)watch_figure(end, "rounds"),
           watch_figure(end, "rounds") == 1 ? "" : "s");
    if (!watch_figure(end, "pause_ns"))
        return;
    printf(
        "the guest stood still for %.1f ms (predicted %.1f): stop %.1f, state %.1f, last pages "
        "%.1f, load %.1f, commit %.1f\n",
        (double)watch_figure(end, "pause_ns") / 1e6,
        (double)watch_figure(end, "predicted_pause_ns") / 1e6,
        (double)watch_figure(pause, "stop_ns") / 1e6, (double)watch_figure(pause, "state_ns") / 1e6,
        (double)watch_figure(pause, "pages_ns") / 1e6, (double)watch_figure(pause, "load_ns") / 1e6,
        (double)watch_figure(pause, "commit_ns") / 1e6);
}

static int write_report(const char *path, const json_t *end, struct error *err)
{
    if (!path || json_dump_file(end, path, JSON_INDENT(2)) == 0)
        return CLI_OK;
    error_errno(err, errno, "--report %s", path);
    return CLI_FAILED;
}

/* What it ended with. Returns an exit status. */
static int tell_end(struct watch *w, const struct cli_args *args, const json_t *end,
                    struct error *err)
{
    int status = write_report(cli_get(args, "--report"), end, err);

    if (cli_has(args, "--json"))
        cli_print_json(json_incref((json_t *)end));
    if (json_object_get(end, "errno")) {
        error_set(err, (int)watch_figure(end, "errno"), "%s stays here: %s", args->operands[0],
                  json_string_value(json_object_get(end, "detail")));
        return w->signal ? 128 + w->signal : CLI_FAILED;
    }
    if (control_client_wait_gone(w->client, GONE_MS, err) < 0)
        return CLI_FAILED;
    if (!cli_has(args, "--json"))
        print_end(args->operands[0], args->operands[1], end);
    return status;
}

int cli_migrate(const struct cli_args *args, struct error *err)
{
    struct watch w = {.progress = "migrate",
                      .ended = "migrated",
                      .failed = "migrate_failed",
                      .cancel = "vm.migrate.cancel"};
    json_t *params = NULL, *end = NULL;
    int status = make_params(args, &params, err);

    if (status == CLI_OK && cli_open(args->operands[0], &w.client, err) < 0) {
        json_decref(params);
        status = CLI_FAILED;
    }
    if (status == CLI_OK)
        status = watch_to_the_end(&w, "vm.migrate", params, &end, err);
    if (status == CLI_OK)
        status = tell_end(&w, args, end, err);
    json_decref(end);
    control_client_close(w.client);
    return status;
}
