/* SPDX-License-Identifier: Apache-2.0 */
/* The process that is a machine: what `run` and `restore` share. */
#ifndef CLI_RUN_H
#define CLI_RUN_H

#include "verbs.h"
#include "vmrun/config.h"
#include "vmrun/migration.h"
#include "vmrun/snapfile.h"

struct run {
    struct vm_config config;
    bool paused;
    const struct snapfile *file; /* what the machine comes out of; NULL: it boots */
    struct restore_params restore_params;
    struct receive *receive; /* or from another host, or NULL */
    struct lobby *lobby;     /* until it is ours */

    int ready_fd; /* --detach: the parent waits there; else -1 */
    bool detached;
    struct loop *loop;
    struct control_name *name;
    struct machine *machine;
    struct restore *restore;
    struct migration *migration;
    struct control_server *server;
    int signal_fd;
    struct loop_watch *signal_watch;
    int signal;   /* that ended the machine */
    char *report; /* of the guest's crash */
};

/* Options of the command line that name a key of the configuration set it. Returns an exit status.
 */
int run_set_options(struct run *run, const struct cli_args *args, struct error *err);
/* --detach takes the terminal away from the consoles. Returns an exit status. */
int run_leave_terminal(struct run *run, const struct cli_args *args, struct error *err);

void run_init(struct run *run, const struct cli_args *args);
/* Fork with --detach, be the machine until it has ended. Returns an exit status. */
int run_to_the_end(struct run *run, const struct cli_args *args, struct error *err);

#endif
