/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMRUN_VSOCK_H
#define VMRUN_VSOCK_H

/*
 * The host's side of a guest's stream sockets: a Unix socket to which programs connect that look
 * for the guest, and the Unix sockets of programs that the guest looks for.
 *
 * Who connects to PATH says "CONNECT PORT\n", and hears "OK PORT\n" before anything else when the
 * guest's listener has accepted. The guest's connection to port P of the host goes to PATH_P.
 */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "vmrun/error.h"

struct vsock_host;

/*
 * Make the socket file PATH, of mode 0600, and listen. What is left of a dead process is removed.
 *
 * Errors: -EADDRINUSE  a process listens there, or another one is just looking
 *         -EEXIST      something else is in the way
 *         -ENAMETOOLONG PATH_P would be
 *         -ENOMEM, -EMFILE, -ENFILE; of open(2) for its folder, of bind(2)
 */
int vsock_host_open(const char *path, struct vsock_host **ret_host, struct error *err);
/* Removes the file, if it is ours still. Streams must be closed. NULL is fine. */
void vsock_host_close(struct vsock_host *host);

/*
 * What happened to the streams, by the tag of each; of the listener as long as it lasts (and is
 * wanted), of a stream once for each change: who is told that it is readable reads until -EAGAIN.
 */
#define VSOCK_LISTENER UINT64_MAX
struct vsock_event {
    uint64_t tag;
    bool readable, writable;
    bool hung_up; /* the peer takes nothing any more; there may be more to read */
};
int vsock_host_fd(const struct vsock_host *host); /* for the loop: readable when there are events */
unsigned vsock_host_wait(struct vsock_host *host, struct vsock_event *events, unsigned max);
void vsock_host_listen(struct vsock_host *host, bool on); /* others wait; on at first */

/*
 * A stream is a number, at least 0. All calls return at once; -errno. Any thread, one at a time.
 * accept: -EAGAIN, nobody waits (any more); -EMFILE, -ENFILE, -ENOMEM, somebody does.
 * dial: -ECONNREFUSED, -ENOENT, nobody listens at PATH_P; -EAGAIN, too many wait there already.
 */
int vsock_accept(struct vsock_host *host, uint64_t tag);
int vsock_dial(struct vsock_host *host, uint32_t port, uint64_t tag);
void vsock_close(int stream);
void vsock_shutdown(int stream, bool receive, bool send); /* no more from the peer, to it */
/* Bytes, or -EAGAIN, or another -errno; receive: 0 at the end. */
ssize_t vsock_send(int stream, const struct iovec *iov, unsigned count);
ssize_t vsock_receive(int stream, const struct iovec *iov, unsigned count);

/* The words that come first. Start it as {0}. */
struct vsock_greeting {
    unsigned len;
    char text[32];
};
/* 1, and the port; -EAGAIN, not all of it is here yet; -EPROTO, something else was said. */
int vsock_read_greeting(int stream, struct vsock_greeting *greeting, uint32_t *ret_port);
int vsock_answer_greeting(int stream, uint32_t port); /* 0 or -errno: then it is not answered */

#endif
