/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmlinux: unpack a bzImage's payload into guest RAM and do what the kernel's
 * own decompressor would do after, only at the host's speed: put the segments
 * where they run, apply the relocations for a random base, and say so. From a
 * stored payload (cache.h) the segments are read to where they run at once.
 *
 * The payload is an ELF file with its relocation tables behind it. It is
 * unpacked so far up that every segment lies at or above its place: then each
 * moves down once, in ascending order, and none runs over another.
 *
 * Offsets here are relative to where the kernel is loaded and fit in an
 * int64_t with ease: all that comes from the file is bounded first.
 */
#include "vmlinux.h"

#include <elf.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#define HEAD_SIZE 4096u
#define MAX_SEGMENTS 16u
#define MAX_UNPACKED (UINT64_C(512) << 20)

/* arch/x86: the kernel's text is mapped from here, and may take 1 GiB when it can be randomised. */
#define KERNEL_MAP UINT64_C(0xffffffff80000000)
#define KERNEL_MAP_SIZE (UINT64_C(1) << 30)

struct segment {
    uint64_t offset, size; /* in the unpacked file */
    uint64_t place;        /* relative to the load address */
};

struct plan {
    struct segment segments[MAX_SEGMENTS];
    unsigned count;
    uint64_t entry;    /* relative to the load address */
    uint64_t elf_size; /* the relocation tables follow */
    int64_t unpack_at; /* relative; at or below 0 when the first segment is not the file's start */
    uint64_t base;     /* load address, physical */
    uint64_t virt_shift;
    bool kaslr;
};

static int not_for_us(const char *why, struct error *err)
{
    return error_set(err, ENOTSUP, "%s", why);
}

/* Whether word stands in the command line as a word of its own. */
static bool has_word(const char *cmdline, const char *word)
{
    size_t len = strlen(word);

    for (const char *at = cmdline; (at = strstr(at, word)); at += len)
        if ((at == cmdline || at[-1] == ' ') && (at[len] == '\0' || at[len] == ' '))
            return true;
    return false;
}

/* Options that restrict which RAM the kernel may use: what they mean is the kernel's to know. */
static bool restricts_memory(const char *cmdline)
{
    return strstr(cmdline, "mem=") || strstr(cmdline, "memmap=") || strstr(cmdline, "hugepages") ||
           strstr(cmdline, "crashkernel=");
}

static int plan_segments(const struct vmlinux_image *image, const uint8_t *head, struct plan *plan,
                         struct error *err)
{
    Elf64_Ehdr ehdr;
    uint64_t offset_end = 0, place_end = 0;
    int64_t unpack_at = INT64_MIN;

    memcpy(&ehdr, head, sizeof(ehdr));
    for (unsigned i = 0; i < ehdr.e_phnum; i++) {
        Elf64_Phdr phdr;

        memcpy(&phdr, head + ehdr.e_phoff + i * sizeof(phdr), sizeof(phdr));
        if (phdr.p_type != PT_LOAD || phdr.p_filesz == 0)
            continue;
        if (plan->count == MAX_SEGMENTS)
            return not_for_us("too many segments", err);
        if (phdr.p_offset < offset_end || phdr.p_offset > plan->elf_size ||
            phdr.p_filesz > plan->elf_size - phdr.p_offset || phdr.p_paddr < image->pref_address)
            return not_for_us("segments out of order", err);
        uint64_t place = phdr.p_paddr - image->pref_address;
        if (place < place_end || place > image->init_size ||
            phdr.p_memsz > image->init_size - place || phdr.p_filesz > phdr.p_memsz)
            return not_for_us("segments beyond its room", err);
        plan->segments[plan->count++] =
            (struct segment){.offset = phdr.p_offset, .size = phdr.p_filesz, .place = place};
        offset_end = phdr.p_offset + phdr.p_filesz;
        place_end = place + phdr.p_memsz;
        if ((int64_t)(place - phdr.p_offset) > unpack_at)
            unpack_at = (int64_t)(place - phdr.p_offset);
    }
    if (plan->count == 0)
        return not_for_us("no segments", err);
    if (ehdr.e_entry < image->pref_address || ehdr.e_entry - image->pref_address >= place_end)
        return not_for_us("entry point outside", err);
    plan->entry = ehdr.e_entry - image->pref_address;
    plan->unpack_at = unpack_at;
    return 0;
}

