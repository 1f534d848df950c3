# SPDX-License-Identifier: BSD-2-Clause
"""A host in a VM, with hardware KVM (SVM and nested paging, by QEMU), on which minivmm runs a
guest of its own. What the guest says comes out on the host's console.

What does not belong here: what minivmm should do.
"""
import re
import subprocess
import tempfile
from pathlib import Path

from . import paths
from .guest import make_initramfs, shell_script
from .vm import Vm

MINIVMM = paths.BUILD / "examples" / "minivmm"
RUN_DIR = "/run/memvirt"

# The host: KVM, a run directory, minivmm in the background with the arguments that follow, and
# what a test does with it.
_HOST = f"""
for module in $(cat /modules/kvm_amd.order); do insmod /modules/$module; done
mkdir -p {RUN_DIR}
mkfifo /tmp/in
start() {{
	/rig/minivmm --kernel /rig/vmlinuz --initrd /rig/inner --name inner --run-dir {RUN_DIR} \\
		--append "console=ttyS0 quiet panic=-1 reboot=k mitigations=off" "$@" \\
		</tmp/in >/tmp/inner 2>&1 &
	exec 3>/tmp/in
}}
# What the guest says, and is told.
said() {{ until grep -q "$1" /tmp/inner; do sleep 0.1; done; }}
tell() {{ echo "$1" >&3; }}
ask() {{ ask_line "{{\\"execute\\": \\"$1\\", \\"arguments\\": {{$2}}}}"; }}
ask_line() {{ /bin/ask {RUN_DIR}/inner.sock "$1"; }}
set_balloon() {{ echo "rig: set-balloon $(ask set-balloon "\\"bytes\\": $1")"; }}
# The numbers that are published.
numbers() {{ /rig/memstat once --json --interval 0 --run-dir {RUN_DIR} | tr -d "\\n"; }}
segment() {{ echo "rig: segment $1 $(numbers)"; }}
device() {{ echo "rig: device $1 $(ask query-device)"; }}
reach() {{ until numbers | grep -q "\\"balloon_actual_bytes\\": *$1\\b"; do sleep 0.1; done; }}
ended() {{
	wait
	echo "rig: minivmm ended with $?"
	sed 's/^/rig: inner: /' /tmp/inner
}}
"""

# The guest: with Linux's driver for our transport.
_GUEST = """
for module in $(cat /modules/virtio_mmio.order); do insmod /modules/$module; done
linux_driver() { for module in $(cat /modules/virtio_balloon.order); do
	insmod /modules/$module 2>/dev/null; done; }
our_driver() { insmod /modules/memvirt_balloon.ko; }
"""


def _libraries(program):
    """A program's shared libraries, and its loader: path in the guest -> content."""
    listed = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=True)
    found = re.findall(r"(/\S+) \(0x", listed.stdout)
    return {path: Path(path).read_bytes() for path in found}


def with_libraries(*programs):
    """Programs for a guest, as /rig/NAME, and what they need."""
    files = {}
    for program in programs:
        files.update(_libraries(program))
        files[f"/rig/{program.name}"] = Path(program).read_bytes()
    return files


def nested_host(name, host_script, guest_script, programs=(), memory=768, **options):
    """The VM that is the host. Scripts are shell text; see above for what they may use.

    programs: further ones of the host, beside minivmm and memstat
    """
    with tempfile.TemporaryDirectory() as scratch:
        inner = Path(scratch) / "inner"
        make_initramfs(paths.INITRAMFS, {"/rig/run": shell_script(_GUEST + guest_script)}, inner)
        files = {"/rig/vmlinuz": paths.KERNEL.read_bytes(), "/rig/inner": inner.read_bytes(),
                 **with_libraries(MINIVMM, paths.MEMSTAT, *programs)}
    return Vm(name, _HOST + host_script, files=files, memory=memory, cpus=2, balloon=None,
              cpu="EPYC,+svm,+npt", **options)
