/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line's side of the control socket: one call at a time, each with
 * a deadline, because the machine's process may be stopped or stuck.
 */
#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "dir.h"
#include "vmrun/control.h"

#define ANSWER_MAX_BYTES ((size_t)16 * 1024 * 1024)
#define READ_BYTES 4096
#define OPEN_TRIES 50
#define OPEN_WAIT_NS 20000000L

struct control_client {
    int fd;
    int pid_fd; /* of the machine's process, or -1 */
    pid_t pid;
    json_int_t last_id;
    char name[CONTROL_NAME_MAX + 1];
    char *in;
    size_t in_len, in_room;
};

int control_client_open(const char *name, struct control_client **ret_client, struct error *err)
{
    char path[CONTROL_PATH_MAX];
    pid_t pid = 0;
    int r = control_socket_path(name, false, path, err);

    if (r < 0)
        return r;
    int fd = control_connect(path, &pid);
    for (int i = 0; fd == -EAGAIN && i < OPEN_TRIES; i++) {
        nanosleep(&(struct timespec){.tv_nsec = OPEN_WAIT_NS}, NULL);
        fd = control_connect(path, &pid);
    }
    if (fd == -ENOENT || fd == -ECONNREFUSED)
        return error_set(err, ENOENT, "no machine named '%s' is running", name);
    if (fd == -EAGAIN)
        return error_set(err, EAGAIN, "machine '%s' takes no connections: it is stuck or stopped",
                         name);
    if (fd < 0)
        return error_errno(err, -fd, "%s", path);

    struct control_client *c = calloc(1, sizeof(*c));
    if (!c) {
        close(fd);
        return error_set(err, ENOMEM, "control client: out of memory");
    }
    c->fd = fd;
    c->pid = pid;
    c->pid_fd = pid > 0 ? pidfd_open(pid, 0) : -1;
    memcpy(c->name, name, strlen(name) + 1);
    *ret_client = c;
    return 0;
}

void control_client_close(struct control_client *client)
{
    if (!client)
        return;
    if (client->pid_fd >= 0)
        close(client->pid_fd);
    if (client->fd >= 0)
        close(client->fd);
    free(client->in);
    free(client);
}

int control_client_fd(const struct control_client *client)
{
    return client->fd;
}

pid_t control_client_pid(const struct control_client *client)
{
    return client->pid;
}

static int ended(const struct control_client *c, struct error *err)
{
    return error_set(err, EPIPE, "machine '%s' ended meanwhile", c->name);
}

/* Wait for the events; 0 or -ETIMEDOUT. */
static int wait_until(const struct control_client *c, int fd, short events, uint64_t deadline_ns,
                      struct error *err)
{
    for (;;) {
        struct pollfd p = {.fd = fd, .events = events};
        uint64_t now = loop_now_ns();
        int left_ms = deadline_ns > now ? (int)((deadline_ns - now + 999999) / 1000000) : 0;
        int n = poll(&p, 1, left_ms);

        if (n > 0)
            return 0;
        if (n == 0)
            return error_set(err, ETIMEDOUT, "machine '%s' does not answer", c->name);
        if (errno != EINTR)
            return error_errno(err, errno, "poll");
    }
}

static int send_line(struct control_client *c, const char *line, uint64_t deadline_ns,
                     struct error *err)
{
    for (size_t at = 0, len = strlen(line); at < len;) {
        ssize_t n = send(c->fd, line + at, len - at, MSG_NOSIGNAL);

        if (n >= 0) {
            at += (size_t)n;
        } else if (errno == EAGAIN) {
            int r = wait_until(c, c->fd, POLLOUT, deadline_ns, err);
            if (r < 0)
                return r;
        } else if (errno != EINTR) {
            /* A server that refuses us says why before it hangs up: receive() will tell. */
            return errno == EPIPE || errno == ECONNRESET ? 0 : error_errno(err, errno, "control");
        }
    }
    return 0;
}

/* More bytes into c->in. */
static int receive(struct control_client *c, uint64_t deadline_ns, struct error *err)
{
    if (c->in_room - c->in_len < READ_BYTES) {
        size_t room = 2 * c->in_room + READ_BYTES;

        if (room > ANSWER_MAX_BYTES)
            return error_set(err, EPROTO, "machine '%s': the answer is too long", c->name);
        char *grown = realloc(c->in, room);
        if (!grown)
            return error_set(err, ENOMEM, "control client: out of memory");
        c->in = grown;
        c->in_room = room;
    }
    for (;;) {
        ssize_t n = recv(c->fd, c->in + c->in_len, c->in_room - c->in_len, 0);

        if (n > 0) {
            c->in_len += (size_t)n;
            return 0;
        }
        if (n == 0 || errno == ECONNRESET)
            return ended(c, err);
        if (errno == EINTR)
            continue;
        if (errno != EAGAIN)
            return error_errno(err, errno, "control");
        int r = wait_until(c, c->fd, POLLIN, deadline_ns, err);
        if (r < 0)
            return r;
    }
}

