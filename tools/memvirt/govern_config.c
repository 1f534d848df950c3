/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the governor is told to do; see govern_config.h. inih's ini.h.
 */
#include "govern_config.h"

#include <errno.h>
#include <getopt.h>
#include <ini.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vm/part.h"
#include "vm/say.h"
#include "vm/size.h"

#define INTERVAL_MIN_S	 0.1
#define INTERVAL_MAX_S	 3600
#define FLOOR_DEFAULT	 (64UL << 20)
#define IDLE_TAX_DEFAULT 0.75
#define IDLE_TAX_MAX	 0.99

#define WHY 256

/* Why a value cannot be; -1, so that it can be returned. */
__attribute__((format(printf, 2, 3))) static int because(char *why, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(why, WHY, format, args);
	va_end(args);
	return -1;
}

/* --- values ------------------------------------------------------------------------------- */

static int take_size(const char *text, uint64_t *bytes, char *why)
{
	int err = size_parse(text, bytes);

	if (err == -ERANGE)
		return because(why, "'%s' is too large", text);
	if (err)
		return because(why, "'%s' is no size; write 512M or 1.5G", text);
	if (*bytes < MV_POLICY_FLOOR_MIN)
		return because(why, "'%s' is below the least, 1M", text);
	return 0;
}

static int take_part(const char *text, double max, double *part, char *why)
{
	if (part_parse(text, max, part))
		return because(why, "'%s' is no part from 0 to %g%%", text, max * 100);
	return 0;
}

static int take_ppm(const char *text, uint32_t *ppm, char *why)
{
	double part;

	if (take_part(text, 1, &part, why))
		return -1;
	if (part * MV_POLICY_PPM < 1)
		return because(why, "'%s' is too little", text);
	*ppm = (uint32_t)(part * MV_POLICY_PPM);
	return 0;
}

static int take_text(const char *text, char *value, size_t room, char *why)
{
	if (!*text)
		return because(why, "is empty");
	if (strlen(text) >= room)
		return because(why, "'%s' is too long", text);
	strcpy(value, text);
	return 0;
}

/* --- settings of the host ----------------------------------------------------------------- */

static int take_budget(struct govern_config *c, const char *text, char *why)
{
	return take_size(text, &c->policy.budget_bytes, why);
}

static int take_floor(struct govern_config *c, const char *text, char *why)
{
	return take_size(text, &c->policy.floor_bytes, why);
}

static int take_interval(struct govern_config *c, const char *text, char *why)
{
	char *end;
	double value = strtod(text, &end);

	if (end == text || *end || !(value >= INTERVAL_MIN_S && value <= INTERVAL_MAX_S))
		return because(why, "'%s' is not from %g to %d seconds", text, INTERVAL_MIN_S,
			       INTERVAL_MAX_S);
	c->interval_s = value;
	return 0;
}

/* No VM publishes a curve, and without any that rule would be another under its name. */
static int take_rule(struct govern_config *c, const char *text, char *why)
{
	if (mv_policy_rule_parse(text, &c->policy.rule))
		return because(why, "'%s' is none of demand, shares, pressure", text);
	if (c->policy.rule == MV_POLICY_CURVE)
		return because(why, "'curve' needs miss-ratio curves, which no VM publishes yet; "
				    "'memvirt sim' has it");
	return 0;
}

static int take_idle_tax(struct govern_config *c, const char *text, char *why)
{
	return take_part(text, IDLE_TAX_MAX, &c->policy.idle_tax, why);
}

static int take_pressure_target(struct govern_config *c, const char *text, char *why)
{
	return take_ppm(text, &c->policy.pressure_target_ppm, why);
}

static int take_pressure_limit(struct govern_config *c, const char *text, char *why)
{
	return take_ppm(text, &c->policy.pressure_limit_ppm, why);
}

static int take_run_dir(struct govern_config *c, const char *text, char *why)
{
	return take_text(text, c->run_dir, sizeof(c->run_dir), why);
}

static int take_qmp_dir(struct govern_config *c, const char *text, char *why)
{
	return take_text(text, c->qmp_dir, sizeof(c->qmp_dir), why);
}

static int take_libvirt(struct govern_config *c, const char *text, char *why)
{
	return take_text(text, c->libvirt, sizeof(c->libvirt), why);
}

static int take_journal(struct govern_config *c, const char *text, char *why)
{
	return take_text(text, c->journal, sizeof(c->journal), why);
}

static int take_listen(struct govern_config *c, const char *text, char *why)
{
	return take_text(text, c->listen, sizeof(c->listen), why);
}

static int take_on_exit(struct govern_config *c, const char *text, char *why)
{
	static const char *const names[] = { "safe", "keep", "release" };

	for (unsigned int i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (strcmp(text, names[i]))
			continue;
		c->on_exit = (enum govern_exit)i;
		return 0;
	}
	return because(why, "'%s' is none of safe, keep, release", text);
}

