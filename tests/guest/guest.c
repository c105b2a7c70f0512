/* SPDX-License-Identifier: Apache-2.0 */
/* A machine for one payload; see guest.h. */
#include "guest.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "vmrun/boot.h"

#define RAM_BYTES (16u << 20)
#define SKIPPED 77

static void record(struct guest *g, bool mmio, bool write, uint64_t addr, unsigned size,
                   uint64_t value)
{
    pthread_mutex_lock(&g->lock);
    if (g->count < GUEST_TAPE)
        g->tape[g->count] = (struct access){mmio, write, addr, value, size};
    g->count++;
    if (g->count == g->pause_at)
        kvm_vm_request_pause(g->vm);
    pthread_cond_broadcast(&g->changed);
    pthread_mutex_unlock(&g->lock);
}

/* Region 0 is ports from 0x600, region 1 is memory from 0xd0000000. */
static uint64_t address(unsigned region, uint64_t offset)
{
    return (region ? 0xd0000000 : 0x600) + offset;
}

static uint64_t recorder_read(struct device *dev, unsigned region, uint64_t offset, unsigned size)
{
    uint64_t value = size == 8 ? GUEST_READ_VALUE : GUEST_READ_VALUE & ((1ull << 8 * size) - 1);

    record(container_of(dev, struct guest, recorder), region == 1, false, address(region, offset),
           size, value);
    return value;
}

static void recorder_write(struct device *dev, unsigned region, uint64_t offset, unsigned size,
                           uint64_t value)
{
    record(container_of(dev, struct guest, recorder), region == 1, true, address(region, offset),
           size, value);
}

static void finisher_write(struct device *dev, unsigned region, uint64_t offset, unsigned size,
                           uint64_t value)
{
    struct guest *g = container_of(dev, struct guest, finisher);

    (void)region, (void)offset, (void)size;
    kvm_vm_request_pause(g->vm);
    pthread_mutex_lock(&g->lock);
    g->status = (int)((value << 1 | 1) & 0xff);
    pthread_cond_broadcast(&g->changed);
    pthread_mutex_unlock(&g->lock);
}

static const struct device_ops recorder_ops = {
    .type = "recorder",
    .read = recorder_read,
    .write = recorder_write,
};
static const struct device_ops finisher_ops = {
    .type = "finisher",
    .read = recorder_read,
    .write = finisher_write,
};

static void crashed(void *opaque, const char *report)
{
    struct guest *g = opaque;

    pthread_mutex_lock(&g->lock);
    g->crashes++;
    snprintf(g->report, sizeof(g->report), "%s", report);
    pthread_cond_broadcast(&g->changed);
    pthread_mutex_unlock(&g->lock);
}

void guest_payload(const char *name, char *path, size_t len)
{
    const char *payloads = getenv("VMRUN_PAYLOADS"); /* where the tests run elsewhere: lab.sh */

    snprintf(path, len, "%s/%s.elf", payloads ? payloads : VMRUN_PAYLOADS, name);
}

/* cpuid: of another machine, or empty. */
static void create(struct guest *g, const char *name, unsigned cpus, bool ring3,
                   const struct writer *cpuid)
{
    const struct memory_layout layout = {
        .size = RAM_BYTES, .hole_start = 0xc0000000, .hole_end = 1ull << 32};
    char path[512];
    struct error err = {0};

    *g = (struct guest){.status = -1, .name = name, .cpus = cpus, .ring3 = ring3};
    g->tape = calloc(GUEST_TAPE, sizeof(g->tape[0]));
    assert_non_null(g->tape);
    pthread_mutex_init(&g->lock, NULL);
    pthread_cond_init(&g->changed, NULL);
    device_init(&g->recorder, &recorder_ops, "recorder");
    device_init(&g->finisher, &finisher_ops, "finisher");

    int r = guest_memory_create(&layout, &g->memory, &err);
    if (r == 0)
        r = bus_create(BUS_PIO, &g->pio, &err);
    if (r == 0)
        r = bus_create(BUS_MMIO, &g->mmio, &err);
    if (r == 0)
        r = bus_map(g->pio, 0x600, 0x100, &g->recorder, 0, &err);
    if (r == 0)
        r = bus_map(g->mmio, 0xd0000000, 0x2000, &g->recorder, 1, &err);
    if (r == 0)
        r = bus_map(g->pio, 0x501, 4, &g->finisher, 0, &err);

    const struct kvm_vm_params params = {
        .cpus = cpus,
        .cpuid = cpuid->data,
        .cpuid_len = cpuid->len,
        .memory = g->memory,
        .pio = g->pio,
        .mmio = g->mmio,
        .crashed = crashed,
        .opaque = g,
    };
    if (r == 0)
        r = kvm_vm_create(&params, &g->vm, &err);
    if (r < 0)
        fail_msg("%s", err.msg);

    guest_payload(name, path, sizeof(path));
    const struct boot_params_host boot = {
        .kernel = path, .cmdline = ring3 ? "3" : "", .memory_size = RAM_BYTES};
    if (boot_open(&boot, &g->boot, &err) < 0)
        fail_msg("%s", err.msg);
}

