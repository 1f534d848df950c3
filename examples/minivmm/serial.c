/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The console: a 16550, as far as Linux's driver uses one. What the guest writes goes to standard
 * output; standard input is typed there.
 */
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

#include "minivmm.h"

/* Registers, by their offset. */
enum { DATA, IER, IIR, LCR, MCR, LSR, MSR, SCR };

#define IER_RECEIVED 0x01
#define IER_SENT     0x02
#define IIR_NONE     0x01
#define IIR_SENT     0x02
#define IIR_RECEIVED 0x04
#define LCR_DIVISOR  0x80
#define MCR_LOOP     0x10
#define LSR_RECEIVED 0x01
#define LSR_EMPTY    0x60
#define MSR_READY    0xb0

static bool has_input(const struct serial *serial)
{
	return serial->input_head != serial->input_tail;
}

static uint8_t reason(const struct serial *serial)
{
	if ((serial->ier & IER_RECEIVED) && has_input(serial))
		return IIR_RECEIVED;
	if ((serial->ier & IER_SENT) && serial->sent)
		return IIR_SENT;
	return IIR_NONE;
}

static void interrupt(struct serial *serial)
{
	if (reason(serial) != IIR_NONE)
		pulse(serial->vm, SERIAL_GSI);
}

static uint8_t take_input(struct serial *serial)
{
	uint8_t value;

	if (!has_input(serial))
		return 0;
	value = serial->input[serial->input_head++ % sizeof(serial->input)];
	interrupt(serial);
	return value;
}

static uint8_t take_reason(struct serial *serial)
{
	uint8_t why = reason(serial);

	if (why == IIR_SENT)
		serial->sent = false;
	return why;
}

static uint8_t read_locked(struct serial *serial, unsigned int offset)
{
	switch (offset) {
	case DATA:
		return serial->lcr & LCR_DIVISOR ? serial->divisor[0] : take_input(serial);
	case IER:
		return serial->lcr & LCR_DIVISOR ? serial->divisor[1] : serial->ier;
	case IIR:
		return take_reason(serial);
	case LCR:
		return serial->lcr;
	case MCR:
		return serial->mcr;
	case LSR:
		return LSR_EMPTY | (has_input(serial) ? LSR_RECEIVED : 0);
	case MSR:
		return serial->mcr & MCR_LOOP ? (uint8_t)(serial->mcr << 4) : MSR_READY;
	default:
		return serial->scratch;
	}
}

static void send(struct serial *serial, uint8_t value)
{
	if (serial->mcr & MCR_LOOP)
		return;
	putchar(value);
	fflush(stdout);
	serial->sent = true;
	interrupt(serial);
}

static void write_locked(struct serial *serial, unsigned int offset, uint8_t value)
{
	if ((serial->lcr & LCR_DIVISOR) && offset <= IER) {
		serial->divisor[offset] = value;
		return;
	}
	switch (offset) {
	case DATA:
		send(serial, value);
		break;
	case IER:
		serial->sent = serial->sent || (value & ~serial->ier & IER_SENT);
		serial->ier = value & 0xf;
		interrupt(serial);
		break;
	case LCR:
		serial->lcr = value;
		break;
	case MCR:
		serial->mcr = value & 0x1f;
		break;
	case SCR:
		serial->scratch = value;
		break;
	}
}

uint8_t serial_read(struct serial *serial, unsigned int offset)
{
	uint8_t value;

	pthread_mutex_lock(&serial->lock);
	value = read_locked(serial, offset);
	pthread_mutex_unlock(&serial->lock);
	return value;
}

void serial_write(struct serial *serial, unsigned int offset, uint8_t value)
{
	pthread_mutex_lock(&serial->lock);
	write_locked(serial, offset, value);
	pthread_mutex_unlock(&serial->lock);
}

/* Return: whether there was room. */
static bool type(struct serial *serial, unsigned char value)
{
	bool room;

	pthread_mutex_lock(&serial->lock);
	room = serial->input_tail - serial->input_head < sizeof(serial->input);
	if (room) {
		serial->input[serial->input_tail++ % sizeof(serial->input)] = value;
		interrupt(serial);
	}
	pthread_mutex_unlock(&serial->lock);
	return room;
}

/* Ends with standard input; the process does not wait for it. */
static void *read_input(void *arg)
{
	struct serial *serial = arg;
	unsigned char value;

	while (read(STDIN_FILENO, &value, 1) == 1)
		while (!type(serial, value))
			poll(NULL, 0, 10);
	return NULL;
}

void serial_create(struct serial *serial, int vm)
{
	serial->vm = vm;
	pthread_mutex_init(&serial->lock, NULL);
	must(-pthread_create(&serial->reader, NULL, read_input, serial), "pthread_create");
	pthread_detach(serial->reader);
}
