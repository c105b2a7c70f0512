/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_BENCH_H
#define CONTROL_BENCH_H

/*
 * A control server before a fake machine, on a thread of its own as in real life,
 * in a folder of its own. The test's thread is its clients. Functions that meet
 * what they did not expect fail the test.
 */

#include <pthread.h>
#include <stdatomic.h>

#include "vmrun/control.h"

#define CONTROL_BENCH_TIMEOUT_MS 20000
#define CONTROL_BENCH_STATUS "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"vm.status\"}\n"

/*
 * It pauses, resumes and ends as told; a reset fails with words that are no UTF-8.
 * Its console says "scrollback" and hangs up.
 */
struct machine {
    struct vm_config config;
    enum machine_state state;
    machine_listener *listener;
    void *opaque;
    atomic_uint refreshes;  /* of disks */
    atomic_int balloon;     /* what it was set to */
    atomic_int link;        /* of its card, net0 */
    char attached_with[64]; /* what was pending at console_attach() */
};

/* It refuses /full. A save that stops is done at once, any other goes on until it is cancelled. */
struct migration {
    struct machine *machine;
    const struct migration_listener *listener;
    void *opaque;
    bool under_way;
    char path[64]; /* of the last save */
    char base[64];
    bool replace, stop, track, compress;
};

struct control_bench {
    char dir[64];
    struct loop *loop;
    struct control_name *name; /* "web1" */
    struct control_server *server;
    struct machine machine;
    struct migration migration;
    pthread_t thread;
    atomic_uint posted; /* for the test */
};

/* For cmocka: *state is the bench. Teardown fails when a file was left in the folder. */
int control_bench_setup(void **state);
int control_bench_teardown(void **state);

/* A connection of raw bytes. */
int control_bench_dial(const struct control_bench *bench);
void control_bench_say(int fd, const char *text);
/* The next line without its newline, valid until the next call; "" at the end of the stream. */
const char *control_bench_hear(int fd);

/* The line is an error with this code, and has these words in it. */
void control_bench_expect_error(const char *line, int code, const char *words);
/* A new client is served. */
void control_bench_expect_service(const struct control_bench *bench);

#endif
