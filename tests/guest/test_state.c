/* SPDX-License-Identifier: Apache-2.0 */
/* The state of KVM in tables: another machine goes on where the first one stood. */
#include "guest.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>

#include "../../src/kvm/internal.h"

#define COUNTER_GPA 0x90000

static void check_counting(bool ring3)
{
    struct guest machines[2], *from = &machines[0], *to = &machines[1];
    uint32_t counted, next = 1;

    guest_create(from, "count", 1, ring3);
    for (unsigned i = 0; i < 20; i++) {
        guest_run_for(from, 3 + i);
        for (unsigned k = 0; k < from->count; k++)
            assert_int_equal(from->tape[k].value, next++);
        assert_int_equal(guest_memory_read(from->memory, COUNTER_GPA, &counted, 4), 0);
        assert_in_range(counted, next - 2, next - 1);

        guest_move(from, to);
        char *before = kvm_vm_describe(from->vm), *after = kvm_vm_describe(to->vm);
        assert_string_equal(before, after);
        free(before);
        free(after);
        guest_destroy(from);
        from = to;
        to = &machines[i % 2];
    }
    guest_run_for(from, 3);
    assert_int_equal(from->tape[0].value, next);
    guest_destroy(from);
}

static void a_counter_goes_on_over_twenty_moves(void **state)
{
    (void)state;
    check_counting(false);
}

static void nor_does_it_stumble_in_ring_3(void **state)
{
    (void)state;
    if (!guest_has_ring3()) {
        print_message("skipped: this host runs ring 0 itself\n");
        skip();
    }
    check_counting(true);
}

/* What a table said, without clocks: those run on between two looks. */
struct told {
    char *text;
    size_t len;
    FILE *out;
};

static void write_down(void *opaque, const struct state_told *told)
{
    struct told *all = opaque;
    bool lapic = told->id_len > 6 && memcmp(told->id + told->id_len - 6, ".lapic", 6) == 0;

    if (memcmp(told->id, "clock", 5) == 0 || memcmp(told->field, "deadline", 8) == 0)
        return;
    fprintf(all->out, "%.*s %.*s", (int)told->id_len, told->id, (int)told->field_len, told->field);
    for (uint32_t i = 0; i < told->count; i++) {
        uint64_t value = 0;

        memcpy(&value, told->values + (size_t)i * told->size, told->size);
        if (!lapic || i != 0x39) /* the timer's count */
            fprintf(all->out, " %llx", (unsigned long long)value);
    }
    fputc('\n', all->out);
}

static char *tell(const struct writer *w)
{
    struct reader r = {.data = w->data, .len = w->len};
    struct told told = {0};
    struct error err;

    told.out = open_memstream(&told.text, &told.len);
    assert_non_null(told.out);
    if (state_registry_tell(&r, write_down, &told, &err) < 0)
        fail_msg("%s", err.msg);
    fclose(told.out);
    return told.text;
}

/* Both texts line by line: the first line that differs says what went wrong. */
static void same_text(char *a, char *b)
{
    char *rest_a = a, *rest_b = b;

    for (;;) {
        char *line_a = strsep(&rest_a, "\n"), *line_b = strsep(&rest_b, "\n");

        if (!line_a || !line_b)
            break;
        assert_string_equal(line_a, line_b);
    }
    assert_true(!rest_a && !rest_b);
    free(a);
    free(b);
}

static void moved_machines_say_the_same(const char *payload, unsigned cpus, unsigned accesses)
{
    struct guest from, to;

    guest_create(&from, payload, cpus, false);
    if (accesses)
        guest_run_for(&from, accesses);
    guest_move(&from, &to);
    struct writer first = guest_save(&from), second = guest_save(&to);
    same_text(tell(&first), tell(&second));
    free(first.data);
    free(second.data);
    guest_destroy(&from);
    guest_destroy(&to);
}

static void all_that_was_loaded_is_saved_again(void **state)
{
    (void)state;
    moved_machines_say_the_same("count", 1, 50);
    moved_machines_say_the_same("strings", 1, 77);
    moved_machines_say_the_same("smp", 4, 3); /* all run, or wait for their first instruction */
}

