/* SPDX-License-Identifier: Apache-2.0 */
/*
 * incoming: what is said of a machine that comes from elsewhere, changed as the command line wants
 * it and held against this host. All reasons against it are gathered before one is told.
 */
#include "incoming.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "vmrun/kvm.h"
#include "vmrun/log.h"
#include "vmrun/machine.h"
#include "vmrun/vsock.h"

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

/* What the guest's driver has settled with its card stays so, and the backends differ in it.
 * before: those of the cards that it had; another one more is refused elsewhere. */
static int check_backends(const struct vm_config *config, const uint64_t *before, uint64_t count,
                          struct error *err)
{
    static const char *const names[] = {
        [CONFIG_NET_TAP] = "tap",
        [CONFIG_NET_USER] = "user",
    };

    for (unsigned i = 0; i < count && i < config->net_count; i++)
        if (config->nets[i].backend != before[i])
            return error_set(
                err, EINVAL,
                "--set nets[%u].backend: the guest's driver counts on what the backend "
                "\"%s\" can do with checksums and segments; it goes on with no other",
                i, names[before[i]]);
    return 0;
}

int incoming_configure(struct run *run, const struct cli_args *args, const char *where,
                       const struct incoming *in, struct error *err)
{
    uint64_t backends[CONFIG_MAX_NETS] = {0}, count;
    int status = CLI_OK;

    if (machine_read_description(where, in->description, in->description_len, &run->config, err) <
        0)
        return CLI_FAILED;
    count = run->config.net_count;
    for (unsigned i = 0; i < count; i++)
        backends[i] = run->config.nets[i].backend;
    /* It may have run detached; in the foreground a terminal is its console, as of any other. */
    if (!cli_has(args, "--detach") && run->config.serial.kind == CONFIG_CONSOLE_NONE &&
        run->config.virtio_console.kind != CONFIG_CONSOLE_STDIO)
        run->config.serial.kind = CONFIG_CONSOLE_STDIO;
    for (size_t i = 0; status == CLI_OK && i < args->value_count; i++)
        if (strcmp(args->values[i].option->name, "--set") == 0)
            status = set_key(run, args, args->values[i].text, err);
    if (status == CLI_OK && check_backends(&run->config, backends, count, err) < 0)
        status = CLI_FAILED;
    if (status == CLI_OK)
        status = run_set_options(run, args, err);
    if (status == CLI_OK)
        status = run_leave_terminal(run, args, err);
    if (status == CLI_OK && config_validate(&run->config, err) < 0) {
        error_prefix(err, "%s", where);
        status = CLI_FAILED;
    }
    return status;
}

/* Reasons against it */

void incoming_reason(struct incoming_reasons *reasons, const char *fmt, ...)
{
    va_list list;

    if (reasons->count >= INCOMING_MAX_REASONS)
        return;
    va_start(list, fmt);
    vsnprintf(reasons->text[reasons->count++], sizeof(reasons->text[0]), fmt, list);
    va_end(list);
}

unsigned incoming_tell_reasons(const struct incoming_reasons *reasons)
{
    for (unsigned i = 0; i < reasons->count; i++) {
        if (i == 0)
            fprintf(stderr, "vmrun: %s cannot be %s here:\n", reasons->what, reasons->done);
        fprintf(stderr, "  %s\n", reasons->text[i]);
    }
    return reasons->count;
}

void incoming_join_reasons(const struct incoming_reasons *reasons, struct error *err)
{
    size_t at = 0;

    error_set(err, EPERM, "it cannot come here");
    for (unsigned i = 0; i < reasons->count && at < sizeof(err->msg); i++)
        at += (size_t)snprintf(err->msg + at, sizeof(err->msg) - at, "%s%s", i ? "; " : "",
                               reasons->text[i]);
}

static void check_cpus(const struct run *run, const void *cpuid, size_t len,
                       struct incoming_reasons *reasons)
{
    unsigned max;
    char missing[300] = "";
    struct error err;

    if (!cpuid) {
        incoming_reason(reasons, "section 'cpuid': missing");
    } else if (kvm_cpuid_missing(cpuid, len, missing, sizeof(missing), &err) < 0) {
        incoming_reason(reasons, "%s", err.msg);
        return; /* the next would only say it again */
    }
    if (missing[0])
        incoming_reason(reasons, "this host's CPU or KVM lacks what the guest's CPU has: %s",
                        missing);
    if (kvm_max_cpus(&max, &err) == 0 && run->config.cpus > max)
        incoming_reason(reasons, "it has %llu CPUs, and this host's KVM allows %u",
                        (unsigned long long)run->config.cpus, max);
}

static void check_nets(const struct run *run, struct incoming_reasons *reasons)
{
    for (unsigned i = 0; i < run->config.net_count; i++) {
        struct error err;

        if (machine_check_net(&run->config, i, &err) < 0)
            incoming_reason(reasons, "%s", err.msg);
    }
}

static void check_vsock(const struct run *run, struct incoming_reasons *reasons)
{
    struct vsock_host *host;
    struct error err;

    if (!run->config.vsock.socket)
        return;
    if (vsock_host_open(run->config.vsock.socket, &host, &err) < 0)
        incoming_reason(reasons, "vsock: %s", err.msg);
    else
        vsock_host_close(host);
}

static void check_kvm(const struct incoming *in, struct incoming_reasons *reasons)
{
    char missing[MACHINE_LACKS_BYTES], doubts[MACHINE_LACKS_BYTES];
    struct error err;

    if (!in->cpuid)
        return; /* that was said */
    if (machine_check_host(reasons->what, in->description, in->description_len, in->cpuid,
                           in->cpuid_len, missing, doubts, &err) < 0) {
        incoming_reason(reasons, "%s", err.msg);
        return;
    }
    if (missing[0])
        incoming_reason(reasons, "this host's KVM cannot take over: %s", missing);
    if (doubts[0])
        log_warn("%s: this host's KVM may lose: %s", reasons->what, doubts);
}

void incoming_check(const struct run *run, const struct incoming *in,
                    struct incoming_reasons *reasons)
{
    check_cpus(run, in->cpuid, in->cpuid_len, reasons);
    check_kvm(in, reasons);
    check_nets(run, reasons);
    check_vsock(run, reasons);
}
