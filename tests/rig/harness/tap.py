# SPDX-License-Identifier: BSD-2-Clause
"""Test results on standard output, in TAP. A test is a function; its first line of doc names
it. It fails by any exception, and skips by Skip."""
import sys
import time
import traceback


class Skip(Exception):
    """Why a test cannot run here."""


def need(reason):
    """Skip where there is a reason to."""
    if reason:
        raise Skip(reason)


def check(condition, message):
    if not condition:
        raise AssertionError(message)


def check_equal(found, wanted, what):
    check(found == wanted, f"{what}: {found!r}, not {wanted!r}")


def note(text):
    for line in str(text).splitlines():
        print(f"# {line}", flush=True)


def _name(test):
    return (test.__doc__ or test.__name__).strip().splitlines()[0].rstrip(".")


def _run(number, test):
    began = time.monotonic()
    try:
        test()
    except Skip as reason:
        print(f"ok {number} - {_name(test)} # SKIP {reason}", flush=True)
        return True
    except Exception:
        note(traceback.format_exc())
        print(f"not ok {number} - {_name(test)}", flush=True)
        return False
    note(f"{time.monotonic() - began:.1f} s")
    print(f"ok {number} - {_name(test)}", flush=True)
    return True


def main(*tests):
    """Run the tests, or those whose function names stand on the command line."""
    chosen = [test for test in tests if not sys.argv[1:] or test.__name__ in sys.argv[1:]]
    print(f"1..{len(chosen)}", flush=True)
    results = [_run(number, test) for number, test in enumerate(chosen, 1)]
    sys.exit(0 if all(results) else 1)
