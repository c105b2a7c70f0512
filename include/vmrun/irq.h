/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMRUN_IRQ_H
#define VMRUN_IRQ_H

#include <stdbool.h>

/*
 * An interrupt line as a device sees it: an object it may drive and nothing
 * else. Whether it ends in KVM's interrupt controller or in a test's variable
 * is not the device's affair. The line belongs to the device that took it;
 * the platform that gave it frees it.
 */
struct irq;

struct irq_ops {
    void (*set)(struct irq *irq, bool level);
};

struct irq {
    const struct irq_ops *ops;
};

/* Drive the line. Cheap when the level does not change: the platform compares. Any thread. */
static inline void irq_set(struct irq *irq, bool level)
{
    irq->ops->set(irq, level);
}

#endif
