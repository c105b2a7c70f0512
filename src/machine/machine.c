/* SPDX-License-Identifier: Apache-2.0 */
/*
 * machine: builds the parts in their order and carries the life cycle.
 *
 * The one thing to know: vCPU threads never change the machine. They leave a
 * request (machine_request()), stop, and the machine thread serves it.
 */
#include "internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vmrun/acpi_pm.h"
#include "vmrun/log.h"
#include "vmrun/virtio_devices.h"

const char *machine_state_name(enum machine_state state)
{
    static const char *const names[] = {"created", "running", "paused", "uncertain", "ended"};

    return names[state];
}

void machine_tell(struct machine *m, const struct machine_news *news)
{
    if (m->listener)
        m->listener(m->listener_opaque, news);
}

static void tell(struct machine *m, enum machine_event event, const char *detail)
{
    machine_tell(m, &(struct machine_news){.event = event, .detail = detail});
}

void machine_set_state(struct machine *m, enum machine_state state)
{
    if (m->state == state)
        return;
    m->state = state;
    tell(m, MACHINE_EVENT_STATE, machine_state_name(state));
}

void machine_request(struct machine *m, int what, int status, char *report)
{
    uint64_t one = 1;

    pthread_mutex_lock(&m->request_lock);
    bool first = m->request.what == REQUEST_NONE;
    if (first) {
        m->request.what = what;
        m->request.status = status;
        m->request.report = report;
    }
    pthread_mutex_unlock(&m->request_lock);
    if (!first)
        free(report);

    kvm_vm_request_pause(m->vm);
    if (write(m->request_fd, &one, sizeof(one)) < 0)
        log_error("machine: cannot tell the machine thread: %s", strerror(errno));
}

static void vcpu_crashed(void *opaque, const char *report)
{
    machine_request(opaque, REQUEST_CRASH, 0, strdup(report));
}

void machine_stop_running(struct machine *m)
{
    kvm_vm_pause(m->vm);
    machine_announce_stop(m);
    for (unsigned i = m->device_count; i-- > 0;)
        device_pause(m->devices[i]);
}

int machine_try_stop_running(struct machine *m, struct error *err)
{
    uint64_t until_ns = loop_now_ns() + MACHINE_SETTLE_NS;
    unsigned i = m->device_count;
    int r = 0;

    kvm_vm_pause(m->vm);
    while (r == 0 && i > 0)
        r = device_settle(m->devices[--i], until_ns, err);
    if (r == 0) {
        machine_stop_running(m);
        return 0;
    }
    while (++i < m->device_count)
        device_resume(m->devices[i]);
    pthread_mutex_lock(&m->request_lock);
    bool asked = m->request.what != REQUEST_NONE; /* then no vCPU runs on before that is served */
    pthread_mutex_unlock(&m->request_lock);
    if (!asked)
        kvm_vm_resume(m->vm);
    return error_prefix(err, "given up after %llu s, and the guest goes on",
                        (unsigned long long)(MACHINE_SETTLE_NS / 1000000000u));
}

void machine_start_running(struct machine *m)
{
    for (unsigned i = 0; i < m->device_count; i++)
        device_resume(m->devices[i]);
    kvm_vm_resume(m->vm);
    machine_announce_start(m);
}

static void end(struct machine *m, enum machine_end how, int status)
{
    m->end = how;
    m->exit_status = status;
    machine_set_state(m, MACHINE_ENDED);
}

/* Power-on state again. Only while no vCPU runs. */
static int reset_in_place(struct machine *m, struct error *err)
{
    for (unsigned i = 0; i < m->device_count; i++)
        device_reset(m->devices[i]);
    if (kvm_vm_reset(m->vm, err) < 0 || (!m->boot && machine_open_kernel(m, err) < 0) ||
        board_load(m, err) < 0)
        return error_prefix(err, "reset");
    m->resets++;
    return 0;
}

/* What the guest did while it was being reset no longer counts. */
static void forget_request(struct machine *m)
{
    pthread_mutex_lock(&m->request_lock);
    free(m->request.report);
    m->request = (struct machine_request){.what = REQUEST_NONE};
    pthread_mutex_unlock(&m->request_lock);
}

void machine_crash(struct machine *m, const char *report)
{
    if (m->state == MACHINE_ENDED)
        return;
    if (m->state == MACHINE_RUNNING)
        machine_stop_running(m);
    end(m, MACHINE_END_CRASH, 3);
    tell(m, MACHINE_EVENT_CRASH, report);
}

