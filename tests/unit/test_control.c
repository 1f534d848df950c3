/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The control protocol's wire, from both ends: framing, requests and answers, numbers, and
 * peers that do not keep to it.
 */
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "support/fake_peer.h"
#include "support/testing.h"
#include "vm/clock.h"
#include "vm/control_wire.h"
#include "vm/rpc.h"
#include "vm/stat_names.h"

/** struct pair - a wire, and the bare other end */
struct pair {
	struct wire *wire;
	int fd;
};

static struct pair make_pair(enum wire_framing framing, size_t message_max)
{
	struct pair pair;
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	assert_int_equal(wire_open(fds[0], framing, message_max, &pair.wire), 0);
	pair.fd = fds[1];
	return pair;
}

static void drop_pair(struct pair *pair)
{
	wire_close(pair->wire);
	close(pair->fd);
}

static void put(struct pair *pair, const char *text)
{
	assert_int_equal(write(pair->fd, text, strlen(text)), strlen(text));
}

/* The next message has this member n. */
static void expect(struct pair *pair, uint64_t n)
{
	struct json_object *message = NULL;
	uint64_t found;

	assert_int_equal(wire_receive(pair->wire, &message), 0);
	assert_int_equal(wire_get_u64(message, "n", &found), 0);
	assert_true(found == n);
	json_object_put(message);
}

static void expect_error(struct pair *pair, int err)
{
	struct json_object *message = NULL;

	assert_int_equal(wire_receive(pair->wire, &message), err);
	assert_null(message);
}

/* --- framing ------------------------------------------------------------------------------ */

static void test_lines(void **unused)
{
	struct pair pair = make_pair(WIRE_LINES, WIRE_MESSAGE_MAX);

	expect_error(&pair, -EAGAIN);
	put(&pair, "{\"n\": 1}\n{\"n\":2}\r\n\n \n  {\"n\": 3}  \n{\"n\"");
	expect(&pair, 1);
	expect(&pair, 2);
	expect(&pair, 3);
	expect_error(&pair, -EAGAIN);
	put(&pair, ": 4}");
	expect_error(&pair, -EAGAIN); /* the line may go on */
	put(&pair, "\n");
	expect(&pair, 4);
	drop_pair(&pair);
}

static void test_bad_lines_are_left(void **unused)
{
	static const char *const bad[] = {
		"garbage",
		"{\"n\": 1} {\"n\": 2}",
		"{\"n\": 1} x",
		"{\"n\": 1",
		"[{\"n\": 1}]",
		"17",
		"null",
		"\"{}\"",
		"{\"n\": 1}}",
		"{'n': }",
		"}",
	};
	struct pair pair = make_pair(WIRE_LINES, WIRE_MESSAGE_MAX);

	for (size_t i = 0; i < COUNT_OF(bad); i++) {
		put(&pair, bad[i]);
		put(&pair, "\n{\"n\": 7}\n");
		expect_error(&pair, -EBADMSG);
		expect(&pair, 7);
	}
	assert_int_equal(write(pair.fd, "{\"n\": \0 1}\n{\"n\": 8}\n", 20), 20);
	expect_error(&pair, -EBADMSG);
	expect(&pair, 8);
	drop_pair(&pair);
}

static void test_stream(void **unused)
{
	struct pair pair = make_pair(WIRE_STREAM, WIRE_MESSAGE_MAX);

	put(&pair, "{\n \"n\":\n 1 }{\"n\": 2}\r\n\r\n{\"n\": 3}");
	expect(&pair, 1);
	expect(&pair, 2);
	expect(&pair, 3);
	expect_error(&pair, -EAGAIN);
	drop_pair(&pair);
}

