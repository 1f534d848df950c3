/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The client of QMP, against a QEMU that is slow, talkative, broken or silent: it gives what
 * was asked for or a reason, and never waits past its deadline.
 */
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "support/fake_peer.h"
#include "support/testing.h"
#include "vm/clock.h"
#include "vm/qmp.h"
#include "vm/rpc.h"

#define GREETING "{\"QMP\": {\"version\": {\"qemu\": {\"major\": 7}}, \"capabilities\": []}}\r\n"
#define READY	 "{\"return\": {}, \"id\": 0}\r\n"
#define EVENT	 "{\"timestamp\": {\"seconds\": 1}, \"event\": \"RTC_CHANGE\"}\r\n"

/* Greeting and negotiation, as QEMU does it. */
#define HELLO                                                                                      \
	{ PEER_SEND, GREETING }, { PEER_READ, "qmp_capabilities" },                                \
	{                                                                                          \
		PEER_SEND, READY                                                                   \
	}

/* What a busy machine may add to a deadline. */
#define LATE_MS 400

struct asked {
	int err;
	struct json_object *value;
	char why[RPC_WHY];
	uint64_t took_ms;
};

static struct rpc *connect_to(const struct fake_peer *peer)
{
	struct rpc *rpc = NULL;
	char why[RPC_WHY];

	assert_int_equal(rpc_open(RPC_QMP, peer->path, &rpc, why), 0);
	return rpc;
}

static struct asked ask(struct rpc *rpc, const char *command, unsigned int ms)
{
	struct asked asked = { 0 };
	uint64_t began = clock_now();

	asked.err = rpc_execute(rpc, command, NULL, began + ms * CLOCK_MS, &asked.value, asked.why);
	asked.took_ms = (clock_now() - began) / CLOCK_MS;
	if (asked.took_ms > ms + LATE_MS)
		fail_msg("%s took %llu of %u ms", command, (unsigned long long)asked.took_ms, ms);
	return asked;
}

/* Play a script to one query-balloon with a generous deadline. */
static struct asked ask_once(const struct peer_step *steps, unsigned int ms)
{
	struct fake_peer peer;

	fake_peer_start(&peer, "qmp", steps);
	struct rpc *rpc = connect_to(&peer);
	struct asked asked = ask(rpc, "query-balloon", ms);
	rpc_close(rpc);
	fake_peer_stop(&peer);
	return asked;
}

static void check_actual(struct asked asked, uint64_t wanted)
{
	uint64_t actual;

	if (asked.err)
		fail_msg("%d: %s", asked.err, asked.why);
	assert_int_equal(qmp_parse_balloon(asked.value, &actual), 0);
	assert_true(actual == wanted);
	json_object_put(asked.value);
}

static void check_failure(struct asked asked, int err, const char *reason)
{
	assert_int_equal(asked.err, err);
	assert_null(asked.value);
	if (!strstr(asked.why, reason))
		fail_msg("no '%s' in: %s", reason, asked.why);
}

/* --- well-behaved ------------------------------------------------------------------------- */

static void test_plain(void **unused)
{
	static const struct peer_step steps[] = {
		HELLO,
		{ PEER_READ, "query-balloon" },
		{ PEER_SEND, "{\"return\": {\"actual\": 536870912}, \"id\": 1}\r\n" },
		{ PEER_HANG },
		{ PEER_END },
	};

	check_actual(ask_once(steps, 5000), 536870912);
}

static void test_in_pieces(void **unused)
{
	static const struct peer_step steps[] = {
		{ PEER_DRIBBLE, GREETING },
		{ PEER_READ, "qmp_capabilities" },
		{ PEER_DRIBBLE, READY },
		{ PEER_READ, "query-balloon" },
		{ PEER_DRIBBLE, "{\"return\": {\"actual\": 5" },
		{ PEER_WAIT, NULL, 50 },
		{ PEER_DRIBBLE, "7}, \"id\": 1}\r\n" },
		{ PEER_HANG },
		{ PEER_END },
	};

	check_actual(ask_once(steps, 5000), 57);
}

