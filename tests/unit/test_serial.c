/* SPDX-License-Identifier: Apache-2.0 */
/* serial: what the PC16550D data sheet promises, and what Linux's 8250 driver tests for. */
#include "vmrun/serial.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "conformance.h"
#include "fake_console.h"
#include "fake_loop.h"

#define PORT 0x3f8
#define GSI 4

enum { DATA = 0, IER = 1, IIR = 2, FCR = 2, LCR = 3, MCR = 4, LSR = 5, MSR = 6, SCR = 7 };
enum { RECEIVED = 1, THR_EMPTY = 2, LINE_STATUS = 4, MODEM = 8 };
enum { NO_INTERRUPT = 0x01, FIFOS = 0xc0 };
enum { DTR = 0x01, RTS = 0x02, OUT1 = 0x04, OUT2 = 0x08, LOOP = 0x10 };
enum { DR = 0x01, OE = 0x02, THRE = 0x20, TEMT = 0x40 };
enum { FIFO_ON = 0x01, RESET_RX = 0x02, RESET_TX = 0x04, TRIGGER_8 = 0x80 };

struct fixture {
    struct fake_platform fake;
    struct fake_console console;
    struct fake_loop loop;
    struct device *dev;
};

static int setup(void **state)
{
    static struct fixture f;
    struct error err;

    fake_platform_init(&f.fake);
    *state = &f;
    return serial_create(&f.fake.platform, fake_console_init(&f.console), fake_loop_init(&f.loop),
                         PORT, GSI, "serial0", &f.dev, &err);
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    device_destroy(f->dev);
    return 0;
}

static uint8_t in(struct fixture *f, unsigned reg)
{
    return fake_inb(&f->fake, (uint16_t)(PORT + reg));
}

static void out(struct fixture *f, unsigned reg, uint8_t value)
{
    fake_outb(&f->fake, (uint16_t)(PORT + reg), value);
}

static const struct fake_irq *irq(const struct fixture *f)
{
    return &f->fake.irqs[GSI];
}

/* As a driver leaves the port that it has opened: FIFOs on, trigger at 8, ready to receive. */
static void open_port(struct fixture *f, uint8_t ier)
{
    out(f, FCR, FIFO_ON | TRIGGER_8);
    out(f, MCR, DTR | RTS | OUT2);
    out(f, IER, ier);
}

static void type(struct fixture *f, const char *text)
{
    fake_console_type(&f->console, text, strlen(text));
}

/* Read while there is data; returns how many bytes. */
static size_t drain(struct fixture *f, char *buf, size_t room)
{
    size_t n = 0;

    while (in(f, LSR) & DR) {
        assert_true(n < room);
        buf[n++] = (char)in(f, DATA);
    }
    return n;
}

static void assert_output(const struct fixture *f, const char *text)
{
    assert_int_equal(f->console.out_len, strlen(text));
    assert_memory_equal(f->console.out, text, strlen(text));
}

/* Registers */

static void reset_leaves_the_registers_as_the_data_sheet_says(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(in(f, IER), 0);
    assert_int_equal(in(f, IIR), NO_INTERRUPT);
    assert_int_equal(in(f, LCR), 0);
    assert_int_equal(in(f, MCR), 0);
    assert_int_equal(in(f, LSR), THRE | TEMT);
    assert_int_equal(in(f, MSR) & 0x0f, 0);
    assert_false(irq(f)->level);
}

static void scratch_holds_any_byte(void **state)
{
    struct fixture *f = *state;

    out(f, SCR, 0xa5);
    assert_int_equal(in(f, SCR), 0xa5);
}

static void dlab_swaps_data_and_ier_for_the_divisor(void **state)
{
    struct fixture *f = *state;

    out(f, IER, THR_EMPTY);
    out(f, LCR, 0x83);
    out(f, 0, 0x34);
    out(f, 1, 0x12);
    assert_int_equal(in(f, 0), 0x34);
    assert_int_equal(in(f, 1), 0x12);
    out(f, LCR, 0x03);
    assert_int_equal(in(f, IER), THR_EMPTY);
    assert_int_equal(f->console.out_len, 0);
}