static void test_byte_by_byte(void **unused)
{
	static const char text[] = "{\"n\": 1}\n\n{\"n\": 2, \"a\": [1, {\"b\": \"\\u00e4}\"}]}\n";

	for (int framing = WIRE_LINES; framing <= WIRE_STREAM; framing++) {
		struct pair pair = make_pair(framing, WIRE_MESSAGE_MAX);
		unsigned int got = 0;

		for (const char *c = text; *c; c++) {
			struct json_object *message = NULL;

			assert_int_equal(write(pair.fd, c, 1), 1);
			int err = wire_receive(pair.wire, &message);
			assert_true(err == 0 || err == -EAGAIN);
			got += err == 0;
			json_object_put(message);
		}
		assert_int_equal(got, 2);
		drop_pair(&pair);
	}
}

static void test_too_long(void **unused)
{
	struct pair pair = make_pair(WIRE_LINES, 1000);
	char pad[2000];

	memset(pad, 'x', sizeof(pad));
	pad[sizeof(pad) - 1] = '\0';
	put(&pair, "{\"pad\": \"");
	put(&pair, pad);
	expect_error(&pair, -EMSGSIZE);
	drop_pair(&pair);

	/* The longest that is allowed. */
	pair = make_pair(WIRE_LINES, 1000);
	memcpy(pad, "{\"n\": 1}", 8);
	memset(pad + 8, ' ', 991);
	strcpy(pad + 999, "\n");
	put(&pair, pad);
	expect(&pair, 1);
	drop_pair(&pair);
}

static void test_end(void **unused)
{
	struct pair pair = make_pair(WIRE_LINES, WIRE_MESSAGE_MAX);

	put(&pair, "{\"n\": 1}\n{\"n\": 2");
	shutdown(pair.fd, SHUT_WR);
	expect(&pair, 1);
	expect_error(&pair, -EPIPE);
	drop_pair(&pair);
}

/* --- sending ------------------------------------------------------------------------------ */

static void test_full_queue(void **unused)
{
	struct pair pair = make_pair(WIRE_LINES, 4096);
	struct json_object *message = wire_new_request("x", NULL, 1);
	int sent = 0, err;

	assert_int_equal(wire_events(pair.wire), POLLIN);
	do {
		err = wire_send(pair.wire, message);
		sent++;
	} while (!err && sent < 1000000);
	assert_int_equal(err, -ENOBUFS);
	assert_int_equal(wire_events(pair.wire), POLLIN | POLLOUT);

	/* All that was taken arrives, in whole lines, once the other end reads. */
	char buf[65536];
	int lines = 0;
	assert_int_equal(fcntl(pair.fd, F_SETFL, O_NONBLOCK), 0);
	for (;;) {
		ssize_t got = read(pair.fd, buf, sizeof(buf));

		for (ssize_t i = 0; i < got; i++)
			lines += buf[i] == '\n';
		if (got < 0 && wire_events(pair.wire) == POLLIN)
			break;
		assert_int_equal(wire_flush(pair.wire), 0);
	}
	assert_int_equal(lines, sent - 1);
	json_object_put(message);
	drop_pair(&pair);
}

static void test_send_to_nobody(void **unused)
{
	struct pair pair = make_pair(WIRE_LINES, 4096);
	struct json_object *message = wire_new_request("x", NULL, 1);

	close(pair.fd);
	assert_int_equal(wire_send(pair.wire, message), -EPIPE);
	wire_close(pair.wire);
	wire_close(NULL);
	json_object_put(message);
}

static void test_message_too_long_to_send(void **unused)
{
	struct pair pair = make_pair(WIRE_LINES, 64);
	struct json_object *message = json_object_new_object();

	wire_add_text(message, "pad",
		      "0123456789012345678901234567890123456789012345678901234567890123456789");
	assert_int_equal(wire_send(pair.wire, message), -EMSGSIZE);
	assert_int_equal(wire_events(pair.wire), POLLIN);
	json_object_put(message);
	drop_pair(&pair);
}

/* --- messages ----------------------------------------------------------------------------- */

static struct json_object *parse(const char *text)
{
	struct json_object *object = json_tokener_parse(text);

	assert_non_null(object);
	return object;
}

static void check_json(struct json_object *message, const char *wanted)
{
	assert_non_null(message);
	assert_string_equal(json_object_to_json_string_ext(message, JSON_C_TO_STRING_PLAIN),
			    wanted);
	json_object_put(message);
}

