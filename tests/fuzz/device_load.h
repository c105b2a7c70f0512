/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMRUN_FUZZ_DEVICE_LOAD_H
#define VMRUN_FUZZ_DEVICE_LOAD_H

#include "vmrun/bytes.h"
#include "vmrun/device.h"

/*
 * A step of a program that fuzzes a device: load the bytes that follow, two of their length first,
 * as state. A device that refuses is reset; what one took, it must save, and load again.
 */
void device_load_bytes(struct device *dev, struct reader *program);

#endif
