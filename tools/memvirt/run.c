/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * memvirt run: check, prepare the environment, become the VMM. What happens then is the
 * preload library's business (preload/).
 */
#include "commands.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <memvirt/version.h>

#include "run_qemu.h"
#include "run_vmm.h"
#include "vm/rundir.h"
#include "vm/say.h"
#include "vm/size.h"

#define LIMIT_MIN (1UL << 20) /* mv_pager_set_limit() */

/** struct run_config - what the user asked for; texts are NULL, sizes 0 where he did not */
struct run_config {
	const char *name;
	const char *qmp;
	const char *run_dir;
	uint64_t limit_bytes;
	uint64_t store_limit_bytes;
	bool verbose;
};

/** struct run_plan - what was made of it; texts to be handed on in the environment */
struct run_plan {
	char vmm[PATH_MAX];
	char preload[PATH_MAX];
	char run_dir[RUNDIR_PATH_MAX];
	char qmp[RUNDIR_PATH_MAX];
	char name[RUNDIR_NAME_MAX + 1];
};

static void print_help(void)
{
	printf("Usage: memvirt run [OPTIONS] -- VMM [ARGUMENTS]\n"
	       "Start a VMM and manage its guest's memory from inside its process.\n"
	       "\n"
	       "  --name NAME         the VM's name; else that of QEMU's -name, else the\n"
	       "                      program's and the process id\n"
	       "  --limit SIZE        resident limit, at least 1M; none if not given\n"
	       "  --store-limit SIZE  bound on the memory for compressed pages\n"
	       "  --qmp PATH          QMP socket for the governor; else QEMU's own -qmp or\n"
	       "                      -mon with a unix socket\n"
	       "  --run-dir DIR       where the control socket and the statistics go; else\n"
	       "                      $MEMVIRT_RUN_DIR, else /run/memvirt for root, else\n"
	       "                      $XDG_RUNTIME_DIR/memvirt\n"
	       "  --verbose           say what is found and done\n"
	       "  --help, --version\n"
	       "\n"
	       "SIZE is in bytes or with K, M, G, T: 512M, 1.5G. The process becomes the VMM:\n"
	       "same process id, same standard input and output, its exit status.\n"
	       "\n"
	       "Examples:\n"
	       "  memvirt run --limit 384M -- qemu-system-x86_64 -m 512 disk.img\n"
	       "  memvirt run --name web --limit 1.5G -- qemu-system-x86_64 -m 2G \\\n"
	       "      -device virtio-balloon-pci -qmp unix:/run/web.qmp,server=on,wait=off\n"
	       "\n"
	       "A link to memvirt named memvirt-qemu-system-x86_64 acts as that program under\n"
	       "memvirt, for libvirt's <emulator>; see memvirt-run(1).\n");
}

/* --- options ------------------------------------------------------------------------------ */

static int take_size(const char *what, const char *text, uint64_t *bytes)
{
	uint64_t size;
	int err = size_parse(text, &size);

	if (err == -ERANGE)
		return say_usage("run", "%s: '%s' is too large", what, text);
	if (err)
		return say_usage("run", "%s: '%s' is no size; write 512M or 1.5G", what, text);
	if (size < LIMIT_MIN)
		return say_usage("run", "%s: '%s' is below the least, 1M", what, text);
	*bytes = size;
	return 0;
}

static int take_name(const char *what, const char *name, struct run_config *config)
{
	if (!rundir_name_valid(name))
		return say_usage("run",
				 "%s: '%s' is no name: 1 to %d of A-Z a-z 0-9 . _ -, the "
				 "first neither . nor -",
				 what, name, RUNDIR_NAME_MAX);
	config->name = name;
	return 0;
}

enum { OPT_NAME = 256, OPT_LIMIT, OPT_STORE_LIMIT, OPT_QMP, OPT_RUN_DIR, OPT_VERBOSE, OPT_VERSION };

static const struct option options[] = {
	{ "name", required_argument, NULL, OPT_NAME },
	{ "limit", required_argument, NULL, OPT_LIMIT },
	{ "store-limit", required_argument, NULL, OPT_STORE_LIMIT },
	{ "qmp", required_argument, NULL, OPT_QMP },
	{ "run-dir", required_argument, NULL, OPT_RUN_DIR },
	{ "verbose", no_argument, NULL, OPT_VERBOSE },
	{ "help", no_argument, NULL, 'h' },
	{ "version", no_argument, NULL, OPT_VERSION },
	{ NULL, 0, NULL, 0 },
};

static int take_text(const char *what, const char *text, const char **value)
{
	if (!*text)
		return say_usage("run", "%s: is empty", what);
	*value = text;
	return 0;
}

