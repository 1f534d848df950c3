# SPDX-License-Identifier: BSD-2-Clause
"""What is shown while the demo runs: one line that is rewritten on a terminal, and a line
every few seconds elsewhere."""
import shutil
import sys

from harness.vm import MIB

PLAIN_EVERY = 5


def describe(sample, budget):
    vms = "  ".join(
        f"{name}: {vm.phase:<6} {vm.ram / MIB:3.0f} MiB resident + {vm.store / MIB:2.0f} stored"
        for name, vm in sample.vms.items())
    return f"{sample.time:4.0f} s  {vms}  | {sample.counted / MIB:3.0f} of {budget} MiB"


class Progress:
    def __init__(self, budget, stream=sys.stdout):
        self.budget = budget
        self.stream = stream
        self.live = stream.isatty()
        self.last = -PLAIN_EVERY

    def show(self, sample):
        text = describe(sample, self.budget)
        if self.live:
            width = shutil.get_terminal_size().columns - 1
            self.stream.write("\r\033[K" + text[:width])
        elif sample.time - self.last >= PLAIN_EVERY:
            self.stream.write(text + "\n")
            self.last = sample.time
        self.stream.flush()

    def end(self):
        if self.live:
            self.stream.write("\r\033[K")
            self.stream.flush()
