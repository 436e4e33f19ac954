"""Write the results into docs/QUALITY.md's table, docs/quality.json and the contact sheets."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from sandbox.commands import say
from sandbox.paths import ROOT

from .benchmark import PairResult
from .sheet import contact_sheet
from .table import COLUMNS, averaged, markdown

DOCUMENT = ROOT / "docs" / "QUALITY.md"
FIGURES = ROOT / "docs" / "quality.json"
IMAGES = ROOT / "docs" / "images"
SHORT = {
    "training pictures": "content prompt",
    "content LoRA alone": "content prompt",
    "style LoRA alone": "style prompt",
    "joint training": "joint prompt",
    "direct": "joint prompt",
    "ZipLoRA": "joint prompt",
    "closed form, joint": "joint prompt",
}
"""The rows of the short sheet, and the prompt of each."""


def write(results: Sequence[PairResult], seconds: float) -> None:
    """Write the table, the figures and the sheets, and say the table."""
    methods = results[0].figures
    means = {m: averaged([r.figures[m] for r in results]) for m in methods}
    table = markdown(means, COLUMNS)
    say(f"\n{table}\n\n{seconds / 60:.0f} minutes")
    saved = {r.pair.name: {"real": r.real, "figures": r.figures} for r in results}
    FIGURES.write_text(json.dumps(saved, indent=1) + "\n")
    write_sheets(results)
    put("table", table)


def put(mark: str, body: str) -> None:
    """Put a table between its two marks in the document."""
    place = rf"(?<=<!-- {mark} -->\n).*?(?=<!-- end of {mark} -->)"
    before = DOCUMENT.read_text(encoding="utf-8")
    text, found = re.subn(place, lambda _: f"\n{body}\n\n", before, flags=re.DOTALL)
    if found != 1:
        raise SystemExit(f"{DOCUMENT}: found {found} places for {mark}, expected one")
    DOCUMENT.write_text(text, encoding="utf-8")


def write_sheets(results: Sequence[PairResult]) -> None:
    IMAGES.mkdir(parents=True, exist_ok=True)
    save(short_sheet(results), "quality.png")
    for result in results:
        sheet = contact_sheet(result.pair.name, result.rows, scale=0.5)
        few = sheet.quantize(256, dither=Image.Dither.NONE)  # a third of three megabytes
        save(few, f"quality_{result.pair.subject}.png")
    rows = {result.pair.name: result.strengths for result in results}
    save(contact_sheet("ZipLoRA, style strength 0 … 1", rows, scale=0.75), "quality_strength.png")


def short_sheet(results: Sequence[PairResult]) -> Image.Image:
    """Methods down, pairs across, three pictures of each."""
    rows: dict[str, dict[str, Tensor]] = {method: {} for method in SHORT}
    for result in results:
        for method, prompt in SHORT.items():
            pictures = result.rows[method][prompt][:3]
            if method == "training pictures":
                style = result.rows[method]["style prompt"]
                pictures = torch.cat([pictures[:2], style])
            rows[method][result.pair.name] = pictures
    return contact_sheet("My subject in my style, drawn by a miniature SDXL", rows)


def save(sheet: Image.Image, name: str) -> None:
    sheet.save(IMAGES / name, optimize=True)
    say(f"written: {IMAGES / name}")
