"""Files on the disk: temporary ones of killed processes, limits of what is kept, a full disk."""

from __future__ import annotations

import random
import sys
import tempfile
from pathlib import Path

from sandbox.paths import ROOT
from sandbox.server import fresh_base

from .promise import Promise

SEED = 25
KILLS, TRAININGS, SAVES, SERVERS = 200, 400, 400, 6
FEW_KILLS, FEW_TRAININGS, FEW_SAVES = 20, 60, 40


def measure(short: bool) -> list[Promise]:
    """Kill processes that write, train beyond the limits, and save on a disk that is full.

    Args:
        short: fewer of each, and one killed server.
    """
    if str(ROOT) not in sys.path:
        sys.path.append(str(ROOT))  # for the core, and for the tests' graphs
    from . import disk_full, disk_kills, disk_limits

    rng = random.Random(SEED)
    with tempfile.TemporaryDirectory() as folder:
        base = fresh_base(Path(folder))
        kills = disk_kills.measured(
            FEW_KILLS if short else KILLS, 1 if short else SERVERS, base, rng
        )
        trainings = FEW_TRAININGS if short else TRAININGS
        limits = disk_limits.measured(trainings, Path(folder) / "limits", rng)
        full = disk_full.measured(FEW_SAVES if short else SAVES, Path(folder) / "full", rng)
    return [*kills, limits, *full]