/* The next line, parsed; whatever came after it stays in c->in. */
static int receive_object(struct control_client *c, uint64_t deadline_ns, json_t **ret_object,
                          struct error *err)
{
    char *end;

    while (!(end = c->in_len ? memchr(c->in, '\n', c->in_len) : NULL)) {
        int r = receive(c, deadline_ns, err);
        if (r < 0)
            return r;
    }
    size_t len = (size_t)(end - c->in) + 1;
    json_t *object = json_loadb(c->in, len, 0, NULL);
    memmove(c->in, c->in + len, c->in_len - len);
    c->in_len -= len;
    if (!json_is_object(object)) {
        json_decref(object);
        return error_set(err, EPROTO, "machine '%s': its answer is not JSON-RPC", c->name);
    }
    *ret_object = object;
    return 0;
}

/* 1: it was ours. 0: it was not. Else the server's error. */
static int take_answer(struct control_client *c, json_t *object, json_t **ret_result,
                       struct error *err)
{
    json_t *id = json_object_get(object, "id");
    json_t *error = json_object_get(object, "error");
    const char *words = json_string_value(json_object_get(error, "message"));

    /* An error without an id is about the connection, and there is one call at a time. */
    if (error && (json_is_null(id) || json_integer_value(id) == c->last_id)) {
        json_int_t code =
            json_integer_value(json_object_get(json_object_get(error, "data"), "errno"));
        return error_set(err, code > 0 && code < 4096 ? (int)code : EREMOTEIO, "%s",
                         words ? words : "an error without words");
    }
    if (!json_is_integer(id) || json_integer_value(id) != c->last_id)
        return 0;
    if (ret_result)
        *ret_result = json_incref(json_object_get(object, "result"));
    return 1;
}

/* id 0: a notification. Takes params. */
static int send_request(struct control_client *c, const char *method, json_t *params, json_int_t id,
                        uint64_t deadline_ns, struct error *err)
{
    json_t *request = json_pack("{s:s, s:s}", "jsonrpc", "2.0", "method", method);
    char *line = NULL;
    int r = 0;

    if (request && id && json_object_set_new(request, "id", json_integer(id)) < 0)
        r = -ENOMEM;
    /* Takes params also when it fails. */
    if (params && json_object_set_new(request, "params", params) < 0)
        r = -ENOMEM;
    if (r == 0 && request)
        line = json_dumps(request, JSON_COMPACT);
    json_decref(request);
    if (!line)
        return error_set(err, ENOMEM, "control client: out of memory");
    r = send_line(c, line, deadline_ns, err);
    if (r == 0)
        r = send_line(c, "\n", deadline_ns, err);
    free(line);
    return r;
}

static uint64_t deadline_after(int timeout_ms)
{
    return loop_now_ns() + (uint64_t)timeout_ms * 1000000;
}

int control_client_call(struct control_client *client, const char *method, json_t *params,
                        int timeout_ms, json_t **ret_result, struct error *err)
{
    uint64_t deadline_ns = deadline_after(timeout_ms);
    int r = send_request(client, method, params, ++client->last_id, deadline_ns, err);

    while (r == 0) {
        json_t *object = NULL;

        r = receive_object(client, deadline_ns, &object, err);
        if (r == 0)
            r = take_answer(client, object, ret_result, err);
        json_decref(object);
    }
    return r < 0 ? r : 0;
}

int control_client_notify(struct control_client *client, const char *method, json_t *params,
                          int timeout_ms, struct error *err)
{
    return send_request(client, method, params, 0, deadline_after(timeout_ms), err);
}

int control_client_next_event(struct control_client *client, int timeout_ms, json_t **ret_event,
                              struct error *err)
{
    uint64_t deadline_ns = deadline_after(timeout_ms);

    for (;;) {
        json_t *object = NULL, *params;
        const char *method;
        int r = receive_object(client, deadline_ns, &object, err);

        if (r < 0)
            return r;
        method = json_string_value(json_object_get(object, "method"));
        params = json_object_get(object, "params");
        if (method && strcmp(method, "event") == 0 && json_is_object(params)) {
            *ret_event = json_incref(params);
            json_decref(object);
            return 0;
        }
        json_decref(object);
    }
}

size_t control_client_take_rest(struct control_client *client, const char **ret_data)
{
    size_t len = client->in_len;

    client->in_len = 0;
    *ret_data = client->in;
    return len;
}

int control_client_wait_gone(struct control_client *client, int timeout_ms, struct error *err)
{
    uint64_t deadline_ns = loop_now_ns() + (uint64_t)timeout_ms * 1000000;
    struct error last;
    int r = 0;

    if (client->pid_fd >= 0)
        return wait_until(client, client->pid_fd, POLLIN, deadline_ns, err);
    /* Its process is in a namespace that we do not see: the end of the connection must do. */
    while (r == 0) {
        client->in_len = 0;
        r = receive(client, deadline_ns, &last);
    }
    if (r == -EPIPE)
        return 0;
    *err = last;
    return r;
}