static void test_requests(void **unused)
{
	static const struct {
		const char *text;
		int err;
		bool arguments;
	} cases[] = {
		{ "{\"execute\": \"set-limit\", \"arguments\": {\"bytes\": null}}", 0, true },
		{ "{\"execute\": \"set-limit\"}", 0, false },
		{ "{\"execute\": 1}", -EINVAL },
		{ "{\"execute\": null}", -EINVAL },
		{ "{}", -EINVAL },
		{ "{\"execute\": \"set-limit\", \"arguments\": []}", -EINVAL },
		{ "{\"execute\": \"set-limit\", \"arguments\": null}", -EINVAL },
	};

	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct json_object *message = parse(cases[i].text);
		struct json_object *arguments = NULL;
		const char *command = NULL;

		assert_int_equal(wire_parse_request(message, &command, &arguments), cases[i].err);
		if (cases[i].err)
			assert_null(command);
		else
			assert_string_equal(command, "set-limit");
		assert_int_equal(arguments != NULL, cases[i].arguments);
		json_object_put(message);
	}
}

static void test_answers(void **unused)
{
	struct json_object *request = parse("{\"execute\": \"x\", \"id\": {\"a\": [1, null]}}");
	struct json_object *null_id = parse("{\"execute\": \"x\", \"id\": null}");

	check_json(wire_new_return(request, NULL), "{\"return\":{},\"id\":{\"a\":[1,null]}}");
	check_json(wire_new_return(null_id, json_object_new_int(1)), "{\"return\":1,\"id\":null}");
	check_json(wire_new_return(NULL, NULL), "{\"return\":{}}");
	check_json(wire_new_error(NULL, WIRE_BAD_REQUEST, "%d is \"odd\"", 3),
		   "{\"error\":{\"class\":\"BadRequest\",\"desc\":\"3 is \\\"odd\\\"\"}}");
	check_json(wire_new_error(request, WIRE_FAILED, "no"),
		   "{\"error\":{\"class\":\"Failed\",\"desc\":\"no\"},\"id\":{\"a\":[1,null]}}");
	check_json(wire_new_request("y", json_object_new_object(), 5),
		   "{\"execute\":\"y\",\"id\":5,\"arguments\":{}}");
	json_object_put(request);
	json_object_put(null_id);
}

static void test_numbers(void **unused)
{
	static const struct {
		const char *text;
		int err;
		uint64_t value;
	} cases[] = {
		{ "{\"n\": 0}", 0, 0 },
		{ "{\"n\": 402653184}", 0, 402653184 },
		{ "{\"n\": 9223372036854775808}", 0, 1ULL << 63 },
		{ "{\"n\": 18446744073709551614}", 0, UINT64_MAX - 1 },
		{ "{\"n\": 18446744073709551615}", -EINVAL },
		{ "{\"n\": 99999999999999999999999}", -EINVAL },
		{ "{\"n\": -1}", -EINVAL },
		{ "{\"n\": -9223372036854775808}", -EINVAL },
		{ "{\"n\": 1.0}", -EINVAL },
		{ "{\"n\": \"1\"}", -EINVAL },
		{ "{\"n\": true}", -EINVAL },
		{ "{\"n\": {}}", -EINVAL },
		{ "{\"n\": null}", -ENODATA },
		{ "{\"m\": 1}", -ENOENT },
	};

	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct json_object *object = parse(cases[i].text);
		uint64_t value = 4321;

		if (wire_get_u64(object, "n", &value) != cases[i].err ||
		    value != (cases[i].err ? 4321 : cases[i].value))
			fail_msg("%s", cases[i].text);
		json_object_put(object);
	}
	assert_int_equal(wire_get_u64(NULL, "n", &(uint64_t){ 0 }), -ENOENT);
}

