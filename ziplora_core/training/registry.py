"""The registry of training runs, the only module-level state of the pack.

The server's routes and the loop run in different threads; the id of the node connects them. The
last run of a node is kept for a while after its end, for a page that is reloaded.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from .run_history import Run

KEPT = 8
"""Number of runs kept, including those that have ended."""

_lock = threading.Lock()
_runs: list[Run] = []
_continued: Counter[str] = Counter()


@contextmanager
def registered(run: Run) -> Iterator[Run]:
    """Register a run, which replaces its node's last one; it runs until the context ends."""
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
    """Return all runs that are kept, the newest last."""
    with _lock:
        return list(_runs)


def find(node_id: str, workflow: str | None = None) -> Run | None:
    """Return the last run of a node, in one workflow or in any."""
    fitting = [r for r in known() if r.node_id == node_id and workflow in (None, r.workflow)]
    return fitting[-1] if fitting else None


def request_stop(node_id: str | None = None, workflow: str | None = None) -> list[str]:
    """Ask runs to stop and keep their result; return the node ids of the runs that were asked.

    Args:
        node_id: id of the node, None for all nodes.
        workflow: id of the workflow, None for any; two workflows can have the same node ids.
    """
    running = _running(node_id, workflow)
    for run in running:
        run.stop.set()
    return [run.node_id for run in running]


def request_save(node_id: str | None = None, workflow: str | None = None) -> list[str]:
    """Ask runs to write the current LoRA and continue; otherwise as `request_stop`.

    A closed form or a search has nothing to write on the way, so it is not asked.
    """
    running = [run for run in _running(node_id, workflow) if run.saves]
    for run in running:
        run.save.set()
    return [run.node_id for run in running]


def request_continue(key: str) -> None:
    """Let the training with this key run again though its inputs are the same; see `continued`."""
    with _lock:
        _continued[key] += 1


def continued(key: str) -> int:
    """Return how often a training was asked to go on, which tells ComfyUI's cache to forget it."""
    return _continued[key]


def _running(node_id: str | None, workflow: str | None) -> list[Run]:
    going = [r for r in known() if r.state == "running"]
    return [r for r in going if node_id in (None, r.node_id) and workflow in (None, r.workflow)]
