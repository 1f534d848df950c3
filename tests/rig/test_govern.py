# SPDX-License-Identifier: BSD-2-Clause
"""memvirt govern, among VMs that are played: within the budget, with VMs that hang, fall
silent, refuse, come and go."""
import json
import os
import re
import signal
import subprocess
import tempfile
import time

from harness import paths, tap
from harness.control import RunDir
from harness.deadline import wait_for
from harness.fake_vm import MIB, FakeVm

IDLE = {"stat-total-memory": 480 * MIB, "stat-free-memory": 400 * MIB,
        "stat-available-memory": 400 * MIB, "stat-disk-caches": 0}


class Governed:
    """The governor in the background, with what it says; for a `with` statement."""

    def __init__(self, run_dir, *arguments, stdout=None):
        self.command = [str(paths.MEMVIRT), "govern", "--interval", "0.1", *map(str, arguments)]
        self.env = dict(os.environ, **run_dir.env)
        self.files = [tempfile.TemporaryFile("w+") for _ in range(2)]
        self.stdout = stdout or self.files[0]

    def __enter__(self):
        self.process = subprocess.Popen(self.command, env=self.env, stdin=subprocess.DEVNULL,
                                        stdout=self.stdout, stderr=self.files[1])
        return self

    def _read(self, file):
        # The governor writes at the end of the same open file: do not move its offset.
        size = os.fstat(file.fileno()).st_size
        return os.pread(file.fileno(), size, 0).decode()

    @property
    def out(self):
        return self._read(self.files[0])

    @property
    def err(self):
        return self._read(self.files[1])

    def alive(self):
        return self.process.poll() is None

    def wait_said(self, text):
        wait_for(lambda: text in self.err, 15, f"'{text}'")

    def end(self, how=signal.SIGTERM):
        """Its exit status."""
        if self.alive():
            self.process.send_signal(how)
        return self.process.wait(5)

    def __exit__(self, *_):
        self.end(signal.SIGKILL)
        for file in self.files:
            file.close()


def ticks(vm, count=5):
    """Wait until the governor has looked some times more."""
    if vm.guest is not None:
        seen = vm.asked.count("query-balloon")
        wait_for(lambda: vm.asked.count("query-balloon") >= seen + count, 10, "ticks")
    else:
        time.sleep(0.1 * count + 0.3)


def test_budget():
    """govern: two VMs that need more than there is come within the budget, and use it"""
    with RunDir() as run_dir, FakeVm(run_dir, "a", populated=450 * MIB) as a, \
            FakeVm(run_dir, "b", populated=300 * MIB, limit=300 * MIB) as b, \
            Governed(run_dir, "--budget", "500M") as governor:
        wait_for(lambda: a.limit and a.used + b.used <= 500 * MIB, 20, "the budget")
        time.sleep(2)
        tap.note(f"a {a.used >> 20} MiB of {a.limit >> 20}, b {b.used >> 20} of {b.limit >> 20}")
        tap.check(400 * MIB < a.used + b.used <= 500 * MIB, f"{a.used + b.used} used")
        tap.check(min(a.limits + b.limits) >= 64 * MIB, "below the floor")
        tap.check_equal(governor.end(), 0, "status")
        tap.check_equal(a.limits[0], a.configured, "first a limit that evicts nothing")
        tap.check("ending: limits and balloons of 2 VMs stay" in governor.err, governor.err)
        line = re.compile(r"^\d\d:\d\d:\d\d [ab]: limit .* -> .*: .*$")
        for said in governor.out.splitlines():
            tap.check(line.match(said), f"what is this? {said}")


def test_ample():
    """govern: where everything fits there are no limits, and those that were are lifted"""
    with RunDir() as run_dir, FakeVm(run_dir, "a") as a, \
            FakeVm(run_dir, "b", limit=100 * MIB) as b, Governed(run_dir, "--budget", "2G"):
        wait_for(lambda: b.limits, 10, "a decision")
        tap.check_equal((a.limits, b.limits), ([], [None]), "limits set")


def test_balloon():
    """govern: what a guest can spare its balloon takes; its numbers reach the segment"""
    with RunDir() as run_dir, FakeVm(run_dir, "idle", populated=300 * MIB, limit=300 * MIB,
                                     guest=IDLE) as vm, Governed(run_dir, "--budget", "300M"):
        wait_for(lambda: vm.targets, 15, "a target")
        # 32 MiB are its kernel's own, 80 are used.
        tap.check(all(112 * MIB <= target < 512 * MIB for target in vm.targets), f"{vm.targets}")
        wait_for(lambda: vm.notes.get("balloon-target-bytes"), 5, "a note")
        tap.check_equal(vm.notes["guest-available-bytes"], 400 * MIB, "available")
        tap.check_equal(vm.notes["guest-major-faults"], None, "what the guest does not say")
        tap.check("qom-set" in vm.asked, "the guest's statistics were not switched on")


