/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host's KVM: opening /dev/kvm with words that help when it does not
 * open, and the list of capabilities that vmrun builds on.
 */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define API_VERSION 12
/* The local APIC's 8-bit identifier 255 means everyone. */
#define MOST_CPUS 255u

#define CAP(id, need, without) \
    { \
#id, KVM_CAP_##id, need, without \
    }
const struct kvm_capability kvm_capabilities[] = {
    CAP(IRQCHIP, true, "interrupt controllers in the kernel"),
    CAP(USER_MEMORY, true, "guest memory"),
    CAP(SET_TSS_ADDR, true, "vCPUs on Intel hosts"),
    CAP(SET_IDENTITY_MAP_ADDR, true, "vCPUs on Intel hosts"),
    CAP(EXT_CPUID, true, "a CPU description"),
    CAP(PIT2, true, "the timer chip"),
    CAP(PIT_STATE2, true, "reset"),
    CAP(MP_STATE, true, "reset"),
    CAP(VCPU_EVENTS, true, "reset"),
    CAP(DEBUGREGS, true, "reset"),
    CAP(XSAVE, true, "reset"),
    CAP(IRQ_ROUTING, true, "message-signalled interrupts"),
    CAP(IRQFD, true, "interrupts from device threads"),
    CAP(IRQFD_RESAMPLE, true, "level-triggered interrupts from device threads"),
    CAP(IOEVENTFD, true, "doorbells"),
    CAP(IOEVENTFD_ANY_LENGTH, true, "doorbells of any width"),
    CAP(IMMEDIATE_EXIT, true, "pause"),
    CAP(ADJUST_CLOCK, true, "a clock that stands still in a pause"),
    CAP(KVMCLOCK_CTRL, true, "pauses without soft-lockup messages"),
    CAP(GET_TSC_KHZ, false, "a clock that needs no calibration"),
    CAP(TSC_DEADLINE_TIMER, false, "precise guest timers"),
    CAP(X2APIC_API, false, "an APIC state that other hosts understand"),
    CAP(XCRS, false, "AVX in guests"),
    CAP(TSC_CONTROL, false, "moving guests to hosts with another TSC frequency"),
    CAP(MANUAL_DIRTY_LOG_PROTECT2, false, "saving and moving running guests quickly"),
    {NULL, 0, false, NULL},
};

int host_open(const char *path, int *ret_fd, struct error *err)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);
    int code = errno;

    if (fd >= 0) {
        int version = ioctl(fd, KVM_GET_API_VERSION, 0);

        if (version == API_VERSION) {
            *ret_fd = fd;
            return 0;
        }
        close(fd);
        if (version < 0)
            return error_set(err, ENOTSUP, "%s is not a KVM device", path);
        return error_set(err, ENOTSUP,
                         "%s speaks version %d of the KVM interface, vmrun needs %d: "
                         "install a newer kernel",
                         path, version, API_VERSION);
    }

    switch (code) {
    case ENOENT:
    case ENODEV:
    case ENXIO:
        return error_set(err, ENOENT,
                         "no %s: load the module with 'modprobe kvm-intel' or 'modprobe kvm-amd', "
                         "and check that virtualization is on in the firmware",
                         path);
    case EACCES:
    case EPERM: break;
    case EBUSY:
        return error_set(err, EBUSY, "%s is busy: end the other hypervisor on this host first",
                         path);
    default: return error_errno(err, code, "open %s", path);
    }

    struct stat st;
    if (stat(path, &st) < 0)
        return error_set(err, EACCES, "no permission on %s", path);

    char group_text[1024], user_text[1024];
    struct group group, *has_group = NULL;
    struct passwd user, *has_user = NULL;

    getgrgid_r(st.st_gid, &group, group_text, sizeof(group_text), &has_group);
    getpwuid_r(getuid(), &user, user_text, sizeof(user_text), &has_user);
    if (!has_group || (st.st_mode & 060) != 060)
        return error_set(err, EACCES,
                         "no permission on %s (mode %03o, group '%s'): 'sudo chgrp kvm %s && "
                         "sudo chmod 660 %s', and be in that group",
                         path, (unsigned)st.st_mode & 0777, has_group ? group.gr_name : "?", path,
                         path);
    return error_set(
        err, EACCES,
        "no permission on %s (group '%s'): 'sudo usermod -aG %s %s', then log in again", path,
        group.gr_name, group.gr_name, has_user ? user.pw_name : "USER");
}

int host_check_capabilities(int device_fd, struct error *err)
{
    char missing[256] = "";
    size_t len = 0;

    for (const struct kvm_capability *cap = kvm_capabilities; cap->name; cap++) {
        if (!cap->required || ioctl(device_fd, KVM_CHECK_EXTENSION, cap->number) > 0)
            continue;
        int n = snprintf(missing + len, sizeof(missing) - len, "%sKVM_CAP_%s", len ? ", " : "",
                         cap->name);
        len += (size_t)n < sizeof(missing) - len ? (size_t)n : sizeof(missing) - len - 1;
    }
    if (len)
        return error_set(err, ENOTSUP, "this host's KVM lacks %s: a newer kernel may have it",
                         missing);
    return 0;
}

unsigned host_max_cpus(int device_fd)
{
    int max = ioctl(device_fd, KVM_CHECK_EXTENSION, KVM_CAP_MAX_VCPUS);

    if (max <= 0) /* api.rst: then at most what is recommended, and that is 4 when not told */
        max = ioctl(device_fd, KVM_CHECK_EXTENSION, KVM_CAP_NR_VCPUS);
    if (max <= 0)
        max = 4;
    return (unsigned)max < MOST_CPUS ? (unsigned)max : MOST_CPUS;
}

int kvm_max_cpus(unsigned *ret_max, struct error *err)
{
    int fd = -1, r = host_open("/dev/kvm", &fd, err);

    if (r < 0)
        return r;
    *ret_max = host_max_cpus(fd);
    close(fd);
    return 0;
}

static void do_nothing(int signal)
{
    (void)signal;
}

/* Without SA_RESTART, and with a handler at all: an ignored signal interrupts nothing. */
int host_install_kick(struct error *err)
{
    struct sigaction action = {.sa_handler = do_nothing};

    sigemptyset(&action.sa_mask);
    if (sigaction(KVM_KICK_SIGNAL, &action, NULL) < 0)
        return error_errno(err, errno, "handler of the kick signal");
    return 0;
}
