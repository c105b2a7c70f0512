/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MACHINE_INTERNAL_H
#define MACHINE_INTERNAL_H

#include <pthread.h>

#include "vmrun/boot.h"
#include "vmrun/bus.h"
#include "vmrun/cgroup.h"
#include "vmrun/iothread.h"
#include "vmrun/kvm.h"
#include "vmrun/machine.h"
#include "vmrun/memory.h"
#include "vmrun/netdev.h"
#include "vmrun/vhost.h"
#include "vmrun/virtio_devices.h"

#define MACHINE_MAX_DEVICES 64
#define DISK_MAX_QUEUES 32

/* What ends or restarts the machine from the inside; the first one counts until it is served. */
struct machine_request {
    enum { REQUEST_NONE, REQUEST_POWEROFF, REQUEST_RESET, REQUEST_EXIT, REQUEST_CRASH } what;
    int status;   /* REQUEST_EXIT */
    char *report; /* REQUEST_CRASH; may be NULL */
};

/* The last error of a disk, on its way from the disk's thread to the machine's. */
struct machine_disk_error {
    struct machine *machine;
    pthread_mutex_t lock; /* guards the error */
    struct virtio_blk_error error;
};

struct machine {
    const struct vm_config *config; /* the next: */
    struct vm_config effective; /* as at creation, but for what was set since; strings are lent */
    const struct machine_image *image; /* while it is built: what it goes on from, or NULL */
    struct loop *loop;
    struct platform platform; /* what devices see of us */

    struct cgroup *cgroup; /* NULL: no limit was asked for */
    struct guest_memory *memory;
    struct bus *pio, *mmio;
    struct boot *boot;
    struct console *console;
    struct kvm_vm *vm;
    struct state_registry *registry;
    bool held; /* stands still, whatever the state says, until machine_release() */
    enum machine_leaving leaving;
    struct device *devices[MACHINE_MAX_DEVICES]; /* in order of creation */
    unsigned device_count;
    struct device *serial, *power_button, *vmgenid, *pci_host; /* four of the devices */

    struct iothread *disk_threads[CONFIG_MAX_DISKS]; /* as in the configuration */
    struct device *disks[CONFIG_MAX_DISKS];          /* of the devices, in the same order */
    struct machine_disk_error disk_errors[CONFIG_MAX_DISKS];
    struct machine_net {
        struct netdev *netdev;
        struct iothread *thread;
        struct vhost *vhosts[NETDEV_MAX_QUEUES]; /* of each pair, or NULL */
        struct device *dev;                      /* of the devices */
    } nets[CONFIG_MAX_NETS];                     /* as in the configuration */
    struct loop_timer *rarp_timer;               /* or NULL: there are no network cards */
    unsigned rarp_left;                  /* how often the host still says where the guest is */
    struct console *virtio_console;      /* the client's side of hvc0, or NULL: there is none */
    struct device *hvc0, *rng, *balloon; /* of the devices, or NULL */
    struct {
        struct vsock_host *host;
        struct iothread *thread;
        struct device *dev; /* of the devices, or NULL */
    } vsock;

    enum machine_state state;
    enum machine_end end;
    int exit_status;
    char *uncertain; /* MACHINE_UNCERTAIN: why, or NULL */
    uint64_t started_ns, resets;
    machine_listener *listener;
    void *listener_opaque;

    int request_fd; /* eventfd: vCPU threads tell the machine thread of a request */
    struct loop_watch *request_watch;
    pthread_mutex_t request_lock;
    struct machine_request request;
};

extern const struct platform_ops machine_platform_ops;

/* It is on its way to another host. Errors: -EBUSY. */
int machine_refuse_leaving(const struct machine *m, const char *verb, struct error *err);
/* From a vCPU thread: ask the machine thread to act; the vCPUs stop. Takes over report. */
void machine_request(struct machine *m, int what, int status, char *report);

/* Machine thread: act on what was asked for. false: nothing was, or the machine has ended. */
bool machine_serve_request(struct machine *m);

/* Tell the listener. Machine thread. */
void machine_tell(struct machine *m, const struct machine_news *news);
void machine_set_state(struct machine *m, enum machine_state state); /* and tell */
/* Pausing without a change of state: vCPUs first, then devices in reverse order. */
void machine_stop_running(struct machine *m);
/* The same, or it runs on: -ETIMEDOUT, a disk has requests that the host does not answer. */
#define MACHINE_SETTLE_NS UINT64_C(5000000000)
int machine_try_stop_running(struct machine *m, struct error *err);
void machine_start_running(struct machine *m);
/* The registry of everything with state (move.c). */
int machine_register_state(struct machine *m, struct error *err);

/* The board: what is where. One file per architecture. */
void board_memory_layout(const struct vm_config *config, struct memory_layout *ret_layout);
int board_create_devices(struct machine *m, struct error *err);
/* The configuration's disks; their threads outlive them. */
int machine_create_disks(struct machine *m, struct error *err);
void machine_destroy_disk_threads(struct machine *m);
/* The configuration's network cards; their threads and netdevs outlive them. */
int machine_create_nets(struct machine *m, struct error *err);
void machine_close_nets(struct machine *m);
/* What the host's kernel writes for them is marked as what they write themselves is. */
int machine_log_nets(struct machine *m, bool on, struct error *err);
/* The configuration's vsock, if there is one; its thread and its socket outlive the device. */
int machine_create_vsock(struct machine *m, struct error *err);
void machine_close_vsock(struct machine *m);
/*
 * Have guest and host announce where the machine is, when it runs again. From start to stop the
 * host does so, at once and then at growing distances; what is left when it stops is said later.
 */
void machine_announce(struct machine *m);
void machine_announce_start(struct machine *m);
void machine_announce_stop(struct machine *m);
/* The address of a card: its own, or made of the machine's name. Errors: -EINVAL, it is none. */
int machine_net_mac(const struct vm_config *config, unsigned index, uint8_t ret_mac[6]);
/* What a disk or network card may do in a second, by its configuration. */
struct virtio_rates machine_rates(const struct config_rate *ops, const struct config_rate *bytes);
/* Go into a cgroup with the configuration's limits, where there are any. */
int machine_enter_cgroup(struct machine *m, struct error *err);
/* Open the configuration's kernel: at creation, or when a machine from elsewhere restarts. */
int machine_open_kernel(struct machine *m, struct error *err);
/* Firmware tables, kernel, and the first vCPU's entry: what power-on and every reset do. */
int board_load(struct machine *m, struct error *err);

#endif
