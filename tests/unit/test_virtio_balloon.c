/* SPDX-License-Identifier: Apache-2.0 */
/* virtio_balloon: what the guest gives up goes back to the host, whatever it says it gives. */
#include <linux/virtio_balloon.h>
#include <linux/virtio_ids.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "virtio_hostile.h"
#include "vmrun/virtio_devices.h"

#define ALL UINT64_MAX
#define PAGE UINT64_C(4096)
#define HIGH VIRTIO_RAM_HIGH_AT
#define HIGH_PFN ((uint32_t)(HIGH / PAGE))

enum { INFLATE, DEFLATE, STATS, REPORT, REPORT_TOO };

struct fixture {
    struct virtio_machine m;
    struct device *dev;
    struct virtio_driver d;
};

static int setup(void **state)
{
    static struct fixture f;
    struct error err = {.msg = ""};

    virtio_machine_init(&f.m, NULL);
    virtio_balloon_create(f.m.platform, f.m.host, f.m.loop, true, &f.dev, &err);
    assert_string_equal(err.msg, "");
    virtio_driver_init(&f.d, &f.m, f.dev);
    memset(virtio_machine_at(&f.m, HIGH, VIRTIO_RAM_HIGH), 0xee, VIRTIO_RAM_HIGH);
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    device_destroy(f->dev);
    virtio_machine_fini(&f->m);
    return 0;
}

static struct virtio_balloon_stats stats_of(struct fixture *f)
{
    struct virtio_balloon_stats stats;

    virtio_balloon_stats(f->dev, &stats);
    return stats;
}

/* A request of page numbers; `bytes` of them. */
static void give(struct virtio_driver *d, unsigned queue, const uint32_t *pfns, uint32_t bytes)
{
    const struct virtio_buffer buffer = {virtio_machine_alloc(d->m, bytes), bytes, false};

    memcpy(virtio_machine_at(d->m, buffer.gpa, bytes), pfns, bytes);
    assert_int_equal(virtio_driver_request(d, queue, &buffer, 1), 0);
}

static bool is_zero(struct virtio_machine *m, uint64_t page)
{
    const uint8_t *at = virtio_machine_at(m, HIGH + page * PAGE, PAGE);

    for (unsigned i = 0; i < PAGE; i++)
        if (at[i])
            return false;
    return true;
}

static unsigned resident(struct virtio_machine *m)
{
    unsigned char pages[VIRTIO_RAM_HIGH / PAGE];
    unsigned count = 0;

    assert_int_equal(mincore(virtio_machine_at(m, HIGH, VIRTIO_RAM_HIGH), VIRTIO_RAM_HIGH, pages),
                     0);
    for (unsigned i = 0; i < sizeof(pages); i++)
        count += pages[i] & 1;
    return count;
}

static void it_is_a_balloon_that_offers_what_it_says(void **state)
{
    struct fixture *f = *state;
    uint64_t offered = virtio_driver_offered(&f->d);

    assert_int_equal(virtio_driver_pci_read(&f->d, 2, 2), 0x1040 + VIRTIO_ID_BALLOON);
    assert_int_equal(offered & 0xff,
                     1 << VIRTIO_BALLOON_F_STATS_VQ | 1 << VIRTIO_BALLOON_F_DEFLATE_ON_OOM |
                         1 << VIRTIO_BALLOON_F_PAGE_POISON | 1 << VIRTIO_BALLOON_F_REPORTING);
    assert_int_equal(f->d.config_bytes, 16);
}

static void without_deflation_on_oom_it_is_not_offered(void **state)
{
    struct virtio_machine m;
    struct virtio_driver d;
    struct device *dev;
    struct error err;

    (void)state;
    virtio_machine_init(&m, NULL);
    assert_int_equal(virtio_balloon_create(m.platform, m.host, m.loop, false, &dev, &err), 0);
    virtio_driver_init(&d, &m, dev);
    assert_false(virtio_driver_offered(&d) >> VIRTIO_BALLOON_F_DEFLATE_ON_OOM & 1);
    device_destroy(dev);
    virtio_machine_fini(&m);
}