static void guest_reset(struct machine *m)
{
    struct error err;

    if (m->config->reboot == CONFIG_REBOOT_EXIT) {
        end(m, MACHINE_END_POWEROFF, 0);
        return;
    }
    if (reset_in_place(m, &err) < 0) {
        machine_crash(m, err.msg);
        return;
    }
    log_info("the guest restarted (%llu so far)", (unsigned long long)m->resets);
    tell(m, MACHINE_EVENT_RESET, "by the guest");
    if (m->state == MACHINE_RUNNING)
        machine_start_running(m);
}

bool machine_serve_request(struct machine *m)
{
    struct machine_request request;

    if (m->state == MACHINE_ENDED)
        return false;
    pthread_mutex_lock(&m->request_lock);
    request = m->request;
    m->request = (struct machine_request){.what = REQUEST_NONE};
    pthread_mutex_unlock(&m->request_lock);
    if (request.what == REQUEST_NONE)
        return false; /* a reset by the operator came between, or a hold served it */

    if (m->state == MACHINE_RUNNING)
        machine_stop_running(m);
    switch (request.what) {
    case REQUEST_NONE: break;
    case REQUEST_POWEROFF: end(m, MACHINE_END_POWEROFF, 0); break;
    case REQUEST_RESET:
        forget_request(m); /* another vCPU's, before it stopped */
        guest_reset(m);
        break;
    case REQUEST_EXIT: end(m, MACHINE_END_EXIT, request.status); break;
    case REQUEST_CRASH: machine_crash(m, request.report ? request.report : "out of memory"); break;
    }
    free(request.report);
    return true;
}

static void take_request(void *opaque, uint32_t events)
{
    struct machine *m = opaque;
    uint64_t count;

    (void)events;
    if (read(m->request_fd, &count, sizeof(count)) == sizeof(count))
        (void)machine_serve_request(m);
}

static int create_console(struct machine *m, const struct config_serial *config,
                          void (*quit)(void *opaque), struct console **ret_console,
                          struct error *err)
{
    static const enum console_kind kinds[] = {
        [CONFIG_CONSOLE_STDIO] = CONSOLE_STDIO,
        [CONFIG_CONSOLE_PTY] = CONSOLE_PTY,
        [CONFIG_CONSOLE_FILE] = CONSOLE_FILE,
        [CONFIG_CONSOLE_NONE] = CONSOLE_NONE,
    };
    const struct console_params params = {
        .kind = kinds[config->kind],
        .path = config->path,
        .quit = quit,
        .opaque = m,
        .terminal_later = m->image && m->image->disks_elsewhere,
    };

    return console_create(&params, m->loop, ret_console, err);
}

static int create_consoles(struct machine *m, void (*quit)(void *opaque), struct error *err)
{
    int r = create_console(m, &m->config->serial, quit, &m->console, err);

    if (r < 0 || m->config->virtio_console.kind == CONFIG_CONSOLE_NONE)
        return r;
    r = create_console(m, &m->config->virtio_console, quit, &m->virtio_console, err);
    return r < 0 ? error_prefix(err, "hvc0") : 0;
}

static void quit(void *opaque)
{
    machine_kill(opaque);
}

int machine_open_kernel(struct machine *m, struct error *err)
{
    static const enum boot_unpack unpack[] = {
        [CONFIG_UNPACK_AUTO] = BOOT_UNPACK_AUTO,
        [CONFIG_UNPACK_ALWAYS] = BOOT_UNPACK_ALWAYS,
        [CONFIG_UNPACK_GUEST] = BOOT_UNPACK_GUEST,
    };
    const struct boot_params_host params = {
        .kernel = m->config->boot.kernel,
        .initrd = m->config->boot.initrd,
        .cmdline = m->config->boot.cmdline,
        .memory_size = m->config->memory,
        .unpack = unpack[m->config->boot.unpack],
        .cache_delay_ms = 2000, /* most guests are up by then, and want no company until then */
    };

    return boot_open(&params, &m->boot, err);
}

static int create_vm(struct machine *m, struct error *err)
{
    static const enum cpu_model models[] = {
        [CONFIG_CPU_HOST] = CPU_MODEL_HOST,
        [CONFIG_CPU_V2] = CPU_MODEL_X86_64_V2,
        [CONFIG_CPU_V3] = CPU_MODEL_X86_64_V3,
    };
    const struct kvm_vm_params params = {
        .cpus = (unsigned)m->config->cpus,
        .cpu_model = models[m->config->cpu.model],
        .cpuid = m->image ? m->image->cpuid : NULL,
        .cpuid_len = m->image ? m->image->cpuid_len : 0,
        .memory = m->memory,
        .pio = m->pio,
        .mmio = m->mmio,
        .crashed = vcpu_crashed,
        .opaque = m,
    };

    return kvm_vm_create(&params, &m->vm, err);
}

