# SPDX-License-Identifier: BSD-2-Clause
"""One VM: a QEMU process, its console and its monitor; under memvirt or on its own.

What does not belong here: measuring its memory (outside.py), memvirt's tools (control.py).
"""
import os
import shutil
import signal
import tempfile
from pathlib import Path

from . import child, paths
from .deadline import wait_for
from .guest import Console, make_initramfs, shell_script
from .qmp import Qmp

MIB = 1 << 20


class Vm:
    """A VM; use it in a `with` statement, which ends it.

    script:   shell text that the guest runs
    files:    further files for the guest: name -> bytes
    memory:   MiB
    cpus:     virtual processors
    backend:  memfd (shared) or ram (private anonymous memory)
    balloon:  options of the balloon device, or None for no device
    managed:  None, or the options of `memvirt run` as a list: the VM then runs under it
    reboots:  a guest that reboots starts anew, instead of ending QEMU
    extra:    further arguments of QEMU
    memory_slots: value of -m, where it is more than the size
    cpu:      QEMU's model of the processor
    """

    def __init__(self, name, script, files=None, memory=512, cpus=1, backend="memfd",
                 balloon="", managed=None, reboots=False, extra=(), cmdline="", env=None,
                 memory_slots=None, cpu="max"):
        self.name = name
        self.memory = memory
        self.managed = managed
        self.dir = Path(tempfile.mkdtemp(prefix=f"memvirt-rig-{name}-"))
        self.console = Console(self.dir / "console", self.alive)
        self.process = None
        self.qmp = None
        self.env = dict(os.environ, **(env or {}))
        make_initramfs(paths.INITRAMFS, {"/rig/run": shell_script(script), **(files or {})},
                       self.dir / "initramfs")
        machine = self._machine(cpus, cpu, backend, memory_slots or str(memory), cmdline)
        device = ["-device", f"virtio-balloon-pci,id=balloon0{balloon}"]
        self.command = [*self._memvirt(), *machine, *([] if reboots else ["-no-reboot"]),
                        *([] if balloon is None else device), *extra]

    def _memvirt(self):
        if self.managed is None:
            return []
        return [str(paths.MEMVIRT), "run", "--name", self.name, *self.managed, "--"]

    def _machine(self, cpus, cpu, backend, memory, cmdline):
        share = ",share=on" if backend == "memfd" else ""
        return [
            paths.QEMU, "-M", "q35,memory-backend=m0",
            "-object", f"memory-backend-{backend},id=m0,size={self.memory}M{share}",
            "-accel", "tcg,thread=multi", "-cpu", cpu, "-smp", str(cpus),
            "-m", memory, "-nographic", "-nodefaults",
            "-serial", f"file:{self.dir}/console",
            # A monitor takes one client at a time: the first is the governor's.
            "-qmp", f"unix:{self.dir}/qmp,server=on,wait=off",
            "-qmp", f"unix:{self.dir}/qmp-rig,server=on,wait=off",
            "-kernel", str(paths.KERNEL), "-initrd", f"{self.dir}/initramfs",
            "-append", f"console=ttyS0 quiet panic=-1 mitigations=off {cmdline}".strip(),
        ]

    @property
    def messages(self):
        """What QEMU and memvirt wrote to standard error."""
        try:
            return (self.dir / "stderr").read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def start(self):
        self.process = child.start(self.command, self.dir / "stderr", self.env)
        return self

    def connect(self, seconds=20):
        """Open the monitor."""
        self.qmp = Qmp(self.dir / "qmp-rig", seconds, self.alive)
        return self.qmp

    def alive(self):
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self):
        """QEMU's; `memvirt run` becomes the VMM and keeps its process."""
        return self.process.pid

    def wait_line(self, pattern, seconds=60, start=0):
        return self.console.wait(pattern, seconds, start)

    def wait_up(self, seconds=90):
        return self.wait_line(r"^rig: up", seconds)

    def wait_end(self, seconds=30):
        """Wait until QEMU has ended by itself; its exit status."""
        wait_for(lambda: not self.alive(), seconds, f"end of VM {self.name}")
        return self.process.returncode

    def kill(self, number=signal.SIGKILL):
        if self.alive():
            self.process.send_signal(number)

    def close(self):
        if self.qmp:
            self.qmp.close()
            self.qmp = None
        if self.process:
            self.kill()
            self.process.wait(30)
        if os.environ.get("RIG_KEEP"):
            print(f"# kept {self.dir}")
        else:
            shutil.rmtree(self.dir, ignore_errors=True)

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.close()
