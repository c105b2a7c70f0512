/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio_blk_report: a disk's counters, and its errors as log lines and events.
 *
 * The one thing to know: a guest can cause errors as fast as it can ask, so only one in a while
 * is told, with the number of those before it that were not; the counter has them all.
 */
#include "virtio_blk_report.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static void count(struct virtio_blk_stats *stats, const struct block_request *io)
{
    switch (io->op) {
    case BLOCK_READ:
        counter_add(&stats->reads, 1);
        counter_add(&stats->read_bytes, io->bytes);
        break;
    case BLOCK_WRITE:
        counter_add(&stats->writes, 1);
        counter_add(&stats->written_bytes, io->bytes);
        break;
    case BLOCK_FLUSH: counter_add(&stats->flushes, 1); break;
    case BLOCK_DISCARD: counter_add(&stats->discards, 1); break;
    case BLOCK_WRITE_ZEROES: counter_add(&stats->zeroings, 1); break;
    }
}

static void tell(struct blk_report *report, const struct block_request *io, int result)
{
    static const char *const words[] = {
        [BLOCK_READ] = "read",
        [BLOCK_WRITE] = "write",
        [BLOCK_FLUSH] = "flush",
        [BLOCK_DISCARD] = "discard",
        [BLOCK_WRITE_ZEROES] = "write of zeros",
    };
    struct virtio_blk_error error = {
        .op = io->op,
        .offset = io->offset,
        .bytes = io->bytes,
        .code = -result,
        .left_out = report->complaints.left_out,
    };

    if (io->op == BLOCK_FLUSH)
        snprintf(error.words, sizeof(error.words), "flush failed: %s", strerror(error.code));
    else
        snprintf(error.words, sizeof(error.words), "%s of %llu bytes at %llu failed: %s",
                 words[io->op], (unsigned long long)io->bytes, (unsigned long long)io->offset,
                 strerror(error.code));
    if (log_warn_limited(&report->complaints, "%s: %s", report->id, error.words) &&
        report->io_error)
        report->io_error(report->io_error_opaque, &error);
}

void blk_report_done(struct blk_report *report, const struct block_request *io, int result)
{
    if (result == 0) {
        count(&report->stats, io);
        return;
    }
    counter_add(&report->stats.errors, 1);
    tell(report, io, result);
}

void blk_report_stats(const struct blk_report *report, struct virtio_blk_stats *ret_stats)
{
    const struct virtio_blk_stats *stats = &report->stats;

    *ret_stats = (struct virtio_blk_stats){
        .reads = counter_read(&stats->reads),
        .read_bytes = counter_read(&stats->read_bytes),
        .writes = counter_read(&stats->writes),
        .written_bytes = counter_read(&stats->written_bytes),
        .flushes = counter_read(&stats->flushes),
        .discards = counter_read(&stats->discards),
        .zeroings = counter_read(&stats->zeroings),
        .errors = counter_read(&stats->errors),
    };
}

int blk_report_unsettled(const char *id, int r, unsigned in_flight, struct error *err)
{
    if (r != -ETIMEDOUT)
        return error_errno(err, -r, "%s: what was written may not be durable", id);
    return error_set(err, ETIMEDOUT, "%s: %u request%s in flight that the host does not answer", id,
                     in_flight, in_flight == 1 ? "" : "s");
}
