/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMRUN_IRQ_H
#define VMRUN_IRQ_H

#include <stdbool.h>
#include <stdint.h>

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

/*
 * A message-signalled interrupt: an eventfd that KVM turns into an interrupt
 * with the address and data it was routed to, without a trip to user space.
 */
struct msi;

struct msi_ops {
    /* Errors (negative errno): the platform is out of routes. The message is logged there. */
    int (*route)(struct msi *msi, uint64_t address, uint32_t data);
    void (*destroy)(struct msi *msi);
};

struct msi {
    const struct msi_ops *ops;
    int fd; /* eventfd; whoever writes to it raises the interrupt */
};

/* Raise it: one write(2). Never blocks. Any thread. */
void msi_fire(struct msi *msi);

#endif
