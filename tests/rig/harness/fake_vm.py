# SPDX-License-Identifier: BSD-2-Clause
"""A VM that is none: a statistics segment, a control socket and a QMP socket, played by
threads, for tests of the tools that need no guest.

What does not belong here: what the tools should make of it.
"""
import json
import os
import re
import socket
import struct
import threading
import time

from . import paths

UNKNOWN = 2**64 - 1
MIB = 1 << 20
PAGE = 4096
_HEADER = ("magic", "version", "bytes", "sequence", "pid", "start_time")
_MAGIC = int.from_bytes(b"memvstat", "little")
_NAME_BYTES = 64


def segment_fields():
    """The numbers of a segment in their order, as the public header has them."""
    text = (paths.ROOT / "include" / "memvirt" / "stats.h").read_text()
    body = re.search(r"struct mv_stats \{(.*?)\n\};", text, re.DOTALL).group(1)
    names = re.findall(r"^\tuint64_t (\w+);", body, re.MULTILINE)
    return [name for name in names if name not in _HEADER]


FIELDS = segment_fields()


def segment(name, numbers, pid=None, start_time=None, version=1):
    """The bytes of a segment; numbers that are left out are unknown."""
    size = 8 * len(_HEADER) + _NAME_BYTES + 8 * len(FIELDS)
    begun = time.monotonic_ns() if start_time is None else start_time
    head = struct.pack("<6Q", _MAGIC, version, size, 0, os.getpid() if pid is None else pid,
                       begun)
    values = [numbers.get(field, UNKNOWN) for field in FIELDS]
    return head + name.encode().ljust(_NAME_BYTES, b"\0") + struct.pack(f"<{len(values)}Q", *values)


class _Server(threading.Thread):
    """Answers lines of JSON on a unix socket, one connection at a time or many."""

    def __init__(self, path, greeting, answer):
        super().__init__(daemon=True)
        self.greeting, self.answer = greeting, answer
        self.hangs = False
        self.connections = []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen(8)
        self.start()

    def run(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        try:
            if self.greeting and not self.hangs:
                connection.sendall(json.dumps(self.greeting).encode() + b"\r\n")
            for line in connection.makefile("rb"):
                request = json.loads(line)
                answer = self.answer(request["execute"], request.get("arguments") or {})
                while self.hangs:
                    time.sleep(0.02)
                connection.sendall(json.dumps({**answer, "id": request.get("id")}).encode()
                                   + b"\r\n")
        except OSError:
            pass

    def close(self):
        """shutdown() first: it alone wakes a thread in accept()."""
        for end in (self.listener, *self.connections):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            end.close()


def _error(text):
    return {"error": {"class": "Failed", "desc": text}}


class FakeVm:
    """A VM of @configured bytes that has populated @populated of it; for a `with` statement.

    guest: what QEMU reports of the guest's memory, by QEMU's names; None: no balloon device.
    A function of the VM is asked each time
    plain: a QEMU that memvirt did not start: there is its QMP socket only
    """

    def __init__(self, run_dir, name, configured=512 * MIB, populated=256 * MIB, limit=None,
                 ratio=0.4, guest=None, plain=False, **numbers):
        self.run_dir, self.name = run_dir, name
        self.configured, self.populated, self.ratio = configured, populated, ratio
        self.limit = limit
        self.guest = guest
        self.plain = plain
        self.actual = configured
        self.numbers = numbers
        self.publishes = True
        self.notes, self.limits, self.targets, self.asked = {}, [], [], []
        self.refuses = None
        self.qmp_path = run_dir.path / f"{name}.qmp"
        self._begun = time.monotonic_ns()
        self._ended = threading.Event()

    # --- what it has ---------------------------------------------------------------------------

    @property
    def resident(self):
        return self.populated if self.limit is None else min(self.populated, self.limit)

    @property
    def stored(self):
        return self.populated - self.resident

    @property
    def used(self):
        """What counts against a budget."""
        return self.resident + int(self.stored * self.ratio) + MIB

    def _numbers(self):
        managed = self.limit is not None
        return {"pager_time": time.monotonic_ns(), "configured_bytes": self.configured,
                "managed_bytes": self.configured if managed else 0,
                "resident_bytes": self.resident if managed else 0,
                "limit_bytes": UNKNOWN if self.limit is None else self.limit,
                "stored_pages": self.stored // PAGE, "stored_same_filled": 0,
                "stored_bytes": int(self.stored * self.ratio * 0.9),
                "store_memory_bytes": int(self.stored * self.ratio), "overhead_bytes": MIB,
                "holds": 0, "faults": 0, "restores": 0, **self.numbers}

    def publish(self):
        path = self.run_dir.path / f"{self.name}.stats"
        if path.exists():  # as a VM does: in place
            with path.open("r+b", buffering=0) as file:
                file.write(segment(self.name, self._numbers(), start_time=self._begun))
            return
        scratch = path.with_suffix(".stats-new")
        scratch.write_bytes(segment(self.name, self._numbers(), start_time=self._begun))
        scratch.rename(path)

    def _keep_publishing(self):
        while not self._ended.wait(0.05):
            if self.publishes:
                self.publish()

    # --- what it answers -----------------------------------------------------------------------

    def _control(self, command, arguments):
        self.asked.append(command)
        if command == "query-info":
            return {"return": {"format-version": 1, "name": self.name, "qmp":
                               str(self.qmp_path) if self.guest is not None else None}}
        if command == "set-limit":
            if self.refuses == "set-limit":
                return _error("this cannot be")
            self.limit = arguments["bytes"]
            self.limits.append(self.limit)
        elif command == "note":
            self.notes.update(arguments)
        else:
            return _error("unknown")
        return {"return": {}}

    def _qmp(self, command, arguments):
        self.asked.append(command)
        if command == "qom-list":
            if arguments["path"] != "/machine/peripheral":
                return {"return": []}
            return {"return": [{"name": "type", "type": "string"},
                               {"name": "balloon0", "type": "child<virtio-balloon-pci>"}]}
        if command == "query-balloon":
            return {"return": {"actual": self.actual}}
        if command == "qom-get":
            guest = self.guest(self) if callable(self.guest) else self.guest
            return {"return": {"last-update": int(time.time()), "stats": guest}}
        if command == "query-memory-size-summary":
            return {"return": {"base-memory": self.configured, "plugged-memory": 0}}
        if command == "balloon":
            if self.refuses == "balloon":
                return _error("this cannot be")
            self.targets.append(arguments["value"])
            self.actual = arguments["value"]
        return {"return": {}}

    # --- its life ------------------------------------------------------------------------------

    def __enter__(self):
        if self.plain:
            self.publishes = False
        else:
            self.publish()
            self.control = _Server(self.run_dir.path / f"{self.name}.sock", None, self._control)
        greeting = {"QMP": {"version": {}, "capabilities": []}}
        self.qmp = _Server(self.qmp_path, greeting, self._qmp)
        self._publisher = threading.Thread(target=self._keep_publishing, daemon=True)
        self._publisher.start()
        return self

    def end(self):
        """As a VM that is shut down: its files go."""
        if self._ended.is_set():
            return
        self._ended.set()
        self._publisher.join()
        for server in [self.qmp] if self.plain else [self.qmp, self.control]:
            server.hangs = False
            server.close()
        for suffix in ("stats", "sock", "qmp"):
            (self.run_dir.path / f"{self.name}.{suffix}").unlink(missing_ok=True)

    def __exit__(self, *_):
        self.end()
