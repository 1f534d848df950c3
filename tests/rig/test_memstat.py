# SPDX-License-Identifier: BSD-2-Clause
"""memstat, on statistics that a test wrote: what it shows, and what it does not know."""
import json
import os
import subprocess
import time

from harness import paths, tap
from harness.control import RunDir
from harness.fake_vm import MIB, UNKNOWN, FakeVm, segment


def write(run_dir, name, numbers, **how):
    (run_dir.path / f"{name}.stats").write_bytes(segment(name, numbers, **how))


def now(ago=0):
    return time.monotonic_ns() - int(ago * 1e9)


def rows(run_dir, *arguments, status=0):
    done = run_dir.memstat("once", "--json", *arguments)
    tap.check_equal(done.returncode, status, f"status; {done.stderr}")
    document = json.loads(done.stdout)
    tap.check_equal(document["format_version"], 1, "format_version")
    return {vm["name"]: vm for vm in document["vms"]}


def row(run_dir, name, *arguments):
    return rows(run_dir, "--interval", "0", *arguments)[name]


def check_row(vm, **wanted):
    for name, value in wanted.items():
        tap.check_equal(vm[name], value, name)
        tap.check(type(vm[name]) is type(value), f"{name} is {type(vm[name])}")


SOME = {"configured_bytes": 512 * MIB, "resident_bytes": 200 * MIB, "limit_bytes": 256 * MIB,
        "stored_pages": 25600, "stored_bytes": 40 * MIB, "store_memory_bytes": 44 * MIB,
        "overhead_bytes": MIB, "discarded_bytes": 8 * MIB, "holds": 0}


def test_numbers():
    """memstat: every number of a VM, in bytes, as integers"""
    with RunDir() as run_dir:
        write(run_dir, "web", {**SOME, "pager_time": now(), "balloon_time": now(2),
                               "balloon_actual_bytes": 448 * MIB})
        vm = row(run_dir, "web")
        check_row(vm, state="ok", pid=os.getpid(), configured_bytes=512 * MIB,
                  resident_bytes=200 * MIB, limit_bytes=256 * MIB,
                  stored_original_bytes=100 * MIB, stored_compressed_bytes=40 * MIB,
                  stored_ratio=2.5, store_memory_bytes=44 * MIB, overhead_bytes=MIB,
                  ballooned_bytes=64 * MIB, discarded_bytes=8 * MIB, holds=[])
        tap.check(0 <= vm["age_s"]["pager"] < 1, f"age {vm['age_s']}")
        tap.check(2 <= vm["age_s"]["balloon"] < 3, f"age {vm['age_s']}")
        tap.check_equal(vm["age_s"]["guest"], None, "age of what was never told")
        tap.check_equal(vm["segment"]["stored_pages"], 25600, "raw number")


def test_unknown():
    """memstat: what nobody supplied is null or '-', and so is what follows from it; never 0"""
    with RunDir() as run_dir:
        write(run_dir, "new", {"pager_time": now()})
        vm = row(run_dir, "new")
        for name, value in vm.items():
            if name not in ("name", "state", "pid", "per_s", "age_s", "segment"):
                tap.check_equal(value, None, name)
        tap.check_equal(set(vm["per_s"].values()), {None}, "rates")
        tap.check_equal(set(vm["segment"].values()), {None}, "the segment")
        text = run_dir.memstat("once", "--interval", "0").stdout
        line = next(line for line in text.splitlines() if line.startswith("new"))
        tap.check_equal(line.split()[1:], ["-"] * 9, "the table's line")


def test_zero_is_zero():
    """memstat: a known 0 is 0; nothing stored has no ratio"""
    with RunDir() as run_dir:
        write(run_dir, "idle", {"pager_time": now(), "configured_bytes": MIB, "stored_pages": 0,
                                "stored_bytes": 0, "resident_bytes": 0, "holds": 0,
                                "balloon_actual_bytes": MIB})
        check_row(row(run_dir, "idle"), resident_bytes=0, stored_original_bytes=0,
                  stored_compressed_bytes=0, stored_ratio=None, ballooned_bytes=0)


