#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
# memvirt-test-timeout: 600
"""The demo: its verdict, and its short form as a user would run it."""
import subprocess
import sys
import xml.etree.ElementTree as xml
from types import SimpleNamespace

from harness import paths, tap
from harness.vm import MIB

sys.path.append(str(paths.ROOT / "demo"))
import judge  # noqa: E402 (the path comes first)
from samples import Sample, VmSample  # noqa: E402
from scene import Plan  # noqa: E402

OUTPUT = paths.BUILD / "demo-short"


def test_short_demo():
    """demo: short form passes, with a table and a plot"""
    tap.need(paths.missing())
    done = subprocess.run([sys.executable, str(paths.ROOT / "demo" / "demo"), "--short",
                           "--output", str(OUTPUT)], stdin=subprocess.DEVNULL, text=True,
                          capture_output=True, timeout=200, check=False)
    tap.note(done.stdout)
    tap.note(done.stderr)
    tap.check_equal(done.stdout.splitlines()[-1:], ["demo: PASS"], "the last line")
    tap.check_equal(done.returncode, 0, "exit status")
    tap.check("resident MiB, over time" in done.stdout, "no table")
    root = xml.parse(OUTPUT / "resident.svg").getroot()
    areas = root.findall("{http://www.w3.org/2000/svg}polygon")
    tap.check_equal(len(areas), 3, "areas in the plot")


class Story:
    """A demo that went well, made up; a test spoils one thing of it."""

    def __init__(self):
        self.plan = Plan()
        self.guests = [SimpleNamespace(
            name=name, vm=SimpleNamespace(alive=lambda: True),
            workload=SimpleNamespace(finished=True, phase="done", oom_kills=0, wrong=0, status=0,
                                     summary={"wrong": "0"}, driver="memvirt_balloon"))
            for name in ("alpha", "beta")]
        self.governor = SimpleNamespace(alive=lambda: True,
                                        process=SimpleNamespace(returncode=None))
        self.samples = [self.sample(time) for time in (1.0, 2.0, 50.0)]

    def sample(self, time):
        vms = {guest.name: VmSample("run", ram=200 * MIB, store=80 * MIB, ballooned_pages=5,
                                    stats={"evictions": 9, "restores": 9})
               for guest in self.guests}
        return Sample(time, vms, started=True)

    def reasons(self):
        return judge.reasons(self.plan, self, self.samples)


def spoil_everywhere(story, **values):
    for sample in story.samples:
        for vm in sample.vms.values():
            vm.__dict__.update(values)


# What is spoiled, and what the verdict then says.
SPOILS = {
    "more than the budget": lambda story: story.samples[1].vms["beta"].__dict__.update(
        ram=350 * MIB),
    "wrong content": lambda story: story.guests[0].workload.__dict__.update(wrong=1, status=1),
    "did not finish": lambda story: story.guests[1].workload.__dict__.update(finished=False),
    "without a summary": lambda story: story.guests[1].workload.__dict__.update(summary=None),
    "has died": lambda story: story.guests[0].vm.__dict__.update(alive=lambda: False),
    "ran out of memory": lambda story: story.guests[0].workload.__dict__.update(oom_kills=1),
    "not by memvirt_balloon": lambda story: story.guests[0].workload.__dict__.update(
        driver="virtio_balloon"),
    "no evictions": lambda story: spoil_everywhere(story, stats={"restores": 1}),
    "no restores": lambda story: spoil_everywhere(story, stats={"evictions": 1}),
    "in a balloon": lambda story: spoil_everywhere(story, ballooned_pages=0),
    "at the same time": lambda story: [sample.__dict__.update(started=False)
                                       for sample in story.samples],
    "it took": lambda story: story.samples.append(story.sample(130.0)),
    "the governor ended": lambda story: story.governor.__dict__.update(alive=lambda: False),
}


def test_verdict():
    """demo: the verdict finds each thing that can go wrong"""
    tap.check_equal(Story().reasons(), [], "the verdict on a good run")
    for text, spoil in SPOILS.items():
        story = Story()
        spoil(story)
        reasons = story.reasons()
        tap.check(any(text in reason for reason in reasons), f"no '{text}' in {reasons}")


if __name__ == "__main__":
    tap.main(test_verdict, test_short_demo)
