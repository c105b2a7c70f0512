/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmrun receive: a machine from another host (incoming.c), then one like any other (run.c).
 *
 * Until the other side has given it away it is killed by any signal, and nothing is lost by that.
 */
#include <stdio.h>

#include "incoming.h"

static int receive(struct run *run, const struct cli_args *args, struct error *err)
{
    struct incoming_reasons reasons = {.what = args->operands[0], .done = "received"};
    const char *description;
    const void *cpuid;
    size_t len, cpuid_len;
    int status;

    if (receive_accept(run->receive, &description, &len, err) < 0)
        return CLI_FAILED;
    status = incoming_configure(run, args, args->operands[0], description, len, err);
    if (status != CLI_OK) {
        receive_refuse(run->receive, err);
        return status;
    }
    cpuid = receive_cpuid(run->receive, &cpuid_len);
    incoming_check(run, cpuid, cpuid_len, &reasons);
    if (incoming_tell_reasons(&reasons)) {
        struct error why;

        incoming_join_reasons(&reasons, &why);
        receive_refuse(run->receive, &why);
        return CLI_FAILED;
    }
    return run_to_the_end(run, args, err);
}

int cli_receive(const struct cli_args *args, struct error *err)
{
    const struct channel_security security = {.insecure = cli_has(args, "--insecure"),
                                              .cert = cli_get(args, "--tls-cert"),
                                              .key = cli_get(args, "--tls-key"),
                                              .ca = cli_get(args, "--tls-ca"),
                                              .psk = cli_get(args, "--tls-psk")};
    struct run run;
    int status = CLI_FAILED;

    run_init(&run, args);
    if (receive_listen(args->operands[0], &security, &run.receive, err) == 0) {
        fprintf(stderr, "vmrun: waiting for a machine at %s\n", receive_url(run.receive));
        status = receive(&run, args, err);
    }
    config_fini(&run.config);
    receive_destroy(run.receive);
    return status;
}
