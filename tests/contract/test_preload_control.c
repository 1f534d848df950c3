/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The control socket and the statistics segment of a VM under the preload library: the
 * protocol of docs/control.md, clients that do not behave, and both files' beginning and end.
 */
#include "support/testing.h"
#include "support/fake_vmm.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <memvirt/stats.h>

#include "vm/clock.h"

#define LIMIT "4194304"
#define RAM   (32 * MIB)
#define LINE  70000

static void *full_vm(void)
{
	int fd;

	return vmm_full_memfd(RAM, &fd);
}

/* --- bare connections ------------------------------------------------------------------------- */

static int dial(void)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", vmm_socket());
	insist(fd >= 0 && connect(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0);
	return fd;
}

static void put(int fd, const char *text)
{
	insist(send(fd, text, strlen(text), MSG_NOSIGNAL) == (ssize_t)strlen(text));
}

/* One line of answer; false where the other end has hung up. */
static bool take(int fd, char *line)
{
	size_t used = 0;

	while (recv(fd, &line[used], 1, 0) == 1) {
		if (line[used] == '\n') {
			line[used] = '\0';
			return true;
		}
		insist(++used < LINE);
	}
	return false;
}

static char answer[LINE];

static void expect(int fd, const char *request, const char *word)
{
	put(fd, request);
	insist(take(fd, answer));
	if (!strstr(answer, word))
		fprintf(stderr, "%s: no %s\n", answer, word);
	insist(strstr(answer, word));
}

/* --- the protocol ----------------------------------------------------------------------------- */

static void answers(void)
{
	void *ram = full_vm();
	struct stat st;
	int fd = dial();

	insist(stat(vmm_socket(), &st) == 0 && (st.st_mode & 0777) == 0600);
	expect(fd, "{\"execute\":\"query-info\",\"id\":[1,{\"a\":2}]}\n", "\"id\":[1,{\"a\":2}]");
	insist(strstr(answer, "\"format-version\":1") && strstr(answer, "\"name\":\"fake\""));
	insist(strstr(answer, "\"qmp\":null") && strstr(answer, "\"limit-bytes\":4194304"));
	expect(fd, "\n  \n{\"execute\": \"query-stats\"}\n", "\"configured-bytes\":33554432");
	insist(strstr(answer, "\"guest-free-bytes\":null") && !strstr(answer, "\"id\""));
	expect(fd, "{\"execute\":\"fly\",\"id\":1}\n", "CommandNotFound");
	expect(fd, "{\"id\":1}\n", "BadRequest");
	expect(fd, "not json\n", "BadRequest");
	expect(fd, "[1]\n", "BadRequest");
	expect(fd, "{\"execute\":\"set-limit\"}\n", "BadRequest");
	expect(fd, "{\"execute\":\"set-limit\",\"arguments\":{\"bytes\":1}}\n", "BadRequest");
	expect(fd, "{\"execute\":\"set-limit\",\"arguments\":{\"bytes\":-5}}\n", "BadRequest");
	expect(fd, "{\"execute\":\"set-limit\",\"arguments\":{\"bytes\":\"4M\"}}\n", "BadRequest");
	expect(fd, "{\"execute\":\"set-limit\",\"arguments\":[]}\n", "BadRequest");
	insist(vmm_stat("limit-bytes") == 4 * MIB);
	expect(fd, "{\"execute\":\"set-limit\",\"arguments\":{\"bytes\":1099511627776},\"id\":7}\n",
	       "{\"return\":{},\"id\":7}");
	insist(vmm_stat("limit-bytes") == 1ULL << 40);
	/* Answers come in the order of the requests, also behind one that takes long. */
	expect(fd,
	       "{\"execute\":\"set-limit\",\"arguments\":{\"bytes\":null},\"id\":1}\n"
	       "{\"execute\":\"query-stats\",\"id\":2}\n",
	       "\"id\":1");
	insist(take(fd, answer) && strstr(answer, "\"id\":2"));
	insist(strstr(answer, "\"limit-bytes\":null") && strstr(answer, "\"stored-pages\":0"));
	insist(vmm_holds_content(ram, RAM, 1));
}