static void a_machine_that_never_ran_can_move(void **state)
{
    struct guest from, to;

    (void)state;
    moved_machines_say_the_same("smp", 3, 0);
    guest_create(&from, "smp", 3, false);
    guest_move(&from, &to);
    guest_destroy(&from);
    guest_run_for(&to, 2); /* vCPU 0 starts, and starts the others */
    assert_int_equal(to.tape[0].value + to.tape[1].value, 1 + 2);
    guest_destroy(&to);
}

static void a_read_that_was_under_way_is_completed_before_the_state_is_taken(void **state)
{
    struct guest from, to;
    unsigned first;

    (void)state;
    guest_create(&from, "io", 1, guest_has_ring3());
    guest_create(&to, "io", 1, guest_has_ring3());
    kvm_vm_resume(to.vm);
    guest_wait_end(&to);
    kvm_vm_pause(to.vm);
    struct access *all = malloc(to.count * sizeof(*all));
    unsigned count = to.count;
    assert_non_null(all);
    memcpy(all, to.tape, count * sizeof(*all));
    guest_destroy(&to);

    for (unsigned at = 1; at < count; at++) {
        from.pause_at = at;
        kvm_vm_resume(from.vm);
        guest_wait_accesses(&from, at);
        kvm_vm_pause(from.vm);
        first = from.count; /* more than that when one instruction made several */
        at = first;
        guest_move(&from, &to);
        kvm_vm_resume(to.vm);
        guest_wait_end(&to);
        kvm_vm_pause(to.vm);
        assert_int_equal(to.count, count - first);
        for (unsigned i = 0; i < to.count; i++) {
            assert_int_equal(to.tape[i].addr, all[first + i].addr);
            assert_int_equal(to.tape[i].value, all[first + i].value);
        }
        guest_destroy(&to);
    }
    free(all);
    guest_destroy(&from);
}

static void a_crashed_machine_stays_crashed_until_its_reset(void **state)
{
    struct guest from, to;
    struct error err;

    (void)state;
    guest_create(&from, "triple", 1, false);
    kvm_vm_resume(from.vm);
    guest_wait_end(&from);
    kvm_vm_pause(from.vm);
    assert_int_equal(from.crashes, 1);
    guest_move(&from, &to);
    guest_destroy(&from);
    kvm_vm_resume(to.vm);
    kvm_vm_pause(to.vm);
    assert_int_equal(to.crashes, 0);
    assert_true(to.vm->vcpus[0]->crashed);

    assert_int_equal(kvm_vm_reset(to.vm, &err), 0);
    guest_load(&to);
    kvm_vm_resume(to.vm);
    guest_wait_end(&to);
    assert_int_equal(to.crashes, 1);
    guest_destroy(&to);
}

static void a_machine_that_moved_can_be_reset(void **state)
{
    struct guest from, to;
    struct error err;

    (void)state;
    guest_create(&from, "count", 1, false);
    guest_run_for(&from, 5);
    guest_move(&from, &to);
    guest_destroy(&from);
    assert_int_equal(kvm_vm_reset(to.vm, &err), 0);
    guest_load(&to);
    guest_run_for(&to, 5);
    assert_int_equal(to.tape[0].value, 1);
    guest_destroy(&to);
}

static uint32_t ioapic_irr(struct guest *g)
{
    struct kvm_irqchip chip = {.chip_id = KVM_IRQCHIP_IOAPIC};

    assert_int_equal(ioctl(g->vm->fd, KVM_GET_IRQCHIP, &chip), 0);
    return chip.chip.ioapic.irr;
}

static void a_line_that_is_held_is_held_there_too(void **state)
{
    struct irq *line[2], *other[2];
    struct guest from, to;
    struct error err;

    (void)state;
    guest_create(&from, "count", 1, false);
    guest_create_like(&to, &from);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(kvm_vm_irq_line(from.vm, 5 + i, &line[i], &err), 0);
        assert_int_equal(kvm_vm_irq_line(to.vm, 5 + i, &other[i], &err), 0);
    }
    irq_set(line[0], true);
    irq_set(line[1], true);
    irq_set(line[1], false);
    irq_set(other[1], true); /* of a device that is not what it will be */
    struct writer w = guest_save(&from);
    assert_int_equal(guest_restore(&to, &w, 0, &err), 0);
    free(w.data);

    assert_int_equal(ioapic_irr(&to), 1u << 5);
    irq_set(other[0], true); /* its device says so again when it resumes: no new edge */
    assert_int_equal(ioapic_irr(&to), 1u << 5);
    irq_set(other[0], false);
    assert_int_equal(ioapic_irr(&to), 0);
    guest_destroy(&from);
    guest_destroy(&to);
}

