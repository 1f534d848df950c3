/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * base64: RFC 4648's own examples, every length, and texts that are none.
 */
#include "support/testing.h"

#include "vm/base64.h"

/* RFC 4648, section 10. */
static const char *const examples[] = { "",	    "Zg==",	"Zm8=",	   "Zm9v",
					"Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy" };

static void the_standards_examples(void **state)
{
	char text[16], bytes[8];

	for (size_t n = 0; n < COUNT_OF(examples); n++) {
		base64_encode("foobar", n, text);
		assert_string_equal(text, examples[n]);
		assert_int_equal(base64_decode(text, strlen(text), bytes, n), 0);
		assert_memory_equal(bytes, "foobar", n);
	}
}

static void whatever_is_encoded_comes_back(void **state)
{
	unsigned char bytes[300], back[300];
	char text[BASE64_LENGTH(300) + 1];

	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (unsigned char)(i * 167 + (i >> 3));
	for (size_t n = 0; n <= sizeof(bytes); n++) {
		base64_encode(bytes, n, text);
		assert_int_equal(strlen(text), BASE64_LENGTH(n));
		assert_int_equal(base64_decode(text, strlen(text), back, n), 0);
		assert_memory_equal(back, bytes, n);
	}
}

/* One character changed at a time: another result, or none, but never the same. */
static void what_is_changed_is_noticed(void **state)
{
	unsigned char bytes[4];
	char text[9];

	base64_encode("\x12\x34\x56\x78", 4, text);
	for (size_t at = 0; at < 8; at++)
		for (int c = 0; c < 256; c++) {
			char other[9];

			memcpy(other, text, 9);
			other[at] = (char)c;
			if (other[at] == text[at] || base64_decode(other, 8, bytes, 4))
				continue;
			assert_memory_not_equal(bytes, "\x12\x34\x56\x78", 4);
		}
}

static void what_is_none_is_refused(void **state)
{
	static const struct {
		const char *text;
		size_t count;
	} bad[] = {
		{ "Zm9v", 2 },	{ "Zm9v", 4 }, { "Zm9", 3 },  { "Zm9vY", 3 }, { "Zm8=", 3 },
		{ "Zm9=", 2 },	{ "Zh==", 1 }, { "Z===", 1 }, { "Zg=", 1 },   { "Zg=a", 1 },
		{ "=m9v", 3 },	{ "Zm-v", 3 }, { "Zm_v", 3 }, { "Zm v", 3 },  { "====", 1 },
		{ "Zm8\0", 2 }, { "", 1 },
	};
	char bytes[8];

	for (size_t i = 0; i < COUNT_OF(bad); i++)
		assert_int_not_equal(
			base64_decode(bad[i].text, strlen(bad[i].text), bytes, bad[i].count), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_standards_examples),
		cmocka_unit_test(whatever_is_encoded_comes_back),
		cmocka_unit_test(what_is_changed_is_noticed),
		cmocka_unit_test(what_is_none_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
