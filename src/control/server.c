/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The machine's side of the control socket.
 *
 * The machine thread must never wait for a client. Output is queued and sent as
 * the socket takes it: a client whose queue is long is not read from, so its own
 * requests cannot fill it, and one that lets events fill it is dropped.
 *
 * A call may raise events, and an event may find a client dead while that client
 * or another is being served. So nothing is freed in the middle: clients are
 * marked dead, and the outermost entry (see enter/leave) sweeps them.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "name.h"
#include "rpc.h"
#include "vmrun/console.h"
#include "vmrun/control.h"
#include "vmrun/log.h"

#define STOP_READING_BYTES ((size_t)64 * 1024)
#define QUEUE_MAX_BYTES ((size_t)1024 * 1024)
#define ACCEPT_RETRY_NS (UINT64_C(1000) * 1000 * 1000)

struct client {
    struct control_server *server;
    struct client *next;
    int fd;
    struct loop_watch *watch;
    bool subscribed;
    bool eof;       /* it will say no more */
    bool closing;   /* and we neither, after what is queued */
    bool attaching; /* the console's, after what is queued */
    bool dead;      /* to be freed by the sweep */
    char *out;
    size_t out_len;
    size_t out_room;
    size_t in_len;
    char in[CONTROL_LINE_MAX];
};

struct control_server {
    struct loop *loop;
    struct loop_watch *watch;
    struct loop_timer *accept_again;
    int listen_fd;
    struct rpc_target target;
    struct client *clients;
    unsigned depth; /* of calls into this file that are on the stack */
    struct log_limit refused, dropped;
};

static void client_free(struct client *c)
{
    loop_watch_destroy(c->watch);
    if (c->fd >= 0)
        close(c->fd);
    free(c->out);
    free(c);
}

static void enter(struct control_server *s)
{
    s->depth++;
}

static void leave(struct control_server *s)
{
    if (--s->depth > 0)
        return;
    for (struct client **link = &s->clients; *link;) {
        struct client *c = *link;

        if (!c->dead) {
            link = &c->next;
            continue;
        }
        *link = c->next;
        client_free(c);
    }
}

static void client_flush(struct client *c)
{
    size_t sent = 0;

    while (!c->dead && sent < c->out_len) {
        ssize_t n = send(c->fd, c->out + sent, c->out_len - sent, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n >= 0)
            sent += (size_t)n;
        else if (errno == EAGAIN)
            break;
        else if (errno != EINTR)
            c->dead = true; /* it hung up: nothing to say about that */
    }
    memmove(c->out, c->out + sent, c->out_len - sent);
    c->out_len -= sent;
}

static void client_send(struct client *c, const char *line)
{
    size_t len = strlen(line), need = c->out_len + len;

    if (c->dead)
        return;
    if (need > QUEUE_MAX_BYTES) {
        log_warn_limited(&c->server->dropped,
                         "control: a client that does not read was dropped (%zu bytes waiting)",
                         c->out_len);
        c->dead = true;
        return;
    }
    if (need > c->out_room) {
        char *grown = realloc(c->out, need);

        if (!grown) {
            c->dead = true;
            return;
        }
        c->out = grown;
        c->out_room = need;
    }
    memcpy(c->out + c->out_len, line, len);
    c->out_len = need;
    client_flush(c);
}

static void client_refuse(struct client *c, enum rpc_code code, const char *words)
{
    char *line = rpc_error_line(code, words);

    if (line)
        client_send(c, line);
    free(line);
    c->closing = true;
}

/* The connection becomes the console's: what the client sent after its request is input. */
static void client_hand_over(struct client *c)
{
    struct control_server *s = c->server;
    struct error err;
    int fd = c->fd;

    loop_watch_destroy(c->watch);
    c->watch = NULL;
    c->fd = -1;
    c->dead = true;
    if (console_attach(machine_console(s->target.machine), fd, c->in, c->in_len, &err) < 0) {
        log_warn("control: console.attach: %s", err.msg);
        close(fd);
    }
}

