# SPDX-License-Identifier: BSD-2-Clause
"""A VM's memory as the host sees it, without asking the VM or memvirt.

Guest RAM in a memfd is measured by the blocks that the file has: a page that is unmapped
but still in the file counts, which resident-set figures would miss. Private guest RAM is
measured by the kernel's account of its mapping. The rest of the process is its Pss.
"""
import os
import re
from dataclasses import dataclass
from pathlib import Path

_HEAD = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) \S+ [0-9a-f]+ \S+ (\d+)")


@dataclass
class Mapping:
    """One line of /proc/PID/smaps with the numbers below it, in bytes."""
    size: int
    inode: int
    fields: dict
    flags: list


def mappings(pid):
    current = None
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        head = _HEAD.match(line)
        if head:
            if current:
                yield current
            first, end, inode = head.groups()
            current = Mapping(int(end, 16) - int(first, 16), int(inode), {}, [])
        elif line.endswith(" kB"):
            field, value = line.split(":")
            current.fields[field] = int(value.split()[0]) * 1024
        elif line.startswith("VmFlags:"):
            current.flags = line.split()[1:]
    if current:
        yield current


def ram_file(pid, size):
    """/proc/PID/fd/N of the memfd that is the guest's RAM of `size` bytes, or None."""
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            if os.readlink(entry).startswith("/memfd:") and os.stat(entry).st_size == size:
                return entry
        except OSError:
            continue  # closed since the directory was read
    return None


class RamMeter:
    """Bytes that the host holds of a VM's RAM. The file is found once and kept open."""

    def __init__(self, pid, size):
        self.pid = pid
        self.size = size
        path = ram_file(pid, size)
        # O_PATH: enough for fstat(), and no claim on the file.
        self.fd = os.open(path, os.O_PATH) if path else None

    def bytes(self):
        if self.fd is not None:
            return os.fstat(self.fd).st_blocks * 512
        return self._private_bytes()

    def _private_bytes(self):
        """Under a limit, guest RAM is what userfaultfd watches ("um"); else it is known by
        its size."""
        private = [mapping for mapping in mappings(self.pid) if mapping.inode == 0]
        found = [mapping for mapping in private if "um" in mapping.flags] or \
                [mapping for mapping in private if mapping.size == self.size]
        return sum(mapping.fields["Anonymous"] for mapping in found) if found else None

    def close(self):
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None


def pss(pid):
    """Proportional set size of a process: (all of it, of it shared memory)."""
    fields = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.endswith(" kB"):
            field, value = line.split(":")
            fields[field] = int(value.split()[0]) * 1024
    return fields.get("Pss", 0), fields.get("Pss_Shmem", 0)


def overhead(pid):
    """What a VMM itself uses beside guest RAM in a memfd: its proportional set without
    shared memory. memvirt's store is within, and to be subtracted by who knows its size."""
    everything, shared = pss(pid)
    return everything - shared
