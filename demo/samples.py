# SPDX-License-Identifier: BSD-2-Clause
"""Measuring: what the host gives the VMs, taken from outside, and memvirt's own counters.

Against the budget counts what guests' memory costs the host: the blocks of the RAM files,
the store's pool, the ledger. QEMU's own memory is shown beside it.
"""
import time
from dataclasses import dataclass, field

from harness.control import PAGE, ControlError
from harness.outside import RamMeter, overhead
from harness.qmp import QmpError

# Reading a process's mappings takes milliseconds; its own memory hardly changes.
OVERHEAD_EVERY = 5


@dataclass
class VmSample:
    """One VM at one time, in bytes and counts; None is unknown."""
    phase: str
    ram: int = 0
    store: int = 0
    ledger: int = 0
    overhead: int = 0
    ballooned_pages: int = 0
    stats: dict = field(default_factory=dict)

    @property
    def counted(self):
        return self.ram + self.store + self.ledger

    @property
    def ratio(self):
        """Original to compressed size of what is stored, or None where nothing is."""
        pages, size = self.stats.get("stored-pages"), self.stats.get("stored-bytes")
        return pages * PAGE / size if pages and size else None


@dataclass
class Sample:
    """All VMs at one time, in seconds since the VMs' start."""
    time: float
    vms: dict
    started: bool

    @property
    def counted(self):
        return sum(vm.counted for vm in self.vms.values())

    @property
    def overhead(self):
        return sum(vm.overhead for vm in self.vms.values())


class Meter:
    """Takes samples of a scene and keeps them."""

    def __init__(self, scene):
        self.scene = scene
        self.begin = time.monotonic()
        self.samples = []
        self.rams = {}
        self.overheads = {}

    def take(self):
        vms = {guest.name: self._take_vm(guest) for guest in self.scene.guests}
        started = all(guest.workload.started for guest in self.scene.guests)
        self.samples.append(Sample(time.monotonic() - self.begin, vms, started))
        return self.samples[-1]

    def _take_vm(self, guest):
        guest.workload.update()
        sample = VmSample(guest.workload.phase, ram=self._ram(guest))
        try:
            sample.stats = guest.control.stats()
            sample.ballooned_pages = (guest.memory - guest.vm.qmp.balloon_actual()) // PAGE
        except (ControlError, QmpError):
            # Not up yet, or gone: the judge sees both elsewhere.
            pass
        sample.store = sample.stats.get("store-memory-bytes") or 0
        sample.ledger = sample.stats.get("overhead-bytes") or 0
        sample.overhead = self._overhead(guest, sample)
        return sample

    def _ram(self, guest):
        if not guest.vm.alive():
            return 0
        meter = self.rams.get(guest.name)
        if meter is None or meter.fd is None:
            meter = self.rams[guest.name] = RamMeter(guest.vm.pid, guest.memory)
        return meter.bytes() or 0

    def _overhead(self, guest, sample):
        if len(self.samples) % OVERHEAD_EVERY == 0 and guest.vm.alive():
            own = overhead(guest.vm.pid) - sample.store - sample.ledger
            self.overheads[guest.name] = max(own, 0)
        return self.overheads.get(guest.name, 0)

    def close(self):
        for meter in self.rams.values():
            meter.close()