/* -qmp-pretty, and no newline at the end. */
static void test_pretty(void **unused)
{
	static const struct peer_step steps[] = {
		{ PEER_SEND,
		  "{\r\n    \"QMP\": {\r\n        \"capabilities\": [\r\n        ]\r\n    }\r\n}" },
		{ PEER_READ, "qmp_capabilities" },
		{ PEER_SEND, "{\r\n    \"return\": {\r\n    },\r\n    \"id\": 0\r\n}\r\n" },
		{ PEER_READ, "query-balloon" },
		{ PEER_SEND,
		  "{\r\n    \"return\": {\r\n        \"actual\": 9\r\n    }, \"id\": 1\r\n}" },
		{ PEER_HANG },
		{ PEER_END },
	};

	check_actual(ask_once(steps, 5000), 9);
}

static void test_events_between(void **unused)
{
	static const struct peer_step steps[] = {
		{ PEER_SEND, GREETING EVENT },
		{ PEER_READ, "qmp_capabilities" },
		{ PEER_SEND, EVENT READY EVENT },
		{ PEER_READ, "query-balloon" },
		{ PEER_SEND, EVENT EVENT "{\"return\": {\"actual\": 1}, \"id\": 1}\r\n" EVENT },
		{ PEER_HANG },
		{ PEER_END },
	};

	check_actual(ask_once(steps, 5000), 1);
}

static void test_refusal(void **unused)
{
	static const struct peer_step steps[] = {
		HELLO,
		{ PEER_READ, "query-balloon" },
		{ PEER_SEND, "{\"id\": 1, \"error\": {\"class\": \"DeviceNotActive\", "
			     "\"desc\": \"No balloon device has been activated\"}}\r\n" },
		{ PEER_READ, "query-balloon" },
		{ PEER_SEND, "{\"return\": {\"actual\": 3}, \"id\": 2}\r\n" },
		{ PEER_HANG },
		{ PEER_END },
	};
	struct fake_peer peer;

	fake_peer_start(&peer, "qmp", steps);
	struct rpc *rpc = connect_to(&peer);
	check_failure(ask(rpc, "query-balloon", 5000), -EREMOTEIO, "No balloon device");
	assert_false(rpc_broken(rpc));
	check_actual(ask(rpc, "query-balloon", 5000), 3);
	rpc_close(rpc);
	fake_peer_stop(&peer);
}

/* A long answer is fine, up to the megabytes that no answer of QEMU's has. */
static void test_long_answer(void **unused)
{
	static const struct peer_step steps[] = {
		HELLO,
		{ PEER_READ, "query-balloon" },
		{ PEER_SEND, "{\"return\": {\"pad\": \"" },
		{ PEER_FILL, "x", 2000000 },
		{ PEER_SEND, "\", \"actual\": 7}, \"id\": 1}\r\n" },
		{ PEER_HANG },
		{ PEER_END },
	};

	check_actual(ask_once(steps, 20000), 7);
}

/* --- not at all --------------------------------------------------------------------------- */

static void test_nobody(void **unused)
{
	struct rpc *rpc = NULL;
	char why[RPC_WHY], path[200];
	struct fake_peer peer;

	assert_int_equal(rpc_open(RPC_QMP, "/nonexistent/qmp", &rpc, why), -ENOENT);
	assert_non_null(strstr(why, "/nonexistent/qmp"));
	memset(path, 'x', sizeof(path) - 1);
	path[sizeof(path) - 1] = '\0';
	assert_int_equal(rpc_open(RPC_QMP, path, &rpc, why), -ENAMETOOLONG);

	/* The socket of a QEMU that was killed. */
	static const struct peer_step none[] = { { PEER_END } };
	fake_peer_start(&peer, "dead", none);
	strcpy(path, peer.path);
	fake_peer_stop(&peer);
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	strcpy(addr.sun_path, path);
	assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	close(fd);
	assert_int_equal(rpc_open(RPC_QMP, path, &rpc, why), -ECONNREFUSED);
	unlink(path);
	assert_null(rpc);
}

/* QEMU serves one client; the next connects and hears nothing. */
static void test_no_greeting(void **unused)
{
	static const struct peer_step steps[] = { { PEER_HANG }, { PEER_END } };

	check_failure(ask_once(steps, 200), -ETIMEDOUT, "another client");
}

static void test_no_answer(void **unused)
{
	static const struct peer_step steps[] = { HELLO, { PEER_HANG }, { PEER_END } };
	struct asked asked = ask_once(steps, 200);

	check_failure(asked, -ETIMEDOUT, "no answer to query-balloon");
	assert_in_range(asked.took_ms, 190, 200 + LATE_MS);
}