/** struct setting - of the host: "key = value" in the file, "--key value" on the command line */
struct setting {
	const char *key;
	int (*take)(struct govern_config *config, const char *text, char *why);
};

static const struct setting settings[] = {
	{ "budget", take_budget },
	{ "floor", take_floor },
	{ "interval", take_interval },
	{ "rule", take_rule },
	{ "idle-tax", take_idle_tax },
	{ "pressure-target", take_pressure_target },
	{ "pressure-limit", take_pressure_limit },
	{ "run-dir", take_run_dir },
	{ "qmp-dir", take_qmp_dir },
	{ "libvirt", take_libvirt },
	{ "journal", take_journal },
	{ "listen", take_listen },
	{ "on-exit", take_on_exit },
};
#define SETTINGS (sizeof(settings) / sizeof(settings[0]))

static int take_setting(struct govern_config *config, const char *key, const char *text, char *why)
{
	for (unsigned int i = 0; i < SETTINGS; i++)
		if (!strcmp(settings[i].key, key))
			return settings[i].take(config, text, why);
	return because(why, "there is no such setting of the host; see memvirt-govern(1)");
}

/* --- settings of a VM --------------------------------------------------------------------- */

const struct govern_want *govern_config_want(const struct govern_config *config, const char *name)
{
	for (unsigned int i = 0; i < config->want_count; i++)
		if (!strcmp(config->wants[i].name, name))
			return &config->wants[i];
	return NULL;
}

/* The VM's own, made where there is none; NULL with a reason. */
static struct govern_want *want_of(struct govern_config *config, const char *name, char *why)
{
	struct govern_want *want = (struct govern_want *)govern_config_want(config, name);

	if (want)
		return want;
	if (strlen(name) > RUNDIR_NAME_MAX || !rundir_name_valid(name)) {
		because(why, "'%.80s' is no VM's name", name);
		return NULL;
	}
	want = realloc(config->wants, (config->want_count + 1) * sizeof(*want));
	if (!want) {
		because(why, "no memory");
		return NULL;
	}
	config->wants = want;
	want = &want[config->want_count++];
	*want = (struct govern_want){ .shares = MV_POLICY_SHARES_DEFAULT,
				      .max_bytes = MV_POLICY_UNLIMITED };
	strcpy(want->name, name);
	return want;
}

static int take_shares(struct govern_want *want, const char *text, char *why)
{
	char *end;
	unsigned long value = strtoul(text, &end, 10);

	if (*text < '0' || *text > '9' || *end || value < 1 || value > MV_POLICY_SHARES_MAX)
		return because(why, "'%s' is not from 1 to %d", text, MV_POLICY_SHARES_MAX);
	want->shares = (uint32_t)value;
	return 0;
}

static int take_vm_setting(struct govern_want *want, const char *key, const char *text, char *why)
{
	if (!strcmp(key, "shares"))
		return take_shares(want, text, why);
	if (!strcmp(key, "min"))
		return take_size(text, &want->min_bytes, why);
	if (!strcmp(key, "max"))
		return take_size(text, &want->max_bytes, why);
	if (!strcmp(key, "floor"))
		return take_size(text, &want->floor_bytes, why);
	if (!strcmp(key, "qmp"))
		return take_text(text, want->qmp, sizeof(want->qmp), why);
	return because(why, "a VM has shares, min, max, floor and qmp");
}

/* --- the file ----------------------------------------------------------------------------- */

/** struct reading - a file that is being read, and what is wrong with it first */
struct reading {
	struct govern_config *config;
	char where[WHY];
	char why[WHY];
};

static int take_line(struct reading *reading, const char *section, const char *key,
		     const char *text)
{
	struct govern_want *want;

	if (!strcmp(section, "host"))
		return take_setting(reading->config, key, text, reading->why);
	if (strncmp(section, "vm ", 3))
		return because(reading->why, "sections are [host] and [vm NAME]");
	want = want_of(reading->config, section + 3, reading->why);
	return want ? take_vm_setting(want, key, text, reading->why) : -1;
}

/* inih's handler: 1 for success. */
static int on_line(void *ctx, const char *section, const char *key, const char *text)
{
	struct reading *reading = ctx;

	/* It goes on after an error; the first one is told. */
	if (reading->where[0])
		return 0;
	if (!take_line(reading, section, key, text))
		return 1;
	snprintf(reading->where, sizeof(reading->where), "[%.80s] %.80s: ", section, key);
	return 0;
}

static int read_file(struct govern_config *config, const char *path)
{
	struct reading reading = { .config = config };
	int line = ini_parse(path, on_line, &reading);

	if (line == 0)
		return 0;
	if (line == -1)
		say("%s: %s", path, strerror(errno));
	else if (line < 0)
		say("%s: no memory", path);
	else if (reading.where[0])
		say("%s:%d: %s%s", path, line, reading.where, reading.why);
	else
		say("%s:%d: neither [SECTION] nor KEY = VALUE, or longer than 199 bytes", path,
		    line);
	return EXIT_USAGE;
}

