# SPDX-License-Identifier: BSD-2-Clause
"""memvirt's side of a VM: its control socket, and the tools that look at it."""
import json
import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

from . import child, paths

PAGE = 4096


class ControlError(Exception):
    """The VM refused a command, or does not answer."""


class Control:
    """The control socket of one VM; each command has its own connection."""

    def __init__(self, run_dir, name, seconds=10, suffix=".sock"):
        self.path = Path(run_dir) / f"{name}{suffix}"
        self.seconds = seconds

    def run(self, command, **arguments):
        request = {"execute": command}
        if arguments:
            request["arguments"] = arguments
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(self.seconds)
                connection.connect(str(self.path))
                connection.sendall(json.dumps(request).encode() + b"\n")
                line = connection.makefile("rb").readline()
        except OSError as error:
            raise ControlError(f"{command} on {self.path}: {error}") from error
        if not line:
            raise ControlError(f"{command} on {self.path}: no answer")
        answer = json.loads(line)
        if "error" in answer:
            raise ControlError(f"{command}: {answer['error']}")
        return answer["return"]

    def stats(self):
        return self.run("query-stats")

    def info(self):
        return self.run("query-info")

    def set_limit(self, size):
        """In bytes; None lifts the limit."""
        return self.run("set-limit", bytes=size)


class RunDir:
    """A run directory of its own, so that tests meet no other VMs; for a `with` statement."""

    def __init__(self):
        self.path = Path(tempfile.mkdtemp(prefix="memvirt-run-"))
        self.env = {"MEMVIRT_RUN_DIR": str(self.path)}

    def control(self, name):
        return Control(self.path, name)

    def memvirt(self, *arguments, seconds=30, text=None):
        return run_tool(paths.MEMVIRT, arguments, self.env, seconds, text)

    def memstat(self, *arguments, seconds=30):
        return run_tool(paths.MEMSTAT, arguments, self.env, seconds)

    def close(self):
        shutil.rmtree(self.path, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def run_tool(program, arguments, env, seconds=30, text=None):
    """Run a tool to its end, with `text` as its input: status, standard output and error."""
    return subprocess.run([str(program), *map(str, arguments)], env=dict(os.environ, **env),
                          input=text or "", capture_output=True, text=True,
                          timeout=seconds, check=False)


class Governor:
    """`memvirt govern` in the background; for a `with` statement."""

    def __init__(self, run_dir, budget, arguments=(), log=None):
        self.command = [str(paths.MEMVIRT), "govern", "--budget", str(budget), *arguments]
        self.env = dict(os.environ, **run_dir.env)
        self.log = log
        self.process = None

    def start(self):
        self.process = child.start(self.command, self.log, self.env)
        return self

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def close(self):
        """Ask it to end; its exit status."""
        if self.process is None:
            return None
        if self.alive():
            self.process.terminate()
        try:
            return self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait(10)

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.close()
