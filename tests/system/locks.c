/* SPDX-License-Identifier: Apache-2.0 */
/*
 * locks: open file description locks and times of a file that two hosts see, from a shell.
 *
 *   locks get FILE START LENGTH      "free", or "taken" when another holds a lock of these bytes
 *   locks set FILE START LENGTH S    take them exclusively, "got" or "denied"; keep them S seconds
 *   locks stamp FILE S NS            set the time of its last change
 *   locks time FILE START            take one byte for a moment, and say that time then
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int give_up(const char *what)
{
    printf("locks: %s: %s\n", what, strerror(errno));
    return 1;
}

static int take(int fd, off_t start, off_t length)
{
    struct flock lock = {
        .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = start, .l_len = length};

    return fcntl(fd, F_OFD_SETLK, &lock);
}

static int tell_lock(int fd, off_t start, off_t length)
{
    struct flock lock = {
        .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = start, .l_len = length};

    if (fcntl(fd, F_OFD_GETLK, &lock) < 0)
        return give_up("F_OFD_GETLK");
    puts(lock.l_type == F_UNLCK ? "free" : "taken");
    return 0;
}

static int hold_lock(int fd, off_t start, off_t length, unsigned seconds)
{
    if (take(fd, start, length) < 0) {
        if (errno != EAGAIN && errno != EACCES)
            return give_up("F_OFD_SETLK");
        puts("denied");
        return 1;
    }
    puts("got");
    fflush(stdout);
    sleep(seconds);
    return 0;
}

static int tell_time(int fd, off_t start)
{
    struct stat st;

    if (take(fd, start, 1) < 0)
        return give_up("F_OFD_SETLK");
    if (fstat(fd, &st) < 0)
        return give_up("fstat");
    printf("%lld.%09ld\n", (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
    return 0;
}

int main(int argc, char **argv)
{
    long long n[3] = {0};
    int fd = argc >= 4 && argc <= 6 ? open(argv[2], O_RDWR | O_CLOEXEC) : -1;

    if (argc < 4 || argc > 6) {
        fputs("usage: locks get|set|stamp|time FILE NUMBER...\n", stderr);
        return 2;
    }
    if (fd < 0)
        return give_up(argv[2]);
    for (int i = 3; i < argc; i++)
        n[i - 3] = strtoll(argv[i], NULL, 0);
    if (strcmp(argv[1], "get") == 0)
        return tell_lock(fd, n[0], n[1]);
    if (strcmp(argv[1], "set") == 0)
        return hold_lock(fd, n[0], n[1], (unsigned)n[2]);
    if (strcmp(argv[1], "time") == 0)
        return tell_time(fd, n[0]);
    const struct timespec times[] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = n[0], .tv_nsec = n[1]}};
    if (futimens(fd, times) < 0)
        return give_up("futimens");
    return 0;
}
