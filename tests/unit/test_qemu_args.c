/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What `memvirt run` reads from a QEMU command line: the VM's name, its QMP socket, and
 * whether it is only asked what it can do.
 */
#include "memvirt/run_qemu.h"
#include "support/testing.h"

#define ARGS(...) ((char *const[]){ __VA_ARGS__, NULL })

static void check_name(char *const *args, const char *wanted)
{
	char name[16] = "none";

	assert_int_equal(run_qemu_name(args, name, sizeof(name)), wanted != NULL);
	assert_string_equal(name, wanted ? wanted : "none");
}

static void test_names(void **unused)
{
	check_name(ARGS("-m", "512", "-name", "web"), "web");
	check_name(ARGS("--name", "web"), "web");
	check_name(ARGS("-name", "guest=web,debug-threads=on"), "web");
	check_name(ARGS("-name", "debug-threads=on,guest=web"), "web");
	check_name(ARGS("-name", "web,process=qemu:web"), "web");
	check_name(ARGS("-name", "a,,b"), "a,b");
	check_name(ARGS("-name", "guest=a,,,debug-threads=on"), "a,");
	check_name(ARGS("-name", "a name that is far too long"), "a name that is ");
	check_name(ARGS("-name", "debug-threads=on"), NULL);
	check_name(ARGS("-name", ""), NULL);
	check_name(ARGS("-name", "guest="), NULL);
	check_name(ARGS("-name"), NULL);
	check_name(ARGS("-names", "web"), NULL);
	check_name(ARGS("name", "web"), NULL);
	check_name((char *const[]){ NULL }, NULL);
}

static void check_qmp(char *const *args, const char *wanted)
{
	char path[32] = "none";

	assert_int_equal(run_qemu_qmp(args, path, sizeof(path)), wanted != NULL);
	assert_string_equal(path, wanted ? wanted : "none");
}

static void test_qmp(void **unused)
{
	check_qmp(ARGS("-qmp", "unix:/run/q.sock,server=on,wait=off"), "/run/q.sock");
	check_qmp(ARGS("--qmp", "unix:/run/q.sock"), "/run/q.sock");
	check_qmp(ARGS("-qmp-pretty", "unix:q.sock,server"), "q.sock");
	check_qmp(ARGS("-qmp", "unix:/run/a,,b"), "/run/a,b");
	check_qmp(ARGS("-qmp", "stdio", "-qmp", "unix:/run/2"), "/run/2");
	check_qmp(ARGS("-qmp", "tcp:localhost:4444"), NULL);
	check_qmp(ARGS("-qmp", "unix:"), NULL);
	check_qmp(ARGS("-qmp"), NULL);
	check_qmp(ARGS("-qmp", "unix:/a/path/that/is/too/long/for/the/buffer"), NULL);
}

static void test_monitor_with_chardev(void **unused)
{
	check_qmp(ARGS("-chardev", "socket,id=mon0,path=/run/q,server=on", "-mon",
		       "chardev=mon0,mode=control"),
		  "/run/q");
	check_qmp(ARGS("-mon", "mon0,mode=control,pretty=on", "-chardev",
		       "socket,path=/run/q,id=mon0"),
		  "/run/q");
	check_qmp(ARGS("-chardev", "socket,id=a,path=/run/a", "-chardev",
		       "backend=socket,id=b,path=/run/b", "-mon", "chardev=a,mode=readline", "-mon",
		       "chardev=b,mode=control"),
		  "/run/b");
	/* libvirt hands a descriptor over: there is no path. */
	check_qmp(ARGS("-chardev", "socket,id=charmonitor,fd=30,server=on,wait=off", "-mon",
		       "chardev=charmonitor,id=monitor,mode=control"),
		  NULL);
	check_qmp(ARGS("-chardev", "pty,id=a,path=/run/a", "-mon", "chardev=a,mode=control"), NULL);
	check_qmp(ARGS("-chardev", "socket,id=a,path=/run/a", "-mon", "chardev=a"), NULL);
	check_qmp(ARGS("-chardev", "socket,id=ab,path=/run/a", "-mon", "chardev=a,mode=control"),
		  NULL);
}

static void test_probes(void **unused)
{
	assert_true(run_qemu_is_probe(ARGS("-version")));
	assert_true(run_qemu_is_probe(ARGS("--help")));
	assert_true(run_qemu_is_probe(ARGS("-h")));
	assert_true(run_qemu_is_probe(ARGS("-S", "-nodefaults", "-machine", "none,accel=kvm:tcg",
					   "-qmp", "unix:/x,server=on", "-daemonize")));
	assert_true(run_qemu_is_probe(ARGS("-M", "none")));
	assert_true(run_qemu_is_probe(ARGS("-machine", "accel=tcg,type=none")));
	assert_true(run_qemu_is_probe(ARGS("-cpu", "help")));
	assert_true(run_qemu_is_probe(ARGS("-device", "virtio-blk-pci,help")));
	assert_true(run_qemu_is_probe(ARGS("-machine", "?")));
	assert_false(run_qemu_is_probe(ARGS("-machine", "q35", "-m", "512")));
	assert_false(run_qemu_is_probe(ARGS("-M", "nonesuch")));
	assert_false(run_qemu_is_probe(ARGS("-name", "version", "-append", "help none")));
	assert_false(run_qemu_is_probe((char *const[]){ NULL }));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_qmp),
		cmocka_unit_test(test_monitor_with_chardev),
		cmocka_unit_test(test_probes),
	};

	return cmocka_run_group_tests_name("qemu_args", tests, NULL, NULL);
}
