/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lobby: a kill ends the process as a signal would, since until the machine is its own nothing is
 * lost with it, and whatever the main thread waits for need not be interrupted.
 */
#include "lobby.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "vmrun/thread.h"

struct lobby {
    struct control_lobby control;
    struct receive *receive;
    struct control_name *name;
    struct loop *loop;
    struct control_server *server;
    pthread_t thread;
    bool started;
    bool killed; /* the thread's, until it is joined */
};

/* By now the answer is sent. */
static void die(void *opaque)
{
    const struct lobby *lobby = opaque;

    fprintf(stderr, "vmrun: killed before a machine had come\n");
    control_name_unlink(lobby->name);
    (void)kill(getpid(), SIGTERM);
    (void)kill(getpid(), SIGKILL); /* who started us may have had that one ignored */
}

static void kill_it(void *opaque)
{
    struct lobby *lobby = opaque;

    if (!receive_end(lobby->receive))
        lobby->killed = true;
    else if (loop_post(lobby->loop, die, lobby) < 0)
        die(lobby);
}

static void *serve(void *opaque)
{
    struct lobby *lobby = opaque;
    struct error err;

    if (loop_run(lobby->loop, &err) < 0)
        fprintf(stderr, "vmrun: control: %s\n", err.msg);
    return NULL;
}

int lobby_open(struct receive *receive, const char *state, struct control_name *name,
               struct lobby **ret_lobby, struct error *err)
{
    struct lobby *lobby = calloc(1, sizeof(*lobby));
    int r;

    if (!lobby)
        return error_set(err, ENOMEM, "out of memory");
    lobby->receive = receive;
    lobby->name = name;
    lobby->control = (struct control_lobby){
        .state = state, .url = receive_url(receive), .kill = kill_it, .opaque = lobby};
    r = loop_create(&lobby->loop, err);
    if (r == 0)
        r = control_lobby_create(name, lobby->loop, &lobby->control, &lobby->server, err);
    if (r == 0)
        r = thread_start(&lobby->thread, "control", 0, serve, lobby, err);
    lobby->started = r == 0;
    if (r == 0)
        *ret_lobby = lobby;
    else
        (void)lobby_close(lobby);
    return r;
}

bool lobby_close(struct lobby *lobby)
{
    bool killed;

    if (!lobby)
        return false;
    if (lobby->started) {
        loop_stop(lobby->loop);
        pthread_join(lobby->thread, NULL);
    }
    control_server_destroy(lobby->server);
    loop_destroy(lobby->loop);
    killed = lobby->killed;
    free(lobby);
    return killed;
}