/* What KVM has of a vCPU beside what the payloads use. */
static void set_rare_things(struct vcpu *vcpu)
{
    struct kvm_debugregs debug = {
        .db = {0x1000, 0x2000, 0x3000, 0x4000}, .dr6 = 0xffff0ff0 | 1 << 14, .dr7 = 0x400};
    struct kvm_vcpu_events events;
    struct kvm_sregs sregs;
    uint64_t xsave[XSAVE_ROOM / 8] = {0};

    assert_int_equal(ioctl(vcpu->fd, KVM_SET_DEBUGREGS, &debug), 0);
    assert_int_equal(ioctl(vcpu->fd, KVM_GET_SREGS, &sregs), 0);
    sregs.cr2 = 0x123456789abc;
    sregs.fs.base = 0x7f0012345678;
    assert_int_equal(ioctl(vcpu->fd, KVM_SET_SREGS, &sregs), 0);
    assert_int_equal(ioctl(vcpu->fd, vcpu->vm->has_xsave2 ? KVM_GET_XSAVE2 : KVM_GET_XSAVE, xsave),
                     0);
    for (unsigned i = 160 / 8; i < 416 / 8; i++) /* XMM0 to XMM15 */
        xsave[i] = UINT64_C(0x0101010101010101) * i;
    xsave[64] |= 2;
    assert_int_equal(ioctl(vcpu->fd, KVM_SET_XSAVE, xsave), 0);
    assert_int_equal(ioctl(vcpu->fd, KVM_GET_VCPU_EVENTS, &events), 0);
    events.nmi.pending = 1;
    events.nmi.masked = 1;
    events.flags |= KVM_VCPUEVENT_VALID_NMI_PENDING;
    assert_int_equal(ioctl(vcpu->fd, KVM_SET_VCPU_EVENTS, &events), 0);
}

/* Where a kernel has its entry points, its clock, its machine checks. Not every KVM has all. */
static const struct {
    uint32_t index;
    uint64_t value;
} rare_msrs[] = {
    {0x174, 0x10},
    {0x175, 0x12345000},
    {0x176, 0xffffffff81234567},
    {0x277, 0x0407050600070106},
    {0x400, UINT64_MAX},
    {0x47c, UINT64_MAX},
    {0xc0000081, 0x23001000000000},
    {0xc0000082, 0xffffffff81000000},
    {0xc0000084, 0x47700},
    {0xc0000102, 0xffff888012345678},
    {0xc0000103, 7},
    {0x4b564d01, 0x300001},
    {0x4b564d04, 0x301005},
};
#define RARE_MSRS (sizeof(rare_msrs) / sizeof(rare_msrs[0]))

static void set_rare_msrs(struct vcpu *vcpu)
{
    unsigned set = 0;

    for (size_t i = 0; i < RARE_MSRS; i++)
        set += msr_set_one(vcpu, rare_msrs[i].index, rare_msrs[i].value) == 0;
    assert_in_range(set, 10, RARE_MSRS);
}

static void same_rare_msrs(struct vcpu *a, struct vcpu *b)
{
    for (size_t i = 0; i < RARE_MSRS; i++) {
        uint64_t first, second;
        int r = msr_get_one(a, rare_msrs[i].index, &first);

        assert_int_equal(msr_get_one(b, rare_msrs[i].index, &second), r);
        if (r == 0)
            assert_int_equal(first, second);
    }
}

