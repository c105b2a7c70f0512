/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BLOCK_BENCH_H
#define BLOCK_BENCH_H

/*
 * An image in the working folder (folder.h), a block on it, and a loop that runs in
 * bench_finish() and nowhere else. What goes wrong fails the running test.
 */

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "vmrun/block.h"

#define IMAGE "disk.img"
#define MIB ((uint64_t)1 << 20)

struct bench {
    struct loop *loop;
    pthread_mutex_t lock;
    struct block *block;
    struct block_params params;
    unsigned done, batches, waiting_for;
    /* What the fault function does, to whom, and how often it was asked. */
    int fault;
    bool of_one_op;
    enum block_op faulty_op;
    uint64_t delay_ns;
    unsigned asked;
};

struct job {
    struct block_request request;
    struct bench *bench;
    int result; /* 1: not done yet */
    struct iovec iov[4];
    uint8_t *data;
};

/* A sparse image of so many bytes. */
void make_image(const char *path, uint64_t bytes);
void read_image(uint8_t *data, uint64_t offset, uint64_t bytes);

/* Everything but the image and block_open(); then both. Close works after either. */
void bench_prepare(struct bench *b, enum block_cache cache);
void bench_open(struct bench *b, enum block_cache cache, uint64_t bytes);
void bench_close(struct bench *b);

/* A request on job->data. */
void job_set(struct job *job, enum block_op op, uint64_t offset, uint64_t bytes);
void bench_queue(struct bench *b, struct job *job);
/* Submit what is queued, and run the loop until `count` jobs more than `before` are done. */
void bench_finish(struct bench *b, unsigned before, unsigned count);
/* Queue and finish. Returns the result. */
int bench_perform(struct bench *b, struct job *job);

/* Aligned memory with a page more than asked for; free() it. */
uint8_t *buffer_create(uint64_t bytes);
/* Bytes that are never 0, different for each seed and sector. */
void buffer_fill(uint8_t *data, uint64_t bytes, unsigned seed);

#endif
