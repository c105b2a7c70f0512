/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMRUN_TEST_FAKE_SERVER_H
#define VMRUN_TEST_FAKE_SERVER_H

/* The listening socket of machine "web1", for a test that speaks as the machine. */

struct fake_server {
    char dir[64]; /* fresh; VMRUN_DIR names it */
    int fd;       /* listens; the test may close it and leave -1 */
};

/* For the fixtures of cmocka: not 0 when it cannot be, or when a file was left in the folder. */
int fake_server_listen(struct fake_server *server);
int fake_server_close(struct fake_server *server);

#endif
