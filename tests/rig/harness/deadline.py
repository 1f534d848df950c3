# SPDX-License-Identifier: BSD-2-Clause
"""Waiting: everything in the harness that waits has a deadline."""
import time


class Timeout(Exception):
    """Something did not happen in time."""


class Deadline:
    """A point in time, to be handed down to whatever waits."""

    def __init__(self, seconds):
        self.seconds = seconds
        self.end = time.monotonic() + seconds

    def left(self):
        return max(0.0, self.end - time.monotonic())

    def passed(self):
        return self.left() == 0.0


def wait_for(condition, seconds, what, pause=0.05):
    """Call until it gives something true, and return that; Timeout says what was awaited."""
    deadline = Deadline(seconds)
    while True:
        result = condition()
        if result:
            return result
        if deadline.passed():
            raise Timeout(f"{what}: not within {seconds:g} s")
        time.sleep(pause)
