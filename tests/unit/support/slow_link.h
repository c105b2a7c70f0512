/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SLOW_LINK_H
#define SLOW_LINK_H

/* Between one who connects and one who listens, both on loopback: a link that carries so many bytes
 * a second one way, and holds no more than some kilobytes. For one connection. */
#include <pthread.h>
#include <stdint.h>

struct slow_link {
    char url[32]; /* where to connect to */
    int listener, port;
    uint64_t bytes_per_s;
    pthread_t thread;
};

/* url: "tcp://127.0.0.1:PORT". */
void slow_link_start(struct slow_link *link, const char *url, uint64_t bytes_per_s);
/* When both ends have hung up. */
void slow_link_join(struct slow_link *link);

#endif
