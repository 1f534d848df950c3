/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A small VMM under the preload library; see fake_vmm.h.
 */
#include "support/testing.h"
#include "support/fake_vmm.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "vm/clock.h"
#include "vm/rpc.h"

#define SCENARIO_ARGUMENT "--scenario"
#define SKIPPED		  77
#define SCENARIO_MS	  60000
#define WAIT_NS		  (20 * CLOCK_S)
#define NAME		  "fake"
#define PAGE		  4096UL

static struct rpc *own; /* our own control socket */

/* --- running a scenario --------------------------------------------------------------------- */

static void run_scenario(const char *name, const struct vmm_scenario *scenarios, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (strcmp(scenarios[i].name, name) == 0) {
			scenarios[i].run();
			exit(0);
		}
	fprintf(stderr, "there is no scenario '%s'\n", name);
	_exit(2);
}

/* Where this process was started as a scenario: run it and do not return. */
static void be_the_vmm(int argc, char **argv, const struct vmm_scenario *scenarios, size_t count)
{
	if (argc >= 3 && strcmp(argv[1], SCENARIO_ARGUMENT) == 0)
		run_scenario(argv[2], scenarios, count);
}

static void preload_path(char *self, char *path)
{
	ssize_t len = readlink("/proc/self/exe", self, PATH_MAX - 1);

	insist(len > 0);
	self[len] = '\0';
	snprintf(path, PATH_MAX, "%.*s/../../lib/memvirt/libmemvirt-preload.so",
		 (int)(strrchr(self, '/') - self), self);
	insist(access(path, R_OK) == 0);
}

static void set_environment(const char *dir, const char *limit, const char *preload)
{
	char process[16];

	snprintf(process, sizeof(process), "%d", (int)getpid());
	setenv("MEMVIRT_NAME", NAME, 1);
	setenv("MEMVIRT_LIMIT", limit ? limit : "", 1);
	setenv("MEMVIRT_STORE_LIMIT", "", 1);
	setenv("MEMVIRT_QMP", "", 1);
	setenv("MEMVIRT_RUN_DIR", dir, 1);
	setenv("MEMVIRT_VERBOSE", "1", 1);
	setenv("MEMVIRT_PROCESS", process, 1);
	setenv("LD_PRELOAD", preload, 1);
	/* Under AddressSanitizer its library would want to be the first. */
	setenv("ASAN_OPTIONS", "verify_asan_link_order=0:detect_leaks=0", 1);
}

static void become_scenario(const char *scenario, const char *limit, const char *dir, int out)
{
	char self[PATH_MAX], preload[PATH_MAX];

	dup2(out, STDOUT_FILENO);
	dup2(out, STDERR_FILENO);
	preload_path(self, preload);
	set_environment(dir, limit, preload);
	execl(self, self, SCENARIO_ARGUMENT, scenario, NULL);
	_exit(127);
}

/* What the scenario says, until it ends or takes too long. Return: false for the latter. */
static bool collect(int fd, char *text, size_t room)
{
	uint64_t deadline = clock_now() + SCENARIO_MS * CLOCK_MS;
	size_t used = 0;

	for (;;) {
		struct pollfd one = { fd, POLLIN, 0 };
		char scrap[256];
		ssize_t got;

		if (poll(&one, 1, clock_poll_ms(deadline)) <= 0)
			return false;
		got = used + 1 < room ? read(fd, text + used, room - 1 - used)
				      : read(fd, scrap, sizeof(scrap));
		if (got <= 0)
			return true;
		if (used + 1 < room)
			used += (size_t)got;
		text[used] = '\0';
	}
}

static void report(const char *scenario, int status, bool in_time, char *text)
{
	char *save = NULL;

	if (in_time && WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return;
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
		print_message("# %s\n", line);
	if (in_time && WIFEXITED(status) && WEXITSTATUS(status) == SKIPPED)
		skip();
	if (!in_time)
		fail_msg("%s did not end within %d s", scenario, SCENARIO_MS / 1000);
	fail_msg("%s ended with wait status %#x", scenario, status);
}

static void remove_dir(const char *dir)
{
	char command[PATH_MAX];

	snprintf(command, sizeof(command), "rm -rf '%s'", dir);
	insist(system(command) == 0);
}

void vmm_run(const char *scenario, const char *limit)
{
	char dir[] = "/tmp/memvirt-test-XXXXXX", text[16384] = "";
	int out[2], status;
	bool in_time;
	pid_t child;

	insist(mkdtemp(dir) && pipe2(out, O_CLOEXEC) == 0);
	child = fork();
	insist(child >= 0);
	if (child == 0)
		become_scenario(scenario, limit, dir, out[1]);
	close(out[1]);
	in_time = collect(out[0], text, sizeof(text));
	if (!in_time)
		kill(child, SIGKILL);
	insist(waitpid(child, &status, 0) == child);
	close(out[0]);
	remove_dir(dir);
	report(scenario, status, in_time, text);
}

_Noreturn void vmm_skip(const char *reason)
{
	printf("skip-reason: %s\n", reason);
	fflush(stdout);
	exit(SKIPPED);
}

void vmm_skip_sanitized(const char *reason)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	vmm_skip(reason);
#endif
}

