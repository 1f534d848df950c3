#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
# memvirt-test-timeout: 600
"""`memvirt walk` on real Linux guests, against what QEMU itself says of them: every leaf of
`info tlb`, the ranges of `info mem`, thousands of `gva2gpa`. No mismatch is allowed. And that
looking changes nothing: no hole of the guest's memory is filled, a managed guest stays whole.

What does not belong here: the walk itself, which tests/exhaustive judges.
"""
import json
import os
import random
import re
import struct
import time
from pathlib import Path

from harness import paths, tap
from harness.control import PAGE, RunDir
from harness.deadline import wait_for
from harness.guest import make_initramfs, shell_script
from harness.outside import RamMeter, ram_file
from harness.vm import MIB, Vm
from harness.workload import check_workload, note_stats, workload_script

# Something always runs in user mode, so that whenever the VM is stopped there are user pages.
BUSY = """
echo "rig: busy"
while :; do :; done
"""
MEMORY = 256
# Where QEMU prints which bit of a leaf, and under which letter. X says that it is *not*
# executable.
TLB_FLAGS = tuple(zip("XGPDACTUW", (63, 8, 7, 6, 5, 4, 3, 2, 1)))
SEED = int(os.environ.get("SEED", random.randrange(1 << 32)))


# --- QEMU's word ---------------------------------------------------------------------------


def human(vm, line):
    return vm.qmp.run("human-monitor-command", **{"command-line": line})


def register(vm, name):
    return int(re.search(rf"\b{name}=\s*([0-9a-f]+)", human(vm, "info registers")).group(1), 16)


def qemu_leaves(vm):
    """address -> (physical, flags as QEMU prints them)"""
    found = {}
    for line in human(vm, "info tlb").splitlines():
        address, physical, flags = re.match(r"([0-9a-f]+): ([0-9a-f]+) (\S+)$", line).groups()
        # Of a PAE guest QEMU prints the NX bit as a part of the address too.
        found[int(address, 16)] = (int(physical, 16) & ~(1 << 63), flags)
    return found


def qemu_ranges(vm):
    """(first, end, rights) of `info mem`, rights being of all levels together"""
    return [(int(first, 16), int(end, 16), rights) for first, end, rights in
            re.findall(r"([0-9a-f]+)-([0-9a-f]+) [0-9a-f]+ (\S+)", human(vm, "info mem"))]


def qemu_physical(vm, address):
    """None where QEMU finds nothing mapped"""
    match = re.match(r"gpa: 0x([0-9a-f]+)", human(vm, f"gva2gpa 0x{address:x}"))
    return int(match.group(1), 16) if match else None


# --- memvirt's -----------------------------------------------------------------------------


class Walker:
    """memvirt walk for one VM, by its name or its monitor."""

    def __init__(self, run_dir, *which):
        self.run_dir = run_dir
        self.which = which

    def run(self, *arguments, text=None):
        return self.run_dir.memvirt("walk", *arguments[:-1], *self.which, *arguments[-1:],
                                    seconds=60, text=text)

    def json(self, *arguments, text=None, status=0):
        done = self.run("--json", *arguments, text=text)
        tap.check_equal(done.returncode, status, f"status; it said {done.stderr[:500]}")
        answer = json.loads(done.stdout)
        tap.check_equal(answer["format_version"], 1, "format version")
        tap.check(answer["complete"], "it ended early")
        return answer

    def leaves(self):
        began = time.monotonic()
        found = self.json("--leaves", "--map")["mappings"]
        tap.note(f"memvirt walk --map --leaves --json: {len(found)} leaves in "
                 f"{time.monotonic() - began:.2f} s")
        return found

    def physical(self, addresses):
        """For each address the physical one, or None"""
        text = "".join(f"{address:x}\n" for address in addresses)
        walks = self.json("-", text=text, status=1)["walks"]
        tap.check_equal([int(walk["address"], 16) for walk in walks], addresses, "addresses")
        return [int(walk["gpa"], 16) if walk["result"] == "ok" else None for walk in walks]


def plain(run_dir, vm):
    return Walker(run_dir, "--qmp", vm.dir / "qmp")


def boot(name, cmdline="", **options):
    vm = Vm(name, BUSY, memory=MEMORY, cmdline=cmdline, **options)
    # A hole below 4 GiB, as large guests have: half of the memory lies above.
    vm.command[vm.command.index("-M") + 1] += ",max-ram-below-4g=128M"
    return vm


def stop_busy(vm):
    vm.connect()
    vm.wait_line(r"^rig: busy", 90)
    time.sleep(0.3)
    vm.qmp.run("stop")


