/* SPDX-License-Identifier: Apache-2.0 */
#include "net_lab.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/if.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

static int control = -1;

static bool one_user;

bool net_lab_has_one_user(void)
{
    return one_user;
}

static bool put(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool done = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

    if (fd >= 0)
        close(fd);
    return done;
}

/* A user namespace gives an ordinary user a network of their own, in which they are root. */
static bool enter_as_user(void)
{
    char map[32];

    snprintf(map, sizeof(map), "0 %u 1", (unsigned)geteuid());
    one_user = unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0;
    return one_user && put("/proc/self/uid_map", map);
}

const char *net_lab_enter(void)
{
    static char why[128];
    int fd;

    if (unshare(CLONE_NEWNET) < 0 && !enter_as_user()) {
        snprintf(why, sizeof(why), "no network namespace: %s", strerror(errno));
        return why;
    }
    fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        snprintf(why, sizeof(why), "/dev/net/tun: %s", strerror(errno));
        return why;
    }
    close(fd);
    control = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    return control < 0 ? "no socket" : NULL;
}

static struct ifreq request_for(const char *name)
{
    struct ifreq request = {0};

    snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
    return request;
}

static unsigned index_of(const char *name)
{
    struct ifreq request = request_for(name);

    return ioctl(control, SIOCGIFINDEX, &request) < 0 ? 0 : (unsigned)request.ifr_ifindex;
}

static int tap_of(const char *name, bool multi_queue)
{
    struct ifreq request = request_for(name);
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);

    assert_true(fd >= 0);
    request.ifr_flags = (short)(IFF_TAP | IFF_NO_PI | (multi_queue ? IFF_MULTI_QUEUE : 0));
    if (ioctl(fd, TUNSETIFF, &request) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

void net_lab_add_tap(const char *name, bool multi_queue, int owner)
{
    int fd = tap_of(name, multi_queue);

    assert_true(fd >= 0);
    assert_int_equal(ioctl(fd, TUNSETPERSIST, 1), 0);
    if (owner >= 0)
        assert_int_equal(ioctl(fd, TUNSETOWNER, owner), 0);
    close(fd);
}

void net_lab_remove_tap(const char *name)
{
    int fd = tap_of(name, false);

    if (fd < 0)
        fd = tap_of(name, true);
    assert_true(fd >= 0);
    assert_int_equal(ioctl(fd, TUNSETPERSIST, 0), 0);
    close(fd);
}

void net_lab_delete(const char *name)
{
    const struct {
        struct nlmsghdr header;
        struct ifinfomsg info;
    } request = {
        .header = {.nlmsg_len = sizeof(request),
                   .nlmsg_type = RTM_DELLINK,
                   .nlmsg_flags = NLM_F_REQUEST},
        .info = {.ifi_index = (int)index_of(name)},
    };
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);

    assert_true(fd >= 0);
    assert_int_equal(send(fd, &request, sizeof(request), 0), (ssize_t)sizeof(request));
    close(fd);
    assert_false(net_lab_look(name).there);
}

void net_lab_add_bridge(const char *name)
{
    if (index_of(name) == 0)
        assert_int_equal(ioctl(control, SIOCBRADDBR, name), 0);
}

void net_lab_join(const char *bridge, const char *name)
{
    struct ifreq request = request_for(bridge);

    request.ifr_ifindex = (int)index_of(name);
    assert_int_equal(ioctl(control, SIOCBRADDIF, &request), 0);
}

bool net_lab_is_port(const char *bridge, const char *name)
{
    struct ifreq request = request_for(bridge);
    bool was;

    /* Who can leave was in. */
    request.ifr_ifindex = (int)index_of(name);
    was = ioctl(control, SIOCBRDELIF, &request) == 0;
    if (was)
        net_lab_join(bridge, name);
    return was;
}

void net_lab_up(const char *name, bool up)
{
    struct ifreq request = request_for(name);

    assert_int_equal(ioctl(control, SIOCGIFFLAGS, &request), 0);
    request.ifr_flags = (short)(up ? request.ifr_flags | IFF_UP : request.ifr_flags & ~IFF_UP);
    assert_int_equal(ioctl(control, SIOCSIFFLAGS, &request), 0);
}

struct net_lab_link net_lab_look(const char *name)
{
    struct ifreq request = request_for(name);
    struct net_lab_link link = {.there = index_of(name) != 0};

    if (!link.there)
        return link;
    assert_int_equal(ioctl(control, SIOCGIFFLAGS, &request), 0);
    link.up = request.ifr_flags & IFF_UP;
    assert_int_equal(ioctl(control, SIOCGIFMTU, &request), 0);
    link.mtu = (unsigned)request.ifr_mtu;
    return link;
}

void net_lab_privilege(bool on)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];

    assert_int_equal(syscall(SYS_capget, &header, data), 0);
    if (on)
        data[0].effective |= 1u << CAP_NET_ADMIN;
    else
        data[0].effective &= ~(1u << CAP_NET_ADMIN);
    assert_int_equal(syscall(SYS_capset, &header, data), 0);
}

int net_lab_listen(const char *name, uint16_t type)
{
    struct sockaddr_ll address = {
        .sll_family = AF_PACKET, .sll_protocol = htons(type), .sll_ifindex = (int)index_of(name)};
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

int net_lab_peer(const char *name, bool vnet_hdr)
{
    int on = 1, fd = net_lab_listen(name, vnet_hdr ? ETH_P_IP : NET_LAB_TYPE);

    if (vnet_hdr)
        assert_int_equal(setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof(on)), 0);
    return fd;
}

size_t net_lab_take(int peer, void *frame, size_t len, int timeout_ms)
{
    struct pollfd ready = {.fd = peer, .events = POLLIN};
    ssize_t n;

    if (poll(&ready, 1, timeout_ms) <= 0)
        return 0;
    n = recv(peer, frame, len, 0);
    assert_true(n > 0);
    return (size_t)n;
}

void net_lab_give(int peer, const void *frame, size_t len)
{
    assert_int_equal(send(peer, frame, len, 0), (ssize_t)len);
}

void net_lab_frame(uint8_t *frame, size_t len, const uint8_t to[6], uint8_t seed)
{
    static const uint8_t from[] = {0x02, 0, 0, 0, 0, 0x99};

    memcpy(frame, to, 6);
    memcpy(frame + 6, from, 6);
    frame[12] = NET_LAB_TYPE >> 8;
    frame[13] = NET_LAB_TYPE & 0xff;
    for (size_t i = 14; i < len; i++)
        frame[i] = (uint8_t)(seed + i);
}