static void the_target_is_told_by_an_interrupt_and_lasts_over_resets(void **state)
{
    struct fixture *f = *state;

    virtio_driver_start(&f->d, ALL);
    virtio_balloon_set_target(f->dev, 5 * PAGE);
    assert_int_equal(virtio_driver_interrupts(&f->d, 0), 1);
    assert_int_equal(virtio_driver_config_read(&f->d, 0, 4), 5);
    virtio_balloon_set_target(f->dev, 5 * PAGE); /* nothing new */
    assert_int_equal(virtio_driver_interrupts(&f->d, 0), 1);
    assert_int_equal(stats_of(f).target_bytes, 5 * PAGE);

    virtio_driver_config_write(&f->d, 4, 4, 3);
    assert_int_equal(stats_of(f).actual_bytes, 3 * PAGE);
    device_reset(f->dev);
    virtio_driver_init(&f->d, &f->m, f->dev);
    virtio_driver_start(&f->d, ALL);
    assert_int_equal(virtio_driver_config_read(&f->d, 0, 4), 5);
    assert_int_equal(virtio_driver_config_read(&f->d, 4, 4), 0);
}

static void the_driver_writes_its_own_fields_and_no_other(void **state)
{
    struct fixture *f = *state;

    virtio_driver_start(&f->d, ALL);
    for (unsigned at = 0; at < 16; at++)
        virtio_driver_config_write(&f->d, at, 1, 0x11 + at);
    assert_int_equal(virtio_driver_config_read(&f->d, 0, 4), 0);
    assert_int_equal(virtio_driver_config_read(&f->d, 4, 4), 0x18171615);
    assert_int_equal(virtio_driver_config_read(&f->d, 8, 4), 0);
    assert_int_equal(virtio_driver_config_read(&f->d, 12, 4), 0x201f1e1d);

    virtio_driver_start(&f->d, ~(UINT64_C(1) << VIRTIO_BALLOON_F_PAGE_POISON));
    virtio_driver_config_write(&f->d, 12, 4, 7);
    assert_int_equal(virtio_driver_config_read(&f->d, 12, 4), 0x201f1e1d);
}

static void pages_in_the_balloon_cost_no_memory_and_deflated_ones_are_zero(void **state)
{
    struct fixture *f = *state;
    uint32_t pfns[256];

    virtio_driver_start(&f->d, ALL);
    for (unsigned i = 0; i < 256; i++) /* downwards, as Linux does it */
        pfns[i] = HIGH_PFN + 300 - i;
    give(&f->d, INFLATE, pfns, sizeof(pfns));
    assert_int_equal(resident(&f->m), 512 - 256);
    assert_false(is_zero(&f->m, 44));
    for (unsigned i = 45; i <= 300; i++)
        assert_true(is_zero(&f->m, i));
    assert_false(is_zero(&f->m, 301));
    assert_int_equal(stats_of(f).inflated_bytes, 256 * PAGE);
    assert_int_equal(stats_of(f).returned_bytes, 256 * PAGE);
    give(&f->d, DEFLATE, pfns, sizeof(pfns));
    memset(virtio_machine_at(&f->m, HIGH, VIRTIO_RAM_HIGH), 1, VIRTIO_RAM_HIGH);
    assert_int_equal(resident(&f->m), 512);
}

/* To a copy of RAM that has such a page already, it is zeros from now on. */
static void pages_in_the_balloon_are_marked_as_written(void **state)
{
    struct fixture *f = *state;
    const uint32_t pfn = HIGH_PFN + 7;

    virtio_driver_start(&f->d, ALL);
    assert_false(guest_memory_test_dirty(f->m.memory, HIGH + 7 * PAGE, true));
    give(&f->d, INFLATE, &pfn, sizeof(pfn));
    assert_true(guest_memory_test_dirty(f->m.memory, HIGH + 7 * PAGE, true));
    assert_false(guest_memory_test_dirty(f->m.memory, HIGH + 8 * PAGE, true));
}

static void numbers_of_no_pages_and_doubles_do_no_harm(void **state)
{
    struct fixture *f = *state;
    const uint32_t pfns[] = {
        HIGH_PFN + 3, UINT32_MAX,   (uint32_t)(VIRTIO_RAM_LOW / PAGE), /* the hole */
        HIGH_PFN + 3, HIGH_PFN - 1, HIGH_PFN + (uint32_t)(VIRTIO_RAM_HIGH / PAGE),
        0xfee00, /* the local APIC */
        HIGH_PFN + 4, HIGH_PFN + 3};

    virtio_driver_start(&f->d, ALL);
    give(&f->d, INFLATE, pfns, sizeof(pfns));
    for (unsigned i = 0; i < 512; i++)
        assert_int_equal(is_zero(&f->m, i), i == 3 || i == 4);
    assert_int_equal(stats_of(f).inflated_bytes, 2 * PAGE);
    give(&f->d, DEFLATE, pfns, sizeof(pfns));
    give(&f->d, INFLATE, pfns, 4); /* given up already */
    assert_true(is_zero(&f->m, 3));
}

