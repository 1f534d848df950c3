/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a peer may send that is not what it should be: messages cut, spliced, repeated and
 * mangled, in pieces of any size. The wire gives one of its documented results, the same
 * however the text was cut; with WIRE_LINES it finds the next good line.
 */
#include <sys/socket.h>
#include <unistd.h>

#include "support/testing.h"
#include "vm/control_wire.h"
#include "vm/qmp.h"

#define ROUNDS	    20000
#define TEXT_MAX    4096
#define MESSAGE_MAX 2048
#define RESULTS_MAX 512

static const char *const samples[] = {
	"{\"execute\": \"query-info\", \"id\": 1}\n",
	"{\"execute\": \"set-limit\", \"arguments\": {\"bytes\": 402653184}, \"id\": \"x\"}\n",
	"{\"return\": {\"actual\": 536870912}, \"id\": 3}\r\n",
	"{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 22}}, \"capabilities\": [\"oob\"]}}\r\n",
	"{\"timestamp\": {\"seconds\": 1, \"microseconds\": 2}, \"event\": \"STOP\"}\r\n",
	"{\"return\": {\"last-update\": 17, \"stats\": {\"stat-free-memory\": -1}}, \"id\": 4}\n",
	"{\"return\": [{\"name\": \"b\", \"type\": \"child<virtio-balloon-pci>\"}], \"id\": 5}\n",
	"{\n  \"a\": [ 1,\n 2.5e10, \"\\u00e4\\\"\\n\", true, null, {} ]\n}\n",
};

/** struct text - bytes to send, of any kind */
struct text {
	char bytes[TEXT_MAX];
	size_t len;
};

static void append(struct text *text, const char *bytes, size_t len)
{
	if (len > TEXT_MAX - text->len)
		len = TEXT_MAX - text->len;
	memcpy(text->bytes + text->len, bytes, len);
	text->len += len;
}

static void mangle(struct chance *chance, struct text *text)
{
	size_t at;

	if (!text->len)
		return;
	at = chance_below(chance, text->len);
	switch (chance_below(chance, 5)) {
	case 0: /* another byte */
		text->bytes[at] = (char)chance_next(chance);
		break;
	case 1: /* cut */
		text->len = at;
		break;
	case 2: /* a hole */
		memmove(text->bytes + at, text->bytes + at + 1, text->len - at - 1);
		text->len--;
		break;
	case 3: { /* a piece again */
		size_t from = chance_below(chance, text->len);
		char piece[64];
		size_t len = chance_below(chance, sizeof(piece));

		len = len < text->len - from ? len : text->len - from;
		memcpy(piece, text->bytes + from, len);
		append(text, piece, len);
		break;
	}
	default: /* what parsers stumble over */
		text->bytes[at] = "{}[]\",:\\\n\0 -9eE."[chance_below(chance, 16)];
	}
}

static struct text random_text(struct chance *chance)
{
	struct text text = { .len = 0 };
	uint64_t messages = 1 + chance_below(chance, 4);

	while (messages--) {
		const char *sample = samples[chance_below(chance, COUNT_OF(samples))];

		append(&text, sample, strlen(sample));
	}
	for (uint64_t i = chance_below(chance, 8); i; i--)
		mangle(chance, &text);
	return text;
}

/* What programs do with a message must bear any object. */
static void use(struct json_object *message)
{
	struct json_object *arguments, *value = NULL;
	struct qmp_guest_stats stats;
	char path[QMP_PATH_MAX];
	const char *command;
	uint64_t number;

	wire_parse_request(message, &command, &arguments);
	json_object_put(wire_new_return(message, NULL));
	wire_get_u64(message, "id", &number);
	json_object_object_get_ex(message, "return", &value);
	qmp_find_balloon(value, QMP_PERIPHERAL, path);
	qmp_parse_balloon(value, &number);
	qmp_parse_guest_stats(value, &stats);
}