# --- comparisons ---------------------------------------------------------------------------


def flags_of(entry):
    return "".join(letter if entry >> bit & 1 else "-" for letter, bit in TLB_FLAGS)


def check_leaves(vm, leaves):
    """All that QEMU lists and nothing else, physical addresses and flags the same."""
    wanted = qemu_leaves(vm)
    found = {int(leaf["first"], 16): (int(leaf["gpa"], 16), flags_of(int(leaf["entry"], 16)))
             for leaf in leaves}
    sizes = {}
    for leaf in leaves:
        sizes[leaf["page_bytes"]] = sizes.get(leaf["page_bytes"], 0) + 1
    tap.note(f"{len(wanted)} leaves by QEMU, {len(found)} by memvirt, by size {sizes}")
    tap.check(len(wanted) > 2000, "that is no Linux guest")
    differ = [(hex(at), wanted.get(at), found.get(at)) for at in sorted({*wanted, *found})
              if wanted.get(at) != found.get(at)]
    tap.check(not differ, f"{len(differ)} leaves differ; the first {differ[:5]}")
    for leaf in leaves:
        size = int(leaf["last"], 16) - int(leaf["first"], 16) + 1
        tap.check_equal(size, leaf["page_bytes"], f"size of {leaf}")
    tap.check(max(sizes) > PAGE, "no large page")


def check_ranges(vm, stretches):
    """Neighbours with the same rights, put together as `info mem` does."""
    wanted = qemu_ranges(vm)
    found = []
    for stretch in stretches:
        first, end = int(stretch["first"], 16), int(stretch["last"], 16) + 1
        rights = ("u" if stretch["user"] else "-") + ("r" if stretch["read"] else "-") + \
                 ("w" if stretch["write"] else "-")
        if found and found[-1][1] == first and found[-1][2] == rights:
            first = found.pop()[0]
        found.append((first, end, rights))
    # QEMU's 48 and 57-bit addresses have no sign.
    bits = max(end.bit_length() for _, end, _ in wanted)
    mask = (1 << bits) - 1
    found = [(first & mask, end & mask, rights) for first, end, rights in found]
    wanted = [(first & mask, end & mask, rights) for first, end, rights in wanted]
    tap.note(f"{len(wanted)} ranges by QEMU, {len(stretches)} stretches by memvirt")
    differ = [pair for pair in zip(wanted, found) if pair[0] != pair[1]]
    tap.check_equal(len(found), len(wanted), f"ranges; the first that differ: {differ[:3]}")
    tap.check(not differ, f"{len(differ)} ranges differ; the first {differ[:3]}")


