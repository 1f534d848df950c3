/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * minivmm: what is made in which order. See minivmm.h.
 */
#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <memvirt/version.h>

#include "minivmm.h"

#define MEMORY_DEFAULT (256UL << 20)
#define MEMORY_MIN     (32UL << 20)

/* Both of RING_PACKED and the rest may be left out, to see how drivers do. */
#define FEATURES_DEFAULT (MV_BALLOON_FEATURES & ~MV_BALLOON_RING_PACKED)

void die(const char *format, ...)
{
	va_list args;

	fprintf(stderr, "minivmm: ");
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fprintf(stderr, "\n");
	exit(EXIT_FAILURE);
}

void must(int err, const char *what)
{
	if (err)
		die("%s: %s", what, strerror(-err));
}

static void print_help(void)
{
	printf("Usage: minivmm --kernel FILE [OPTIONS]\n"
	       "       minivmm --payload FILE [OPTIONS]\n"
	       "Run a Linux kernel on KVM, its memory managed by libmemvirt. An example.\n"
	       "\n"
	       "  --kernel FILE     a bzImage, such as Debian's /boot/vmlinuz-…\n"
	       "  --initrd FILE     its initramfs\n"
	       "  --append TEXT     its command line (console=ttyS0)\n"
	       "  --payload FILE    64-bit code, loaded and entered at 1 MiB\n"
	       "  --memory MIB      the guest's memory (256)\n"
	       "  --limit MIB       of it resident at most (no limit)\n"
	       "  --features MASK   of the balloon device (0x%llx)\n"
	       "  --name NAME --run-dir DIR\n"
	       "                    to be seen by memstat and governed by memvirt govern\n"
	       "  --help, --version\n"
	       "\n"
	       "Ends with status 0 when the guest resets the machine.\n"
	       "\n"
	       "Examples:\n"
	       "  minivmm --kernel vmlinuz --initrd initramfs.cpio.gz --limit 64\n"
	       "  minivmm --kernel vmlinuz --name web --run-dir /run/memvirt\n",
	       (unsigned long long)FEATURES_DEFAULT);
}

static uint64_t number(const char *option, const char *text, uint64_t most)
{
	char *end;
	unsigned long long value = strtoull(text, &end, 0);

	if (*text < '0' || *text > '9' || *end || value > most) {
		fprintf(stderr, "minivmm: --%s: '%s' is no number up to %llu\n", option, text,
			(unsigned long long)most);
		exit(2);
	}
	return value;
}

static const struct option long_options[] = {
	{ "kernel", required_argument, NULL, 'k' },   { "initrd", required_argument, NULL, 'i' },
	{ "append", required_argument, NULL, 'a' },   { "payload", required_argument, NULL, 'p' },
	{ "memory", required_argument, NULL, 'm' },   { "limit", required_argument, NULL, 'l' },
	{ "features", required_argument, NULL, 'f' }, { "name", required_argument, NULL, 'n' },
	{ "run-dir", required_argument, NULL, 'r' },  { "help", no_argument, NULL, 'h' },
	{ "version", no_argument, NULL, 'v' },	      { NULL, 0, NULL, 0 },
};

static void take_option(int option, struct options *o)
{
	switch (option) {
	case 'k':
		o->kernel = optarg;
		break;
	case 'i':
		o->initrd = optarg;
		break;
	case 'a':
		o->append = optarg;
		break;
	case 'p':
		o->payload = optarg;
		break;
	case 'm':
		o->memory_bytes = number("memory", optarg, RAM_BYTES_MAX >> 20) << 20;
		break;
	case 'l':
		o->limit_bytes = number("limit", optarg, RAM_BYTES_MAX >> 20) << 20;
		break;
	case 'f':
		o->features = number("features", optarg, UINT64_MAX);
		break;
	case 'n':
		o->name = optarg;
		break;
	case 'r':
		o->run_dir = optarg;
		break;
	case 'h':
		print_help();
		exit(EXIT_SUCCESS);
	case 'v':
		printf("minivmm %s\n", mv_version());
		exit(EXIT_SUCCESS);
	default:
		exit(2); /* getopt_long() has said why */
	}
}

static void check_options(const struct options *o)
{
	if (!o->kernel == !o->payload)
		fprintf(stderr, "minivmm: one of --kernel and --payload is needed\n");
	else if (!o->name != !o->run_dir)
		fprintf(stderr, "minivmm: --name and --run-dir go together\n");
	else if (o->memory_bytes < MEMORY_MIN)
		fprintf(stderr, "minivmm: --memory: at least %lu\n", MEMORY_MIN >> 20);
	else
		return;
	exit(2);
}

/* The device may reach memory from the vCPU's thread alone, so it goes with the memory. */
static void destroy(struct vmm *vmm)
{
	control_destroy(vmm);
	virtio_destroy(&vmm->virtio);
	munmap(vmm->run, vmm->run_bytes);
	close(vmm->vcpu);
	close(vmm->vm);
	close(vmm->kvm);
	ram_destroy(&vmm->ram);
}

int main(int argc, char **argv)
{
	static struct vmm vmm = { .options = { .memory_bytes = MEMORY_DEFAULT,
					       .limit_bytes = MV_PAGER_UNLIMITED,
					       .features = FEATURES_DEFAULT } };
	int option, status;

	while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1)
		take_option(option, &vmm.options);
	check_options(&vmm.options);
	ram_create(&vmm.ram, &vmm.options);
	vcpu_create(&vmm);
	serial_create(&vmm.serial, vmm.vm);
	virtio_create(&vmm.virtio, vmm.vm, &vmm.ram, vmm.options.features);
	if (vmm.options.kernel)
		boot_linux(&vmm);
	else
		boot_payload(&vmm);
	if (vmm.options.name)
		control_create(&vmm);
	status = vcpu_run(&vmm);
	destroy(&vmm);
	return status;
}
