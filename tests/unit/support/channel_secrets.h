/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CHANNEL_SECRETS_H
#define CHANNEL_SECRETS_H

/* Keys and certificates for tests of TLS; folder_leave() removes what secrets_enter() wrote. */
#include "../../../src/migration/channel.h"

#define SECRETS_DATA VMRUN_TEST_DATA "/tls/"
#define KEY "00112233445566778899aabbccddeeff"

/* Good ones, valid in the folder that secrets_enter() makes. */
extern const struct channel_security secrets_psk, secrets_host;

/* A group fixture of cmocka: folder_enter(), then the files "psk" and "key.pem" there. */
int secrets_enter(void **state);
/* A file that its owner alone can read. */
void secret_write(const char *path, const char *text);

#endif
