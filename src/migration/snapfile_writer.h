/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MIGRATION_SNAPFILE_WRITER_H
#define MIGRATION_SNAPFILE_WRITER_H

/* What a new file can be told of a machine that is not this host's, and not of now. */
#include "vmrun/snapfile.h"

/* Otherwise it is of the architecture that we run on, and of the time when it is published. */
void snapfile_write_as(struct snapfile_writer *writer, uint32_t architecture, uint64_t created_ns);

#endif
