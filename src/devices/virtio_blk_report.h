/* SPDX-License-Identifier: Apache-2.0 */
/* What the operator hears of a disk: counters, errors as log lines and events, what keeps it busy.
 */
#ifndef DEVICES_VIRTIO_BLK_REPORT_H
#define DEVICES_VIRTIO_BLK_REPORT_H

#include "vmrun/log.h"
#include "vmrun/virtio_devices.h"

struct blk_report {
    const char *id; /* of the device: "disk root" */
    void (*io_error)(void *opaque, const struct virtio_blk_error *error); /* or NULL */
    void *io_error_opaque;
    struct log_limit complaints;
    struct virtio_blk_stats stats;
};

/* A request of the guest's is done, result as for block_request.done. Device's lock held. */
void blk_report_done(struct blk_report *report, const struct block_request *io, int result);
/* Why a disk is not settled: r, and how many requests are in flight. Returns r. */
int blk_report_unsettled(const char *id, int r, unsigned in_flight, struct error *err);
/* Any thread; takes no lock. */
void blk_report_stats(const struct blk_report *report, struct virtio_blk_stats *ret_stats);

#endif