static int plan_elf(const struct vmlinux_image *image, const uint8_t *head, struct plan *plan,
                    struct error *err)
{
    Elf64_Ehdr ehdr;

    memcpy(&ehdr, head, sizeof(ehdr));
    if (memcmp(ehdr.e_ident, ELFMAG, SELFMAG) != 0 || ehdr.e_ident[EI_CLASS] != ELFCLASS64 ||
        ehdr.e_ident[EI_DATA] != ELFDATA2LSB || ehdr.e_machine != EM_X86_64)
        return not_for_us("not an x86-64 ELF", err);
    if (ehdr.e_phentsize != sizeof(Elf64_Phdr) || ehdr.e_phoff > HEAD_SIZE ||
        ehdr.e_phnum > (HEAD_SIZE - ehdr.e_phoff) / sizeof(Elf64_Phdr))
        return not_for_us("program headers not at its start", err);

    /* The section headers are the last thing in the file; what follows is the relocation tables. */
    uint64_t sections = (uint64_t)ehdr.e_shnum * sizeof(Elf64_Shdr);
    if (ehdr.e_shnum == 0 || ehdr.e_shentsize != sizeof(Elf64_Shdr) ||
        ehdr.e_shoff > image->unpacked_size || sections > image->unpacked_size - ehdr.e_shoff)
        return not_for_us("section headers not at its end", err);
    plan->elf_size = ehdr.e_shoff + sections;
    return plan_segments(image, head, plan, err);
}

/* [*ret_low, + *ret_size) around the load address is written while it is unpacked and started. */
static void footprint(const struct vmlinux_image *image, const struct plan *plan, int64_t *ret_low,
                      uint64_t *ret_size)
{
    int64_t low = plan->unpack_at < 0 ? plan->unpack_at : 0;
    int64_t high = plan->unpack_at + (int64_t)image->unpacked_size;

    if (high < (int64_t)image->init_size)
        high = (int64_t)image->init_size;
    *ret_low = low;
    *ret_size = (uint64_t)(high - low);
}

static int choose_place(const struct vmlinux_image *image, const char *cmdline,
                        const struct layout *layout, struct plan *plan, struct error *err)
{
    bool relocs = image->relocatable && image->unpacked_size > plan->elf_size;
    int64_t low;
    uint64_t size;

    footprint(image, plan, &low, &size);
    /* Rounded, so that a multiple of the alignment below it is one above it, too. */
    uint64_t below = ((uint64_t)-low + image->alignment - 1) & ~(image->alignment - 1);
    size += below - (uint64_t)-low;
    if (below > image->pref_address)
        return not_for_us("linked too low", err);
    uint64_t min = image->pref_address - below;

    plan->kaslr = relocs && !has_word(cmdline, "nokaslr");
    if (plan->kaslr) {
        uint64_t need = image->pref_address + image->init_size;

        if (need >= KERNEL_MAP_SIZE)
            return not_for_us("larger than the kernel's mapping", err);
        plan->virt_shift =
            layout_random_below((KERNEL_MAP_SIZE - need) / image->alignment + 1) * image->alignment;
    }
    if (plan->kaslr && !restricts_memory(cmdline))
        plan->base = layout_find_random(layout, min, size, image->alignment);
    else if (layout_is_free(layout, min, size))
        plan->base = min;
    else if (image->relocatable)
        plan->base = layout_find_low(layout, min, size, image->alignment);
    if (plan->base == 0)
        return not_for_us("no room to unpack it", err);
    plan->base += below;
    return 0;
}

