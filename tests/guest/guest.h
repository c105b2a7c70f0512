/* SPDX-License-Identifier: Apache-2.0 */
#ifndef GUEST_H
#define GUEST_H

/*
 * A machine for one payload: RAM, two buses with a device that remembers every
 * access, a debug-exit port, vCPUs on the host's own KVM.
 */

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "vmrun/kvm.h"
#include "vmrun/state.h"

#define GUEST_TAPE 65536

struct access {
    bool mmio, write;
    uint64_t addr, value;
    unsigned size;
};

struct guest {
    struct guest_memory *memory;
    struct bus *pio, *mmio;
    struct boot *boot;
    struct kvm_vm *vm;
    struct state_registry *registry; /* of the VM, once it was asked for */
    struct device recorder, finisher;
    const char *name;
    unsigned cpus;
    bool ring3;

    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned count; /* accesses in all; the tape keeps the first GUEST_TAPE */
    struct access *tape;
    unsigned
        pause_at; /* the recorder asks for a pause at this access, 1 being the first; 0: never */
    int status;   /* what the payload ended with, or -1 */
    unsigned crashes;
    char report[8192]; /* of the last crash */
};

/* What the recorder answers to a read. */
#define GUEST_READ_VALUE UINT64_C(0x0123456789abcdef)

/* Where NAME.elf is. */
void guest_payload(const char *name, char *path, size_t len);

/* The payload NAME.elf, at its entry, paused. ring3: where it runs. Fails the test on any error. */
void guest_create(struct guest *guest, const char *name, unsigned cpus, bool ring3);
void guest_destroy(struct guest *guest);

/* Another machine with the same CPU and a copy of its RAM; its vCPUs are as after power-on. */
void guest_create_like(struct guest *guest, const struct guest *other);
/* Its state as a stream, and the other way; -errno. Only while paused. free() the data. */
struct writer guest_save(struct guest *guest);
int guest_restore(struct guest *guest, const struct writer *state, uint64_t advance_ns,
                  struct error *err);

/* Another machine goes on as the first one would: created, and restored from what the first one
 * saves. */
void guest_move(struct guest *from, struct guest *to);

/* Let it make so many accesses more, or a few beyond, and pause. A crash fails the test. */
void guest_run_for(struct guest *guest, unsigned accesses);

/* RAM as it was at first, and the entry. The recorder forgets. */
void guest_load(struct guest *guest);

/* Wait until there were so many accesses, or the end, or a crash; at most 20 s. */
void guest_wait_accesses(struct guest *guest, unsigned count);
void guest_wait_end(struct guest *guest);

/* For main(): what run() says, or 77 in words where there is no usable /dev/kvm. */
int guest_main(int (*run)(void));

/* Ring 3 is entered in a way that real AMD CPUs do not know: only where ring 0 is emulated. */
bool guest_has_ring3(void);

#endif
