/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What this host's KVM can do, each finding with its cure. Whether guest kernel
 * code runs on the CPU or is emulated is measured, not guessed from names: a
 * few KVMs (nested ones without hardware help) emulate ring 0 one instruction at
 * a time and no stock Linux boots on them.
 */
#include "internal.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define ITERATIONS 100000u
#define PROBE_LIMIT_NS 300000000L
/*
 * Per iteration of two instructions. A CPU takes about 0.5 ns, one that is itself
 * emulated 10 to 30 ns; an instruction emulator in KVM 700 ns and more.
 */
#define NATIVE_NS 200.0

#define PROBE_GPA 0x1000u

struct probe {
    int vm_fd, fd;
    uint8_t *page;
    struct kvm_run *run;
    size_t run_bytes;

    pthread_mutex_t lock;
    pthread_cond_t done_cond;
    bool done;
    int result;
    double ns; /* of CPU time */
};

static void add(struct kvm_report *report, enum kvm_verdict verdict, const char *key,
                const char *cure, const char *fmt, ...) __attribute__((format(printf, 5, 6)));

static void add(struct kvm_report *report, enum kvm_verdict verdict, const char *key,
                const char *cure, const char *fmt, ...)
{
    struct kvm_finding *finding;
    va_list args;

    if (report->count == sizeof(report->findings) / sizeof(report->findings[0]))
        return;
    finding = &report->findings[report->count++];
    finding->key = key;
    finding->verdict = verdict;
    snprintf(finding->cure, sizeof(finding->cure), "%s", cure);
    va_start(args, fmt);
    vsnprintf(finding->text, sizeof(finding->text), fmt, args);
    va_end(args);
}

/* The thread's CPU time, which includes the guest's: other load on the host does not count. */
static double cpu_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static int run_loop(struct probe *p, uint32_t iterations)
{
    struct kvm_regs regs = {.rip = PROBE_GPA, .rcx = iterations, .rflags = 2};

    if (ioctl(p->fd, KVM_SET_REGS, &regs) < 0)
        return -errno;
    if (ioctl(p->fd, KVM_RUN, 0) < 0)
        return -errno;
    return p->run->exit_reason == KVM_EXIT_HLT ? 0 : -EIO;
}

