#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""The ways in which a VMM is started, and devices that do not keep memory from being
evicted: under each the VM is managed, or says why not.

What does not belong here: what the guest's memory goes through (test_lifecycle.py).
"""
import os
import shlex
import signal
import tempfile
import time
from pathlib import Path

from harness import paths, tap
from harness.control import RunDir
from harness.deadline import wait_for
from harness.vm import MIB, Vm

MEMORY, LIMIT = 192, 88
SCRIPT = """
workload mib=96 hot=16 seconds=2 cold=500 seed=3
echo "rig: workload ended with status $?"
sleep 600
"""


def start(name, run_dir, extra=(), backend="memfd", **options):
    return Vm(name, SCRIPT, memory=MEMORY, backend=backend, managed=["--limit", f"{LIMIT}M"],
              env=run_dir.env, extra=extra, **options)


def check_runs(vm, control):
    status = vm.wait_line(r"rig: workload ended with status (\d+)", 120).group(1)
    tap.check_equal(status, "0", "the workload's exit status")
    stats, info = control.stats(), control.info()
    tap.note({key: stats[key] for key in ("evictions", "restores", "holds", "resident-bytes")})
    tap.check_equal(info["holds"], [], "holds")
    tap.check(stats["evictions"] > 1000, "hardly anything was evicted")
    tap.check_equal([region["managed"] for region in info["regions"]], [True], "managed")
    return info


def test_sandbox():
    """sandbox: QEMU's seccomp filter, as libvirt sets it, lets memvirt work"""
    options = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
    with RunDir() as run_dir, start("sandbox", run_dir, ["-sandbox", options]) as vm:
        check_runs(vm, run_dir.control("sandbox"))


def test_daemonize():
    """background: qemu -daemonize, which forks before it maps its guest's memory"""
    with RunDir() as run_dir:
        vm = start("daemon", run_dir)
        pid_file = Path(vm.dir) / "pid"
        # The console is a file; nothing may be left on standard output.
        command = [word for word in vm.command if word != "-nographic"]
        vm.command = [*command, "-display", "none", "-daemonize", "-pidfile", str(pid_file)]
        pid = None
        try:
            vm.start()
            tap.check_equal(vm.process.wait(60), 0, "exit status of what was started")
            pid = int(pid_file.read_text())
            vm.console.alive = lambda: True
            info = check_runs(vm, run_dir.control("daemon"))
            tap.check_equal(info["pid"], pid, "the process that is managed")
            tap.check("no guest memory" not in vm.messages, vm.messages)
        finally:
            if pid:
                os.kill(pid, signal.SIGTERM)
            vm.close()
        wait_for(lambda: not run_dir.control("daemon").path.exists(), 10, "end of the VM")


def test_script():
    """script: a VMM that is a shell script ending in exec"""
    with RunDir() as run_dir, tempfile.TemporaryDirectory() as directory:
        script = Path(directory) / "vmm"
        script.write_text(f'#!/bin/sh\ntest -n "$(date)" || exit 1\n'
                          f'exec {shlex.quote(paths.QEMU)} "$@"\n')
        script.chmod(0o755)
        vm = start("script", run_dir)
        vm.command[vm.command.index(paths.QEMU)] = str(script)
        with vm:
            check_runs(vm, run_dir.control("script"))


def test_iothread():
    """iothread: I/O threads, which poll through io_uring, do not stop eviction"""
    with RunDir() as run_dir, tempfile.NamedTemporaryFile(dir=paths.BUILD) as disk:
        disk.truncate(8 * MIB)
        extra = ["-object", "iothread,id=t0",
                 "-drive", f"file={disk.name},format=raw,if=none,id=d0,cache=none,aio=native",
                 "-device", "virtio-blk-pci,drive=d0,iothread=t0"]
        with start("iothread", run_dir, extra) as vm:
            check_runs(vm, run_dir.control("iothread"))


def test_locked():
    """locked: a VM all of whose memory is to stay resident is left alone, and that is said"""
    with RunDir() as run_dir, start("locked", run_dir, ["-overcommit", "mem-lock=on"]) as vm:
        vm.wait_line("workload: phase=", 120)
        regions = run_dir.control("locked").info()["regions"]
        tap.check_equal([region["managed"] for region in regions], [False], "managed")
        tap.check("locks all" in regions[0]["reason"], regions)
        tap.check("unmanaged" in vm.messages, vm.messages)


def test_hidden_memory():
    """memory: plain -m, the default backend, is found and managed, or why not is said"""
    with RunDir() as run_dir:
        vm = start("plain", run_dir)
        at = vm.command.index("-object")
        del vm.command[at:at + 2]
        machine = vm.command.index("-M") + 1
        vm.command[machine] = "q35"
        with vm:
            vm.wait_line("workload: phase=", 120)
            info = run_dir.control("plain").info()
            regions = info["regions"]
            tap.check_equal([region["bytes"] for region in regions], [MEMORY * MIB], "regions")
            if not regions[0]["managed"]:
                tap.check("UFFDIO_MOVE" in regions[0]["reason"], regions)
                raise tap.Skip(regions[0]["reason"])
            check_runs(vm, run_dir.control("plain"))


def test_quiet_exit():
    """end: QEMU ends with the status that it would end with alone, and without a word"""
    with RunDir() as run_dir, start("quit", run_dir) as vm:
        vm.connect()
        vm.wait_line("workload: phase=", 120)
        time.sleep(1)
        vm.qmp.run("quit")
        tap.check_equal(vm.wait_end(30), 0, "exit status")
        tap.check_equal(vm.messages, "", "messages")


def main():
    reason = paths.missing()
    if reason:
        print(f"1..1\nok 1 - ways of starting a VMM # SKIP {reason}")
        return
    tap.main(test_sandbox, test_daemonize, test_script, test_iothread, test_locked,
             test_hidden_memory, test_quiet_exit)


if __name__ == "__main__":
    main()
