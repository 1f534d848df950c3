#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""memvirt sim: what it prints follows from what it is given, and the rules do what they promise."""
import json
import tempfile
import xml.etree.ElementTree
from pathlib import Path

from harness import paths, tap
from harness.control import RunDir, run_tool
from harness.fake_vm import MIB, FakeVm

GIB = 1 << 30


def sim(*arguments, status=0):
    done = run_tool(paths.MEMVIRT, ("sim", *map(str, arguments)), {})
    tap.check_equal(done.returncode, status, f"{arguments}: {done.stderr}")
    return done


def results(*arguments):
    """By rule."""
    lines = sim("--json", *arguments).stdout.splitlines()
    return {line["rule"]: line for line in map(json.loads, lines)}


def test_enough():
    """sim: with enough memory nobody is slowed down but by the rule that looks for less"""
    found = results("--kind", "steady", "--budget", "16G", "--seconds", 60)
    tap.check_equal(set(found), {"demand", "shares", "pressure", "curve"}, "rules")
    for rule in ("demand", "shares"):
        tap.check_equal((found[rule]["restores"], found[rule]["slowdown"]), (0, 1.0), rule)
    tap.check(found["pressure"]["restores"] > 0, "pressure looked for nothing")
    tap.check(found["pressure"]["slowdown"] < 1.1, f"{found['pressure']['slowdown']}")


def test_same_again():
    """sim: the same seed gives the same, another one another; a written trace the same too"""
    with tempfile.TemporaryDirectory() as scratch:
        trace = Path(scratch) / "trace.csv"
        first = sim("--seed", 7, "--write", trace).stdout
        tap.check_equal(sim("--seed", 7).stdout, first, "again")
        tap.check(sim("--seed", 8).stdout != first, "another seed is the same")
        tap.check_equal(sim("--trace", trace).stdout, first, "from the file")


def test_budget():
    """sim: where demand does not jump, the budget is never exceeded, and it is used"""
    for rule, found in results("--kind", "ramp", "--vms", 16, "--seconds", 200).items():
        tap.check_equal(found["over-budget-steps"], 0, rule)
        tap.check(found["most-used-bytes"] <= 0.6 * 16 * GIB, f"{rule}: more than there is")
        tap.check(found["most-used-bytes"] >= 0.4 * 16 * GIB, f"{rule}: half was left over")


def write_trace(path, vms, seconds):
    """vms: name -> (shares, working bytes)"""
    lines = ["second,vm,configured-bytes,shares,working-bytes"]
    lines += [f"{second},{name},{GIB},{shares},{working}" for second in range(seconds)
              for name, (shares, working) in vms.items()]
    path.write_text("\n".join(lines) + "\n")


def test_idle_tax():
    """sim: the idle tax moves memory from who does not use it to who does"""
    with tempfile.TemporaryDirectory() as scratch:
        trace = Path(scratch) / "trace.csv"
        # The idle one filled its memory once.
        lines = {"busy": (1000, 900 * MIB), "idle": (1000, 900 * MIB)}
        write_trace(trace, lines, 5)
        with trace.open("a") as file:
            for second in range(5, 200):
                file.write(f"{second},busy,{GIB},1000,{900 * MIB}\n")
                file.write(f"{second},idle,{GIB},1000,{50 * MIB}\n")
        speed = {}
        for tax in (0, 0.75):
            found = results("--trace", trace, "--rule", "shares", "--idle-tax", tax,
                            "--budget", "1200M")["shares"]
            speed[tax] = {vm["vm"]: vm["speed"] for vm in found["vms"]}
        tap.note(speed)
        tap.check(speed[0.75]["busy"] > 1.1 * speed[0]["busy"], "the busy one gained nothing")
        tap.check(speed[0.75]["idle"] > 0.9 * speed[0]["idle"], "the idle one paid for it")


def test_shares():
    """sim: who has more shares fares better under shares"""
    with tempfile.TemporaryDirectory() as scratch:
        trace = Path(scratch) / "trace.csv"
        write_trace(trace, {"rich": (3000, 900 * MIB), "poor": (1000, 900 * MIB)}, 100)
        found = results("--trace", trace, "--rule", "shares", "--budget", "1200M")["shares"]
        speed = {vm["vm"]: vm["speed"] for vm in found["vms"]}
        tap.check(speed["rich"] > 1.2 * speed["poor"], f"{speed}")


def test_picture():
    """sim --svg: a picture that is well-formed, with a panel for each rule"""
    with tempfile.TemporaryDirectory() as scratch:
        svg = Path(scratch) / "picture.svg"
        sim("--vms", 3, "--seconds", 100, "--svg", svg)
        root = xml.etree.ElementTree.parse(svg).getroot()
        polygons = root.findall("{http://www.w3.org/2000/svg}polygon")
        tap.check_equal(len(polygons), 4 * 3, "a band for each VM and rule")


def test_record():
    """sim --record: what running VMs work with, to be replayed"""
    with RunDir() as run_dir, FakeVm(run_dir, "web", populated=300 * MIB, limit=200 * MIB), \
            FakeVm(run_dir, "free", populated=100 * MIB):
        trace = run_dir.path / "trace.csv"
        done = run_dir.memvirt("sim", "--record", str(trace), "--seconds", "2")
        tap.check_equal(done.returncode, 0, done.stderr)
        rows = [line.split(",") for line in trace.read_text().splitlines()[1:]]
        tap.check_equal(sorted((row[0], row[1], int(row[4])) for row in rows),
                        [("0", "free", 512 * MIB), ("0", "web", 200 * MIB),
                         ("1", "free", 512 * MIB), ("1", "web", 200 * MIB)], "rows")
        tap.check_equal(set(results("--trace", trace)), {"demand", "shares", "pressure", "curve"},
                        "replayed")


def test_wrong():
    """sim: what is wrong is said with its place; status 1 for files, 2 for the command line"""
    header = "second,vm,configured-bytes,shares,working-bytes\n"
    cases = ["", "nonsense\n", header, header + "0,a,1073741824,1000\n",
             header + "0,a,1073741824,1000,2e9\n", header + "0,a,1073741824,0,1\n",
             header + "999999,a,1073741824,1000,1\n", header + "0,a,1,1000,1\n",
             header + "0,a,1073741824,1000,nan\n", header + "0,a,1073741824,1000,1 x\n",
             header + "-1,a,1073741824,1000,1\n", header + "0," + "a" * 600 + ",1,1,1\n"]
    with tempfile.TemporaryDirectory() as scratch:
        trace = Path(scratch) / "trace.csv"
        for text in cases:
            trace.write_text(text)
            done = sim("--trace", trace, status=1)
            tap.check("trace.csv:" in done.stderr, f"{text!r}: {done.stderr}")
        sim("--trace", "/nowhere", status=1)
        sim("--svg", "/nowhere/x", "--seconds", 5, status=1)
        for arguments in (["--kind", "x"], ["--vms", "0"], ["--seconds", "x"], ["--size", "1"],
                          ["--rule", "x"], ["--idle-tax", "1"], ["--seed", "-1"], ["extra"]):
            sim(*arguments, status=2)


def main():
    reason = paths.missing_tools()
    if reason:
        print(f"1..1\nok 1 - memvirt sim # SKIP {reason}")
        return
    tap.main(test_enough, test_same_again, test_budget, test_idle_tax, test_shares, test_picture,
             test_record, test_wrong)


if __name__ == "__main__":
    main()
