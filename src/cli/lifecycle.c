/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmrun pause, resume, reset, refresh, stop, kill.
 *
 * stop and kill return when the machine's process is gone: its name, disks and
 * memory are free then. That the machine ended by itself meanwhile is success.
 */
#include <errno.h>

#include "verbs.h"

#define STOP_TIMEOUT_S 60
#define STOP_TIMEOUT_MAX_S 86400
#define KILL_TIMEOUT_MS 10000

static int call_only(const struct cli_args *args, const char *method, struct error *err)
{
    return cli_call(args->operands[0], method, NULL, err) < 0 ? CLI_FAILED : CLI_OK;
}

int cli_pause(const struct cli_args *args, struct error *err)
{
    return call_only(args, "vm.pause", err);
}

int cli_resume(const struct cli_args *args, struct error *err)
{
    json_t *params = cli_has(args, "--force") ? json_pack("{s:b}", "force", 1) : NULL;

    return cli_call_with(args->operands[0], "vm.resume", params, NULL, err) < 0 ? CLI_FAILED
                                                                                : CLI_OK;
}

int cli_reset(const struct cli_args *args, struct error *err)
{
    return call_only(args, "vm.reset", err);
}

int cli_refresh(const struct cli_args *args, struct error *err)
{
    return call_only(args, "vm.disks.refresh", err);
}

static int kill_and_wait(struct control_client *client, const char *name, struct error *err)
{
    int r = control_client_call(client, "vm.kill", NULL, CLI_CALL_TIMEOUT_MS, NULL, err);

    if (r == 0 || r == -EPIPE)
        r = control_client_wait_gone(client, KILL_TIMEOUT_MS, err);
    if (r == -ETIMEDOUT)
        error_set(err, ETIMEDOUT, "machine '%s' does not end; 'kill -9 %d' ends its process", name,
                  (int)control_client_pid(client));
    return r;
}

int cli_kill(const struct cli_args *args, struct error *err)
{
    struct control_client *client;

    if (cli_open(args->operands[0], &client, err) < 0)
        return CLI_FAILED;
    int r = kill_and_wait(client, args->operands[0], err);
    control_client_close(client);
    return r < 0 ? CLI_FAILED : CLI_OK;
}

/* 0: gone. -ETIMEDOUT: the guest did not take the hint. Else: it could not be asked. */
static int ask_and_wait(struct control_client *client, const char *name, unsigned timeout_s,
                        struct error *err)
{
    int r = control_client_call(client, "vm.stop", NULL, CLI_CALL_TIMEOUT_MS, NULL, err);

    if (r == -EBUSY)
        return error_set(err, EBUSY,
                         "machine '%s' cannot take its power button, because it does not run; "
                         "'vmrun resume %s' first, or --force to kill it",
                         name, name);
    if (r < 0 && r != -EPIPE)
        return r;
    r = control_client_wait_gone(client, (int)timeout_s * 1000, err);
    if (r == -ETIMEDOUT)
        error_set(err, ETIMEDOUT,
                  "machine '%s' still runs %u s after its power button was pressed; --force would "
                  "kill it",
                  name, timeout_s);
    return r;
}

int cli_stop(const struct cli_args *args, struct error *err)
{
    const char *name = args->operands[0];
    struct control_client *client;
    unsigned timeout_s;
    int status =
        cli_get_seconds(args, "--timeout", STOP_TIMEOUT_MAX_S, STOP_TIMEOUT_S, &timeout_s, err);

    if (status != CLI_OK)
        return status;
    if (cli_open(name, &client, err) < 0)
        return CLI_FAILED;
    int r = ask_and_wait(client, name, timeout_s, err);
    if (r < 0 && cli_has(args, "--force"))
        r = kill_and_wait(client, name, err);
    control_client_close(client);
    return r < 0 ? CLI_FAILED : CLI_OK;
}
