# SPDX-License-Identifier: BSD-2-Clause
"""memvirt govern, among VMs that are played: within the budget, with VMs that hang, fall
silent, refuse, come and go."""
import json
import os
import re
import signal
import socket
import subprocess
import tempfile
import time

from harness import paths, tap
from harness.control import Control, ControlError, RunDir
from harness.deadline import wait_for
from harness.fake_vm import MIB, FakeVm, segment

IDLE = {"stat-total-memory": 480 * MIB, "stat-free-memory": 400 * MIB,
        "stat-available-memory": 400 * MIB, "stat-disk-caches": 0}


class Governed:
    """The governor in the background, with what it says; for a `with` statement."""

    def __init__(self, run_dir, *arguments, stdout=None, interval=0.1, env=None):
        self.command = [str(paths.MEMVIRT), "govern", "--interval", str(interval),
                        *map(str, arguments)]
        self.env = dict(os.environ, **run_dir.env, **(env or {}))
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
        tap.check("ending, with 2 VMs: limits stay" in governor.err, governor.err)
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


def guest_using(used):
    """What a guest says that uses so much, beside the 32 MiB of its kernel."""
    def say(vm):
        total = vm.actual - 32 * MIB
        free = max(total - used, 0)
        return {"stat-total-memory": total, "stat-free-memory": free,
                "stat-available-memory": free, "stat-disk-caches": 0}
    return say


def write_config(run_dir, text):
    path = run_dir.path / "govern.ini"
    path.write_text(text)
    return path


def test_config():
    """govern --config: settings of the host and of each VM; the command line goes before it"""
    text = """
[host]
budget = 100M        ; the command line says another
rule = shares
idle-tax = 0%

[vm rich]
shares = 3000

[vm capped]
max = 80M
"""
    with RunDir() as run_dir, FakeVm(run_dir, "rich", populated=450 * MIB, limit=300 * MIB) as rich, \
            FakeVm(run_dir, "poor", populated=450 * MIB, limit=300 * MIB) as poor, \
            FakeVm(run_dir, "capped", populated=450 * MIB, limit=300 * MIB) as capped:
        with Governed(run_dir, "--config", write_config(run_dir, text), "--budget", "1000M"):
            wait_for(lambda: capped.limit <= 80 * MIB, 20, "the maximum")
            wait_for(lambda: rich.limit > 2 * poor.limit, 20, "shares")
            tap.check(capped.used + rich.used + poor.used <= 1000 * MIB, "the budget")


def test_config_errors():
    """govern --config: what is wrong is said with file, line and setting; status 2"""
    cases = [("[host]\nbudget = lots\n", ":2: [host] budget: 'lots' is no size"),
             ("[host]\nbudget = 1G\nbudgets = 1G\n", ":3: [host] budgets: there is no such"),
             ("[vm a/b]\nmin = 1G\n", ":2: [vm a/b] min: 'a/b' is no VM's name"),
             ("[vm a]\nweight = 1\n", ":2: [vm a] weight: a VM has shares"),
             ("[vm a]\nshares = -1\n", ":2: [vm a] shares: '-1' is not from 1"),
             ("[hosts]\nbudget = 1G\n", ":2: [hosts] budget: sections are"),
             ("[host]\nnonsense\n", ":2: neither"),
             ("[host]\nrule = fair\n", "'fair' is none of demand"),
             ("[host]\nrule = curve\n", "which no VM publishes yet"),
             ("[host]\nidle-tax = 100%\n", "is no part from 0 to 99%"),
             ("[vm a]\nmin = 2G\nmax = 1G\n", "VM a: min is above max"),
             (None, "No such file")]
    with RunDir() as run_dir:
        for text, expected in cases:
            path = run_dir.path / "none.ini"
            if text is not None:
                path = write_config(run_dir, text)
            done = run_dir.memvirt("govern", "--budget", "1G", "--once", "--config", str(path))
            tap.check_equal(done.returncode, 2, f"{text}: {done.stderr}")
            tap.check(expected in done.stderr, f"{text}: {done.stderr}")


