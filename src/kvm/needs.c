/* SPDX-License-Identifier: Apache-2.0 */
/*
 * needs: what a host's KVM must be able to do before it gets a machine from elsewhere, as words.
 *
 * They are told before any memory moves, when the state is not known yet: an MSR that is 0 at
 * power-on may stay so, and a host without it will do then. Such words end in '?', and a reader
 * that does not know one of them passes over it; any other that it does not know is lacking.
 */
#include "internal.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#define WORD_MAX 64
#define TSC_STEP 1000000 /* ticks, to see whether KVM keeps an offset */

/* What the state has in a form that only a KVM with the same capability takes. */
static const struct {
    const char *word;
    int number;
    bool either_way; /* without it the form is another one */
} forms[] = {
    {"sregs2", KVM_CAP_SREGS2, false},
    {"xcrs", KVM_CAP_XCRS, false},
    {"exception_payload", KVM_CAP_EXCEPTION_PAYLOAD, false},
    {"x86_triple_fault_event", KVM_CAP_X86_TRIPLE_FAULT_EVENT, false},
    {"x2apic_api", KVM_CAP_X2APIC_API, true},
};
#define FORMS (sizeof(forms) / sizeof(forms[0]))

static bool can(const struct kvm_vm *vm, int capability)
{
    return ioctl(vm->device_fd, KVM_CHECK_EXTENSION, capability) > 0;
}

/* Of the extended state, as KVM gives it. */
static unsigned xsave_bytes(const struct kvm_vm *vm)
{
    int bytes = ioctl(vm->fd, KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2);

    return bytes > (int)sizeof(struct kvm_xsave) ? (unsigned)bytes : sizeof(struct kvm_xsave);
}

int kvm_vm_needs(const struct kvm_vm *vm, char **ret_text, struct error *err)
{
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);

    if (!out)
        return error_set(err, ENOMEM, "out of memory");
    fprintf(out, "xsave=%u", xsave_bytes(vm));
    if (vm->tsc_khz)
        fprintf(out, " tsc_khz=%u", vm->tsc_khz);
    fputs(" tsc_offset?", out);
    for (size_t i = 0; i < FORMS; i++)
        if (can(vm, forms[i].number))
            fprintf(out, " %s", forms[i].word);
        else if (forms[i].either_way)
            fprintf(out, " no_%s", forms[i].word);
    for (uint32_t i = 0; i < vm->msrs.count; i++)
        fprintf(out, " msr%s=0x%x", vm->msrs.data[i] ? "" : "?", vm->msrs.index[i]);
    if (fclose(out) != 0) {
        free(text);
        return error_set(err, ENOMEM, "out of memory");
    }
    *ret_text = text;
    return 0;
}

/* Words after one another, as far as there is room. */
static void __attribute__((format(printf, 3, 4))) say(char *buf, size_t room, const char *fmt, ...)
{
    size_t len = strlen(buf);
    va_list list;

    if (len > 0 && len + 2 < room) {
        memcpy(buf + len, ", ", 3);
        len += 2;
    }
    va_start(list, fmt);
    vsnprintf(buf + len, room - len, fmt, list);
    va_end(list);
}

static bool has_msr(const struct kvm_vm *vm, uint64_t index)
{
    for (uint32_t i = 0; i < vm->msrs.count; i++)
        if (vm->msrs.index[i] == index)
            return true;
    return false;
}

/* Whether KVM keeps the offset that it is told. The vCPU has one, and gets it back. */
static bool keeps_tsc_offset(struct vcpu *vcpu)
{
    uint64_t offset;

    if (!vcpu->has_tsc_offset || !tsc_get_offset(vcpu, &offset))
        return false;
    bool keeps = tsc_set_offset(vcpu, offset + TSC_STEP);

    (void)tsc_set_offset(vcpu, offset);
    return keeps;
}

/* 1: it is a form that this KVM has, 0: that it has not, -1: no form. */
static int judge_form(const struct kvm_vm *vm, const char *name)
{
    bool without = strncmp(name, "no_", 3) == 0;

    for (size_t i = 0; i < FORMS; i++)
        if (strcmp(forms[i].word, name + (without ? 3 : 0)) == 0)
            return can(vm, forms[i].number) != without;
    return -1;
}

