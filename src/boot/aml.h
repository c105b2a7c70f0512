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

/*
 * name: one segment of up to four letters, with a "\\" before it where it starts at the root; two
 * with a dot between them where something is only referred to.
 */
void aml_begin_scope(struct aml *a, const char *name);
void aml_begin_device(struct aml *a, const char *name);
void aml_begin_package(struct aml *a, uint8_t elements);
void aml_begin_resources(struct aml *a); /* a buffer of descriptors: the aml_resource_… below */
void aml_begin_method(struct aml *a, const char *name, uint8_t arguments); /* serialized */
void aml_begin_if_not_equal(struct aml *a); /* two operands, then what is done */
void aml_end(struct aml *a);

void aml_name(struct aml *a, const char *name); /* its value follows */
void aml_integer(struct aml *a, uint64_t value);
void aml_string(struct aml *a, const char *text);
void aml_eisa_id(struct aml *a, const char *id); /* "PNP0501" */

void aml_buffer(struct aml *a, const void *data, uint8_t len); /* at most 255 bytes */
void aml_argument(struct aml *a, uint8_t n);                   /* Arg0 to Arg6 of a method */
void aml_reference(struct aml *a, const char *name);           /* what a name stands for */
void aml_dword_field(struct aml *a, uint8_t argument, uint64_t offset, const char *name);
/* target |= bits */
void aml_or(struct aml *a, const char *target, uint64_t bits);
void aml_notify(struct aml *a, const char *device, uint8_t value);
void aml_return_argument(struct aml *a, uint8_t n);

/* count ports from first on, decoded with 16 address lines. */
void aml_resource_io(struct aml *a, uint16_t first, uint8_t count);
/* An ISA interrupt: edge, active high, not shared. */
void aml_resource_irq(struct aml *a, uint8_t irq);
/* Memory that a device occupies itself. */
void aml_resource_memory32(struct aml *a, uint32_t base, uint32_t size);
/* What a bridge passes on: bus numbers, ports, non-cacheable memory. Both ends are inside. */
void aml_resource_bus_window(struct aml *a, uint8_t first, uint8_t last);
void aml_resource_io_window(struct aml *a, uint16_t first, uint16_t last);
void aml_resource_memory_window(struct aml *a, uint64_t first, uint64_t last);

#endif