static int create_memory(struct machine *m, struct error *err)
{
    const struct machine_image *image = m->image;
    struct memory_layout layout;
    int r;

    board_memory_layout(m->config, &layout);
    r = guest_memory_create(&layout, &m->memory, err);
    for (unsigned i = 0; r == 0 && image && image->ram_fd >= 0 && i < m->memory->count; i++)
        r = guest_memory_map_file(m->memory, i, image->ram_fd, image->ram_offset[i], err);
    return r;
}

/* Cheap refusals first: files, then memory and KVM; the terminal is touched last. */
static int build(struct machine *m, struct error *err)
{
    m->request_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (m->request_fd < 0)
        return error_errno(err, errno, "machine");
    if (machine_enter_cgroup(m, err) < 0) /* before there is anything to be counted */
        return -err->code;
    if (loop_watch_create(m->loop, m->request_fd, EPOLLIN, NULL, take_request, m, &m->request_watch,
                          err) < 0 ||
        (!m->image && machine_open_kernel(m, err) < 0) || create_memory(m, err) < 0 ||
        bus_create(BUS_PIO, &m->pio, err) < 0 || bus_create(BUS_MMIO, &m->mmio, err) < 0 ||
        create_vm(m, err) < 0 || create_consoles(m, quit, err) < 0 ||
        board_create_devices(m, err) < 0 || machine_register_state(m, err) < 0 ||
        (!m->image && board_load(m, err) < 0))
        return -err->code;
    return 0;
}

int machine_create_from(const struct vm_config *config, struct loop *loop,
                        const struct machine_image *image, struct machine **ret_machine,
                        struct error *err)
{
    struct machine *m = calloc(1, sizeof(*m));

    if (!m)
        return error_set(err, ENOMEM, "machine: out of memory");
    m->effective = *config;
    m->config = &m->effective;
    m->image = image;
    m->loop = loop;
    m->platform.ops = &machine_platform_ops;
    m->request_fd = -1;
    pthread_mutex_init(&m->request_lock, NULL);

    int r = build(m, err);
    if (r < 0) {
        machine_destroy(m);
        return r;
    }
    m->image = NULL;
    *ret_machine = m;
    return 0;
}

int machine_create(const struct vm_config *config, struct loop *loop, struct machine **ret_machine,
                   struct error *err)
{
    return machine_create_from(config, loop, NULL, ret_machine, err);
}

void machine_destroy(struct machine *m)
{
    if (!m)
        return;
    if (m->vm)
        machine_stop_running(m);
    for (unsigned i = m->device_count; i-- > 0;)
        device_destroy(m->devices[i]);
    machine_destroy_disk_threads(m);
    machine_close_nets(m);
    machine_close_vsock(m);
    console_destroy(m->virtio_console);
    console_destroy(m->console);
    state_registry_destroy(m->registry);
    kvm_vm_destroy(m->vm);
    bus_destroy(m->pio);
    bus_destroy(m->mmio);
    guest_memory_destroy(m->memory);
    boot_close(m->boot);
    loop_watch_destroy(m->request_watch);
    if (m->request_fd >= 0)
        close(m->request_fd);
    forget_request(m);
    pthread_mutex_destroy(&m->request_lock);
    cgroup_leave(m->cgroup);
    free(m->uncertain);
    free(m);
}

void machine_set_listener(struct machine *m, machine_listener *listener, void *opaque)
{
    m->listener = listener;
    m->listener_opaque = opaque;
}

int machine_refuse(const struct machine *m, const char *verb, struct error *err)
{
    const char *name = m->config->name ? m->config->name : "NAME";

    if (m->state == MACHINE_UNCERTAIN)
        return error_set(err, EBUSY,
                         "cannot %s: nobody can tell whether the machine runs on another host: %s; "
                         "look there, then 'vmrun resume %s --force' or 'vmrun kill %s' here",
                         verb, m->uncertain ? m->uncertain : "out of memory", name, name);
    return error_set(err, EBUSY, "cannot %s: the machine is %s", verb,
                     machine_state_name(m->state));
}

int machine_start(struct machine *m, struct error *err)
{
    if (m->state != MACHINE_CREATED)
        return machine_refuse(m, "start", err);
    m->started_ns = loop_now_ns();
    machine_start_running(m);
    machine_set_state(m, MACHINE_RUNNING);
    return 0;
}

int machine_pause(struct machine *m, struct error *err)
{
    if (m->state == MACHINE_PAUSED)
        return 0;
    if (m->state == MACHINE_ENDED || m->state == MACHINE_UNCERTAIN)
        return machine_refuse(m, "pause", err);
    if (machine_refuse_leaving(m, "pause", err) < 0)
        return -err->code;
    int r = m->state == MACHINE_RUNNING && !m->held ? machine_try_stop_running(m, err) : 0;
    if (r < 0)
        return r;
    if (m->state == MACHINE_CREATED)
        m->started_ns = loop_now_ns();
    machine_set_state(m, MACHINE_PAUSED);
    return 0;
}

