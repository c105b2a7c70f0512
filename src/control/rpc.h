/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON-RPC 2.0 over one line: the words, without any connection.
 * Source: the JSON-RPC 2.0 Specification, jsonrpc.org.
 */
#ifndef CONTROL_RPC_H
#define CONTROL_RPC_H

#include <jansson.h>
#include <stddef.h>

#include "vmrun/control.h"
#include "vmrun/machine.h"
#include "vmrun/migration.h"

enum rpc_code {
    RPC_PARSE_ERROR = -32700,
    RPC_INVALID_REQUEST = -32600,
    RPC_METHOD_NOT_FOUND = -32601,
    RPC_INVALID_PARAMS = -32602,
    RPC_INTERNAL_ERROR = -32603,
    RPC_REFUSED = -32000, /* the machine said no; data.errno says which kind of no */
};

/* What the connection itself has to do after the answer. */
enum rpc_effect { RPC_NONE, RPC_SUBSCRIBE, RPC_ATTACH };

struct rpc_target {
    const char *name;
    struct machine *machine; /* NULL: there is none yet, but a lobby */
    struct migration *migration;
    const struct control_lobby *lobby;
};

/*
 * Execute one line. *ret_answer is a line with its newline, free()d by the
 * caller, or NULL: nothing is to be said to a notification. Errors: -ENOMEM.
 */
int rpc_execute(const struct rpc_target *target, const char *line, size_t len, char **ret_answer,
                enum rpc_effect *ret_effect);

/* A method of those that know a machine, where there is none yet (rpc_lobby.c). NULL: err says why.
 */
json_t *rpc_call_lobby(const struct rpc_target *target, const char *method, struct error *err);

/* Words from the system may be any bytes; JSON takes only UTF-8. NULL when out of memory. */
json_t *rpc_text(const char *s);
/* One line, to be free()d; takes object. NULL when out of memory. */
char *rpc_line(json_t *object);

/* Lines of their own, to be free()d; NULL when out of memory. */
char *rpc_error_line(enum rpc_code code, const char *message);
char *rpc_event_line(const struct machine *machine, const struct machine_news *news);
char *rpc_progress_line(const struct machine *machine, const struct migration_progress *progress);
char *rpc_ended_line(const struct machine *machine, const struct migration_report *report);

#endif
