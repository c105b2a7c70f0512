/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tap: frames to and from a tap interface of the host, one descriptor a queue
 * pair. Linux, Documentation/networking/tuntap.rst.
 *
 * The one thing to know: what an administrator has prepared (the tap, its bridge,
 * MTU, being up) is found as it is and not touched, so that an unprivileged user
 * gets by; only what is missing is done here.
 */
#include "vmrun/netdev.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "netdev_ops.h"
#include "netlink.h"

#define TUN_PATH "/dev/net/tun"

struct tap {
    struct netdev netdev;
    char ifname[IFNAMSIZ];
    unsigned index; /* of the interface, whatever it is called later */
    unsigned queues, active;
    bool multi_queue, made; /* by us */
    int fds[NETDEV_MAX_QUEUES];
    int ask_fd, link_fd; /* netlink: questions; news */
    int control_fd;      /* a socket for interface ioctls */
};

/* Who needs the tap, for the commands in messages. */
static const char *user_name(char *buf, size_t len)
{
    struct passwd entry, *found = NULL;
    char strings[1024];

    if (getpwuid_r(geteuid(), &entry, strings, sizeof(strings), &found) == 0 && found)
        snprintf(buf, len, "%s", entry.pw_name);
    else
        snprintf(buf, len, "%u", (unsigned)geteuid());
    return buf;
}

static int refuse_device(int code, const char *ifname, struct error *err)
{
    if (code == ENOENT || code == ENODEV || code == ENXIO)
        return error_set(err, ENODEV,
                         "%s: the host has no " TUN_PATH "; as root: modprobe tun (in a container: "
                         "pass the device in)",
                         ifname);
    if (code == EACCES || code == EPERM)
        return error_set(err, EPERM, "%s: no access to " TUN_PATH "; as root: chmod 666 " TUN_PATH,
                         ifname);
    return error_errno(err, code, "%s: " TUN_PATH, ifname);
}

/* TUNSETIFF failed: why, and what to do. */
static int refuse_attach(const struct tap *t, int code, const struct netlink_link *link,
                         struct error *err)
{
    const char *kind = t->queues > 1 ? " multi_queue" : "";
    char user[64];

    user_name(user, sizeof(user));
    if (code == EBUSY)
        return error_set(err, EBUSY, "%s: another process uses this tap", t->ifname);
    if (code == EPERM && !link->index)
        return error_set(err, EPERM,
                         "%s: there is no such tap, and making one needs root; as root: ip tuntap "
                         "add dev %s mode tap%s user %s",
                         t->ifname, t->ifname, kind, user);
    if (code == EPERM)
        return error_set(err, EPERM,
                         "%s: this tap is another user's; as root: ip tuntap del dev %s mode tap, "
                         "then ip tuntap add dev %s mode tap%s user %s",
                         t->ifname, t->ifname, t->ifname, kind, user);
    if (code == EINVAL && link->index && !link->tun)
        return error_set(err, EINVAL, "%s: an interface of this name exists and is no tap",
                         t->ifname);
    if (code == EINVAL && link->index)
        return error_set(err, EINVAL,
                         "%s: is no tap, or has been made without queues; as root: ip tuntap add "
                         "dev %s mode tap%s user %s, after ip link del %s",
                         t->ifname, t->ifname, kind, user, t->ifname);
    return error_errno(err, code, "%s: attach to the tap", t->ifname);
}

static int attach(struct tap *t, int fd, bool multi_queue)
{
    struct ifreq request = {
        .ifr_flags =
            (short)(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | (multi_queue ? IFF_MULTI_QUEUE : 0)),
    };

    memcpy(request.ifr_name, t->ifname, sizeof(request.ifr_name));
    if (ioctl(fd, TUNSETIFF, &request) < 0)
        return -errno;
    return 0;
}

static int open_queue(struct tap *t, unsigned queue, const struct netlink_link *before,
                      struct error *err)
{
    int header = NETDEV_HEADER_BYTES, little_endian = 1, r;
    int fd = open(TUN_PATH, O_RDWR | O_NONBLOCK | O_CLOEXEC);

