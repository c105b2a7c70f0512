/* SPDX-License-Identifier: Apache-2.0 */
/*
 * serial: a 16550A UART on an infinitely fast line.
 *
 * Nothing here waits. The transmitter is busy only while the console takes
 * nothing; the receiver asks the console for more only when its FIFO is empty.
 * Interrupts are derived from the registers by interrupt_id(), so after any
 * change update_line() is all there is to do.
 */
#include "vmrun/serial.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmrun/loop.h"

#define FIFO_DEPTH 16

/* Register offsets. With LCR.DLAB, 0 and 1 are the divisor. */
enum { RBR_THR = 0, IER = 1, IIR_FCR = 2, LCR = 3, MCR = 4, LSR = 5, MSR = 6, SCR = 7 };

enum { IER_RECEIVED = 1, IER_THR_EMPTY = 2, IER_LINE_STATUS = 4, IER_MODEM = 8 };
enum {
    IIR_MODEM = 0x00,
    IIR_NONE = 0x01,
    IIR_THR_EMPTY = 0x02,
    IIR_RECEIVED = 0x04,
    IIR_LINE_STATUS = 0x06,
    IIR_TIMEOUT = 0x0c,
    IIR_FIFOS = 0xc0,
};
enum {
    FCR_ENABLE = 0x01,
    FCR_RESET_RX = 0x02,
    FCR_RESET_TX = 0x04,
    FCR_DMA = 0x08,
    FCR_TRIGGER_SHIFT = 6,
    FCR_KEPT = 0xc9,
};
enum { LCR_DLAB = 0x80 };
enum {
    MCR_DTR = 0x01,
    MCR_RTS = 0x02,
    MCR_OUT1 = 0x04,
    MCR_OUT2 = 0x08,
    MCR_LOOP = 0x10,
    MCR_ALL = 0x1f,
};
enum { LSR_DATA_READY = 0x01, LSR_OVERRUN = 0x02, LSR_THR_EMPTY = 0x20, LSR_IDLE = 0x40 };
enum {
    MSR_DELTA_CTS = 0x01,
    MSR_DELTA_DSR = 0x02,
    MSR_RING_ENDED = 0x04,
    MSR_DELTA_DCD = 0x08,
    MSR_CTS = 0x10,
    MSR_DSR = 0x20,
    MSR_RING = 0x40,
    MSR_DCD = 0x80,
    MSR_DELTAS = 0x0f,
};

#define MAX_QUIET_NS 5000000 /* a guest that was slow for another reason need not wait long */
#define DIVISOR_9600 12      /* what a PC's firmware leaves; 0 would be divided by */

struct serial {
    struct device dev;
    struct platform *platform;
    struct console *console;
    struct irq *irq;
    struct loop_timer *timer; /* ends the quiet time of the line */
    uint64_t filled_ns, quiet_until_ns;
    struct serial_stats stats;
    bool line, paused;
    bool input_waits; /* the console may have input: it was not found empty yet */
    bool burst;       /* the guest's last access was a write to THR */

    uint8_t ier, fcr, lcr, mcr, scr, dll, dlm;
    uint8_t line_errors; /* of LSR: LSR_OVERRUN */
    uint8_t msr_deltas;  /* of MSR: MSR_DELTAS */
    bool mcr_written;    /* since reset */
    bool thre_pending;   /* the THR-empty interrupt, as long as it is not acknowledged */
    uint8_t rx_count, tx_count;
    uint8_t rx[FIFO_DEPTH], tx[FIFO_DEPTH]; /* the oldest first; zeros beyond the count */
};
static_assert(offsetof(struct serial, dev) == 0, "state offsets count from the device");

static struct serial *self(struct device *dev)
{
    return container_of(dev, struct serial, dev);
}

static uint8_t fifo_depth(const struct serial *s)
{
    return s->fcr & FCR_ENABLE ? FIFO_DEPTH : 1;
}

