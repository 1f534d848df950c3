#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
# memvirt-test-timeout: 600
"""The guest balloon driver in a real guest, against QEMU's own device; no memvirt on the host.

Each effect is seen from both sides: by QMP and the RAM file's blocks on the host, by the
kernel's counters in the guest.
"""
import re
import time

from harness import paths, tap
from harness.deadline import wait_for
from harness.outside import RamMeter
from harness.vm import MIB, Vm

MEMORY = 512 * MIB

# The guest says what it has, about once a second and when the module comes and goes.
REPORT = """
report() {
	echo "rig: state $1 total=$(awk '/^MemTotal/{print $2}' /proc/meminfo)" \\
		"free=$(awk '/^MemFree/{print $2}' /proc/meminfo)" \\
		"$(awk '/^balloon_|^oom_kill /{printf "%s=%s ", $1, $2}' /proc/vmstat)" \\
		"faults=$(dmesg | grep -cE 'BUG|WARNING|Oops')"
}
"""


def state(vm, tag, seconds=60, start=0):
    """The guest's report of that name, as numbers."""
    line = vm.wait_line(rf"^rig: state {tag} .*", seconds, start).group(0)
    return {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", line)}


def reach(vm, size, seconds=40):
    """Set the balloon's target and wait until the guest has reached it."""
    vm.qmp.set_balloon(size)
    wait_for(lambda: vm.qmp.balloon_actual() == size, seconds, f"balloon at {size // MIB} MiB")


def check_clean(numbers):
    tap.check_equal(numbers["faults"], 0, "kernel complaints")
    tap.check_equal(numbers["oom_kill"], 0, "out-of-memory kills")


def test_load_inflate_deflate_unload():
    """module: load, inflate, deflate, statistics, unload with pages held, load again"""
    script = REPORT + """
	report before
	insmod /modules/memvirt_balloon.ko || echo "rig: insmod failed"
	echo "rig: driver $(basename "$(readlink /sys/bus/virtio/devices/virtio0/driver)")"
	report loaded
	until [ -e /tmp/stop ]; do
		[ "$(awk '/^balloon_inflate/{print $2}' /proc/vmstat)" -ge 65536 ] && touch /tmp/stop
		sleep 0.2
	done
	report inflated
	until [ "$(awk '/^balloon_deflate/{print $2}' /proc/vmstat)" -ge 65536 ]; do sleep 0.2; done
	report deflated
	until [ "$(awk '/^balloon_inflate/{print $2}' /proc/vmstat)" -ge 98304 ]; do sleep 0.2; done
	report again
	rmmod memvirt_balloon || echo "rig: rmmod failed"
	report unloaded
	insmod /modules/memvirt_balloon.ko
	until [ "$(awk '/^balloon_inflate/{print $2}' /proc/vmstat)" -ge 131072 ]; do sleep 0.2; done
	report reloaded
	rmmod memvirt_balloon
	report end
	"""
    with Vm("balloon", script) as vm:
        vm.wait_up()
        vm.connect()
        before = state(vm, "before")
        vm.wait_line(r"^rig: driver memvirt_balloon")
        state(vm, "loaded")
        ram = RamMeter(vm.pid, MEMORY)

        # 256 MiB in, and out again.
        began = time.monotonic()
        reach(vm, MEMORY - 256 * MIB)
        seconds = time.monotonic() - began
        tap.note(f"inflate: {65536 / seconds:.0f} pages/s")
        inflated = state(vm, "inflated")
        tap.check(before["total"] - inflated["total"] == 256 * 1024,
                  f"the guest still counts the balloon's memory: {before} {inflated}")
        tap.check(ram.bytes() <= MEMORY - 250 * MIB,
                  f"the host still holds {ram.bytes() // MIB} MiB")
        began = time.monotonic()
        reach(vm, MEMORY)
        tap.note(f"deflate: {65536 / (time.monotonic() - began):.0f} pages/s")
        deflated = state(vm, "deflated")
        tap.check_equal(deflated["total"], before["total"], "guest memory after deflation")

        check_stats(vm)

        # Unloaded while 128 MiB are in the balloon, the module gives them back.
        reach(vm, MEMORY - 128 * MIB)
        unloaded = state(vm, "unloaded")
        tap.check_equal(unloaded["total"], before["total"], "guest memory after unloading")
        tap.check_equal(unloaded["balloon_inflate"], unloaded["balloon_deflate"],
                        "pages in and out")
        # Loaded again, it takes up the target that still stands.
        state(vm, "reloaded")
        end = state(vm, "end")
        tap.check_equal(end["total"], before["total"], "guest memory at the end")
        check_clean(end)
        vm.wait_line(r"^rig: run ended with status 0")
        tap.check_equal(vm.wait_end(), 0, "QEMU's exit status")
        ram.close()


def check_stats(vm):
    """Every tag that QEMU knows has a number, each is plausible, and they are renewed."""
    vm.qmp.poll_guest_stats(1)
    first, _ = wait_for(lambda: (lambda answer: answer if answer[0] else None)(
        vm.qmp.guest_stats()), 10, "statistics")
    last, stats = wait_for(lambda: (lambda answer: answer if answer[0] > first else None)(
        vm.qmp.guest_stats()), 10, "new statistics")
    tap.note(f"statistics: {stats}")
    wanted = {"stat-swap-in", "stat-swap-out", "stat-major-faults", "stat-minor-faults",
              "stat-free-memory", "stat-total-memory", "stat-available-memory",
              "stat-disk-caches", "stat-htlb-pgalloc", "stat-htlb-pgfail"}
    tap.check(wanted <= set(stats), f"not told: {wanted - set(stats)}")
    total = stats["stat-total-memory"]
    tap.check(MEMORY * 3 // 4 < total < MEMORY, f"total memory {total}")
    tap.check(0 < stats["stat-free-memory"] < total, f"free memory of {stats}")
    tap.check(0 < stats["stat-available-memory"] < total, f"available memory of {stats}")
    tap.check(stats["stat-minor-faults"] > 0, f"minor faults of {stats}")
    tap.check_equal(stats["stat-swap-in"], 0, "a guest without swap: swapped in")
    vm.qmp.poll_guest_stats(0)


def test_floor():
    """module: a target below what the guest needs stops at a floor, without OOM or busy loop"""
    script = REPORT + """
	insmod /modules/memvirt_balloon.ko
	report loaded
	sleep 8
	report floor
	# Time used in four seconds at the floor, in ticks of 10 ms.
	busy() { awk '/^cpu /{print $2 + $3 + $4 + $7 + $8}' /proc/stat; }
	a=$(busy); sleep 4; b=$(busy)
	echo "rig: busy $((b - a))"
	echo "rig: log $(dmesg | grep -c balloon)"
	# Memory that the guest needs again is there once the host asks for less.
	until [ -e /tmp/roomy ]; do
		[ "$(awk '/^MemFree/{print $2}' /proc/meminfo)" -gt 300000 ] && touch /tmp/roomy
		sleep 0.2
	done
	dd if=/dev/zero of=/tmp/big bs=1M count=200 2>/dev/null
	report end
	"""
    with Vm("floor", script) as vm:
        vm.wait_up()
        vm.connect()
        state(vm, "loaded")
        vm.qmp.set_balloon(16 * MIB)
        floor = state(vm, "floor")
        tap.note(f"at the floor: {floor}")
        tap.check(vm.qmp.balloon_actual() > 16 * MIB, "the guest gave what it needs")
        tap.check(vm.qmp.balloon_actual() < 200 * MIB, "the guest gave less than it can")
        tap.check(8 * 1024 < floor["free"], f"free memory at the floor: {floor['free']} kB")
        busy = int(vm.wait_line(r"^rig: busy (\d+)").group(1))
        # The report itself takes some; a busy loop would take 400.
        tap.check(busy < 120, f"{busy} ticks of 400 at the floor")
        tap.check(int(vm.wait_line(r"^rig: log (\d+)").group(1)) <= 3, "log lines")
        reach(vm, MEMORY)
        check_clean(state(vm, "end"))
        vm.wait_line(r"^rig: run ended with status 0")


def test_oom():
    """module: a guest that runs out of memory has pages back first, where the host allows it"""
    script = REPORT + """
	insmod /modules/memvirt_balloon.ko
	report loaded
	until [ "$(awk '/^balloon_inflate/{print $2}' /proc/vmstat)" -ge 90000 ]; do sleep 0.2; done
	workload mib=200 hot=16 seconds=1
	echo "rig: workload ended with status $?"
	report end
	"""
    for allowed in ("on", "off"):
        with Vm("oom", script, balloon=f",deflate-on-oom={allowed}") as vm:
            vm.wait_up()
            vm.connect()
            state(vm, "loaded")
            vm.qmp.set_balloon(64 * MIB)
            status = vm.wait_line(r"rig: workload ended with status (\d+)", 60).group(1)
            end = state(vm, "end")
            tap.note(f"deflate-on-oom={allowed}: status {status}, {end}")
            # With the feature off the guest must not take what it was not given back.
            tap.check_equal(status, "0" if allowed == "on" else "137", "the workload's status")
            tap.check_equal(end["oom_kill"], 0 if allowed == "on" else 1, "kills")
            tap.check((end["balloon_deflate"] > 0) == (allowed == "on"), "pages given back")


def test_compaction_and_freeze():
    """module: compaction moves its pages; freeze gives all back, restore takes them again"""
    script = REPORT + """
	insmod /modules/memvirt_balloon.ko
	report loaded
	# Files between which the balloon's pages end up, and whose end leaves holes.
	i=0
	while [ $i -lt 160 ]; do dd if=/dev/zero of=/tmp/$i bs=64k count=8 2>/dev/null; i=$((i+1)); done
	report filled
	until [ "$(awk '/^balloon_inflate/{print $2}' /proc/vmstat)" -ge 49152 ]; do sleep 0.2; done
	rm -f /tmp/*
	report inflated
	echo 1 >/proc/sys/vm/compact_memory
	report compacted
	# Suspends and resumes the devices only; five seconds lie between.
	echo devices >/sys/power/pm_test && echo mem >/sys/power/state || echo "rig: no suspend"
	until [ "$(awk '/^balloon_inflate/{print $2}' /proc/vmstat)" -ge 98304 ]; do sleep 0.2; done
	report restored
	until [ "$(awk '/^balloon_deflate/{print $2}' /proc/vmstat)" -ge 98304 ]; do sleep 0.2; done
	report end
	"""
    with Vm("freeze", script) as vm:
        vm.wait_up()
        vm.connect()
        loaded = state(vm, "loaded")
        state(vm, "filled")
        reach(vm, MEMORY - 192 * MIB)
        state(vm, "inflated")
        compacted = state(vm, "compacted")
        tap.note(f"pages that compaction moved: {compacted['balloon_migrate']}")
        tap.check(compacted["balloon_migrate"] > 0, "compaction moved no page of the balloon")
        restored = state(vm, "restored")
        tap.check_equal(restored["balloon_deflate"], 49152, "pages given back by freeze")
        tap.check_equal(vm.qmp.balloon_actual(), MEMORY - 192 * MIB, "size after restore")
        reach(vm, MEMORY)
        end = state(vm, "end")
        tap.check_equal(end["total"], loaded["total"], "guest memory at the end")
        check_clean(end)
        vm.wait_line(r"^rig: run ended with status 0")


def main():
    reason = paths.missing_guest()
    if reason:
        print(f"1..1\nok 1 - guest balloon driver # SKIP {reason}")
        return
    tap.main(test_load_inflate_deflate_unload, test_floor, test_oom,
             test_compaction_and_freeze)


if __name__ == "__main__":
    main()
