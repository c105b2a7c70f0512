/* SPDX-License-Identifier: Apache-2.0 */
/* vmrun save: asks the machine to write itself into a file, and watches (watch.c). */
#include <limits.h>

#include "vmrun/text.h"
#include "watch.h"

#define GONE_MS 10000

/* What changed since the base, and how that was known. */
static void print_found(const char *found)
{
    if (found && strcmp(found, "log") == 0)
        printf(", known by the log");
    else if (found && strcmp(found, "mappings") == 0)
        printf(", known by what Linux copied");
    else if (found && strcmp(found, "comparison") == 0)
        printf(", found by comparing");
}

static void print_end(const char *path, json_t *end, const struct cli_args *args)
{
    char ram[24], file[24];

    if (cli_has(args, "--json")) {
        cli_print_json(json_pack(
            "{s:s, s:O, s:O, s:O, s:O, s:O, s:O, s:O, s:O, s:O}", "path", path, "rounds",
            json_object_get(end, "rounds"), "total_ns", json_object_get(end, "total_ns"),
            "pause_ns", json_object_get(end, "pause_ns"), "pause_bytes",
            json_object_get(end, "pause_bytes"), "written_bytes",
            json_object_get(end, "written_bytes"), "data_bytes", json_object_get(end, "data_bytes"),
            "file_bytes", json_object_get(end, "file_bytes"), "held_bytes",
            json_object_get(end, "held_bytes"), "found", json_object_get(end, "found")));
        return;
    }
    text_format_size((uint64_t)watch_figure(end, "data_bytes"), ram, sizeof(ram));
    printf("%s: %s of RAM in %.1f s, %lld round%s", path, ram,
           (double)watch_figure(end, "total_ns") / 1e9, (long long)watch_figure(end, "rounds"),
           watch_figure(end, "rounds") == 1 ? "" : "s");
    if (cli_has(args, "--compress"))
        printf(", an archive of %s",
               text_format_size((uint64_t)watch_figure(end, "file_bytes"), file, sizeof(file)));
    print_found(json_string_value(json_object_get(end, "found")));
    if (cli_has(args, "--stop"))
        printf("; the machine has ended\n");
    else if (watch_figure(end, "pause_ns"))
        printf("; the guest stood still for %.1f ms\n",
               (double)watch_figure(end, "pause_ns") / 1e6);
    else
        printf("; the machine was paused and still is\n");
}

/* NULL: a path is not UTF-8. */
static json_t *save_params(const struct cli_args *args, const char *path, const char *base)
{
    json_t *params =
        json_pack("{s:s, s:b, s:b, s:b, s:b}", "path", path, "replace",
                  (int)cli_has(args, "--force"), "stop", (int)cli_has(args, "--stop"), "track",
                  (int)cli_has(args, "--track"), "compress", (int)cli_has(args, "--compress"));

    if (base && json_object_set_new(params, "base", json_string(base)) < 0) {
        json_decref(params);
        return NULL;
    }
    return params;
}

/* Begin, and see it through. Returns an exit status. */
static int save(struct watch *w, const struct cli_args *args, const char *path, const char *base,
                struct error *err)
{
    bool stop = cli_has(args, "--stop");
    json_t *end = NULL;
    json_t *params = save_params(args, path, base);
    int status = watch_to_the_end(w, "vm.save", params, &end, err);

    if (status != CLI_OK)
        return status;
    status = CLI_FAILED;
    if (json_object_get(end, "errno")) {
        error_set(err, (int)watch_figure(end, "errno"), "nothing was saved: %s",
                  json_string_value(json_object_get(end, "detail")));
        status = w->signal ? 128 + w->signal : CLI_FAILED;
    } else if (!stop || control_client_wait_gone(w->client, GONE_MS, err) == 0) {
        print_end(path, end, args);
        status = CLI_OK;
    }
    json_decref(end);
    return status;
}

int cli_save(const struct cli_args *args, struct error *err)
{
    struct watch w = {
        .progress = "save", .ended = "saved", .failed = "save_failed", .cancel = "vm.save.cancel"};
    char path[PATH_MAX], base[PATH_MAX];
    const char *earlier = cli_get(args, "--base");

    if (cli_has(args, "--stop") && cli_has(args, "--track"))
        return cli_wrong(args, err, "--stop and --track: a machine that ends changes no more");
    if (watch_absolute(args->operands[1], path, sizeof(path), err) < 0 ||
        (earlier && watch_absolute(earlier, base, sizeof(base), err) < 0) ||
        cli_open(args->operands[0], &w.client, err) < 0)
        return CLI_FAILED;
    int status = save(&w, args, path, earlier ? base : NULL, err);
    control_client_close(w.client);
    return status;
}
