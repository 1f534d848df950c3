#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
# memvirt-test-timeout: 600
"""The demo in its short form, as a user would run it."""
import subprocess
import sys
import xml.etree.ElementTree as xml

from harness import paths, tap

OUTPUT = paths.BUILD / "demo-short"


def test_short_demo():
    """demo: short form passes, with a table and a plot"""
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


def main():
    reason = paths.missing()
    if reason:
        print(f"1..1\nok 1 - demo # SKIP {reason}")
        return
    tap.main(test_short_demo)


if __name__ == "__main__":
    main()
