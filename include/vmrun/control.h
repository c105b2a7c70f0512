/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMRUN_CONTROL_H
#define VMRUN_CONTROL_H

/*
 * The control socket: $VMRUN_DIR/NAME.sock, JSON-RPC 2.0, one object a line.
 * docs/control.md lists the methods. The server runs on the machine thread's
 * loop; clients are blocking and belong to the command line.
 */

#include <jansson.h>
#include <stdbool.h>
#include <sys/types.h>

#include "vmrun/error.h"
#include "vmrun/loop.h"
#include "vmrun/machine.h"
#include "vmrun/migration.h"

/* Room for the longest socket path, with its NUL. */
#define CONTROL_PATH_MAX 108
/* Longest name of a machine, and its characters; config refuses the same. */
#define CONTROL_NAME_MAX 64
/* Longest request, its newline included. */
#define CONTROL_LINE_MAX 65536
#define CONTROL_CLIENTS_MAX 32

/*
 * The folder of sockets: $VMRUN_DIR, else $XDG_RUNTIME_DIR/vmrun, else /run/vmrun
 * for root and /tmp/vmrun-UID for others. create: make it (0700). A folder that
 * is there must belong to the caller and be writable by nobody else; one that is
 * not there is no error without create.
 * Errors: -ENAMETOOLONG; what mkdir(2) says; -EPERM, others own it or may write
 * in it; -ENOTDIR.
 */
int control_dir(bool create, char *buf, size_t len, struct error *err);

/* $VMRUN_DIR/NAME.log, where a detached machine writes. Errors: as control_dir(), without create;
 * -EINVAL. */
int control_log_path(const char *name, char *buf, size_t len, struct error *err);

/*
 * Take the name: a listening socket, mode 0600, or refuse because a live
 * machine has it (-EEXIST: "a machine named 'web1' is running (pid 4711)"). What
 * a dead process left behind is removed. Two processes at once: one wins.
 * Errors also: -EINVAL, not a name; as control_dir(); what bind(2) says.
 */
struct control_name;
int control_name_claim(const char *name, struct control_name **ret_name, struct error *err);
void control_name_release(struct control_name *name); /* removes the socket; NULL is fine */
/* Removes the socket, of a process that is about to die. Any thread. */
void control_name_unlink(const struct control_name *name);

/*
 * Serve the machine on the claimed name, which must live longer. The server listens to migration
 * and tells its clients, until migration is destroyed, which comes first. A client may be hostile
 * only as far as its user is the operator: it can ask for anything, but neither block nor crash the
 * machine thread. Loop thread only.
 */
struct control_server;
int control_server_create(struct control_name *name, struct loop *loop, struct machine *machine,
                          struct migration *migration, struct control_server **ret_server,
                          struct error *err);
void control_server_destroy(struct control_server *server); /* NULL is fine */

/*
 * Before there is a machine: who waits for one, or receives one, serves vm.status, vm.kill and
 * rpc.methods, and refuses the rest in words. lobby outlives the server.
 */
struct control_lobby {
    const char *state, *url;    /* "waiting"; where it listens */
    void (*kill)(void *opaque); /* asked for; the answer is sent when it returns */
    void *opaque;
};
int control_lobby_create(struct control_name *name, struct loop *loop,
                         const struct control_lobby *lobby, struct control_server **ret_server,
                         struct error *err);

/*
 * Tell subscribers what the machine told its listener. Loop thread, at any
 * depth: also from within a call that a client made. NULL server is fine.
 */
void control_server_event(struct control_server *server, const struct machine_news *news);

/* A client's connection. */
struct control_client;
/* Errors: -ENOENT "no machine named 'web1' is running"; -EACCES; -EINVAL, not a name; -EAGAIN. */
int control_client_open(const char *name, struct control_client **ret_client, struct error *err);
void control_client_close(struct control_client *client); /* NULL is fine */
int control_client_fd(const struct control_client *client);
pid_t control_client_pid(const struct control_client *client); /* of the machine; 0: not visible */

/*
 * Call and wait for the answer, which the caller json_decref()s. params is
 * stolen and may be NULL. ret_result may be NULL. Notifications that come
 * meanwhile are left out. Errors: the server's, in its words; -ETIMEDOUT;
 * -EPIPE, the machine ended meanwhile; -EPROTO, no sense in the answer.
 */
int control_client_call(struct control_client *client, const char *method, json_t *params,
                        int timeout_ms, json_t **ret_result, struct error *err);

/*
 * Say it as a notification, which nobody answers. params is stolen and may be NULL.
 * Errors: -ETIMEDOUT; -ENOMEM.
 */
int control_client_notify(struct control_client *client, const char *method, json_t *params,
                          int timeout_ms, struct error *err);
/*
 * The next event's "params", which the caller json_decref()s; after events.subscribe. What comes
 * between a call and its answer is left out, so call nothing between. Errors: -ETIMEDOUT, none
 * within that time; -EPIPE, -EPROTO as above.
 */
int control_client_next_event(struct control_client *client, int timeout_ms, json_t **ret_event,
                              struct error *err);

/*
 * Bytes that came after the last answer: after console.attach, the beginning of
 * the raw stream. They belong to the client; told once.
 */
size_t control_client_take_rest(struct control_client *client, const char **ret_data);

/* Wait until the machine's process has ended. Errors: -ETIMEDOUT. */
int control_client_wait_gone(struct control_client *client, int timeout_ms, struct error *err);

/*
 * Names of all live machines here, ascending; each and the array are free()d by
 * the caller. Sockets of the dead are removed on the way. No folder: none.
 */
int control_list(char ***ret_names, size_t *ret_count, struct error *err);
void control_list_free(char **names, size_t count);

#endif