static void the_divisor_after_reset_can_be_divided_by(void **state)
{
    struct fixture *f = *state;

    out(f, LCR, 0x80);
    assert_true(in(f, 0) | in(f, 1) << 8);
}

static void a_wide_access_is_one_to_the_low_byte(void **state)
{
    struct fixture *f = *state;

    fake_write(&f->fake, BUS_PIO, PORT, 2, 0x4241);
    assert_output(f, "A");
    assert_int_equal(in(f, IER), 0);
    out(f, SCR, 0x77);
    assert_int_equal(fake_read(&f->fake, BUS_PIO, PORT + LSR, 2), THRE | TEMT);
}

/* What Linux's 8250 driver looks at before it says "16550A" */

static void linux_takes_it_for_a_16550a(void **state)
{
    struct fixture *f = *state;

    out(f, IER, 0x00);
    assert_int_equal(in(f, IER) & 0x0f, 0x00);
    out(f, IER, 0x0f);
    assert_int_equal(in(f, IER), 0x0f); /* and no UART_IER_UUE, as an XScale has */
    out(f, IER, 0x40);
    assert_int_equal(in(f, IER), 0x00);

    out(f, MCR, LOOP | OUT2 | RTS);
    assert_int_equal(in(f, MSR) & 0xf0, 0x90); /* DCD and CTS: the loop works */
    out(f, MCR, 0);

    out(f, FCR, FIFO_ON);
    assert_int_equal(in(f, IIR) >> 6, 3);

    out(f, LCR, 0x80); /* no EFR of a 16650 here */
    assert_int_not_equal(in(f, 2), 0);
    out(f, LCR, 0xbf); /* nor here */
    assert_int_not_equal(in(f, 2), 0);
    out(f, LCR, 0xe0); /* no bank 2 of a National SuperIO */
    assert_int_equal(in(f, 2) & LOOP, 0);
    out(f, LCR, 0);

    out(f, FCR, FIFO_ON | 0x20); /* no 64-byte FIFO, with DLAB or without */
    assert_int_equal(in(f, IIR) & 0x20, 0);
    out(f, LCR, 0x80);
    out(f, FCR, FIFO_ON | 0x20);
    assert_int_equal(in(f, IIR) & 0x20, 0);
}

static void linux_measures_a_fifo_of_16(void **state)
{
    struct fixture *f = *state;
    unsigned count = 0;

    out(f, FCR, FIFO_ON | RESET_RX | RESET_TX);
    out(f, MCR, LOOP);
    for (unsigned i = 0; i < 256; i++)
        out(f, DATA, (uint8_t)i);
    while (in(f, LSR) & DR && count < 256)
        assert_int_equal(in(f, DATA), count++);
    assert_int_equal(count, 16);
    assert_int_equal(f->console.out_len, 0);
}

/* serial8250_do_startup(): enabling the interrupt twice must interrupt twice. */
static void linux_finds_no_thre_bug(void **state)
{
    struct fixture *f = *state;

    out(f, IER, THR_EMPTY);
    assert_int_equal(in(f, IIR) & NO_INTERRUPT, 0);
    out(f, IER, 0);
    out(f, IER, THR_EMPTY);
    assert_int_equal(in(f, IIR) & NO_INTERRUPT, 0);
    out(f, IER, 0);
}

/* Its other test (UART_BUG_TXEN): LSR first, and then still an interrupt. */
static void linux_finds_no_txen_bug(void **state)
{
    struct fixture *f = *state;

    out(f, IER, THR_EMPTY);
    assert_int_equal(in(f, LSR) & TEMT, TEMT);
    assert_int_equal(in(f, IIR) & NO_INTERRUPT, 0);
}

/* Sending */

static void a_byte_goes_to_the_console_at_once(void **state)
{
    struct fixture *f = *state;

    out(f, DATA, 'x');
    assert_output(f, "x");
    assert_int_equal(in(f, LSR), THRE | TEMT);
}

static void enabling_the_interrupt_of_an_empty_thr_raises_it(void **state)
{
    struct fixture *f = *state;

    open_port(f, THR_EMPTY);
    assert_true(irq(f)->level);
    assert_int_equal(in(f, IIR), FIFOS | THR_EMPTY);
}

