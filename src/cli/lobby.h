/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_LOBBY_H
#define CLI_LOBBY_H

/*
 * The control socket of a process whose main thread waits for a machine, or receives it. A thread
 * of its own serves it, so that it is listed, says what it is, and can be ended.
 */
#include <stdbool.h>

#include "vmrun/control.h"

struct lobby;
/* state: "waiting", "receiving". name and receive outlive it. Errors: of the system only. */
int lobby_open(struct receive *receive, const char *state, struct control_name *name,
               struct lobby **ret_lobby, struct error *err);
/* Nobody is served any more. Returns whether the machine was to be ended when it was too late to
 * end without it. NULL is fine. */
bool lobby_close(struct lobby *lobby);

#endif