/* A full queue of connections is tried again until the deadline, not for ever. */
static void test_full_queue(void **unused)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int listener = socket(AF_UNIX, SOCK_STREAM, 0);
	struct rpc *taken[8], *rpc = NULL;
	char why[RPC_WHY];
	int count = 0;

	snprintf(addr.sun_path, sizeof(addr.sun_path), "/tmp/memvirt-full-%d", (int)getpid());
	unlink(addr.sun_path);
	assert_int_equal(bind(listener, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(listen(listener, 0), 0);
	while (count < 8 && !rpc_open(RPC_QMP, addr.sun_path, &taken[count], why))
		count++;
	assert_in_range(count, 1, 7);
	uint64_t began = clock_now();
	assert_int_equal(rpc_connect(RPC_QMP, addr.sun_path, began + 100 * CLOCK_MS, &rpc, why),
			 -EAGAIN);
	assert_in_range((clock_now() - began) / CLOCK_MS, 90, 100 + LATE_MS);
	while (count)
		rpc_close(taken[--count]);
	close(listener);
	unlink(addr.sun_path);
}

/* --- badly -------------------------------------------------------------------------------- */

static void test_bad_text(void **unused)
{
	static const char *const texts[] = {
		"garbage\r\n",
		"[1, 2]\r\n",
		"{\"return\": {\"actual\": }}\r\n",
		"{]\r\n",
		"null\r\n",
		"12 \r\n",
		"\"text\"\r\n",
		"{\"id\": 1}\r\n",
		"{\"return\": {}, \"id\": 1,}}\r\n",
		"\x01\x02\x03\x04\r\n",
		"{\"return\": [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
	};

	for (size_t i = 0; i < COUNT_OF(texts); i++) {
		const struct peer_step steps[] = {
			HELLO,
			{ PEER_READ, "query-balloon" },
			{ PEER_SEND, texts[i] },
			{ PEER_HANG },
			{ PEER_END },
		};

		check_failure(ask_once(steps, 5000), -EBADMSG, "JSON");
	}
}

static void test_not_qmp(void **unused)
{
	static const struct peer_step steps[] = { { PEER_SEND, "{\"hello\": \"there\"}\r\n" },
						  { PEER_HANG },
						  { PEER_END } };
	static const struct peer_step monitor[] = {
		{ PEER_SEND, "QEMU 7.2.0 monitor - type 'help' for more information\r\n(qemu) " },
		{ PEER_HANG },
		{ PEER_END },
	};
	static const struct peer_step refuses[] = {
		{ PEER_SEND, GREETING },
		{ PEER_READ, "qmp_capabilities" },
		{ PEER_SEND,
		  "{\"id\": 0, \"error\": {\"class\": \"GenericError\", \"desc\": \"no\"}}\n" },
		{ PEER_HANG },
		{ PEER_END },
	};

	check_failure(ask_once(steps, 5000), -EBADMSG, "greet");
	check_failure(ask_once(monitor, 5000), -EBADMSG, "JSON");
	check_failure(ask_once(refuses, 5000), -EBADMSG, "qmp_capabilities");
}

static void test_nul_bytes(void **unused)
{
	static const struct peer_step steps[] = { HELLO,
						  { PEER_READ, "query-balloon" },
						  { PEER_FILL, "", 10 },
						  { PEER_HANG },
						  { PEER_END } };

	check_failure(ask_once(steps, 5000), -EBADMSG, "JSON");
}

static void test_endless_answer(void **unused)
{
	static const struct peer_step steps[] = {
		HELLO,
		{ PEER_READ, "query-balloon" },
		{ PEER_SEND, "{\"return\": {\"pad\": \"" },
		{ PEER_FLOOD, "endless endless endless endless endless endless endless endless " },
		{ PEER_END },
	};

	check_failure(ask_once(steps, 20000), -EMSGSIZE, "longer");
}

static void test_endless_events(void **unused)
{
	static const struct peer_step steps[] = {
		HELLO, { PEER_FLOOD, EVENT EVENT EVENT EVENT EVENT EVENT EVENT EVENT }, { PEER_END }
	};

	check_failure(ask_once(steps, 300), -ETIMEDOUT, "no answer");
}

static void test_endless_blanks(void **unused)
{
	static const struct peer_step steps[] = {
		HELLO, { PEER_FLOOD, "                                    \r\n" }, { PEER_END }
	};

	check_failure(ask_once(steps, 300), -ETIMEDOUT, "no answer");
}

static void test_closed_in_between(void **unused)
{
	static const struct peer_step at_once[] = { { PEER_END } };
	static const struct peer_step greeted[] = { { PEER_SEND, GREETING }, { PEER_END } };
	static const struct peer_step half[] = {
		HELLO,
		{ PEER_READ, "query-balloon" },
		{ PEER_SEND, "{\"return\": {\"actual\": 12" },
		{ PEER_END },
	};

	check_failure(ask_once(at_once, 5000), -EPIPE, "closed");
	check_failure(ask_once(greeted, 5000), -EPIPE, "closed");
	check_failure(ask_once(half, 5000), -EPIPE, "closed");
}

static void test_broken_stays_broken(void **unused)
{
	static const struct peer_step steps[] = {
		HELLO, { PEER_SEND, "garbage\r\n" }, { PEER_HANG }, { PEER_END }
	};
	struct fake_peer peer;

	fake_peer_start(&peer, "qmp", steps);
	struct rpc *rpc = connect_to(&peer);
	check_failure(ask(rpc, "query-balloon", 5000), -EBADMSG, "JSON");
	assert_true(rpc_broken(rpc));
	check_failure(ask(rpc, "query-balloon", 5000), -EBADMSG, "JSON");
	rpc_close(rpc);
	fake_peer_stop(&peer);
}

/* --- late --------------------------------------------------------------------------------- */

static void test_late_answer(void **unused)
{
	static const struct peer_step steps[] = {
		HELLO,
		{ PEER_READ, "query-balloon" },
		{ PEER_READ, "query-status" },
		{ PEER_SEND, "{\"return\": {\"actual\": 1}, \"id\": 1}\r\n" EVENT },
		{ PEER_SEND, "{\"return\": {\"actual\": 2}, \"id\": 2}\r\n" },
		{ PEER_HANG },
		{ PEER_END },
	};
	struct fake_peer peer;

	fake_peer_start(&peer, "qmp", steps);
	struct rpc *rpc = connect_to(&peer);
	check_failure(ask(rpc, "query-balloon", 100), -ETIMEDOUT, "no answer");
	check_actual(ask(rpc, "query-status", 5000), 2);
	rpc_close(rpc);
	fake_peer_stop(&peer);
}

/* One that hangs costs the one that answers nothing. */
static void test_two_at_once(void **unused)
{
	static const struct peer_step hangs[] = { HELLO, { PEER_HANG }, { PEER_END } };
	static const struct peer_step answers[] = {
		HELLO,
		{ PEER_READ, "query-balloon" },
		{ PEER_SEND, "{\"return\": {\"actual\": 4}, \"id\": 1}\r\n" },
		{ PEER_HANG },
		{ PEER_END },
	};
	struct fake_peer peers[2];
	struct rpc *rpcs[3] = { NULL };
	struct asked asked = { 0 };

	fake_peer_start(&peers[0], "hangs", hangs);
	fake_peer_start(&peers[1], "answers", answers);
	rpcs[0] = connect_to(&peers[0]);
	rpcs[2] = connect_to(&peers[1]);
	rpc_start(rpcs[0], "query-balloon", NULL);
	rpc_start(rpcs[2], "query-balloon", NULL);
	uint64_t began = clock_now();
	assert_true(rpc_wait(rpcs, 3, began + 10 * CLOCK_S));
	assert_true(clock_now() - began < 5 * CLOCK_S);
	assert_false(rpc_answered(rpcs[0]));
	asked.err = rpc_finish(rpcs[2], &asked.value, asked.why);
	check_actual(asked, 4);
	/* The other's stays under way, and a wait for it alone ends in time. */
	began = clock_now();
	assert_false(rpc_wait(rpcs, 3, began + 100 * CLOCK_MS));
	assert_in_range((clock_now() - began) / CLOCK_MS, 90, 100 + LATE_MS);
	assert_int_equal(rpc_finish(rpcs[0], &asked.value, asked.why), -EAGAIN);
	rpc_close(rpcs[0]);
	rpc_close(rpcs[2]);
	fake_peer_stop(&peers[0]);
	fake_peer_stop(&peers[1]);
}

/* --- what the answers mean ---------------------------------------------------------------- */

static struct json_object *parse(const char *text)
{
	struct json_object *object = json_tokener_parse(text);

	assert_non_null(object);
	return object;
}

static void test_find_balloon(void **unused)
{
	static const struct {
		const char *list;
		const char *path; /* NULL: none */
		int err;
	} cases[] = {
		{ "[{\"name\": \"type\", \"type\": \"string\"}, {\"name\": \"device[0]\", "
		  "\"type\": "
		  "\"child<virtio-balloon-pci>\"}]",
		  "/machine/peripheral-anon/device[0]", 0 },
		{ "[{\"name\": \"b\", \"type\": \"child<virtio-balloon-ccw>\"}]",
		  "/machine/peripheral-anon/b", 0 },
		{ "[]", NULL, -ENOENT },
		{ "[1, null, {}, {\"name\": 1, \"type\": 2}]", NULL, -ENOENT },
		{ "[{\"name\": \"n\", \"type\": \"child<virtio-net-pci>\"}]", NULL, -ENOENT },
		{ "{}", NULL, -EBADMSG },
	};
	char path[QMP_PATH_MAX];

	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct json_object *list = parse(cases[i].list);

		strcpy(path, "untouched");
		assert_int_equal(qmp_find_balloon(list, QMP_PERIPHERAL_ANON, path), cases[i].err);
		assert_string_equal(path, cases[i].path ? cases[i].path : "untouched");
		json_object_put(list);
	}
	assert_int_equal(qmp_find_balloon(NULL, QMP_PERIPHERAL, path), -EBADMSG);
}