int machine_refuse_leaving(const struct machine *m, const char *verb, struct error *err)
{
    return m->leaving == MACHINE_STAYS
               ? 0
               : error_set(err, EBUSY,
                           "cannot %s: the machine is just moving to another host; in a moment it "
                           "can be asked there, or here if it stays",
                           verb);
}

/* Nothing may change what is being written of it. */
static int refuse_held(const struct machine *m, const char *verb, struct error *err)
{
    return machine_refuse_leaving(m, verb, err) < 0
               ? -err->code
               : error_set(err, EBUSY, "cannot %s: the machine stands still to be saved", verb);
}

int machine_resume(struct machine *m, struct error *err)
{
    if (m->state == MACHINE_RUNNING)
        return 0;
    if (m->state != MACHINE_PAUSED)
        return machine_refuse(m, "resume", err);
    if (m->held)
        return refuse_held(m, "resume", err);
    machine_start_running(m);
    machine_set_state(m, MACHINE_RUNNING);
    return 0;
}

int machine_reset(struct machine *m, struct error *err)
{
    if (m->state != MACHINE_RUNNING && m->state != MACHINE_PAUSED)
        return machine_refuse(m, "reset", err);
    if (m->held)
        return refuse_held(m, "reset", err);
    int r = m->state == MACHINE_RUNNING ? machine_try_stop_running(m, err) : 0;
    if (r < 0)
        return r;
    forget_request(m);
    if (reset_in_place(m, err) < 0) {
        machine_crash(m, err->msg);
        return -err->code;
    }
    tell(m, MACHINE_EVENT_RESET, "by the operator");
    if (m->state == MACHINE_RUNNING)
        machine_start_running(m);
    return 0;
}

int machine_press_power_button(struct machine *m, struct error *err)
{
    if (m->state != MACHINE_RUNNING)
        return machine_refuse(m, "press the power button", err);
    if (machine_refuse_leaving(m, "press the power button", err) < 0)
        return -err->code;
    acpi_pm_press_power_button(m->power_button);
    return 0;
}

int machine_kill_here(struct machine *m, struct error *err)
{
    if (m->leaving == MACHINE_IS_GIVEN && machine_refuse_leaving(m, "kill", err) < 0)
        return -err->code;
    machine_kill(m);
    return 0;
}

void machine_kill(struct machine *m)
{
    if (m->state == MACHINE_ENDED)
        return;
    if (m->state == MACHINE_RUNNING)
        machine_stop_running(m);
    end(m, MACHINE_END_KILLED, 0);
}

enum machine_state machine_state(const struct machine *m)
{
    return m->state;
}

enum machine_end machine_end(const struct machine *m, int *ret_status)
{
    *ret_status = m->exit_status;
    return m->end;
}

/* Bytes of [host, host + size) that are resident. */
static uint64_t resident_bytes(const uint8_t *host, uint64_t size)
{
    unsigned char vec[4096];
    uint64_t pages = 0, step = sizeof(vec) * UINT64_C(4096);

    for (uint64_t at = 0; at < size; at += step) {
        uint64_t len = size - at < step ? size - at : step;

        if (mincore((void *)(host + at), len, vec) < 0)
            break;
        for (uint64_t i = 0; i < len / 4096; i++)
            pages += vec[i] & 1;
    }
    return pages * 4096;
}

void machine_info(const struct machine *m, struct machine_info *ret_info)
{
    *ret_info = (struct machine_info){
        .uptime_ns = m->started_ns ? loop_now_ns() - m->started_ns : 0,
        .resets = m->resets,
        .kernel = m->boot ? boot_describe(m->boot) : NULL,
        .console = console_describe(m->console),
        .virtio_console = m->virtio_console ? console_describe(m->virtio_console) : NULL,
        .uncertain = m->uncertain,
    };
    for (unsigned i = 0; i < m->memory->count; i++)
        ret_info->memory_host_bytes +=
            resident_bytes(m->memory->regions[i].host, m->memory->regions[i].size);
}

const struct vm_config *machine_config(const struct machine *m)
{
    return m->config;
}

unsigned machine_cpus(const struct machine *m)
{
    return (unsigned)m->config->cpus;
}

struct console *machine_console(struct machine *m)
{
    return m->console;
}

void machine_take_terminal(struct machine *m)
{
    struct error err;

    if (console_take_terminal(m->console, &err) < 0 ||
        (m->virtio_console && console_take_terminal(m->virtio_console, &err) < 0))
        log_warn("%s", err.msg);
}

void machine_resize_virtio_console(struct machine *m, uint16_t columns, uint16_t rows)
{
    if (m->hvc0)
        virtio_console_resize(m->hvc0, columns, rows);
}