def test_plain_qemu():
    """govern: QEMUs that memvirt did not start are governed by their balloons, by QMP alone"""
    with RunDir() as run_dir, \
            FakeVm(run_dir, "busy", plain=True, guest=guest_using(300 * MIB)) as busy, \
            FakeVm(run_dir, "idle", plain=True, guest=guest_using(60 * MIB)) as idle:
        with Governed(run_dir, "--budget", "700M", "--qmp-dir", run_dir.path) as governor:
            governor.wait_said("busy: governed from now on, 512 MiB, by its balloon alone")
            wait_for(lambda: busy.actual + idle.actual <= 700 * MIB, 20, "the budget")
            tap.check(busy.actual >= 332 * MIB and idle.actual >= 92 * MIB,
                      f"below what is used: {busy.actual >> 20}, {idle.actual >> 20}")
            tap.check(busy.actual > idle.actual, "no regard to what they use")
            idle.end()
            governor.wait_said("idle: has gone")
            wait_for(lambda: busy.actual == 512 * MIB, 20, "all of it, where it fits")


def test_named_plain_qemu():
    """govern: a QEMU named with its socket, that hangs, delays nobody"""
    with RunDir() as run_dir, \
            FakeVm(run_dir, "hung", plain=True, guest=guest_using(60 * MIB)) as hung, \
            FakeVm(run_dir, "a", populated=450 * MIB, limit=400 * MIB) as vm:
        hung.qmp.hangs = True
        with Governed(run_dir, "--budget", "300M", "a", f"hung={hung.qmp_path}") as governor:
            wait_for(lambda: vm.limits, 10, "a limit of the other")
            governor.wait_said("hung: QMP: no answer")
            tap.check_equal(hung.targets, [], "told while it hung")


def test_journal():
    """govern --journal: each decision is appended as JSON; SIGHUP opens it anew"""
    with RunDir() as run_dir, FakeVm(run_dir, "a", populated=450 * MIB, limit=400 * MIB) as vm:
        journal = run_dir.path / "journal"
        with Governed(run_dir, "--budget", "300M", "--journal", journal) as governor:
            wait_for(lambda: vm.limits, 10, "a decision")
            wait_for(lambda: '"limit"' in journal.read_text(), 10, "a line")
            moved = journal.rename(run_dir.path / "journal.1")
            governor.process.send_signal(signal.SIGHUP)
            governor.wait_said("settings have been read again")
            tap.check_equal(governor.end(), 0, "status")
        lines = [json.loads(line) for line in moved.read_text().splitlines()]
        tap.check_equal((lines[0]["what"], lines[0]["vm"]), ("begins", None), "the first line")
        tap.check(any(line["what"] == "limit" and line["vm"] == "a" and line["why"]
                      for line in lines), f"{lines}")
        tap.check_equal(json.loads(journal.read_text().splitlines()[-1])["what"], "ends", "last")
        refused = run_dir.memvirt("govern", "--budget", "1G", "--once", "--journal", "/nowhere/j")
        tap.check_equal(refused.returncode, 1, refused.stderr)


def test_reload():
    """govern: SIGHUP takes new settings, and none of a file that is wrong"""
    with RunDir() as run_dir, FakeVm(run_dir, "a", populated=450 * MIB, limit=400 * MIB) as vm:
        path = write_config(run_dir, "[host]\nbudget = 400M\n")
        with Governed(run_dir, "--config", path) as governor:
            wait_for(lambda: vm.limits and vm.used <= 400 * MIB, 10, "the first budget")
            write_config(run_dir, "[host]\nbudget = 200M\nrule = none\n")
            governor.process.send_signal(signal.SIGHUP)
            governor.wait_said("nothing has been changed")
            ticks(vm)
            tap.check(vm.used > 300 * MIB, "half a file was taken")
            write_config(run_dir, "[host]\nbudget = 250M\n")
            governor.process.send_signal(signal.SIGHUP)
            wait_for(lambda: vm.used <= 250 * MIB, 10, "the second budget")


def outside(run_dir, command, **arguments):
    return Control(run_dir.path, "outside", suffix="").run(command, **arguments)


