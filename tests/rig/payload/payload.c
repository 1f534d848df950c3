// SPDX-License-Identifier: BSD-2-Clause
/*
 * What minivmm runs where KVM is of the software kind and Linux cannot: a program for a bare
 * processor in 64-bit mode. It writes every page of its memory and finds it again, round by round,
 * says on the console how many were wrong, and resets the machine.
 */
#include <stdint.h>

#define CONSOLE	       0x3f8
#define KEYBOARD       0x64
#define KEYBOARD_RESET 0xfe

#define FIRST  0x400000UL
#define PAGE   4096UL
#define ROUNDS 4UL

void payload(uint64_t unused, uint64_t bytes);

/* The first of the image: rsi has the size of memory, rsp a stack. */
__asm__(".section .entry, \"ax\"\n"
	"	jmp payload\n"
	".text\n");

static void out(uint16_t port, uint8_t value)
{
	__asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static void say(const char *text)
{
	while (*text)
		out(CONSOLE, (uint8_t)*text++);
}

static void say_number(uint64_t number)
{
	char digits[20];
	unsigned int count = 0;

	do
		digits[count++] = (char)('0' + number % 10);
	while (number /= 10);
	while (count)
		out(CONSOLE, (uint8_t)digits[--count]);
}

/* Not at the same place of each page, so that no two pages look alike. */
static uint64_t *word_of(uint64_t page)
{
	return (uint64_t *)(page + (page * 0x9e3779b97f4a7c15UL >> 52 & ~7UL));
}

static uint64_t tag(uint64_t page, uint64_t round)
{
	return (page ^ round << 56) * 0xd6e8feb86659fd93UL;
}

void payload(uint64_t unused, uint64_t bytes)
{
	uint64_t wrong = 0, pages = 0;

	(void)unused;
	for (uint64_t round = 0; round <= ROUNDS; round++)
		for (uint64_t page = FIRST; page < bytes; page += PAGE) {
			if (round)
				wrong += *word_of(page) != tag(page, round - 1);
			*word_of(page) = tag(page, round);
			pages++;
		}
	say("payload: pages=");
	say_number(pages);
	say(" wrong=");
	say_number(wrong);
	say("\n");
	for (;;)
		out(KEYBOARD, KEYBOARD_RESET);
}
