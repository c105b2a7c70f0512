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
#include <time.h>

#include "routing.h"
#include "vmrun/kvm.h"

/* Wakes a vCPU thread out of KVM_RUN; its handler does nothing. */
#define KVM_KICK_SIGNAL SIGRTMIN

/* Enough for any report: a vCPU thread calls devices and prints at most. */
#define KVM_THREAD_STACK_BYTES ((size_t)256 * 1024)

/* More than any KVM asks for: x87 to AVX-512 take 4 KiB, AMX's tiles 8 KiB more. */
#define XSAVE_ROOM 12288
/* KVM's own limit on one KVM_SET_MSRS; a CPU of our models has about half as many. */
#define MSR_ROOM 256

struct msr_set {
    uint32_t count;
    uint32_t index[MSR_ROOM];
    uint64_t data[MSR_ROOM];
};

/*
 * One vCPU, all of it: what a power-on left, to go back to at a reset, and what travels in a
 * snapshot. The parts are KVM's own structures; vm_state.c has the tables.
 */
struct vcpu_state {
    struct vcpu *vcpu;
    struct kvm_regs regs;
    struct kvm_sregs2 sregs;                       /* holds the APIC base with the BSP bit */
    uint64_t xsave[XSAVE_ROOM / sizeof(uint64_t)]; /* a struct kvm_xsave, and what follows it */
    struct kvm_xcrs xcrs;
    struct kvm_debugregs debugregs;
    union lapic_state {
        struct kvm_lapic_state kvm;
        uint32_t words[KVM_APIC_REG_SIZE / sizeof(uint32_t)]; /* every fourth is a register */
    } lapic;
    struct msr_set msrs;
    struct kvm_vcpu_events events;
    struct vcpu_run_state {
        struct kvm_mp_state mp;
        bool crashed;
    } run;
    struct vcpu_tsc_state {
        int64_t moved;     /* how far the guest moved its TSC since power-on */
        uint64_t deadline; /* MSR TSC_DEADLINE; 0: none */
    } tsc;
};

/* The interrupt controllers and the PIT. */
struct chips_state {
    struct kvm_irqchip chips[KVM_NR_IRQCHIPS]; /* CHIP_… */
    struct kvm_pit_state2 pit;
    uint32_t lines; /* bit n: a device holds GSI n up */
};
/*
 * Also the order in which they are put back: KVM looks at both PICs after each, and a second one
 * that still holds an interrupt would leave its mark in the first.
 */
enum { CHIP_PIC1, CHIP_PIC0, CHIP_IOAPIC };

/* A clock beyond 146 years is none. */
#define MAX_CLOCK_NS (UINT64_C(1) << 62)

/* The guest's clocks as they stood when its vCPUs had stopped. */
struct clock_state {
    uint64_t clock_ns;    /* kvmclock */
    uint64_t realtime_ns; /* CLOCK_REALTIME of the host */
    uint64_t tsc;         /* as vCPU 0 reads it */
    uint32_t tsc_khz;     /* 0: KVM does not tell */
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
    /* throttle.c. The first three under vm->lock. */
    pid_t tid; /* 0: its thread has not begun */
    bool has_timer;
    timer_t timer;
    clockid_t cpu_clock;
    _Atomic uint64_t rested_at_ns; /* of its CPU time */
    bool has_tsc_offset;
    uint64_t tsc_offset;         /* of the host's TSC at power-on; common to all */
    struct vcpu_state *power_on; /* NULL where creation did not get to */
    struct vcpu_state *moving;   /* what the state tables save and load; NULL without them */
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
    pthread_cond_t wake;  /* stop or throttle changed: CLOCK_MONOTONIC */
    atomic_uint throttle; /* percent of the time that vCPUs rest; written with lock */

    bool has_clock; /* clock holds one that stands still since the pause */
    struct clock_state clock;
    struct clock_state moving_clock; /* what the state tables save and load */
    struct chips_state power_on_chips, moving_chips;
    struct cpuid_table *cpuid; /* as vCPU 0 was given it */

    unsigned tsc_khz; /* of the guest's TSC; 0: KVM does not tell */
    bool has_sregs2, has_xcrs, has_xsave2;
    struct msr_set msrs; /* those that can be read and written back; the values of vCPU 0 */

