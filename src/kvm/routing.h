/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMRUN_KVM_ROUTING_H
#define VMRUN_KVM_ROUTING_H

/*
 * Which interrupt a GSI raises. GSIs 0 to 23 are the legacy inputs, the rest
 * are handed out to message-signalled interrupts. Only a table: irqchip.c
 * gives it to KVM.
 */

#include <linux/kvm.h>
#include <stdbool.h>
#include <stdint.h>

#define ROUTING_LEGACY_GSIS 24u /* inputs of the IOAPIC */
#define ROUTING_MAX_GSIS 1024u  /* KVM takes 4096 */

struct routing_msi {
    bool taken, routed;
    uint64_t address;
    uint32_t data;
};

struct routing {
    unsigned msi_count; /* room in msi[] */
    struct routing_msi *msi;
};

void routing_fini(struct routing *routing);

/* Errors: -ENOSPC, -ENOMEM. */
int routing_take(struct routing *routing, unsigned *ret_gsi);
/* The route of a taken GSI, or NULL. */
struct routing_msi *routing_find(struct routing *routing, unsigned gsi);

/* The whole table as KVM_SET_GSI_ROUTING wants it; free() it. NULL: out of memory. */
struct kvm_irq_routing *routing_build(const struct routing *routing);

#endif