static void reading_iir_acknowledges_the_thr_interrupt(void **state)
{
    struct fixture *f = *state;

    open_port(f, THR_EMPTY);
    (void)in(f, IIR);
    assert_false(irq(f)->level);
    assert_int_equal(in(f, IIR), FIFOS | NO_INTERRUPT);
}

static void reading_iir_acknowledges_only_what_it_tells(void **state)
{
    struct fixture *f = *state;

    type(f, "a");
    open_port(f, RECEIVED | THR_EMPTY);
    assert_int_equal(in(f, IIR) & 0x0f, 0x0c);
    assert_int_equal(in(f, IIR) & 0x0f, 0x0c);
    (void)in(f, DATA);
    assert_int_equal(in(f, IIR) & 0x0f, THR_EMPTY);
}

static void each_byte_sent_raises_the_thr_interrupt_again(void **state)
{
    struct fixture *f = *state;

    open_port(f, THR_EMPTY);
    for (unsigned i = 0; i < 3; i++) {
        (void)in(f, IIR);
        assert_false(irq(f)->level);
        out(f, DATA, 'x');
        assert_true(irq(f)->level);
    }
}

static void without_fifos_each_byte_is_an_edge(void **state)
{
    struct fixture *f = *state;

    out(f, MCR, OUT2);
    out(f, IER, THR_EMPTY);
    unsigned rises = irq(f)->rises;
    for (unsigned i = 0; i < 5; i++)
        out(f, DATA, 'x'); /* acknowledges the one before */
    assert_int_equal(irq(f)->rises, rises + 5);
}

/* Linux's way: IIR, then up to 16 bytes. The interrupt controller hears of it twice. */
static void a_burst_of_16_is_one_edge(void **state)
{
    struct fixture *f = *state;

    open_port(f, THR_EMPTY);
    (void)in(f, IIR);
    (void)in(f, LSR);
    unsigned sets = irq(f)->sets;
    for (unsigned i = 0; i < 16; i++)
        out(f, DATA, 'x');
    assert_int_equal(irq(f)->sets, sets + 1);
    assert_int_equal(f->console.out_len, 16);
}

static void a_driver_that_looks_only_at_lsr_gets_an_edge_too(void **state)
{
    struct fixture *f = *state;

    open_port(f, THR_EMPTY);
    out(f, DATA, 'a');
    unsigned rises = irq(f)->rises;
    assert_int_equal(in(f, LSR) & THRE, THRE);
    out(f, DATA, 'b');
    assert_int_equal(irq(f)->rises, rises + 1);
}

static void a_full_console_keeps_the_transmitter_busy(void **state)
{
    struct fixture *f = *state;

    fake_console_make_room(&f->console, 0);
    open_port(f, THR_EMPTY);
    (void)in(f, IIR);
    out(f, DATA, 'x');
    assert_int_equal(in(f, LSR) & (THRE | TEMT), 0);
    assert_false(irq(f)->level);

    fake_console_make_room(&f->console, SIZE_MAX);
    assert_int_equal(in(f, LSR) & (THRE | TEMT), THRE | TEMT);
    assert_true(irq(f)->level);
    assert_output(f, "x");
}

static void a_slow_console_loses_nothing(void **state)
{
    struct fixture *f = *state;
    uint8_t next = 0;

    fake_console_make_room(&f->console, 0);
    open_port(f, 0);
    while (f->console.out_len < 1000) {
        if (in(f, LSR) & THRE)
            for (unsigned i = 0; i < 16; i++)
                out(f, DATA, next++);
        else
            fake_console_make_room(&f->console, 5);
    }
    for (size_t i = 0; i < f->console.out_len; i++)
        assert_int_equal(f->console.out[i], (uint8_t)i);
}

