#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""`memvirt run` on what is no VMM, on what it cannot enter, and with bad input."""
import shutil

from harness import paths, tap
from harness.control import RunDir


def ended(done, status, *texts):
    tap.check_equal(done.returncode, status, f"exit status; it said: {done.stderr}")
    for text in texts:
        tap.check(text in done.stderr, f"no '{text}' in: {done.stderr}")
    for line in done.stderr.splitlines()[:1]:
        tap.check(line.startswith("memvirt: "), f"who says so? {line}")


def test_no_vmm():
    """run: a program that is no VMM runs as if memvirt were not there"""
    with RunDir() as run_dir:
        done = run_dir.memvirt("run", "--name", "none", "--limit", "64M", "--", "true")
        tap.check_equal((done.returncode, done.stdout), (0, ""), "true")
        tap.check_equal(run_dir.memvirt("run", "--", "false").returncode, 1, "status of false")
        done = run_dir.memvirt("run", "--", "ls", "/")
        tap.check_equal(done.returncode, 0, "status of ls")
        tap.check("etc" in done.stdout.split(), f"ls / printed {done.stdout!r}")
        done = run_dir.memvirt("run", "--", "sh", "-c", "echo one; exit 7")
        tap.check_equal((done.returncode, done.stdout), (7, "one\n"), "sh")
        tap.check_equal([path.name for path in run_dir.path.iterdir()], [], "files left")


def test_static():
    """run: a static binary is refused, and told why"""
    busybox = shutil.which("busybox")
    tap.need(None if busybox else "busybox-static is not installed")
    with RunDir() as run_dir:
        ended(run_dir.memvirt("run", "--", busybox, "true"), 1, "static")


def test_bad_programs():
    """run: a program that is not there, is no program, or is missing from the command line"""
    with RunDir() as run_dir:
        ended(run_dir.memvirt("run", "--", "/nonexistent/qemu"), 1, "/nonexistent/qemu")
        ended(run_dir.memvirt("run", "--", "/etc/passwd"), 1, "/etc/passwd")
        ended(run_dir.memvirt("run", "--", "/"), 1)
        ended(run_dir.memvirt("run"), 2)
        ended(run_dir.memvirt("run", "--"), 2)


def test_bad_options():
    """run: bad sizes, names and options are usage errors, and nothing is started"""
    with RunDir() as run_dir:
        for options in (["--limit", "5X"], ["--limit", "-1"], ["--limit", "0"], ["--limit", ""],
                        ["--limit", "99999999999999999999"], ["--store-limit", "much"],
                        ["--name", "a/b"], ["--name", ""], ["--name", "x" * 64],
                        ["--no-such-option"]):
            done = run_dir.memvirt("run", *options, "--", "echo", "started")
            ended(done, 2)
            tap.check("started" not in done.stdout, f"{options} was started all the same")


def test_bad_run_dir():
    """run: a run directory that cannot be is a failure that says so"""
    with RunDir() as run_dir:
        file = run_dir.path / "file"
        file.write_text("")
        done = run_dir.memvirt("run", "--run-dir", file, "--", paths.QEMU, "--version")
        tap.note(done.stderr)
        tap.check(done.stderr.startswith("memvirt: ") or done.returncode == 0, "unclear")
        ended(run_dir.memvirt("run", "--run-dir", "/" + "d" * 200, "--", "true"), 1)


def test_govern_and_memstat():
    """govern, memstat: bad input, and no VM at all"""
    with RunDir() as run_dir:
        for options in ([], ["--budget", "x"], ["--budget", "64M", "--interval", "-1"],
                        ["--budget", "64M", "--floor", "none"], ["--nonsense"]):
            ended(run_dir.memvirt("govern", *options), 2)
        ended(run_dir.memvirt("govern", "--budget", "64M", "--once", "ghost"), 1, "ghost")
        done = run_dir.memstat("once", "ghost")
        tap.check_equal(done.returncode, 1, f"memstat on a ghost: {done.stderr}")
        tap.check("ghost" in done.stderr, f"memstat does not name it: {done.stderr}")
        tap.check_equal(run_dir.memstat("once", "--nonsense").returncode, 2, "memstat's usage")
        empty = run_dir.memstat("once", "--json")
        tap.check_equal(empty.returncode, 0, f"memstat without VMs: {empty.stderr}")


def main():
    reason = paths.missing_tools()
    if reason:
        print(f"1..1\nok 1 - memvirt run # SKIP {reason}")
        return
    tap.main(test_no_vmm, test_static, test_bad_programs, test_bad_options, test_bad_run_dir,
             test_govern_and_memstat)


if __name__ == "__main__":
    main()