static void test_guest_stats(void **unused)
{
	struct json_object *answer = parse(
		"{\"last-update\": 1700000000, \"stats\": {\"stat-total-memory\": 500000000,"
		"\"stat-free-memory\": 18446744073709551615, \"stat-available-memory\": -1,"
		"\"stat-swap-in\": \"no\", \"stat-major-faults\": 0, \"stat-disk-caches\": 1.5}}");
	struct qmp_guest_stats stats;

	assert_int_equal(qmp_parse_guest_stats(answer, &stats), 0);
	assert_true(stats.update_s == 1700000000);
	assert_true(stats.total_bytes == 500000000);
	assert_true(stats.major_faults == 0);
	/* Not supplied, or no such number: unknown, never 0. */
	assert_true(stats.free_bytes == UINT64_MAX);
	assert_true(stats.available_bytes == UINT64_MAX);
	assert_true(stats.swap_in_bytes == UINT64_MAX);
	assert_true(stats.disk_cache_bytes == UINT64_MAX);
	assert_true(stats.oom_kills == UINT64_MAX);
	json_object_put(answer);
}

static void test_bad_guest_stats(void **unused)
{
	static const char *const texts[] = { "{}",
					     "[]",
					     "{\"last-update\": 1}",
					     "{\"last-update\": -1, \"stats\": {}}",
					     "{\"last-update\": 1, \"stats\": []}",
					     "{\"last-update\": null, \"stats\": {}}" };
	struct qmp_guest_stats stats;
	uint64_t actual = 5;

	for (size_t i = 0; i < COUNT_OF(texts); i++) {
		struct json_object *answer = parse(texts[i]);

		assert_int_equal(qmp_parse_guest_stats(answer, &stats), -EBADMSG);
		assert_int_equal(qmp_parse_balloon(answer, &actual), -EBADMSG);
		json_object_put(answer);
	}
	assert_true(actual == 5);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_plain),
		cmocka_unit_test(test_in_pieces),
		cmocka_unit_test(test_pretty),
		cmocka_unit_test(test_events_between),
		cmocka_unit_test(test_refusal),
		cmocka_unit_test(test_long_answer),
		cmocka_unit_test(test_nobody),
		cmocka_unit_test(test_no_greeting),
		cmocka_unit_test(test_no_answer),
		cmocka_unit_test(test_full_queue),
		cmocka_unit_test(test_bad_text),
		cmocka_unit_test(test_not_qmp),
		cmocka_unit_test(test_nul_bytes),
		cmocka_unit_test(test_endless_answer),
		cmocka_unit_test(test_endless_events),
		cmocka_unit_test(test_endless_blanks),
		cmocka_unit_test(test_closed_in_between),
		cmocka_unit_test(test_broken_stays_broken),
		cmocka_unit_test(test_late_answer),
		cmocka_unit_test(test_two_at_once),
		cmocka_unit_test(test_find_balloon),
		cmocka_unit_test(test_guest_stats),
		cmocka_unit_test(test_bad_guest_stats),
	};

	return cmocka_run_group_tests_name("qmp", tests, NULL, NULL);
}
