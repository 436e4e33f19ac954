"""Measure merges and sliders on the miniature SDXL: `make quality`. Writes docs/QUALITY.md.

`make quality ARGS=sliders` runs a part: merges, sliders, unziplora, or
trimmed, which a test repeats.
"""

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

from . import document, record  # noqa: E402
from .benchmark import run_pair  # noqa: E402
from .sliders import document as slider_document  # noqa: E402
from .sliders import run as slider_run  # noqa: E402
from .subjects import PAIRS  # noqa: E402
from .unziplora import document as unziplora_document  # noqa: E402
from .unziplora import run as unziplora_run  # noqa: E402

WORKERS = min(len(PAIRS), os.cpu_count() or 1, 4)


def main() -> int:
    """Run the parts that were asked for, or all; one thread a process."""
    asked = sys.argv[1:] or list(PARTS)
    if unknown := set(asked) - set(PARTS):
        raise SystemExit(f"found {', '.join(unknown)}, expected some of {', '.join(PARTS)}")
    load_parts()  # writes the checkpoint, if need be, before two processes would
    return sum(PARTS[part]() for part in asked)


def merges() -> int:
    """Run every method on every pair."""
    begun = time.monotonic()
    with _workers() as workers:
        results = list(workers.map(run_pair, range(len(PAIRS))))
    document.write(results, time.monotonic() - begun)
    return 0


def sliders() -> int:
    """Train and measure every slider."""
    with _workers() as workers:
        slider_document.write(*slider_run.run(workers))
    return 0


def unziplora() -> int:
    """Take pictures apart in every way."""
    with _workers() as workers:
        unziplora_document.write(unziplora_run.run(workers))
    return 0


def trimmed() -> int:
    """Do the run that `make test` repeats, and record it; `ACCEPT=1` records what is worse, too."""
    torch.set_num_threads(record.THREADS)
    measured = record.trimmed_run(record.trimmed_bench())
    worse = record.keep(measured, accept=os.environ.get("ACCEPT") == "1")
    for line in worse:
        say(f"worse than recorded: {line}")
    return len(worse)


def _workers() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(WORKERS, multiprocessing.get_context("spawn"))


PARTS = {"merges": merges, "sliders": sliders, "unziplora": unziplora, "trimmed": trimmed}


if __name__ == "__main__":
    sys.exit(main())
