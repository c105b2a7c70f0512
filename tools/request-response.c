/* SPDX-License-Identifier: Apache-2.0 */
/*
 * request-response PORT: a server that sends back every byte.
 * request-response ADDRESS PORT COUNT: one byte there and back, COUNT times after 100 that do not
 * count, one at a time over one TCP connection; prints how many a second. What a network path costs
 * when nothing can be batched.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define WARM_UP 100

static int open_socket(void)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;

    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)); /* what is accepted inherits it */
    return fd;
}

static int serve(const struct sockaddr_in *here)
{
    int listener = open_socket(), fd;
    char byte;

    if (bind(listener, (const struct sockaddr *)here, sizeof(*here)) < 0 || listen(listener, 8) < 0)
        return -1;
    while ((fd = accept(listener, NULL, NULL)) >= 0) {
        while (read(fd, &byte, 1) == 1 && write(fd, &byte, 1) == 1)
            ;
        close(fd);
    }
    return -1;
}

static int ask(const struct sockaddr_in *there, long count)
{
    int fd = open_socket();
    struct timespec begin, end;
    char byte = 'x';

    if (connect(fd, (const struct sockaddr *)there, sizeof(*there)) < 0)
        return -1;
    for (long i = -WARM_UP; i < count; i++) {
        if (i == 0)
            clock_gettime(CLOCK_MONOTONIC, &begin);
        if (write(fd, &byte, 1) != 1 || read(fd, &byte, 1) != 1)
            return -1;
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    printf("%.1f\n", (double)count / ((double)(end.tv_sec - begin.tv_sec) +
                                      (double)(end.tv_nsec - begin.tv_nsec) / 1e9));
    return 0;
}

int main(int argc, char **argv)
{
    struct sockaddr_in address = {.sin_family = AF_INET};

    if (argc != 2 && argc != 4) {
        fprintf(stderr, "usage: request-response PORT | request-response ADDRESS PORT COUNT\n");
        return 2;
    }
    address.sin_port = htons((unsigned short)atoi(argv[argc == 2 ? 1 : 2]));
    if (argc == 4 && inet_pton(AF_INET, argv[1], &address.sin_addr) != 1) {
        fprintf(stderr, "request-response: %s is no address\n", argv[1]);
        return 2;
    }
    if ((argc == 2 ? serve(&address) : ask(&address, atol(argv[3]))) < 0) {
        perror("request-response");
        return 1;
    }
    return 0;
}
