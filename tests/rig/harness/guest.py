# SPDX-License-Identifier: BSD-2-Clause
"""What runs in the guest: the script that /init calls, and what it says on the console."""
import re
from pathlib import PurePosixPath

from .deadline import Timeout, wait_for

# What the firmware does to a terminal, in front of the guest's first line.
_TERMINAL = re.compile(r"\x1bc|\x1b\[[0-9;?]*[A-Za-z]")
_HEADER = "070701" + "%08x" * 13


def _cpio_entry(inode, name, mode, data):
    """One file in cpio's newc form: header and name, then data, each padded to four bytes."""
    encoded = name.encode() + b"\0"
    header = (_HEADER % (inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(encoded), 0)).encode()
    head = header + encoded
    return head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4)


def _parents(names):
    """The directories of these files, outer ones first."""
    return sorted({str(parent) for name in names for parent in PurePosixPath(name).parents
                   if str(parent) != "."})


def make_initramfs(base, files, path):
    """Write base with files added; the kernel unpacks archives one after the other.

    files: name in the guest -> bytes; everything becomes executable.
    """
    names = [name.lstrip("/") for name in files]
    entries = [(name, 0o40755, b"") for name in _parents(names)]
    entries += [(name, 0o100755, data) for name, data in zip(names, files.values())]
    archive = b"".join(_cpio_entry(number, *entry) for number, entry in enumerate(entries, 1))
    archive += _cpio_entry(0, "TRAILER!!!", 0, b"")
    content = base.read_bytes()
    # The kernel looks for the next archive at a multiple of four.
    path.write_bytes(content + b"\0" * (-len(content) % 4) + archive)


def shell_script(body):
    """A script for /rig/run."""
    return ("#!/bin/sh\n" + body).encode()


class Console:
    """The serial console, which QEMU writes to a file."""

    def __init__(self, path, alive=lambda: True):
        self.path = path
        self.alive = alive
        self.offset = 0
        self.partial = ""
        self.lines = []

    def read(self):
        """Take in what is new; all complete lines so far."""
        try:
            with open(self.path, "rb") as file:
                file.seek(self.offset)
                data = file.read()
        except FileNotFoundError:
            data = b""
        self.offset += len(data)
        *lines, self.partial = (self.partial + data.decode("utf-8", "replace")).split("\n")
        self.lines += [_TERMINAL.sub("", line).rstrip("\r") for line in lines]
        return self.lines

    def tail(self, count=15):
        return "\n".join(self.read()[-count:])

    def wait(self, pattern, seconds, start=0):
        """The match of the first line, from number `start` on, that has the pattern."""
        expression = re.compile(pattern)
        seen = start

        def find():
            nonlocal seen
            # Asked first, so that the last words of a process that ended are still read.
            alive = self.alive()
            lines = self.read()
            while seen < len(lines):
                match = expression.search(lines[seen])
                seen += 1
                if match:
                    return match
            if not alive:
                raise Timeout(f"the VM ended before it said /{pattern}/")
            return None

        try:
            return wait_for(find, seconds, f"/{pattern}/ on the console")
        except Timeout as error:
            raise Timeout(f"{error}\n{self.tail()}") from None