    if (fd < 0)
        return refuse_device(errno, t->ifname, err);
    t->fds[queue] = fd;
    r = attach(t, fd, t->multi_queue);
    if (r == -EINVAL && queue == 0 && !t->multi_queue) {
        /* Made for several queues: one of them will do. */
        r = attach(t, fd, true);
        t->multi_queue = r == 0;
    }
    if (r < 0)
        return refuse_attach(t, -r, before, err);
    if (ioctl(fd, TUNSETVNETHDRSZ, &header) < 0 || ioctl(fd, TUNSETVNETLE, &little_endian) < 0)
        return error_errno(err, errno, "%s: virtio headers", t->ifname);
    return 0;
}

static int set_mtu(struct tap *t, unsigned mtu, const struct netlink_link *link, struct error *err)
{
    struct ifreq request = {.ifr_mtu = (int)mtu};

    if (!mtu || mtu == link->mtu)
        return 0;
    memcpy(request.ifr_name, t->ifname, sizeof(request.ifr_name));
    if (ioctl(t->control_fd, SIOCSIFMTU, &request) == 0)
        return 0;
    if (errno == EPERM)
        return error_set(err, EPERM, "%s: its MTU is %u, not %u; as root: ip link set %s mtu %u",
                         t->ifname, link->mtu, mtu, t->ifname, mtu);
    return error_errno(err, errno, "%s: MTU %u", t->ifname, mtu);
}

static int refuse_bridge(struct tap *t, int code, const char *bridge, struct error *err)
{
    switch (code) {
    case EPERM:
        return error_set(err, EPERM,
                         "%s: is not attached to the bridge %s; as root: ip link set %s master %s",
                         t->ifname, bridge, t->ifname, bridge);
    case EOPNOTSUPP:
    case EINVAL:
    case ENOTTY:
        return error_set(err, ENODEV, "%s: %s is no bridge; 'ip link show type bridge' lists them",
                         t->ifname, bridge);
    default: return error_errno(err, code, "%s: attach to the bridge %s", t->ifname, bridge);
    }
}

/*
 * A bridge whose address nobody has set has the lowest of its ports'. A tap's random one may be
 * lower than the network card's: the host then changes its own address with each machine that
 * comes and goes, and is not heard by its neighbours until they ask for it anew.
 */
static int raise_address(struct tap *t, struct error *err)
{
    struct ifreq request = {};

    memcpy(request.ifr_name, t->ifname, sizeof(request.ifr_name));
    if (ioctl(t->control_fd, SIOCGIFHWADDR, &request) < 0)
        return error_errno(err, errno, "%s: ask for its address", t->ifname);
    request.ifr_hwaddr.sa_data[0] = (char)0xfe; /* of one station, given locally, and the highest */
    if (ioctl(t->control_fd, SIOCSIFHWADDR, &request) < 0)
        return error_errno(err, errno, "%s: set its address", t->ifname);
    return 0;
}

static int attach_bridge(struct tap *t, const char *bridge, const struct netlink_link *link,
                         struct error *err)
{
    struct ifreq request = {.ifr_ifindex = (int)t->index};
    struct netlink_link found;

    if (strlen(bridge) >= IFNAMSIZ || netlink_query(t->ask_fd, bridge, 0, &found) < 0)
        found.index = 0;
    if (!found.index)
        return error_set(err, ENODEV,
                         "%s: there is no bridge %s; as root: ip link add %s type bridge, then ip "
                         "link set %s up",
                         t->ifname, bridge, bridge, bridge);
    if (link->master == found.index)
        return 0;
    if (link->master)
        return error_set(err, EBUSY,
                         "%s: is attached to another bridge; as root: ip link set %s master %s",
                         t->ifname, t->ifname, bridge);
    if (t->made) {
        int r = raise_address(t, err);

        if (r < 0)
            return r;
    }
    memcpy(request.ifr_name, bridge, strlen(bridge) + 1);
    if (ioctl(t->control_fd, SIOCBRADDIF, &request) < 0)
        return refuse_bridge(t, errno, bridge, err);
    return 0;
}

