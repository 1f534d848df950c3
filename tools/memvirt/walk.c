/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * memvirt walk: the command line, and the order of things; see walk.h.
 */
#include "memvirt/walk.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <stdio_ext.h>
#include <stdlib.h>
#include <string.h>

#include <memvirt/version.h>

#include "commands.h"
#include "vm/say.h"

static void print_help(void)
{
	printf("Usage: memvirt walk [OPTIONS] VM ADDRESS...\n"
	       "       memvirt walk [OPTIONS] --qmp SOCKET [--ram FILE] ADDRESS...\n"
	       "       memvirt walk [OPTIONS] VM --map [FIRST LAST]\n"
	       "Translate a running guest's addresses, and show each entry on the way.\n"
	       "\n"
	       "VM is a name, as memstat shows it, or the path of a control socket. ADDRESS is\n"
	       "hexadecimal, with or without 0x; '-' reads addresses from standard input.\n"
	       "\n"
	       "  --qmp SOCKET      any QEMU, by its monitor, instead of VM\n"
	       "  --ram FILE        what is behind its RAM; found out if not given\n"
	       "  --cpu N           whose registers; 0\n"
	       "  --cr3 VALUE       another address space; also --cr0, --cr4, --efer, --pkru\n"
	       "  --gpa             addresses are guest-physical\n"
	       "  --access r|w|x    check the rights for a read, a write, a fetch\n"
	       "  --user            ... by user mode\n"
	       "  --stage2          show where the memory is, and the entries of --eptp, --ncr3\n"
	       "  --eptp VALUE      through a guest hypervisor's EPT too, for its own guests\n"
	       "  --ncr3 VALUE      the same through AMD's nested paging\n"
	       "  --levels 4|5      of --ncr3; 4\n"
	       "  --map             all mappings; neighbours mapped alike are one line\n"
	       "  --leaves          ... one line for each\n"
	       "  --limit N         ... at most so many lines\n"
	       "  --json            for programs; see docs/walk-json.md\n"
	       "  --run-dir DIR     where VMs are found by name; see memvirt-run(1)\n"
	       "  --help, --version\n"
	       "\n"
	       "Nothing in the VM is changed, and nothing stops: 'stop' in QEMU's monitor makes\n"
	       "a guest hold still. The status is 1 where an address is not mapped.\n"
	       "\n"
	       "Examples:\n"
	       "  memvirt walk web ffffffff81000000\n"
	       "  memvirt walk --access w --user web 0x7f1200000000\n"
	       "  memvirt walk --qmp /run/vm.qmp --map --limit 20\n");
}

/* --- options ------------------------------------------------------------------------------ */

/* Hexadecimal, with or without 0x, and nothing else. */
static bool parse_hex(const char *text, uint64_t *value)
{
	unsigned long long number;
	char *end;

	if (text[0] == '0' && (text[1] == 'x' || text[1] == 'X'))
		text += 2;
	if (!isxdigit((unsigned char)text[0]) || strlen(text) > 16)
		return false;
	number = strtoull(text, &end, 16);
	if (*end)
		return false;
	*value = number;
	return true;
}

static int take_hex(const char *what, const char *text, uint64_t *value)
{
	return parse_hex(text, value)
		       ? 0
		       : say_usage("walk", "%s: '%s' is no hexadecimal number", what, text);
}

static int take_count(const char *what, const char *text, uint64_t most, uint64_t *value)
{
	unsigned long long number;
	char *end;

	errno = 0;
	number = strtoull(text, &end, 10);
	if (errno || *end || !isdigit((unsigned char)text[0]) || number > most)
		return say_usage("walk", "%s: '%s' is no number that can be", what, text);
	*value = number;
	return 0;
}

static int take_register(enum walk_register which, const char *what, const char *text,
			 struct walk_options *options)
{
	options->given |= 1u << which;
	return take_hex(what, text, &options->value[which]);
}

static int take_second(enum walk_second second, const char *what, const char *text,
		       struct walk_options *options)
{
	if (options->second != WALK_NO_SECOND && options->second != second)
		return say_usage("walk", "--eptp and --ncr3: one guest has one second stage");
	options->second = second;
	return take_hex(what, text, &options->second_root);
}

static int take_access(const char *text, struct walk_options *options)
{
	static const struct {
		const char *name;
		unsigned int access;
	} kinds[] = {
		{ "r", MV_ACCESS_READ },
		{ "w", MV_ACCESS_WRITE },
		{ "x", MV_ACCESS_FETCH },
	};

	for (unsigned int i = 0; i < 3; i++)
		if (!strcmp(text, kinds[i].name)) {
			options->access &= MV_ACCESS_USER;
			options->access |= kinds[i].access;
			return 0;
		}
	return say_usage("walk", "--access: '%s' is not r, w or x", text);
}

static int take_cpu(const char *text, struct walk_options *options)
{
	uint64_t cpu;
	int status = take_count("--cpu", text, INT32_MAX, &cpu);

	if (!status)
		options->cpu = (unsigned int)cpu;
	return status;
}

