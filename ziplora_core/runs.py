"""The registry of trainings: the only module-level state of the pack.

The server's routes and the loop run in different threads and know each other only through the id
of the node. The last run of a node stays for a while after its end, for a page that is loaded anew.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from .run_history import Run

KEPT = 8
"""Runs, with those that have ended."""

_lock = threading.Lock()
_runs: list[Run] = []


@contextmanager
def registered(run: Run) -> Iterator[Run]:
    """Register a run; it is running as long as this lasts, and takes the place of its node's."""
    with _lock:
        others = [r for r in _runs if (r.workflow, r.node_id) != (run.workflow, run.node_id)]
        _runs[:] = [*others[1 - KEPT :], run]
    try:
        yield run
        run.state = run.ending()
    except BaseException as error:
        run.state = "failed" if isinstance(error, Exception) else "cancelled"
        raise


def known() -> list[Run]:
    """All runs that are still known, the newest last."""
    with _lock:
        return list(_runs)


def find(node_id: str, workflow: str | None = None) -> Run | None:
    """The last run of a node, of any workflow or of one."""
    fitting = [r for r in known() if r.node_id == node_id and workflow in (None, r.workflow)]
    return fitting[-1] if fitting else None


def request_stop(node_id: str | None = None, workflow: str | None = None) -> list[str]:
    """Ask a node's runs, or all, to stop and keep what was learned; returns the ids that were told.

    Args:
        node_id: None for all.
        workflow: None for any; two of them can have the same node ids.
    """
    running = _running(node_id, workflow)
    for run in running:
        run.stop.set()
    return [run.node_id for run in running]


def request_save(node_id: str | None = None, workflow: str | None = None) -> list[str]:
    """Ask runs to write the LoRA so far and go on; as `request_stop`."""
    running = _running(node_id, workflow)
    for run in running:
        run.save.set()
    return [run.node_id for run in running]


def _running(node_id: str | None, workflow: str | None) -> list[Run]:
    going = [r for r in known() if r.state == "running"]
    return [r for r in going if node_id in (None, r.node_id) and workflow in (None, r.workflow)]
