/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmrun receive: a machine from another host (incoming.c), then one like any other (run.c).
 *
 * Until the other side has given it away it is killed by any signal, and nothing is lost by that;
 * lobby.c has it listed and asked meanwhile.
 */
#include <stdio.h>
#include <unistd.h>

#include "incoming.h"
#include "lobby.h"

/* Its own name, or one that nobody gives a machine, until it is known what comes. What is wrong
 * with the options is said now, and not to who comes. Returns an exit status. */
static int claim_name(struct run *run, const struct cli_args *args, struct control_name **ret_name,
                      struct error *err)
{
    char name[CONTROL_NAME_MAX + 1];
    int status = run_set_options(run, args, err);

    snprintf(name, sizeof(name), "receive-%d", (int)getpid());
    if (status == CLI_OK &&
        control_name_claim(run->config.name ? run->config.name : name, ret_name, err) < 0)
        status = CLI_FAILED;
    config_fini(&run->config);
    config_init(&run->config);
    return status;
}

/* Until one comes. Returns an exit status. */
static int await_machine(struct run *run, const struct cli_args *args, bool first,
                         struct incoming *ret_in, struct error *err)
{
    struct control_name *name = NULL;
    struct lobby *lobby = NULL;
    int status = claim_name(run, args, &name, err);

    if (status == CLI_OK && first)
        fprintf(stderr, "vmrun: waiting for a machine at %s\n", receive_url(run->receive));
    if (status == CLI_OK &&
        (lobby_open(run->receive, "waiting", name, &lobby, err) < 0 ||
         receive_accept(run->receive, &ret_in->description, &ret_in->description_len, err) < 0))
        status = CLI_FAILED;
    (void)lobby_close(lobby);
    control_name_release(name);
    return status;
}

/* What comes, configured and held against this host. Returns an exit status; the other side knows.
 */
static int look(struct run *run, const struct cli_args *args, bool first, struct error *err)
{
    struct incoming_reasons reasons = {.what = args->operands[0], .done = "received"};
    struct incoming in;
    struct error why;
    int status = await_machine(run, args, first, &in, err);

    if (status != CLI_OK)
        return status;
    in.cpuid = receive_cpuid(run->receive, &in.cpuid_len);
    status = incoming_configure(run, args, args->operands[0], &in, err);
    if (status != CLI_OK) {
        receive_refuse(run->receive, err);
        return status;
    }
    incoming_check(run, &in, &reasons);
    if (incoming_tell_reasons(&reasons) == 0)
        return CLI_OK;
    incoming_join_reasons(&reasons, &why);
    receive_refuse(run->receive, &why);
    return CLI_FAILED;
}

/* All of a move but the move. Whatever is wrong, the other side hears it and this one waits on. */
static void check(struct run *run, struct error *err)
{
    struct control_name *name = NULL;
    struct machine *machine = NULL;
    struct lobby *lobby = NULL;
    struct loop *loop = NULL;
    int r = control_name_claim(run->config.name, &name, err);

    if (r == 0)
        r = lobby_open(run->receive, "receiving", name, &lobby, err);
    if (r < 0)
        receive_refuse(run->receive, err);
    if (r == 0)
        r = loop_create(&loop, err);
    if (r == 0)
        r = receive_build(run->receive, &run->config, loop, &machine, err);
    if (r == 0)
        r = receive_check(run->receive, err);
    fprintf(stderr, "vmrun: '%s' was to be checked only: %s\n", run->config.name,
            r < 0 ? err->msg : "it can come");
    (void)lobby_close(lobby);
    machine_destroy(machine);
    loop_destroy(loop);
    control_name_release(name);
}

static int receive(struct run *run, const struct cli_args *args, struct error *err)
{
    for (bool first = true;; first = false) {
        int status = look(run, args, first, err);
        bool only_check = receive_is_check(run->receive);

        if (status != CLI_OK && !only_check)
            return status;
        if (status == CLI_OK && !only_check)
            return run_to_the_end(run, args, err);
        if (status == CLI_OK)
            check(run, err);
        else if (err->msg[0])
            fprintf(stderr, "vmrun: %s\n", err->msg);
        receive_forget(run->receive);
        config_fini(&run->config);
        config_init(&run->config);
        *err = (struct error){0};
    }
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
    if (receive_listen(args->operands[0], &security, &run.receive, err) == 0)
        status = receive(&run, args, err);
    config_fini(&run.config);
    receive_destroy(run.receive);
    return status;
}
