/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a person is told about a vCPU that stopped for good: the exit in words,
 * the registers, the code bytes around RIP. Code is found by the vCPU's own
 * page tables and read from guest RAM, never through a guest's pointer.
 */
#include "internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#define CODE_BEFORE 16u
#define CODE_BYTES 48u

#define EXIT(name, words) \
    { \
        KVM_EXIT_##name, #name, words \
    }
static const struct {
    uint32_t reason;
    const char *name, *words;
} exits[] = {
    EXIT(UNKNOWN, "the hardware gave a reason that KVM does not know"),
    EXIT(EXCEPTION, "an exception that KVM passed on"),
    EXIT(HYPERCALL, "a hypercall that nobody serves"),
    EXIT(DEBUG, "a debug event that nobody asked for"),
    EXIT(SHUTDOWN, "triple fault"),
    EXIT(FAIL_ENTRY, "the hardware refused to enter the guest"),
    EXIT(NMI, "an NMI that KVM passed on"),
    EXIT(INTERNAL_ERROR, "KVM could not go on"),
    EXIT(SYSTEM_EVENT, "a system event"),
    EXIT(IOAPIC_EOI, "an end of interrupt for an IOAPIC outside the kernel"),
    EXIT(HYPERV, "a Hyper-V call that nobody serves"),
    EXIT(X86_RDMSR, "a read of an MSR that nobody serves"),
    EXIT(X86_WRMSR, "a write to an MSR that nobody serves"),
    EXIT(DIRTY_RING_FULL, "a full dirty ring that nobody empties"),
    EXIT(X86_BUS_LOCK, "a bus lock that nobody asked to see"),
    EXIT(XEN, "a Xen call that nobody serves"),
    EXIT(NOTIFY, "a guest that takes no interrupt"),
};

static const char *suberror_name(uint32_t suberror)
{
    switch (suberror) {
    case KVM_INTERNAL_ERROR_EMULATION: return "cannot emulate the instruction";
    case KVM_INTERNAL_ERROR_SIMUL_EX: return "simultaneous exceptions";
    case KVM_INTERNAL_ERROR_DELIVERY_EV: return "an exit while an event was delivered";
    case KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON: return "an unexpected exit of the hardware";
    default: return "unknown";
    }
}

static void describe_error(const struct kvm_run *run, char *buf, size_t len)
{
    unsigned count = run->internal.ndata;
    size_t at = (size_t)snprintf(buf, len, ": %s (suberror %u)",
                                 suberror_name(run->internal.suberror), run->internal.suberror);

    /* What the words mean depends on kernel and suberror; an expert wants them as they are. */
    for (unsigned i = 0; i < count && i < 4 && at < len; i++)
        at += (size_t)snprintf(buf + at, len - at, "%s0x%llx", i ? " " : ", data ",
                               (unsigned long long)run->internal.data[i]);
}

void report_reason(const struct kvm_run *run, int run_errno, char *buf, size_t len)
{
    const char *name = "?", *words = "an exit that vmrun does not know";
    char detail[160] = "";

    if (run_errno) {
        snprintf(buf, len, "KVM_RUN failed: %s%s", strerrordesc_np(run_errno),
                 run_errno == EFAULT ? " (the host could not provide a page of guest RAM)" : "");
        return;
    }

    for (size_t i = 0; i < sizeof(exits) / sizeof(exits[0]); i++) {
        if (exits[i].reason == run->exit_reason) {
            name = exits[i].name;
            words = exits[i].words;
        }
    }
    switch (run->exit_reason) {
    case KVM_EXIT_INTERNAL_ERROR: describe_error(run, detail, sizeof(detail)); break;
    case KVM_EXIT_FAIL_ENTRY:
        snprintf(detail, sizeof(detail), ": hardware reason 0x%llx",
                 (unsigned long long)run->fail_entry.hardware_entry_failure_reason);
        break;
    case KVM_EXIT_UNKNOWN:
        snprintf(detail, sizeof(detail), ": 0x%llx",
                 (unsigned long long)run->hw.hardware_exit_reason);
        break;
    case KVM_EXIT_SYSTEM_EVENT:
        snprintf(detail, sizeof(detail), ": type %u", run->system_event.type);
        break;
    default: break;
    }
    snprintf(buf, len, "%s%s (KVM exit %u, %s)", words, detail, run->exit_reason, name);
}

static void print_segment(FILE *out, const char *name, const struct kvm_segment *s)
{
    fprintf(out, "  %-3s %04x base %016llx limit %08x type %x dpl %u%s%s%s%s\n", name, s->selector,
            (unsigned long long)s->base, s->limit, s->type, s->dpl, s->present ? "" : " absent",
            s->l    ? " 64-bit"
            : s->db ? " 32-bit"
                    : "",
            s->s ? "" : " system", s->unusable ? " unusable" : "");
}

