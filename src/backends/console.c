/* SPDX-License-Identifier: Apache-2.0 */
/*
 * console: one stream of output with many viewers, one queue of input.
 *
 * What the guest writes goes into the scrollback at once, on the vCPU's thread;
 * each viewer (the sink, every attached client) has a position in it and is
 * served by the loop. The slowest viewer holds the guest back, so that no byte
 * is lost. A viewer that may vanish without a word (a client, a
 * pseudo-terminal) and has taken nothing for STALL_NS holds it back no longer:
 * it is told later how much it missed.
 *
 * Lock order: a device's lock, then the console's. The loop never holds the
 * console's lock while it calls the device or reads input.
 */
#include "vmrun/console.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "input.h"
#include "scrollback.h"
#include "sink.h"
#include "viewer.h"
#include "vmrun/log.h"

#define STALL_NS (UINT64_C(3) * 1000000000)
#define FLUSH_MS 1000
#define INPUT_PIECE 4096

struct console {
    struct loop *loop;
    void (*quit)(void *opaque);
    void *opaque;
    struct sink sink;       /* its output is a viewer's */
    struct waiting in_wait; /* for sink.in_fd */
    bool in_always_ready;   /* a regular file or the like, which epoll refuses */

    int kick_fd; /* wakes the loop: something for service() */
    struct loop_watch *kick;
    struct loop_timer *stall_timer;

    pthread_mutex_t lock; /* guards all below */
    struct console_device device;
    struct scrollback out;
    struct viewer *viewers; /* the sink, if there is one, and the clients */
    struct input in;
    bool kicked;
    bool device_waits;  /* a console_write() was cut short */
    bool device_hungry; /* a console_read() was cut short */
    bool input_full;    /* sources wait for room */
};

/* Lock held. */
static void kick(struct console *c)
{
    uint64_t one = 1;

    if (c->kicked)
        return;
    c->kicked = true;
    if (write(c->kick_fd, &one, sizeof(one)) < 0)
        log_warn("console: cannot wake the loop: %s", strerror(errno));
}

/* The oldest position that a viewer still needs. Lock held. */
static uint64_t needed_from(const struct console *c)
{
    uint64_t least = c->out.head;

    for (const struct viewer *v = c->viewers; v; v = v->next)
        if (!v->stalled && !v->deaf && v->at < least)
            least = v->at;
    return least;
}

size_t console_write(struct console *c, const uint8_t *data, size_t len)
{
    pthread_mutex_lock(&c->lock);
    size_t taken = scrollback_append(&c->out, data, len, needed_from(c));
    if (taken < len)
        c->device_waits = true;
    if (c->viewers || taken < len)
        kick(c);
    pthread_mutex_unlock(&c->lock);
    return taken;
}

size_t console_read(struct console *c, uint8_t *data, size_t len)
{
    pthread_mutex_lock(&c->lock);
    size_t n = input_take(&c->in, data, len);
    if (n < len)
        c->device_hungry = true;
    if (c->input_full && c->in.len <= INPUT_ROOM / 2)
        kick(c);
    pthread_mutex_unlock(&c->lock);
    return n;
}

/*
 * Read at most what the queue has room for, which can only grow meanwhile:
 * nobody but the loop puts. Returns bytes, 0 at the end, or -errno: -ENOBUFS
 * when the queue is full, and service() then says when it is not any longer.
 */
static ssize_t source_read(struct console *c, int fd, uint8_t buf[INPUT_PIECE])
{
    pthread_mutex_lock(&c->lock);
    size_t room = input_room(&c->in);
    if (room == 0)
        c->input_full = true;
    pthread_mutex_unlock(&c->lock);

    if (room == 0)
        return -ENOBUFS;
    ssize_t n = read(fd, buf, room < INPUT_PIECE ? room : INPUT_PIECE);
    return n < 0 ? -errno : n;
}

static void close_input(struct console *c)
{
    loop_watch_destroy(c->in_wait.watch);
    c->in_wait.watch = NULL;
    c->in_always_ready = false;
}

