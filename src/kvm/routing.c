/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The routing table. The legacy half follows the PC convention: ISA interrupt
 * 0, the timer, goes to input 2 of the IOAPIC and to input 0 of the PIC, so the
 * ACPI tables must carry the matching interrupt source override; GSI 2 itself,
 * where the second PIC hangs, leads nowhere.
 */
#include "routing.h"

#include <errno.h>
#include <stdlib.h>

#define PIC_INPUTS 8u
#define TIMER_IOAPIC_PIN 2u
#define LEGACY_ENTRIES (2 * PIC_INPUTS + ROUTING_LEGACY_GSIS)

void routing_fini(struct routing *routing)
{
    free(routing->msi);
    *routing = (struct routing){0};
}

int routing_take(struct routing *routing, unsigned *ret_gsi)
{
    unsigned i = 0;

    while (i < routing->msi_count && routing->msi[i].taken)
        i++;
    if (ROUTING_LEGACY_GSIS + i >= ROUTING_MAX_GSIS)
        return -ENOSPC;
    if (i == routing->msi_count) {
        unsigned room = routing->msi_count ? 2 * routing->msi_count : 16;
        struct routing_msi *grown = realloc(routing->msi, room * sizeof(*grown));

        if (!grown)
            return -ENOMEM;
        for (unsigned k = routing->msi_count; k < room; k++)
            grown[k] = (struct routing_msi){0};
        routing->msi = grown;
        routing->msi_count = room;
    }
    routing->msi[i] = (struct routing_msi){.taken = true};
    *ret_gsi = ROUTING_LEGACY_GSIS + i;
    return 0;
}

struct routing_msi *routing_find(struct routing *routing, unsigned gsi)
{
    if (gsi < ROUTING_LEGACY_GSIS || gsi - ROUTING_LEGACY_GSIS >= routing->msi_count)
        return NULL;

    struct routing_msi *msi = &routing->msi[gsi - ROUTING_LEGACY_GSIS];
    return msi->taken ? msi : NULL;
}

static void add_pin(struct kvm_irq_routing *table, unsigned gsi, unsigned chip, unsigned pin)
{
    table->entries[table->nr++] = (struct kvm_irq_routing_entry){
        .gsi = gsi,
        .type = KVM_IRQ_ROUTING_IRQCHIP,
        .u.irqchip = {.irqchip = chip, .pin = pin},
    };
}

struct kvm_irq_routing *routing_build(const struct routing *routing)
{
    size_t entries = LEGACY_ENTRIES + routing->msi_count;
    struct kvm_irq_routing *table = calloc(1, sizeof(*table) + entries * sizeof(table->entries[0]));

    if (!table)
        return NULL;

    for (unsigned gsi = 0; gsi < ROUTING_LEGACY_GSIS; gsi++) {
        if (gsi == TIMER_IOAPIC_PIN)
            continue;
        if (gsi < PIC_INPUTS)
            add_pin(table, gsi, KVM_IRQCHIP_PIC_MASTER, gsi);
        else if (gsi < 2 * PIC_INPUTS)
            add_pin(table, gsi, KVM_IRQCHIP_PIC_SLAVE, gsi - PIC_INPUTS);
        add_pin(table, gsi, KVM_IRQCHIP_IOAPIC, gsi == 0 ? TIMER_IOAPIC_PIN : gsi);
    }

    for (unsigned i = 0; i < routing->msi_count; i++) {
        const struct routing_msi *msi = &routing->msi[i];

        if (!msi->taken || !msi->routed)
            continue;
        table->entries[table->nr++] = (struct kvm_irq_routing_entry){
            .gsi = ROUTING_LEGACY_GSIS + i,
            .type = KVM_IRQ_ROUTING_MSI,
            .u.msi = {.address_lo = (uint32_t)msi->address,
                      .address_hi = (uint32_t)(msi->address >> 32),
                      .data = msi->data},
        };
    }
    return table;
}