static int take_levels(const char *text, struct walk_options *options)
{
	if (strcmp(text, "4") && strcmp(text, "5"))
		return say_usage("walk", "--levels: '%s' is not 4 or 5", text);
	options->second_levels = (unsigned int)(text[0] - '0');
	return 0;
}

enum {
	OPT_QMP = 256,
	OPT_RAM,
	OPT_RUN_DIR,
	OPT_CPU,
	OPT_CR0,
	OPT_CR3,
	OPT_CR4,
	OPT_EFER,
	OPT_PKRU,
	OPT_GPA,
	OPT_ACCESS,
	OPT_USER,
	OPT_STAGE2,
	OPT_EPTP,
	OPT_NCR3,
	OPT_LEVELS,
	OPT_MAP,
	OPT_LEAVES,
	OPT_LIMIT,
	OPT_JSON,
	OPT_VERSION,
};

static const struct option long_options[] = {
	{ "qmp", required_argument, NULL, OPT_QMP },
	{ "ram", required_argument, NULL, OPT_RAM },
	{ "run-dir", required_argument, NULL, OPT_RUN_DIR },
	{ "cpu", required_argument, NULL, OPT_CPU },
	{ "cr0", required_argument, NULL, OPT_CR0 },
	{ "cr3", required_argument, NULL, OPT_CR3 },
	{ "cr4", required_argument, NULL, OPT_CR4 },
	{ "efer", required_argument, NULL, OPT_EFER },
	{ "pkru", required_argument, NULL, OPT_PKRU },
	{ "gpa", no_argument, NULL, OPT_GPA },
	{ "access", required_argument, NULL, OPT_ACCESS },
	{ "user", no_argument, NULL, OPT_USER },
	{ "stage2", no_argument, NULL, OPT_STAGE2 },
	{ "eptp", required_argument, NULL, OPT_EPTP },
	{ "ncr3", required_argument, NULL, OPT_NCR3 },
	{ "levels", required_argument, NULL, OPT_LEVELS },
	{ "map", no_argument, NULL, OPT_MAP },
	{ "leaves", no_argument, NULL, OPT_LEAVES },
	{ "limit", required_argument, NULL, OPT_LIMIT },
	{ "json", no_argument, NULL, OPT_JSON },
	{ "help", no_argument, NULL, 'h' },
	{ "version", no_argument, NULL, OPT_VERSION },
	{ NULL, 0, NULL, 0 },
};

/* Those with a value. */
static int take_valued(int option, char **argv, struct walk_options *options)
{
	switch (option) {
	case OPT_QMP:
		options->qmp = optarg;
		return 0;
	case OPT_RAM:
		options->ram = optarg;
		return 0;
	case OPT_RUN_DIR:
		options->run_dir = optarg;
		return 0;
	case OPT_CPU:
		return take_cpu(optarg, options);
	case OPT_CR0:
		return take_register(WALK_CR0, "--cr0", optarg, options);
	case OPT_CR3:
		return take_register(WALK_CR3, "--cr3", optarg, options);
	case OPT_CR4:
		return take_register(WALK_CR4, "--cr4", optarg, options);
	case OPT_EFER:
		return take_register(WALK_EFER, "--efer", optarg, options);
	case OPT_PKRU:
		return take_register(WALK_PKRU, "--pkru", optarg, options);
	case OPT_ACCESS:
		return take_access(optarg, options);
	case OPT_EPTP:
		return take_second(WALK_EPT, "--eptp", optarg, options);
	case OPT_NCR3:
		return take_second(WALK_NPT, "--ncr3", optarg, options);
	case OPT_LEVELS:
		return take_levels(optarg, options);
	case OPT_LIMIT:
		return take_count("--limit", optarg, UINT64_MAX - 1, &options->limit);
	}
	return say_bad_option("walk", argv, option);
}

static int take_option(int option, char **argv, struct walk_options *options)
{
	switch (option) {
	case OPT_GPA:
		options->gpa = true;
		return 0;
	case OPT_USER:
		options->access |= MV_ACCESS_USER;
		return 0;
	case OPT_STAGE2:
		options->stage2 = true;
		return 0;
	case OPT_MAP:
		options->map = true;
		return 0;
	case OPT_LEAVES:
		options->leaves = true;
		return 0;
	case OPT_JSON:
		options->json = true;
		return 0;
	}
	return take_valued(option, argv, options);
}

/* Options that make no sense together. @count: of addresses. */
static int check_options(const struct walk_options *options, int count)
{
	if (options->ram && !options->qmp)
		return say_usage("walk", "--ram goes with --qmp");
	if (options->leaves && !options->map)
		return say_usage("walk", "--leaves goes with --map");
	if (options->map && (options->gpa || options->access))
		return say_usage("walk", "--map goes with neither --gpa nor --access");
	if (options->map && count != 0 && count != 2)
		return say_usage("walk", "--map takes no address, or the first and the last");
	if (!options->map && count == 0)
		return say_usage("walk", "which address?");
	if ((options->access & MV_ACCESS_USER) && options->access == MV_ACCESS_USER)
		return say_usage("walk", "--user goes with --access");
	return 0;
}