/* One word of theirs, which may be anything printable. */
static void judge(struct kvm_vm *vm, char *word, struct kvm_lacks *lacks)
{
    char *value = strchr(word, '='), *end = value, name[40];
    uint64_t number = 0;
    int form;

    if (value) {
        *value++ = '\0';
        number = strtoull(value, &end, 0);
    }
    size_t len = strlen(word);
    bool optional = len > 0 && word[len - 1] == '?';
    char *to = optional ? lacks->doubts : lacks->missing;
    size_t room = optional ? sizeof(lacks->doubts) : sizeof(lacks->missing);

    if (optional)
        word[len - 1] = '\0';
    if (value && (end == value || *end)) {
        say(to, room, "'%s=%s', which makes no sense", word, value);
    } else if (value && strcmp(word, "xsave") == 0) {
        if (number > xsave_bytes(vm))
            say(to, room, "%llu bytes of extended state (this host has %u)",
                (unsigned long long)number, xsave_bytes(vm));
    } else if (value && strcmp(word, "tsc_khz") == 0) {
        if (vm->tsc_khz && !tsc_same_frequency(number, vm->tsc_khz) &&
            !can(vm, KVM_CAP_TSC_CONTROL))
            say(to, room,
                "a TSC of %llu kHz (this host's runs at %u kHz, and its KVM cannot scale it)",
                (unsigned long long)number, vm->tsc_khz);
    } else if (value && strcmp(word, "msr") == 0) {
        if (!has_msr(vm, number))
            say(to, room, "MSR %s",
                number <= UINT32_MAX ? msr_name((uint32_t)number, name) : value);
    } else if (!value && strcmp(word, "tsc_offset") == 0) {
        if (!keeps_tsc_offset(vm->vcpus[0]))
            say(to, room, "a TSC that can be set (it jumps; guests that use kvmclock do not mind)");
    } else if (value || (form = judge_form(vm, word)) < 0) {
        if (!optional)
            say(to, room, "'%s', which this vmrun does not know", word);
    } else if (!form) {
        say(to, room, "KVM_CAP_%s", word);
    }
}

int kvm_vm_lacks(struct kvm_vm *vm, const char *needs, struct kvm_lacks *ret_lacks,
                 struct error *err)
{
    struct kvm_lacks lacks = {.missing = ""};
    char word[WORD_MAX];

    for (const char *at = needs; *at;) {
        size_t len = strcspn(at, " ");

        if (len >= sizeof(word))
            return error_set(err, EPROTO, "what the machine needs of KVM: a word is too long");
        for (size_t i = 0; i < len; i++)
            if (!isgraph((unsigned char)at[i]))
                return error_set(err, EPROTO,
                                 "what the machine needs of KVM: a byte that is no text");
        memcpy(word, at, len);
        word[len] = '\0';
        if (len > 0)
            judge(vm, word, &lacks);
        at += len + (at[len] == ' ');
    }
    *ret_lacks = lacks;
    return 0;
}

int kvm_host_lacks(const char *needs, const void *cpuid, size_t cpuid_len,
                   struct kvm_lacks *ret_lacks, struct error *err)
{
    const struct memory_layout layout = {
        .size = 4096, .hole_start = UINT64_C(3) << 30, .hole_end = UINT64_C(1) << 32};
    struct kvm_vm_params params = {.cpus = 1, .cpuid = cpuid, .cpuid_len = cpuid_len};
    struct guest_memory *memory = NULL;
    struct kvm_vm *vm = NULL;
    int r = guest_memory_create(&layout, &memory, err);

    params.memory = memory;
    if (r == 0)
        r = kvm_vm_create(&params, &vm, err);
    if (r == 0)
        r = kvm_vm_lacks(vm, needs, ret_lacks, err);
    kvm_vm_destroy(vm);
    guest_memory_destroy(memory);
    return r;
}
