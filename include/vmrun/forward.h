/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMRUN_FORWARD_H
#define VMRUN_FORWARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

/* A port of the host that leads to one of the guest: "tcp:8080:80", "udp:127.0.0.1:53:53". */

#define FORWARD_ADDRESS_BYTES 46 /* of IPv6, and a NUL */

struct forward {
    bool udp, ipv6;
    char address[FORWARD_ADDRESS_BYTES]; /* of the host; "": all that it has */
    uint16_t host_port, guest_port;
};

/*
 * PROTOCOL:[ADDRESS:]HOSTPORT:GUESTPORT; an address of IPv6 in brackets. Errors: -EINVAL, not of
 * that form; -ERANGE, a port that is not 1 to 65535.
 */
int forward_parse(const char *text, size_t len, struct forward *ret_forward);

/*
 * The next word of a list with blanks between: its length at *text, which is moved to where it
 * begins; 0: there is none.
 */
size_t forward_next(const char **text);

/* Whether both ask for the same port of the host. */
bool forward_clashes(const struct forward *a, const struct forward *b);

#endif