def some_addresses(leaves, width, count):
    """Mapped ones of every size, unmapped ones, and such as are not canonical; count is
    roughly theirs."""
    chance = random.Random(SEED)
    tap.note(f"seed: {SEED} (SEED={SEED} runs it again)")
    large = [leaf for leaf in leaves if leaf["page_bytes"] > PAGE]
    chosen = chance.sample(leaves, count * 4 // 10) + chance.choices(large, k=count * 2 // 10)
    mapped = [int(leaf["first"], 16) + chance.randrange(leaf["page_bytes"]) for leaf in chosen]
    near = [address ^ 1 << chance.randrange(12, width - 1) for address in mapped[:count * 2 // 10]]
    far = [chance.getrandbits(width - 1) for _ in range(count // 10)]
    # QEMU cuts what is too wide for 32-bit paging, where a processor cannot even be asked.
    bad = [address ^ 1 << chance.randrange(width, 64)
           for address in mapped[:count // 10 if width > 32 else 0]]
    return mapped + near + far + bad


def check_addresses(vm, walker, leaves, width, count=2800):
    addresses = some_addresses(leaves, width, count)
    found = walker.physical(addresses)
    wanted = [qemu_physical(vm, address) for address in addresses]
    differ = [(hex(at), want, got) for at, want, got in zip(addresses, wanted, found)
              if want != got]
    tap.note(f"{len(addresses)} addresses, {wanted.count(None)} of them not mapped")
    tap.check(wanted.count(None) > count // 10, "hardly anything is unmapped")
    tap.check(wanted.count(None) < count // 2, "hardly anything is mapped")
    tap.check(not differ, f"{len(differ)} addresses differ; the first {differ[:5]}")


def check_guest(vm, walker, levels):
    """A guest that has been stopped; returns its leaves."""
    ram = RamMeter(vm.pid, MEMORY * MIB)
    before = ram.bytes()
    tap.check(before < MEMORY * MIB, "the memory has no hole that could be filled")
    answer = walker.json("--map")
    tap.check_equal(answer["paging"], f"{levels}-level paging", "mode")
    tap.check_equal(int(answer["registers"]["cr3"], 16), register(vm, "CR3"), "CR3")
    leaves = walker.leaves()
    tap.check(any(int(leaf["gpa"], 16) >= 1 << 32 for leaf in leaves), "nothing above 4 GiB")
    tap.check_equal(ram.bytes(), before, "bytes of the memory, after looking")
    ram.close()
    check_leaves(vm, leaves)
    # QEMU 7.2 takes minutes for `info mem` with five levels.
    if levels == 4:
        check_ranges(vm, answer["mappings"])
    check_addresses(vm, walker, leaves, 57 if levels == 5 else 48)
    return leaves


def gpa_of(offset):
    """Of a place in the memory of boot()'s guests."""
    return offset if offset < 128 * MIB else (1 << 32) + offset - 128 * MIB


def check_holes(vm, walker):
    """Tables where the guest never wrote: they read as zeros, and stay holes."""
    ram = RamMeter(vm.pid, MEMORY * MIB)
    before = ram.bytes()
    file = os.open(ram_file(vm.pid, MEMORY * MIB), os.O_RDONLY)
    for start in range(0, MEMORY * MIB, 16 * MIB):
        hole = os.lseek(file, start, os.SEEK_HOLE)
        if hole < MEMORY * MIB:
            walk, = walker.json("--cr3", f"{gpa_of(hole):x}", "0", status=1)["walks"]
            tap.check_equal([step["entry"] for step in walk["steps"]], ["0x0"], f"{walk}")
    os.close(file)
    tap.check_equal(ram.bytes(), before, "bytes of the file, after looking into holes")
    ram.close()


def check_access(walker, leaves):
    """Rights: what a page grants is granted, and what it does not is refused, with its code."""
    kinds = {"r": "read", "w": "write", "x": "execute"}
    chance = random.Random(SEED)
    sample = chance.choices([leaf for leaf in leaves if leaf["user"]], k=60) + \
        chance.choices([leaf for leaf in leaves if not leaf["user"]], k=200)
    text = "".join(leaf["first"] + "\n" for leaf in sample)
    for letter, right in kinds.items():
        for user in (False, True):
            extra = ["--user"] if user else []
            walks = walker.json("--access", letter, *extra, "-", text=text, status=1)["walks"]
            for leaf, walk in zip(sample, walks):
                # SMAP and SMEP: the guest has both, and AC is clear outside its copies.
                allowed = leaf[right] and leaf["user"] == user
                tap.check_equal(walk["result"], "ok" if allowed else "page-fault",
                                f"{letter} {user} of {leaf}")
                if not allowed:
                    code = 1 | (2 if letter == "w" else 0) | (4 if user else 0) | \
                        (16 if letter == "x" else 0)
                    tap.check_equal(int(walk["error_code"], 16), code, f"{walk}")


# --- tests ---------------------------------------------------------------------------------


def test_five_levels():
    """5 levels, memfd: every leaf, 2,800 addresses and the rights are as QEMU says"""
    with RunDir() as run_dir, boot("walk5") as vm:
        stop_busy(vm)
        walker = plain(run_dir, vm)
        check_access(walker, check_guest(vm, walker, 5))
        check_holes(vm, walker)
        check_words(walker, register(vm, "RIP"))
        check_gpa(walker)
        check_command_line(walker)


def test_four_levels():
    """4 levels, private memory: every leaf, every range, 2,800 addresses are as QEMU says"""
    with RunDir() as run_dir, boot("walk4", "no5lvl", backend="ram") as vm:
        stop_busy(vm)
        check_guest(vm, plain(run_dir, vm), 4)


def check_32_bit(kernel, paging, width):
    tap.need(paths.missing_32_bit())
    with RunDir() as run_dir:
        vm = Vm("walk32", "", memory=MEMORY, balloon=None)
        make_initramfs(paths.RIG_32 / "initramfs.cpio.gz", {"/rig/run": shell_script(BUSY)},
                       vm.dir / "initramfs")
        vm.command[vm.command.index("-kernel") + 1] = str(paths.RIG_32 / kernel)
        with vm:
            stop_busy(vm)
            walker = plain(run_dir, vm)
            answer = walker.json("--map")
            tap.check_equal(answer["paging"], paging, "mode")
            leaves = walker.leaves()
            check_leaves(vm, leaves)
            check_ranges(vm, answer["mappings"])
            check_addresses(vm, walker, leaves, width, 1000)


def test_pae():
    """PAE: every leaf, every range and 900 addresses of a 32-bit Debian guest"""
    check_32_bit("vmlinuz-pae", "PAE paging", 32)


def test_32_bit():
    """32-bit paging: every leaf, every range and 900 addresses of a Debian guest without PAE"""
    check_32_bit("vmlinuz", "32-bit paging with 4 MiB pages", 32)


def settle(vm, control, limit, ram):
    control.set_limit(limit * MIB)
    wait_for(lambda: ram.bytes() <= limit * MIB * 1.02, 30, f"within {limit} MiB")
    return control.stats()


def look_anywhere(walker):
    """At pages that are stored, resident, or were never there, as if they were tables."""
    chance = random.Random(SEED)
    for _ in range(40):
        page = chance.randrange(1 << 8, 192 * MIB // PAGE)
        walker.run("--cr3", f"{page * PAGE:x}", "--json", f"{chance.getrandbits(47):x}")


def check_untouched(before, after, ram):
    """Pages changed places; none was made."""
    tap.check_equal(after["zero-fills"], before["zero-fills"], "pages of zeros made")
    tap.check_equal(after["resident-bytes"] + PAGE * after["stored-pages"],
                    before["resident-bytes"] + PAGE * before["stored-pages"], "pages in all")
    tap.check(abs(ram.bytes() - after["resident-bytes"]) <= PAGE * 4, "the file has other pages")


def test_managed():
    """managed: a guest whose tables were evicted is walked by its control socket, and is whole"""
    script = workload_script(seconds=4, then=BUSY, mib=80)
    with RunDir() as run_dir, Vm("managed", script, memory=192, managed=["--limit", "80M"],
                                 env=run_dir.env) as vm:
        vm.connect()
        vm.wait_line("workload: phase=run", 120)
        vm.qmp.run("stop")
        control = run_dir.control("managed")
        ram = RamMeter(vm.pid, 192 * MIB)
        walker = Walker(run_dir, "managed")
        before = settle(vm, control, 4, ram)
        leaves = walker.leaves()
        look_anywhere(walker)
        after = control.stats()
        note_stats(after)
        tap.check(after["restores"] - before["restores"] > 20, "no table was in the store")
        check_untouched(before, after, ram)
        check_leaves(vm, leaves)
        # Once more, by the monitor: it finds out that the VM is managed.
        settle(vm, control, 4, ram)
        again = Walker(run_dir, "--qmp", vm.dir / "qmp").leaves()
        tap.check(again == leaves, "a second look finds something else")
        check_addresses(vm, walker, leaves, 57, 600)
        control.set_limit(80 * MIB)
        vm.qmp.run("cont")
        check_workload(vm)
        tap.check_equal(control.stats()["poisoned"], 0, "poisoned pages")
        ram.close()


def check_words(walker, rip):
    """What people read, and its exit statuses."""
    done = walker.run("--stage2", f"{rip:x}")
    tap.check_equal((done.returncode, done.stderr), (0, ""), "status and messages")
    for word in ("5-level paging", "PML5E", "PML4E", "PDPTE", "PDE", "guest-physical 0x",
                 "memory 'm0' + 0x", "host-virtual 0x", "/memfd:"):
        tap.check(word in done.stdout, f"no {word!r} in {done.stdout}")
    done = walker.run("--access", "w", "1000")
    tap.check_equal(done.returncode, 1, "status of what is not mapped")
    tap.check("no supervisor write: P (bit 0) of the P" in done.stdout, done.stdout)
    tap.check("page fault, error code 0x2 (W)" in done.stdout, done.stdout)
    done = walker.run("8000000000000000")
    tap.check("not canonical" in done.stdout, done.stdout)
    done = walker.run("--limit", 3, "--map")
    tap.check_equal(len(done.stdout.splitlines()), 2 + 3, "lines of a map cut short")


def check_command_line(walker):
    """What is wrong with one is said, with the status for it."""
    for arguments, status, words in (
            (["zebra"], 2, "hexadecimal"), (["--cpu", 7, "0"], 1, "no processor 7"),
            (["--cr3", "x", "0"], 2, "--cr3"), (["--leaves", "0"], 2, "--map"),
            (["--frob", "0"], 2, "--frob"), (["--user", "0"], 2, "--access")):
        done = walker.run(*arguments)
        tap.check_equal(done.returncode, status, f"status of {arguments}")
        tap.check(words in done.stderr, f"{arguments}: {done.stderr}")
    done = walker.run_dir.memvirt("walk", "nobody", "0")
    tap.check_equal(done.returncode, 1, "status for a VM that is not there")
    tap.check("nobody" in done.stderr, done.stderr)


def check_gpa(walker):
    """Guest-physical addresses, through the hole below 4 GiB: never one to one."""
    places = [(0x1000, "m0", 0x1000), (1 << 32, "m0", 128 * MIB),
              ((1 << 32) + 127 * MIB, "m0", 255 * MIB), (0xfffffff0, "pc.bios", 0x3fff0)]
    walks = walker.json("--gpa", "-", text=" ".join(f"{at:x}" for at, _, _ in places))["walks"]
    for (_, block, offset), walk in zip(places, walks):
        tap.check_equal(walk["memory"]["block"], block, "block")
        tap.check_equal(int(walk["memory"]["offset"], 16), offset, f"offset of {walk}")
    walk, = walker.json("--gpa", "fec00000")["walks"]
    tap.check_equal(walk["memory"], None, "memory behind a device")


# --- a guest's guest -----------------------------------------------------------------------

P, W, U, A, PS = 1, 2, 4, 0x20, 0x80
LARGE = 2 * MIB


def write(file, address, *entries):
    file.seek(address)
    file.write(b"".join(struct.pack("<Q", entry) for entry in entries))


def make_nested_tables(path, kind):
    """Tables as a guest hypervisor would have them: its guest's physical memory is at 16 MiB of
    its own, by a large page; the inner guest's tables are at 0x1000 of that."""
    low = 7 if kind == "ept" else P | W | U
    leaf = (7 | 6 << 3 | PS) if kind == "ept" else P | W | U | PS
    with open(path, "r+b") as file:
        write(file, 0x100000, 0x101000 | low)
        write(file, 0x101000, 0x102000 | low)
        write(file, 0x102000, 16 * MIB | leaf)
        inner = 16 * MIB
        write(file, inner + 0x1000, 0x2000 | P | W | U)
        write(file, inner + 0x2000, 0x3000 | P | W | U)
        write(file, inner + 0x3000, 0x4000 | P | W | U, LARGE * 5 | P | W | U | PS)
        write(file, inner + 0x4000, 0x5000 | P | U, 0x40000000 | P)


def check_nested(kind, option, root):
    with RunDir() as run_dir:
        path = Path(run_dir.path) / "ram"
        path.write_bytes(b"")
        os.truncate(path, 64 * MIB)
        vm = Vm("nested", "", memory=64, balloon=None)
        at = vm.command.index("-object")
        vm.command[at + 1] = f"memory-backend-file,id=m0,size=64M,share=on,mem-path={path}"
        vm.command += ["-S"]
        with vm:
            vm.connect()
            make_nested_tables(path, kind)
            walker = Walker(run_dir, "--qmp", vm.dir / "qmp", "--ram", path, "--cr0", "80000011",
                            "--cr4", "20", "--efer", "100", "--cr3", "1000", option, root)
            answer = walker.json("-", text="123 1123 200123", status=1)
            check_nested_walks(answer["walks"], kind)
            done = walker.run("--stage2", "123")
            tap.check(done.stdout.count("PML4E") >= 6, done.stdout)


def check_nested_walks(walks, kind):
    inside, no_memory, no_stage2 = walks
    tap.check_equal(inside["result"], "ok", f"{inside}")
    tap.check_equal((inside["gpa"], inside["physical"]), ("0x5123", hex(16 * MIB + 0x5123)),
                    "addresses after each stage")
    tap.check_equal(inside["memory"]["file_offset"], hex(16 * MIB + 0x5123), "place in the file")
    tables = [step["second_stage"]["physical"] for step in inside["steps"]]
    tap.check_equal(tables, [hex(16 * MIB + 0x1000 * n) for n in (1, 2, 3, 4)], "tables")
    tap.check_equal(len(inside["second_stage"]["steps"]), 3, "entries of the second stage")
    for walk in (no_memory, no_stage2):
        tap.check_equal(walk["result"], "second-stage-fault", f"{walk}")
        tap.check("not present" in walk["reason"], f"{walk}")
    name = "EPT PDPTE" if kind == "ept" else "PDPTE"
    tap.check_equal(no_memory["second_stage"]["steps"][-1]["name"], name, "where it ends")


def test_nested_ept():
    """nested: a guest hypervisor's EPT, each table of stage 1 through it"""
    check_nested("ept", "--eptp", "10001e")


def test_nested_npt():
    """nested: the same with AMD's nested paging"""
    check_nested("npt", "--ncr3", "100000")


def main():
    reason = paths.missing()
    if reason:
        print(f"1..1\nok 1 - memvirt walk # SKIP {reason}")
        return
    tap.main(test_five_levels, test_four_levels, test_managed, test_pae, test_32_bit,
             test_nested_ept, test_nested_npt)


if __name__ == "__main__":
    main()