def test_outside():
    """govern --listen: targets from outside hold until their lease lapses, within floor and budget"""
    with RunDir() as run_dir, FakeVm(run_dir, "a", populated=450 * MIB, limit=300 * MIB) as a, \
            FakeVm(run_dir, "b", populated=450 * MIB, limit=300 * MIB) as b, \
            Governed(run_dir, "--budget", "800M", "--listen", run_dir.path / "outside") as governor:
        wait_for(lambda: governor.out, 10, "a first decision")
        # It falls gently, by a tenth a second.
        outside(run_dir, "set-target", vm="a", bytes=250 * MIB, **{"lease-s": 10})
        wait_for(lambda: a.limit == 250 * MIB, 10, "the target")
        outside(run_dir, "set-target", vm="b", bytes=2**40, **{"lease-s": 60})
        status = outside(run_dir, "query-status")
        tap.check_equal((status["budget-bytes"], status["rule"]), (800 * MIB, "demand"), "status")
        by_name = {vm["vm"]: vm for vm in status["vms"]}
        tap.check_equal(by_name["a"]["outside-bytes"], 250 * MIB, "status of a")
        governor.wait_said("a: the lease of its target has lapsed")
        wait_for(lambda: a.limit != 250 * MIB, 10, "its own decision again")
        tap.check(a.used + b.used <= 800 * MIB, "the budget")
        outside(run_dir, "set-target", vm="b", bytes=None)
        tap.check_equal({vm["vm"]: vm["outside-bytes"] for vm in
                         outside(run_dir, "query-status")["vms"]}["b"], None, "taken back")


def test_outside_refusals():
    """govern --listen: what cannot be is refused; a second governor is too; nonsense harms nobody"""
    with RunDir() as run_dir, FakeVm(run_dir, "a", limit=300 * MIB), \
            Governed(run_dir, "--budget", "200M", "--listen", run_dir.path / "outside") as governor:
        wait_for(lambda: "governed" in governor.err, 10, "the VM")
        for arguments in ({}, {"vm": "a"}, {"vm": 3, "bytes": 1}, {"vm": "b", "bytes": MIB, "lease-s": 1},
                          {"vm": "a", "bytes": MIB}, {"vm": "a", "bytes": MIB, "lease-s": 0},
                          {"vm": "a", "bytes": -1, "lease-s": 1},
                          {"vm": "a", "bytes": MIB, "lease-s": 10**6}):
            try:
                outside(run_dir, "set-target", **arguments)
                tap.check(False, f"{arguments} was taken")
            except ControlError:
                pass
        for text in (b"x" * 100000, b"[1]\n", b'{"execute": 1}\n', b"{\n" * 1000, b"\0" * 64):
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(run_dir.path / "outside"))
                try:
                    connection.sendall(text)
                except OSError:
                    pass
        connections = [socket.socket(socket.AF_UNIX) for _ in range(40)]
        for connection in connections:
            connection.connect(str(run_dir.path / "outside"))
        for connection in connections:
            connection.close()
        def answers():
            try:  # a full queue of connections is no answer yet
                return outside(run_dir, "query-status")
            except ControlError:
                return None

        wait_for(answers, 10, "an answer after all that")
        second = run_dir.memvirt("govern", "--budget", "1G", "--listen",
                                 str(run_dir.path / "outside"))
        tap.check_equal(second.returncode, 1, second.stderr)
        tap.check("another governor" in second.stderr, second.stderr)
        tap.check(governor.alive(), "it ended")


def test_exits():
    """govern --on-exit: safe gives balloons under a limit back, keep keeps, release lifts all"""
    for how, limits, ballooned in (("safe", True, False), ("keep", True, True),
                                   ("release", False, False)):
        with RunDir() as run_dir, \
                FakeVm(run_dir, "a", populated=300 * MIB, limit=300 * MIB, guest=IDLE) as vm, \
                Governed(run_dir, "--budget", "300M", "--on-exit", how) as governor:
            wait_for(lambda: vm.targets and vm.limits, 15, "decisions")
            tap.check_equal(governor.end(), 0, "status")
            wait_for(lambda: (vm.limit is not None, vm.actual < vm.configured)
                     == (limits, ballooned), 5, f"{how}")


