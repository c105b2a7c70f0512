/* SPDX-License-Identifier: Apache-2.0 */
#include "device_load.h"

#include <stdlib.h>

#include "vmrun/state.h"

void device_load_bytes(struct device *dev, struct reader *program)
{
    size_t len = get_uint(program, 2);
    struct reader r = {0};
    struct writer w = {0};
    struct error err;

    len = len < program->len - program->at ? len : program->len - program->at;
    r.data = get_bytes(program, len);
    r.len = len;
    if (state_load(dev->ops->state, dev, &r, &err) < 0) {
        device_reset(dev);
        return;
    }
    if (state_save(dev->ops->state, dev, &w, &err) < 0)
        abort();
    r = (struct reader){.data = w.data, .len = w.len};
    if (state_load(dev->ops->state, dev, &r, &err) < 0)
        abort();
    free(w.data);
}
