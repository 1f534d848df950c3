/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Worlds by chance, accesses in each, and whether the processor does what the library says.
 *
 * What is printed, a line each: "model: NAME", "features: MASK", "count: WHAT N" for each thing
 * that was met, "mismatch: …" with what was expected and what came, "bad: …" where there was
 * no going on, and "done: WORLDS ACCESSES MISMATCHES" at the end.
 */
#include <stddef.h>

#include "bare.h"
#include "console.h"
#include "cpu.h"
#include "layout.h"
#include "quirks.h"
#include "rounds.h"
#include "stamp.h"
#include "world.h"

/* Written into the image by who starts it. */
struct metal_parameters {
	uint64_t magic, seed, worlds, flags, first_world;
};

_Static_assert(offsetof(struct metal_parameters, flags) == PARAMETER_FLAGS, "boot.S reads it");

void metal_main(void);
extern const char guest_code[], guest_code_end[];

/* Where nobody has written anything, it is one short run. */
const volatile struct metal_parameters metal_parameters
	__attribute__((section(".parameters"), used)) = { PARAMETERS_MAGIC, 1, 100, 0, 0 };

static void place_guest_code(void)
{
	char *to = (char *)GUEST_CODE;

	for (const char *from = guest_code; from < guest_code_end; from++)
		*to++ = *from;
}

static const struct machine *start_machine(void)
{
	if (machine_vmx.start())
		return &machine_vmx;
	if (machine_svm.start())
		return &machine_svm;
	give_up("the processor has neither VMX nor SVM");
}

/* What the parameters ask for, on what there is. */
static const struct machine *choose_machine(void)
{
	const struct machine *below = start_machine();

	if (!(metal_parameters.flags & FLAG_SHADOW))
		return below;
	machine_shadow_start(below);
	return &machine_shadow;
}

static void tell_cpu(const struct machine *machine)
{
	say("model: %s", machine->name);
	say("features: %x", (uint64_t)machine->features);
	say("physical-bits: %u", (uint64_t)cpuid(0x80000008, 0).eax & 0xff);
	say("host-levels: %u", cr4_read() & CR4_LA57 ? 5ul : 4ul);
}

void metal_main(void)
{
	static struct tally tally;
	const struct machine *machine;
	uint64_t seed = metal_parameters.seed, first = metal_parameters.first_world;

	bare_catch_exceptions();
	if (cpuid(7, 0).ecx & 1u << 3)
		cr4_write(cr4_read() | CR4_PKE);
	machine = choose_machine();
	tell_cpu(machine);
	place_guest_code();
	stamp_all();
	for (uint64_t number = first; number < first + metal_parameters.worlds; number++)
		run_world(machine, seed, number, &tally);
	stamp_check();
	tally_say(&tally);
	for (unsigned int i = 0; i < QUIRKS; i++)
		say("count: quirk %s %u", quirk_name[i], quirk_count[i]);
	if (machine->shadow)
		machine_shadow_say();
	say("done: %u %u %u", (uint64_t)metal_parameters.worlds, tally.accesses, tally.mismatches);
	power_off();
}