def test_old_guest_numbers():
    """govern: no balloon moves on numbers that are an hour old, and they are not passed on"""
    class Stopped(FakeVm):
        said = time.time()

        def _qmp(self, command, arguments):
            answer = super()._qmp(command, arguments)
            if command == "qom-get":
                answer["return"]["last-update"] = int(self.said) - 3600
            return answer

    class Lagging(Stopped):
        said = property(lambda self: time.time())

    for kind in (Stopped, Lagging):
        with RunDir() as run_dir, \
                kind(run_dir, "old", populated=300 * MIB, limit=300 * MIB, guest=IDLE) as vm, \
                Governed(run_dir, "--budget", "300M"):
            ticks(vm, 15)
            tap.check_equal(vm.targets, [], "targets")
            tap.check("balloon-actual-bytes" in vm.notes, "nothing was noted")
            tap.check("guest-free-bytes" not in vm.notes, "old numbers were noted as of now")


def test_silent():
    """govern: a VM that publishes nothing keeps its limit; others are governed on"""
    with RunDir() as run_dir, FakeVm(run_dir, "a", populated=450 * MIB, limit=400 * MIB) as a, \
            FakeVm(run_dir, "b", populated=450 * MIB, limit=400 * MIB) as b:
        a.publishes = False
        time.sleep(3.2)  # three intervals, of a second at least
        with Governed(run_dir, "--budget", "500M"):
            wait_for(lambda: b.limits, 10, "a limit of the other")
            time.sleep(0.5)
            tap.check_equal(a.limits, [], "limits of the silent one")
            a.publishes = True
            wait_for(lambda: a.limits, 10, "a limit once it publishes again")


def test_hanging():
    """govern: a VM that hangs on both sockets delays nobody, and is told once it answers"""
    with RunDir() as run_dir, FakeVm(run_dir, "a", populated=450 * MIB, limit=400 * MIB,
                                     guest=IDLE) as a, \
            FakeVm(run_dir, "b", populated=450 * MIB, limit=400 * MIB, guest=IDLE) as b:
        a.control.hangs = a.qmp.hangs = True
        with Governed(run_dir, "--budget", "500M") as governor:
            wait_for(lambda: b.limits and b.targets, 10, "decisions for the other")
            began, seen = time.monotonic(), b.asked.count("query-balloon")
            wait_for(lambda: b.asked.count("query-balloon") >= seen + 20, 10, "20 ticks")
            took = time.monotonic() - began
            tap.note(f"20 ticks of 0.1 s took {took:.1f} s")
            tap.check(took < 6, "the other waited for it")
            tap.check_equal((a.limits, a.targets), ([], []), "told while it hung")
            governor.wait_said("no answer for some seconds")
            a.control.hangs = a.qmp.hangs = False
            wait_for(lambda: a.limits, 10, "a limit once it answers")
            tap.check_equal(governor.end(), 0, "status")


def test_come_and_go():
    """govern: VMs that come are governed, those that vanish are dropped with a message"""
    with RunDir() as run_dir, Governed(run_dir, "--budget", "300M") as governor:
        governor.wait_said("no VM is running")
        with FakeVm(run_dir, "brief", populated=450 * MIB) as vm:
            wait_for(lambda: vm.limits, 10, "a limit")
        governor.wait_said("brief: has gone")
        with FakeVm(run_dir, "brief", populated=450 * MIB) as vm:
            wait_for(lambda: vm.limits, 10, "a limit of the next with that name")
        tap.check(governor.alive(), "it ended with its VM")


def test_killed():
    """govern: a VM that was killed and left its files is dropped"""
    with RunDir() as run_dir, Governed(run_dir, "--budget", "300M") as governor:
        with FakeVm(run_dir, "dead", limit=100 * MIB) as vm:
            governor.wait_said("dead: governed")
            vm.publishes = False
            time.sleep(0.1)
            vm._begun = 1  # the process of this id was started later
            vm.publish()
            governor.wait_said("dead: has gone")