void guest_create(struct guest *g, const char *name, unsigned cpus, bool ring3)
{
    create(g, name, cpus, ring3, &(struct writer){0});
    guest_load(g);
}

void guest_create_like(struct guest *g, const struct guest *other)
{
    struct writer cpuid = {0};
    struct error err;

    if (kvm_vm_save_cpuid(other->vm, &cpuid, &err) < 0)
        fail_msg("%s", err.msg);
    create(g, other->name, other->cpus, other->ring3, &cpuid);
    free(cpuid.data);
    for (unsigned i = 0; i < g->memory->count; i++)
        memcpy(g->memory->regions[i].host, other->memory->regions[i].host,
               g->memory->regions[i].size);
}

static const struct state_registry *registry(struct guest *g)
{
    struct error err;

    if (!g->registry && (state_registry_create(&g->registry, &err) < 0 ||
                         kvm_vm_add_state(g->vm, g->registry, &err) < 0))
        fail_msg("%s", err.msg);
    return g->registry;
}

struct writer guest_save(struct guest *g)
{
    struct writer w = {0};
    struct error err;

    if (state_registry_save(registry(g), &w, &err) < 0)
        fail_msg("%s", err.msg);
    return w;
}

int guest_restore(struct guest *g, const struct writer *state, uint64_t advance_ns,
                  struct error *err)
{
    struct reader r = {.data = state->data, .len = state->len};
    int rc = state_registry_load(registry(g), &r, err);

    return rc < 0 ? rc : kvm_vm_apply_state(g->vm, advance_ns, err);
}

void guest_move(struct guest *from, struct guest *to)
{
    struct writer state = guest_save(from);
    struct error err;

    guest_create_like(to, from);
    if (guest_restore(to, &state, 0, &err) < 0)
        fail_msg("%s", err.msg);
    free(state.data);
}

void guest_run_for(struct guest *g, unsigned accesses)
{
    unsigned wanted = g->count + accesses;

    kvm_vm_resume(g->vm);
    guest_wait_accesses(g, wanted);
    kvm_vm_pause(g->vm);
    if (g->crashes)
        fail_msg("%s", g->report);
}

void guest_load(struct guest *g)
{
    struct cpu_entry entry;
    struct error err;

    assert_int_equal(guest_memory_zero(g->memory, 0, RAM_BYTES), 0);
    if (boot_load(g->boot, g->memory, 0, NULL, 0, &entry, &err) < 0 ||
        kvm_vm_set_entry(g->vm, &entry, &err) < 0)
        fail_msg("%s", err.msg);
    pthread_mutex_lock(&g->lock);
    g->count = 0;
    g->status = -1;
    g->crashes = 0;
    pthread_mutex_unlock(&g->lock);
}

void guest_destroy(struct guest *g)
{
    state_registry_destroy(g->registry);
    kvm_vm_destroy(g->vm);
    boot_close(g->boot);
    bus_destroy(g->pio);
    bus_destroy(g->mmio);
    guest_memory_destroy(g->memory);
    device_fini(&g->recorder);
    device_fini(&g->finisher);
    pthread_cond_destroy(&g->changed);
    pthread_mutex_destroy(&g->lock);
    free(g->tape);
}

static void wait_for(struct guest *g, unsigned count, const char *what)
{
    struct timespec limit;
    int r = 0;

    clock_gettime(CLOCK_REALTIME, &limit);
    limit.tv_sec += 100;
    pthread_mutex_lock(&g->lock);
    while (r == 0 && g->count < count && g->status < 0 && !g->crashes)
        r = pthread_cond_timedwait(&g->changed, &g->lock, &limit);
    pthread_mutex_unlock(&g->lock);
    if (r == 0)
        return;

    kvm_vm_pause(g->vm);
    char *registers = kvm_vm_describe(g->vm);
    print_error("%s", registers);
    free(registers);
    fail_msg("after 100 s the payload had not %s; it made %u accesses", what, g->count);
}

void guest_wait_accesses(struct guest *g, unsigned count)
{
    wait_for(g, count, "made enough accesses");
}

void guest_wait_end(struct guest *g)
{
    wait_for(g, UINT32_MAX, "ended");
}

bool guest_has_ring3(void)
{
    struct kvm_report report;

    kvm_examine_host(&report);
    return report.usable && !report.native;
}

int guest_main(int (*run)(void))
{
    struct error err;
    unsigned max;

    if (kvm_max_cpus(&max, &err) < 0) {
        printf("skipped: %s\n", err.msg);
        return SKIPPED;
    }
    return run();
}