static int bring_up(struct tap *t, const struct netlink_link *link, struct error *err)
{
    struct ifreq request = {.ifr_flags = (short)(link->flags | IFF_UP)};

    if (link->flags & IFF_UP)
        return 0;
    memcpy(request.ifr_name, t->ifname, sizeof(request.ifr_name));
    if (ioctl(t->control_fd, SIOCSIFFLAGS, &request) == 0)
        return 0;
    if (errno == EPERM)
        return error_set(err, EPERM, "%s: is down; as root: ip link set %s up", t->ifname,
                         t->ifname);
    return error_errno(err, errno, "%s: bring it up", t->ifname);
}

static int query(struct tap *t, const char *name, struct netlink_link *ret_link, struct error *err)
{
    int r = netlink_query(t->ask_fd, name, t->index, ret_link);

    return r < 0 ? error_errno(err, -r, "%s: ask about the interface", t->ifname) : 0;
}

static int open_sockets(struct tap *t, struct error *err)
{
    t->ask_fd = netlink_open(false, err);
    if (t->ask_fd < 0)
        return t->ask_fd;
    t->link_fd = netlink_open(true, err);
    if (t->link_fd < 0)
        return t->link_fd;
    /* Any family serves for these ioctls; this one is in every kernel. */
    t->control_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (t->control_fd < 0)
        return error_errno(err, errno, "%s: socket", t->ifname);
    return 0;
}

static int open_queues(struct tap *t, struct error *err)
{
    struct netlink_link before;
    int r = query(t, t->ifname, &before, err);

    if (r < 0)
        return r;
    /* A tap of several queues lets in whoever comes; two machines would share its frames. */
    if (before.tun_queues)
        return refuse_attach(t, EBUSY, &before, err);
    t->made = !before.index;
    for (unsigned i = 0; i < t->queues; i++) {
        r = open_queue(t, i, &before, err);
        if (r < 0)
            return r;
    }
    t->active = t->queues;
    return 0;
}

static int set_offload(struct tap *t, const struct netdev_offload *offload, struct error *err)
{
    unsigned long flags = 0;

    if (offload->csum) {
        flags = TUN_F_CSUM | (offload->tso4 ? TUN_F_TSO4 : 0) | (offload->tso6 ? TUN_F_TSO6 : 0) |
                (offload->ufo ? TUN_F_UFO : 0);
        if (flags & (TUN_F_TSO4 | TUN_F_TSO6) && offload->ecn)
            flags |= TUN_F_TSO_ECN;
    }
    if (ioctl(t->fds[0], TUNSETOFFLOAD, flags) < 0)
        return error_errno(err, errno, "%s: offloads 0x%lx", t->ifname, flags);
    return 0;
}

static int set_queues(struct tap *t, unsigned queues, struct error *err)
{
    assert(queues >= 1 && queues <= t->queues);
    while (t->active != queues) {
        bool more = t->active < queues;
        unsigned queue = more ? t->active : t->active - 1;
        struct ifreq request = {.ifr_flags = more ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE};

        if (ioctl(t->fds[queue], TUNSETQUEUE, &request) < 0)
            return error_errno(err, errno, "%s: queue pair %u", t->ifname, queue);
        t->active = more ? t->active + 1 : t->active - 1;
    }
    return 0;
}

static int prepare(struct tap *t, const struct tap_params *params, struct error *err)
{
    struct netlink_link link;
    int r = query(t, t->ifname, &link, err);

    if (r < 0)
        return r;
    t->index = link.index;
    r = set_mtu(t, params->mtu, &link, err);
    if (r == 0 && params->bridge)
        r = attach_bridge(t, params->bridge, &link, err);
    if (r == 0)
        r = bring_up(t, &link, err);
    if (r == 0)
        r = set_offload(t, &(struct netdev_offload){0}, err);
    return r < 0 ? r : set_queues(t, 1, err);
}

static int check_name(const char *name, struct error *err)
{
    size_t len = strlen(name);

    /* A % would ask the kernel for a number of its choice. */
    if (len == 0 || len >= IFNAMSIZ || strpbrk(name, "/:% \t\n") || strcmp(name, ".") == 0 ||
        strcmp(name, "..") == 0)
        return error_set(err, EINVAL,
                         "\"%s\" is no interface's name: 1 to 15 bytes without space, /, : and %%",
                         name);
    return 0;
}

static void close_if_open(int fd)
{
    if (fd >= 0)
        close(fd);
}