static void a_request_of_any_length_is_answered(void **state)
{
    static uint32_t pfns[5000];
    struct fixture *f = *state;

    virtio_driver_start(&f->d, ALL);
    pfns[0] = HIGH_PFN;
    give(&f->d, INFLATE, pfns, 3); /* less than one number */
    assert_false(is_zero(&f->m, 0));
    for (unsigned i = 0; i < 5000; i++)
        pfns[i] = i == 4999 ? HIGH_PFN + 1 : HIGH_PFN;
    give(&f->d, INFLATE, pfns, 4 * 1000 + 2);
    assert_true(is_zero(&f->m, 0));
    give(&f->d, INFLATE, pfns, sizeof(pfns)); /* of so many the last ones are left out */
    assert_false(is_zero(&f->m, 1));
}

/* The ring's own page: what the guest loses is its own. */
static void a_guest_that_gives_up_its_rings_harms_itself_alone(void **state)
{
    struct fixture *f = *state;
    uint32_t pfns[VIRTIO_RAM_LOW / PAGE];

    virtio_driver_start(&f->d, ALL);
    for (unsigned i = 0; i < VIRTIO_RAM_LOW / PAGE; i++)
        pfns[i] = i;
    const struct virtio_buffer buffer = {HIGH, sizeof(pfns), false};
    memcpy(virtio_machine_at(&f->m, HIGH, sizeof(pfns)), pfns, sizeof(pfns));
    virtio_driver_add(&f->d, INFLATE, &buffer, 1);
    virtio_driver_kick(&f->d, INFLATE);
    virtio_machine_run(&f->m);
    virtio_driver_kick(&f->d, INFLATE);
    virtio_machine_run(&f->m);
    virtio_driver_start(&f->d, ALL); /* a reset mends it */
    give(&f->d, INFLATE, &(uint32_t){HIGH_PFN + 9}, 4);
    assert_true(is_zero(&f->m, 9));
}

static void report(struct fixture *f, unsigned queue, uint64_t page, uint32_t bytes)
{
    const struct virtio_buffer buffers[] = {{HIGH + page * PAGE, bytes, true},
                                            {HIGH + 100 * PAGE + 5, 2 * PAGE, true}};

    assert_int_equal(virtio_driver_request(&f->d, queue, buffers, 2), 0);
}

static void what_the_guest_reports_free_goes_back_by_whole_pages(void **state)
{
    struct fixture *f = *state;

    virtio_driver_start(&f->d, ALL);
    report(f, REPORT, 200, 50 * PAGE);
    assert_int_equal(resident(&f->m), 512 - 51);
    for (unsigned i = 0; i < 512; i++)
        assert_int_equal(is_zero(&f->m, i), (i >= 200 && i < 250) || i == 101);
    assert_int_equal(stats_of(f).reported_bytes, 52 * PAGE);
    assert_int_equal(stats_of(f).returned_bytes, 51 * PAGE);
}

/* Drivers do not agree on which queue it is where another is not there. */
static void reports_come_on_each_queue_that_a_driver_may_mean(void **state)
{
    struct fixture *f = *state;

    virtio_driver_start(&f->d, ALL);
    report(f, REPORT_TOO, 10, PAGE);
    assert_true(is_zero(&f->m, 10));
    virtio_driver_start(&f->d, ~(UINT64_C(1) << VIRTIO_BALLOON_F_STATS_VQ));
    report(f, STATS, 11, PAGE);
    assert_true(is_zero(&f->m, 11));
    virtio_driver_start(&f->d, ~(UINT64_C(1) << VIRTIO_BALLOON_F_REPORTING));
    report(f, REPORT, 12, PAGE);
    assert_false(is_zero(&f->m, 12));
}

