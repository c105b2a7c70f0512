/* SPDX-License-Identifier: Apache-2.0 */
/* Each kind of access that a guest can make reaches the bus as it was made. */
#include "guest.h"

#define PORT(is_write, port, bytes, v) \
    { \
        .write = is_write, .addr = port, .size = bytes, .value = v \
    }
#define IN(bytes) PORT(false, 0x600, bytes, bytes == 4 ? 0x89abcdef : bytes == 2 ? 0xcdef : 0xef)
#define ECHO(v) PORT(true, 0x610, 4, v)
#define MEM(is_write, at, bytes, v) \
    { \
        .mmio = true, .write = is_write, .addr = 0xd0000000 + at, .size = bytes, .value = v \
    }

static const struct access before_string[] = {
    PORT(true, 0x600, 1, 0x11),
    PORT(true, 0x600, 2, 0x2222),
    PORT(true, 0x600, 4, 0x44444444),
    IN(1),
    ECHO(0xef),
    IN(2),
    ECHO(0xcdef),
    IN(4),
    ECHO(0x89abcdef),
};
static const struct access after_string[] = {
    PORT(true, 0x620, 4, 0xaaaa5555),
    PORT(true, 0x620, 4, 0x5555aaaa),
    PORT(false, 0x620, 1, 0xef),
    PORT(false, 0x620, 1, 0xef),
    PORT(false, 0x620, 1, 0xef),
    PORT(false, 0x620, 1, 0xef),
    ECHO(0xefefefef),
    ECHO(0xffffffff), /* what an empty port gives */
    MEM(true, 0, 1, 0x11),
    MEM(true, 0, 2, 0x2211),
    MEM(true, 0, 4, 0x44332211),
    MEM(true, 0, 8, 0x8877665544332211),
    MEM(true, 0xffd, 2, 0x2211), /* 3 bytes up to the end of the page … */
    MEM(true, 0xfff, 1, 0x33),
    MEM(true, 0x1000, 4, 0x77665544), /* … and 5 in the next */
    MEM(true, 0x1004, 1, 0x88),
    MEM(false, 0, 1, 0xef),
    ECHO(0xef),
    MEM(false, 0, 2, 0xcdef),
    ECHO(0xcdef),
    MEM(false, 0, 4, 0x89abcdef),
    ECHO(0x89abcdef),
    MEM(false, 0, 8, GUEST_READ_VALUE),
    MEM(true, 0x100, 8, GUEST_READ_VALUE),
};

static void check(const struct access *tape, const struct access *wanted, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        if (tape[i].mmio != wanted[i].mmio || tape[i].write != wanted[i].write ||
            tape[i].addr != wanted[i].addr || tape[i].size != wanted[i].size ||
            tape[i].value != wanted[i].value)
            fail_msg("access %u is a %s of %u bytes at 0x%llx, value 0x%llx", i,
                     tape[i].write ? "write" : "read", tape[i].size,
                     (unsigned long long)tape[i].addr, (unsigned long long)tape[i].value);
    }
}

static void check_io_payload(bool ring3)
{
    static const char message[] = "hello, bus\n";
    const unsigned first = sizeof(before_string) / sizeof(before_string[0]);
    const unsigned second = first + sizeof(message) - 1;
    const unsigned rest = sizeof(after_string) / sizeof(after_string[0]);
    uint64_t counts[KVM_EXIT_KINDS];
    struct guest g;

    guest_create(&g, "io", 1, ring3);
    kvm_vm_resume(g.vm);
    guest_wait_end(&g);
    kvm_vm_pause(g.vm);

    if (g.crashes)
        fail_msg("%s", g.report);
    assert_int_equal(g.status, 0x21);
    assert_int_equal(g.count, second + rest);
    check(g.tape, before_string, first);
    for (unsigned i = first; i < second; i++) {
        const struct access letter = PORT(true, 0x620, 1, (uint8_t)message[i - first]);
        check(&g.tape[i], &letter, 1);
    }
    check(&g.tape[second], after_string, rest);

    kvm_vm_exit_counts(g.vm, counts);
    assert_true(counts[KVM_EXIT_KIND_PIO] >= 20);
    assert_int_equal(counts[KVM_EXIT_KIND_MMIO], 11);
    assert_int_equal(counts[KVM_EXIT_KIND_OTHER], 0);
    guest_destroy(&g);
}

static void every_access_reaches_the_bus(void **state)
{
    (void)state;
    check_io_payload(false);
}

static void every_access_of_ring_3_reaches_the_bus(void **state)
{
    (void)state;
    if (!guest_has_ring3()) {
        print_message("skipped: this host runs ring 0 itself\n");
        skip();
    }
    check_io_payload(true);
}

static void init_and_sipi_start_every_other_cpu(void **state)
{
    bool seen[4] = {false};
    struct guest g;

    (void)state;
    guest_create(&g, "smp", 4, false);
    kvm_vm_resume(g.vm);
    guest_wait_accesses(&g, 3);
    kvm_vm_pause(g.vm);

    if (g.crashes)
        fail_msg("%s", g.report);
    assert_int_equal(g.count, 3);
    for (unsigned i = 0; i < 3; i++) {
        assert_in_range(g.tape[i].value, 1, 3);
        assert_false(seen[g.tape[i].value]);
        seen[g.tape[i].value] = true;
    }
    guest_destroy(&g);
}

static int run(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_access_reaches_the_bus),
        cmocka_unit_test(every_access_of_ring_3_reaches_the_bus),
        cmocka_unit_test(init_and_sipi_start_every_other_cpu),
    };
    return cmocka_run_group_tests_name("exits", tests, NULL, NULL);
}

int main(void)
{
    return guest_main(run);
}