static int take_option(int option, char **argv, struct run_config *config)
{
	switch (option) {
	case OPT_NAME:
		return take_name("--name", optarg, config);
	case OPT_LIMIT:
		return take_size("--limit", optarg, &config->limit_bytes);
	case OPT_STORE_LIMIT:
		return take_size("--store-limit", optarg, &config->store_limit_bytes);
	case OPT_QMP:
		return take_text("--qmp", optarg, &config->qmp);
	case OPT_RUN_DIR:
		return take_text("--run-dir", optarg, &config->run_dir);
	case OPT_VERBOSE:
		config->verbose = true;
		return 0;
	}
	return say_bad_option("run", argv, option);
}

/* The environment says what the command line of a link (memvirt-PROGRAM) cannot. */
static int take_environment(struct run_config *config)
{
	const char *name = getenv("MEMVIRT_NAME");
	const char *limit = getenv("MEMVIRT_LIMIT");
	const char *store_limit = getenv("MEMVIRT_STORE_LIMIT");
	const char *verbose = getenv("MEMVIRT_VERBOSE");
	int status = 0;

	if (name && *name)
		status = take_name("MEMVIRT_NAME", name, config);
	if (!status && limit && *limit)
		status = take_size("MEMVIRT_LIMIT", limit, &config->limit_bytes);
	if (!status && store_limit && *store_limit)
		status = take_size("MEMVIRT_STORE_LIMIT", store_limit, &config->store_limit_bytes);
	config->qmp = getenv("MEMVIRT_QMP");
	if (config->qmp && !*config->qmp)
		config->qmp = NULL;
	config->verbose = verbose && *verbose && strcmp(verbose, "0");
	return status;
}

/* --- the plan ----------------------------------------------------------------------------- */

/* A name made from what somebody else chose: what may not be in it becomes '_'. */
static void make_valid(char *name)
{
	char one[2] = "";

	if (name[0] == '.' || name[0] == '-' || !name[0])
		name[0] = '_';
	for (; *name; name++) {
		one[0] = *name;
		if (*name != '.' && *name != '-' && !rundir_name_valid(one))
			*name = '_';
	}
}

static void choose_name(const struct run_config *config, char **vmm_argv, struct run_plan *plan)
{
	const char *slash = strrchr(plan->vmm, '/');
	const char *base = slash ? slash + 1 : plan->vmm;

	if (config->name)
		snprintf(plan->name, sizeof(plan->name), "%s", config->name);
	else if (!run_qemu_name(vmm_argv + 1, plan->name, sizeof(plan->name)))
		snprintf(plan->name, sizeof(plan->name), "%.48s-%d", base, (int)getpid());
	make_valid(plan->name);
}

static bool socket_is_live(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return false;
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
	/* EAGAIN: it listens, with a full queue. */
	bool live = !connect(fd, (struct sockaddr *)&addr, sizeof(addr)) || errno == EAGAIN;
	close(fd);
	return live;
}

static int prepare_run_dir(const struct run_config *config, struct run_plan *plan)
{
	char path[RUNDIR_PATH_MAX];
	int err = rundir_choose(config->run_dir, plan->run_dir);

	if (err == -ENOENT) {
		say("no run directory: set XDG_RUNTIME_DIR or MEMVIRT_RUN_DIR, or give --run-dir");
		return -1;
	}
	if (!err)
		err = rundir_path(plan->run_dir, plan->name, RUNDIR_STATS, path);
	if (err) {
		say("run directory: %s: choose one with a shorter path", strerror(-err));
		return -1;
	}
	err = rundir_create(plan->run_dir);
	if (err == -EPERM)
		say("run directory %s belongs to somebody else, or others may write to it: "
		    "give your own with --run-dir",
		    plan->run_dir);
	else if (err)
		say("run directory %s: %s", plan->run_dir, strerror(-err));
	return err ? -1 : 0;
}

static int check_name_free(const struct run_plan *plan)
{
	char path[RUNDIR_PATH_MAX];

	if (rundir_path(plan->run_dir, plan->name, RUNDIR_SOCKET, path) || !socket_is_live(path))
		return 0;
	say("a VM named '%s' is running already: give this one another name with --name",
	    plan->name);
	return -1;
}

static int choose_qmp(const struct run_config *config, char **vmm_argv, struct run_plan *plan)
{
	char given[RUNDIR_PATH_MAX] = "";

	if (config->qmp) {
		if (strlen(config->qmp) >= sizeof(given)) {
			say("--qmp: the path is too long for a socket");
			return -1;
		}
		strcpy(given, config->qmp);
	} else {
		run_qemu_qmp(vmm_argv + 1, given, sizeof(given));
	}
	plan->qmp[0] = '\0';
	if (given[0] && rundir_absolute(given, plan->qmp)) {
		say("QMP socket %s: its full path is too long for a socket", given);
		return -1;
	}
	return 0;
}

