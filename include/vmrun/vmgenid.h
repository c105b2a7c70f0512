/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMRUN_VMGENID_H
#define VMRUN_VMGENID_H

/*
 * VM Generation ID: 16 random bytes that change whenever the guest goes on from a snapshot, so
 * that it knows that somebody else may have the same memory: Linux reseeds its random numbers.
 *
 * Source: "Virtual Machine Generation ID" (Microsoft). The bytes are the device's own memory, a
 * page that the guest reads and cannot change; the tables say where (acpi.h) and which event
 * tells of a change.
 */

#include "vmrun/device.h"

#define VMGENID_BYTES 16
#define VMGENID_PAGE 4096u /* the ID lies at its beginning; the rest reads as zero */

struct vmgenid_params {
    uint64_t gpa; /* of the page; below 4 GiB */
    /* The ID has changed: tell the guest. On the thread and with the lock of vmgenid_change(). */
    void (*changed)(void *opaque);
    void *opaque;
};

/*
 * It has a new ID from the beginning, and keeps it over resets. Machine thread. Errors: -ENOMEM;
 * -EEXIST, the page is taken; what getrandom(2) says.
 */
int vmgenid_create(struct platform *platform, const struct vmgenid_params *params,
                   struct device **ret_dev, struct error *err);

/*
 * Another ID, and the guest is told. For a machine that goes on from a snapshot, after its state
 * was loaded and before it starts. Takes the lock. Errors: what getrandom(2) says; then the ID
 * stays.
 */
int vmgenid_change(struct device *dev, struct error *err);

#endif
