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
FILES = ("os.rename", "os.link", "os.symlink", "os.mkdir", "os.remove")
WRITES = os.O_WRONLY | os.O_RDWR


def watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open":
        path, _mode, flags = arguments
        if not isinstance(flags, int) or not flags & WRITES or isinstance(path, int):
            return
        what = path
    elif event in FILES:
        what = arguments[1] if event in ("os.rename", "os.link", "os.symlink") else arguments[0]
    elif event in NETWORK:
        what = arguments[1] if event in ("socket.connect", "socket.sendto") else arguments[0]
    elif event in PROGRAMS:
        what = arguments[0] if arguments else ""
    else:
        return
    line = json.dumps([time.time(), event, _text(what), _from_pack()])
    os.write(LOG, f"{line}\n".encode())


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
