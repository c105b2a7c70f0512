/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmrun: from the command line to the exit status, by way of the table of verbs
 * in cli.c. The one place that prints an operator's error.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "vmrun/cli.h"

/* A caller may have closed 0 to 2: what we open next must not become somebody's stdout. */
static void fill_standard_fds(void)
{
    int fd;

    do
        fd = open("/dev/null", O_RDWR);
    while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd >= 0)
        close(fd);
}

int main(int argc, char *argv[])
{
    struct error err = {0};

    fill_standard_fds();
    signal(SIGPIPE, SIG_IGN); /* whoever writes looks at errno */
    signal(SIGXFSZ, SIG_IGN);
    int status = cli_execute(argc, argv, &err);
    if (status != CLI_OK && err.msg[0])
        fprintf(stderr, "vmrun: %s\n", err.msg);
    if ((fflush(stdout) != 0 || ferror(stdout)) && status == CLI_OK) {
        status = CLI_FAILED;
        if (errno != EPIPE) /* `vmrun list | head` has seen what it wanted */
            perror("vmrun: standard output");
    }
    exit(status);
}