def test_impossible():
    """memstat: numbers that contradict each other give nothing rather than nonsense"""
    with RunDir() as run_dir:
        write(run_dir, "odd", {"pager_time": now(-1000), "configured_bytes": MIB,
                               "stored_pages": UNKNOWN - 1, "balloon_actual_bytes": 2 * MIB})
        vm = row(run_dir, "odd")
        check_row(vm, stored_original_bytes=None, ballooned_bytes=None, state="no answer")
        tap.check_equal(vm["age_s"]["pager"], None, "age of a time in the future")


def test_states():
    """memstat: VMs that are dead, silent, unreadable, or another process by now"""
    with RunDir() as run_dir:
        child = subprocess.Popen(["true"])
        child.wait()
        write(run_dir, "dead", {**SOME, "pager_time": now()}, pid=child.pid)
        zombie = subprocess.Popen(["true"])
        os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
        write(run_dir, "zombie", {**SOME, "pager_time": now()}, pid=zombie.pid)
        write(run_dir, "silent", {**SOME, "pager_time": now(60)})
        write(run_dir, "never", SOME)
        # Our own id, but a segment from before we were started.
        write(run_dir, "recycled", {**SOME, "pager_time": now()}, start_time=1)
        write(run_dir, "future", {**SOME, "pager_time": now()}, version=99)
        (run_dir.path / "garbage.stats").write_bytes(os.urandom(2000))
        (run_dir.path / "empty.stats").write_bytes(b"")
        (run_dir.path / "socket.sock").write_bytes(b"")
        (run_dir.path / "cut.stats").write_bytes(segment("cut", SOME)[:200])
        (run_dir.path / "dir.stats").mkdir()
        (run_dir.path / "not.a-vm").write_bytes(b"")
        (run_dir.path / ".hidden.stats").write_bytes(segment("x", SOME))
        found = rows(run_dir, "--interval", "0")
        states = {name: vm["state"] for name, vm in found.items()}
        tap.check_equal(states, {"cut": "unreadable", "dead": "dead", "dir": "unreadable",
                                 "empty": "unreadable", "future": "unreadable",
                                 "garbage": "unreadable", "never": "no answer",
                                 "recycled": "dead", "silent": "no answer",
                                 "socket": "unreadable", "zombie": "dead"}, "states")
        check_row(found["silent"], resident_bytes=200 * MIB)
        for name in ("dead", "recycled", "garbage"):
            check_row(found[name], resident_bytes=None, configured_bytes=None)
        check_row(found["dead"], pid=child.pid)
        check_row(found["garbage"], pid=None)
        text = run_dir.memstat("once", "--interval", "0").stdout
        for word in ("dead, pid", "no answer", "not a segment of this version"):
            tap.check(word in text, f"no '{word}' in the table")
        zombie.wait()


def test_rates():
    """memstat: faults and restores in a second come from two looks, by the VM's own clock"""
    with RunDir() as run_dir, FakeVm(run_dir, "busy", limit=128 * MIB) as vm:
        began = time.monotonic()

        def count():
            vm.numbers["faults"] = int((time.monotonic() - began) * 5000)
            vm.numbers["restores"] = int((time.monotonic() - began) * 1000)

        numbers = vm._numbers

        def counting():
            count()
            return numbers()

        vm._numbers = counting
        rate = rows(run_dir, "--interval", "1")["busy"]["per_s"]
        tap.check(4000 < rate["faults"] < 6000, f"faults {rate}")
        tap.check(800 < rate["restores"] < 1200, f"restores {rate}")
        tap.check_equal(rate["evictions"], None, "evictions, which it does not say")
        vm.publishes = False
        time.sleep(0.2)
        rate = rows(run_dir, "--interval", "0.2")["busy"]["per_s"]
        tap.check_equal(rate["faults"], None, "faults of a VM that published nothing")


