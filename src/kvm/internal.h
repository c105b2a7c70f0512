/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMRUN_KVM_INTERNAL_H
#define VMRUN_KVM_INTERNAL_H

/*
 * What the files of src/kvm share. Two locks: `lock` orders starting and
 * stopping of vCPUs, `route_lock` guards the routing table. Neither is held
 * while a device is called, so a device may be locked around both.
 */

#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>

#include "routing.h"
#include "vmrun/kvm.h"

/* Wakes a vCPU thread out of KVM_RUN; its handler does nothing. */
#define KVM_KICK_SIGNAL SIGRTMIN

/* Enough for any report: a vCPU thread calls devices and prints at most. */
#define KVM_THREAD_STACK_BYTES ((size_t)256 * 1024)

/* What a power-on leaves in one vCPU and not in its neighbour. */
struct own_state {
    struct kvm_sregs sregs; /* holds the APIC base with the BSP bit */
    struct kvm_lapic_state lapic;
    struct kvm_mp_state mp;
    bool has_tsc_offset;
    uint64_t tsc_offset; /* of the host's TSC; common to all unless the guest moved one */
};

/* What it leaves in all of them alike, and in the interrupt controllers. */
struct common_state {
    struct kvm_regs regs;
    struct kvm_xsave *xsave; /* of KVM_CAP_XSAVE2 bytes, at least one struct */
    bool has_xcrs;
    struct kvm_xcrs xcrs;
    struct kvm_debugregs debugregs;
    struct kvm_vcpu_events events;
    struct kvm_msrs *msrs; /* only those that KVM took back when they were proven */
    struct kvm_irqchip chips[3];
    struct kvm_pit_state2 pit;
};

struct vcpu {
    struct kvm_vm *vm;
    unsigned index;
    int fd;
    struct kvm_run *run;
    pthread_t thread;
    bool has_thread;
    bool running; /* vm->lock: outside the waiting room */
    bool crashed; /* vm->lock: may not run before a reset */
    struct own_state own;
    /* Written by its thread alone, so a plain load and store count; on a cache line of its own. */
    _Alignas(64) _Atomic uint64_t exits[KVM_EXIT_KINDS];
};

struct irq_line {
    struct irq irq;
    struct kvm_vm *vm;
    unsigned gsi;
    atomic_bool level;
};

struct kvm_vm {
    struct kvm_vm_params params;
    int device_fd, fd;
    size_t run_bytes; /* size of a mapped struct kvm_run */

    pthread_mutex_t lock;
    pthread_cond_t go;     /* stop or quit changed, or a vCPU was reset */
    pthread_cond_t parked; /* running_count fell */
    bool stop, quit;       /* lock */
    unsigned running_count;

    bool has_clock; /* a clock that stands still since the pause */
    uint64_t clock_ns;
    struct common_state common;

    pthread_mutex_t route_lock;
    struct routing routing;
    struct irq_line *lines[ROUTING_LEGACY_GSIS];

    struct vcpu **vcpus; /* params.cpus of them; NULL where creation did not get to */
};

/* host.c: the device and what it can do. Errors as kvm_vm_create(). */
struct kvm_capability {
    const char *name; /* as in api.rst, lower case, without KVM_CAP_ */
    int number;
    bool required;
    const char *use; /* what goes without it */
};
extern const struct kvm_capability kvm_capabilities[];
int host_open(const char *path, int *ret_fd, struct error *err);
int host_check_capabilities(int device_fd, struct error *err);
unsigned host_max_cpus(int device_fd);
int host_install_kick(struct error *err);

/* vcpu.c */
int vcpu_create(struct kvm_vm *vm, unsigned index, struct error *err);
int vcpu_start(struct vcpu *vcpu, struct error *err);
void vcpu_destroy(struct vcpu *vcpu);
void vcpu_kick(struct vcpu *vcpu); /* with vm->lock */

/* regs.c */
int regs_capture(struct kvm_vm *vm, struct error *err); /* once, before anything ran */
int regs_restore(struct kvm_vm *vm, struct error *err);
void regs_fini(struct kvm_vm *vm);

/* irqchip.c */
int irqchip_create(struct kvm_vm *vm, struct error *err);
void irqchip_redrive(struct kvm_vm *vm); /* levels that devices hold, after the chips were reset */
void irqchip_fini(struct kvm_vm *vm);

/* report.c: why it stopped, in words; and the vCPU's registers and code bytes. */
void report_reason(const struct kvm_run *run, int run_errno, char *buf, size_t len);
void report_registers(FILE *out, const struct kvm_regs *regs, const struct kvm_sregs *sregs);
void report_vcpu(FILE *out, const struct vcpu *vcpu);

#endif