static void close_tap(struct tap *t)
{
    /* A tap that is not persistent goes with its last descriptor. */
    for (unsigned i = 0; i < NETDEV_MAX_QUEUES; i++)
        close_if_open(t->fds[i]);
    close_if_open(t->ask_fd);
    close_if_open(t->link_fd);
    close_if_open(t->control_fd);
    free(t);
}

static int tap_fd(const struct netdev *netdev, unsigned queue)
{
    const struct tap *t = (const struct tap *)netdev;

    return t->fds[queue];
}

static int64_t tap_send(struct netdev *netdev, unsigned queue, const struct iovec *iov,
                        unsigned count)
{
    struct tap *t = (struct tap *)netdev;
    ssize_t n;

    do
        n = writev(t->fds[queue], iov, (int)count);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

static int64_t tap_receive(struct netdev *netdev, unsigned queue, const struct iovec *iov,
                           unsigned count)
{
    struct tap *t = (struct tap *)netdev;
    ssize_t n;

    do
        n = readv(t->fds[queue], iov, (int)count);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

static unsigned tap_mtu(const struct netdev *netdev)
{
    const struct tap *t = (const struct tap *)netdev;
    struct netlink_link link;

    return netlink_query(t->ask_fd, NULL, t->index, &link) < 0 ? 0 : link.mtu;
}

static bool tap_link_up(const struct netdev *netdev)
{
    const struct tap *t = (const struct tap *)netdev;
    struct netlink_link link;

    return netlink_query(t->ask_fd, NULL, t->index, &link) == 0 && link.flags & IFF_UP;
}

static int tap_link_fd(const struct netdev *netdev)
{
    const struct tap *t = (const struct tap *)netdev;

    return t->link_fd;
}

static void tap_link_drain(struct netdev *netdev)
{
    struct tap *t = (struct tap *)netdev;

    netlink_drain(t->link_fd);
}

static void tap_close(struct netdev *netdev)
{
    close_tap((struct tap *)netdev);
}

static int tap_set_offload(struct netdev *netdev, const struct netdev_offload *offload,
                           struct error *err)
{
    return set_offload((struct tap *)netdev, offload, err);
}

static int tap_set_queues(struct netdev *netdev, unsigned queues, struct error *err)
{
    return set_queues((struct tap *)netdev, queues, err);
}

static const struct netdev_ops ops = {
    .close = tap_close,
    .fd = tap_fd,
    .send = tap_send,
    .receive = tap_receive,
    .set_offload = tap_set_offload,
    .set_queues = tap_set_queues,
    .mtu = tap_mtu,
    .link_up = tap_link_up,
    .link_fd = tap_link_fd,
    .link_drain = tap_link_drain,
};

unsigned tap_queues(const char *ifname, unsigned wanted)
{
    struct netlink_link link;
    struct error ignored; /* tap_open() tells of it */
    int fd = netlink_open(false, &ignored);
    bool several = fd >= 0 && strlen(ifname) < IFNAMSIZ &&
                   netlink_query(fd, ifname, 0, &link) == 0 && (!link.index || link.multi_queue);

    close_if_open(fd);
    return several ? wanted : 1;
}

int tap_open(const struct tap_params *params, struct netdev **ret_netdev, struct error *err)
{
    struct tap *t;
    int r = check_name(params->ifname, err);

    if (r < 0)
        return r;
    assert(params->queues >= 1 && params->queues <= NETDEV_MAX_QUEUES);
    t = calloc(1, sizeof(*t));
    if (!t)
        return error_set(err, ENOMEM, "%s: out of memory", params->ifname);
    netdev_init(&t->netdev, &ops);
    memcpy(t->ifname, params->ifname, strlen(params->ifname) + 1);
    t->queues = params->queues;
    t->multi_queue = params->queues > 1;
    t->ask_fd = t->link_fd = t->control_fd = -1;
    for (unsigned i = 0; i < NETDEV_MAX_QUEUES; i++)
        t->fds[i] = -1;

    r = open_sockets(t, err);
    if (r < 0)
        goto fail;
    r = open_queues(t, err);
    if (r < 0)
        goto fail;
    r = prepare(t, params, err);
    if (r < 0)
        goto fail;
    *ret_netdev = &t->netdev;
    return 0;

fail:
    close_tap(t);
    return r;
}