static void notes(void)
{
	struct mv_stats stats;
	int fd;

	full_vm();
	fd = dial();
	expect(fd,
	       "{\"execute\":\"note\",\"arguments\":{\"guest-free-bytes\":5,"
	       "\"balloon-actual-bytes\":6,\"of-a-later-version\":1}}\n",
	       "{\"return\":{}}");
	insist(mv_stats_read(vmm_segment(), &stats) == 0);
	insist(stats.guest_free_bytes == 5 && stats.balloon_actual_bytes == 6);
	insist(stats.guest_time != MV_STATS_UNKNOWN && stats.guest_time <= clock_now());
	insist(stats.guest_total_bytes == MV_STATS_UNKNOWN);
	expect(fd, "{\"execute\":\"note\",\"arguments\":{\"guest-free-bytes\":null}}\n", "return");
	insist(vmm_stat("guest-free-bytes") == MV_STATS_UNKNOWN);
	insist(vmm_stat("balloon-actual-bytes") == 6);
	/* All or nothing. */
	expect(fd,
	       "{\"execute\":\"note\",\"arguments\":{\"balloon-actual-bytes\":9,"
	       "\"guest-total-bytes\":\"x\"}}\n",
	       "BadRequest");
	insist(vmm_stat("balloon-actual-bytes") == 6);
	/* What the pager counts is the pager's to say. */
	expect(fd, "{\"execute\":\"note\",\"arguments\":{\"faults\":0}}\n", "return");
	insist(vmm_stat("faults") > 0);
}

static void segment_is_fresh(void)
{
	struct mv_stats stats, later;

	full_vm();
	insist(mv_stats_read(vmm_segment(), &stats) == 0);
	insist(stats.pid == (uint64_t)getpid() && strcmp(stats.name, "fake") == 0);
	insist(stats.configured_bytes == RAM && stats.limit_bytes == 4 * MIB);
	insist(clock_now() - stats.pager_time < CLOCK_S);
	usleep(300000);
	insist(mv_stats_read(vmm_segment(), &later) == 0);
	insist(later.pager_time > stats.pager_time);
}

/* --- clients that do not behave -----------------------------------------------------------------
 */

static void long_lines(void)
{
	static char line[2 * LINE];
	int fd;

	full_vm();
	fd = dial();
	memset(line, ' ', sizeof(line) - 2);
	memcpy(line, "{\"execute\":", 11);
	insist(send(fd, line, sizeof(line), MSG_NOSIGNAL) > 0);
	insist(!take(fd, answer) || (strstr(answer, "error") && !take(fd, answer)));
	expect(dial(), "{\"execute\":\"query-info\"}\n", "return");
}

static void silent_readers(void)
{
	struct mv_stats stats;
	int fd;

	full_vm();
	fd = dial();
	fcntl(fd, F_SETFL, O_NONBLOCK);
	/* Ask and ask, and never read: in the end the connection is closed. */
	for (int i = 0; i < 100000; i++)
		if (send(fd, "{\"execute\":\"query-stats\"}\n", 26, MSG_NOSIGNAL) < 0 &&
		    errno != EAGAIN)
			break;
	insist(errno == EPIPE || errno == ECONNRESET);
	insist(mv_stats_read(vmm_segment(), &stats) == 0);
	insist(clock_now() - stats.pager_time < CLOCK_S);
	expect(dial(), "{\"execute\":\"query-info\"}\n", "return");
}

static void crowd(void)
{
	int fds[100];

	full_vm();
	for (int i = 0; i < 100; i++) {
		fds[i] = dial();
		put(fds[i], "{\"execute\":");
	}
	/* Whoever came last is served, at the cost of those who say nothing. */
	for (int i = 0; i < 20; i++)
		expect(dial(), "{\"execute\":\"query-info\"}\n", "return");
	for (int i = 0; i < 100; i++)
		close(fds[i]);
	expect(dial(), "{\"execute\":\"query-info\"}\n", "return");
}

/* Hang up while the worker is busy for us, with others waiting behind. */
static void hang_up(void)
{
	void *ram = full_vm();

	for (int i = 0; i < 40; i++) {
		int fd = dial();

		put(fd, i % 2 ? "{\"execute\":\"set-limit\",\"arguments\":{\"bytes\":4194304}}\n"
			      : "{\"execute\":\"set-limit\",\"arguments\":{\"bytes\":null}}\n");
		if (i % 3)
			usleep(2000);
		close(fd);
	}
	insist(vmm_holds_content(ram, RAM, 1));
	while (!vmm_ask("set-limit", "{\"bytes\": 8388608}"))
		usleep(1000);
	insist(vmm_stat("limit-bytes") == 8 * MIB);
	vmm_wait_at_most("resident-bytes", 8 * MIB);
	insist(vmm_holds_content(ram, RAM, 1));
}

/* While gigabytes come back the numbers go on; here it is only some megabytes. */
static void *watch(void *arg)
{
	uint64_t *longest = arg, end = clock_now() + CLOCK_S;
	struct mv_stats stats;

	while (clock_now() < end) {
		insist(mv_stats_read(vmm_segment(), &stats) == 0);
		if (clock_now() > stats.pager_time && clock_now() - stats.pager_time > *longest)
			*longest = clock_now() - stats.pager_time;
		usleep(1000);
	}
	return NULL;
}

