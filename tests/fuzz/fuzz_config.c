/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A configuration file of any bytes: refused in one printable line, or taken;
 * and what is taken prints as a configuration that loads again and prints the same.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "program.h"
#include "vmrun/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Loads a file of these bytes over the defaults; as config_load() otherwise. */
static int load(const void *data, size_t size, struct vm_config *config, struct error *err)
{
    int fd = memfd_create("config", MFD_CLOEXEC);
    char path[40];

    require(fd >= 0 && write(fd, data, size) == (ssize_t)size);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    config_init(config);
    int r = config_load(config, path, err);
    close(fd);
    return r;
}

static char *print(const struct vm_config *config, size_t *ret_len)
{
    struct error err;
    char *text = NULL;
    FILE *out = open_memstream(&text, ret_len);

    require(out && config_print(config, out, &err) == 0);
    fclose(out);
    return text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct vm_config config, again;
    struct error err;
    size_t first_len, second_len;

    if (load(data, size, &config, &err) < 0) {
        require(strncmp(err.msg, "/proc/self/fd/", 14) == 0);
        for (const char *at = err.msg; *at; at++)
            require((unsigned char)*at >= 0x20 && *at != 0x7f);
        config_fini(&config);
        return 0;
    }
    (void)config_validate(&config, &err);

    char *first = print(&config, &first_len);
    require(load(first, first_len, &again, &err) == 0);
    char *second = print(&again, &second_len);
    require(first_len == second_len && memcmp(first, second, first_len) == 0);
    free(first);
    free(second);
    config_fini(&config);
    config_fini(&again);
    return 0;
}
