"""What a server process opens, starts, writes and keeps, as seen from outside."""

from __future__ import annotations

import json
import os
import re
import threading
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent / "watched"
LOCAL = re.compile(r"^\('(127\.0\.0\.1|::1|localhost)'|^(127\.0\.0\.1|::1|localhost|None)$|^[^(]*/")
"""Addresses of this machine, as `socket` gives them, and names of sockets in the file system."""


@dataclass(frozen=True)
class Event:
    """A line of `watched/sitecustomize.py`."""

    time: float
    name: str
    what: str
    from_pack: bool


def watch(log: Path, pack: Path) -> None:
    """Have every Python process that this one starts write its events to `log`.

    Args:
        pack: the folder that the server loads the pack from.
    """
    path = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(HERE), path]))
    os.environ |= {"WATCHED_LOG": str(log), "WATCHED_PACK": f"{pack}{os.sep}"}


def events(log: Path, since: float) -> list[Event]:
    """Read the events from a time on."""
    found = [Event(*json.loads(line)) for line in log.read_text().splitlines()]
    return [event for event in found if event.time >= since]


def connections(found: list[Event]) -> list[Event]:
    """Select connections to, and look-ups of, other machines."""
    return [e for e in found if e.name.startswith("socket.") and not LOCAL.match(e.what)]


def programs(found: list[Event]) -> list[Event]:
    """Select programs that were started."""
    names = ("subprocess.Popen", "os.posix_spawn", "os.exec", "os.system", "os.fork")
    return [e for e in found if e.name in names]


def written(found: list[Event], allowed: list[Path]) -> list[Event]:
    """Select files and folders that were written, made or removed outside of some folders."""
    others = [e for e in found if e.name == "open" or e.name.startswith("os.")]
    files = [e for e in others if e not in programs(found) and "__pycache__" not in e.what]
    return [
        e for e in files
        if not any(Path(e.what).is_relative_to(folder) for folder in (*allowed, "/dev"))
    ]  # fmt: skip


class Sockets:
    """Samples the sockets of a process, those of compiled libraries too, five times a second."""

    def __init__(self, pid: int) -> None:
        self.process, self.samples, self.remote = Path(f"/proc/{pid}"), 0, set[str]()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Sockets:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._end.wait(0.2) and self.process.exists():
            self.samples += 1
            self.remote |= self._remote()

    def _remote(self) -> set[str]:
        """Return the far ends, in the kernel's spelling, that are not on this machine."""
        own = set()
        for descriptor in (self.process / "fd").iterdir():
            try:
                own.add(os.readlink(descriptor))
            except OSError:  # closed in the meantime
                continue
        found = set()
        for table in ("tcp", "tcp6", "udp", "udp6"):
            for line in (self.process / "net" / table).read_text().splitlines()[1:]:
                parts = line.split()
                if f"socket:[{parts[9]}]" in own and not _is_local(parts[2]):
                    found.add(parts[2])
        return found


def _is_local(address: str) -> bool:
    """Tell whether an address as in /proc/net/tcp is nothing, or the loopback's."""
    host = address.partition(":")[0]
    return not int(host, 16) or host.endswith("7F") or host == "00000000000000000000000001000000"


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process, without files that are mapped into it."""
    found = re.search(r"RssAnon:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return 1024 * int(found[1])