static void place_segments(const struct plan *plan, uint8_t *unpacked, uint8_t *base)
{
    for (unsigned i = 0; i < plan->count; i++) {
        const struct segment *s = &plan->segments[i];

        if (base + s->place != unpacked + s->offset)
            memmove(base + s->place, unpacked + s->offset, s->size);
    }
}

struct relocs {
    const uint8_t *first, *at; /* the tables; one past the next word to read, backwards */
    uint8_t *image;
    uint64_t image_size;
    uint64_t linked_at; /* virtual address of the image's first byte */
};

/*
 * One list, from its end back to the zero that begins it: 32-bit words, sign-extended to the
 * virtual address of what is to be changed. Each there of `width` bytes gets `shift` added.
 */
static bool apply_list(struct relocs *relocs, unsigned width, uint64_t shift)
{
    while (relocs->at - relocs->first >= 4) {
        int32_t word;

        relocs->at -= sizeof(word);
        memcpy(&word, relocs->at, sizeof(word));
        if (word == 0)
            return true;
        uint64_t offset = (uint64_t)(int64_t)word - relocs->linked_at;
        if (offset >= relocs->image_size || relocs->image_size - offset < width)
            return false;
        if (width == 8) {
            uint64_t value;

            memcpy(&value, relocs->image + offset, sizeof(value));
            value += shift;
            memcpy(relocs->image + offset, &value, sizeof(value));
        } else {
            uint32_t value;

            memcpy(&value, relocs->image + offset, sizeof(value));
            value += (uint32_t)shift;
            memcpy(relocs->image + offset, &value, sizeof(value));
        }
    }
    return false;
}

/*
 * Behind the ELF stand, read from the end: the list of 32-bit words, up to Linux 6.14 that of
 * 32-bit words relative to the per-CPU area (which does not move: the other sign), and that of
 * 64-bit words. Where the tables begin tells which of the two it is.
 */
static bool relocate(struct relocs *relocs, uint64_t shift)
{
    unsigned zeros = 0;

    for (const uint8_t *at = relocs->first; relocs->at - at >= 4; at += 4)
        zeros += memcmp(at, "\0\0\0", 4) == 0;
    if (zeros != 2 && zeros != 3)
        return false;
    return apply_list(relocs, 4, shift) && (zeros == 2 || apply_list(relocs, 4, -shift)) &&
           apply_list(relocs, 8, shift) && relocs->at == relocs->first;
}

/* What unpacking left between and around the segments goes back to the host. */
static void clear_leftovers(const struct vmlinux_image *image, const struct plan *plan,
                            struct guest_memory *mem)
{
    uint64_t from = plan->base + (uint64_t)plan->unpack_at;
    uint64_t end = from + image->unpacked_size;

    for (unsigned i = 0; i < plan->count; i++) {
        uint64_t start = plan->base + plan->segments[i].place;

        if (start > from)
            guest_memory_zero(mem, from, start - from);
        if (start + plan->segments[i].size > from)
            from = start + plan->segments[i].size;
    }
    if (end > from)
        guest_memory_zero(mem, from, end - from);
}

/* tables: what follows the ELF, to the payload's end; base: where the kernel is, host address. */
static int relocate_kernel(const struct vmlinux_image *image, const struct plan *plan,
                           uint8_t *base, const uint8_t *tables, struct error *err)
{
    const struct segment *last = &plan->segments[plan->count - 1];
    struct relocs relocs = {.first = tables,
                            .at = tables + (image->unpacked_size - plan->elf_size),
                            .image = base,
                            .image_size = last->place + last->size,
                            .linked_at = KERNEL_MAP + image->pref_address};

    return relocate(&relocs, plan->virt_shift)
               ? 0
               : not_for_us("relocation tables of another kind", err);
}

