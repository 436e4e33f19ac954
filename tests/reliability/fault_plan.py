"""Which faults a node gets: every kind, spread over the whole run and at every step's end."""

from __future__ import annotations

from collections.abc import Mapping

from . import injection as i
from .injection import Fault

LAYERS = {
    i.OUT_OF_MEMORY: 5, i.NAN: 5, i.CANCEL: 4, i.KILL: 4, i.ERROR: 2, i.FULL_DISK: 2, i.REMOVED: 1,
    i.NAN_GRADIENT: 2, i.BACKWARD_OUT_OF_MEMORY: 2,
}  # fmt: skip
"""How many of each kind happen inside layers."""
BETWEEN = (i.BEFORE_UPDATE, i.OUT_OF_MEMORY), (i.AFTER_UPDATE, i.CANCEL), (i.AFTER_UPDATE, i.KILL)
"""What happens at every step's update."""
OTHERS = {
    (i.AFTER_UPDATE, i.ERROR): 1, (i.MESSAGE, i.ERROR): 2, (i.BAR, i.ERROR): 1,
    (i.FILE, i.DISK_ERROR): 2, (i.FILE, i.KILL): 2,
}  # fmt: skip
BACKWARD = (i.NAN_GRADIENT, i.BACKWARD_OUT_OF_MEMORY)


def plan(passed: Mapping[str, int], every: int, tool: bool, turn: int) -> list[Fault]:
    """Choose the faults of a node.

    Args:
        passed: how often a run without faults passes each kind of place.
        every: takes every n-th of them, so that all nodes together have every kind.
        tool: whether the node only draws and judges: fewer, and none that need a training.
        turn: number of the node.
    """
    trains = passed.get(i.AFTER_UPDATE, 0) > 0
    kinds = [(k, n) for k, n in LAYERS.items() if trains or k not in BACKWARD]
    if tool:
        kinds = [(k, 2) for k, _ in kinds if k in (i.OUT_OF_MEMORY, i.ERROR, i.CANCEL)]
    faults = [Fault(kind, i.LAYER, at) for kind, n in kinds for at in _spread(passed[i.LAYER], n)]
    faults += [Fault(k, place, at) for place, k in BETWEEN for at in range(passed.get(place, 0))]
    for (place, kind), n in OTHERS.items():
        faults += [Fault(kind, place, at) for at in _spread(passed.get(place, 0), n)]
    return faults[turn % every :: every]


def _spread(total: int, count: int) -> list[int]:
    """Return up to `count` different numbers below `total`, evenly spread."""
    return sorted({(2 * n + 1) * total // (2 * count) for n in range(count)}) if total else []
