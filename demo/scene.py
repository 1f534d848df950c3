# SPDX-License-Identifier: BSD-2-Clause
"""What the demo sets up: two VMs under `memvirt run`, a workload in each, one governor.

What does not belong here: measuring (samples.py), judging (judge.py).
"""
import re
from dataclasses import dataclass

from harness.control import Governor, RunDir
from harness.vm import MIB, Vm

NAMES = ("alpha", "beta")

GUEST = """
insmod /modules/memvirt_balloon.ko || echo "rig: insmod memvirt_balloon failed"
echo "rig: balloon driver $(basename "$(readlink /sys/bus/virtio/devices/virtio0/driver)")"
workload mib={workload} hot={hot} seconds={seconds} cold={cold} seed={seed}
echo "rig: workload ended with status $?"
echo "rig: oom kills $(awk '/^oom_kill /{{print $2}}' /proc/vmstat)"
# The host takes its last numbers, and ends the VM.
sleep 600
"""


@dataclass
class Plan:
    """Sizes of the demo, in MiB; `seconds` is how long the workloads run between filling
    their memory and checking all of it."""
    budget: int = 576
    memory: int = 512
    workload: int = 384
    hot: int = 72
    cold: int = 1500
    seconds: int = 25
    seed: int = 1
    deadline: int = 120

    @property
    def first_limit(self):
        """Until the governor has looked: a third each, and a third for what is stored."""
        return self.budget // 3


SHORT = Plan(budget=380, memory=320, workload=192, hot=40, seconds=10)

_LINE = re.compile(r"^workload: (\w+)?(.*)$")
_NUMBER = re.compile(r"(\w+)=([\w.]+)")


class Workload:
    """What a guest's workload has said so far."""

    def __init__(self, console):
        self.console = console
        self.seen = 0
        self.phase = "boot"
        self.verified = 0
        self.wrong = 0
        self.summary = None
        self.driver = None
        self.oom_kills = None
        self.status = None

    def update(self):
        lines = self.console.read()
        for line in lines[self.seen:]:
            self._take(line)
        self.seen = len(lines)

    def _take(self, line):
        if line.startswith("workload: "):
            numbers = dict(_NUMBER.findall(line))
            self.phase = numbers.get("phase", self.phase)
            self.verified = int(numbers.get("verified", self.verified))
            self.wrong = int(numbers.get("wrong", self.wrong))
            if line.startswith("workload: summary"):
                self.summary = numbers
        elif match := re.match(r"rig: balloon driver (\S+)", line):
            self.driver = match.group(1)
        elif match := re.match(r"rig: workload ended with status (\d+)", line):
            self.status = int(match.group(1))
        elif match := re.match(r"rig: oom kills (\d+)", line):
            self.oom_kills = int(match.group(1))

    @property
    def started(self):
        return self.phase != "boot"

    @property
    def finished(self):
        return self.oom_kills is not None


class Guest:
    """One VM of the demo, and what its workload says."""

    def __init__(self, plan, name, seed, run_dir):
        script = GUEST.format(workload=plan.workload, hot=plan.hot, seconds=plan.seconds,
                              cold=plan.cold, seed=seed)
        self.name = name
        self.memory = plan.memory * MIB
        # A guest that grows faster than the governor looks may help itself first.
        self.vm = Vm(name, script, memory=plan.memory, env=run_dir.env,
                     balloon=",deflate-on-oom=on",
                     managed=["--limit", f"{plan.first_limit}M"])
        self.control = run_dir.control(name)
        self.workload = Workload(self.vm.console)

    def start(self):
        self.vm.start()
        self.vm.connect()


class Scene:
    """All of it; for a `with` statement."""

    def __init__(self, plan, log):
        self.plan = plan
        self.run_dir = RunDir()
        self.guests = [Guest(plan, name, plan.seed + number, self.run_dir)
                       for number, name in enumerate(NAMES)]
        self.governor = Governor(self.run_dir, f"{plan.budget}M", log=log)

    def __enter__(self):
        try:
            for guest in self.guests:
                guest.start()
            self.governor.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.governor.close()
        for guest in self.guests:
            guest.vm.close()
        self.run_dir.close()
