/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMRUN_BOOT_AML_H
#define VMRUN_BOOT_AML_H

/*
 * A builder for ACPI Machine Language: terms are appended in the order in
 * which ASL would have them; what has a body is begun, filled and ended.
 * Failures are the writer's: look at w.failed at the end.
 *
 * Source: ACPI Specification 6.4, "ACPI Machine Language (AML) Specification";
 * "Device Configuration", "Resource Data Types for ACPI".
 */

#include <stdint.h>

#include "vmrun/bytes.h"

#define AML_MAX_DEPTH 8

struct aml {
    struct writer w;
    struct {
        size_t at; /* where the body's length is to be put */
        bool resources;
    } open[AML_MAX_DEPTH];
    unsigned depth;
};

/* name: one segment of up to four letters, with a "\\" before it where it starts at the root. */
void aml_begin_scope(struct aml *a, const char *name);
void aml_begin_device(struct aml *a, const char *name);
void aml_begin_package(struct aml *a, uint8_t elements);
void aml_begin_resources(struct aml *a); /* a buffer of descriptors: the aml_resource_… below */
void aml_end(struct aml *a);

void aml_name(struct aml *a, const char *name); /* its value follows */
void aml_integer(struct aml *a, uint64_t value);
void aml_string(struct aml *a, const char *text);
void aml_eisa_id(struct aml *a, const char *id); /* "PNP0501" */

/* count ports from first on, decoded with 16 address lines. */
void aml_resource_io(struct aml *a, uint16_t first, uint8_t count);
/* An ISA interrupt: edge, active high, not shared. */
void aml_resource_irq(struct aml *a, uint8_t irq);

#endif
