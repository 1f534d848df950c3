#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""A VM without a limit under `memvirt run` beside the same VM without memvirt.

What memvirt does not need to manage it must not slow down, and huge pages stay whole. Each
round boots both, one after the other; their workload fills memory and keeps it busy.
"""
import argparse
import json
import re
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "rig"))

from harness import paths  # noqa: E402
from harness.vm import Vm  # noqa: E402

MEMORY = 256  # MiB


def huge_mib(pid):
    """Huge pages in the mapping that is as large as the guest's memory."""
    size = 0
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if line.startswith("Size:"):
            size = int(line.split()[1])
        elif line.startswith("AnonHugePages:") and size == MEMORY * 1024:
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"no mapping of {MEMORY} MiB in process {pid}")


def one_run(seconds, managed):
    """Pages that the guest checked a second, and the huge pages at the end."""
    script = f"workload mib={MEMORY // 2} hot=64 seconds={seconds} cold=1000 seed=1\n"
    name = "bench-managed" if managed is not None else "bench-plain"
    with Vm(name, script, memory=MEMORY, backend="ram", managed=managed) as vm:
        vm.wait_line(r"workload: phase=verify", 120 + seconds)
        huge = huge_mib(vm.pid)
        end = vm.wait_line(r"workload: summary .*", 120)
    fields = dict(re.findall(r"(\w+)=([\d.]+)", end.group(0)))
    if int(fields["wrong"]):
        raise RuntimeError(f"{fields['wrong']} wrong pages")
    return int(fields["verified"]) / float(fields["elapsed"]), huge


def spread(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def report(name, unit, ours, peer, goal):
    ratios = spread([our / their for our, their in zip(ours, peer) if their])
    verdict = "holds" if ratios["median"] >= goal else "short"
    print(json.dumps({
        "rounds": len(ours), "name": name, "unit": unit, "ours": spread(ours),
        "peer_name": "plain QEMU", "peer": spread(peer), "ratio": ratios,
        "goal": f">={goal:.2f}", "verdict": verdict}), flush=True)


def skip(name, reason):
    print(json.dumps({"name": name, "verdict": "skipped", "reason": reason, "unit": ""}))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    reason = paths.missing()
    if reason:
        skip("unlimited VM", reason)
        return 0
    rounds, seconds = (1, 4) if args.quick else (args.rounds, 10)
    pairs = [(one_run(seconds, []), one_run(seconds, None)) for _ in range(rounds)]
    (ours, our_huge), (peer, peer_huge) = (zip(*side) for side in zip(*pairs))
    report("unlimited VM, pages checked", "k/s", [v / 1000 for v in ours],
           [v / 1000 for v in peer], 0.95)
    if any(peer_huge):
        report("unlimited VM, huge pages", "MiB", our_huge, peer_huge, 0.95)
    else:
        skip("unlimited VM, huge pages", "plain QEMU has none here")
    return 0


if __name__ == "__main__":
    sys.exit(main())
