/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memory: guest RAM as at most two mappings, below and above the hole under 4 GiB.
 *
 * Mappings are aligned to 2 MiB so that the host can back them with large
 * pages. The dirty map is an anonymous mapping too, one for all guest-physical
 * addresses with the hole in it, as a vhost worker of the kernel writes it: only
 * the parts that somebody writes to cost memory.
 */
#include "vmrun/memory.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vmrun/text.h"

#define HUGE_SIZE (UINT64_C(2) << 20)
#define MFD_HUGE_2MIB (21u << 26) /* log2 of the size, as memfd_create(2) wants it */
#define MAP_HUGE_2MIB (21 << 26)  /* and mmap(2) */
#define ROUND_UP(n, to) (((n) + (to)-1) / (to) * (to))

static size_t dirty_bytes(uint64_t size)
{
    return ROUND_UP(ROUND_UP(size / GUEST_PAGE_SIZE, 64) / 8, GUEST_PAGE_SIZE);
}

static int map_failed(const struct memory_layout *layout, struct error *err)
{
    uint64_t size = layout->size;
    char text[24];
    int code = errno;

    text_format_size(size, text, sizeof(text));
    if (layout->pages == MEMORY_PAGES_HUGE)
        return error_set(err, code,
                         "guest memory: the host has no %s in free 2M pages; reserve them with "
                         "'sysctl vm.nr_hugepages=%llu', or use transparent pages",
                         text, (unsigned long long)(size / HUGE_SIZE));
    return error_errno(err, code, "guest memory: cannot reserve %s", text);
}

