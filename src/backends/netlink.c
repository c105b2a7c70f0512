/* SPDX-License-Identifier: Apache-2.0 */
/*
 * netlink: one question, RTM_GETLINK, and its answer taken apart. Attributes nest
 * (LINKINFO holds DATA holds a tun's own), hence the one walker with a callback.
 */
#include "netlink.h"

#include <errno.h>
#include <linux/if.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define ANSWER_BYTES 16384

int netlink_open(bool listen, struct error *err)
{
    struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = listen ? RTMGRP_LINK : 0};
    int fd =
        socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | (listen ? SOCK_NONBLOCK : 0), NETLINK_ROUTE);

    if (fd < 0)
        return error_errno(err, errno, "network interfaces: netlink");
    if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
        int r = error_errno(err, errno, "network interfaces: netlink");

        close(fd);
        return r;
    }
    return fd;
}

typedef void attribute_fn(struct netlink_link *link, const struct rtattr *attribute);

static void walk(const struct rtattr *at, int len, attribute_fn *fn, struct netlink_link *link)
{
    for (; RTA_OK(at, len); at = RTA_NEXT(at, len))
        fn(link, at);
}

static unsigned number(const struct rtattr *attribute)
{
    uint32_t value = 0;

    if (RTA_PAYLOAD(attribute) >= sizeof(value))
        memcpy(&value, RTA_DATA(attribute), sizeof(value));
    return value;
}

static void take_tun(struct netlink_link *link, const struct rtattr *attribute)
{
    if ((attribute->rta_type & NLA_TYPE_MASK) == IFLA_TUN_MULTI_QUEUE && RTA_PAYLOAD(attribute) > 0)
        link->multi_queue = *(const uint8_t *)RTA_DATA(attribute);
    if ((attribute->rta_type & NLA_TYPE_MASK) == IFLA_TUN_NUM_QUEUES)
        link->tun_queues = number(attribute);
}

static void take_info(struct netlink_link *link, const struct rtattr *attribute)
{
    /* KIND comes before DATA. */
    if ((attribute->rta_type & NLA_TYPE_MASK) == IFLA_INFO_KIND)
        link->tun = RTA_PAYLOAD(attribute) >= 3 && memcmp(RTA_DATA(attribute), "tun", 3) == 0;
    else if ((attribute->rta_type & NLA_TYPE_MASK) == IFLA_INFO_DATA && link->tun)
        walk(RTA_DATA(attribute), (int)RTA_PAYLOAD(attribute), take_tun, link);
}

static void take_link(struct netlink_link *link, const struct rtattr *attribute)
{
    switch (attribute->rta_type & NLA_TYPE_MASK) {
    case IFLA_MTU: link->mtu = number(attribute); break;
    case IFLA_MASTER: link->master = number(attribute); break;
    case IFLA_LINKINFO:
        walk(RTA_DATA(attribute), (int)RTA_PAYLOAD(attribute), take_info, link);
        break;
    default: break;
    }
}

static int take_answer(const struct nlmsghdr *message, int len, struct netlink_link *ret_link)
{
    const struct ifinfomsg *info = NLMSG_DATA(message);

    *ret_link = (struct netlink_link){0};
    if (!NLMSG_OK(message, (unsigned)len))
        return -EIO;
    if (message->nlmsg_type == NLMSG_ERROR) {
        const struct nlmsgerr *error = NLMSG_DATA(message);

        return error->error == -ENODEV ? 0 : -EIO;
    }
    if (message->nlmsg_type != RTM_NEWLINK || message->nlmsg_len < NLMSG_LENGTH(sizeof(*info)))
        return -EIO;
    ret_link->index = (unsigned)info->ifi_index;
    ret_link->flags = info->ifi_flags;
    walk(IFLA_RTA(info), (int)IFLA_PAYLOAD(message), take_link, ret_link);
    return 0;
}

int netlink_query(int fd, const char *name, unsigned index, struct netlink_link *ret_link)
{
    struct {
        struct nlmsghdr header;
        struct ifinfomsg info;
        struct rtattr attribute;
        char name[IFNAMSIZ];
    } question = {
        .header = {.nlmsg_type = RTM_GETLINK, .nlmsg_flags = NLM_F_REQUEST},
        .info = {.ifi_family = AF_UNSPEC, .ifi_index = name ? 0 : (int)index},
    };
    _Alignas(struct nlmsghdr) char answer[ANSWER_BYTES];
    ssize_t n;

    question.header.nlmsg_len = NLMSG_LENGTH(sizeof(question.info));
    if (name) {
        size_t len = strnlen(name, sizeof(question.name) - 1);

        memcpy(question.name, name, len);
        question.attribute.rta_type = IFLA_IFNAME;
        question.attribute.rta_len = (unsigned short)RTA_LENGTH(len + 1);
        question.header.nlmsg_len += RTA_SPACE(len + 1);
    }
    do
        n = send(fd, &question, question.header.nlmsg_len, 0);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return -EIO;
    do
        n = recv(fd, answer, sizeof(answer), 0);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return -EIO;
    return take_answer((const struct nlmsghdr *)answer, (int)n, ret_link);
}

void netlink_drain(int fd)
{
    char news[ANSWER_BYTES];

    /* ENOBUFS: more happened than the socket holds, which is news as well. */
    while (recv(fd, news, sizeof(news), 0) >= 0 || errno == EINTR || errno == ENOBUFS)
        ;
}
