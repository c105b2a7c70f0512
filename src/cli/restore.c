/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmrun restore: what a file says of a machine, changed as the command line wants it and held
 * against this host; then it is a machine like any other (run.c).
 *
 * Nothing runs, and nothing is taken away from anybody, before all reasons against it are told.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "run.h"
#include "vmrun/kvm.h"
#include "vmrun/machine.h"
#include "vmrun/netdev.h"

#ifdef __aarch64__
#define ARCHITECTURE SNAPFILE_AARCH64
#else
#define ARCHITECTURE SNAPFILE_X86_64
#endif

/* Options */

static int parse_choice(const struct cli_args *args, const char *option, const char *first,
                        const char *second, bool *ret_second, struct error *err)
{
    const char *text = cli_get(args, option);

    if (text && strcmp(text, first) != 0 && strcmp(text, second) != 0)
        return cli_wrong(args, err, "%s: \"%.40s\" is neither %s nor %s", option, text, first,
                         second);
    *ret_second = text && strcmp(text, second) == 0;
    return CLI_OK;
}

static int parse_options(struct run *run, const struct cli_args *args, struct error *err)
{
    bool eager = false;
    int status = parse_choice(args, "--mode", "lazy", "eager", &eager, err);

    if (status == CLI_OK)
        status =
            parse_choice(args, "--clock", "advance", "freeze", &run->restore_params.freeze, err);
    if (status == CLI_OK)
        run->restore_params.mode = eager ? RESTORE_EAGER : RESTORE_LAZY;
    return status;
}

/* One "--set KEY=VALUE". */
static int set_key(struct run *run, const struct cli_args *args, const char *text,
                   struct error *err)
{
    size_t len = strcspn(text, "=");
    char key[64], where[80], words[sizeof(err->msg)];

    if (!text[len])
        return cli_wrong(args, err, "--set: \"%.40s\" is not KEY=VALUE", text);
    if (len == 0 || len >= sizeof(key))
        return cli_wrong(args, err, "--set: \"%.40s\": no such key", text);
    snprintf(key, sizeof(key), "%.*s", (int)len, text);
    snprintf(where, sizeof(where), "--set %s", key);
    if (config_set(&run->config, where, key, text + len + 1, err) == 0)
        return CLI_OK;
    if (err->code == ENOMEM)
        return CLI_FAILED;
    memcpy(words, err->msg, sizeof(words));
    return cli_wrong(args, err, "%s", words);
}

/* The saved description under what the command line says. */
static int configure(struct run *run, const struct cli_args *args, const char *description,
                     size_t len, struct error *err)
{
    const char *path = args->operands[0];
    int status = CLI_OK;

    if (machine_read_description(path, description, len, &run->config, err) < 0)
        return CLI_FAILED;
    /* It may have run detached; in the foreground a terminal is its console, as of any other. */
    if (!cli_has(args, "--detach") && run->config.serial.kind == CONFIG_CONSOLE_NONE &&
        run->config.virtio_console.kind != CONFIG_CONSOLE_STDIO)
        run->config.serial.kind = CONFIG_CONSOLE_STDIO;
    for (size_t i = 0; status == CLI_OK && i < args->value_count; i++)
        if (strcmp(args->values[i].option->name, "--set") == 0)
            status = set_key(run, args, args->values[i].text, err);
    if (status == CLI_OK)
        status = run_set_options(run, args, err);
    if (status == CLI_OK)
        status = run_leave_terminal(run, args, err);
    if (status == CLI_OK && config_validate(&run->config, err) < 0) {
        error_prefix(err, "%s", path);
        status = CLI_FAILED;
    }
    return status;
}

/* Reasons against it */

struct reasons {
    const char *path;
    unsigned count;
};

static void give_reason(struct reasons *reasons, const char *fmt, ...) PRINTF_LIKE(2, 3);
static void give_reason(struct reasons *reasons, const char *fmt, ...)
{
    va_list list;

    if (reasons->count++ == 0)
        fprintf(stderr, "vmrun: %s cannot be restored here:\n", reasons->path);
    fputs("  ", stderr);
    va_start(list, fmt);
    vfprintf(stderr, fmt, list);
    va_end(list);
    fputc('\n', stderr);
}

static void check_cpus(const struct run *run, struct reasons *reasons)
{
    unsigned max;
    size_t len;
    const void *cpuid = snapfile_section(run->file, "cpuid", &len);
    char missing[300] = "";
    struct error err;

    if (!cpuid) {
        give_reason(reasons, "section 'cpuid': missing");
    } else if (kvm_cpuid_missing(cpuid, len, missing, sizeof(missing), &err) < 0) {
        give_reason(reasons, "%s", err.msg);
        return; /* the next would only say it again */
    }
    if (missing[0])
        give_reason(reasons, "this host's CPU or KVM lacks what the guest's CPU has: %s", missing);
    if (kvm_max_cpus(&max, &err) == 0 && run->config.cpus > max)
        give_reason(reasons, "it has %llu CPUs, and this host's KVM allows %u",
                    (unsigned long long)run->config.cpus, max);
}

/* A tap is opened to try it: what it says then is what would be said later, alone. */
static void check_nets(const struct run *run, struct reasons *reasons)
{
    for (unsigned i = 0; i < run->config.net_count; i++) {
        const struct config_net *net = &run->config.nets[i];
        uint64_t queues = net->queues ? net->queues : run->config.cpus;
        const struct tap_params params = {
            .ifname = net->ifname,
            .bridge = net->bridge,
            .queues = queues > NETDEV_MAX_QUEUES ? NETDEV_MAX_QUEUES : (unsigned)queues,
            .mtu = (unsigned)net->mtu,
        };
        struct netdev *netdev;
        struct error err;

        if (tap_open(&params, &netdev, &err) < 0)
            give_reason(reasons, "nets[%u]: %s", i, err.msg);
        else
            netdev_close(netdev);
    }
}

/* Returns an exit status; what is to be said is said. */
static int check_host(const struct run *run, const struct cli_args *args, const char *description,
                      size_t len)
{
    struct reasons reasons = {.path = args->operands[0]};
    struct error err;

    if (snapfile_architecture(run->file) != ARCHITECTURE) {
        give_reason(&reasons, "it is a machine of another architecture");
        return CLI_FAILED; /* nothing else of it means anything here */
    }
    check_cpus(run, &reasons);
    if (machine_check_disks("disks", description, len, &run->config, &err) < 0)
        give_reason(&reasons, "%s", err.msg);
    check_nets(run, &reasons);
    return reasons.count ? CLI_FAILED : CLI_OK;
}

static int restore_file(struct run *run, const struct cli_args *args, struct error *err)
{
    size_t len;
    const char *description = snapfile_section(run->file, "machine", &len);
    int status;

    if (!description) {
        error_set(err, EPROTO, "%s: section 'machine': missing", args->operands[0]);
        return CLI_FAILED;
    }
    status = configure(run, args, description, len, err);
    if (status == CLI_OK)
        status = check_host(run, args, description, len);
    return status == CLI_OK ? run_to_the_end(run, args, err) : status;
}

int cli_restore(const struct cli_args *args, struct error *err)
{
    struct snapfile *file = NULL;
    struct run run;

    run_init(&run, args);
    int status = parse_options(&run, args, err);
    if (status == CLI_OK) {
        status = snapfile_open(args->operands[0], &file, err) < 0 ? CLI_FAILED : CLI_OK;
        run.file = file;
    }
    if (status == CLI_OK)
        status = restore_file(&run, args, err);
    config_fini(&run.config);
    snapfile_close(file);
    return status;
}
