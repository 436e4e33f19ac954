"""Writing of the measured tables to docs/BENCHMARKS.md and docs/benchmarks.json."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import comfy.model_management
import comfyui_version
import torch

from sandbox.commands import say
from sandbox.paths import ROOT
from sandbox.places import replaced

from .table import Table

DOCS = ROOT / "docs"
DOCUMENT, FIGURES = "BENCHMARKS.md", "benchmarks.json"


def circumstances() -> list[str]:
    """Return lines on the machine and the software versions."""
    device = comfy.model_management.get_torch_device()
    if device.type != "cpu":
        card: Any = torch.get_device_module(device).get_device_properties(device)
        what = f"{card.name}, {card.total_memory / 2**30:.0f} GiB"
    else:
        what = f"CPU ({platform.machine()}), {torch.get_num_threads()} threads"
    return [
        f"device: {what}",
        f"torch {torch.__version__}, ComfyUI {comfyui_version.__version__}, "
        f"Python {platform.python_version()}",
    ]


def write(
    run: str, section: str, tables: Sequence[Table], minutes: float, docs: Path = DOCS
) -> None:
    """Replace a section's tables in the document.

    Args:
        run: `default` or `full`.
        section: name of the section, which has its own place in each run.
        tables: all tables of the section.
        minutes: duration of the section.
        docs: folder of both files.
    """
    about = [*circumstances(), f"took {minutes:.0f} minutes"]
    body = "\n".join([*(f"- {line}" for line in about), *(f"\n{t.text()}" for t in tables)])
    document, figures = docs / DOCUMENT, docs / FIGURES
    text = replaced(document.read_text(encoding="utf-8"), f"{run} {section}", body, DOCUMENT)
    document.write_text(text, encoding="utf-8")
    runs = json.loads(figures.read_text()) if figures.is_file() else {}
    measured = {"about": about, "tables": {t.title: t.figures() for t in tables}}
    sections = {**runs.get(run, {}), section: measured}
    runs[run] = dict(sorted(sections.items(), key=lambda s: text.index(f"<!-- {run} {s[0]} -->")))
    figures.write_text(json.dumps(runs, indent=1) + "\n")
    say(f"written: {document}, {figures.name}")