static uint8_t modem_inputs(const struct serial *s)
{
    if (!(s->mcr & MCR_LOOP))
        return MSR_DCD | MSR_DSR | MSR_CTS;
    return (uint8_t)((s->mcr & MCR_RTS ? MSR_CTS : 0) | (s->mcr & MCR_DTR ? MSR_DSR : 0) |
                     (s->mcr & MCR_OUT1 ? MSR_RING : 0) | (s->mcr & MCR_OUT2 ? MSR_DCD : 0));
}

/* The pending interrupt of the highest priority, as IIR's low four bits tell it. */
static uint8_t interrupt_id(const struct serial *s)
{
    static const uint8_t triggers[] = {1, 4, 8, 14};
    uint8_t trigger = s->fcr & FCR_ENABLE ? triggers[s->fcr >> FCR_TRIGGER_SHIFT] : 1;

    if (s->ier & IER_LINE_STATUS && s->line_errors)
        return IIR_LINE_STATUS;
    if (s->ier & IER_RECEIVED && s->rx_count)
        return s->rx_count >= trigger ? IIR_RECEIVED : IIR_TIMEOUT;
    if (s->ier & IER_THR_EMPTY && s->thre_pending)
        return IIR_THR_EMPTY;
    if (s->ier & IER_MODEM && s->msr_deltas)
        return IIR_MODEM;
    return IIR_NONE;
}

static void update_line(struct serial *s)
{
    /* In loopback the modem outputs, OUT2 among them, are off. */
    bool gate = (s->mcr & (MCR_OUT2 | MCR_LOOP)) == MCR_OUT2;
    bool level = gate && interrupt_id(s) != IIR_NONE;

    if (level == s->line || s->paused)
        return;
    s->line = level;
    irq_set(s->irq, level);
}

static uint8_t fifo_take(uint8_t *fifo, uint8_t *count)
{
    uint8_t value = fifo[0];

    memmove(fifo, fifo + 1, FIFO_DEPTH - 1);
    fifo[FIFO_DEPTH - 1] = 0;
    (*count)--;
    return value;
}

static void fifo_clear(uint8_t *fifo, uint8_t *count)
{
    memset(fifo, 0, FIFO_DEPTH);
    *count = 0;
}

/*
 * Fetch input if the receiver is empty and the console may have some.
 *
 * A line without a speed would keep a guest in its interrupt handler for as long
 * as a paste lasts: Linux calls that a soft lockup, and drops what its own
 * buffers cannot take. So after a FIFO that took the guest T to read the line is
 * quiet for T / 2, at least a third of the guest's time is its own.
 */
static void receive(struct serial *s)
{
    uint8_t depth = fifo_depth(s);
    size_t n;

    if (s->rx_count || !s->input_waits || s->mcr & MCR_LOOP)
        return;
    if (s->quiet_until_ns) {
        uint64_t now = loop_now_ns();

        if (now < s->quiet_until_ns) {
            loop_timer_arm(s->timer, s->quiet_until_ns);
            return;
        }
        s->quiet_until_ns = 0;
    }
    n = console_read(s->console, s->rx, depth);
    s->input_waits = n == depth;
    s->rx_count = (uint8_t)n;
    s->stats.rx_bytes += n;
    if (n)
        s->filled_ns = loop_now_ns();
}

/* The guest has read the last byte that came from the line. */
static void receiver_drained(struct serial *s)
{
    uint64_t now = loop_now_ns(), quiet = (now - s->filled_ns) / 2;

    s->quiet_until_ns = quiet ? now + (quiet < MAX_QUIET_NS ? quiet : MAX_QUIET_NS) : 0;
}

static void receive_if_ready(struct serial *s)
{
    if (s->mcr & MCR_RTS)
        receive(s);
}

