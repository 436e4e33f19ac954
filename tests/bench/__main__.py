"""The benchmark, `make bench`: measures merging and training, and writes docs/BENCHMARKS.md.

`make bench ARGS=--full` measures the full-size SDXL instead; `--help` lists all options.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator

os.environ |= {"KINETO_LOG_LEVEL": "99", "TORCH_CPP_LOG_LEVEL": "ERROR"}  # for the memory counts

from sandbox.paths import ROOT, use_comfyui

use_comfyui()
sys.path.append(str(ROOT))  # last: ComfyUI has a nodes.py, the pack a nodes folder

import torch  # noqa: E402
from comfy.cli_args import args as comfy_args  # noqa: E402

from sandbox.commands import say  # noqa: E402

from .table import Table  # noqa: E402

SECTIONS = ("steps", "closed_form", "merges", "dreambooth", "sliders", "unziplora")
SIZED = ("steps", "closed_form", "sliders", "unziplora")
"""Sections that are measured in several sizes, including the full one."""


def main() -> None:
    options = parse()
    comfy_args.cpu = options.cpu or not torch.cuda.is_available()
    torch.set_num_threads(options.threads)

    from . import document  # after comfy_args is set, which their imports read

    say("\n".join(document.circumstances()))
    for section in options.only or (SIZED if options.full else SECTIONS):
        begun = time.monotonic()
        tables: list[Table] = []
        for table in run(section, options):
            say(f"\n{table.text()}")
            tables.append(table)
        minutes = (time.monotonic() - begun) / 60
        say(f"\n{section}: {minutes:.0f} minutes")
        if options.sizes is None:
            document.write("full" if options.full else "default", section, tables, minutes)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench ARGS=…", description=__doc__)
    parser.add_argument(
        "--full",
        action="store_true",
        help="SDXL in its full size, for a large card (about 48 GB, by estimate)",
    )
    parser.add_argument(
        "--only", nargs="+", choices=SECTIONS, help="these sections; the others stay as written"
    )
    parser.add_argument(
        "--sizes",
        nargs="+",
        help=f"tiny, medium, full: of {', '.join(SIZED)}; prints, writes nothing",
    )
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contender of steps")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--cpu", action="store_true", help="even where there is a card")
    options = parser.parse_args()
    if options.sizes and options.only is None:
        parser.error("--sizes goes with --only: the document holds whole sections")
    return options


def run(section: str, options: argparse.Namespace) -> Iterator[Table]:
    """Run a section and yield its tables."""
    from .dreambooth import tables as dreambooth
    from .engine import closed_form, merges, steps
    from .sliders import tables as sliders
    from .unziplora import tables as unziplora

    sizes = options.sizes or (["full"] if options.full else ["tiny", "medium"])
    made = {
        "steps": lambda: steps.tables(sizes, options.rounds),
        "closed_form": lambda: closed_form.tables(sizes),
        "merges": merges.tables,
        "dreambooth": dreambooth.tables,
        "sliders": lambda: sliders.tables(sizes),
        "unziplora": lambda: unziplora.tables(sizes),
    }
    yield from made[section]()


if __name__ == "__main__":
    main()
