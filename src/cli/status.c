/* SPDX-License-Identifier: Apache-2.0 */
/* vmrun status: everything about one machine. */
#include "verbs.h"
#include "vmrun/text.h"

static void print_text(const json_t *status, const char *key, const char *title)
{
    const char *text = json_string_value(json_object_get(status, key));

    if (text && *text)
        printf("%-10s %s\n", title, text);
}

/* Of one that waits for a machine there is less to say. */
static void print_machine(const json_t *status)
{
    const json_int_t memory = json_integer_value(json_object_get(status, "memory_bytes"));
    const json_int_t host = json_integer_value(json_object_get(status, "memory_host_bytes"));
    char size[24], uptime[24];

    printf("%-10s %s\n", "uptime",
           text_format_duration(cli_seconds(status, "uptime_ns"), uptime, sizeof(uptime)));
    printf("%-10s %lld\n", "cpus", json_integer_value(json_object_get(status, "cpus")));
    printf("%-10s %s, of which the host holds %.1f MiB\n", "memory",
           text_format_size((uint64_t)memory, size, sizeof(size)), (double)host / (1024 * 1024));
    printf("%-10s %lld\n", "resets", json_integer_value(json_object_get(status, "resets")));
    print_text(status, "kernel", "kernel");
    print_text(status, "boot", "boots");
    print_text(status, "initrd", "initrd");
    print_text(status, "cmdline", "cmdline");
    print_text(status, "console", "console");
    print_text(status, "virtio_console", "hvc0");
}

static void print_status(const json_t *status)
{
    print_text(status, "name", "name");
    print_text(status, "state", "state");
    print_text(status, "uncertain", "why");
    print_text(status, "url", "listens at");
    printf("%-10s %lld\n", "pid", json_integer_value(json_object_get(status, "pid")));
    if (json_object_get(status, "cpus"))
        print_machine(status);
    print_text(status, "version", "vmrun");
}

int cli_status(const struct cli_args *args, struct error *err)
{
    json_t *status = NULL;

    if (cli_call(args->operands[0], "vm.status", &status, err) < 0)
        return CLI_FAILED;
    if (cli_has(args, "--json")) {
        cli_print_json(status);
        return CLI_OK;
    }
    print_status(status);
    json_decref(status);
    return CLI_OK;
}
