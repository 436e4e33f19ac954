"""Checkpoints: damaged ones are not resumed, and a training that has ended is not lost."""

from __future__ import annotations

import logging
import sys
import tempfile
from pathlib import Path

from sandbox.paths import ROOT
from sandbox.server import fresh_base

from .promise import Promise

MUTATIONS, FEW = 3600, 270


def measure(short: bool) -> list[Promise]:
    """Damage checkpoints, and kill servers between the end of a training and its file.

    Args:
        short: fewer damaged files, and one training.
    """
    if str(ROOT) not in sys.path:
        sys.path.append(str(ROOT))  # for the core, and for the tests' small trainings and graphs
    from . import finished, mutations

    names = [*finished.TASKS]
    logging.disable(logging.WARNING)  # thousands, each of which is in the notes that are checked
    with tempfile.TemporaryDirectory() as folder:
        broken = mutations.measured(FEW if short else MUTATIONS, Path(folder) / "damaged")
        logging.disable(logging.NOTSET)
        killed = finished.measured(names[:1] if short else names, fresh_base(Path(folder)))
    return [*broken, *killed]