/* --- the command line --------------------------------------------------------------------- */

enum {
	OPT_SETTING = 256, /* and the settings after it */
	OPT_CONFIG = OPT_SETTING + SETTINGS,
	OPT_ONCE,
	OPT_DRY_RUN,
	OPT_JSON,
	OPT_VERSION,
};

#define OPTIONS_OWN 6

static void make_options(struct option *options)
{
	const struct option own[OPTIONS_OWN + 1] = {
		{ "config", required_argument, NULL, OPT_CONFIG },
		{ "once", no_argument, NULL, OPT_ONCE },
		{ "dry-run", no_argument, NULL, OPT_DRY_RUN },
		{ "json", no_argument, NULL, OPT_JSON },
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, OPT_VERSION },
		{ NULL, 0, NULL, 0 },
	};

	for (unsigned int i = 0; i < SETTINGS; i++)
		options[i] = (struct option){ settings[i].key, required_argument, NULL,
					      OPT_SETTING + (int)i };
	memcpy(options + SETTINGS, own, sizeof(own));
}

static int take_option(int option, char **argv, struct govern_config *config)
{
	char why[WHY];

	switch (option) {
	case OPT_CONFIG:
		return 0; /* has been read */
	case OPT_ONCE:
		config->once = true;
		return 0;
	case OPT_DRY_RUN:
		config->dry_run = true;
		return 0;
	case OPT_JSON:
		config->json = true;
		return 0;
	}
	if (option < OPT_SETTING || option >= OPT_CONFIG)
		return say_bad_option("govern", argv, option);
	if (settings[option - OPT_SETTING].take(config, optarg, why))
		return say_usage("govern", "--%s: %s", settings[option - OPT_SETTING].key, why);
	return 0;
}

/* "web" or "web=/run/web.qmp" */
static int take_named(const char *text, struct govern_config *config)
{
	const char *equals = strchrnul(text, '=');
	char name[RUNDIR_NAME_MAX + 1] = "", why[WHY];
	struct govern_want *want;

	if (equals - text > RUNDIR_NAME_MAX)
		return say_usage("govern", "'%s': the name is too long", text);
	memcpy(name, text, (size_t)(equals - text));
	want = want_of(config, name, why);
	if (!want)
		return say_usage("govern", "%s", why);
	want->named = true;
	config->some_named = true;
	if (!*equals)
		return 0;
	if (!equals[1])
		return say_usage("govern", "'%s': no QMP path after the '='", text);
	if (strlen(equals + 1) >= sizeof(want->qmp))
		return say_usage("govern", "'%s': the path is too long for a socket", text);
	strcpy(want->qmp, equals + 1);
	return 0;
}

static int check(const struct govern_config *config)
{
	if (!config->policy.budget_bytes)
		return say_usage("govern", "--budget is needed: how much memory have the VMs?");
	if (config->policy.floor_bytes > config->policy.budget_bytes)
		return say_usage("govern", "--floor is above --budget");
	for (unsigned int i = 0; i < config->want_count; i++)
		if (config->wants[i].min_bytes > config->wants[i].max_bytes)
			return say_usage("govern", "VM %s: min is above max",
					 config->wants[i].name);
	return 0;
}

/* The file first, wherever on the command line it stands. */
static int read_files(int argc, char **argv, const struct option *options,
		      struct govern_config *config)
{
	int option, status = 0;

	optind = 0;
	opterr = 0;
	while (!status && (option = getopt_long(argc, argv, ":h", options, NULL)) != -1)
		if (option == OPT_CONFIG)
			status = read_file(config, optarg);
	return status;
}

static int read_arguments(int argc, char **argv, const struct option *options,
			  struct govern_config *config)
{
	int option, status = 0;

	optind = 0;
	while (!status && (option = getopt_long(argc, argv, ":h", options, NULL)) != -1)
		status = take_option(option, argv, config);
	for (int i = optind; !status && i < argc; i++)
		status = take_named(argv[i], config);
	return status;
}

int govern_config_read(int argc, char **argv, struct govern_config *config)
{
	struct option options[SETTINGS + OPTIONS_OWN + 1];
	int status;

	*config = (struct govern_config){
		.policy.floor_bytes = FLOOR_DEFAULT,
		.policy.idle_tax = IDLE_TAX_DEFAULT,
		.interval_s = 1,
	};
	make_options(options);
	status = read_files(argc, argv, options, config);
	if (!status)
		status = read_arguments(argc, argv, options, config);
	if (!status)
		status = check(config);
	config->policy.interval_ns = (uint64_t)(config->interval_s * 1e9);
	return status;
}

void govern_config_free(struct govern_config *config)
{
	free(config->wants);
	config->wants = NULL;
	config->want_count = 0;
}