static void take(struct wire *wire, int *results, unsigned int *count, enum wire_framing framing)
{
	for (;;) {
		struct json_object *message = NULL;
		int err = wire_receive(wire, &message);

		if (err == -EAGAIN)
			return;
		if (*count == RESULTS_MAX)
			return;
		if (!err) {
			assert_true(json_object_is_type(message, json_type_object));
			use(message);
			json_object_put(message);
		} else {
			assert_null(message);
			assert_true(err == -EBADMSG || err == -EMSGSIZE || err == -EPIPE);
		}
		results[(*count)++] = err;
		/* The end of what can be read here. */
		if (err == -EPIPE || err == -EMSGSIZE || (err && framing == WIRE_STREAM))
			return;
	}
}

/* Send it in pieces of up to @piece_max bytes, and note what comes out. */
static unsigned int pass(const struct text *text, enum wire_framing framing, size_t piece_max,
			 struct chance *chance, int *results)
{
	unsigned int count = 0;
	struct wire *wire;
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	assert_int_equal(wire_open(fds[0], framing, MESSAGE_MAX, &wire), 0);
	for (size_t sent = 0; sent < text->len;) {
		size_t len = 1 + chance_below(chance, piece_max);

		len = len < text->len - sent ? len : text->len - sent;
		assert_int_equal(write(fds[1], text->bytes + sent, len), len);
		sent += len;
		take(wire, results, &count, framing);
		if (count && results[count - 1] && results[count - 1] != -EBADMSG)
			break;
		if (count && results[count - 1] && framing == WIRE_STREAM)
			break;
	}
	close(fds[1]);
	wire_close(wire);
	return count;
}

static void sweep(enum wire_framing framing)
{
	struct chance chance = chance_of(test_seed(), framing);
	uint64_t rounds = test_rounds(ROUNDS);

	for (uint64_t round = 0; round < rounds; round++) {
		struct text text = random_text(&chance);
		int whole[RESULTS_MAX], pieces[RESULTS_MAX];
		unsigned int n = pass(&text, framing, TEXT_MAX, &chance, whole);

		assert_int_equal(pass(&text, framing, 7, &chance, pieces), n);
		assert_memory_equal(whole, pieces, n * sizeof(whole[0]));
	}
}

static void test_mangled_lines(void **unused)
{
	sweep(WIRE_LINES);
}

static void test_mangled_stream(void **unused)
{
	sweep(WIRE_STREAM);
}

/* After any text that ends its line, the next good line is understood. */
static void test_next_line(void **unused)
{
	static const char good[] = "\n{\"n\": 1}\n";
	struct chance chance = chance_of(test_seed(), 9);
	uint64_t rounds = test_rounds(ROUNDS);

	for (uint64_t round = 0; round < rounds; round++) {
		struct text text = random_text(&chance);
		int results[RESULTS_MAX];

		if (text.len > TEXT_MAX - sizeof(good))
			continue;
		append(&text, good, sizeof(good) - 1);
		unsigned int n = pass(&text, WIRE_LINES, 100, &chance, results);
		assert_true(n > 0);
		assert_int_equal(results[n - 1], 0);
	}
}

static void test_noise(void **unused)
{
	struct chance chance = chance_of(test_seed(), 10);
	uint64_t rounds = test_rounds(ROUNDS / 4);

	for (uint64_t round = 0; round < rounds; round++) {
		struct text text = { .len = chance_below(&chance, TEXT_MAX) };
		int results[RESULTS_MAX];

		for (size_t i = 0; i < text.len; i++)
			text.bytes[i] = (char)chance_next(&chance);
		pass(&text, round % 2 ? WIRE_LINES : WIRE_STREAM, 1000, &chance, results);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_mangled_lines),
		cmocka_unit_test(test_mangled_stream),
		cmocka_unit_test(test_next_line),
		cmocka_unit_test(test_noise),
	};

	return cmocka_run_group_tests_name("wire_input", tests, NULL, NULL);
}
