# SPDX-License-Identifier: BSD-2-Clause
"""QEMU's monitor, as far as the rig needs it."""
import json
import socket

from .deadline import wait_for


class QmpError(Exception):
    """QEMU refused a command, or has gone."""


class Qmp:
    """One connection. Events are kept in self.events, in their order."""

    BALLOON = "/machine/peripheral/balloon0"

    def __init__(self, path, seconds=20, alive=lambda: True):
        self.events = []
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(seconds)

        def connect():
            if not alive():
                raise QmpError("QEMU ended before its monitor was there")
            try:
                self.socket.connect(str(path))
                return True
            except (FileNotFoundError, ConnectionRefusedError):
                return False

        wait_for(connect, seconds, f"QMP socket {path}")
        self.stream = self.socket.makefile("rw", encoding="utf-8")
        self._receive()
        self.run("qmp_capabilities")

    def _receive(self):
        try:
            line = self.stream.readline()
        except OSError as error:
            raise QmpError(f"QMP: {error}") from error
        if not line:
            raise QmpError("QMP: QEMU has closed the connection")
        return json.loads(line)

    def run(self, command, **arguments):
        try:
            self.stream.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
            self.stream.flush()
        except OSError as error:
            raise QmpError(f"{command}: {error}") from error
        while True:
            answer = self._receive()
            if "event" in answer:
                self.events.append(answer)
            elif "error" in answer:
                raise QmpError(f"{command}: {answer['error'].get('desc')}")
            else:
                return answer["return"]

    def set_balloon(self, size):
        """Ask for a guest of this many bytes."""
        self.run("balloon", value=size)

    def balloon_actual(self):
        """The guest's size in bytes, by its own word."""
        return self.run("query-balloon")["actual"]

    def guest_stats(self):
        """(time in seconds or None, the numbers by name without those that are unknown)"""
        answer = self.run("qom-get", path=self.BALLOON, property="guest-stats")
        # QEMU fills in -1, as an unsigned number, for what the guest has not told.
        stats = {name: value for name, value in answer["stats"].items()
                 if value not in (-1, 2**64 - 1)}
        return answer["last-update"] or None, stats

    def poll_guest_stats(self, seconds):
        self.run("qom-set", path=self.BALLOON, property="guest-stats-polling-interval",
                 value=seconds)

    def close(self):
        self.socket.close()