static void test_unknown_is_null(void **unused)
{
	struct json_object *object = json_object_new_object();

	assert_int_equal(wire_add_u64(object, "a", UINT64_MAX), 0);
	assert_int_equal(wire_add_u64(object, "b", UINT64_MAX - 1), 0);
	assert_int_equal(wire_add_u64(object, "c", 0), 0);
	assert_int_equal(wire_add_text(object, "d", NULL), 0);
	check_json(object, "{\"a\":null,\"b\":18446744073709551614,\"c\":0,\"d\":null}");
}

/* Each number of a segment has a name of its own, and none is left out. */
static void test_every_number_has_a_name(void **unused)
{
	struct mv_stats stats;
	size_t first = offsetof(struct mv_stats, pager_time) / 8;
	size_t last = sizeof(stats) / 8;
	unsigned char named[sizeof(stats) / 8] = { 0 };

	named[offsetof(struct mv_stats, pager_time) / 8]++;
	named[offsetof(struct mv_stats, balloon_time) / 8]++;
	named[offsetof(struct mv_stats, guest_time) / 8]++;
	for (unsigned int i = 0; i < stat_name_count; i++) {
		named[stat_names[i].offset / 8]++;
		for (unsigned int j = 0; j < i; j++)
			assert_string_not_equal(stat_names[i].name, stat_names[j].name);
	}
	for (size_t i = first; i < last; i++)
		assert_int_equal(named[i], 1);
}

/* --- the client against a server ---------------------------------------------------------- */

static void test_client(void **unused)
{
	static const struct peer_step steps[] = {
		{ PEER_READ,
		  "{\"execute\":\"set-limit\",\"id\":1,\"arguments\":{\"bytes\":null}}" },
		{ PEER_SEND, "{\"return\": {}, \"id\": 1}\n" },
		{ PEER_READ, "query-info" },
		{ PEER_SEND,
		  "{\"error\": {\"class\": \"Failed\", \"desc\": \"no\"}, \"id\": 2}\n" },
		{ PEER_READ, "query-info" },
		{ PEER_SEND, "{\"error\": {}}\n" },
		{ PEER_READ, "query-info" },
		{ PEER_WAIT, NULL, 300 },
		{ PEER_END },
	};
	struct json_object *args = json_object_new_object(), *value = NULL;
	struct rpc *rpc = NULL;
	struct fake_peer peer;
	char why[RPC_WHY];

	fake_peer_start(&peer, "control", steps);
	assert_int_equal(rpc_connect(RPC_CONTROL, peer.path, clock_now() + CLOCK_S, &rpc, why), 0);
	wire_add_text(args, "bytes", NULL);
	assert_int_equal(
		rpc_execute(rpc, "set-limit", args, clock_now() + 5 * CLOCK_S, &value, why), 0);
	json_object_put(value);
	value = NULL;
	assert_int_equal(rpc_execute(rpc, "query-info", NULL, clock_now() + 5 * CLOCK_S, &value,
				     why),
			 -EREMOTEIO);
	assert_string_equal(why, "no");
	assert_int_equal(rpc_execute(rpc, "query-info", NULL, clock_now() + 5 * CLOCK_S, &value,
				     why),
			 -EREMOTEIO);
	assert_int_equal(rpc_execute(rpc, "query-info", NULL, clock_now() + 50 * CLOCK_MS, &value,
				     why),
			 -ETIMEDOUT);
	assert_null(value);
	rpc_close(rpc);
	fake_peer_stop(&peer);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lines),
		cmocka_unit_test(test_bad_lines_are_left),
		cmocka_unit_test(test_stream),
		cmocka_unit_test(test_byte_by_byte),
		cmocka_unit_test(test_too_long),
		cmocka_unit_test(test_end),
		cmocka_unit_test(test_full_queue),
		cmocka_unit_test(test_send_to_nobody),
		cmocka_unit_test(test_message_too_long_to_send),
		cmocka_unit_test(test_requests),
		cmocka_unit_test(test_answers),
		cmocka_unit_test(test_numbers),
		cmocka_unit_test(test_unknown_is_null),
		cmocka_unit_test(test_every_number_has_a_name),
		cmocka_unit_test(test_client),
	};

	return cmocka_run_group_tests_name("control", tests, NULL, NULL);
}