static void a_write_to_a_full_fifo_is_lost_and_counted(void **state)
{
    struct fixture *f = *state;
    struct serial_stats stats;

    fake_console_make_room(&f->console, 0);
    open_port(f, 0);
    for (char c = 'a'; c < 'a' + 18; c++)
        out(f, DATA, (uint8_t)c);
    fake_console_make_room(&f->console, SIZE_MAX);
    assert_output(f, "abcdefghijklmnop");
    serial_stats(f->dev, &stats);
    assert_int_equal(stats.tx_bytes, 16);
    assert_int_equal(stats.tx_lost, 2);
}

static void a_busy_transmitter_does_not_ask_the_console_again(void **state)
{
    struct fixture *f = *state;

    fake_console_make_room(&f->console, 0);
    open_port(f, 0);
    for (unsigned i = 0; i < 16; i++)
        out(f, DATA, 'x');
    assert_int_equal(f->console.writes, 1);
}

static void resetting_the_transmit_fifo_empties_it(void **state)
{
    struct fixture *f = *state;

    fake_console_make_room(&f->console, 0);
    open_port(f, THR_EMPTY);
    out(f, DATA, 'x');
    out(f, FCR, FIFO_ON | RESET_TX);
    assert_int_equal(in(f, LSR) & (THRE | TEMT), THRE | TEMT);
    assert_int_equal(in(f, IIR) & 0x0f, THR_EMPTY);
    fake_console_make_room(&f->console, SIZE_MAX);
    assert_int_equal(f->console.out_len, 0);
}

static void switching_the_fifos_empties_the_transmitter(void **state)
{
    struct fixture *f = *state;

    fake_console_make_room(&f->console, 0);
    open_port(f, 0);
    out(f, DATA, 'x');
    out(f, DATA, 'y');
    out(f, FCR, 0);
    assert_int_equal(in(f, LSR) & (THRE | TEMT), THRE | TEMT);
}

static void output_that_waits_keeps_the_transmitter_busy_in_loopback(void **state)
{
    struct fixture *f = *state;

    fake_console_make_room(&f->console, 0);
    open_port(f, THR_EMPTY);
    out(f, DATA, 'x');
    out(f, MCR, LOOP);
    out(f, DATA, 'y');
    assert_int_equal(in(f, LSR), DR);
    assert_int_equal(in(f, IIR) & 0x0f, NO_INTERRUPT);
    fake_console_make_room(&f->console, SIZE_MAX);
    assert_output(f, "x");
    assert_int_equal(in(f, IIR) & 0x0f, THR_EMPTY);
}

/* Receiving */

static void input_waits_until_the_guest_is_ready(void **state)
{
    struct fixture *f = *state;
    char buf[64];

    type(f, "typed too early");
    out(f, MCR, 0);
    assert_int_equal(in(f, LSR) & DR, 0);
    out(f, FCR, FIFO_ON | RESET_RX | RESET_TX); /* as drivers do */
    out(f, FCR, 0);
    (void)in(f, DATA);
    open_port(f, RECEIVED);
    assert_int_equal(drain(f, buf, sizeof(buf)), 15);
    assert_memory_equal(buf, "typed too early", 15);
}

static void a_guest_that_never_writes_mcr_can_poll(void **state)
{
    struct fixture *f = *state;
    char buf[8];

    type(f, "hello");
    assert_int_equal(drain(f, buf, sizeof(buf)), 5);
    assert_memory_equal(buf, "hello", 5);
    type(f, "again");
    assert_int_equal(drain(f, buf, sizeof(buf)), 5);
}

static void a_guest_that_drops_rts_gets_no_more(void **state)
{
    struct fixture *f = *state;
    char buf[64];

    open_port(f, RECEIVED);
    type(f, "0123456789abcdefghij");
    out(f, MCR, DTR | OUT2);
    assert_int_equal(drain(f, buf, sizeof(buf)), 16);
    out(f, MCR, DTR | RTS | OUT2);
    assert_int_equal(drain(f, buf, sizeof(buf)), 4);
}

static void data_below_the_trigger_are_a_timeout_at_once(void **state)
{
    struct fixture *f = *state;

    open_port(f, RECEIVED);
    type(f, "1234567");
    assert_true(irq(f)->level);
    assert_int_equal(in(f, IIR), FIFOS | 0x0c);
}

