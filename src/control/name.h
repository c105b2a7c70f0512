/* SPDX-License-Identifier: Apache-2.0 */
/* What the server needs of a claimed name. */
#ifndef CONTROL_NAME_H
#define CONTROL_NAME_H

#include "vmrun/control.h"

int control_name_fd(const struct control_name *name); /* listens; stays the name's */
const char *control_name_text(const struct control_name *name);

#endif
