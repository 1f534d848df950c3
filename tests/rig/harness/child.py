# SPDX-License-Identifier: BSD-2-Clause
"""Processes that a test starts in the background: none outlives the test, however it ends."""
import ctypes
import signal
import subprocess

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def _die_with_parent():
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def start(command, output, env):
    """Start a command; what it prints goes to the file named, or nowhere for None."""
    with open(output or "/dev/null", "wb") as file:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                                env=env, preexec_fn=_die_with_parent)
