/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest that notices when anything changes that must not, in a few pages: images/torture.c for
 * hosts on which no Linux boots. Its command line: RING CPUS PAGES [EVERY], "3 2 1024".
 *
 * Each CPU reads and writes PAGES of its own. A page's words follow from its address and from how
 * often it was written, which is counted elsewhere: a page that is older than its counter is found
 * as well. Every CPU reads the TSC all the time. The first one says 20 times a second, or each
 * time that it wrote EVERY pages, and then nobody looks at the TSC, which may be another host's:
 *
 *   torture NONCE LINE PAGES ERRORS BACK GAP GENERATION    (hexadecimal)
 */
typedef unsigned long u64;
typedef unsigned int u32;

#define PAGE 4096ul
#define WORDS (PAGE / 8)
#define MAX_CPUS 8
#define FIRST 0x400000ul /* where the pages begin */
#define TRAMPOLINE 0x8000ul
#define APIC 0xfee00000ul
#define GENERATION 0xfeb00000ul
#define LINE_TICKS (1ul << 27) /* some 50 ms */

extern const char ap_begin[], ap_end[], ap_gdt[], gdt_pointer[];
extern volatile u64 ap_stack, ap_ring3;
volatile u64 ap_stack, ap_ring3;

static volatile u64 started, nonce, pages, errors, went_back, largest_gap, newest;
static u64 each, every; /* pages of a CPU, between two lines */
static u32 writes[MAX_CPUS << 14];
static u64 stacks[MAX_CPUS][512];

static u64 mix(u64 x)
{
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ul;
    x = (x ^ x >> 27) * 0x94d049bb133111ebul;
    return x ^ x >> 31;
}

static u64 now(void)
{
    u32 low, high;

    __asm__ volatile("lfence; rdtsc" : "=a"(low), "=d"(high) : : "memory");
    return (u64)high << 32 | low;
}

static void put(char c)
{
    __asm__ volatile("outb %0, %1" : : "a"(c), "Nd"((unsigned short)0x3f8));
}

static void put_hex(u64 value)
{
    put(' ');
    for (int shift = 60; shift >= 0; shift -= 4)
        put("0123456789abcdef"[value >> shift & 15]);
}

