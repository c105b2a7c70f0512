/* SPDX-License-Identifier: Apache-2.0 */
/* vmrun snapshot verify: every byte, by as many threads as there are CPUs. */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "snapshot.h"

#define MOST_THREADS 16u
#define MOST_TOLD 16u /* damaged chunks that are named */
#define BAR_NS 100000000

struct inspection {
    const struct snapfile *file;
    pthread_mutex_t lock; /* of all that follows */
    pthread_cond_t finished;
    uint64_t next, done, bad;
    unsigned threads;
    struct error first;
    uint64_t bad_chunks[MOST_TOLD];
};

static void *inspect(void *opaque)
{
    struct inspection *in = opaque;

    pthread_mutex_lock(&in->lock);
    while (in->next < snapfile_chunks(in->file)) {
        uint64_t chunk = in->next++;
        struct error err;

        pthread_mutex_unlock(&in->lock);
        int r = snapfile_verify_chunk(in->file, chunk, NULL, &err);
        pthread_mutex_lock(&in->lock);
        in->done++;
        if (r < 0 && in->bad < MOST_TOLD)
            in->bad_chunks[in->bad] = chunk;
        if (r < 0 && in->bad++ == 0)
            in->first = err;
    }
    in->threads--;
    pthread_cond_signal(&in->finished);
    pthread_mutex_unlock(&in->lock);
    return NULL;
}

/* With the lock. */
static void wait_and_draw(struct inspection *in)
{
    uint64_t all = snapfile_chunks(in->file);
    struct snapshot_bar bar = snapshot_bar("verify");

    while (in->threads > 0) {
        struct timespec until;

        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += BAR_NS;
        if (until.tv_nsec >= 1000000000) {
            until.tv_nsec -= 1000000000;
            until.tv_sec++;
        }
        if (pthread_cond_timedwait(&in->finished, &in->lock, &until) == ETIMEDOUT)
            snapshot_bar_draw(&bar, in->done, all);
    }
    snapshot_bar_clear(&bar);
}

static unsigned threads_wanted(uint64_t chunks)
{
    cpu_set_t set;
    unsigned cpus = sched_getaffinity(0, sizeof(set), &set) == 0 ? (unsigned)CPU_COUNT(&set) : 1;

    cpus = cpus < MOST_THREADS ? cpus : MOST_THREADS;
    return cpus < chunks ? cpus : (unsigned)chunks;
}

static void inspect_ram(struct inspection *in)
{
    pthread_t threads[MOST_THREADS];
    unsigned wanted = threads_wanted(snapfile_chunks(in->file)), started = 0;

    pthread_mutex_lock(&in->lock);
    while (started < wanted && pthread_create(&threads[started], NULL, inspect, in) == 0)
        started++;
    in->threads = started;
    wait_and_draw(in);
    pthread_mutex_unlock(&in->lock);
    for (unsigned i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    if (started == 0) {
        in->threads = 1;
        inspect(in);
    }
}

/* What checksums do not see: that there is a machine in it. */
static int check_contents(const struct snapfile *file, const char *path, size_t *ret_fields,
                          struct error *err)
{
    struct snapshot_fields fields;
    json_t *machine;
    int r = snapshot_load_json(file, path, "machine", &machine, err);

    if (r < 0)
        return r;
    json_decref(machine);
    r = snapshot_read_fields(file, path, &fields, err);
    if (r < 0)
        return r;
    *ret_fields = fields.count;
    snapshot_fields_fini(&fields);
    return 0;
}

static void print_damage_json(const char *path, const struct inspection *in)
{
    json_t *damage = json_array();

    for (uint64_t i = 0; i < in->bad && i < MOST_TOLD; i++) {
        uint64_t gpa, bytes;

        snapfile_chunk_range(in->file, in->bad_chunks[i], &gpa, &bytes);
        json_array_append_new(damage, json_pack("{s:I, s:I}", "address", (json_int_t)gpa, "bytes",
                                                (json_int_t)bytes));
    }
    cli_print_json(json_pack("{s:o, s:b, s:I, s:I, s:o}", "file", snapshot_path(path), "whole",
                             in->bad == 0, "chunks", (json_int_t)in->done, "bad_chunks",
                             (json_int_t)in->bad, "damage", damage));
}

static void print_damage(const struct inspection *in)
{
    for (uint64_t i = 0; i < in->bad && i < MOST_TOLD; i++) {
        uint64_t gpa, bytes;

        snapfile_chunk_range(in->file, in->bad_chunks[i], &gpa, &bytes);
        printf("damaged    RAM 0x%09" PRIx64 " to 0x%09" PRIx64 "\n", gpa, gpa + bytes - 1);
    }
    if (in->bad > MOST_TOLD)
        printf("damaged    and %" PRIu64 " chunks more\n", in->bad - MOST_TOLD);
}

static void print_whole(const struct snapfile *file, const char *path, uint64_t chunks,
                        size_t fields)
{
    unsigned others = 0;

    for (const struct snapfile *at = file; (at = snapfile_base(at));)
        others++;
    printf("%s is whole: %zu fields of state, %" PRIu64 " chunks of RAM, %.1f MiB of data", path,
           fields, chunks, (double)snapfile_data_bytes(file) / (1 << 20));
    if (others)
        printf("; so %s that it builds on", others == 1 ? "is the file" : "are all");
    putchar('\n');
}

static int verify(const struct snapfile *file, const char *path, bool json, struct error *err)
{
    struct inspection in = {.file = file};
    size_t fields;

    if (check_contents(file, path, &fields, err) < 0)
        return CLI_FAILED;
    pthread_mutex_init(&in.lock, NULL);
    pthread_cond_init(&in.finished, NULL);
    inspect_ram(&in);
    pthread_cond_destroy(&in.finished);
    pthread_mutex_destroy(&in.lock);
    if (json)
        print_damage_json(path, &in);
    else if (in.bad == 0)
        print_whole(file, path, in.done, fields);
    else
        print_damage(&in);
    if (in.bad == 0)
        return CLI_OK;
    *err = in.first;
    if (in.bad > 1)
        error_set(err, EPROTO, "%s: %" PRIu64 " of %" PRIu64 " chunks of RAM are damaged", path,
                  in.bad, in.done);
    return CLI_FAILED;
}

int snapshot_verify(const char *path, bool json, struct error *err)
{
    struct snapfile *file;
    int status;

    if (snapfile_open(path, &file, err) < 0)
        return CLI_FAILED;
    status = verify(file, path, json, err);
    snapfile_close(file);
    return status;
}
