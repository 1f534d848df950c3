#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
# memvirt-test-timeout: 600
"""A real Linux, from its boot on, behind lib/shadow: QEMU stops it again and again, and what it
has done to its page tables meanwhile is done again by a processor that walks shadow tables, with
accesses all over the address space, each judged by the pure walk (replay/shadow_replay.c).

SEED=N repeats the choice of accesses, ROUNDS=N stops it N times as often.
What does not belong here: made-up guests (tests/model), processor models (tests/metal).
"""
import os
import random
import re
import subprocess
import time

from harness import paths, tap
from harness.outside import ram_file
from harness.vm import MIB, Vm

REPLAY = paths.BUILD / "tests" / "rig" / "shadow_replay"
MEMORY = 160
STOPS = 100 * int(os.environ.get("ROUNDS", "1"))
SEED = int(os.environ.get("SEED", random.randrange(1 << 32)))
# Where Linux maps all memory when it does not randomize: Documentation/x86/x86_64/mm.rst.
DIRECT_MAP = {4: 0xffff888000000000, 5: 0xff11000000000000}

# Processes come and go, files are mapped, memory is filled and given back.
WORK = """
echo "rig: up"
while :; do
	for i in 1 2 3 4 5 6 7 8; do
		(cat /proc/self/maps /bin/busybox | tail -c 1000 | sort | uniq | wc -l) >/dev/null &
	done
	wait
	dd if=/dev/zero of=/tmp/x bs=1M count=8 2>/dev/null; rm -f /tmp/x
done
"""


class Replay:
    """shadow_replay beside a VM."""

    def __init__(self, vm, levels):
        ram = ram_file(vm.pid, MEMORY * MIB)
        tap.check(ram, "the guest's RAM is not found")
        self.process = subprocess.Popen(
            [REPLAY, ram, str(MEMORY * MIB), hex(DIRECT_MAP[levels])], text=True,
            env=dict(os.environ, SEED=str(SEED)),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def stop(self, registers):
        print(*(f"{value:x}" for value in registers), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline().strip()
        tap.check_equal(answer, "ok", "answer of shadow_replay")

    def end(self):
        said, _ = self.process.communicate(timeout=60)
        tap.check_equal(self.process.returncode, 0, "status of shadow_replay")
        return {name: int(value) for name, value in
                (line.split() for line in said.splitlines())}


def registers(vm):
    """CR0, CR3, CR4, EFER"""
    text = vm.qmp.run("human-monitor-command", **{"command-line": "info registers"})
    return [int(re.search(rf"\b{name}=\s*([0-9a-f]+)", text).group(1), 16)
            for name in ("CR0", "CR3", "CR4", "EFER")]


def is_linux(values, levels):
    """Its own tables, in long mode; before, there are those of whoever loaded it."""
    cr0, _, cr4, efer = values
    wp, la57 = cr0 >> 16 & 1, cr4 >> 12 & 1
    return cr0 >> 31 & 1 and efer >> 10 & 1 and wp and (la57 == (levels == 5))


def follow(levels, cmdline):
    tap.need(paths.missing_guest())
    vm = Vm("replay", WORK, memory=MEMORY, balloon=None, cmdline=f"nokaslr {cmdline}")
    vm.command[vm.command.index("-cpu") + 1] = "max,pku=off,pks=off"
    with vm:
        vm.connect()
        replay, stops = Replay(vm, levels), 0
        until = time.monotonic() + 300
        while stops < STOPS and time.monotonic() < until:
            # Half of the stops while it boots.
            time.sleep(0.03 if stops < STOPS // 2 else 0.06)
            if stops == STOPS // 2:
                vm.wait_line("^rig: up")
            vm.qmp.run("stop")
            now = registers(vm)
            if is_linux(now, levels):
                replay.stop(now)
                stops += 1
            vm.qmp.run("cont")
        return replay.end()


def check(counts):
    tap.note(", ".join(f"{name} {value:,}" for name, value in counts.items()))
    tap.check_equal(counts["stops"], STOPS, "stops")
    tap.check(counts["roots"] >= STOPS // 6, "hardly any other address space was met")
    tap.check(counts["writes"] > 200 * STOPS, "the guest has hardly written to its tables")
    tap.check(counts["accesses"] > 3000 * STOPS, "hardly any access was made")
    for what in ("hits", "injected", "fixed", "unsyncs", "syncs", "ahead", "reclaimed"):
        tap.check(counts[what] > STOPS, f"'{what}' was hardly met")
    # What shadows with tables out of sync are for. Some writes the kernel makes elsewhere.
    traps = counts["write-faults"] - counts["unmapped"]
    writes = counts["writes"] - counts["unmapped"]
    tap.note(f"{traps:,} of {writes:,} writes to tables trapped: {100 * traps / writes:.1f}%")
    tap.check(traps * 10 < writes, "one write in ten to a table traps")


def test_four_levels():
    """linux: 4-level paging, from its boot on"""
    check(follow(4, "no5lvl"))


def test_five_levels():
    """linux: 5-level paging, from its boot on"""
    check(follow(5, ""))


if __name__ == "__main__":
    tap.note(f"seed: {SEED} (SEED={SEED} runs it again)")
    tap.main(test_four_levels, test_five_levels)
