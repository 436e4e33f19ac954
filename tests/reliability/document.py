"""Writing of the measured promises to docs/RELIABILITY.md and docs/reliability.json."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from sandbox.paths import ROOT
from sandbox.places import replaced, require

from .parts import Measured, Part
from .promise import Promise

DOCS = ROOT / "docs"
DOCUMENT, FIGURES = "RELIABILITY.md", "reliability.json"


def table(promises: Sequence[Promise]) -> str:
    """Return the promises as Markdown: what was promised, how often tried and held, figures."""
    lines = ["| promise | tried | held | figures |", "|---|---:|---:|---|"]
    for promise in promises:
        tried, held = f"{promise.tried:,}", f"{promise.held:,}"
        lines.append(f"| {promise.text} | {tried} | {held} | {promise.figures} |")
    return "\n".join(lines)


def require_places(parts: Sequence[Part], docs: Path = DOCS) -> None:
    """Stop before a long run if the document has no place for one of its parts."""
    text = (docs / DOCUMENT).read_text(encoding="utf-8")
    require(text, [part.name for part in parts], DOCUMENT)


def write(part: Part, measured: Measured, docs: Path = DOCS) -> None:
    """Replace a part's table in the document, and its figures; those of other parts stay."""
    about = (
        f"torch {version('torch')}, Python {platform.python_version()}, {platform.machine()}; "
        f"{measured.seconds / 60:.1f} minutes"
    )
    broken = [f"- {line}" for promise in measured.promises for line in promise.broken]
    body = "\n".join([f"{about}\n", table(measured.promises), *(["", *broken] if broken else [])])
    document, figures = docs / DOCUMENT, docs / FIGURES
    text = replaced(document.read_text(encoding="utf-8"), part.name, body, DOCUMENT)
    document.write_text(text, encoding="utf-8")
    results = json.loads(figures.read_text()) if figures.is_file() else {}
    results[part.name] = {"about": about, "promises": [asdict(p) for p in measured.promises]}
    figures.write_text(json.dumps(dict(sorted(results.items())), indent=1) + "\n")