/* --- what is asked for -------------------------------------------------------------------- */

/** struct job - addresses on their way through */
struct job {
	const struct walk_options *options;
	struct walk_space *space;
	struct walk_printer *printer;
	bool unmapped;
};

static int translate(struct job *job, uint64_t address)
{
	struct walk_result result;

	if (walk_space_translate(job->space, job->options, address, &result))
		return EXIT_FAILURE;
	job->printer->output->result(job->printer, &result);
	job->printer->printed++;
	if (result.outcome != WALK_OK)
		job->unmapped = true;
	return EXIT_SUCCESS;
}

static int translate_input(struct job *job)
{
	char *line = NULL, *save, *word;
	int status = EXIT_SUCCESS;
	size_t room = 0;
	uint64_t address;

	while (status == EXIT_SUCCESS && getline(&line, &room, stdin) > 0)
		for (word = strtok_r(line, " \t\r\n", &save); word && status == EXIT_SUCCESS;
		     word = strtok_r(NULL, " \t\r\n", &save))
			status = parse_hex(word, &address)
					 ? translate(job, address)
					 : say_usage("walk", "standard input: '%s' is no address",
						     word);
	free(line);
	return status;
}

static int translate_all(struct job *job, char **words, int count)
{
	int status = EXIT_SUCCESS;
	uint64_t address;

	for (int i = 0; i < count && status == EXIT_SUCCESS; i++) {
		if (!strcmp(words[i], "-"))
			status = translate_input(job);
		else if (parse_hex(words[i], &address))
			status = translate(job, address);
	}
	if (status == EXIT_SUCCESS && job->unmapped)
		status = EXIT_FAILURE;
	return status;
}

static void print_stretch(void *ctx, const struct walk_stretch *stretch)
{
	struct walk_printer *printer = ctx;

	printer->output->stretch(printer, stretch);
	printer->printed++;
}

static int map_all(struct job *job, char **words, int count, bool *cut)
{
	uint64_t first = 0, last = UINT64_MAX;
	int result;

	if (count == 2) {
		parse_hex(words[0], &first);
		parse_hex(words[1], &last);
	}
	result = walk_map(job->space, job->options, first, last, print_stretch, job->printer);
	*cut = result == 1;
	if (*cut && !job->options->json)
		say("there is more: --limit ended it");
	return result < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

static int look(const struct walk_options *options, struct walk_vm *vm, char **words, int count)
{
	struct walk_space space;
	struct walk_printer printer = {
		.file = stdout,
		.output = options->json ? &walk_json : &walk_text,
		.options = options,
		.vm = vm,
		.space = &space,
	};
	struct job job = { options, &space, &printer, false };
	bool cut = false;
	int status;

	if (walk_space_open(&space, vm, options))
		return EXIT_FAILURE;
	printer.output->begin(&printer);
	status = options->map ? map_all(&job, words, count, &cut)
			      : translate_all(&job, words, count);
	printer.output->end(&printer, cut);
	return status;
}

static int check_addresses(char **words, int count, const struct walk_options *options)
{
	uint64_t address;

	for (int i = 0; i < count; i++)
		if (!parse_hex(words[i], &address) && (options->map || strcmp(words[i], "-")))
			return say_usage("walk", "'%s' is no address: write it in hexadecimal",
					 words[i]);
	return 0;
}

static int walk(struct walk_options *options, char **words, int count)
{
	struct walk_vm vm;
	int status;

	if (!options->qmp) {
		if (!count)
			return say_usage("walk", "which VM? A name, or --qmp SOCKET");
		options->vm = *words++;
		count--;
	}
	status = check_options(options, count);
	if (!status)
		status = check_addresses(words, count, options);
	if (status)
		return status;
	if (walk_vm_open(options, &vm))
		return EXIT_FAILURE;
	status = look(options, &vm, words, count);
	walk_vm_close(&vm);
	return status;
}

int command_walk(int argc, char **argv)
{
	struct walk_options options = { .limit = UINT64_MAX, .second_levels = 4 };
	int option, status;

	opterr = 0;
	while ((option = getopt_long(argc, argv, ":h", long_options, NULL)) != -1) {
		if (option == 'h') {
			print_help();
			return EXIT_SUCCESS;
		}
		if (option == OPT_VERSION) {
			printf("memvirt %s\n", mv_version());
			return EXIT_SUCCESS;
		}
		status = take_option(option, argv, &options);
		if (status)
			return status;
	}
	/* One thread writes, and much. */
	__fsetlocking(stdout, FSETLOCKING_BYCALLER);
	return walk(&options, argv + optind, argc - optind);
}