static bool client_wants_input(const struct client *c)
{
    return !c->eof && !c->closing && !c->attaching && c->out_len < STOP_READING_BYTES;
}

/* After anything happened: hand over, hang up, or say what to wait for. */
static void client_settle(struct client *c)
{
    if (c->dead)
        return;
    if (c->attaching && c->out_len == 0) {
        client_hand_over(c);
        return;
    }
    if (c->out_len == 0 && (c->closing || (c->eof && !c->subscribed))) {
        c->dead = true;
        return;
    }
    loop_watch_set(c->watch, (client_wants_input(c) ? EPOLLIN : 0) | (c->out_len ? EPOLLOUT : 0));
}

static void client_execute(struct client *c, const char *line, size_t len)
{
    enum rpc_effect effect = RPC_NONE;
    char *answer = NULL;

    if (len == 0 || (len == 1 && line[0] == '\r'))
        return;
    if (rpc_execute(&c->server->target, line, len, &answer, &effect) < 0) {
        log_warn_limited(&c->server->dropped, "control: a client was dropped: out of memory");
        c->dead = true;
        return;
    }
    if (answer)
        client_send(c, answer);
    free(answer);
    if (effect == RPC_SUBSCRIBE)
        c->subscribed = true;
    if (effect == RPC_ATTACH) {
        c->attaching = true;
        c->subscribed = false;
    }
}

/* Execute the whole lines that have come, as long as their answers find room. */
static void client_execute_lines(struct client *c)
{
    size_t at = 0;

    while (!c->dead && !c->closing && !c->attaching && c->out_len < STOP_READING_BYTES) {
        char *end = memchr(c->in + at, '\n', c->in_len - at);

        if (!end)
            break;
        size_t len = (size_t)(end - c->in) - at;
        client_execute(c, c->in + at, len);
        at += len + 1;
    }
    memmove(c->in, c->in + at, c->in_len - at);
    c->in_len -= at;
    if (c->in_len == sizeof(c->in) && !memchr(c->in, '\n', c->in_len) && !c->closing &&
        !c->attaching)
        client_refuse(c, RPC_INVALID_REQUEST, "a line has at most 65536 bytes");
}

static void client_receive(struct client *c)
{
    ssize_t n;

    if (c->in_len == sizeof(c->in))
        return;
    do
        n = recv(c->fd, c->in + c->in_len, sizeof(c->in) - c->in_len, MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);

    if (n > 0)
        c->in_len += (size_t)n;
    else if (n == 0)
        c->eof = true;
    else if (errno != EAGAIN)
        c->dead = true;
}

static void client_event(void *opaque, uint32_t events)
{
    struct client *c = opaque;
    struct control_server *s = c->server;

    enter(s);
    if (events & EPOLLOUT)
        client_flush(c);
    if (!c->dead && client_wants_input(c))
        client_receive(c);
    else if (events & (EPOLLHUP | EPOLLERR))
        c->dead = true;
    client_execute_lines(c);
    client_settle(c);
    leave(s);
}

static unsigned clients_count(const struct control_server *s)
{
    unsigned count = 0;

    for (const struct client *c = s->clients; c; c = c->next)
        count += !c->dead;
    return count;
}

static void client_add(struct control_server *s, int fd)
{
    struct client *c = calloc(1, sizeof(*c));
    struct error err;

    if (!c) {
        close(fd);
        return;
    }
    c->server = s;
    c->fd = fd;
    if (loop_watch_create(s->loop, fd, EPOLLIN, NULL, client_event, c, &c->watch, &err) < 0) {
        log_warn_limited(&s->refused, "control: %s", err.msg);
        client_free(c);
        return;
    }
    c->next = s->clients;
    s->clients = c;
    if (clients_count(s) > CONTROL_CLIENTS_MAX) {
        log_warn_limited(&s->refused, "control: more than %d clients: one was refused",
                         CONTROL_CLIENTS_MAX);
        client_refuse(c, RPC_REFUSED, "too many clients (at most 32): close some");
        c->dead = true; /* whatever it did not take at once */
    }
}