/* It would find zeros, and expects its poison or what was there. */
static void a_guest_with_poison_keeps_what_it_reports(void **state)
{
    struct fixture *f = *state;

    virtio_driver_start(&f->d, ALL);
    virtio_driver_config_write(&f->d, 12, 4, 0xaaaaaaaa);
    report(f, REPORT, 10, PAGE);
    assert_false(is_zero(&f->m, 10));
    assert_int_equal(stats_of(f).reported_bytes, 0);
    virtio_driver_config_write(&f->d, 12, 4, 0); /* pages that are zero when they are free */
    report(f, REPORT, 10, PAGE);
    assert_true(is_zero(&f->m, 10));
}

static struct virtio_buffer stats_buffer(struct fixture *f, uint64_t free, unsigned bytes)
{
    const struct virtio_balloon_stat stats[] = {
        {.tag = VIRTIO_BALLOON_S_MEMFREE, .val = free},
        {.tag = 0xffff, .val = 1},
        {.tag = VIRTIO_BALLOON_S_NR, .val = 2},
        {.tag = VIRTIO_BALLOON_S_MAJFLT, .val = 99},
    };
    struct virtio_buffer buffer = {virtio_machine_alloc(&f->m, sizeof(stats)), bytes, false};

    memcpy(virtio_machine_at(&f->m, buffer.gpa, sizeof(stats)), stats, sizeof(stats));
    return buffer;
}

static void add_stats(struct fixture *f, uint64_t free, unsigned bytes)
{
    const struct virtio_buffer buffer = stats_buffer(f, free, bytes);

    virtio_driver_add(&f->d, STATS, &buffer, 1);
    virtio_driver_kick(&f->d, STATS);
    virtio_machine_run(&f->m);
}

static void statistics_are_asked_for_only_when_somebody_reads_them(void **state)
{
    struct fixture *f = *state;
    uint16_t head;

    virtio_driver_start(&f->d, ALL);
    assert_false(stats_of(f).answered);
    add_stats(f, 1000, 40);
    assert_false(virtio_driver_take(&f->d, STATS, &head, NULL)); /* kept, until: */
    struct virtio_balloon_stats stats = stats_of(f);

    assert_true(stats.answered && stats.asked);
    assert_int_equal(stats.known, 1 << VIRTIO_BALLOON_S_MEMFREE | 1 << VIRTIO_BALLOON_S_MAJFLT);
    assert_int_equal(stats.guest[VIRTIO_BALLOON_S_MEMFREE], 1000);
    assert_int_equal(stats.guest[VIRTIO_BALLOON_S_MAJFLT], 99);
    assert_true(virtio_driver_take(&f->d, STATS, &head, NULL));
    assert_int_equal(virtio_driver_interrupts(&f->d, STATS + 1), 1);
    add_stats(f, 2000, 40);
    stats = stats_of(f);
    assert_int_equal(stats.guest[VIRTIO_BALLOON_S_MEMFREE], 2000);
    assert_false(stats.asked); /* a second has not passed */
    assert_false(virtio_driver_take(&f->d, STATS, &head, NULL));
}

static void a_guest_with_several_buffers_for_statistics_gets_the_older_ones_back(void **state)
{
    struct fixture *f = *state;
    uint16_t head;

    virtio_driver_start(&f->d, ALL);
    for (unsigned i = 1; i <= 40; i++)
        add_stats(f, i, 40);
    for (unsigned i = 0; i < 39; i++)
        assert_true(virtio_driver_take(&f->d, STATS, &head, NULL));
    assert_false(virtio_driver_take(&f->d, STATS, &head, NULL));
    assert_int_equal(stats_of(f).guest[VIRTIO_BALLOON_S_MEMFREE], 40);
}

static void statistics_that_are_cut_off_are_read_as_far_as_they_go(void **state)
{
    struct fixture *f = *state;

    virtio_driver_start(&f->d, ALL);
    add_stats(f, 1000, 39);
    assert_int_equal(stats_of(f).known, 1 << VIRTIO_BALLOON_S_MEMFREE);
    virtio_driver_start(&f->d, ALL);
    add_stats(f, 3000, 9);
    assert_int_equal(stats_of(f).guest[VIRTIO_BALLOON_S_MEMFREE], 1000);
}