/* None may see a time that is behind what any of them has seen. */
static void look_at_the_clock(u64 *last)
{
    u64 before = newest, t = now();

    if (t < before)
        __atomic_fetch_add(&went_back, 1, __ATOMIC_RELAXED);
    while (t > before &&
           !__atomic_compare_exchange_n(&newest, &before, t, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        ;
    if (*last && t > *last && t - *last > largest_gap)
        largest_gap = t - *last;
    *last = t;
}

static void work(u64 page)
{
    volatile u64 *words = (volatile u64 *)(FIRST + page * PAGE);
    u64 times = writes[page], bad = words[0] != times;

    for (u64 i = 1; i < WORDS; i++)
        bad += words[i] != mix(page * WORDS + i + (times << 40));
    if (bad)
        __atomic_fetch_add(&errors, bad, __ATOMIC_RELAXED);
    words[0] = ++writes[page];
    for (u64 i = 1; i < WORDS; i++)
        words[i] = mix(page * WORDS + i + ((times + 1) << 40));
    __atomic_fetch_add(&pages, 1, __ATOMIC_RELAXED);
}

static void fill(u64 first)
{
    for (u64 p = first; p < first + each; p++)
        for (u64 i = 1; i < WORDS; i++)
            ((volatile u64 *)(FIRST + p * PAGE))[i] = mix(p * WORDS + i);
}

static void say(u64 line)
{
    for (const char *c = "torture"; *c; c++)
        put(*c);
    put_hex(nonce);
    put_hex(line);
    put_hex(pages);
    put_hex(errors);
    put_hex(went_back);
    put_hex(largest_gap);
    put_hex(*(volatile u64 *)GENERATION);
    put('\n');
}

static void run(u64 cpu)
{
    u64 seed = cpu, last = 0, line = 0, due = 0, step = every ? every : LINE_TICKS;

    fill(cpu * each);
    for (;;) {
        seed = mix(seed + 1);
        work(cpu * each + seed % each);
        if (every)
            last++;
        else
            look_at_the_clock(&last);
        if (cpu == 0 && last > due) {
            due = last + step;
            say(++line);
        }
    }
}

/* A CPU that was started; on its own stack, in its ring. */
void ap_main(void);
void ap_main(void)
{
    u64 cpu = started;

    started = cpu + 1;
    run(cpu);
}

static void start(u64 cpu)
{
    volatile u32 *high = (volatile u32 *)(APIC + 0x310), *low = (volatile u32 *)(APIC + 0x300);

    ap_stack = (u64)&stacks[cpu][512];
    *high = (u32)cpu << 24;
    *low = 0x4500; /* INIT */
    *high = (u32)cpu << 24;
    *low = 0x4600 | TRAMPOLINE >> 12; /* SIPI */
    while (started == cpu)
        __asm__ volatile("pause");
}

static u64 number(const char **at)
{
    u64 n = 0;

    while (**at == ' ')
        ++*at;
    for (; **at >= '0' && **at <= '9'; ++*at)
        n = n * 10 + (u64)(**at - '0');
    return n;
}

void torture(const char *words);
void torture(const char *words)
{
    u64 cpus;

    ap_ring3 = number(&words) == 3;
    cpus = number(&words);
    each = number(&words);
    every = number(&words);
    nonce = mix(now());
    for (u64 i = 0; i < (u64)(ap_end - ap_begin); i++)
        ((volatile char *)TRAMPOLINE)[i] = ap_begin[i];
    for (u64 i = 0; i < 6; i++)
        ((volatile char *)TRAMPOLINE + (ap_gdt - ap_begin))[i] = gdt_pointer[i];
    *(volatile u32 *)(APIC + 0xf0) = 0x1ff; /* enabled */
    for (started = 1; started < cpus;)
        start(started);
    run(0);
}

/* main: start.S left the command line's address in %rsi. The rest is start.S for a further CPU. */
__asm__(".text\n"
        ".globl main\n"
        "main:\n"
        "    mov %rsi, %rdi\n"
        "    jmp torture\n"
        "    .code16\n"
        "ap_begin:\n"
        "    cli\n"
        "    xor %ax, %ax\n"
        "    mov %ax, %ds\n"
        "    lgdtl 0x8000 + ap_gdt - ap_begin\n"
        "    mov %cr0, %eax\n"
        "    or $1, %eax\n"
        "    mov %eax, %cr0\n"
        "    ljmpl $0x08, $ap_32\n"
        "ap_gdt:\n"
        "    .fill 6, 1, 0\n"
        "ap_end:\n"
        "    .code32\n"
        "ap_32:\n"
        "    mov $0x18, %eax\n"
        "    mov %eax, %ds\n"
        "    mov %eax, %es\n"
        "    mov %eax, %ss\n"
        "    mov $pml4, %eax\n"
        "    mov %eax, %cr3\n"
        "    mov %cr4, %eax\n"
        "    or $0x20, %eax\n"
        "    mov %eax, %cr4\n"
        "    mov $0xc0000080, %ecx\n"
        "    mov $0x100, %eax\n"
        "    xor %edx, %edx\n"
        "    wrmsr\n"
        "    mov %cr0, %eax\n"
        "    or $0x80000000, %eax\n"
        "    mov %eax, %cr0\n"
        "    ljmp $0x10, $ap_64\n"
        "    .code64\n"
        "ap_64:\n"
        "    mov ap_stack, %rsp\n"
        "    cmpl $0, ap_ring3\n"
        "    je ap_main\n"
        "    mov $0x174, %ecx\n"
        "    mov $0x10, %eax\n"
        "    xor %edx, %edx\n"
        "    wrmsr\n"
        "    mov $ap_main, %edx\n"
        "    mov %rsp, %rcx\n"
        "    sysexitq\n");
