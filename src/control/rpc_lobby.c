/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control socket of a process that waits for a machine from another host: what it is, and its
 * end. All else is of a machine, and refused.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "rpc.h"

json_t *rpc_call_lobby(const struct rpc_target *target, const char *method, struct error *err)
{
    const struct control_lobby *lobby = target->lobby;

    if (strcmp(method, "vm.status") == 0)
        return json_pack("{s:s, s:i, s:s, s:s, s:o}", "name", target->name, "pid", (int)getpid(),
                         "version", VMRUN_VERSION, "state", lobby->state, "url",
                         rpc_text(lobby->url));
    if (strcmp(method, "vm.kill") == 0) {
        lobby->kill(lobby->opaque);
        return json_pack("{s:s}", "state", "ended");
    }
    error_set(err, ENODEV,
              "'%s' has no machine yet, but is %s one at %s: until then there is its status, and "
              "its kill",
              target->name, strcmp(lobby->state, "waiting") == 0 ? "waiting for" : "receiving",
              lobby->url);
    return NULL;
}
