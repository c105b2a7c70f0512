/* SPDX-License-Identifier: Apache-2.0 */
/* first-line TEXT COMMAND...: run COMMAND until TEXT appears in its output; print the nanoseconds
 * that took, and kill it. For tools/bench: it runs also in the lab, where a clock read by a shell
 * would cost more than what it measures. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static long long now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

int main(int argc, char **argv)
{
    static char seen[1 << 20];
    size_t length = 0;
    int out[2];

    if (argc < 3 || pipe(out) != 0)
        return 2;
    long long start = now();
    pid_t child = fork();
    if (child < 0)
        return 2;
    if (child == 0) {
        dup2(out[1], STDOUT_FILENO);
        close(out[0]);
        close(out[1]);
        execvp(argv[2], argv + 2);
        perror(argv[2]);
        _exit(127);
    }
    close(out[1]);
    while (length < sizeof seen) {
        ssize_t n = read(out[0], seen + length, sizeof seen - length);
        if (n <= 0)
            break;
        length += (size_t)n;
        if (!memmem(seen, length, argv[1], strlen(argv[1])))
            continue;
        printf("%lld\n", now() - start);
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        return 0;
    }
    fprintf(stderr, "first-line: %s ended without '%s' after: %.*s\n", argv[2], argv[1],
            (int)length, seen);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    return 1;
}