/* The buffer that is kept goes into no state: it is in the ring again. */
static void a_pause_and_a_move_lose_no_buffer(void **state)
{
    struct fixture *f = *state;
    struct writer w = {0};
    struct error err;
    uint16_t head;

    virtio_driver_start(&f->d, ALL);
    virtio_balloon_set_target(f->dev, 9 * PAGE);
    virtio_driver_config_write(&f->d, 4, 4, 8);
    add_stats(f, 1000, 40);
    device_pause(f->dev);
    device_pause(f->dev);
    assert_int_equal(state_save(f->dev->ops->state, f->dev, &w, &err), 0);
    virtio_balloon_set_target(f->dev, 0);
    virtio_driver_config_write(&f->d, 4, 4, 0);
    struct reader r = {.data = w.data, .len = w.len};
    assert_int_equal(state_load(f->dev->ops->state, f->dev, &r, &err), 0);
    free(w.data);
    assert_int_equal(virtio_driver_config_read(&f->d, 0, 4), 9);
    assert_int_equal(virtio_driver_config_read(&f->d, 4, 4), 8);
    assert_false(stats_of(f).asked); /* nothing is touched while it is paused */
    device_resume(f->dev);
    virtio_machine_run(&f->m);
    assert_true(stats_of(f).asked);
    assert_true(virtio_driver_take(&f->d, STATS, &head, NULL));
    assert_false(virtio_driver_take(&f->d, STATS, &head, NULL));
}

/* The suites */

static int create(void *opaque, struct virtio_machine *m, struct device **ret_dev,
                  struct error *err)
{
    (void)opaque;
    return virtio_balloon_create(m->platform, m->host, m->loop, true, ret_dev, err);
}

static void works(void *opaque, struct virtio_driver *d)
{
    (void)opaque;
    memset(virtio_machine_at(d->m, HIGH, PAGE), 0xee, PAGE);
    give(d, INFLATE, &(uint32_t){HIGH_PFN}, 4);
    assert_true(is_zero(d->m, 0));
}

/* Numbers of no pages, so that nothing of RAM may change. */
static unsigned header(void *opaque, uint8_t bytes[64])
{
    (void)opaque;
    memset(bytes, 0xff, 64);
    return 64;
}

static void disturb(void *opaque, struct device *dev, uint32_t random)
{
    struct virtio_balloon_stats stats;

    (void)opaque;
    if (random % 2)
        virtio_balloon_stats(dev, &stats);
    else
        virtio_balloon_set_target(dev, (uint64_t)random << 8);
}

static void settle(void *opaque, struct device *dev)
{
    (void)opaque;
    virtio_balloon_set_target(dev, 0);
}

static void it_keeps_the_promises_of_every_device(void **state)
{
    static const struct virtio_kind kind = {
        .create = create, .works = works, .disturb = disturb, .settle = settle};

    (void)state;
    virtio_conformance_run(&kind);
}

static void a_hostile_driver_gets_nowhere(void **state)
{
    (void)state;
    for (unsigned queue = INFLATE; queue <= STATS; queue++) {
        const struct virtio_kind kind = {.create = create,
                                         .works = works,
                                         .header = header,
                                         .queue = queue,
                                         .gives_back = queue == INFLATE};

        hostile_run(&kind);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(it_is_a_balloon_that_offers_what_it_says),
        cmocka_unit_test(without_deflation_on_oom_it_is_not_offered),
        TEST(the_target_is_told_by_an_interrupt_and_lasts_over_resets),
        TEST(the_driver_writes_its_own_fields_and_no_other),
        TEST(pages_in_the_balloon_cost_no_memory_and_deflated_ones_are_zero),
        TEST(pages_in_the_balloon_are_marked_as_written),
        TEST(numbers_of_no_pages_and_doubles_do_no_harm),
        TEST(a_request_of_any_length_is_answered),
        TEST(a_guest_that_gives_up_its_rings_harms_itself_alone),
        TEST(what_the_guest_reports_free_goes_back_by_whole_pages),
        TEST(reports_come_on_each_queue_that_a_driver_may_mean),
        TEST(a_guest_with_poison_keeps_what_it_reports),
        TEST(statistics_are_asked_for_only_when_somebody_reads_them),
        TEST(a_guest_with_several_buffers_for_statistics_gets_the_older_ones_back),
        TEST(statistics_that_are_cut_off_are_read_as_far_as_they_go),
        TEST(a_pause_and_a_move_lose_no_buffer),
        cmocka_unit_test(it_keeps_the_promises_of_every_device),
        cmocka_unit_test(a_hostile_driver_gets_nowhere),
    };

    return cmocka_run_group_tests_name("virtio_balloon", tests, NULL, NULL);
}
