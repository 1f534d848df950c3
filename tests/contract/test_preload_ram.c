/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The preload library finds guest memory, whatever is behind it; keeps its content through
 * eviction; and follows when the VMM unmaps, moves or discards it.
 */
#include "support/testing.h"
#include "support/fake_vmm.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define LIMIT	 "8388608"
#define RAM	 (32 * MIB)
#define PAGE	 4096UL
#define WORD_GPA 0x100000000ULL

/* --- finding -------------------------------------------------------------------------------- */

static void check_managed(void *ram, size_t bytes, const char *backing)
{
	struct vmm_region region = vmm_region(0);

	insist(region.found && region.bytes == bytes && region.first_gpa == UINT64_MAX);
	insist(strcmp(region.backing, backing) == 0);
	if (!region.managed && strstr(region.reason, "UFFDIO_MOVE"))
		vmm_skip("this kernel has no UFFDIO_MOVE");
	insist(region.managed);
	vmm_fill(ram, bytes, 3);
	vmm_wait_at_least("evictions", 1000);
	vmm_wait_at_most("resident-bytes", 8 * MIB);
	insist(vmm_holds_content(ram, bytes, 3));
	insist(vmm_stat("restores") > 0 && vmm_stat("poisoned") == 0);
}

static void find_memfd(void)
{
	check_managed(vmm_map(RAM, vmm_memfd(RAM), 0), RAM, "memfd");
	insist(!vmm_region(1).found);
}

static void find_closed_memfd(void)
{
	int fd = vmm_memfd(RAM);
	void *ram = vmm_map(RAM, fd, 0);

	close(fd);
	check_managed(ram, RAM, "memfd");
}

