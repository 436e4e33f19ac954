"""Everything on a card, in at most ten minutes and without downloads: `make card`.

The accelerator tier on the device, then SDXL in its full size with random weights: seconds, peak
memory and units of every trainer, agreement with the CPU and with stock nodes, the spread of two
runs. Writes a section of docs/BENCHMARKS.md. Any Python that has torch and ComfyUI's packages will
do: COMFYUI_PYTHON, with COMFYUI_PATH. `DEVICE=pretend make card ARGS="--size tiny"` tries it out.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

os.environ.setdefault("DEVICE", "cuda")

from sandbox.commands import say
from sandbox.paths import COMFYUI, ROOT, use_comfyui

from .tier import Tier, run_tier

NEEDED = ("torch", "safetensors", "numpy", "einops", "psutil", "matplotlib", "PIL", "transformers")
"""Of ComfyUI's packages and ours; the message names those that are not there."""


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
    from ziplora_core.comfy_adapter import references, slider_effect

    from .agreement import tables as agreements
    from .studio import open_studio
    from .trainers import trainers_table

    if os.environ["DEVICE"] == "pretend":  # a trial, on a CPU: shorter drawings
        references.TRAJECTORY_STEPS = slider_effect.STEPS = 2
    say("\n".join(circumstances()))
    studio = open_studio(SIZES[options.size], drawn=True)
    made = []
    for table in agreements(studio):
        say(f"\n{table.text()}")
        made.append(table)
    until = begun + 60 * options.minutes
    made.append(trainers_table(studio, options.steps, until, [f"accelerator tier: {tier.said}"]))
    say(f"\n{made[-1].text()}")
    with folder_for(options.size) as docs:
        write("card", "full", made, (time.monotonic() - begun) / 60, docs)
    if tier.failed:
        raise SystemExit(f"make card: the accelerator tier did not pass: {tier.said}")


@contextmanager
def folder_for(size: str) -> Iterator[Path]:
    """Give the folder of the documents: a copy's, for what was only tried."""
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
    """Say what this Python or this machine lacks."""
    lines = [f"- {sys.executable} has no package {n}" for n in NEEDED if find_spec(n) is None]
    if not (COMFYUI / "comfy").is_dir():
        lines.append(f"- no ComfyUI in {COMFYUI}: set COMFYUI_PATH, or run `make setup` first")
    if lines:
        lines.append("Set COMFYUI_PYTHON to the Python that your ComfyUI runs with.")
    return lines


if __name__ == "__main__":
    main()
