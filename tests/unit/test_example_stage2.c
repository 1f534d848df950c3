/* SPDX-License-Identifier: BSD-2-Clause */
/* The example that a VMM's author copies from does what it says. */
#include <libgen.h>
#include <limits.h>
#include <unistd.h>

#include "support/testing.h"

/* Beside the tests that are built: BUILD/tests/unit/… and BUILD/examples/stage2. */
static void example_path(char *path, size_t bytes)
{
	char self[PATH_MAX];
	ssize_t length = readlink("/proc/self/exe", self, sizeof(self) - 1);

	assert_true(length > 0);
	self[length] = 0;
	snprintf(path, bytes, "%s/examples/stage2", dirname(dirname(dirname(self))));
}

static void the_example_faults_and_walks(void **state)
{
	char path[PATH_MAX + 32], output[4096];
	size_t length;
	FILE *pipe;

	example_path(path, sizeof(path));
	if (access(path, X_OK)) {
		print_message("# skip-reason: %s is not built: make all\n", path);
		skip();
	}
	pipe = popen(path, "r");
	assert_non_null(pipe);
	length = fread(output, 1, sizeof(output) - 1, pipe);
	output[length] = 0;
	assert_int_equal(pclose(pipe), 0);
	/* A page by a fault, a device, a page that was protected and can still be read. */
	assert_non_null(strstr(output, "gpa 0x100345678: EPT violation, qualification 0x2: fixed"));
	assert_non_null(strstr(output, "gpa 0xfee00000: EPT violation, qualification 0x1: MMIO"));
	assert_non_null(
		strstr(output, "gpa 0x100000000: EPT violation, qualification 0x2: protected"));
	assert_non_null(strstr(output, "in a page of 4 KiB"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_example_faults_and_walks),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
