"""Watches a Python process from its start: connections, programs, and files it changes.

In a folder of its own, which is on the import path of that process only. Writes a JSON line for
each event to the file that WATCHED_LOG names: the time, the event, its object, and whether a
function of the pack is among the callers.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

PACK = os.environ["WATCHED_PACK"]
LOG = os.open(os.environ["WATCHED_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
NETWORK = ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname")
PROGRAMS = ("subprocess.Popen", "os.posix_spawn", "os.exec", "os.system", "os.fork")
FILES = {
    "os.rename": (1, 3), "os.link": (1, 3), "os.symlink": (1, 2),
    "os.mkdir": (0, 2), "os.remove": (0, 1), "os.rmdir": (0, 1),
}  # fmt: skip
"""Which argument is the path, and which an open folder that it is in, or -1."""
WRITES = os.O_WRONLY | os.O_RDWR


def watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open":
        path, _mode, flags = arguments
        if not isinstance(flags, int) or not flags & WRITES or isinstance(path, int):
            return
        what = _whole(path)
    elif event in FILES:
        path, folder = FILES[event]
        what = _whole(arguments[path], arguments[folder])
    elif event in NETWORK:
        what = arguments[1] if event in ("socket.connect", "socket.sendto") else arguments[0]
    elif event in PROGRAMS:
        what = arguments[0] if arguments else ""
    else:
        return
    line = json.dumps([time.time(), event, _text(what), _from_pack()])
    os.write(LOG, f"{line}\n".encode())


def _whole(path: Any, folder: int = -1) -> str:
    """Return the whole path of a file that is named within an open folder, or the current one."""
    inside = os.getcwd() if folder == -1 else os.readlink(f"/proc/self/fd/{folder}")
    return os.path.join(inside, os.fsdecode(path))


def _text(what: Any) -> str:
    return os.fsdecode(what) if isinstance(what, bytes) else str(what)


def _from_pack() -> bool:
    frame = sys._getframe(2)
    while frame is not None:
        if frame.f_code.co_filename.startswith(PACK):
            return True
        frame = frame.f_back
    return False


sys.addaudithook(watch)
