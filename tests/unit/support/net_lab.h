/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NET_LAB_H
#define NET_LAB_H

/*
 * A network of one's own: a fresh network namespace for the test's process, with
 * taps, bridges, and a peer that sees a tap's frames as the host would.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NET_LAB_TYPE 0x88b5 /* EtherType for local experiments: the host's own stack has none */

/* NULL, or why there can be none here (then the tests are to be skipped). Once, before threads. */
const char *net_lab_enter(void);

/* In it there is one user only, since an ordinary one made it. */
bool net_lab_has_one_user(void);

/* `ip tuntap add dev NAME mode tap [multi_queue]`, for any user or for this one. */
void net_lab_add_tap(const char *name, bool multi_queue, int owner);
void net_lab_add_bridge(const char *name);
void net_lab_join(const char *bridge, const char *name);
void net_lab_up(const char *name, bool up);
void net_lab_remove_tap(const char *name); /* one that nobody uses */

void net_lab_delete(const char *name); /* any, used or not */

struct net_lab_link {
    bool there, up;
    unsigned mtu;
};
struct net_lab_link net_lab_look(const char *name);
bool net_lab_is_port(const char *bridge, const char *name);

/* Do without CAP_NET_ADMIN (false), as an ordinary user does, or have it again. */
void net_lab_privilege(bool on);

/*
 * A packet socket on the host's side of a tap, for frames of NET_LAB_TYPE; with vnet_hdr for IPv4,
 * and ten bytes of virtio header stand before each frame.
 */
int net_lab_peer(const char *name, bool vnet_hdr);
/* The same for frames of another type. */
int net_lab_listen(const char *name, uint16_t type);
/* The next frame that came out of the tap; 0: none in time. */
size_t net_lab_take(int peer, void *frame, size_t len, int timeout_ms);
void net_lab_give(int peer, const void *frame, size_t len);

/* A frame of NET_LAB_TYPE from 02:00:00:00:00:99: 14 bytes and a pattern that starts with seed. */
void net_lab_frame(uint8_t *frame, size_t len, const uint8_t to[6], uint8_t seed);

#endif
