#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""What befalls VMs: memory of each kind under a limit, a full store, a reboot, a kill, a
limit that comes and goes, memory that is plugged in.

In each, a workload in the guest checks every byte of its memory.
"""
import json
import re

from harness import paths, tap
from harness.control import ControlError, Governor, RunDir
from harness.deadline import wait_for
from harness.outside import RamMeter
from harness.vm import MIB, Vm

MEMORY = 256
LIMIT = 104


def workload_script(seconds=6, then="sleep 600", mib=144):
    return f"""
    workload mib={mib} hot=16 seconds={seconds} cold=4000 seed=5
    echo "rig: workload ended with status $?"
    {then}
    """


def check_workload(vm, seconds=90, start=0):
    """Wait for the end of the workload; nothing may have been wrong."""
    status = vm.wait_line(r"rig: workload ended with status (\d+)", seconds, start).group(1)
    tap.check_equal(status, "0", "the workload's exit status")
    summaries = [line for line in vm.console.read() if line.startswith("workload: summary")]
    tap.note(summaries[-1])
    tap.check(" wrong=0 " in summaries[-1], "wrong pages")


def note_stats(stats):
    tap.note({key: stats[key] for key in (
        "resident-bytes", "stored-pages", "store-memory-bytes", "evictions", "restores",
        "faults", "over-limit", "store-full", "holds", "cancels", "waits")})


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
        tap.check(abs(stats["resident-bytes"] - ram.bytes()) < 4 * MIB,
                  f"told {stats['resident-bytes']}, measured {ram.bytes()}")
        for counter in ("evictions", "restores"):
            tap.check(stats[counter] > 10000, f"only {stats[counter]} {counter}")
        tap.check_equal(stats["poisoned"], 0, "poisoned pages")
        ram.close()


def test_memfd():
    """memory: a guest on a shared memfd keeps to its limit and loses nothing"""
    check_backend("memfd")


def test_anonymous():
    """memory: a guest on private anonymous memory keeps to its limit and loses nothing"""
    check_backend("ram")


def test_limit_moves():
    """limit: set, lowered, lifted and set again while the guest works; then stop"""
    with RunDir() as run_dir, Vm("moves", workload_script(seconds=14), memory=MEMORY, managed=[],
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


def test_reboot():
    """reboot: the guest starts anew in the same process, under the same limit"""
    script = workload_script(seconds=2, then="reboot -f", mib=96)
    with RunDir() as run_dir, Vm("reboot", script, memory=MEMORY, reboots=True,
                                 managed=["--limit", "72M"], env=run_dir.env) as vm:
        check_workload(vm)
        first = run_dir.control("reboot").stats()["evictions"]
        lines = len(vm.console.read())
        vm.wait_line("rig: up", 60, start=lines)
        check_workload(vm, start=lines)
        stats = run_dir.control("reboot").stats()
        note_stats(stats)
        tap.check(stats["evictions"] > first, "no evictions after the reboot")


def memstat_rows(run_dir):
    done = run_dir.memstat("once", "--json", "--interval", "0.2")
    tap.note(f"memstat once --json: status {done.returncode} {done.stdout[:300]} {done.stderr}")
    return done, json.loads(done.stdout) if done.stdout.strip() else None


def test_killed():
    """kill: a VMM that died of SIGKILL is recognised, nothing hangs, its name is free again"""
    with RunDir() as run_dir:
        with Vm("victim", workload_script(seconds=30), memory=MEMORY, env=run_dir.env,
                managed=["--limit", f"{LIMIT}M"]) as vm, \
                Governor(run_dir, "128M", ("--interval", "0.2")) as governor:
            vm.wait_line("workload: phase=run")
            vm.kill()
            vm.wait_end()
            wait_for(lambda: vm.process.poll() is not None, 5, "its end")
            done, _ = memstat_rows(run_dir)
            text = done.stdout + done.stderr
            tap.check("dead" in text or "victim" not in text, "shown as if it were alive")
            once = run_dir.memvirt("govern", "--budget", "128M", "--once")
            tap.note(f"govern --once: status {once.returncode} {once.stdout} {once.stderr}")
            named = run_dir.memvirt("govern", "--budget", "128M", "--once", "victim")
            tap.note(f"govern of it: status {named.returncode} {named.stderr}")
            tap.check_equal(named.returncode, 1, "govern on the dead VM alone")
            tap.check("memvirt: " in named.stderr, "nothing was said of it")
            tap.check(governor.alive(), "the governor died with the VM")
        # The files that it left are no obstacle to the next of the name.
        with Vm("victim", workload_script(seconds=1, mib=64), memory=MEMORY, env=run_dir.env,
                managed=["--limit", f"{LIMIT}M"]) as vm:
            check_workload(vm)
            tap.check_equal(run_dir.control("victim").info()["pid"], vm.pid, "its process")


def test_ended():
    """end: a VM that powers off takes its socket and its segment with it"""
    with RunDir() as run_dir, Vm("ends", "true\n", memory=MEMORY, env=run_dir.env,
                                 managed=["--limit", f"{LIMIT}M"]) as vm:
        wait_for(lambda: run_dir.control("ends").path.exists(), 10, "the control socket")
        tap.check_equal(vm.wait_end(60), 0, "exit status")
        tap.check_equal(sorted(p.name for p in run_dir.path.iterdir()), [], "files left")


def test_hotplug():
    """hot-plug: memory that is added joins the managed memory"""
    script = """
    until [ -e /sys/devices/system/memory/auto_online_blocks ]; do sleep 1; done
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


def test_background_snapshot():
    """snapshot: QEMU's own userfaultfd gets the memory; the guest goes on, nothing is lost"""
    with RunDir() as run_dir, Vm("snapshot", workload_script(seconds=12), memory=MEMORY,
                                 managed=["--limit", f"{LIMIT}M"], env=run_dir.env) as vm:
        vm.wait_line("workload: phase=run")
        vm.connect()
        control = run_dir.control("snapshot")
        wait_for(lambda: control.stats()["evictions"] > 1000, 10, "evictions")
        vm.qmp.run("migrate-set-capabilities",
                   capabilities=[{"capability": "background-snapshot", "state": True}])
        vm.qmp.run("migrate", uri="exec:cat >/dev/null")

        def ended():
            status = vm.qmp.run("query-migrate").get("status")
            return status if status in ("completed", "failed", "cancelled") else None

        status = wait_for(ended, 60, "end of the snapshot")
        info = control.info()
        tap.note(f"snapshot {status}; holds {info['holds']}; messages {info['messages']}")
        check_workload(vm)
        tap.check_equal(status, "completed", "the snapshot")
        tap.check(info["holds"] or re.search(r"userfault|snapshot", " ".join(info["messages"])),
                  "nothing was said of it")


def main():
    reason = paths.missing()
    if reason:
        print(f"1..1\nok 1 - VMs under memvirt # SKIP {reason}")
        return
    tap.main(test_memfd, test_anonymous, test_limit_moves, test_store_full, test_reboot,
             test_killed, test_ended, test_hotplug, test_background_snapshot)


if __name__ == "__main__":
    main()