static void data_at_the_trigger_are_available(void **state)
{
    static const struct {
        uint8_t fcr, trigger;
    } levels[] = {{0x01, 1}, {0x41, 4}, {0x81, 8}, {0xc1, 14}};
    struct fixture *f = *state;

    for (unsigned i = 0; i < 4; i++) {
        open_port(f, RECEIVED);
        out(f, FCR, levels[i].fcr);
        type(f, "0123456789abcdef");
        for (unsigned left = 16; left > 0; left--) {
            assert_int_equal(in(f, IIR) & 0x0f, left >= levels[i].trigger ? 0x04 : 0x0c);
            (void)in(f, DATA);
        }
        assert_int_equal(in(f, IIR) & 0x0f, NO_INTERRUPT);
    }
}

static void the_interrupt_falls_when_the_fifo_is_empty(void **state)
{
    struct fixture *f = *state;

    open_port(f, RECEIVED);
    type(f, "ab");
    (void)in(f, DATA);
    assert_true(irq(f)->level);
    (void)in(f, DATA);
    assert_false(irq(f)->level);
    assert_int_equal(irq(f)->rises, 1);
}

static void a_long_paste_arrives_whole(void **state)
{
    static char paste[50000], got[sizeof(paste) + 1];
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof(paste); i++)
        paste[i] = (char)(i % 251);
    open_port(f, RECEIVED);
    fake_console_type(&f->console, paste, sizeof(paste));
    assert_int_equal(drain(f, got, sizeof(got)), sizeof(paste));
    assert_memory_equal(got, paste, sizeof(paste));
    assert_true(f->console.reads <= sizeof(paste) / 16 + 2);
}

/* Else a driver that gives up after so many bytes would never hear of the rest. */
static void each_refill_of_the_fifo_is_an_edge(void **state)
{
    struct fixture *f = *state;
    char buf[64];

    open_port(f, RECEIVED);
    type(f, "0123456789abcdef0123456789abcdef0123456789abcdef");
    assert_int_equal(drain(f, buf, sizeof(buf)), 48);
    assert_int_equal(irq(f)->rises, 3);
}

static void without_fifos_one_byte_arrives_at_a_time(void **state)
{
    struct fixture *f = *state;

    out(f, MCR, RTS | OUT2);
    out(f, IER, RECEIVED);
    type(f, "abc");
    assert_int_equal(f->console.in_at, 1);
    assert_int_equal(in(f, IIR), 0x04);
    assert_int_equal(in(f, DATA), 'a');
    assert_int_equal(in(f, DATA), 'b');
    assert_int_equal(irq(f)->rises, 3);
}

static void an_empty_receiver_reads_as_zero(void **state)
{
    struct fixture *f = *state;

    open_port(f, 0);
    assert_int_equal(in(f, DATA), 0);
}

static void resetting_the_receive_fifo_drops_what_is_in_it(void **state)
{
    struct fixture *f = *state;

    open_port(f, RECEIVED);
    type(f, "0123456789abcdef!");
    out(f, FCR, FIFO_ON | RESET_RX);
    assert_int_equal(in(f, DATA), '!');
    assert_int_equal(in(f, LSR) & DR, 0);
}

static void switching_the_fifos_empties_them(void **state)
{
    struct fixture *f = *state;

    open_port(f, 0);
    type(f, "abc");
    out(f, MCR, 0);
    out(f, FCR, 0);
    assert_int_equal(in(f, LSR) & DR, 0);
    assert_int_equal(in(f, IIR) & FIFOS, 0);
}

/* Loopback, line status, modem status */

static void loopback_returns_what_is_sent(void **state)
{
    struct fixture *f = *state;

    type(f, "from outside");
    open_port(f, 0);
    char buf[16];
    (void)drain(f, buf, sizeof(buf));
    type(f, "more");
    (void)drain(f, buf, sizeof(buf));
    out(f, MCR, LOOP | RTS);
    out(f, DATA, 0x5a);
    assert_int_equal(in(f, LSR), DR | THRE | TEMT);
    assert_int_equal(in(f, DATA), 0x5a);
    assert_int_equal(f->console.out_len, 0);
}

