#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
# memvirt-test-timeout: 600
"""Guests that read and write disks while their memory is evicted, by each of QEMU's ways.

The host's kernel reaches the guest's pages directly then, behind every protection. So a page
that is in a transfer must not be evicted, or eviction must be off for the VM, and say so.
"""
import json
import tempfile
from pathlib import Path

from harness import paths, tap
from harness.control import RunDir
from harness.vm import MIB, Vm

MEMORY, LIMIT, ARENA, DISK = 224, 88, 104, 32
SCRIPT = f"""
diskcheck device=/dev/vda mib={DISK} arena={ARENA} seconds=8 workers=2
echo "rig: diskcheck ended with status $?"
sleep 600
"""


def disk_arguments(path, options):
    return ["-drive", f"file={path},format=raw,if=none,id=d0,{options}",
            "-device", "virtio-blk-pci,drive=d0"]


def check_disk(name, options):
    with tempfile.TemporaryDirectory(prefix="memvirt-disk-", dir=paths.BUILD) as directory, \
            RunDir() as run_dir:
        path = Path(directory) / "disk"
        with open(path, "wb") as file:
            file.truncate(DISK * MIB)
        with Vm(name, SCRIPT, memory=MEMORY, managed=["--limit", f"{LIMIT}M"], env=run_dir.env,
                extra=disk_arguments(path, options)) as vm:
            vm.wait_up()
            status = vm.wait_line(r"rig: diskcheck ended with status (\d+)", 90).group(1)
            summaries = [line for line in vm.console.read() if "diskcheck: summary" in line]
            for line in summaries:
                tap.note(line)
            tap.check_equal(status, "0", "diskcheck's exit status")
            tap.check_equal(len(summaries), 2, "workers that ended")
            check_evicted_or_said(run_dir.control(name), vm)


def check_evicted_or_said(control, vm):
    """Either pages were evicted while the disk worked, or the VM says that none are."""
    stats = control.stats()
    tap.note({key: stats.get(key) for key in
              ("evictions", "restores", "cancels", "pinned-bytes", "holds", "resident-bytes")})
    if stats["holds"]:
        tap.note(json.dumps(control.info()))
        tap.check(vm.messages.strip(), "eviction is off, and nothing was said")
        return
    tap.check(stats["evictions"] > 1000, "hardly anything was evicted")
    tap.check(stats["restores"] > 1000, "hardly anything was restored")
    tap.check_equal(stats["pinned-bytes"], 0, "bytes pinned when all is done")


def test_threads():
    """disks: cache=none, aio=threads"""
    check_disk("threads", "cache=none,aio=threads")


def test_native():
    """disks: cache=none, aio=native"""
    check_disk("native", "cache=none,aio=native")


def test_io_uring():
    """disks: cache=none, aio=io_uring"""
    check_disk("uring", "cache=none,aio=io_uring")


def main():
    reason = paths.missing()
    if reason:
        print(f"1..1\nok 1 - disks under eviction # SKIP {reason}")
        return
    tap.main(test_threads, test_native, test_io_uring)


if __name__ == "__main__":
    main()
