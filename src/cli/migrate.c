/* SPDX-License-Identifier: Apache-2.0 */
/* vmrun migrate: asks the machine to move to another host, and watches (watch.c). */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmrun/text.h"
#include "watch.h"

#define GONE_MS 10000
#define MAX_CHANNELS 16
#define MAX_PAUSE_MS 600000
#define MAX_TIMEOUT_S 1000000

/* A whole number from 1 to max; 0 when it was not given. Returns an exit status. */
static int parse_number(const struct cli_args *args, const char *option, uint64_t max,
                        uint64_t *ret_value, struct error *err)
{
    const char *text = cli_get(args, option);
    char *end;

    *ret_value = 0;
    if (!text)
        return CLI_OK;
    *ret_value = strtoul(text, &end, 10);
    if (*end || end == text || *ret_value < 1 || *ret_value > max)
        return cli_wrong(args, err, "%s: \"%.40s\" is no whole number from 1 to %llu", option, text,
                         (unsigned long long)max);
    return CLI_OK;
}

struct numbers {
    uint64_t channels, bandwidth, max_pause_ms, timeout_s;
    bool force;
};

static int parse_numbers(const struct cli_args *args, struct numbers *ret, struct error *err)
{
    const char *bandwidth = cli_get(args, "--bandwidth");
    const char *then = cli_get(args, "--on-timeout");
    int status;

    *ret = (struct numbers){.force = then && strcmp(then, "force") == 0};
    if (then && !ret->force && strcmp(then, "cancel") != 0)
        return cli_wrong(args, err, "--on-timeout: \"%.40s\" is neither cancel nor force", then);
    if (bandwidth && (text_parse_size(bandwidth, &ret->bandwidth) < 0 || ret->bandwidth == 0))
        return cli_wrong(args, err, "--bandwidth: \"%.40s\" is no size: 100M", bandwidth);
    status = parse_number(args, "--channels", MAX_CHANNELS, &ret->channels, err);
    if (status == CLI_OK)
        status = parse_number(args, "--max-downtime", MAX_PAUSE_MS, &ret->max_pause_ms, err);
    if (status == CLI_OK)
        status = parse_number(args, "--timeout", MAX_TIMEOUT_S, &ret->timeout_s, err);
    return status;
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
    struct numbers n;
    int status = parse_numbers(args, &n, err);
    json_t *params;

    if (status != CLI_OK)
        return status;
    params = json_pack("{s:s, s:I, s:I, s:I, s:I, s:b, s:b, s:b, s:b}", "url", args->operands[1],
                       "channels", (json_int_t)n.channels, "bandwidth", (json_int_t)n.bandwidth,
                       "max_downtime_ns", (json_int_t)n.max_pause_ms * 1000000, "timeout_ns",
                       (json_int_t)n.timeout_s * 1000000000, "force", (int)n.force, "compress",
                       (int)cli_has(args, "--compress"), "check", (int)cli_has(args, "--check"),
                       "insecure", (int)cli_has(args, "--insecure"));
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
    printf("%s %s at %s: %s in %.1f s, %lld round%s\n", name,
           watch_figure(end, "pause_ns") ? "runs" : "is, paused as it was,", url, sent,
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

static void print_check(const char *name, const char *url, const json_t *end)
{
    char ram[24], network[24], writes[24];

    text_format_size((uint64_t)watch_figure(end, "ram_bytes") >> 20 << 20, ram, sizeof(ram));
    text_format_size((uint64_t)watch_figure(end, "bandwidth") >> 20 << 20, network,
                     sizeof(network));
    text_format_size((uint64_t)watch_figure(end, "dirty_rate") >> 20 << 20, writes, sizeof(writes));
    printf("%s can move to %s\n", name, url);
    printf("the network: %s/s, %.2f ms there and back; the guest: %s of RAM, writes %s/s\n",
           network, (double)watch_figure(end, "rtt_ns") / 1e6, ram, writes);
    printf("predicted: %lld round%s in %.1f s, and then it stands still for %.1f ms%s\n",
           (long long)watch_figure(end, "predicted_rounds"),
           watch_figure(end, "predicted_rounds") == 1 ? "" : "s",
           (double)watch_figure(end, "predicted_total_ns") / 1e9,
           (double)watch_figure(end, "predicted_pause_ns") / 1e6,
           json_is_true(json_object_get(end, "converges"))
               ? ""
               : ", or is slowed down, as it writes faster than the network carries");
}

static int write_report(const char *path, const json_t *end, struct error *err)
{
    if (!path || json_dump_file(end, path, JSON_INDENT(2)) == 0)
        return CLI_OK;
    error_errno(err, errno, "--report %s", path);
    return CLI_FAILED;
}

/* Of a machine that did not move. */
static const char *what_became(const struct cli_args *args, const json_t *end)
{
    const char *state = json_string_value(json_object_get(end, "state"));

    return cli_has(args, "--check")                   ? "could not move"
           : state && strcmp(state, "ended") == 0     ? "did not move"
           : state && strcmp(state, "uncertain") == 0 ? "stands still"
                                                      : "stays here";
}

/* What it ended with. Returns an exit status. */
static int tell_end(struct watch *w, const struct cli_args *args, const json_t *end,
                    struct error *err)
{
    int status = write_report(cli_get(args, "--report"), end, err);

    if (cli_has(args, "--json"))
        cli_print_json(json_incref((json_t *)end));
    if (json_object_get(end, "errno")) {
        error_set(err, (int)watch_figure(end, "errno"), "%s %s: %s", args->operands[0],
                  what_became(args, end), json_string_value(json_object_get(end, "detail")));
        return w->signal ? 128 + w->signal : CLI_FAILED;
    }
    if (cli_has(args, "--check")) {
        if (!cli_has(args, "--json"))
            print_check(args->operands[0], args->operands[1], end);
        return status;
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
                      .also = "migrate_checked",
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
