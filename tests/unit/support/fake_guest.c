/* SPDX-License-Identifier: Apache-2.0 */
#include "fake_guest.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "vmrun/machine.h"

#define HOLE_END (UINT64_C(4) << 30)

void fake_guest_create(struct fake_guest *g, uint64_t size, uint64_t low)
{
    const struct memory_layout layout = {.size = size, .hole_start = low, .hole_end = HOLE_END};
    struct error err;

    *g = (struct fake_guest){.pages = size / GUEST_PAGE_SIZE};
    if (guest_memory_create(&layout, &g->memory, &err) < 0)
        fail_msg("%s", err.msg);
    for (unsigned i = 0; i < 2; i++) {
        g->log[i] = calloc(guest_memory_bitmap_words(g->memory, i), 8);
        assert_non_null(g->log[i]);
    }
}

void fake_guest_destroy(struct fake_guest *g)
{
    guest_memory_destroy(g->memory);
    free(g->log[0]);
    free(g->log[1]);
    *g = (struct fake_guest){0};
}

unsigned machine_cpus(const struct machine *m)
{
    (void)m;
    return 1;
}

/* Which region a page is in; the number that it has there. */
static unsigned region_of(const struct fake_guest *g, uint64_t *page)
{
    uint64_t low = g->memory->regions[0].size / GUEST_PAGE_SIZE;

    if (*page < low)
        return 0;
    *page -= low;
    return 1;
}

uint64_t fake_guest_gpa(const struct fake_guest *g, uint64_t page)
{
    return (region_of(g, &page) ? HOLE_END : 0) + page * GUEST_PAGE_SIZE;
}

uint8_t *fake_guest_page(const struct fake_guest *g, uint64_t page)
{
    unsigned region = region_of(g, &page);

    return g->memory->regions[region].host + page * GUEST_PAGE_SIZE;
}

void fake_guest_write(struct fake_guest *g, uint64_t page)
{
    memset(fake_guest_page(g, page), (int)(++g->stamp % 255 + 1), GUEST_PAGE_SIZE / 2);
    if (g->logging) {
        unsigned region = region_of(g, &page);

        g->log[region][page / 64] |= UINT64_C(1) << page % 64;
    }
}

void fake_guest_write_many(struct fake_guest *g, unsigned count)
{
    uint64_t first = g->pages / 3 * 2;

    for (unsigned i = 0; i < count; i++)
        fake_guest_write(g, i < first ? i / 2 * 3 + i % 2 : i - first);
}

void fake_guest_log(struct fake_guest *g, bool on)
{
    g->logging = on;
    for (unsigned i = 0; on && i < 2; i++)
        memset(g->log[i], 0xff, guest_memory_bitmap_words(g->memory, i) * 8);
}

void fake_guest_log_look(const struct fake_guest *g, unsigned region, uint64_t *bitmap)
{
    for (size_t i = 0; i < guest_memory_bitmap_words(g->memory, region); i++)
        bitmap[i] |= g->log[region][i];
}

void fake_guest_log_clear(struct fake_guest *g, unsigned region, uint64_t first_page,
                          uint64_t pages, const uint64_t *bitmap)
{
    assert_int_equal(first_page % 64, 0);
    for (uint64_t i = 0; i < pages / 64; i++)
        g->log[region][first_page / 64 + i] &= ~bitmap[i];
}
