#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
# memvirt-test-timeout: 600
"""What befalls VMs: a reboot, a kill, a power-off, a snapshot by QEMU itself."""
import json
import re

from harness import paths, tap
from harness.control import Governor, RunDir
from harness.deadline import wait_for
from harness.vm import Vm
from harness.workload import LIMIT, MEMORY, check_workload, note_stats, workload_script


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
    tap.check_equal(done.returncode, 0, f"memstat's status; it said {done.stderr}")
    return json.loads(done.stdout)["vms"]


def test_killed():
    """kill: a VMM that died of SIGKILL is recognised, nothing hangs, its name is free again"""
    with RunDir() as run_dir:
        with Vm("victim", workload_script(seconds=30), memory=MEMORY, env=run_dir.env,
                managed=["--limit", f"{LIMIT}M"]) as vm, \
                Governor(run_dir, "192M", ("--interval", "0.2"), vm.dir / "log") as governor:
            wait_for(lambda: "governed" in (vm.dir / "log").read_text(), 10, "the governor")
            vm.wait_line("workload: phase=fill")
            vm.kill()
            vm.wait_end()
            tap.check_equal([(row["name"], row["state"]) for row in memstat_rows(run_dir)],
                            [("victim", "dead")], "what memstat shows")
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


def test_background_snapshot():
    """snapshot: QEMU's own userfaultfd gets the memory; the guest goes on, nothing is lost"""
    with RunDir() as run_dir, Vm("snapshot", workload_script(seconds=8), memory=MEMORY,
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
    tap.main(test_reboot, test_killed, test_ended, test_background_snapshot)


if __name__ == "__main__":
    main()