/* Move input from the sink's own side into the queue. */
static void input_ready(void *opaque, uint32_t events)
{
    struct console *c = opaque;
    uint8_t buf[INPUT_PIECE];
    unsigned wishes = 0;

    (void)events;
    ssize_t n = source_read(c, c->sink.in_fd, buf);
    if (n == -ENOBUFS) {
        wait_for(&c->in_wait, 0);
        return;
    }
    if (n <= 0 && !viewer_is_passing(n)) {
        close_input(c);
        return;
    }

    pthread_mutex_lock(&c->lock);
    if (n > 0 && c->sink.in_is_terminal)
        wishes = input_put_keys(&c->in, buf, (size_t)n);
    else if (n > 0)
        input_put(&c->in, buf, (size_t)n);
    kick(c); /* service() tells the device, and reads on where nothing can be polled */
    pthread_mutex_unlock(&c->lock);

    if (wishes & INPUT_HELP && write(STDERR_FILENO, input_help, strlen(input_help)) < 0)
        log_debug("console: help could not be written");
    if (wishes & INPUT_QUIT && c->quit)
        c->quit(c->opaque);
}

static void viewer_destroy(struct viewer *v)
{
    struct console *c = v->console;

    pthread_mutex_lock(&c->lock);
    struct viewer **at = &c->viewers;
    while (*at != v)
        at = &(*at)->next;
    *at = v->next;
    pthread_mutex_unlock(&c->lock);
    loop_watch_destroy(v->wait.watch);
    output_fini(&v->out);
    free(v->pending);
    free(v);
}

static void service(struct console *c);

static void sink_ready(void *opaque, uint32_t events)
{
    struct viewer *v = opaque;
    struct console *c = v->console;

    if (events & (EPOLLERR | EPOLLHUP)) {
        log_warn("console: %s: output is gone; the machine runs on", c->sink.description);
        viewer_destroy(v);
    }
    service(c);
}

/* Serve every viewer; returns a sink that has gone, or NULL. Lock held. */
static struct viewer *flush_all(struct console *c, uint64_t now)
{
    for (struct viewer *v = c->viewers; v; v = v->next) {
        int r = v->deaf ? 0 : viewer_flush(v, &c->out, c->loop, now);

        if (r < 0 && !v->is_client) {
            log_warn("console: %s: output is gone: %s; the machine runs on", c->sink.description,
                     strerror(-r));
            return v;
        }
        if (r < 0) {
            v->deaf = true;
            wait_for(&v->wait, v->wait.events & EPOLLIN);
        }
    }
    return NULL;
}

/* Whom the guest need not wait for any longer. Lock held. */
static void find_stalled(struct console *c, uint64_t now)
{
    uint64_t next = 0;

    for (struct viewer *v = c->viewers; v; v = v->next) {
        if (!v->may_stall || v->stalled || !v->behind || v->deaf)
            continue;
        if (now - v->progress_ns >= STALL_NS)
            v->stalled = true;
        else if (!next || v->progress_ns + STALL_NS < next)
            next = v->progress_ns + STALL_NS;
    }
    if (next && c->device_waits)
        loop_timer_arm(c->stall_timer, next);
}

/* Move what a client had sent before it was ours. Lock held. Returns whether all found room. */
static bool take_pending(struct viewer *v)
{
    struct input *in = &v->console->in;
    size_t n = v->pending_len < input_room(in) ? v->pending_len : input_room(in);

    if (n == 0)
        return v->pending_len == 0;
    input_put(in, v->pending, n);
    v->pending_len -= n;
    memmove(v->pending, v->pending + n, v->pending_len);
    return v->pending_len == 0;
}

/* Let sources go on that had to wait for room in the input queue. Lock held. */
static void reopen_input(struct console *c)
{
    if (!c->input_full || c->in.len > INPUT_ROOM / 2)
        return;
    c->input_full = false;
    wait_for(&c->in_wait, EPOLLIN);
    for (struct viewer *v = c->viewers; v; v = v->next) {
        if (!v->is_client)
            continue;
        if (take_pending(v))
            wait_for(&v->wait, v->wait.events | EPOLLIN);
        else
            c->input_full = true;
    }
}

static void call_device(const struct console_device *device, void (*fn)(void *opaque))
{
    if (!fn)
        return;
    pthread_mutex_lock(device->lock);
    fn(device->opaque);
    pthread_mutex_unlock(device->lock);
}

