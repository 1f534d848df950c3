#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
# memvirt-test-timeout: 600
"""Guest memory under a limit: of each kind, with a limit that moves, with a full store, with
memory that is plugged in. In each, a workload in the guest checks every byte of its memory.
"""
import json

from harness import paths, tap
from harness.control import ControlError, RunDir
from harness.deadline import wait_for
from harness.outside import RamMeter
from harness.vm import MIB, Vm
from harness.workload import LIMIT, MEMORY, check_workload, note_stats, workload_script


def check_backend(backend):
    """A guest on memory of this kind, kept under its limit as the host sees it."""
    with RunDir() as run_dir, Vm(backend, workload_script(), memory=MEMORY, backend=backend,
                                 managed=["--limit", f"{LIMIT}M"], env=run_dir.env) as vm:
        vm.wait_line("workload: phase=run")
        ram = RamMeter(vm.pid, MEMORY * MIB)
        wait_for(lambda: ram.bytes() <= LIMIT * MIB * 1.05, 10, "resident within the limit")
        check_workload(vm)
        stats = run_dir.control(backend).stats()
        note_stats(stats)
        tap.check(ram.bytes() <= LIMIT * MIB * 1.05, f"{ram.bytes() / MIB:.0f} MiB resident")
        check_memstat(run_dir, ram)
        for counter in ("evictions", "restores"):
            tap.check(stats[counter] > 10000, f"only {stats[counter]} {counter}")
        tap.check_equal(stats["poisoned"], 0, "poisoned pages")
        ram.close()


def check_memstat(run_dir, ram):
    """memstat says what the host's kernel says, and of what nobody has told: unknown."""
    done = run_dir.memstat("once", "--json", "--interval", "0.2")
    tap.check_equal(done.returncode, 0, f"memstat's status; it said {done.stderr}")
    row, = json.loads(done.stdout)["vms"]
    tap.check_equal(row["state"], "ok", "state")
    tap.check_equal(row["configured_bytes"], MEMORY * MIB, "configured")
    tap.check_equal(row["limit_bytes"], LIMIT * MIB, "limit")
    tap.check(abs(row["resident_bytes"] - ram.bytes()) < 4 * MIB,
              f"memstat: {row['resident_bytes']} resident, measured: {ram.bytes()}")
    tap.check(0 < row["stored_compressed_bytes"] < row["stored_original_bytes"], f"stored: {row}")
    tap.check(row["age_s"]["pager"] < 5, f"age: {row['age_s']}")
    tap.check_equal(row["ballooned_bytes"], None, "ballooned, without a governor")


def test_memfd():
    """memory: a guest on a shared memfd keeps to its limit and loses nothing"""
    check_backend("memfd")


def test_anonymous():
    """memory: a guest on private anonymous memory keeps to its limit and loses nothing"""
    check_backend("ram")


def test_limit_moves():
    """limit: set, lowered, lifted and set again while the guest works; then stop"""
    with RunDir() as run_dir, Vm("moves", workload_script(seconds=10), memory=MEMORY, managed=[],
                                 env=run_dir.env) as vm:
        control = run_dir.control("moves")
        vm.wait_line("workload: phase=run")
        ram = RamMeter(vm.pid, MEMORY * MIB)
        tap.check_equal(control.stats()["evictions"] or 0, 0, "evictions without a limit")
        for limit in (120, 80, 100):
            control.set_limit(limit * MIB)
            wait_for(lambda: ram.bytes() <= limit * MIB * 1.05, 10, f"within {limit} MiB")
        control.set_limit(None)
        wait_for(lambda: control.stats()["stored-pages"] == 0, 10, "everything back")
        # More than the VM has: allowed, and without effect.
        control.set_limit(4 * MEMORY * MIB)
        control.set_limit(80 * MIB)
        wait_for(lambda: ram.bytes() <= 80 * MIB * 1.05, 10, "within 80 MiB again")
        for bad in (-1, "much", 4096, 2**65):
            try:
                control.run("set-limit", bytes=bad)
            except ControlError:
                continue
            raise AssertionError(f"a limit of {bad!r} was taken")
        control.run("stop")
        tap.check(not control.path.exists(), "the socket is there after stop")
        check_workload(vm)
        ram.close()


def test_store_full():
    """store: full, the rest stays resident, and nothing is lost"""
    with RunDir() as run_dir, \
            Vm("full", workload_script(), memory=MEMORY, env=run_dir.env,
               managed=["--limit", "64M", "--store-limit", "8M"]) as vm:
        check_workload(vm)
        stats = run_dir.control("full").stats()
        note_stats(stats)
        tap.check(stats["store-full"] > 0, "the store never was full")
        tap.check(stats["store-memory-bytes"] <= 9 * MIB,
                  f"the store has {stats['store-memory-bytes']} bytes")
        tap.check(stats["resident-bytes"] > 80 * MIB, "where did the pages go?")


def test_hotplug():
    """hot-plug: memory that is added joins the managed memory"""
    script = """
    echo online >/sys/devices/system/memory/auto_online_blocks
    echo "rig: ready $(awk '/^MemTotal/{print $2}' /proc/meminfo)"
    until [ "$(awk '/^MemTotal/{print $2}' /proc/meminfo)" -gt 260000 ]; do sleep 0.2; done
    """ + workload_script(mib=190)
    with RunDir() as run_dir, \
            Vm("plug", script, memory=MEMORY, env=run_dir.env, managed=["--limit", "96M"],
               memory_slots=f"{MEMORY},slots=2,maxmem=1G") as vm:
        vm.wait_line("rig: ready")
        vm.connect()
        control = run_dir.control("plug")
        before = control.stats()["configured-bytes"]
        vm.qmp.run("object-add", **{"qom-type": "memory-backend-memfd", "id": "m1",
                                    "size": 128 * MIB, "share": True})
        vm.qmp.run("device_add", driver="pc-dimm", id="dimm1", memdev="m1")
        wait_for(lambda: control.stats()["configured-bytes"] >= before + 128 * MIB, 10,
                 "configured memory with the new")
        check_workload(vm)
        stats = control.stats()
        note_stats(stats)
        tap.check(stats["resident-bytes"] <= 96 * MIB * 1.06, "more than the limit")


def main():
    reason = paths.missing()
    if reason:
        print(f"1..1\nok 1 - guest memory under a limit # SKIP {reason}")
        return
    tap.main(test_memfd, test_anonymous, test_limit_moves, test_store_full, test_hotplug)


if __name__ == "__main__":
    main()