static void server_accept(void *opaque, uint32_t events)
{
    struct control_server *s = opaque;

    (void)events;
    enter(s);
    int fd = accept4(s->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0) {
        client_add(s, fd);
    } else if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
        /* Out of descriptors or memory: the connection stays ready, so look away for a while. */
        log_warn_limited(&s->refused, "control: cannot take a connection: %s", strerror(errno));
        loop_watch_set(s->watch, 0);
        loop_timer_arm(s->accept_again, loop_now_ns() + ACCEPT_RETRY_NS);
    }
    leave(s);
}

static void server_accept_again(void *opaque)
{
    struct control_server *s = opaque;

    loop_watch_set(s->watch, EPOLLIN);
}

/* Takes line; NULL: there was no memory for it. */
static void tell_subscribers(struct control_server *s, char *line)
{
    enter(s);
    for (struct client *c = s->clients; c && line; c = c->next) {
        if (!c->subscribed || c->dead)
            continue;
        client_send(c, line);
        client_settle(c);
    }
    free(line);
    leave(s);
}

static bool anybody_listens(const struct control_server *s)
{
    for (const struct client *c = s->clients; c; c = c->next)
        if (c->subscribed && !c->dead)
            return true;
    return false;
}

void control_server_event(struct control_server *server, const struct machine_news *news)
{
    if (server && anybody_listens(server))
        tell_subscribers(server, rpc_event_line(server->target.machine, news));
}

static void tell_progress(void *opaque, const struct migration_progress *progress)
{
    struct control_server *s = opaque;

    if (anybody_listens(s))
        tell_subscribers(s, rpc_progress_line(s->target.machine, progress));
}

static void tell_ended(void *opaque, const struct migration_report *report)
{
    struct control_server *s = opaque;

    if (anybody_listens(s))
        tell_subscribers(s, rpc_ended_line(s->target.machine, report));
}

static const struct migration_listener migration_listener = {
    .progress = tell_progress,
    .ended = tell_ended,
};

static int create(struct control_name *name, struct loop *loop, const struct rpc_target *target,
                  struct control_server **ret_server, struct error *err)
{
    struct control_server *s = calloc(1, sizeof(*s));
    int r;

    if (!s)
        return error_set(err, ENOMEM, "control: out of memory");
    s->loop = loop;
    s->listen_fd = control_name_fd(name);
    s->target = *target;
    s->target.name = control_name_text(name);
    r = loop_timer_create(loop, NULL, server_accept_again, s, &s->accept_again, err);
    if (r < 0)
        goto fail;
    r = loop_watch_create(loop, s->listen_fd, EPOLLIN, NULL, server_accept, s, &s->watch, err);
    if (r < 0)
        goto fail;
    *ret_server = s;
    return 0;

fail:
    control_server_destroy(s);
    return r;
}

int control_server_create(struct control_name *name, struct loop *loop, struct machine *machine,
                          struct migration *migration, struct control_server **ret_server,
                          struct error *err)
{
    const struct rpc_target target = {.machine = machine, .migration = migration};
    int r = create(name, loop, &target, ret_server, err);

    if (r == 0)
        migration_set_listener(migration, &migration_listener, *ret_server);
    return r;
}

int control_lobby_create(struct control_name *name, struct loop *loop,
                         const struct control_lobby *lobby, struct control_server **ret_server,
                         struct error *err)
{
    return create(name, loop, &(struct rpc_target){.lobby = lobby}, ret_server, err);
}

void control_server_destroy(struct control_server *server)
{
    if (!server)
        return;
    loop_watch_destroy(server->watch);
    loop_timer_destroy(server->accept_again);
    for (struct client *c = server->clients, *next; c; c = next) {
        next = c->next;
        client_flush(c);
        client_free(c);
    }
    free(server);
}
