/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMRUN_KVM_H
#define VMRUN_KVM_H

/*
 * One virtual machine of the kernel's KVM: memory slots, interrupt controllers,
 * vCPU threads. The only folder that talks to /dev/kvm is src/kvm.
 *
 * The machine thread calls everything here unless "any thread" is said.
 * Source: Documentation/virt/kvm/api.rst of Linux.
 */

#include <stdbool.h>
#include <stdint.h>

#include "vmrun/bus.h"
#include "vmrun/cpu_entry.h"
#include "vmrun/irq.h"
#include "vmrun/memory.h"

struct kvm_vm;

enum cpu_model { CPU_MODEL_HOST, CPU_MODEL_X86_64_V2, CPU_MODEL_X86_64_V3 };

struct kvm_vm_params {
    unsigned cpus;
    enum cpu_model cpu_model;
    struct guest_memory *memory;
    struct bus *pio, *mmio;

    /*
     * A vCPU met something that ends the machine. Called once for each such
     * vCPU, on its thread, which then executes nothing more until
     * kvm_vm_reset(). report: several lines (exit, registers, code bytes),
     * valid during the call. A triple fault comes here too. The first line alone
     * says what happened: "vCPU 0: triple fault (KVM exit 8, SHUTDOWN)".
     */
    void (*crashed)(void *opaque, const char *report);
    void *opaque;
};

/* Why vCPUs left the guest; stats and tests count them. */
enum kvm_exit_kind {
    KVM_EXIT_KIND_PIO,
    KVM_EXIT_KIND_MMIO,
    KVM_EXIT_KIND_HALT,        /* none: with the kernel's interrupt controllers it halts there */
    KVM_EXIT_KIND_INTERRUPTED, /* a signal: kicked */
    KVM_EXIT_KIND_OTHER,
    KVM_EXIT_KINDS
};
const char *kvm_exit_kind_name(enum kvm_exit_kind kind); /* "pio" … */

/*
 * Open /dev/kvm and build the VM: irqchip, PIT, TSS, slots, all vCPUs with
 * CPUID and power-on state; their threads wait, paused.
 *
 * Errors, each with the cure in the message:
 *   -ENOENT  no /dev/kvm      -EACCES no permission on it (names the group)
 *   -ENOTSUP API version or a capability is missing, named; a model the host
 *            cannot give, its features named
 *   -EINVAL  more vCPUs than KVM allows (says how many)
 *   -EBUSY   another hypervisor has the CPU    -ENOMEM, or what the ioctl said
 * The regions of memory must not change afterwards; memory, buses and opaque
 * outlive the VM. Takes SIGRTMIN for itself in the whole process.
 */
int kvm_vm_create(const struct kvm_vm_params *params, struct kvm_vm **ret_vm, struct error *err);
void kvm_vm_destroy(struct kvm_vm *vm); /* ends the threads; NULL is fine */

/* Most vCPUs this host's KVM takes in one VM. Errors as kvm_vm_create() for opening. */
int kvm_max_cpus(unsigned *ret_max, struct error *err);

/*
 * Where vCPU 0 begins; the others wait for INIT/SIPI. Only while paused and after
 * create or reset. Errors: what the ioctl said.
 */
int kvm_vm_set_entry(struct kvm_vm *vm, const struct cpu_entry *entry, struct error *err);

/* Let the vCPUs run; one that crashed stays where it is until a reset. Idempotent. */
void kvm_vm_resume(struct kvm_vm *vm);
/*
 * Stop all vCPUs and return when none executes guest code; a half-done PIO or
 * MMIO is retired first. Idempotent. Not on a vCPU thread.
 *
 * The guest's clock (kvmclock) stands still until the next resume, and the guest
 * is told that it was stopped: its watchdogs see no gap, its wall clock is late.
 */
void kvm_vm_pause(struct kvm_vm *vm);
/* Ask them to stop and return at once: the calling vCPU executes nothing more. Any thread. */
void kvm_vm_request_pause(struct kvm_vm *vm);

/*
 * vCPUs, irqchip and PIT back to power-on, the exact values read at creation.
 * Lines that devices still hold are seen by the fresh irqchip; MSI routes, irqfds
 * and doorbells stay. kvm_vm_set_entry() is to follow. Only while paused.
 * Errors: what the ioctl said; the VM is then fit only to be destroyed or reset again.
 */
int kvm_vm_reset(struct kvm_vm *vm, struct error *err);

/*
 * The line of an interrupt controller input, 0 to 23; the VM frees it. GSI 0, the
 * timer, is input 2 of the IOAPIC. One owner each. Errors: -EBUSY, -EINVAL, -ENOMEM.
 */
int kvm_vm_irq_line(struct kvm_vm *vm, unsigned gsi, struct irq **ret_irq, struct error *err);

/*
 * Interrupt by eventfd (KVM_IRQFD): each write to fd pulses gsi. resample_fd,
 * or -1: the line is level-triggered and the eventfd is signalled at EOI. To
 * detach, name the same gsi and fd. Errors: -EBUSY, fd is attached; what the ioctl said.
 */
int kvm_vm_irqfd(struct kvm_vm *vm, unsigned gsi, int fd, int resample_fd, bool attach,
                 struct error *err);

/*
 * Doorbell by eventfd (KVM_IOEVENTFD): a write there signals fd and is no exit.
 * size 0: any width, without match; with match, only writes of `value`.
 * Errors: -EEXIST, there is one; -ENOENT, none to detach; what the ioctl said.
 */
struct kvm_doorbell {
    enum bus_kind bus;
    uint64_t addr;
    unsigned size;
    bool match;
    uint64_t value;
    int fd;
};
int kvm_vm_doorbell(struct kvm_vm *vm, const struct kvm_doorbell *bell, bool attach,
                    struct error *err);

/*
 * GSI routing. The legacy inputs (PIC, IOAPIC) are routed from the start; a
 * message-signalled interrupt takes a GSI of its own. Any thread.
 * Errors: -ENOSPC, 1000 are taken; -EINVAL, not a GSI that was added; -ENOMEM.
 */
int kvm_vm_msi_route_add(struct kvm_vm *vm, unsigned *ret_gsi, struct error *err);
int kvm_vm_msi_route_set(struct kvm_vm *vm, unsigned gsi, uint64_t address, uint32_t data,
                         struct error *err);
void kvm_vm_msi_route_remove(struct kvm_vm *vm, unsigned gsi);

/* Counted since creation, summed over vCPUs. Any thread. */
void kvm_vm_exit_counts(const struct kvm_vm *vm, uint64_t counts[KVM_EXIT_KINDS]);

/* Registers and code bytes of every vCPU, for a person. Only while paused. free() it. */
char *kvm_vm_describe(struct kvm_vm *vm);

/*
 * What this host can do, for `vmrun doctor`: every finding with the command
 * that mends it. `measured`: a ring-0 loop was timed in a scratch VM.
 */
enum kvm_verdict { KVM_OK, KVM_WARN, KVM_FAIL };
struct kvm_finding {
    const char *key; /* stable, for --json: "device", "permission", "api", "speed", "cap.xcrs" … */
    enum kvm_verdict verdict;
    char text[160]; /* what was found */
    char cure[160]; /* what to do about it, or "" */
};
struct kvm_report {
    bool usable; /* VMs can be made here at all */
    bool native; /* and guest kernel code runs at native speed */
    unsigned max_cpus;
    double ring0_ns; /* measured: one iteration of a two-instruction ring-0 loop; 0: not measured */
    unsigned count;
    struct kvm_finding findings[32];
};
void kvm_examine_host(struct kvm_report *ret_report);

#endif