static void *probe_thread(void *opaque)
{
    struct probe *p = opaque;
    sigset_t kick;
    double from = 0, to = 0;
    int r;

    sigemptyset(&kick);
    sigaddset(&kick, KVM_KICK_SIGNAL);
    pthread_sigmask(SIG_UNBLOCK, &kick, NULL);

    r = run_loop(p, 10); /* the first entry builds page tables */
    if (r == 0) {
        from = cpu_ns();
        r = run_loop(p, ITERATIONS);
        to = cpu_ns();
    }
    if (r == -EINTR) {
        struct kvm_regs regs;

        /* Out of time: what it did until then gives the speed as well. */
        to = cpu_ns();
        if (ioctl(p->fd, KVM_GET_REGS, &regs) == 0 && regs.rcx < ITERATIONS) {
            to = from + (to - from) * ITERATIONS / (double)(ITERATIONS - (uint32_t)regs.rcx);
            r = 0;
        }
    }

    pthread_mutex_lock(&p->lock);
    p->result = r;
    p->ns = (to - from) / ITERATIONS;
    p->done = true;
    pthread_cond_signal(&p->done_cond);
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

/* Flat 32-bit protected mode, ring 0, paging off: a CPU runs it without help from an emulator. */
static int probe_set_up(struct probe *p, int device_fd)
{
    /* dec %ecx; jnz back to it; hlt */
    static const uint8_t code[] = {0x49, 0x75, 0xfd, 0xf4};
    uint64_t identity_map = 0xfffbc000;
    struct kvm_userspace_memory_region slot = {
        .guest_phys_addr = PROBE_GPA,
        .memory_size = GUEST_PAGE_SIZE,
    };
    struct kvm_sregs sregs;
    void *map;

    p->vm_fd = ioctl(device_fd, KVM_CREATE_VM, 0);
    if (p->vm_fd < 0)
        return -errno;
    map = mmap(NULL, GUEST_PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED)
        return -errno;
    p->page = map;
    memcpy(p->page, code, sizeof(code));
    slot.userspace_addr = (uintptr_t)p->page;
    if (ioctl(p->vm_fd, KVM_SET_TSS_ADDR, 0xfffbd000) < 0 ||
        ioctl(p->vm_fd, KVM_SET_IDENTITY_MAP_ADDR, &identity_map) < 0 ||
        ioctl(p->vm_fd, KVM_SET_USER_MEMORY_REGION, &slot) < 0)
        return -errno;

    p->fd = ioctl(p->vm_fd, KVM_CREATE_VCPU, 0);
    if (p->fd < 0)
        return -errno;
    p->run_bytes = (size_t)ioctl(device_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
    map = mmap(NULL, p->run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, p->fd, 0);
    if (map == MAP_FAILED)
        return -errno;
    p->run = map;

    if (ioctl(p->fd, KVM_GET_SREGS, &sregs) < 0)
        return -errno;
    sregs.cs = (struct kvm_segment){
        .limit = 0xffffffff, .selector = 8, .type = 0xb, .present = 1, .db = 1, .s = 1, .g = 1};
    sregs.ds = sregs.cs;
    sregs.ds.type = 3;
    sregs.ds.selector = 16;
    sregs.es = sregs.fs = sregs.gs = sregs.ss = sregs.ds;
    sregs.cr0 |= 1;
    return ioctl(p->fd, KVM_SET_SREGS, &sregs) < 0 ? -errno : 0;
}

static void probe_tear_down(struct probe *p)
{
    if (p->run)
        munmap(p->run, p->run_bytes);
    if (p->fd >= 0)
        close(p->fd);
    if (p->vm_fd >= 0)
        close(p->vm_fd);
    if (p->page)
        munmap(p->page, GUEST_PAGE_SIZE);
    pthread_cond_destroy(&p->done_cond);
    pthread_mutex_destroy(&p->lock);
}

/* CPU nanoseconds of one iteration. Errors: what the ioctls said. */
static int measure(int device_fd, double *ret_ns)
{
    struct probe p = {.vm_fd = -1, .fd = -1};
    struct timespec limit;
    struct error ignored;
    pthread_t thread;
    int r;

    pthread_mutex_init(&p.lock, NULL);
    pthread_cond_init(&p.done_cond, NULL);
    r = probe_set_up(&p, device_fd);
    if (r == 0)
        r = host_install_kick(&ignored);
    if (r == 0)
        r = -pthread_create(&thread, NULL, probe_thread, &p);
    if (r == 0) {
        clock_gettime(CLOCK_REALTIME, &limit);
        limit.tv_nsec += PROBE_LIMIT_NS;
        limit.tv_sec += limit.tv_nsec / 1000000000;
        limit.tv_nsec %= 1000000000;
        pthread_mutex_lock(&p.lock);
        while (!p.done && r == 0)
            r = -pthread_cond_timedwait(&p.done_cond, &p.lock, &limit);
        if (!p.done) {
            __atomic_store_n(&p.run->immediate_exit, 1, __ATOMIC_RELEASE);
            pthread_kill(thread, KVM_KICK_SIGNAL);
        }
        pthread_mutex_unlock(&p.lock);
        pthread_join(thread, NULL);
        r = p.result;
    }
    if (r == 0)
        *ret_ns = p.ns;
    probe_tear_down(&p);
    return r;
}

static void examine_speed(struct kvm_report *report, int device_fd)
{
    double ns = 0;
    int r = measure(device_fd, &ns);

    if (r < 0) {
        add(report, KVM_FAIL, "speed", r == -EBUSY ? "end the other hypervisor on this host" : "",
            "no scratch VM could be run: %s", strerrordesc_np(-r));
        report->usable = false;
        return;
    }
    report->ring0_ns = ns;
    report->native = ns < NATIVE_NS;
    if (report->native)
        add(report, KVM_OK, "speed", "", "guest kernel code runs on the CPU (%.1f ns an iteration)",
            ns);
    else
        add(report, KVM_FAIL, "speed",
            "use a host with Intel VT-x or AMD-V, or nested virtualization",
            "this KVM emulates guest kernel code (about %.0f ns an instruction): "
            "no stock Linux boots on it",
            ns / 2);
}

static void examine_capabilities(struct kvm_report *report, int device_fd)
{
    /* Keys are for programs and stay: one for each optional capability, one for all required. */
    static const char *const keys[] = {"cap.get_tsc_khz", "cap.tsc_deadline_timer",
                                       "cap.x2apic_api",  "cap.xcrs",
                                       "cap.tsc_control", "cap.manual_dirty_log_protect2"};
    struct error err;
    unsigned key = 0;

    if (host_check_capabilities(device_fd, &err) < 0) {
        add(report, KVM_FAIL, "cap.required", "install a newer kernel", "%s", err.msg);
        report->usable = false;
    } else {
        add(report, KVM_OK, "cap.required", "", "all capabilities that vmrun needs are there");
    }
    for (const struct kvm_capability *cap = kvm_capabilities; cap->name; cap++) {
        if (cap->required)
            continue;
        bool has = ioctl(device_fd, KVM_CHECK_EXTENSION, cap->number) > 0;
        add(report, has ? KVM_OK : KVM_WARN, keys[key++], "", "KVM_CAP_%s%s: %s", cap->name,
            has ? "" : " is missing, not possible", cap->use);
    }
}

void kvm_examine_host(struct kvm_report *ret_report)
{
    struct kvm_report *report = ret_report;
    struct error err;
    char *cure;
    int fd = -1;

    *report = (struct kvm_report){0};
    if (host_open("/dev/kvm", &fd, &err) < 0) {
        /* Those that have a cure are "what: cure". */
        bool curable =
            err.code == ENOENT || err.code == EACCES || err.code == EBUSY || err.code == ENOTSUP;
        cure = curable ? strstr(err.msg, ": ") : NULL;
        if (cure)
            *cure = '\0';
        add(report, KVM_FAIL,
            err.code == ENOENT    ? "device"
            : err.code == EACCES  ? "permission"
            : err.code == ENOTSUP ? "api"
                                  : "device",
            cure ? cure + 2 : "", "%s", err.msg);
        return;
    }

    report->usable = true;
    report->max_cpus = host_max_cpus(fd);
    add(report, KVM_OK, "device", "", "/dev/kvm is there");
    add(report, KVM_OK, "permission", "", "/dev/kvm opens for reading and writing");
    add(report, KVM_OK, "api", "", "KVM interface version %d", ioctl(fd, KVM_GET_API_VERSION, 0));
    add(report, KVM_OK, "cpus", "", "up to %u CPUs in a VM", report->max_cpus);
    examine_capabilities(report, fd);
    if (report->usable)
        examine_speed(report, fd);
    close(fd);
}
