# SPDX-License-Identifier: BSD-2-Clause
"""The verdict: everything that must have held, and what the demo would not have shown
otherwise. The first reason that applies is the one that is told."""
from harness.vm import MIB

TOLERANCE = 1.05


def peak(samples):
    """The sample with the most memory, of those after both workloads had started."""
    return max((sample for sample in samples if sample.started),
               key=lambda sample: sample.counted, default=None)


def _of_guest(guest, last):
    workload, name = guest.workload, guest.name
    if not workload.finished:
        gone = "" if guest.vm.alive() else "; the VM has died"
        yield f"{name}: the workload did not finish (phase {workload.phase}){gone}"
        return
    if workload.oom_kills:
        yield f"{name}: the guest ran out of memory"
    if workload.summary is None:
        yield f"{name}: the workload ended without a summary (status {workload.status})"
        return
    if workload.wrong or workload.status:
        yield f"{name}: {workload.wrong} pages had wrong content"
    if workload.driver != "memvirt_balloon":
        yield f"{name}: the balloon is driven by {workload.driver}, not by memvirt_balloon"
    if not guest.vm.alive():
        yield f"{name}: the VM has died"
    # Without these, nothing was shown.
    for counter in ("evictions", "restores"):
        if not last.vms[name].stats.get(counter):
            yield f"{name}: no {counter}"


def _of_all(plan, scene, samples):
    if not scene.governor.alive():
        yield f"the governor ended by itself (status {scene.governor.process.returncode})"
    most = peak(samples)
    if most is None:
        yield "the workloads never ran at the same time"
    elif most.counted > plan.budget * MIB * TOLERANCE:
        yield (f"{most.counted / MIB:.0f} MiB in use at {most.time:.0f} s, "
               f"more than the budget of {plan.budget} MiB")
    if not any(vm.ballooned_pages for sample in samples for vm in sample.vms.values()):
        yield "no page was ever in a balloon"
    if samples[-1].time > plan.deadline:
        yield f"it took {samples[-1].time:.0f} s, more than {plan.deadline} s"


def reasons(plan, scene, samples):
    """Why the demo failed; empty where it passed."""
    found = []
    for guest in scene.guests:
        found += _of_guest(guest, samples[-1])
    return found + list(_of_all(plan, scene, samples))