/* The preload library lies beside the program: in the build tree and where it is installed. */
static int find_preload(struct run_plan *plan)
{
	static const char *const dirs[] = { "lib", "lib64", "lib/x86_64-linux-gnu" };
	char self[PATH_MAX];
	ssize_t len = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (len < 0) {
		say("cannot read /proc/self/exe: %s: is /proc mounted?", strerror(errno));
		return -1;
	}
	self[len] = '\0';
	const char *prefix = dirname(dirname(self));
	for (size_t i = 0; i < sizeof(dirs) / sizeof(dirs[0]); i++) {
		int used = snprintf(plan->preload, sizeof(plan->preload),
				    "%s/%s/memvirt/libmemvirt-preload.so", prefix, dirs[i]);

		if (used < (int)sizeof(plan->preload) && !access(plan->preload, R_OK))
			goto found;
	}
	say("cannot find lib/memvirt/libmemvirt-preload.so under %s: install memvirt whole",
	    prefix);
	return -1;

found:
	if (!strpbrk(plan->preload, " :"))
		return 0;
	say("%s: LD_PRELOAD takes no path with a space or colon: install memvirt elsewhere",
	    plan->preload);
	return -1;
}

/* --- becoming the VMM --------------------------------------------------------------------- */

static int set_size(const char *variable, uint64_t bytes)
{
	char text[32] = "";

	if (bytes)
		snprintf(text, sizeof(text), "%llu", (unsigned long long)bytes);
	return setenv(variable, text, 1);
}

/* By this the preload library tells the VMM from its children. */
static int set_process(void)
{
	char text[16];

	snprintf(text, sizeof(text), "%d", (int)getpid());
	return setenv("MEMVIRT_PROCESS", text, 1);
}

static int set_preload(const char *path)
{
	const char *others = getenv("LD_PRELOAD");
	char *value;

	if (!others || !*others)
		return setenv("LD_PRELOAD", path, 1);
	if (asprintf(&value, "%s:%s", path, others) < 0)
		return -1;
	int result = setenv("LD_PRELOAD", value, 1);
	free(value);
	return result;
}

static int set_environment(const struct run_config *config, const struct run_plan *plan)
{
	return set_preload(plan->preload) || setenv("MEMVIRT_NAME", plan->name, 1) ||
	       set_size("MEMVIRT_LIMIT", config->limit_bytes) ||
	       set_size("MEMVIRT_STORE_LIMIT", config->store_limit_bytes) ||
	       setenv("MEMVIRT_QMP", plan->qmp, 1) || setenv("MEMVIRT_RUN_DIR", plan->run_dir, 1) ||
	       setenv("MEMVIRT_VERBOSE", config->verbose ? "1" : "", 1) || set_process();
}

static int become(const char *path, char **argv)
{
	execv(path, argv);
	say("cannot run %s: %s", path, strerror(errno));
	return EXIT_FAILURE;
}

static int start(const struct run_config *config, char **vmm_argv)
{
	struct run_plan plan;

	if (run_find_vmm(vmm_argv[0], plan.vmm) || run_check_vmm(plan.vmm))
		return EXIT_FAILURE;
	choose_name(config, vmm_argv, &plan);
	if (prepare_run_dir(config, &plan) || check_name_free(&plan) ||
	    choose_qmp(config, vmm_argv, &plan) || find_preload(&plan))
		return EXIT_FAILURE;
	if (config->verbose)
		say("starting %s as '%s', run directory %s, QMP %s", plan.vmm, plan.name,
		    plan.run_dir, plan.qmp[0] ? plan.qmp : "unknown");
	if (set_environment(config, &plan)) {
		say("no memory for the environment");
		return EXIT_FAILURE;
	}
	return become(plan.vmm, vmm_argv);
}

int command_run(int argc, char **argv)
{
	struct run_config config = { 0 };
	int option, status;

	opterr = 0;
	while ((option = getopt_long(argc, argv, "+:h", options, NULL)) != -1) {
		if (option == 'h') {
			print_help();
			return EXIT_SUCCESS;
		}
		if (option == OPT_VERSION) {
			printf("memvirt %s\n", mv_version());
			return EXIT_SUCCESS;
		}
		status = take_option(option, argv, &config);
		if (status)
			return status;
	}
	if (optind >= argc)
		return say_usage("run", "which VMM? Its command line comes after '--'");
	return start(&config, argv + optind);
}

int run_as(const char *program, char **argv)
{
	struct run_config config = { 0 };
	char path[PATH_MAX];
	int status;

	if (run_find_vmm(program, path))
		return EXIT_FAILURE;
	argv[0] = path;
	if (run_qemu_is_probe(argv + 1))
		return become(path, argv);
	status = take_environment(&config);
	return status ? status : start(&config, argv);
}