/* Everything that is to be done on the loop: viewers, then the device, then more input. */
static void service(struct console *c)
{
    uint64_t now = loop_now_ns();
    struct viewer *gone;

    pthread_mutex_lock(&c->lock);
    c->kicked = false;
    while ((gone = flush_all(c, now)) != NULL) {
        pthread_mutex_unlock(&c->lock);
        viewer_destroy(gone);
        pthread_mutex_lock(&c->lock);
    }
    find_stalled(c, now);
    reopen_input(c);
    struct console_device device = c->device;
    bool writable = c->device_waits && c->out.head - needed_from(c) < c->out.limit;
    bool readable = c->device_hungry && c->in.len;
    if (writable)
        c->device_waits = false;
    if (readable)
        c->device_hungry = false;
    bool more_input = c->in_always_ready && !c->input_full;
    pthread_mutex_unlock(&c->lock);

    if (writable)
        call_device(&device, device.writable);
    if (readable)
        call_device(&device, device.readable);
    if (more_input)
        input_ready(c, 0);
}

static void kicked(void *opaque, uint32_t events)
{
    struct console *c = opaque;
    uint64_t count;

    (void)events;
    if (read(c->kick_fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
        log_warn("console: %s", strerror(errno));
    service(c);
}

static void stall_expired(void *opaque)
{
    service(opaque);
}

static void client_ready(void *opaque, uint32_t events)
{
    struct viewer *v = opaque;
    struct console *c = v->console;
    uint8_t buf[INPUT_PIECE];

    /* What it sent before it hung up is still input: it is gone when that is read. */
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR) && v->pending_len == 0) {
        ssize_t n = source_read(c, v->out.fd, buf);

        if (n == -ENOBUFS) {
            wait_for(&v->wait, v->wait.events & EPOLLOUT);
        } else if (n > 0) {
            pthread_mutex_lock(&c->lock);
            input_put(&c->in, buf, (size_t)n);
            pthread_mutex_unlock(&c->lock);
        } else if (!viewer_is_passing(n)) {
            viewer_destroy(v);
        }
    }
    service(c);
}

/* A new viewer at the front of the list, which begins with the oldest output there is. */
static struct viewer *viewer_add(struct console *c, const struct output *out)
{
    struct viewer *v = calloc(1, sizeof(*v));

    if (!v)
        return NULL;
    v->console = c;
    v->out = *out;
    v->ready = sink_ready;
    pthread_mutex_lock(&c->lock);
    v->at = scrollback_tail(&c->out);
    v->next = c->viewers;
    c->viewers = v;
    pthread_mutex_unlock(&c->lock);
    return v;
}

int console_attach(struct console *c, int fd, const void *pending, size_t pending_len,
                   struct error *err)
{
    int flags = fcntl(fd, F_GETFL);
    int r = -ENOMEM;

    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
        return error_errno(err, errno, "console client");
    struct output out = {.fd = fd, .socket = true};
    struct viewer *v = viewer_add(c, &out);
    if (!v || (pending_len && !(v->pending = malloc(pending_len)))) {
        error_set(err, ENOMEM, "console client: out of memory");
        goto fail;
    }
    v->may_stall = v->is_client = true;
    r = loop_watch_create(c->loop, fd, WAIT_NOTHING, NULL, client_ready, v, &v->wait.watch, err);
    if (r < 0)
        goto fail;
    v->out.owned = true;
    if (pending_len)
        memcpy(v->pending, pending, pending_len);
    v->pending_len = pending_len;

    pthread_mutex_lock(&c->lock);
    if (take_pending(v))
        wait_for(&v->wait, EPOLLIN);
    else
        c->input_full = true;
    pthread_mutex_unlock(&c->lock);
    service(c);
    return 0;

fail:
    if (v)
        viewer_destroy(v); /* the caller keeps fd: it was not taken over */
    return r;
}

static int start_input(struct console *c, struct error *err)
{
    struct error cause;
    struct stat st;

    if (c->sink.in_fd < 0)
        return 0;
    c->in_wait.events = EPOLLIN;
    int r = loop_watch_create(c->loop, c->sink.in_fd, EPOLLIN, NULL, input_ready, c,
                              &c->in_wait.watch, &cause);
    if (r < 0 && r != -EPERM)
        *err = cause;
    if (r != -EPERM)
        return r;
    /* epoll refuses regular files and the likes of /dev/null, which are always ready anyway. */
    c->in_always_ready =
        fstat(c->sink.in_fd, &st) == 0 && (S_ISREG(st.st_mode) || S_ISCHR(st.st_mode));
    pthread_mutex_lock(&c->lock);
    kick(c);
    pthread_mutex_unlock(&c->lock);
    return 0;
}

