/* SPDX-License-Identifier: Apache-2.0 */
/* irq: what every message-signalled interrupt does alike, whoever made it. */
#include "vmrun/irq.h"

#include <unistd.h>

void msi_fire(struct msi *msi)
{
    static const uint64_t one = 1;

    /* Refused only when 2^64 - 2 of them wait to be delivered, and then one does wait. */
    if (write(msi->fd, &one, sizeof(one)) < 0)
        return;
}