/* --- memory --------------------------------------------------------------------------------- */

int vmm_memfd(size_t bytes)
{
	int fd = memfd_create("guest", MFD_CLOEXEC);

	insist(fd >= 0 && ftruncate(fd, (off_t)bytes) == 0);
	return fd;
}

void *vmm_map(size_t bytes, int fd, off_t offset)
{
	int flags = fd == -1   ? MAP_PRIVATE | MAP_ANONYMOUS
		    : fd == -2 ? MAP_SHARED | MAP_ANONYMOUS
			       : MAP_SHARED;
	void *space = mmap(NULL, bytes + PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	void *memory;

	insist(space != MAP_FAILED);
	memory = mmap(space, bytes, PROT_READ | PROT_WRITE, flags | MAP_FIXED, fd < 0 ? -1 : fd,
		      offset);
	insist(memory == space);
	return memory;
}

void *vmm_full_memfd(size_t bytes, int *fd)
{
	void *memory;

	*fd = vmm_memfd(bytes);
	memory = vmm_map(bytes, *fd, 0);
	insist(vmm_managed());
	vmm_fill(memory, bytes, 1);
	vmm_wait_at_least("evictions", 1);
	vmm_wait_at_most("resident-bytes", vmm_stat("limit-bytes"));
	return memory;
}

/* A page that compresses, and in which no two words are exchanged unnoticed. */
static uint64_t word_of(uint64_t seed, uint64_t page, unsigned int i)
{
	return i % 8 ? page * 0x10001 + seed + i : (seed * 1000003 + page) * 0x9e3779b97f4a7c15ULL;
}

void vmm_fill(void *memory, size_t bytes, uint64_t seed)
{
	uint64_t *words = memory;

	for (uint64_t page = 0; page < bytes / PAGE; page++)
		for (unsigned int i = 0; i < PAGE / 8; i++)
			*words++ = word_of(seed, page, i);
}

bool vmm_holds_content(const void *memory, size_t bytes, uint64_t seed)
{
	return vmm_holds_content_at(memory, bytes, seed, 0);
}

bool vmm_holds_content_at(const void *memory, size_t bytes, uint64_t seed, size_t offset)
{
	const uint64_t *words = memory;

	for (uint64_t page = offset / PAGE; page < (offset + bytes) / PAGE; page++)
		for (unsigned int i = 0; i < PAGE / 8; i++, words++)
			if (*words != word_of(seed, page, i)) {
				fprintf(stderr, "page %llu, word %u: %llx, not %llx\n",
					(unsigned long long)page, i, (unsigned long long)*words,
					(unsigned long long)word_of(seed, page, i));
				return false;
			}
	return true;
}

bool vmm_is_zero(const void *memory, size_t bytes)
{
	const unsigned char *byte = memory;

	for (size_t i = 0; i < bytes; i++)
		if (byte[i]) {
			fprintf(stderr, "byte %zu is %#x, not 0\n", i, byte[i]);
			return false;
		}
	return true;
}

/* --- asking memvirt ------------------------------------------------------------------------- */

static const char *run_file(const char *suffix)
{
	static char path[2][PATH_MAX];
	static char dir[PATH_MAX];
	char *text = path[suffix[2] == 't'];

	/* The environment is cleaned when guest memory is found. */
	if (!dir[0])
		snprintf(dir, sizeof(dir), "%s", getenv("MEMVIRT_RUN_DIR"));
	snprintf(text, PATH_MAX, "%.4000s/" NAME "%s", dir, suffix);
	return text;
}

__attribute__((constructor)) static void note_run_dir(void)
{
	if (getenv("MEMVIRT_RUN_DIR"))
		run_file(".sock");
}

const char *vmm_socket(void)
{
	return run_file(".sock");
}

const char *vmm_segment(void)
{
	return run_file(".stats");
}

bool vmm_managed(void)
{
	return access(vmm_socket(), F_OK) == 0;
}

struct json_object *vmm_ask(const char *command, const char *arguments)
{
	struct json_object *value = NULL;
	char why[RPC_WHY];
	uint64_t deadline = clock_now() + WAIT_NS;
	int error;

	if (!own && rpc_connect(RPC_CONTROL, vmm_socket(), deadline, &own, why)) {
		fprintf(stderr, "%s: %s\n", vmm_socket(), why);
		insist(!"the control socket answers");
	}
	error = rpc_execute(own, command, arguments ? json_tokener_parse(arguments) : NULL,
			    deadline, &value, why);
	if (error) {
		fprintf(stderr, "%s: %s\n", command, why);
		return NULL;
	}
	return value;
}

static uint64_t member_u64(struct json_object *object, const char *name)
{
	struct json_object *value;

	insist(json_object_object_get_ex(object, name, &value));
	return value ? json_object_get_uint64(value) : UINT64_MAX;
}

static void member_text(struct json_object *object, const char *name, char *text, size_t room)
{
	struct json_object *value;

	insist(json_object_object_get_ex(object, name, &value));
	snprintf(text, room, "%s", value ? json_object_get_string(value) : "");
}

uint64_t vmm_stat(const char *name)
{
	struct json_object *stats = vmm_ask("query-stats", NULL);
	uint64_t value;

	insist(stats);
	value = member_u64(stats, name);
	json_object_put(stats);
	return value;
}

static void nap(void)
{
	usleep(5000);
}

uint64_t vmm_stat_at_rest(const char *name)
{
	uint64_t value = vmm_stat(name), before;

	do {
		before = value;
		nap();
		value = vmm_stat(name);
	} while (value != before);
	return value;
}

void vmm_wait_at_least(const char *name, uint64_t value)
{
	uint64_t deadline = clock_now() + WAIT_NS;

	while (vmm_stat(name) < value) {
		if (clock_now() > deadline)
			fprintf(stderr, "%s is only %llu\n", name,
				(unsigned long long)vmm_stat(name));
		insist(clock_now() <= deadline);
		nap();
	}
}

void vmm_wait_at_most(const char *name, uint64_t value)
{
	uint64_t deadline = clock_now() + WAIT_NS;

	while (vmm_stat(name) > value) {
		if (clock_now() > deadline)
			fprintf(stderr, "%s is still %llu\n", name,
				(unsigned long long)vmm_stat(name));
		insist(clock_now() <= deadline);
		nap();
	}
}

bool vmm_held(const char *word)
{
	struct json_object *info = vmm_ask("query-info", NULL), *holds;
	bool found = false;

	insist(info && json_object_object_get_ex(info, "holds", &holds));
	for (size_t i = 0; i < json_object_array_length(holds); i++)
		found |= strstr(json_object_get_string(json_object_array_get_idx(holds, i)),
				word) != NULL;
	json_object_put(info);
	return found;
}

struct vmm_region vmm_region(unsigned int index)
{
	struct json_object *info = vmm_ask("query-info", NULL), *regions, *one;
	struct vmm_region region = { 0 };

	insist(info && json_object_object_get_ex(info, "regions", &regions));
	one = json_object_array_get_idx(regions, index);
	if (one) {
		struct json_object *managed;

		region.found = true;
		insist(json_object_object_get_ex(one, "managed", &managed));
		region.managed = json_object_get_boolean(managed);
		region.first_gpa = member_u64(one, "first-gpa");
		region.bytes = member_u64(one, "bytes");
		member_text(one, "backing", region.backing, sizeof(region.backing));
		member_text(one, "reason", region.reason, sizeof(region.reason));
	}
	json_object_put(info);
	return region;
}

/* --- other things --------------------------------------------------------------------------- */

int vmm_direct_file(size_t bytes)
{
	char path[] = "/tmp/memvirt-direct-XXXXXX";
	int fd = mkostemp(path, O_CLOEXEC | O_DIRECT);

	if (fd < 0)
		vmm_skip("the file system of /tmp has no direct I/O");
	unlink(path);
	insist(ftruncate(fd, (off_t)bytes) == 0);
	return fd;
}

void *vmm_function(const char *library, const char *name)
{
	void *function;

	if (!dlopen(library, RTLD_NOW | RTLD_GLOBAL))
		vmm_skip(dlerror());
	function = dlsym(RTLD_DEFAULT, name);
	insist(function);
	return function;
}

/* --- a test program of scenarios ------------------------------------------------------------- */

static const char *common_limit;

static void test_scenario(void **state)
{
	const struct vmm_scenario *scenario = *state;

	vmm_run(scenario->name, scenario->unlimited ? NULL : common_limit);
}

int vmm_run_all(int argc, char **argv, const struct vmm_scenario *scenarios, size_t count,
		const char *limit)
{
	struct CMUnitTest tests[count];

	be_the_vmm(argc, argv, scenarios, count);
	common_limit = limit;
	for (size_t i = 0; i < count; i++)
		tests[i] = (struct CMUnitTest){
			.name = scenarios[i].name,
			.test_func = test_scenario,
			.initial_state = (void *)&scenarios[i],
		};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