static int start_output(struct console *c, bool may_stall, struct error *err)
{
    if (c->sink.out.fd < 0)
        return 0;
    struct viewer *v = viewer_add(c, &c->sink.out);
    if (!v) {
        output_fini(&c->sink.out);
        return error_set(err, ENOMEM, "console: out of memory");
    }
    v->may_stall = may_stall;
    return 0;
}

int console_create(const struct console_params *params, struct loop *loop,
                   struct console **ret_console, struct error *err)
{
    struct console *c = calloc(1, sizeof(*c));
    int r;

    if (!c)
        return error_set(err, ENOMEM, "console: out of memory");
    *c = (struct console){.loop = loop, .quit = params->quit, .opaque = params->opaque};
    c->sink.in_fd = c->sink.pty_slave = -1;
    c->out.limit = CONSOLE_SCROLLBACK_BYTES;
    c->device_hungry = true;
    pthread_mutex_init(&c->lock, NULL);

    c->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (c->kick_fd < 0) {
        r = error_errno(err, errno, "console");
        goto fail;
    }
    r = loop_watch_create(loop, c->kick_fd, EPOLLIN, NULL, kicked, c, &c->kick, err);
    if (r == 0)
        r = loop_timer_create(loop, NULL, stall_expired, c, &c->stall_timer, err);
    if (r == 0)
        r = sink_open(&c->sink, params, err);
    if (r == 0)
        r = start_output(c, params->kind == CONSOLE_PTY, err);
    if (r == 0)
        r = start_input(c, err);
    if (r < 0)
        goto fail;
    *ret_console = c;
    return 0;

fail:
    console_destroy(c);
    return r;
}

/* The last words of the guest: give viewers a moment to take them. */
static void drain(struct console *c)
{
    uint64_t deadline = loop_now_ns() + FLUSH_MS * UINT64_C(1000000);

    for (uint64_t now = loop_now_ns(); now < deadline; now = loop_now_ns()) {
        struct pollfd poll_fd = {.fd = -1, .events = POLLOUT};

        service(c);
        for (struct viewer *v = c->viewers; v; v = v->next)
            if (!v->stalled && !v->deaf && v->at < c->out.head)
                poll_fd.fd = v->out.fd;
        if (poll_fd.fd < 0)
            return;
        (void)poll(&poll_fd, 1, 10);
    }
}

void console_destroy(struct console *c)
{
    if (!c)
        return;
    close_input(c);
    pthread_mutex_lock(&c->lock);
    c->device = (struct console_device){0};
    c->device_waits = c->device_hungry = false;
    pthread_mutex_unlock(&c->lock);
    drain(c);
    for (struct viewer *v = c->viewers, *next; v; v = next) {
        next = v->next;
        viewer_destroy(v);
    }
    sink_close(&c->sink);
    loop_timer_destroy(c->stall_timer);
    loop_watch_destroy(c->kick);
    if (c->kick_fd >= 0)
        close(c->kick_fd);
    scrollback_fini(&c->out);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

void console_restore_terminal(void)
{
    terminal_restore();
}

int console_take_terminal(struct console *c, struct error *err)
{
    return sink_take_terminal(&c->sink, err);
}

const char *console_describe(const struct console *console)
{
    return console->sink.description;
}

void console_set_device(struct console *c, const struct console_device *device)
{
    pthread_mutex_lock(&c->lock);
    c->device = *device;
    kick(c); /* input may be there already */
    pthread_mutex_unlock(&c->lock);
}

void console_scrollback_get(struct console *c, uint64_t *from, struct writer *w)
{
    uint64_t at;
    size_t len;

    pthread_mutex_lock(&c->lock);
    at = scrollback_tail(&c->out);
    for (at = at > *from ? at : *from; at < c->out.head; at += len) {
        const uint8_t *data = scrollback_peek(&c->out, at, &len);

        put_bytes(w, data, len);
    }
    *from = c->out.head;
    pthread_mutex_unlock(&c->lock);
}

void console_scrollback_put(struct console *c, const void *data, size_t len)
{
    const uint8_t *bytes = data;

    pthread_mutex_lock(&c->lock);
    if (len > c->out.limit) {
        bytes += len - c->out.limit;
        len = c->out.limit;
    }
    (void)scrollback_append(&c->out, bytes, len, UINT64_MAX);
    for (struct viewer *v = c->viewers; v; v = v->next)
        v->at = c->out.head;
    pthread_mutex_unlock(&c->lock);
}
