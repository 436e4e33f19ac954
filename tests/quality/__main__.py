"""Compare every merge on the miniature SDXL: `make quality`. Writes docs/QUALITY.md's table."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor

from sandbox.commands import say
from sandbox.paths import ROOT, use_comfyui

use_comfyui()
sys.path.append(str(ROOT))  # last: ComfyUI has a nodes.py, the pack a nodes folder

import torch  # noqa: E402

from miniworld.parts import load_parts  # noqa: E402

from . import record  # noqa: E402
from .benchmark import run_pair  # noqa: E402
from .document import write  # noqa: E402
from .subjects import PAIRS  # noqa: E402

WORKERS = min(len(PAIRS), os.cpu_count() or 1, 4)


def main() -> int:
    """Run every method on every pair, one thread a pair; with `trimmed`, what the test repeats."""
    if sys.argv[1:] == ["trimmed"]:
        return trimmed()
    begun = time.monotonic()
    load_parts()  # writes the checkpoint, if need be, before two processes would
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(WORKERS, spawn) as workers:
        results = list(workers.map(run_pair, range(len(PAIRS))))
    write(results, time.monotonic() - begun)
    return trimmed()


def trimmed() -> int:
    """Do the run that `make test` repeats, and record it; `ACCEPT=1` records what is worse, too."""
    torch.set_num_threads(record.THREADS)
    measured = record.trimmed_run(record.trimmed_bench())
    worse = record.keep(measured, accept=os.environ.get("ACCEPT") == "1")
    for line in worse:
        say(f"worse than recorded: {line}")
    return len(worse)


if __name__ == "__main__":
    sys.exit(main())
