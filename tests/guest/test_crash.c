/* SPDX-License-Identifier: Apache-2.0 */
/* An exit that nobody can serve ends in words, not in a loop. */
#include "guest.h"

#include <string.h>

static void run_to_crash(struct guest *g, const char *payload, bool ring3)
{
    guest_create(g, payload, 1, ring3);
    kvm_vm_resume(g->vm);
    guest_wait_end(g);
    kvm_vm_pause(g->vm);
    assert_int_equal(g->crashes, 1);
    assert_int_equal(g->status, -1);
}

static void expect(struct guest *g, const char *words)
{
    if (!strstr(g->report, words))
        fail_msg("no \"%s\" in:\n%s", words, g->report);
}

static void a_triple_fault_is_called_one(void **state)
{
    struct guest g;

    (void)state;
    run_to_crash(&g, "triple", false);
    expect(&g, "vCPU 0: triple fault (KVM exit 8, SHUTDOWN)\n");
    expect(&g, "\n  cs ");
    guest_destroy(&g);
}

static void a_jump_to_nowhere_is_reported_with_registers(void **state)
{
    struct guest g;

    (void)state;
    run_to_crash(&g, "astray", false);
    expect(&g, "vCPU 0: KVM could not go on: cannot emulate the instruction (suberror 1)");
    expect(&g, "rip  00000000c0000000");
    expect(&g, "r12  0000000000004b1d");
    expect(&g, " <--> "); /* there is no code */
    guest_destroy(&g);
}

static int run(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_triple_fault_is_called_one),
        cmocka_unit_test(a_jump_to_nowhere_is_reported_with_registers),
    };
    return cmocka_run_group_tests_name("crash", tests, NULL, NULL);
}

int main(void)
{
    return guest_main(run);
}