static void loopback_shuts_the_line_out(void **state)
{
    struct fixture *f = *state;

    out(f, MCR, LOOP | RTS);
    type(f, "x");
    assert_int_equal(in(f, LSR) & DR, 0);
    out(f, MCR, RTS);
    assert_int_equal(in(f, LSR) & DR, DR);
}

static void loopback_connects_the_modem_lines(void **state)
{
    static const struct {
        uint8_t mcr, msr;
    } wires[] = {{RTS, 0x10}, {DTR, 0x20}, {OUT1, 0x40}, {OUT2, 0x80}};
    struct fixture *f = *state;

    for (unsigned i = 0; i < 4; i++) {
        out(f, MCR, LOOP | wires[i].mcr);
        assert_int_equal(in(f, MSR) & 0xf0, wires[i].msr);
    }
}

static void an_overrun_is_told_once(void **state)
{
    struct fixture *f = *state;

    out(f, FCR, FIFO_ON);
    out(f, MCR, LOOP);
    out(f, IER, LINE_STATUS);
    for (unsigned i = 0; i < 17; i++)
        out(f, DATA, (uint8_t)i);
    assert_int_equal(in(f, IIR) & 0x0f, 0x06);
    assert_int_equal(in(f, LSR) & OE, OE);
    assert_int_equal(in(f, LSR) & OE, 0);
    assert_int_equal(in(f, IIR) & 0x0f, NO_INTERRUPT);
    assert_int_equal(in(f, DATA), 0); /* in the FIFO the old data stay */
}

static void without_fifos_an_overrun_replaces_the_byte(void **state)
{
    struct fixture *f = *state;

    out(f, MCR, LOOP);
    out(f, DATA, 'a');
    out(f, DATA, 'b');
    assert_int_equal(in(f, LSR) & OE, OE);
    assert_int_equal(in(f, DATA), 'b');
}

static void the_line_outside_is_always_ready(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(in(f, MSR), 0xb0); /* DCD, DSR, CTS */
}

static void modem_deltas_interrupt_until_msr_is_read(void **state)
{
    struct fixture *f = *state;

    out(f, MCR, LOOP | OUT1);
    (void)in(f, MSR);
    out(f, IER, MODEM);
    assert_int_equal(in(f, IIR) & 0x0f, NO_INTERRUPT);
    out(f, MCR, LOOP | RTS); /* CTS rises, RI falls */
    assert_int_equal(in(f, IIR) & 0x0f, 0x00);
    assert_int_equal(in(f, MSR), 0x10 | 0x01 | 0x04);
    assert_int_equal(in(f, MSR), 0x10);
    assert_int_equal(in(f, IIR) & 0x0f, NO_INTERRUPT);
}

static void ring_is_told_only_when_it_ends(void **state)
{
    struct fixture *f = *state;

    out(f, MCR, LOOP);
    (void)in(f, MSR);
    out(f, MCR, LOOP | OUT1);
    assert_int_equal(in(f, MSR), 0x40);
}

static void out2_gates_the_interrupt(void **state)
{
    struct fixture *f = *state;

    out(f, IER, THR_EMPTY);
    assert_false(irq(f)->level);
    out(f, MCR, OUT2);
    assert_true(irq(f)->level);
    out(f, MCR, OUT2 | LOOP);
    assert_false(irq(f)->level);
}

static void the_line_is_driven_only_when_it_changes(void **state)
{
    struct fixture *f = *state;

    open_port(f, RECEIVED | THR_EMPTY);
    unsigned sets = irq(f)->sets;
    for (unsigned reg = 1; reg < 8; reg++)
        if (reg != IIR)
            (void)in(f, reg);
    type(f, "abc");
    assert_int_equal(irq(f)->sets, sets);
}

/* Life */

static void a_paused_port_leaves_input_and_output_alone(void **state)
{
    struct fixture *f = *state;

    fake_console_make_room(&f->console, 0);
    open_port(f, RECEIVED);
    out(f, DATA, 'o');
    device_pause(f->dev);
    fake_console_make_room(&f->console, SIZE_MAX);
    type(f, "i");
    assert_int_equal(f->console.out_len, 0);
    assert_int_equal(f->console.in_at, 0);
    assert_false(irq(f)->level);

    device_resume(f->dev);
    assert_output(f, "o");
    assert_int_equal(f->console.in_at, 1);
    assert_true(irq(f)->level);
}

