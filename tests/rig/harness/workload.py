# SPDX-License-Identifier: BSD-2-Clause
"""A small guest with a workload under memvirt, as several tests use it."""
from . import tap

MEMORY = 256
LIMIT = 104


def workload_script(seconds=4, then="sleep 600", mib=144):
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