/* Offer the console what waits in the transmit FIFO. */
static void transmit(struct serial *s)
{
    size_t n;

    if (!s->tx_count)
        return;
    n = console_write(s->console, s->tx, s->tx_count);
    s->stats.tx_bytes += n;
    memmove(s->tx, s->tx + n, s->tx_count - n);
    memset(s->tx + s->tx_count - n, 0, n);
    s->tx_count = (uint8_t)(s->tx_count - n);
    if (!s->tx_count)
        s->thre_pending = true;
}

static void loop_back(struct serial *s, uint8_t value)
{
    s->thre_pending = !s->tx_count;
    if (s->rx_count == fifo_depth(s)) {
        s->line_errors |= LSR_OVERRUN;
        if (s->fcr & FCR_ENABLE)
            return; /* the shift register is overwritten, the FIFO is not */
        s->rx_count = 0;
    }
    s->rx[s->rx_count++] = value;
}

static void write_thr(struct serial *s, uint8_t value)
{
    /*
     * On a real line the interrupt falls here and rises when the byte has left:
     * an edge for each byte. With a FIFO a burst is seen as one, which spares two
     * calls to the interrupt controller a byte and loses nothing: a driver
     * looks at LSR or IIR before it writes more.
     */
    bool edge = !s->burst || !(s->fcr & FCR_ENABLE);

    s->burst = true;
    s->thre_pending = false;
    if (edge)
        update_line(s);
    if (s->mcr & MCR_LOOP) {
        loop_back(s, value);
    } else if (s->tx_count < fifo_depth(s)) {
        s->tx[s->tx_count++] = value;
        if (s->tx_count == 1) /* else the console is full and will say when it is not */
            transmit(s);
    } else {
        s->stats.tx_lost++;
    }
}

static void clear_transmitter(struct serial *s)
{
    if (!s->tx_count)
        return;
    s->stats.tx_lost += s->tx_count;
    fifo_clear(s->tx, &s->tx_count);
    s->thre_pending = true;
}

static void write_fcr(struct serial *s, uint8_t value)
{
    bool switched = (value ^ s->fcr) & FCR_ENABLE;

    if (!(value & FCR_ENABLE))
        value = 0; /* the other bits are programmed only together with this one */
    if (switched || value & FCR_RESET_RX)
        fifo_clear(s->rx, &s->rx_count);
    if (switched || value & FCR_RESET_TX)
        clear_transmitter(s);
    s->fcr = value & FCR_KEPT;
    update_line(s); /* low first if data goes and new data comes */
    receive_if_ready(s);
}

static void write_mcr(struct serial *s, uint8_t value)
{
    uint8_t before = modem_inputs(s), changed;

    s->mcr = value & MCR_ALL;
    s->mcr_written = true;
    changed = before ^ modem_inputs(s);
    s->msr_deltas |= (changed & (MSR_CTS | MSR_DSR | MSR_DCD)) >> 4;
    if (changed & before & MSR_RING)
        s->msr_deltas |= MSR_RING_ENDED;
    receive_if_ready(s);
}

static void write_ier(struct serial *s, uint8_t value)
{
    uint8_t enabled = value & ~s->ier;

    s->ier = value & (IER_RECEIVED | IER_THR_EMPTY | IER_LINE_STATUS | IER_MODEM);
    /* A driver gets its first interrupt by enabling it: drivers test for that. */
    if (enabled & IER_THR_EMPTY && !s->tx_count)
        s->thre_pending = true;
}

static void serial_write(struct device *dev, unsigned region, uint64_t offset, unsigned size,
                         uint64_t value)
{
    struct serial *s = self(dev);
    uint8_t byte = (uint8_t)value;
    bool divisor = s->lcr & LCR_DLAB;

    (void)region, (void)size;
    if (offset != RBR_THR || divisor)
        s->burst = false;
    switch (offset) {
    case RBR_THR:
        if (divisor)
            s->dll = byte;
        else
            write_thr(s, byte);
        break;
    case IER:
        if (divisor)
            s->dlm = byte;
        else
            write_ier(s, byte);
        break;
    case IIR_FCR: write_fcr(s, byte); break;
    case LCR: s->lcr = byte; break;
    case MCR: write_mcr(s, byte); break;
    case SCR: s->scr = byte; break;
    default: break; /* LSR and MSR: for factory tests */
    }
    update_line(s);
}

