# SPDX-License-Identifier: BSD-2-Clause
"""What rig tests and the demo share: VMs, their guests, and how to measure them from outside.

paths     where the build and the rig are, and what is missing of them
deadline  waiting, never for ever
qmp       QEMU's monitor
child     processes in the background
control   memvirt's control socket, and the tools
guest     what runs in the guest: scripts and the serial console
vm        one QEMU process
outside   a VM's memory as the host sees it
workload  a small guest that checks its memory
tap       test results
"""