def test_vanishes():
    """memstat: a VM that ends between the two looks is dead, and has no numbers left"""
    with RunDir() as run_dir, FakeVm(run_dir, "brief", limit=128 * MIB) as vm:
        command = [str(paths.MEMSTAT), "once", "--json", "--interval", "1"]
        with subprocess.Popen(command, env=dict(os.environ, **run_dir.env), text=True,
                              stdout=subprocess.PIPE) as memstat:
            time.sleep(0.4)
            vm.end()
            found = json.loads(memstat.stdout.read())["vms"][0]
        tap.check_equal(memstat.returncode, 0, "status")
        check_row(found, name="brief", state="dead", resident_bytes=None)


def test_table():
    """memstat: the table fits 80 columns, whatever the numbers and names"""
    with RunDir() as run_dir:
        many = {field: UNKNOWN - 1 for field in SOME}
        write(run_dir, "x" * 63, {**many, "pager_time": now(1), "holds": 63,
                                  "balloon_actual_bytes": 1})
        write(run_dir, "web", {**SOME, "pager_time": now(), "holds": 0b10010})
        text = run_dir.memstat("once", "--interval", "0").stdout
        for line in text.splitlines():
            tap.check(len(line) <= 80, f"{len(line)} columns: {line}")
        tap.check("not evicting: dma kernel" in text, text)
        tap.check("not evicting: caller dma shared foreign kernel unknown" in text, text)
        lines = text.splitlines()
        tap.check_equal(lines[0].split(), ["VM", "SIZE", "RESID", "LIMIT", "STORED", "AS",
                                           "RATIO", "BALLN", "FLT/S", "RST/S"], "head")
        web = next(line for line in lines if line.startswith("web"))
        tap.check_equal(web.split(), ["web", "512M", "200M", "256M", "100M", "40.0M", "2.5", "-",
                                      "-", "-"], "line")


def test_names_and_directories():
    """memstat: named VMs, missing ones, no run directory, one that is none"""
    with RunDir() as run_dir:
        for name in ("b", "a", "c"):
            write(run_dir, name, {**SOME, "pager_time": now()})
        tap.check_equal(list(rows(run_dir, "--interval", "0")), ["a", "b", "c"], "by name")
        tap.check_equal(list(rows(run_dir, "--interval", "0", "c", "a")), ["c", "a"], "as named")
        found = rows(run_dir, "--interval", "0", "a", "ghost", status=1)
        tap.check_equal(list(found), ["a"], "the one that is there")
        missing = run_dir.path / "none"
        tap.check_equal(rows(run_dir, "--run-dir", missing), {}, "no directory: no VM")
        file = run_dir.path / "file"
        file.write_text("")
        done = run_dir.memstat("once", "--run-dir", file)
        tap.check_equal((done.returncode, done.stdout), (1, ""), "a file as directory")
        tap.check(done.stderr.startswith("memstat: "), done.stderr)


def test_output():
    """memstat: output that nobody takes is a failure, and a closed pipe is quiet"""
    with RunDir() as run_dir:
        write(run_dir, "a", {**SOME, "pager_time": now()})
        tool = f"{paths.MEMSTAT} once --json --interval 0"
        for redirection, status, said in ((">/dev/full", 1, "standard output"),
                                          (">&-", 1, "standard output"),
                                          ("| true", None, "")):
            done = subprocess.run(f"sleep 0.1; {tool} {redirection}", shell=True, text=True,
                                  env=dict(os.environ, **run_dir.env), capture_output=True,
                                  check=False, timeout=20)
            if status is not None:
                tap.check_equal(done.returncode, status, redirection)
            tap.check(said in done.stderr and bool(said) == bool(done.stderr), done.stderr)


def main():
    reason = paths.missing_tools()
    if reason:
        print(f"1..1\nok 1 - memstat # SKIP {reason}")
        return
    tap.main(test_numbers, test_unknown, test_zero_is_zero, test_impossible, test_states,
             test_rates, test_vanishes, test_table, test_names_and_directories, test_output)


if __name__ == "__main__":
    main()
