/* SPDX-License-Identifier: Apache-2.0 */
/* The log of writes has every page that the guest wrote, and no other. */
#include "guest.h"

#include <stdlib.h>
#include <string.h>

#include "../../src/kvm/internal.h"

#define RAM_PAGES 4096u /* 16 MiB */
#define WORDS (RAM_PAGES / 64)
/*
 * Where the payload lies, and its page tables: to a CPU of AMD's under a hypervisor, walking a page
 * table is writing it, and the log has those pages or not.
 */
#define PAYLOAD_WORD (0x100 / 64)

static void run_to_access(struct guest *g, unsigned number)
{
    g->pause_at = number;
    kvm_vm_resume(g->vm);
    guest_wait_accesses(g, number);
    kvm_vm_pause(g->vm);
    assert_int_equal(g->count, number);
}

static void set_log(struct guest *g, bool on)
{
    struct error err;

    if (kvm_vm_dirty_log(g->vm, on, &err) < 0)
        fail_msg("%s", err.msg);
}

static void harvest(struct guest *g, uint64_t bitmap[WORDS])
{
    struct error err;

    memset(bitmap, 0, WORDS * sizeof(bitmap[0]));
    if (kvm_vm_dirty_harvest(g->vm, 0, bitmap, &err) < 0)
        fail_msg("%s", err.msg);
}

/* All pages, in pieces, as they are copied. */
static void clear(struct guest *g, const uint64_t bitmap[WORDS])
{
    struct error err;

    for (unsigned first = 0; first < RAM_PAGES; first += 512)
        if (kvm_vm_dirty_clear(g->vm, 0, first, 512, bitmap + first / 64, &err) < 0)
            fail_msg("%s", err.msg);
}

static void expect(struct guest *g, unsigned first, unsigned step, unsigned count)
{
    uint64_t wanted[WORDS] = {0}, bitmap[WORDS];

    for (unsigned i = 0; i < count; i++)
        wanted[(first + i * step) / 64] |= UINT64_C(1) << (first + i * step) % 64;
    harvest(g, bitmap);
    for (unsigned i = 0; i < WORDS; i++)
        if (i != PAYLOAD_WORD && bitmap[i] != wanted[i])
            fail_msg("pages from %u: logged %016llx, written %016llx", i * 64,
                     (unsigned long long)bitmap[i], (unsigned long long)wanted[i]);
}

static void check_log(bool ring3, bool manual)
{
    uint64_t bitmap[WORDS];
    struct guest g;

    guest_create(&g, "pages", 1, ring3);
    if (!manual)
        g.vm->dirty_probed = true; /* as on a host that cannot: see dirty.c */
    run_to_access(&g, 1);
    set_log(&g, true);
    assert_int_equal(g.vm->dirty_manual, manual);
    harvest(&g, bitmap);
    for (unsigned i = 0; i < WORDS; i++)
        assert_true(bitmap[i] == UINT64_MAX); /* all count as written at first */
    clear(&g, bitmap);
    expect(&g, 0, 0, 0);

    run_to_access(&g, 2);
    expect(&g, 0x400, 3, 16);
    expect(&g, 0x400, 3, 16); /* until they are cleared */
    harvest(&g, bitmap);
    clear(&g, bitmap);
    expect(&g, 0, 0, 0);

    run_to_access(&g, 3);
    expect(&g, 0x500, 5, 8);
    harvest(&g, bitmap);
    clear(&g, bitmap);
    for (unsigned i = 4; i < 8; i++) { /* the same page each time */
        run_to_access(&g, i);
        expect(&g, 0x500, 1, 1);
        harvest(&g, bitmap);
        clear(&g, bitmap);
    }

    set_log(&g, false);
    run_to_access(&g, 10);
    for (unsigned i = 0; i < 2; i++) { /* begins anew, also when it was on */
        set_log(&g, true);
        harvest(&g, bitmap);
        assert_true(bitmap[0] == UINT64_MAX && bitmap[WORDS - 1] == UINT64_MAX);
        clear(&g, bitmap);
    }
    guest_destroy(&g);
}

static bool host_has_manual(void)
{
    struct guest g;

    guest_create(&g, "pages", 1, false);
    set_log(&g, true);
    bool manual = g.vm->dirty_manual;
    guest_destroy(&g);
    return manual;
}

static void the_log_has_what_was_written_and_nothing_else(void **state)
{
    (void)state;
    check_log(false, host_has_manual());
}

static void so_it_has_for_ring_3(void **state)
{
    (void)state;
    if (!guest_has_ring3()) {
        print_message("skipped: this host runs ring 0 itself\n");
        skip();
    }
    check_log(true, host_has_manual());
}

static void a_host_that_protects_as_it_reads_makes_no_difference(void **state)
{
    (void)state;
    check_log(guest_has_ring3(), false);
}

static void a_page_written_again_after_it_was_cleared_is_in_the_next_log(void **state)
{
    uint64_t bitmap[WORDS];
    struct guest g;

    (void)state;
    for (unsigned manual = 0; manual < 2; manual++) {
        guest_create(&g, "pages", 1, false);
        if (!manual)
            g.vm->dirty_probed = true;
        run_to_access(&g, 3);
        set_log(&g, true);
        harvest(&g, bitmap);
        clear(&g, bitmap);
        run_to_access(&g, 4);
        harvest(&g, bitmap);
        clear(&g, bitmap); /* and here the page would be copied, while the guest runs on */
        run_to_access(&g, 5);
        expect(&g, 0x500, 1, 1);
        guest_destroy(&g);
    }
}

static void without_a_log_there_is_nothing_to_harvest(void **state)
{
    uint64_t bitmap[WORDS];
    struct error err;
    struct guest g;

    (void)state;
    guest_create(&g, "pages", 1, false);
    assert_true(kvm_vm_dirty_harvest(g.vm, 0, bitmap, &err) < 0);
    assert_non_null(strstr(err.msg, "KVM_GET_DIRTY_LOG of region 0"));
    set_log(&g, true);
    set_log(&g, false);
    assert_true(kvm_vm_dirty_harvest(g.vm, 0, bitmap, &err) < 0);
    guest_destroy(&g);
}

static int run(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_log_has_what_was_written_and_nothing_else),
        cmocka_unit_test(so_it_has_for_ring_3),
        cmocka_unit_test(a_host_that_protects_as_it_reads_makes_no_difference),
        cmocka_unit_test(a_page_written_again_after_it_was_cleared_is_in_the_next_log),
        cmocka_unit_test(without_a_log_there_is_nothing_to_harvest),
    };
    return cmocka_run_group_tests_name("dirty", tests, NULL, NULL);
}

int main(void)
{
    return guest_main(run);
}