static uint8_t read_rbr(struct serial *s)
{
    uint8_t value;

    if (!s->rx_count)
        return 0;
    value = fifo_take(s->rx, &s->rx_count);
    /* Low before the next data raise it: an edge, for interrupt inputs that want one. */
    if (!s->rx_count) {
        update_line(s);
        receiver_drained(s);
    }
    receive_if_ready(s);
    return value;
}

static uint8_t read_iir(struct serial *s)
{
    uint8_t id = interrupt_id(s);

    if (id == IIR_THR_EMPTY)
        s->thre_pending = false;
    return (uint8_t)(id | (s->fcr & FCR_ENABLE ? IIR_FIFOS : 0));
}

static uint8_t read_lsr(struct serial *s)
{
    uint8_t value = s->line_errors;

    if (s->mcr_written)
        receive_if_ready(s);
    else
        receive(s); /* a guest that leaves MCR alone and polls */
    s->line_errors = 0;
    value |= s->rx_count ? LSR_DATA_READY : 0;
    value |= s->tx_count ? 0 : LSR_THR_EMPTY | LSR_IDLE;
    return value;
}

static uint8_t read_msr(struct serial *s)
{
    uint8_t value = modem_inputs(s) | s->msr_deltas;

    s->msr_deltas = 0;
    return value;
}

static uint64_t serial_read(struct device *dev, unsigned region, uint64_t offset, unsigned size)
{
    struct serial *s = self(dev);
    bool divisor = s->lcr & LCR_DLAB;
    uint8_t value = 0;

    (void)region, (void)size;
    s->burst = false;
    switch (offset) {
    case RBR_THR: value = divisor ? s->dll : read_rbr(s); break;
    case IER: value = divisor ? s->dlm : s->ier; break;
    case IIR_FCR: value = read_iir(s); break;
    case LCR: value = s->lcr; break;
    case MCR: value = s->mcr; break;
    case LSR: value = read_lsr(s); break;
    case MSR: value = read_msr(s); break;
    case SCR: value = s->scr; break;
    default: break;
    }
    update_line(s);
    return value;
}

/* The console has room again. */
static void serial_writable(void *opaque)
{
    struct serial *s = opaque;

    if (s->paused)
        return; /* resume asks again */
    transmit(s);
    update_line(s);
}

/* The console has input again. */
static void serial_readable(void *opaque)
{
    struct serial *s = opaque;

    s->input_waits = true;
    if (s->paused)
        return;
    receive_if_ready(s);
    update_line(s);
}

/* The line has been quiet for long enough. */
static void serial_timer(void *opaque)
{
    struct serial *s = opaque;

    if (s->paused)
        return; /* resume asks again */
    receive_if_ready(s);
    update_line(s);
}

void serial_stats(struct device *dev, struct serial_stats *ret_stats)
{
    pthread_mutex_lock(&dev->lock);
    *ret_stats = self(dev)->stats;
    pthread_mutex_unlock(&dev->lock);
}

static void serial_reset(struct device *dev)
{
    struct serial *s = self(dev);

    s->ier = s->fcr = s->lcr = s->mcr = s->scr = s->dlm = 0;
    s->dll = DIVISOR_9600;
    s->line_errors = s->msr_deltas = 0;
    s->mcr_written = s->thre_pending = s->burst = false;
    s->stats.tx_lost += s->tx_count;
    fifo_clear(s->rx, &s->rx_count);
    fifo_clear(s->tx, &s->tx_count);
    s->line = false;
    irq_set(s->irq, false);
}

static void serial_pause(struct device *dev)
{
    self(dev)->paused = true;
}