void report_registers(FILE *out, const struct kvm_regs *regs, const struct kvm_sregs *sregs)
{
    const struct {
        const char *name;
        uint64_t value;
    } values[] = {
        {"rax", regs->rax},  {"rbx", regs->rbx},    {"rcx", regs->rcx},  {"rdx", regs->rdx},
        {"rsi", regs->rsi},  {"rdi", regs->rdi},    {"rbp", regs->rbp},  {"rsp", regs->rsp},
        {"r8", regs->r8},    {"r9", regs->r9},      {"r10", regs->r10},  {"r11", regs->r11},
        {"r12", regs->r12},  {"r13", regs->r13},    {"r14", regs->r14},  {"r15", regs->r15},
        {"rip", regs->rip},  {"rfl", regs->rflags}, {"cr0", sregs->cr0}, {"cr2", sregs->cr2},
        {"cr3", sregs->cr3}, {"cr4", sregs->cr4},   {"cr8", sregs->cr8}, {"efer", sregs->efer},
    };

    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++)
        fprintf(out, "%s%-4s %016llx%s", i % 4 ? " " : "  ", values[i].name,
                (unsigned long long)values[i].value, i % 4 == 3 ? "\n" : "");
    print_segment(out, "cs", &sregs->cs);
    print_segment(out, "ss", &sregs->ss);
    print_segment(out, "ds", &sregs->ds);
    print_segment(out, "es", &sregs->es);
    print_segment(out, "fs", &sregs->fs);
    print_segment(out, "gs", &sregs->gs);
    print_segment(out, "tr", &sregs->tr);
    print_segment(out, "ldt", &sregs->ldt);
    fprintf(out, "  gdt base %016llx limit %04x   idt base %016llx limit %04x\n",
            (unsigned long long)sregs->gdt.base, sregs->gdt.limit,
            (unsigned long long)sregs->idt.base, sregs->idt.limit);
}

static bool read_code_byte(const struct vcpu *vcpu, uint64_t linear, uint8_t *ret_byte)
{
    struct kvm_translation at = {.linear_address = linear};

    return ioctl(vcpu->fd, KVM_TRANSLATE, &at) == 0 && at.valid &&
           guest_memory_read(vcpu->vm->params.memory, at.physical_address, ret_byte, 1) == 0;
}

static void print_code(FILE *out, const struct vcpu *vcpu, uint64_t rip,
                       const struct kvm_sregs *sregs)
{
    uint64_t linear = (sregs->cs.l ? 0 : sregs->cs.base) + rip;
    uint8_t byte;

    fprintf(out, "  code");
    for (unsigned i = 0; i < CODE_BYTES; i++) {
        uint64_t at = linear - CODE_BEFORE + i;
        const char *form = i == CODE_BEFORE ? " <%02x>" : " %02x";

        if (read_code_byte(vcpu, at, &byte))
            fprintf(out, form, byte);
        else
            fputs(i == CODE_BEFORE ? " <-->" : " --", out);
    }
    fputc('\n', out);
}

void report_vcpu(FILE *out, const struct vcpu *vcpu)
{
    struct kvm_regs regs;
    struct kvm_sregs sregs;

    if (ioctl(vcpu->fd, KVM_GET_REGS, &regs) < 0 || ioctl(vcpu->fd, KVM_GET_SREGS, &sregs) < 0) {
        fprintf(out, "  no registers: %s\n", strerrordesc_np(errno));
        return;
    }
    report_registers(out, &regs, &sregs);
    print_code(out, vcpu, regs.rip, &sregs);
    if (sregs.cs.base == 0xffff0000 && regs.rip == 0xfff0)
        fprintf(out, "  (these are the values after INIT: AMD hosts keep no others then)\n");
}

char *kvm_vm_describe(struct kvm_vm *vm)
{
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);

    if (!out)
        return NULL;
    for (unsigned i = 0; i < vm->params.cpus; i++) {
        struct kvm_mp_state mp = {.mp_state = KVM_MP_STATE_RUNNABLE};

        (void)ioctl(vm->vcpus[i]->fd, KVM_GET_MP_STATE, &mp);
        fprintf(out, "vCPU %u: %s\n", i,
                mp.mp_state == KVM_MP_STATE_RUNNABLE ? "runs"
                : mp.mp_state == KVM_MP_STATE_HALTED ? "halted"
                                                     : "waits to be started");
        report_vcpu(out, vm->vcpus[i]);
    }
    fclose(out);
    return text;
}
