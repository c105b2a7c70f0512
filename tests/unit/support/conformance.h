/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONFORMANCE_H
#define CONFORMANCE_H

/*
 * What every device owes the machine, whatever it does for its guest:
 *
 *  - creating it fails cleanly at each step: the step's own error, nothing left behind
 *  - reset twice, pause twice, resume twice are as once; a paused device drives no interrupt
 *  - any state that a guest can bring about can be saved, loaded and saved again, equal;
 *    from then on the device and its copy answer every access alike
 *  - a stream that was cut, lacks a field, has an unknown one or is newer is refused,
 *    and a device that refused one works again after a reset
 *  - a stream of extreme values is refused or does no harm
 *  - an access at any offset, of any width, of any value does no harm
 *  - two of it live side by side
 *
 * "No harm" is for the sanitizers to see: run it under ASan and UBSan.
 */

#include "fake_platform.h"

struct conformance_case {
    /* Build a device on this platform. Called often, up to three devices at a time. */
    int (*create)(void *opaque, struct platform *platform, struct device **ret_dev,
                  struct error *err);
    /* Optional: called between accesses, for what happens outside the guest (input, time). */
    void (*disturb)(void *opaque, struct device *dev, uint32_t random);
    /* Optional: bring the world outside this device to one fixed condition, the same for all. */
    void (*settle)(void *opaque, struct device *dev);
    /* Optional: wait for what an access set off on a thread of the device's own. */
    void (*finish)(void *opaque, struct device *dev);
    void *opaque;
};

/* A cmocka test in itself: fails the running test at the first breach. */
void conformance_run(const struct conformance_case *c);

#endif
