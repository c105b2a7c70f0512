/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMRUN_KVM_CPUID_H
#define VMRUN_KVM_CPUID_H

/*
 * The CPU that a guest sees, as a table of CPUID answers. Pure functions: a
 * table comes from KVM_GET_SUPPORTED_CPUID, or from a test.
 */

#include <linux/kvm.h>
#include <stdbool.h>
#include <stddef.h>

#include "vmrun/kvm.h"

/* KVM's own limit on a table. */
#define CPUID_MAX_ENTRIES 256u

/* As struct kvm_cpuid2, with room for all entries. */
struct cpuid_table {
    __u32 count, padding;
    struct kvm_cpuid_entry2 entries[CPUID_MAX_ENTRIES];
};

/* The answer for a leaf, or NULL. */
struct kvm_cpuid_entry2 *cpuid_find(struct cpuid_table *table, uint32_t function, uint32_t index);

/*
 * Turn what KVM supports into a model: hide what cannot move to another host
 * later (PMU, nested virtualization, SGX, asynchronous page faults, invariant
 * TSC), add what KVM offers but does not list, and for a named level leave only
 * that level's instructions with what virtualization and mitigations need.
 * tsc_khz: 0 when unknown.
 *
 * Errors: -ENOTSUP  the host lacks features of the level, all named
 *         -ENOSPC   no room in the table
 */
int cpuid_apply_model(struct cpuid_table *table, enum cpu_model model, bool tsc_deadline,
                      unsigned tsc_khz, struct error *err);

/*
 * cpuid_saved.c: the table as bytes, and whether a host can give what it promises.
 *
 * On the wire: number of entries u32, then each as function, index, flags, eax, ebx, ecx, edx, all
 * u32. Errors of parsing: -EPROTO.
 */
void cpuid_put(const struct cpuid_table *table, struct writer *w);
int cpuid_parse(const void *data, size_t len, struct cpuid_table *ret_table, struct error *err);
/* What of `saved` the host lacks, as words; false: nothing. Its topology is not looked at. */
bool cpuid_lacks(struct cpuid_table *saved, struct cpuid_table *host, char *buf, size_t buf_len);

/* The table of a model on this host, or a saved one. Errors as kvm_vm_create(). */
int cpuid_of_model(int device_fd, enum cpu_model model, unsigned tsc_khz,
                   struct cpuid_table *ret_table, struct error *err);
int cpuid_take_saved(int device_fd, const void *data, size_t len, struct cpuid_table *ret_table,
                     struct error *err);

/* One package of `cpus` cores of one thread; this one has the given APIC identifier. */
void cpuid_apply_topology(struct cpuid_table *table, unsigned apic_id, unsigned cpus);

#endif
