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
#include "vmrun/bytes.h"
#include "vmrun/cpu_entry.h"
#include "vmrun/irq.h"
#include "vmrun/memory.h"

struct kvm_vm;

enum cpu_model { CPU_MODEL_HOST, CPU_MODEL_X86_64_V2, CPU_MODEL_X86_64_V3 };

struct kvm_vm_params {
    unsigned cpus;
    enum cpu_model cpu_model;
    const void *cpuid; /* of kvm_vm_save_cpuid(): the CPU of a machine that is restored; or NULL */
    size_t cpuid_len;
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
 * From now on each vCPU rests this part of the time in which it has something to do, 0 to 99, in
 * slices of some ten milliseconds; 0 costs nothing. A pause does not wait for one that rests. Any
 * thread. Errors: of timer_create(2), and none is throttled.
 */
int kvm_vm_throttle(struct kvm_vm *vm, unsigned percent, struct error *err);

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

/*
 * State for a snapshot or a migration: src/kvm/vm_state.c has the tables. Every vCPU, the interrupt
 * controllers, the PIT and the VM's clock are added to the registry as "vcpuN.regs", "vcpuN.msrs"
 * …, "pic0", "ioapic", "pit", "clock". Their pre_save functions read KVM: only while paused.
 */
struct state_registry;
int kvm_vm_add_state(struct kvm_vm *vm, struct state_registry *registry, struct error *err);

/*
 * The tables have been loaded: give them to KVM, in the one order that its parts ask for, read
 * back what the kernel may lie about, and compare. Interrupt lines and MSI routes are the devices'
 * own. advance_ns: how far the guest's clock is put on, 0 or more; CLOCK_REALTIME and the TSC's
 * frequency are in the "clock" table, so that the caller can tell (kvm_vm_saved_realtime_ns()).
 * Errors: -ENOTSUP, -EIO, -EPROTO with the register or MSR named; the VM is then fit only to be
 * destroyed.
 */
int kvm_vm_apply_state(struct kvm_vm *vm, uint64_t advance_ns, struct error *err);
/* Of a loaded "clock" table: when it was read, CLOCK_REALTIME. */
uint64_t kvm_vm_saved_realtime_ns(const struct kvm_vm *vm);

/*
 * The CPU as vCPU 0 sees it, as bytes that travel beside the tables. kvm_vm_params.cpuid takes
 * them on the other side instead of a model: all that they promise must be there.
 */
int kvm_vm_save_cpuid(const struct kvm_vm *vm, struct writer *w, struct error *err);
/*
 * What of a saved CPU description this host lacks, as words for the operator ("avx2, sha"), "" when
 * nothing. Errors: -EPROTO, no such description; as kvm_vm_create() for opening.
 */
int kvm_cpuid_missing(const void *cpuid, size_t len, char *buf, size_t buf_len, struct error *err);

/*
 * What the state of this machine needs of a KVM that is to take it over, besides the CPU: words
 * with a space between, printable ASCII, a few hundred; free() it. Also while it runs. Errors:
 * -ENOMEM.
 */
int kvm_vm_needs(const struct kvm_vm *vm, char **ret_text, struct error *err);
/*
 * What of them (from another host: hostile) is not to be had here. Only while paused. Errors:
 * -EPROTO, no such words.
 */
struct kvm_lacks {
    char missing[300]; /* for the operator: "MSR 0x10a (ARCH_CAPABILITIES), …"; "": nothing */
    char doubts[300];  /* likewise what the guest may never use, or does not mind */
};
int kvm_vm_lacks(struct kvm_vm *vm, const char *needs, struct kvm_lacks *ret_lacks,
                 struct error *err);
/* The same before there is a machine, by one that is made to try. Errors also: kvm_vm_create(). */
int kvm_host_lacks(const char *needs, const void *cpuid, size_t cpuid_len,
                   struct kvm_lacks *ret_lacks, struct error *err);

/*
 * The log of pages that the guest writes. on: from now on, and anew when it is on already; all
 * pages count as written at first. off: gives up the log, and the guest its small pages. Errors:
 * what the ioctl said. Not on a vCPU thread; harvest and clear also on another than the machine
 * thread, one at a time.
 */
int kvm_vm_dirty_log(struct kvm_vm *vm, bool on, struct error *err);
/* Fill in a bit for each page of the region written since it was cleared. Protects nothing. */
int kvm_vm_dirty_harvest(struct kvm_vm *vm, unsigned region, uint64_t *bitmap, struct error *err);
/*
 * Forget these bits and notice the next write: to be called just before the pages are read.
 * first_page: a multiple of 64; pages too, unless the range ends with the region.
 */
int kvm_vm_dirty_clear(struct kvm_vm *vm, unsigned region, uint64_t first_page, uint64_t pages,
                       const uint64_t *bitmap, struct error *err);

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