static void unsent_output_travels_with_the_machine(void **state)
{
    struct fixture *f = *state;
    static struct fixture target;
    struct writer w = {0};
    struct error err;

    fake_console_make_room(&f->console, 0);
    open_port(f, 0);
    for (const char *c = "in flight"; *c; c++)
        out(f, DATA, (uint8_t)*c);
    device_pause(f->dev);
    assert_int_equal(state_save(f->dev->ops->state, f->dev, &w, &err), 0);

    fake_platform_init(&target.fake);
    assert_int_equal(serial_create(&target.fake.platform, fake_console_init(&target.console),
                                   fake_loop_init(&target.loop), PORT, GSI, "serial0", &target.dev,
                                   &err),
                     0);
    struct reader r = {.data = w.data, .len = w.len};
    device_pause(target.dev);
    assert_int_equal(state_load(target.dev->ops->state, target.dev, &r, &err), 0);
    device_resume(target.dev);
    assert_output(&target, "in flight");
    device_destroy(target.dev);
    free(w.data);
}

static void a_paste_leaves_the_guest_a_third_of_its_time(void **state)
{
    struct fixture *f = *state;
    uint8_t paste[48];

    memset(paste, 'p', sizeof(paste));
    open_port(f, 0);
    fake_console_type(&f->console, paste, sizeof(paste));
    for (unsigned i = 0; i < 16; i++) {
        fake_loop_advance(&f->loop, 1000);
        assert_int_equal(in(f, DATA), 'p');
    }
    /* 16 us were spent on it: nothing for 8 us, and then the next FIFO by itself. */
    fake_loop_advance(&f->loop, 7999);
    assert_false(in(f, LSR) & DR);
    fake_loop_advance(&f->loop, 1);
    assert_true(in(f, LSR) & DR);
}

static void a_guest_that_was_slow_once_waits_five_milliseconds_at_most(void **state)
{
    struct fixture *f = *state;

    open_port(f, 0);
    fake_console_type(&f->console, (const uint8_t *)"a", 1);
    fake_loop_advance(&f->loop, 10000000000);
    assert_int_equal(in(f, DATA), 'a');
    fake_console_type(&f->console, (const uint8_t *)"b", 1);
    assert_false(in(f, LSR) & DR);
    fake_loop_advance(&f->loop, 5000000);
    assert_int_equal(in(f, DATA), 'b');
}

static void destroying_it_frees_the_console(void **state)
{
    struct fixture f;
    struct error err;

    (void)state;
    fake_platform_init(&f.fake);
    assert_int_equal(serial_create(&f.fake.platform, fake_console_init(&f.console),
                                   fake_loop_init(&f.loop), PORT, GSI, "serial0", &f.dev, &err),
                     0);
    assert_non_null(f.console.device.readable);
    device_destroy(f.dev);
    assert_null(f.console.device.readable);
}

/* Conformance: each port has a console of its own, which starts full. */

struct consoles {
    struct fake_console of[3];
    struct loop *loop;
};

static int create(void *opaque, struct platform *platform, struct device **ret_dev,
                  struct error *err)
{
    struct consoles *consoles = opaque;

    for (unsigned i = 0; i < 3; i++) {
        struct fake_console *console = &consoles->of[i];

        if (console->device.opaque)
            continue;
        fake_console_init(console);
        console->room = 0;
        return serial_create(platform, (struct console *)console, consoles->loop, PORT, GSI,
                             "serial0", ret_dev, err);
    }
    fail_msg("more ports than consoles");
    return -1;
}

static void disturb(void *opaque, struct device *dev, uint32_t random)
{
    struct consoles *consoles = opaque;

    for (unsigned i = 0; i < 3; i++) {
        if (consoles->of[i].device.opaque != dev)
            continue;
        if (random & 1)
            fake_console_make_room(&consoles->of[i], random >> 8 & 31);
        else
            fake_console_type(&consoles->of[i], "input of some length, over 32", random >> 8 & 31);
    }
}

