#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Two VMs whose demand swaps, under `memvirt govern`, beside the same VMs with half of the budget
each.

Every half a minute one VM begins to work with most of its memory, and the other one stops. The
budget is 60% of what both have. What counts is how many pages the workloads checked in all.
"""
import argparse
import json
import re
import statistics
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "rig"))

from harness import paths  # noqa: E402
from harness.control import Governor, RunDir  # noqa: E402
from harness.vm import Vm  # noqa: E402

MEMORY = 512  # MiB, of each
BUDGET = 2 * MEMORY * 60 // 100
PHASES = 4

BUSY = "workload mib=352 hot=320 seconds=600 cold=500 seed=1"
QUIET = "workload mib=32 hot=8 seconds=600 cold=100 seed=2"


def script(first_busy, seconds):
    """What a guest runs: it works in every other phase; each ends when its time is over."""
    lines = ["insmod /modules/memvirt_balloon.ko"]
    for phase in range(PHASES):
        busy = (phase % 2 == 0) == first_busy
        lines.append(f"echo 'rig: phase {phase} {'busy' if busy else 'quiet'}'")
        lines.append(f"timeout {seconds} {BUSY if busy else QUIET}")
    return "\n".join(lines) + "\necho 'rig: all phases'\n"


def work_done(vm):
    """Pages that its busy phases checked; none may have been wrong."""
    total, last, busy = 0, 0, False
    for line in vm.console.read():
        if line.startswith("rig: "):
            total += last if busy else 0
            last, busy = 0, line.endswith("busy")
        wrong = re.search(r"^workload: .*\bwrong=(\d+)", line)
        if wrong and int(wrong.group(1)):
            raise RuntimeError(f"{vm.name}: {line}")
        verified = re.search(r"^workload: phase=.*\bverified=(\d+)", line)
        last = int(verified.group(1)) if verified else last
    return total


def one_run(seconds, governed):
    """Pages that both VMs checked."""
    limit = [] if governed else ["--limit", f"{BUDGET // 2}M"]
    with RunDir() as run_dir:
        vms = [Vm(f"swap{i}", script(i == 0, seconds), memory=MEMORY, managed=limit,
                  balloon=",deflate-on-oom=on",
                  env=run_dir.env) for i in range(2)]
        with vms[0], vms[1]:
            if governed:
                with Governor(run_dir, f"{BUDGET}M", ["--interval", "0.5"],
                              vms[0].dir / "govern"):
                    wait_for_all(vms, seconds)
            else:
                wait_for_all(vms, seconds)
            return sum(map(work_done, vms))


def wait_for_all(vms, seconds):
    errors = []

    def wait(vm):
        try:
            vm.wait_line("^rig: all phases", 120 + PHASES * seconds * 2)
        except Exception as error:  # told by the main thread
            errors.append(error)

    threads = [threading.Thread(target=wait, args=(vm,)) for vm in vms]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def spread(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    name = "two VMs whose demand swaps, pages checked"
    reason = paths.missing()
    if reason:
        print(json.dumps({"name": name, "verdict": "skipped", "reason": reason, "unit": ""}))
        return 0
    rounds, seconds = (1, 8) if args.quick else (args.rounds, 30)
    pairs = [(one_run(seconds, True), one_run(seconds, False)) for _ in range(rounds)]
    ratios = spread([ours / peer for ours, peer in pairs])
    print(json.dumps({
        "rounds": rounds, "name": name, "unit": "k",
        "ours": spread([ours / 1000 for ours, _ in pairs]), "peer_name": "static halves",
        "peer": spread([peer / 1000 for _, peer in pairs]), "ratio": ratios, "goal": ">=1.50",
        "verdict": "holds" if ratios["median"] >= 1.5 else "short"}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
