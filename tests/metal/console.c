/* SPDX-License-Identifier: BSD-2-Clause */
#include "console.h"

#include <stdarg.h>

#include "cpu.h"

#define PORT_CONSOLE	0xe9
#define PORT_QEMU_EXIT	0xf4   /* isa-debug-exit */
#define PORT_BOCHS_EXIT 0x8900 /* takes the word, letter by letter */

static void put(char c)
{
	port_write8(PORT_CONSOLE, (uint8_t)c);
}

static void put_text(const char *text)
{
	while (*text)
		put(*text++);
}

static void put_number(uint64_t value, unsigned int base)
{
	char digits[20];
	unsigned int n = 0;

	do {
		digits[n++] = "0123456789abcdef"[value % base];
		value /= base;
	} while (value);
	while (n)
		put(digits[--n]);
}

static void put_one(char kind, va_list *args)
{
	switch (kind) {
	case 's':
		put_text(va_arg(*args, const char *));
		break;
	case 'u':
		put_number(va_arg(*args, uint64_t), 10);
		break;
	case 'x':
		put_text("0x");
		put_number(va_arg(*args, uint64_t), 16);
		break;
	default:
		put(kind);
	}
}

static void put_all(const char *format, va_list *args)
{
	for (; *format; format++) {
		if (*format == '%' && format[1])
			put_one(*++format, args);
		else
			put(*format);
	}
}

void say(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	put_all(format, &args);
	va_end(args);
	put('\n');
}

void give_up(const char *format, ...)
{
	va_list args;

	put_text("bad: ");
	va_start(args, format);
	put_all(format, &args);
	va_end(args);
	put('\n');
	power_off();
}

void power_off(void)
{
	for (const char *letter = "Shutdown"; *letter; letter++)
		port_write8(PORT_BOCHS_EXIT, (uint8_t)*letter);
	port_write32(PORT_QEMU_EXIT, 0);
	for (;;)
		__asm__ volatile("cli; hlt");
}
