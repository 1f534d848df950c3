# SPDX-License-Identifier: BSD-2-Clause
"""Start a processor model with the image as its ROM, and read what the image says.

The image has parameters in its first bytes (main.c), and prints on port 0xE9 (main.c tells the
lines). Both models end by themselves, Bochs when told to shut down, QEMU by its debug-exit port.
"""
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "rig"))

from harness import paths  # noqa: E402 (found by the line above)

ROM = paths.BUILD / "tests" / "metal" / "metal.rom"
BOCHS = os.environ.get("RIG_BOCHS", "/usr/bin/bochs")
PARAMETERS = struct.Struct("<QQQQQ")
MAGIC = 0x3130544D4D454D56
HOST_LA57 = 1
SHADOW = 2
MEMORY = 64  # MiB
LINE = re.compile(r"^(model|features|physical-bits|host-levels|count|mismatch|bad|done): (.*)$")

# Bochs wants a VGA BIOS, and never runs it.
VGA_ROM = bytes([0x55, 0xAA, 1, 0xCB]) + bytes(507) + bytes([0x35])

BOCHSRC = """\
cpu: model={cpu}, count=1, ips=50000000, reset_on_triple_fault=0
megs: {memory}
romimage: file={rom}
vgaromimage: file={vga}
display_library: term
config_interface: textconfig
port_e9_hack: enabled=1
speaker: enabled=0
boot: floppy
log: {log}
panic: action=fatal
error: action=ignore
info: action=ignore
debug: action=ignore
"""


def missing_image():
    """Why nothing can be run, or None."""
    return None if ROM.exists() else f"{ROM} is not there (make tests)"


def missing_bochs():
    if not shutil.which(BOCHS):
        return f"{BOCHS} is not installed (scripts/setup rig)"
    return missing_image()


def missing_qemu():
    if not shutil.which(paths.QEMU):
        return f"{paths.QEMU} is not installed (scripts/setup rig)"
    return missing_image()


class Report:
    """What the image said."""

    def __init__(self, output):
        self.output = output
        self.said = {}  # the first word of a line: its rest
        self.counts = {}
        self.problems = []  # mismatches and the like, with the lines that explain them
        self._read(output.splitlines())

    def _read(self, lines):
        for line in lines:
            found = LINE.match(line)
            if found and found.group(1) == "count":
                what, _, number = found.group(2).rpartition(" ")
                self.counts[what] = int(number)
            elif found and found.group(1) in ("mismatch", "bad"):
                self.problems.append(line)
            elif found:
                self.said[found.group(1)] = found.group(2)
            elif self.problems and line.startswith("# "):
                self.problems.append(line.removeprefix("# "))

    def done(self):
        """Worlds, accesses, mismatches; None where it did not come to its end."""
        done = self.said.get("done")
        return tuple(map(int, done.split())) if done else None


def with_parameters(directory, seed, worlds, flags=0, first_world=0):
    """The image, with other parameters in its first bytes."""
    image = bytearray(ROM.read_bytes())
    if PARAMETERS.unpack_from(image)[0] != MAGIC:
        raise RuntimeError(f"{ROM} is not an image of tests/metal")
    PARAMETERS.pack_into(image, 0, MAGIC, seed, worlds, flags, first_world)
    rom = Path(directory) / "metal.rom"
    rom.write_bytes(image)
    return rom


def output_of(command, seconds, **options):
    """What it prints. Models have been seen to stay when they should end: -k ends them."""
    done = subprocess.run(["timeout", "-k", "5", str(seconds), *command], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)
    return Report(done.stdout.decode(errors="replace"))


def run_qemu(cpu, seconds, **parameters):
    with tempfile.TemporaryDirectory(prefix="memvirt-metal-") as directory:
        rom = with_parameters(directory, **parameters)
        return output_of([
            paths.QEMU, "-M", "pc", "-accel", "tcg", "-cpu", cpu, "-m", str(MEMORY),
            "-nodefaults", "-display", "none", "-no-reboot", "-bios", str(rom),
            "-debugcon", "stdio", "-device", "isa-debug-exit,iobase=0xf4,iosize=4"], seconds)


def run_bochs(cpu, seconds, **parameters):
    with tempfile.TemporaryDirectory(prefix="memvirt-metal-") as directory:
        rom = with_parameters(directory, **parameters)
        work = Path(directory)
        (work / "vga.rom").write_bytes(VGA_ROM)
        (work / "commands").write_text("c\n")  # Debian's Bochs stops in its debugger first
        (work / "bochsrc").write_text(BOCHSRC.format(
            cpu=cpu, memory=MEMORY, rom=rom, vga=work / "vga.rom", log=work / "log"))
        return output_of([BOCHS, "-q", "-f", "bochsrc", "-rc", "commands"], seconds,
                         cwd=directory, env=dict(os.environ, TERM="linux"))
