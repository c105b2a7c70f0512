/* SPDX-License-Identifier: Apache-2.0 */
/* forward: how a port forward is written. The configuration checks it, the backend obeys it. */
#include "vmrun/forward.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include "vmrun/text.h"

#define TEXT_MAX 80 /* more than the longest one has */

static int parse_port(const char *text, uint16_t *ret_port)
{
    size_t len = strlen(text);
    uint64_t port;

    if (len == 0 || strspn(text, "0123456789") != len)
        return -EINVAL;
    if (text_parse_uint(text, UINT16_MAX, &port) < 0 || port == 0)
        return -ERANGE;
    *ret_port = (uint16_t)port;
    return 0;
}

/* The address between the protocol and the ports, in brackets or not. */
static int parse_address(char *text, struct forward *f)
{
    uint8_t bytes[16];
    size_t len = strlen(text);

    f->ipv6 = text[0] == '[';
    if (f->ipv6) {
        if (text[len - 1] != ']')
            return -EINVAL;
        text[len - 1] = '\0';
        text++;
    }
    if (strlen(text) >= sizeof(f->address) ||
        inet_pton(f->ipv6 ? AF_INET6 : AF_INET, text, bytes) != 1)
        return -EINVAL;
    memcpy(f->address, text, strlen(text) + 1);
    return 0;
}

int forward_parse(const char *text, size_t len, struct forward *ret_forward)
{
    struct forward f = {.address = ""};
    char copy[TEXT_MAX], *rest = copy + 4, *guest, *host;
    int r = 0;

    if (len >= sizeof(copy))
        return -EINVAL;
    memcpy(copy, text, len);
    copy[len] = '\0';
    f.udp = strncmp(copy, "udp:", 4) == 0;
    if (!f.udp && strncmp(copy, "tcp:", 4) != 0)
        return -EINVAL;
    guest = strrchr(rest, ':');
    if (!guest)
        return -EINVAL;
    *guest++ = '\0';
    host = strrchr(rest, ':');
    if (host) {
        *host++ = '\0';
        r = parse_address(rest, &f);
    } else {
        host = rest;
    }
    if (r == 0)
        r = parse_port(host, &f.host_port);
    if (r == 0)
        r = parse_port(guest, &f.guest_port);
    if (r == 0)
        *ret_forward = f;
    return r;
}

size_t forward_next(const char **text)
{
    *text += strspn(*text, " ");
    return strcspn(*text, " ");
}

bool forward_clashes(const struct forward *a, const struct forward *b)
{
    return a->udp == b->udp && a->host_port == b->host_port;
}
