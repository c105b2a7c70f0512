/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VIRTIO_INTERNAL_H
#define VIRTIO_INTERNAL_H

/* Between a virtio device (virtio.c) and its registers (virtio_pci.c). Lock held, unless said. */

#include "vmrun/virtio.h"

#define VIRTIO_NO_VECTOR 0xffff

/* What a driver sets; NEEDS_RESET is the device's, and two need our consent. */
#define STATUS_DRIVER \
    (VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FAILED)
#define STATUS_ALL \
    (STATUS_DRIVER | VIRTIO_CONFIG_S_DRIVER_OK | VIRTIO_CONFIG_S_FEATURES_OK | \
     VIRTIO_CONFIG_S_NEEDS_RESET)

/* What the driver's registers say is to be done. */
void virtio_start(struct virtio_device *vdev); /* DRIVER_OK was set */
void virtio_enable_queue(struct virtio_device *vdev, struct virtqueue *vq);
void virtio_reset_by_driver(struct virtio_device *vdev); /* all but the function around it */
bool virtio_features_are_good(const struct virtio_device *vdev);

/* The function with its BARs and capabilities, not plugged in. Lock not held. Errors: as
 * pci_device_add_capability(), pci_device_add_msix(). */
int virtio_pci_init(struct virtio_device *vdev, struct platform *platform, struct error *err);

#endif