/* Anonymous mappings are over-reserved and trimmed, to begin on a 2 MiB boundary. */
static void *map_aligned(uint64_t size, int flags, int fd, uint64_t offset)
{
    uint8_t *reserve =
        mmap(NULL, size + HUGE_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (reserve == MAP_FAILED)
        return NULL;
    size_t before = ROUND_UP((uintptr_t)reserve, HUGE_SIZE) - (uintptr_t)reserve;
    uint8_t *start = reserve + before;

    if (before)
        munmap(reserve, before);
    munmap(start + size, HUGE_SIZE - before);
    void *host = mmap(start, size, PROT_READ | PROT_WRITE, flags | MAP_FIXED, fd, (off_t)offset);
    if (host == MAP_FAILED) {
        int code = errno;

        munmap(start, size);
        errno = code;
        return NULL;
    }
    return host;
}

/* A bit for each page. */
static int map_bits(const struct memory_region *region, uint64_t **ret_bits, struct error *err)
{
    void *bits = mmap(NULL, dirty_bytes(region->size), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (bits == MAP_FAILED)
        return error_errno(err, errno, "guest memory: dirty map");
    *ret_bits = bits;
    return 0;
}

/* Of all regions, which are there by now. Who forks must not have us write to a copy of it. */
static int map_dirty(struct guest_memory *mem, struct error *err)
{
    const struct memory_region *last = &mem->regions[mem->count - 1];
    const struct memory_region whole = {.size = last->gpa + last->size};

    if (map_bits(&whole, &mem->dirty, err) < 0)
        return -err->code;
    mem->dirty_bytes = dirty_bytes(whole.size);
    (void)madvise(mem->dirty, mem->dirty_bytes, MADV_DONTFORK);
    for (unsigned i = 0; i < mem->count; i++)
        mem->regions[i].dirty = mem->dirty + mem->regions[i].gpa / GUEST_PAGE_SIZE / 64;
    return 0;
}

static int map_region(struct memory_region *region, const struct memory_layout *layout,
                      struct error *err)
{
    int huge = layout->pages == MEMORY_PAGES_HUGE ? MAP_HUGETLB | MAP_HUGE_2MIB : MAP_NORESERVE;
    int flags = region->fd >= 0 ? MAP_SHARED | huge : MAP_PRIVATE | MAP_ANONYMOUS | huge;

    region->host = map_aligned(region->size, flags, region->fd, region->fd_offset);
    if (!region->host)
        return map_failed(layout, err);
    /* Advice only: a kernel without transparent huge pages refuses it, and that is fine. */
    if (layout->pages == MEMORY_PAGES_TRANSPARENT)
        (void)madvise(region->host, region->size, MADV_HUGEPAGE);
    (void)madvise(region->host, region->size, MADV_DONTDUMP);
    return 0;
}

static int open_memfd(const struct memory_layout *layout, int *ret_fd, struct error *err)
{
    unsigned flags = MFD_CLOEXEC;

    if (layout->pages == MEMORY_PAGES_HUGE)
        flags |= MFD_HUGETLB | MFD_HUGE_2MIB;
    int fd = memfd_create("vmrun-ram", flags);
    if (fd < 0)
        return error_errno(err, errno, "guest memory: memfd_create");
    if (ftruncate(fd, (off_t)layout->size) < 0) {
        int r = error_errno(err, errno, "guest memory: size of the memfd");

        close(fd);
        return r;
    }
    *ret_fd = fd;
    return 0;
}

int guest_memory_create(const struct memory_layout *layout, struct guest_memory **ret_mem,
                        struct error *err)
{
    uint64_t unit = layout->pages == MEMORY_PAGES_HUGE ? HUGE_SIZE : GUEST_PAGE_SIZE;
    uint64_t low = layout->size < layout->hole_start ? layout->size : layout->hole_start;
    int fd = -1, r;

    /* A region's marks begin with a word. */
    assert(layout->hole_end % (UINT64_C(64) * GUEST_PAGE_SIZE) == 0);
    if (layout->size == 0 || layout->size % unit != 0)
        return error_set(err, EINVAL, "guest memory: %llu bytes are not one or more %s pages",
                         (unsigned long long)layout->size, unit == HUGE_SIZE ? "2M" : "4K");

    struct guest_memory *mem = calloc(1, sizeof(*mem));
    if (!mem)
        return error_set(err, ENOMEM, "guest memory: out of memory");
    mem->host_page_size = (uint32_t)unit;
    mem->zero_unit =
        layout->pages == MEMORY_PAGES_TRANSPARENT ? (uint32_t)HUGE_SIZE : mem->host_page_size;
    if (layout->backing == MEMORY_MEMFD) {
        r = open_memfd(layout, &fd, err);
        if (r < 0)
            goto fail;
    }

    mem->regions[mem->count++] = (struct memory_region){.gpa = 0, .size = low, .fd = fd};
    if (layout->size > low)
        mem->regions[mem->count++] = (struct memory_region){
            .gpa = layout->hole_end, .size = layout->size - low, .fd = fd, .fd_offset = low};
    for (unsigned i = 0; i < mem->count; i++) {
        r = map_region(&mem->regions[i], layout, err);
        if (r < 0)
            goto fail;
    }
    r = map_dirty(mem, err);
    if (r < 0)
        goto fail;
    *ret_mem = mem;
    return 0;

fail:
    if (fd >= 0 && mem->count == 0)
        close(fd);
    guest_memory_destroy(mem);
    return r;
}

void guest_memory_destroy(struct guest_memory *mem)
{
    if (!mem)
        return;
    for (unsigned i = 0; i < mem->count; i++) {
        struct memory_region *region = &mem->regions[i];

        if (region->host)
            munmap(region->host, region->size);
        if (region->given)
            munmap(region->given, dirty_bytes(region->size));
    }
    if (mem->dirty)
        munmap(mem->dirty, mem->dirty_bytes);
    if (mem->count && mem->regions[0].fd >= 0)
        close(mem->regions[0].fd); /* all regions share it */
    free(mem);
}

uint64_t guest_memory_size(const struct guest_memory *mem)
{
    uint64_t size = 0;

    for (unsigned i = 0; i < mem->count; i++)
        size += mem->regions[i].size;
    return size;
}

/* The region that wholly holds [gpa, gpa + len), or NULL. */
static const struct memory_region *find(const struct guest_memory *mem, uint64_t gpa, uint64_t len)
{
    for (unsigned i = 0; i < mem->count; i++) {
        const struct memory_region *region = &mem->regions[i];

        if (gpa >= region->gpa && gpa - region->gpa < region->size)
            return len <= region->size - (gpa - region->gpa) ? region : NULL;
    }
    return NULL;
}

void *guest_memory_at(const struct guest_memory *mem, uint64_t gpa, uint64_t len)
{
    const struct memory_region *region = find(mem, gpa, len);

    return region ? region->host + (gpa - region->gpa) : NULL;
}

int guest_memory_read(const struct guest_memory *mem, uint64_t gpa, void *data, uint64_t len)
{
    if (len == 0)
        return 0;
    const void *from = guest_memory_at(mem, gpa, len);
    if (!from)
        return -EFAULT;
    memcpy(data, from, len);
    return 0;
}

int guest_memory_write(struct guest_memory *mem, uint64_t gpa, const void *data, uint64_t len)
{
    if (len == 0)
        return 0;
    void *to = guest_memory_at(mem, gpa, len);
    if (!to)
        return -EFAULT;
    memcpy(to, data, len);
    guest_memory_mark_dirty(mem, gpa, len);
    return 0;
}

int guest_memory_zero(struct guest_memory *mem, uint64_t gpa, uint64_t len)
{
    if (len == 0)
        return 0;
    const struct memory_region *region = find(mem, gpa, len);
    if (!region)
        return -EFAULT;

    uint8_t *at = region->host + (gpa - region->gpa);
    uint8_t *end = at + len;
    uint8_t *first = at + (ROUND_UP((uintptr_t)at, mem->zero_unit) - (uintptr_t)at);
    uint8_t *last = end - (uintptr_t)end % mem->zero_unit;

    /*
     * MADV_REMOVE also empties the pages of a shared memfd, which DONTNEED does
     * not. Neither is asked for a part of a large page: Linux then says yes, and
     * leaves the part as it was. Pages of a mapped file would come back with what the file has.
     */
    if (first < last && !region->from_file &&
        madvise(first, (size_t)(last - first), region->fd >= 0 ? MADV_REMOVE : MADV_DONTNEED) ==
            0) {
        memset(at, 0, (size_t)(first - at));
        memset(last, 0, (size_t)(end - last));
    } else {
        memset(at, 0, len);
    }
    guest_memory_mark_dirty(mem, gpa, len);
    return 0;
}

void guest_memory_mark_dirty(struct guest_memory *mem, uint64_t gpa, uint64_t len)
{
    const struct memory_region *region = len ? find(mem, gpa, len) : NULL;

    if (!region)
        return;
    uint64_t last = (gpa - region->gpa + len - 1) / GUEST_PAGE_SIZE;
    for (uint64_t page = (gpa - region->gpa) / GUEST_PAGE_SIZE; page <= last; page++) {
        uint64_t *word = &region->dirty[page / 64];
        uint64_t bit = UINT64_C(1) << page % 64;

        /* Most pages that are written are marked already: do not bounce the cache line then. */
        if (!(__atomic_load_n(word, __ATOMIC_RELAXED) & bit))
            __atomic_fetch_or(word, bit, __ATOMIC_RELEASE);
    }
}

bool guest_memory_test_dirty(struct guest_memory *mem, uint64_t gpa, bool clear)
{
    const struct memory_region *region = find(mem, gpa, 1);

    if (!region)
        return false;
    uint64_t page = (gpa - region->gpa) / GUEST_PAGE_SIZE;
    uint64_t *word = &region->dirty[page / 64];
    uint64_t bit = UINT64_C(1) << page % 64;

    return (clear ? __atomic_fetch_and(word, ~bit, __ATOMIC_ACQ_REL)
                  : __atomic_load_n(word, __ATOMIC_ACQUIRE)) &
           bit;
}

size_t guest_memory_bitmap_words(const struct guest_memory *mem, unsigned region)
{
    return (size_t)ROUND_UP(mem->regions[region].size / GUEST_PAGE_SIZE, 64) / 64;
}

void guest_memory_harvest_dirty(struct guest_memory *mem, unsigned region, uint64_t *bitmap)
{
    uint64_t *dirty = mem->regions[region].dirty;
    size_t words = guest_memory_bitmap_words(mem, region);

    for (size_t i = 0; i < words; i++)
        if (__atomic_load_n(&dirty[i], __ATOMIC_RELAXED))
            bitmap[i] |= __atomic_exchange_n(&dirty[i], 0, __ATOMIC_ACQ_REL);
}

int guest_memory_map_pages(struct guest_memory *mem, unsigned region, uint64_t start,
                           uint64_t bytes, int fd, uint64_t offset, struct error *err)
{
    struct memory_region *r = &mem->regions[region];

    assert(start <= r->size && bytes <= r->size - start);
    if (!r->given && map_bits(r, &r->given, err) < 0)
        return -err->code;
    if (mmap(r->host + start, bytes, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, fd, (off_t)offset) == MAP_FAILED)
        return error_errno(err, errno, "guest memory: mapping the file");
    r->from_file = true;
    (void)madvise(r->host + start, bytes, MADV_DONTDUMP);
    return 0;
}

int guest_memory_map_file(struct guest_memory *mem, unsigned region, int fd, uint64_t offset,
                          struct error *err)
{
    return guest_memory_map_pages(mem, region, 0, mem->regions[region].size, fd, offset, err);
}