static void settle(void *opaque, struct device *dev)
{
    struct consoles *consoles = opaque;

    for (unsigned i = 0; i < 3; i++) {
        if (consoles->of[i].device.opaque != dev)
            continue;
        fake_console_type(&consoles->of[i], "settled", 7);
        fake_console_make_room(&consoles->of[i], SIZE_MAX);
    }
}

static void it_conforms(void **state)
{
    static struct consoles consoles;
    static struct fake_loop loop;

    (void)state;
    consoles.loop = fake_loop_init(&loop);
    conformance_run(&(struct conformance_case){
        .create = create, .disturb = disturb, .settle = settle, .opaque = &consoles});
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(reset_leaves_the_registers_as_the_data_sheet_says),
        TEST(scratch_holds_any_byte),
        TEST(dlab_swaps_data_and_ier_for_the_divisor),
        TEST(the_divisor_after_reset_can_be_divided_by),
        TEST(a_wide_access_is_one_to_the_low_byte),
        TEST(linux_takes_it_for_a_16550a),
        TEST(linux_measures_a_fifo_of_16),
        TEST(linux_finds_no_thre_bug),
        TEST(linux_finds_no_txen_bug),
        TEST(a_byte_goes_to_the_console_at_once),
        TEST(enabling_the_interrupt_of_an_empty_thr_raises_it),
        TEST(reading_iir_acknowledges_the_thr_interrupt),
        TEST(reading_iir_acknowledges_only_what_it_tells),
        TEST(each_byte_sent_raises_the_thr_interrupt_again),
        TEST(without_fifos_each_byte_is_an_edge),
        TEST(a_burst_of_16_is_one_edge),
        TEST(a_driver_that_looks_only_at_lsr_gets_an_edge_too),
        TEST(a_full_console_keeps_the_transmitter_busy),
        TEST(a_slow_console_loses_nothing),
        TEST(a_write_to_a_full_fifo_is_lost_and_counted),
        TEST(a_busy_transmitter_does_not_ask_the_console_again),
        TEST(resetting_the_transmit_fifo_empties_it),
        TEST(switching_the_fifos_empties_the_transmitter),
        TEST(output_that_waits_keeps_the_transmitter_busy_in_loopback),
        TEST(input_waits_until_the_guest_is_ready),
        TEST(a_guest_that_never_writes_mcr_can_poll),
        TEST(a_guest_that_drops_rts_gets_no_more),
        TEST(data_below_the_trigger_are_a_timeout_at_once),
        TEST(data_at_the_trigger_are_available),
        TEST(the_interrupt_falls_when_the_fifo_is_empty),
        TEST(a_long_paste_arrives_whole),
        TEST(each_refill_of_the_fifo_is_an_edge),
        TEST(without_fifos_one_byte_arrives_at_a_time),
        TEST(an_empty_receiver_reads_as_zero),
        TEST(resetting_the_receive_fifo_drops_what_is_in_it),
        TEST(switching_the_fifos_empties_them),
        TEST(loopback_returns_what_is_sent),
        TEST(loopback_shuts_the_line_out),
        TEST(loopback_connects_the_modem_lines),
        TEST(an_overrun_is_told_once),
        TEST(without_fifos_an_overrun_replaces_the_byte),
        TEST(the_line_outside_is_always_ready),
        TEST(modem_deltas_interrupt_until_msr_is_read),
        TEST(ring_is_told_only_when_it_ends),
        TEST(out2_gates_the_interrupt),
        TEST(the_line_is_driven_only_when_it_changes),
        TEST(a_paused_port_leaves_input_and_output_alone),
        TEST(unsent_output_travels_with_the_machine),
        TEST(a_paste_leaves_the_guest_a_third_of_its_time),
        TEST(a_guest_that_was_slow_once_waits_five_milliseconds_at_most),
        cmocka_unit_test(destroying_it_frees_the_console),
        cmocka_unit_test(it_conforms),
    };

    return cmocka_run_group_tests_name("serial", tests, NULL, NULL);
}
