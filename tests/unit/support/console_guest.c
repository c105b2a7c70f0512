/* SPDX-License-Identifier: Apache-2.0 */
/* console_guest: what a serial port would do, without the serial port. */
#include "console_guest.h"

#include <string.h>
#include <time.h>

#define FIFO 16

uint8_t console_guest_byte(uint64_t at)
{
    return (uint8_t)(at * 167 + at / 251 + at / 65536);
}

static void writable(void *opaque)
{
    struct console_guest *g = opaque;

    g->may_write = true;
    pthread_cond_signal(&g->wake);
}

static void readable(void *opaque)
{
    struct console_guest *g = opaque;

    g->may_read = true;
    pthread_cond_signal(&g->wake);
}

void console_guest_init(struct console_guest *g, struct console *console)
{
    memset(g, 0, sizeof(*g));
    g->console = console;
    pthread_mutex_init(&g->lock, NULL);
    pthread_cond_init(&g->wake, NULL);
    console_set_device(
        console, &(struct console_device){
                     .writable = writable, .readable = readable, .opaque = g, .lock = &g->lock});
}

/* Lock held. */
static bool wait_until(struct console_guest *g, const bool *flag, unsigned wait_ms)
{
    struct timespec deadline;

    clock_gettime(CLOCK_REALTIME, &deadline);
    deadline.tv_sec += wait_ms / 1000;
    deadline.tv_nsec += wait_ms % 1000 * 1000000L;
    if (deadline.tv_nsec >= 1000000000) {
        deadline.tv_sec++;
        deadline.tv_nsec -= 1000000000;
    }
    while (!*flag)
        if (pthread_cond_timedwait(&g->wake, &g->lock, &deadline) != 0)
            break;
    return *flag;
}

bool console_guest_send(struct console_guest *g, size_t len)
{
    uint8_t piece[4096];
    bool alive = true;

    pthread_mutex_lock(&g->lock);
    while (len && alive) {
        size_t want = len < sizeof(piece) ? len : sizeof(piece);
        size_t sent = atomic_load(&g->sent);

        for (size_t i = 0; i < want; i++)
            piece[i] = console_guest_byte(sent + i);
        g->may_write = false;
        size_t n = console_write(g->console, piece, want);
        atomic_store(&g->sent, sent + n);
        len -= n;
        if (n < want)
            alive = wait_until(g, &g->may_write, 20000);
    }
    pthread_mutex_unlock(&g->lock);
    return alive;
}

size_t console_guest_receive(struct console_guest *g, uint8_t *data, size_t len, unsigned wait_ms)
{
    size_t got = 0;
    bool alive = true;

    pthread_mutex_lock(&g->lock);
    while (got < len && alive) {
        size_t want = len - got < FIFO ? len - got : FIFO;

        g->may_read = false;
        size_t n = console_read(g->console, data + got, want);
        got += n;
        if (n < want)
            alive = wait_until(g, &g->may_read, wait_ms);
    }
    pthread_mutex_unlock(&g->lock);
    return got;
}
