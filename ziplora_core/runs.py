"""The registry of running trainings: the only module-level state of the pack.

A route of the server (`POST /ziplora/stop`) and the loop run in different threads and know each
other only through the id of the node.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_running: dict[str, threading.Event] = {}


@contextmanager
def registered(node_id: str) -> Iterator[threading.Event]:
    """Register a run for as long as it lasts; the event is set when it is asked to stop."""
    event = threading.Event()
    with _lock:
        _running[node_id] = event
    try:
        yield event
    finally:
        with _lock:
            _running.pop(node_id, None)


def request_stop(node_id: str | None = None) -> list[str]:
    """Ask one run, or all, to stop and keep what was learned; returns the ids that were told."""
    with _lock:
        told = [key for key in _running if node_id in (None, key)]
        for key in told:
            _running[key].set()
    return told
