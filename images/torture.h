/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TORTURE_H
#define TORTURE_H

/* What torture's files share. */

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#define PORT 7007

/* Counted by all threads, printed by main. */
struct torture_done {
    uint64_t pages, lent, blocks, sent, received, echoes, lost, ticks, late, missed, gap_ns;
    uint64_t heard, open, resets; /* of stream sockets */
    uint64_t errors;
};
extern struct torture_done done;

void count(uint64_t *what, uint64_t by);
uint64_t value(const uint64_t *what);
__attribute__((format(printf, 1, 2))) void wrong(const char *fmt, ...);
__attribute__((noreturn)) void give_up(const char *what); /* and say why, by errno */
void start(void *(*fn)(void *), void *opaque);            /* a thread */

uint64_t now_ns(clockid_t clock);
uint64_t mix(uint64_t x);

/* One byte of the stream that begins with these eight; the others follow from them. */
uint8_t stream_byte(uint64_t first, uint64_t at);
/* An ear begins as {0}. Whether it heard nothing for too long, while this machine ran. */
struct ear {
    uint64_t heard, looked;
};
bool ear_is_idle(struct ear *ear, bool heard);

void start_network(const char *peer);
__attribute__((noreturn)) void echo(void);
void start_sockets(void);
__attribute__((noreturn)) void answer(const char *path);
void start_clocks(void);

#endif
