# SPDX-License-Identifier: BSD-2-Clause
"""Where things are, and what is missing. Tests skip with the reason that missing() gives."""
import os
import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
BUILD = Path(os.environ.get("BUILD", ROOT / "build"))
if not BUILD.is_absolute():
    BUILD = ROOT / BUILD
RIG = Path(os.environ.get("RIG", ROOT / "build" / "rig"))
if not RIG.is_absolute():
    RIG = ROOT / RIG
KERNEL_DIR = RIG / os.environ.get("RIG_KERNEL", "release")

KERNEL = KERNEL_DIR / "vmlinuz"
INITRAMFS = KERNEL_DIR / "initramfs.cpio.gz"
# A 32-bit guest is optional: see missing_32_bit().
RIG_32 = RIG / "i386"
QEMU = os.environ.get("RIG_QEMU", "/usr/bin/qemu-system-x86_64")
MEMVIRT = BUILD / "bin" / "memvirt"
MEMSTAT = BUILD / "bin" / "memstat"
PRELOAD = BUILD / "lib" / "memvirt" / "libmemvirt-preload.so"


def kernel_version():
    return (KERNEL_DIR / "version").read_text().strip()


def missing_guest():
    """Why no guest can be booted here, or None."""
    if not shutil.which(QEMU):
        return f"{QEMU} is not installed (scripts/setup rig)"
    for path in (KERNEL, INITRAMFS):
        if not path.exists():
            return f"{path.relative_to(ROOT)} is not there (scripts/rig-prepare)"
    return None


def missing_32_bit():
    """Why no 32-bit guest can be booted here, or None."""
    try:
        return (RIG_32 / "missing").read_text().strip()
    except FileNotFoundError:
        pass
    return None if (RIG_32 / "done").exists() else "no 32-bit kernel (scripts/rig-kernel32)"


def missing_tools():
    """Why no guest can be managed here, or None."""
    for path in (MEMVIRT, MEMSTAT, PRELOAD):
        if not path.exists():
            return f"{path} is not built (make)"
    return None


def missing():
    return missing_guest() or missing_tools()