static void serial_resume(struct device *dev)
{
    struct serial *s = self(dev);

    s->paused = false;
    s->filled_ns = loop_now_ns(); /* a pause is not time that the guest took */
    s->quiet_until_ns = 0;
    transmit(s);
    receive_if_ready(s);
    update_line(s);
}

static void serial_destroy(struct device *dev)
{
    struct serial *s = self(dev);

    if (s->console)
        console_set_device(s->console, &(struct console_device){0});
    loop_timer_destroy(s->timer);
    if (s->line)
        irq_set(s->irq, false);
    s->platform->ops->unmap(s->platform, dev);
    device_fini(dev);
    free(s);
}

static int serial_post_load(void *obj, struct error *err)
{
    struct serial *s = obj;

    if (s->fcr & ~FCR_KEPT || (s->fcr && !(s->fcr & FCR_ENABLE)))
        return error_set(err, EPROTO, "fcr: 0x%x cannot be", s->fcr);
    if (s->line_errors & ~LSR_OVERRUN)
        return error_set(err, EPROTO, "line_errors: 0x%x has unknown bits", s->line_errors);
    if (s->rx_count > fifo_depth(s) || s->tx_count > fifo_depth(s))
        return error_set(err, EPROTO, "%u and %u bytes in FIFOs of %u", s->rx_count, s->tx_count,
                         fifo_depth(s));
    if (s->thre_pending && s->tx_count)
        return error_set(err, EPROTO, "thre_pending: the transmitter is not empty");

    s->input_waits = true;
    s->burst = false;
    update_line(s);
    return 0;
}

static const struct state_field serial_fields[] = {
    STATE(struct serial, ier, .max = 0x0f),
    STATE(struct serial, fcr),
    STATE(struct serial, lcr),
    STATE(struct serial, mcr, .max = MCR_ALL),
    STATE(struct serial, scr),
    STATE(struct serial, dll),
    STATE(struct serial, dlm),
    STATE(struct serial, line_errors),
    STATE(struct serial, msr_deltas, .max = MSR_DELTAS),
    STATE(struct serial, mcr_written),
    STATE(struct serial, thre_pending),
    STATE(struct serial, rx_count, .max = FIFO_DEPTH),
    STATE(struct serial, tx_count, .max = FIFO_DEPTH),
    STATE_ARRAY(struct serial, rx),
    STATE_ARRAY(struct serial, tx),
    STATE_END,
};

static const struct state_desc serial_state = {
    .name = "16550a",
    .version = 1,
    .fields = serial_fields,
    .post_load = serial_post_load,
};

static const struct device_ops serial_ops = {
    .type = "16550a",
    .read = serial_read,
    .write = serial_write,
    .reset = serial_reset,
    .pause = serial_pause,
    .resume = serial_resume,
    .destroy = serial_destroy,
    .state = &serial_state,
};

int serial_create(struct platform *platform, struct console *console, struct loop *loop,
                  uint16_t port, unsigned irq, const char *id, struct device **ret_dev,
                  struct error *err)
{
    struct serial *s = calloc(1, sizeof(*s));
    int r;

    if (!s)
        return error_set(err, ENOMEM, "%s: out of memory", id);
    device_init(&s->dev, &serial_ops, id);
    s->platform = platform;

    r = loop_timer_create(loop, &s->dev.lock, serial_timer, s, &s->timer, err);
    if (r < 0)
        goto fail;
    r = platform->ops->irq(platform, irq, &s->irq, err);
    if (r < 0)
        goto fail;
    r = platform->ops->map(platform, BUS_PIO, port, SERIAL_PORTS, &s->dev, 0, err);
    if (r < 0)
        goto fail;

    serial_reset(&s->dev);
    s->input_waits = true;
    s->console = console;
    console_set_device(console, &(struct console_device){.writable = serial_writable,
                                                         .readable = serial_readable,
                                                         .opaque = s,
                                                         .lock = &s->dev.lock});
    *ret_dev = &s->dev;
    return 0;

fail:
    serial_destroy(&s->dev);
    return r;
}