static void find_shm_file(void)
{
	int fd = open("/dev/shm", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	if (fd < 0 || ftruncate(fd, RAM))
		vmm_skip("/dev/shm is no tmpfs");
	check_managed(vmm_map(RAM, fd, 0), RAM, "shm-file");
}

static void find_anonymous(void)
{
	check_managed(vmm_map(RAM, -1, 0), RAM, "anonymous");
}

static void find_shared_anonymous(void)
{
	void *ram = vmm_map(RAM, -2, 0);

	if (!vmm_region(0).managed)
		vmm_skip("/proc/self/map_files may not be opened by this user");
	check_managed(ram, RAM, "shm-file");
}

static void check_unmanaged(void *ram, const char *backing, const char *word)
{
	struct vmm_region region = vmm_region(0);

	insist(region.found && !region.managed);
	insist(strcmp(region.backing, backing) == 0 && strstr(region.reason, word));
	(void)ram;
}

static void find_file(void)
{
	char path[] = "/tmp/memvirt-file-XXXXXX";
	int fd = mkostemp(path, O_CLOEXEC);
	void *ram;

	unlink(path);
	insist(ftruncate(fd, RAM) == 0);
	ram = vmm_map(RAM, fd, 0);
	if (strcmp(vmm_region(0).backing, "file"))
		vmm_skip("/tmp is a tmpfs");
	check_unmanaged(ram, "file", "memory-backend-memfd");
	vmm_fill(ram, MIB, 1);
	insist(vmm_holds_content(ram, MIB, 1));
}

static void find_private_copy(void)
{
	int fd = vmm_memfd(RAM);
	void *space = mmap(NULL, RAM, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	void *ram = mmap(space, RAM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, fd, 0);

	check_unmanaged(ram, "file", "share=on");
}

static void find_hugetlb(void)
{
	int fd = memfd_create("huge", MFD_CLOEXEC | MFD_HUGETLB);
	void *space, *ram;

	if (fd < 0 || ftruncate(fd, RAM))
		vmm_skip("this kernel has no huge pages");
	space = mmap(NULL, RAM + 2 * MIB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ram = (void *)(((uintptr_t)space + 2 * MIB - 1) & ~(2 * MIB - 1));
	ram = mmap(ram, RAM, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED | MAP_NORESERVE, fd, 0);
	insist(ram != MAP_FAILED);
	check_unmanaged(ram, "hugetlb", "hugetlbfs");
}

/* What is not mapped as guest memory is, or is too small, wakes nobody. */
static void find_nothing(void)
{
	void *plain = mmap(NULL, RAM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	void *video = vmm_map(16 * MIB, -1, 0);

	insist(plain != MAP_FAILED && video);
	insist(!vmm_managed());
	insist(getenv("MEMVIRT_NAME")); /* for what this program may execute */
}

static void find_plugged(void)
{
	void *first = vmm_map(RAM, vmm_memfd(RAM), 0);
	void *second;

	vmm_fill(first, RAM, 5);
	second = vmm_map(RAM, vmm_memfd(RAM), 0);
	insist(vmm_region(1).managed);
	insist(vmm_stat("configured-bytes") == 2 * RAM);
	vmm_fill(second, RAM, 6);
	vmm_wait_at_most("resident-bytes", 8 * MIB);
	insist(vmm_holds_content(first, RAM, 5) && vmm_holds_content(second, RAM, 6));
}

static void find_unlimited(void)
{
	int fd;
	void *ram;

	fd = vmm_memfd(RAM);
	ram = vmm_map(RAM, fd, 0);
	vmm_fill(ram, RAM, 7);
	insist(vmm_stat("limit-bytes") == UINT64_MAX && vmm_stat("evictions") == 0);
	insist(vmm_ask("set-limit", "{\"bytes\": 4194304}"));
	vmm_wait_at_most("resident-bytes", 4 * MIB);
	insist(vmm_holds_content(ram, RAM, 7));
	insist(vmm_ask("set-limit", "{\"bytes\": null}"));
	insist(vmm_stat("limit-bytes") == UINT64_MAX && vmm_stat("stored-pages") == 0);
	insist(vmm_holds_content(ram, RAM, 7));
}

/* --- KVM slots ------------------------------------------------------------------------------ */

static int kvm_vm(void)
{
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	int vm = kvm < 0 ? -1 : ioctl(kvm, KVM_CREATE_VM, 0);

	if (vm < 0)
		vmm_skip("no /dev/kvm");
	return vm;
}

static void set_slot(int vm, uint32_t slot, void *memory, uint64_t gpa, uint64_t bytes,
		     uint32_t flags)
{
	struct kvm_userspace_memory_region region = { slot, flags, gpa, bytes, (uintptr_t)memory };

	if (ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region))
		vmm_skip("this KVM takes no such slot");
}

static void find_slot(void)
{
	int vm = kvm_vm(), fd = vmm_memfd(RAM);
	void *ram = mmap(NULL, RAM, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	void *rom = mmap(NULL, 2 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	set_slot(vm, 0, rom, 0, 64 * 1024, 0);
	insist(!vmm_managed());
	set_slot(vm, 1, ram, WORD_GPA, RAM, 0);
	insist(vmm_managed());
	set_slot(vm, 2, rom, 0x80000000, 2 * MIB, KVM_MEM_READONLY);
	insist(vmm_region(0).managed && vmm_region(0).first_gpa == WORD_GPA);
	insist(!vmm_region(1).found);
	vmm_fill(ram, RAM, 9);
	vmm_wait_at_most("resident-bytes", 8 * MIB);
	insist(vmm_holds_content(ram, RAM, 9));
	set_slot(vm, 1, ram, WORD_GPA, 0, 0);
	insist(vmm_region(0).managed && vmm_region(0).first_gpa == UINT64_MAX);
}

/* QEMU with KVM shows its memory both ways. */
static void find_both_ways(void)
{
	int vm = kvm_vm();
	char *ram = vmm_map(RAM, vmm_memfd(RAM), 0);

	set_slot(vm, 0, ram, 0, RAM / 2, 0);
	set_slot(vm, 1, ram + RAM / 2, WORD_GPA, RAM / 2, 0);
	insist(vmm_region(0).first_gpa == 0 && vmm_region(0).bytes == RAM);
	insist(!vmm_region(1).found);
}

/* --- mappings that change ------------------------------------------------------------------- */

static void unmap_all(void)
{
	int fd;
	void *ram = vmm_full_memfd(RAM, &fd);

	insist(munmap(ram, RAM) == 0);
	insist(!vmm_region(0).found);
	insist(vmm_stat("stored-pages") == 0 && vmm_stat("resident-bytes") == 0);
	ram = vmm_full_memfd(RAM, &fd);
	insist(vmm_holds_content(ram, RAM, 1));
}

static void unmap_middle(void)
{
	int fd;
	char *ram = vmm_full_memfd(RAM, &fd), *middle;

	insist(munmap(ram + RAM / 4, RAM / 4) == 0);
	insist(vmm_region(0).managed && vmm_region(0).bytes == RAM / 4);
	insist(vmm_region(1).managed && vmm_region(1).bytes == RAM / 2);
	vmm_wait_at_most("resident-bytes", 8 * MIB);
	insist(vmm_holds_content(ram, RAM / 4, 1));
	/* Content that was unmapped is still in the file. */
	middle = mmap(NULL, RAM / 4, PROT_READ | PROT_WRITE, MAP_SHARED, fd, RAM / 4);
	insist(middle != MAP_FAILED && vmm_holds_content_at(middle, RAM / 4, 1, RAM / 4));
	insist(vmm_holds_content_at(ram + RAM / 2, RAM / 2, 1, RAM / 2));
	insist(!vmm_held(""));
}

static void replace_page(void)
{
	int fd;
	char *ram = vmm_full_memfd(RAM, &fd);

	/* As QEMU replaces a page that the hardware has lost. */
	insist(mmap(ram + RAM / 2, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd,
		    RAM / 2) == ram + RAM / 2);
	insist(vmm_region(0).managed && vmm_region(0).bytes == RAM);
	insist(vmm_holds_content(ram, RAM, 1));
	vmm_wait_at_most("resident-bytes", 8 * MIB);
	insist(vmm_holds_content(ram, RAM, 1));
}

static void bad_calls(void)
{
	int fd;
	char *ram = vmm_full_memfd(RAM, &fd);

	errno = 0;
	insist(munmap(ram + 1, PAGE) == -1 && errno == EINVAL);
	insist(munmap(ram, 0) == -1 && errno == EINVAL);
	insist(mmap(ram, PAGE, PROT_READ, MAP_SHARED | MAP_FIXED, -1, 0) == MAP_FAILED &&
	       errno == EBADF);
	insist(madvise(ram, PAGE, 12345) == -1 && errno == EINVAL);
	insist(madvise(ram + 1, PAGE, MADV_REMOVE) == -1 && errno == EINVAL);
	insist(fallocate(fd, FALLOC_FL_PUNCH_HOLE, 0, PAGE) == -1 && errno == EOPNOTSUPP);
	insist(fallocate(-1, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PAGE) == -1 &&
	       errno == EBADF);
	insist(vmm_holds_content(ram, RAM, 1));
	insist(vmm_region(0).managed);
}

static void move_memory(void)
{
	int fd;
	char *ram = vmm_full_memfd(RAM, &fd), *moved;

	insist(ftruncate(fd, 2 * RAM) == 0);
	moved = mremap(ram, RAM, 2 * RAM, MREMAP_MAYMOVE);
	insist(moved != MAP_FAILED);
	insist(vmm_region(0).managed && vmm_region(0).bytes == 2 * RAM);
	insist(vmm_holds_content(moved, RAM, 1));
	vmm_fill(moved + RAM, RAM, 2);
	vmm_wait_at_most("resident-bytes", 8 * MIB);
	insist(vmm_holds_content(moved, RAM, 1) && vmm_holds_content(moved + RAM, RAM, 2));
}

static void shrink_file(void)
{
	int fd;
	char *ram = vmm_full_memfd(RAM, &fd);
	struct stat st;

	insist(ftruncate(fd, RAM / 2) == 0);
	insist(vmm_region(0).bytes == RAM / 2 && !vmm_region(1).found);
	insist(fstat(fd, &st) == 0 && st.st_size == RAM / 2);
	insist(vmm_holds_content(ram, RAM / 2, 1));
	vmm_wait_at_most("resident-bytes", 8 * MIB);
	insist(vmm_holds_content(ram, RAM / 2, 1));
}

/* --- discards ------------------------------------------------------------------------------- */

static void punch(void)
{
	int fd, mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
	char *ram = vmm_full_memfd(RAM, &fd), edge[100];

	insist(fallocate(fd, mode, RAM / 4, RAM / 4) == 0);
	insist(vmm_is_zero(ram + RAM / 4, RAM / 4));
	insist(vmm_holds_content(ram, RAM / 4, 1));
	vmm_wait_at_least("discards", 1);

	/* Parts of pages: the rest of them stays. */
	vmm_fill(ram, RAM, 2);
	memcpy(edge, ram, sizeof(edge));
	vmm_wait_at_most("resident-bytes", 8 * MIB);
	insist(fallocate(fd, mode, 100, 3 * PAGE) == 0);
	insist(vmm_is_zero(ram + 100, 3 * PAGE));
	vmm_fill(ram + 200 * PAGE, 4 * PAGE, 77);
	insist(vmm_holds_content(ram + 200 * PAGE, 4 * PAGE, 77));
	insist(memcmp(ram, edge, sizeof(edge)) == 0);
}

/* Two regions of one file, and a hole that goes over both of them and beyond. */
static void punch_across(void)
{
	int fd = vmm_memfd(2 * RAM), mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
	char *low = vmm_map(RAM, fd, RAM), *high = vmm_map(RAM, fd, 0);

	insist(vmm_region(0).managed && vmm_region(1).managed);
	vmm_fill(low, RAM, 1);
	vmm_fill(high, RAM, 2);
	vmm_wait_at_most("resident-bytes", 8 * MIB);
	insist(fallocate(fd, mode, RAM / 2, RAM + RAM / 4) == 0);
	insist(vmm_holds_content(high, RAM / 2, 2));
	insist(vmm_is_zero(high + RAM / 2, RAM / 2));
	insist(vmm_is_zero(low, 3 * RAM / 4));
	insist(fallocate(fd, mode, 0, 4 * RAM) == 0);
	insist(vmm_is_zero(low, RAM) && vmm_is_zero(high, RAM));
}

static void remove_range(void)
{
	int fd;
	char *ram = vmm_full_memfd(RAM, &fd);

	insist(madvise(ram + RAM / 2, RAM / 4, MADV_REMOVE) == 0);
	insist(vmm_is_zero(ram + RAM / 2, RAM / 4));
	insist(vmm_holds_content(ram, RAM / 2, 1));
	vmm_fill(ram, RAM, 2);
	insist(vmm_holds_content(ram, RAM, 2));
}

static void dontneed_shared(void)
{
	int fd;
	char *ram = vmm_full_memfd(RAM, &fd);

	insist(madvise(ram, RAM, MADV_DONTNEED) == 0);
	insist(vmm_holds_content(ram, RAM, 1));
	insist(vmm_stat("discards") == 0);
}

static void give_up_private(int advice)
{
	char *ram = vmm_map(RAM, -1, 0);

	if (!vmm_region(0).managed)
		vmm_skip("this kernel has no UFFDIO_MOVE");
	vmm_fill(ram, RAM, 1);
	vmm_wait_at_least("evictions", 1000);
	vmm_wait_at_most("resident-bytes", 8 * MIB);
	insist(madvise(ram + RAM / 4, RAM / 2, advice) == 0);
	insist(vmm_is_zero(ram + RAM / 4, RAM / 2));
	insist(vmm_holds_content(ram, RAM / 4, 1));
	vmm_fill(ram, RAM, 2);
	insist(vmm_holds_content(ram, RAM, 2));
}

static void dontneed_private(void)
{
	give_up_private(MADV_DONTNEED);
}

static void free_private(void)
{
	give_up_private(MADV_FREE);
}

/* -------------------------------------------------------------------------------------------- */

static const struct vmm_scenario scenarios[] = {
	{ "find-memfd", find_memfd },
	{ "find-closed-memfd", find_closed_memfd },
	{ "find-shm-file", find_shm_file },
	{ "find-anonymous", find_anonymous },
	{ "find-shared-anonymous", find_shared_anonymous },
	{ "find-file", find_file },
	{ "find-private-copy", find_private_copy },
	{ "find-hugetlb", find_hugetlb },
	{ "find-nothing", find_nothing },
	{ "find-plugged", find_plugged },
	{ "find-unlimited", find_unlimited, .unlimited = true },
	{ "find-slot", find_slot },
	{ "find-both-ways", find_both_ways },
	{ "unmap-all", unmap_all },
	{ "unmap-middle", unmap_middle },
	{ "replace-page", replace_page },
	{ "bad-calls", bad_calls },
	{ "move-memory", move_memory },
	{ "shrink-file", shrink_file },
	{ "punch", punch },
	{ "punch-across", punch_across },
	{ "remove-range", remove_range },
	{ "dontneed-shared", dontneed_shared },
	{ "dontneed-private", dontneed_private },
	{ "free-private", free_private },
};

int main(int argc, char **argv)
{
	return vmm_run_all(argc, argv, scenarios, COUNT_OF(scenarios), LIMIT);
}