def test_pressure():
    """govern: who comes to wait for memory between two looks is given some before the next"""
    with RunDir() as run_dir, FakeVm(run_dir, "a", populated=450 * MIB, limit=200 * MIB,
                                     restore_ns=0) as a, \
            FakeVm(run_dir, "b", populated=100 * MIB, limit=400 * MIB, restore_ns=0):
        with Governed(run_dir, "--budget", "700M", interval=600) as governor:
            governor.wait_said("a: governed")
            time.sleep(1)
            before, waited = len(a.limits), 0
            for _ in range(60):
                waited += 40_000_000
                a.numbers["restore_ns"] = waited
                time.sleep(0.05)
            tap.check(len(a.limits) > before, "nothing was decided")
            tap.check("it loses time for want of memory" in governor.out, governor.out)


def test_libvirt():
    """govern --libvirt: its VMs are governed by their balloons; a hung daemon delays nobody"""
    build = paths.BUILD / "tests" / "rig" / "fake"
    with RunDir() as run_dir, FakeVm(run_dir, "a", populated=450 * MIB, limit=400 * MIB) as vm:
        env = {"LD_LIBRARY_PATH": str(build), "FAKE_LIBVIRT": str(run_dir.path)}
        targets = run_dir.path / "targets"
        with Governed(run_dir, "--budget", "500M", "--libvirt", "qemu:///system",
                      env=env) as governor:
            governor.wait_said("farm: governed from now on, 512 MiB, by its balloon alone")
            wait_for(targets.exists, 15, "a target")
            told = [int(line) >> 10 for line in targets.read_text().split()]
            tap.check(all(112 <= target < 512 for target in told), f"{told}")
            (run_dir.path / "hang").touch()
            before = len(vm.limits)
            vm.populated = 500 * MIB
            governor.wait_said("farm: has gone")
            wait_for(lambda: len(vm.limits) > before, 10, "the other is governed on")
            (run_dir.path / "hang").unlink()
            wait_for(lambda: governor.err.count("farm: governed") == 2, 10, "its return")
            tap.check_equal(governor.end(), 0, "status")


def test_real_libvirt():
    """govern --libvirt: libvirt's own library, with its driver for tests"""
    with RunDir() as run_dir, Governed(run_dir, "--budget", "4G", "--libvirt",
                                       "test:///default") as governor:
        wait_for(lambda: "governed from now on" in governor.err or not governor.alive(), 15, "it")
        if "is it installed?" in governor.err:
            tap.need("libvirt is not installed")
        tap.check("test: governed from now on, 8.0 GiB" in governor.err, governor.err)
        tap.check_equal(governor.end(), 0, "status")


def test_thousand():
    """govern: a thousand VMs at once"""
    with RunDir() as run_dir:
        numbers = {"pager_time": time.monotonic_ns(), "configured_bytes": 512 * MIB,
                   "managed_bytes": 512 * MIB, "resident_bytes": 300 * MIB,
                   "limit_bytes": 400 * MIB, "stored_pages": 1000, "store_memory_bytes": MIB,
                   "overhead_bytes": MIB, "holds": 0, "restores": 0, "restore_ns": 0}
        for i in range(1000):
            (run_dir.path / f"vm{i}.stats").write_bytes(segment(f"vm{i}", numbers))
        done = run_dir.memvirt("govern", "--budget", "300G", "--once", "--dry-run", "--json")
        tap.check_equal(done.returncode, 0, done.stderr[-500:])
        limits = [line for line in map(json.loads, done.stdout.splitlines())
                  if line["what"] == "limit"]
        tap.check_equal(len({line["vm"] for line in limits}), 1000, "decisions")


def main():
    reason = paths.missing_tools()
    if reason:
        print(f"1..1\nok 1 - memvirt govern # SKIP {reason}")
        return
    tap.main(test_budget, test_ample, test_balloon, test_old_guest_numbers, test_silent,
             test_hanging, test_come_and_go, test_killed, test_refusals, test_output_closed,
             test_once, test_once_learns, test_too_small, test_named, test_config,
             test_config_errors, test_plain_qemu, test_named_plain_qemu, test_journal, test_reload,
             test_outside, test_outside_refusals, test_exits, test_pressure, test_libvirt,
             test_real_libvirt, test_thousand)


if __name__ == "__main__":
    main()
