"""All measurements on a card, in at most ten minutes and without downloads: `make card`.

It runs the accelerator tier on the device, then SDXL in its full size with random weights: seconds,
peak memory and units of every trainer, agreement with the CPU and with stock nodes, and the spread
of two runs. It writes a section of docs/BENCHMARKS.md. Any Python with torch and ComfyUI's packages
can run it: COMFYUI_PYTHON, with COMFYUI_PATH. `DEVICE=pretend make card ARGS="--size tiny"` is a
trial run on a CPU.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

os.environ.setdefault("DEVICE", "cuda")

from sandbox.commands import say
from sandbox.paths import COMFYUI, ROOT, use_comfyui

from .tier import Tier, run_tier

if TYPE_CHECKING:
    from bench.table import Table

NOT_NEEDED = {"comfyui-frontend-package", "comfyui-workflow-templates", "comfyui-embedded-docs"}
"""ComfyUI's requirements that no measurement uses."""
LARGEST_ERROR = 0.05
"""Largest error of a prediction or a latent, relative to its rms, that passes."""


def main() -> None:
    options = parse()
    if missing := what_is_missing():
        raise SystemExit("\n".join(["make card cannot run here:", *missing]))
    begun = time.monotonic()
    tier = Tier("not run") if options.no_tests else run_tier(options.tier_minutes)
    use_comfyui()
    sys.path.append(str(ROOT))  # last: ComfyUI has a nodes.py, the pack a nodes folder
    from comfy.cli_args import args

    args.force_fp32 = False
    import comfy.model_management

    device = comfy.model_management.get_torch_device()
    if device.type == "cpu":
        raise SystemExit("make card: ComfyUI finds no card here, only the CPU")

    from bench.document import circumstances, write
    from bench.engine.models import SIZES
    from ziplora_core.comfy_adapter.data import references
    from ziplora_core.comfy_adapter.train import slider_effect

    from .agreement import tables as agreements
    from .models import open_models
    from .trainers import trainers_table

    slider_effect.STEPS = 2  # its drawings are not measured
    if os.environ["DEVICE"] == "pretend":  # a trial on a CPU
        references.TRAJECTORY_STEPS = 2
    say("\n".join(circumstances()))
    models = open_models(SIZES[options.size], drawn=True)
    made: list[Table] = []
    failures = [f"the accelerator tier did not pass: {tier.said}"] if tier.failed else []

    with folder_for(options.size) as docs:

        def add(table: Table) -> None:
            """Show a table, and write it with those before: a later failure does not lose it."""
            say(f"\n{table.text()}")
            made.append(table)
            write("card", "full", made, (time.monotonic() - begun) / 60, docs)

        for table in agreements(models):
            add(table)
            failures += too_far(table)
        notes = [f"accelerator tier: {tier.said}"]
        until = begun + 60 * options.minutes
        table, failed = trainers_table(models, options.steps, until, notes)
        add(table)
    if failed:
        failures.append("a trainer failed: see the lines below its table")
    if failures:
        raise SystemExit("\n".join(f"make card: {failure}" for failure in failures))


def too_far(table: Table) -> list[str]:
    """Return a line for each row whose error is above `LARGEST_ERROR`, or no number."""
    return [
        f"{table.title}: {name} has an error of {row['error']}"
        for name, row in table.rows.items()
        if not (row.get("error") or 0.0) <= LARGEST_ERROR
    ]


@contextmanager
def folder_for(size: str) -> Iterator[Path]:
    """Return the folder of the documents, that of a copy for trial runs."""
    from bench.document import DOCS, DOCUMENT, FIGURES

    if size == "full":
        yield DOCS
        return
    with TemporaryDirectory() as copy:
        for name in (DOCUMENT, FIGURES):
            shutil.copy(DOCS / name, copy)
        yield Path(copy)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make card ARGS=…", description=__doc__)
    parser.add_argument("--size", choices=("tiny", "medium", "full"), default="full")
    parser.add_argument("--steps", type=int, default=6, help="of each training")
    parser.add_argument("--minutes", type=float, default=9.0, help="no training begins after them")
    parser.add_argument("--tier-minutes", type=float, default=4.0, help="of tests, at most")
    parser.add_argument("--no-tests", action="store_true", help="only the figures")
    return parser.parse_args()


def what_is_missing() -> list[str]:
    """Return lines on what this Python or this machine lacks."""
    if not (COMFYUI / "comfy").is_dir():
        return [f"- no ComfyUI in {COMFYUI}: set COMFYUI_PATH, or run `make setup` first"]
    requirements = (COMFYUI / "requirements.txt", ROOT / "requirements.txt")
    wanted = [line for file in requirements for line in file.read_text().splitlines()]
    names = [re.split(r"[=<>~!\[ ]", line)[0] for line in wanted if not line.startswith("#")]
    missing = [name for name in names if name and not {name} & NOT_NEEDED and not installed(name)]
    lines = [f"- {sys.executable} has no package {name}" for name in missing]
    if lines:
        lines.append(f"{sys.executable} -m pip install {' '.join(missing)}")
        lines.append("Set COMFYUI_PYTHON to the Python that your ComfyUI runs with.")
    return lines


def installed(name: str) -> bool:
    """Return whether this Python has a distribution."""
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


if __name__ == "__main__":
    main()