static int unpack_and_place(struct unpack *unpack, const struct vmlinux_image *image,
                            const struct plan *plan, struct guest_memory *mem, struct error *err)
{
    const struct segment *last = &plan->segments[plan->count - 1];
    uint64_t unpack_gpa = plan->base + (uint64_t)plan->unpack_at;
    uint8_t *unpacked = guest_memory_at(mem, unpack_gpa, image->unpacked_size);
    uint8_t *base = guest_memory_at(mem, plan->base, image->init_size);

    if (!unpacked || !base)
        return not_for_us("no room to unpack it", err);
    int r = unpack_all(unpack, unpacked, image->unpacked_size, err);
    guest_memory_mark_dirty(mem, unpack_gpa, image->unpacked_size);
    if (r < 0)
        return r;

    place_segments(plan, unpacked, base);
    guest_memory_mark_dirty(mem, plan->base, last->place + last->size);
    r = plan->kaslr ? relocate_kernel(image, plan, base, unpacked + plan->elf_size, err) : 0;
    if (r == 0)
        clear_leftovers(image, plan, mem);
    return r;
}

static int read_and_relocate(const struct vmlinux_image *image, const struct plan *plan,
                             uint8_t *base, struct error *err)
{
    const struct unpack_source *source = &image->payload;
    uint64_t size = image->unpacked_size - plan->elf_size;
    /* Not malloc(): its pages would stay with the process after. */
    uint8_t *tables =
        mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

    if (tables == MAP_FAILED)
        return error_errno(err, errno, "relocation tables");
    int r = boot_file_read(source->file, source->offset + plan->elf_size, tables, size, err);
    if (r == 0)
        r = relocate_kernel(image, plan, base, tables, err);
    munmap(tables, size);
    return r;
}

/* When it fails there is nothing left of it in RAM: it will be tried again, elsewhere. */
static int read_in_place(const struct vmlinux_image *image, const struct plan *plan,
                         struct guest_memory *mem, struct error *err)
{
    const struct unpack_source *source = &image->payload;
    const struct segment *last = &plan->segments[plan->count - 1];
    uint64_t size = last->place + last->size;
    uint8_t *base = guest_memory_at(mem, plan->base, size);
    int r = base ? 0 : not_for_us("no room for it", err);

    for (unsigned i = 0; i < plan->count && r == 0; i++) {
        const struct segment *s = &plan->segments[i];

        r = boot_file_read_guest(source->file, source->offset + s->offset, mem,
                                 plan->base + s->place, s->size, err);
    }
    if (r == 0 && plan->kaslr)
        r = read_and_relocate(image, plan, base, err);
    if (r < 0)
        guest_memory_zero(mem, plan->base, size);
    return r;
}

int vmlinux_load(const struct vmlinux_image *image, const char *cmdline, struct boot_target *target,
                 struct vmlinux_place *ret_place, struct error *err)
{
    struct plan plan = {0};
    struct unpack unpack;
    uint8_t head[HEAD_SIZE];

    if (image->unpacked_size < HEAD_SIZE || image->unpacked_size > MAX_UNPACKED ||
        image->init_size > MAX_UNPACKED || image->pref_address > MAX_UNPACKED)
        return not_for_us("an unlikely size", err);
    int r = unpack_open(&unpack, &image->payload, err);
    if (r < 0)
        return r;
    r = unpack_head(&unpack, head, sizeof(head), err);
    if (r == 0)
        r = plan_elf(image, head, &plan, err);
    if (r == 0)
        r = choose_place(image, cmdline, &target->layout, &plan, err);
    if (r == 0)
        r = image->payload.format == UNPACK_STORED
                ? read_in_place(image, &plan, target->mem, err)
                : unpack_and_place(&unpack, image, &plan, target->mem, err);
    unpack_close(&unpack);
    if (r < 0)
        return r;

    layout_take(&target->layout, plan.base, image->init_size);
    *ret_place = (struct vmlinux_place){.entry = plan.base + plan.entry, .kaslr = plan.kaslr};
    return 0;
}