    bool dirty_probed, dirty_manual, dirty_on; /* see dirty.c */
    uint64_t *dirty_pending[MEMORY_MAX_REGIONS];

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

/* throttle.c; by its own thread: with vm->lock, when it begins; and whenever it was interrupted. */
void throttle_begin(struct vcpu *vcpu);
void throttle_rest(struct vcpu *vcpu);
void throttle_end(struct vcpu *vcpu); /* after its thread */

/* vm.c: the slot of a region, with or without a log of writes. */
int vm_set_slot(struct kvm_vm *vm, unsigned region, bool log, struct error *err);

/* dirty.c */
void dirty_fini(struct kvm_vm *vm);

/* msrs.c */
int msrs_list(struct kvm_vm *vm, struct error *err); /* vm->msrs, from what vCPU 0 has */
int msrs_get(struct vcpu *vcpu, struct msr_set *ret_set, struct error *err);
/* Errors: -ENOTSUP, this host has no such MSR, or KVM refused the value; the MSR is named. */
int msrs_set(struct vcpu *vcpu, const struct msr_set *set, struct error *err);
/* Errors: -EIO, the first that differs is named. */
int msrs_compare(struct vcpu *vcpu, const struct msr_set *wanted, struct error *err);
int msr_get_one(struct vcpu *vcpu, uint32_t index, uint64_t *ret_value);
int msr_set_one(struct vcpu *vcpu, uint32_t index, uint64_t value);
const char *msr_name(uint32_t index, char buf[40]); /* "0xc0000080 (EFER)" */
enum { MSR_TSC = 0x10, MSR_TSC_DEADLINE = 0x6e0 };
#define MSR_EFER 0xc0000080u

/*
 * vcpu_state.c: reading and writing all of a vCPU, in the order that KVM's parts ask for. Writing
 * comes in two halves: between them the TSCs of all vCPUs are set.
 */
int vcpu_state_get(struct vcpu *vcpu, struct vcpu_state *ret_state, struct error *err);
/* Only what a power-on leaves in one vCPU and not in its neighbour. */
int vcpu_state_get_own(struct vcpu *vcpu, struct vcpu_state *ret_state, struct error *err);
int vcpu_state_set_registers(struct vcpu *vcpu, const struct vcpu_state *state, struct error *err);
int vcpu_state_set_rest(struct vcpu *vcpu, const struct vcpu_state *state, struct error *err);
/* vcpu_compare.c: what KVM has now is what was set. Errors: -EIO, the first that differs is named.
 */
int vcpu_state_compare(struct vcpu *vcpu, const struct vcpu_state *wanted, struct error *err);
int vcpu_get_sregs(struct vcpu *vcpu, struct kvm_sregs2 *ret_sregs, struct error *err);
int vcpu_set_sregs(struct vcpu *vcpu, const struct kvm_sregs2 *sregs, struct error *err);

/* One step of a table of ioctls: what it is called when it fails, and where the data is. */
struct vcpu_step {
    const char *name; /* NULL: the end */
    unsigned long request;
    void *arg; /* NULL: not on this host */
};
int vcpu_do_steps(const struct vcpu *vcpu, const struct vcpu_step *steps, struct error *err);
bool vcpu_same_events(const struct kvm_vcpu_events *a, const struct kvm_vcpu_events *b);

/* regs.c */
int regs_capture(struct kvm_vm *vm, struct error *err); /* once, before anything ran */
int regs_restore(struct kvm_vm *vm, struct error *err);

/* clock.c; with vm->lock */
void clock_stop(struct kvm_vm *vm);              /* no vCPU runs */
void clock_start(struct kvm_vm *vm);             /* none runs yet */
bool tsc_same_frequency(uint64_t a, uint64_t b); /* kHz; as far as a guest notices */
bool tsc_get_offset(struct vcpu *vcpu, uint64_t *ret_offset);
bool tsc_set_offset(struct vcpu *vcpu, uint64_t offset); /* false: KVM has another afterwards */
/* Frequency and offsets of a machine that came from elsewhere; deadlines follow. */
int tsc_take_over(struct kvm_vm *vm, uint64_t advance_ns, struct error *err);
/* kvmclock of such a machine; it stands still until clock_start(). Errors: -EIO, KVM has another.
 */
int clock_take_over(struct kvm_vm *vm, uint64_t advance_ns, struct error *err);

/* irqchip.c */
int irqchip_create(struct kvm_vm *vm, struct error *err);
int irqchip_get(struct kvm_vm *vm, struct chips_state *ret_chips, struct error *err);
int irqchip_set(struct kvm_vm *vm, const struct chips_state *chips, struct error *err);
void irqchip_redrive(struct kvm_vm *vm); /* levels that devices hold, after the chips were reset */
void irqchip_preset(struct kvm_vm *vm, uint32_t lines); /* levels, before the chips are set */
void irqchip_fini(struct kvm_vm *vm);

/* report.c: why it stopped, in words; and the vCPU's registers and code bytes. */
void report_reason(const struct kvm_run *run, int run_errno, char *buf, size_t len);
void report_registers(FILE *out, const struct kvm_regs *regs, const struct kvm_sregs *sregs);
void report_vcpu(FILE *out, const struct vcpu *vcpu);

#endif