static void numbers_go_on(void)
{
	uint64_t longest = 0;
	pthread_t thread;

	full_vm();
	insist(pthread_create(&thread, NULL, watch, &longest) == 0);
	for (int i = 0; i < 5; i++) {
		insist(vmm_ask("set-limit", "{\"bytes\": null}"));
		insist(vmm_ask("set-limit", "{\"bytes\": 2097152}"));
	}
	pthread_join(thread, NULL);
	fprintf(stderr, "the oldest number was %llu ms old\n",
		(unsigned long long)(longest / CLOCK_MS));
	insist(longest < CLOCK_S);
}

/* --- beginning and end --------------------------------------------------------------------------
 */

static void stop(void)
{
	int fd, other;
	void *ram;

	ram = full_vm();
	fd = dial();
	other = dial();
	expect(fd, "{\"execute\":\"stop\",\"id\":\"x\"}\n", "{\"return\":{},\"id\":\"x\"}");
	insist(access(vmm_socket(), F_OK) && access(vmm_segment(), F_OK));
	insist(!take(other, answer) && !take(fd, answer));
	insist(vmm_holds_content(ram, RAM, 1));
	vmm_fill(ram, RAM, 2);
	insist(vmm_holds_content(ram, RAM, 2));
	/* And it finds nothing any more. */
	vmm_fill(vmm_map(RAM, vmm_memfd(RAM), 0), RAM, 3);
	insist(munmap(ram, RAM) == 0);
	insist(!vmm_managed());
}

static pid_t second_vm(void)
{
	pid_t child = fork();

	if (child == 0) {
		void *ram = vmm_map(RAM, vmm_memfd(RAM), 0);

		vmm_fill(ram, RAM, 2);
		exit(vmm_holds_content(ram, RAM, 2) ? 0 : 1);
	}
	return child;
}

/* A second VM of the same name runs, unmanaged, and does not disturb the first. */
static void name_taken(void)
{
	int ready[2], status;
	char byte;
	pid_t first, second;

	insist(pipe(ready) == 0);
	first = fork();
	if (first == 0) {
		void *ram = full_vm();

		insist(write(ready[1], "x", 1) == 1);
		insist(read(ready[0], &byte, 0) == 0);
		sleep(2);
		insist(vmm_holds_content(ram, RAM, 1) && vmm_managed());
		exit(0);
	}
	insist(read(ready[0], &byte, 1) == 1);
	second = second_vm();
	insist(waitpid(second, &status, 0) == second && status == 0);
	insist(vmm_managed());
	expect(dial(), "{\"execute\":\"query-info\"}\n", "\"managed\":true");
	insist(waitpid(first, &status, 0) == first && status == 0);
	insist(!vmm_managed());
}

/* What a VM that was killed leaves behind is told from a live one, and replaced. */
static void left_behind(void)
{
	int ready[2], status;
	char byte;
	pid_t first;

	insist(pipe(ready) == 0);
	first = fork();
	if (first == 0) {
		full_vm();
		insist(write(ready[1], "x", 1) == 1);
		pause();
	}
	insist(read(ready[0], &byte, 1) == 1);
	kill(first, SIGKILL);
	insist(waitpid(first, &status, 0) == first && WIFSIGNALED(status));
	insist(access(vmm_socket(), F_OK) == 0 && access(vmm_segment(), F_OK) == 0);
	full_vm();
	insist(vmm_region(0).managed && vmm_stat("pid") == (uint64_t)getpid());
}

static void no_userfaultfd(void)
{
	void *ram;

	if (geteuid() != 0)
		vmm_skip("only root can become a user without rights");
	insist(chown(getenv("MEMVIRT_RUN_DIR"), 65534, 65534) == 0 && setuid(65534) == 0);
	ram = vmm_map(RAM, vmm_memfd(RAM), 0);
	if (vmm_region(0).managed)
		vmm_skip("every user may use userfaultfd here");
	insist(strstr(vmm_region(0).reason, "vm.unprivileged_userfaultfd"));
	insist(!vmm_ask("set-limit", "{\"bytes\": 8388608}"));
	insist(vmm_stat("configured-bytes") == RAM);
	insist(vmm_stat("resident-bytes") == MV_STATS_UNKNOWN);
	vmm_fill(ram, RAM, 1);
	insist(vmm_holds_content(ram, RAM, 1));
}

/* --------------------------------------------------------------------------------------------- */

static const struct vmm_scenario scenarios[] = {
	{ "answers", answers },
	{ "notes", notes },
	{ "segment-is-fresh", segment_is_fresh },
	{ "long-lines", long_lines },
	{ "silent-readers", silent_readers },
	{ "crowd", crowd },
	{ "hang-up", hang_up },
	{ "numbers-go-on", numbers_go_on },
	{ "stop", stop },
	{ "name-taken", name_taken },
	{ "left-behind", left_behind },
	{ "no-userfaultfd", no_userfaultfd },
};

int main(int argc, char **argv)
{
	return vmm_run_all(argc, argv, scenarios, COUNT_OF(scenarios), LIMIT);
}