def test_refusals():
    """govern: what a VM or QEMU refuses is said once, and the rest goes on"""
    with RunDir() as run_dir, FakeVm(run_dir, "a", populated=450 * MIB, limit=400 * MIB,
                                     guest=IDLE) as vm:
        vm.refuses = "set-limit"
        with Governed(run_dir, "--budget", "300M") as governor:
            wait_for(lambda: vm.targets, 15, "a target all the same")
            ticks(vm)
            vm.refuses = "balloon"
            governor.wait_said("refuses a balloon target")
            said = governor.err
        tap.check_equal(said.count("control socket, set-limit: this cannot be"), 1, said)


def test_output_closed():
    """govern: goes on where its output is not read any more"""
    with RunDir() as run_dir, FakeVm(run_dir, "a", populated=450 * MIB, limit=400 * MIB) as vm:
        reading, writing = os.pipe()
        with Governed(run_dir, "--budget", "300M", stdout=writing) as governor:
            os.close(writing)
            os.close(reading)
            governor.wait_said("governing goes on")
            wait_for(lambda: vm.limit < 300 * MIB, 10, "a limit")
            tap.check(governor.alive(), "it ended")


def test_once():
    """govern --once: decides and ends; --dry-run tells nobody; --json is one object a line"""
    with RunDir() as run_dir, FakeVm(run_dir, "a", populated=450 * MIB, limit=400 * MIB,
                                     guest=IDLE) as vm:
        dry = run_dir.memvirt("govern", "--budget", "300M", "--once", "--dry-run", "--json")
        tap.check_equal(dry.returncode, 0, dry.stderr)
        changes = [json.loads(line) for line in dry.stdout.splitlines()]
        limit = next(change for change in changes if change["what"] == "limit")
        tap.check_equal((limit["vm"], limit["from-bytes"], limit["dry-run"]),
                        ("a", 400 * MIB, True), "a decision")
        told = {"set-limit", "note", "balloon", "qom-set"} & set(vm.asked)
        tap.check_equal((told, vm.limits), (set(), []), "told in a dry run")
        done = run_dir.memvirt("govern", "--budget", "300M", "--once")
        tap.check_equal(done.returncode, 0, done.stderr)
        tap.check_equal(vm.limits, [limit["to-bytes"]], "the limit")


def test_once_learns():
    """govern --once: a VM without a limit gets one within one run"""
    with RunDir() as run_dir, FakeVm(run_dir, "a", populated=450 * MIB) as vm:
        done = run_dir.memvirt("govern", "--budget", "300M", "--once")
        tap.check_equal(done.returncode, 0, done.stderr)
        tap.check(vm.limit < 300 * MIB, f"limits {vm.limits}")


def test_too_small():
    """govern: a budget below the floors is said to be, and the floors hold"""
    with RunDir() as run_dir, FakeVm(run_dir, "a", populated=450 * MIB, limit=400 * MIB) as vm, \
            FakeVm(run_dir, "small", configured=64 * MIB, populated=MIB, limit=64 * MIB) as small:
        done = run_dir.memvirt("govern", "--budget", "128M", "--floor", "100M", "--once")
        tap.check_equal(done.returncode, 1, done.stderr)
        tap.check("too small for 2 VMs" in done.stderr, done.stderr)
        tap.check("small: is smaller than the floor" in done.stderr, done.stderr)
        tap.check_equal(vm.limits, [100 * MIB], "its limit")
        tap.check(all(limit == 64 * MIB for limit in small.limits), f"{small.limits}")


def test_named():
    """govern: only those named, with the QMP socket that is given"""
    with RunDir() as run_dir, FakeVm(run_dir, "a", populated=450 * MIB, limit=400 * MIB) as a, \
            FakeVm(run_dir, "b", populated=450 * MIB, limit=400 * MIB) as b:
        a.guest = IDLE
        with Governed(run_dir, "--budget", "300M", f"a={a.qmp_path}"):
            wait_for(lambda: a.limits and a.targets, 15, "decisions")
            tap.check_equal((b.limits, b.targets), ([], []), "told though not named")
        done = run_dir.memvirt("govern", "--budget", "300M", "a", "mistyped", "--once")
        tap.check_equal(done.returncode, 1, "status")
        tap.check("no VM named 'mistyped'" in done.stderr, done.stderr)


def main():
    reason = paths.missing_tools()
    if reason:
        print(f"1..1\nok 1 - memvirt govern # SKIP {reason}")
        return
    tap.main(test_budget, test_ample, test_balloon, test_old_guest_numbers, test_silent,
             test_hanging, test_come_and_go, test_killed, test_refusals, test_output_closed,
             test_once, test_once_learns, test_too_small, test_named)


if __name__ == "__main__":
    main()
