/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sockets: the configuration's stream sockets. They have a thread of their own: a thousand busy
 * connections would hold up the control socket and the consoles, which main serves.
 */
#include "internal.h"

#include "vmrun/virtio_devices.h"
#include "vmrun/vsock.h"

int machine_create_vsock(struct machine *m, struct error *err)
{
    uint64_t cid = m->config->vsock.cid ? m->config->vsock.cid : CONFIG_VSOCK_CID;
    int r;

    if (!m->config->vsock.socket)
        return 0;
    r = vsock_host_open(m->config->vsock.socket, &m->vsock.host, err);
    if (r == 0)
        r = iothread_create("vsock", &m->vsock.thread, err);
    if (r == 0) {
        const struct virtio_vsock_params params = {
            .cid = cid, .host = m->vsock.host, .thread = m->vsock.thread};

        r = virtio_vsock_create(&m->platform, m->pci_host, &params, &m->vsock.dev, err);
    }
    if (r < 0)
        return error_prefix(err, "vsock");
    m->devices[m->device_count++] = m->vsock.dev;
    return 0;
}

void machine_close_vsock(struct machine *m)
{
    iothread_destroy(m->vsock.thread);
    vsock_host_close(m->vsock.host);
}