static void set_rare_chips(struct guest *g)
{
    struct kvm_irqchip pic = {.chip_id = KVM_IRQCHIP_PIC_SLAVE},
                       ioapic = {.chip_id = KVM_IRQCHIP_IOAPIC};
    struct kvm_pit_state2 pit;

    assert_int_equal(ioctl(g->vm->fd, KVM_GET_IRQCHIP, &pic), 0);
    pic.chip.pic.imr = 0xa5;
    pic.chip.pic.irq_base = 0x28;
    pic.chip.pic.special_mask = 1;
    assert_int_equal(ioctl(g->vm->fd, KVM_SET_IRQCHIP, &pic), 0);
    assert_int_equal(ioctl(g->vm->fd, KVM_GET_IRQCHIP, &ioapic), 0);
    for (unsigned i = 0; i < KVM_IOAPIC_NUM_PINS; i++)
        ioapic.chip.ioapic.redirtbl[i].bits = 0x18000 | (0x30 + i) | (uint64_t)i << 56;
    assert_int_equal(ioctl(g->vm->fd, KVM_SET_IRQCHIP, &ioapic), 0);
    assert_int_equal(ioctl(g->vm->fd, KVM_GET_PIT2, &pit), 0);
    pit.channels[2].count = 4711;
    pit.channels[2].mode = 3;
    pit.channels[2].gate = 1;
    assert_int_equal(ioctl(g->vm->fd, KVM_SET_PIT2, &pit), 0);
}

static void what_no_payload_uses_moves_as_well(void **state)
{
    struct guest from, to;

    (void)state;
    guest_create(&from, "smp", 2, false);
    for (unsigned i = 0; i < 2; i++) {
        set_rare_things(from.vm->vcpus[i]);
        set_rare_msrs(from.vm->vcpus[i]);
    }
    set_rare_chips(&from);
    guest_move(&from, &to);
    for (unsigned i = 0; i < 2; i++)
        same_rare_msrs(from.vm->vcpus[i], to.vm->vcpus[i]);
    struct writer first = guest_save(&from), second = guest_save(&to);
    char *text = tell(&first);
    assert_non_null(strstr(text, "vcpu1.sregs cr2 123456789abc\n"));
    assert_non_null(strstr(text, "vcpu0.debugregs db 1000 2000 3000 4000\n"));
    assert_non_null(strstr(text, "vcpu1.events nmi.masked 1\n"));
    assert_non_null(strstr(text, "pic1 imr a5\n"));
    same_text(text, tell(&second));
    free(first.data);
    free(second.data);
    guest_destroy(&from);
    guest_destroy(&to);
}

/* KVM puts the time of day where MSR WALL_CLOCK says, when it is set. The page has another use now.
 */
static void a_move_writes_nothing_to_the_guests_memory(void **state)
{
    static const uint32_t wall_clock[] = {0x11, 0x4b564d00};
    struct guest from, to;

    (void)state;
    guest_create(&from, "count", 1, false);
    guest_run_for(&from, 3);
    for (unsigned i = 0; i < 2; i++)
        (void)msr_set_one(from.vm->vcpus[0], wall_clock[i], 0x200000);
    assert_int_equal(guest_memory_zero(from.memory, 0x200000, 4096), 0);
    guest_move(&from, &to);
    for (unsigned i = 0; i < from.memory->count; i++)
        assert_memory_equal(from.memory->regions[i].host, to.memory->regions[i].host,
                            from.memory->regions[i].size);
    guest_destroy(&from);
    guest_destroy(&to);
}

static int run(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_counter_goes_on_over_twenty_moves),
        cmocka_unit_test(nor_does_it_stumble_in_ring_3),
        cmocka_unit_test(all_that_was_loaded_is_saved_again),
        cmocka_unit_test(a_machine_that_never_ran_can_move),
        cmocka_unit_test(a_read_that_was_under_way_is_completed_before_the_state_is_taken),
        cmocka_unit_test(a_crashed_machine_stays_crashed_until_its_reset),
        cmocka_unit_test(a_machine_that_moved_can_be_reset),
        cmocka_unit_test(a_line_that_is_held_is_held_there_too),
        cmocka_unit_test(what_no_payload_uses_moves_as_well),
        cmocka_unit_test(a_move_writes_nothing_to_the_guests_memory),
    };
    return cmocka_run_group_tests_name("state", tests, NULL, NULL);
}

int main(void)
{
    return guest_main(run);
}
