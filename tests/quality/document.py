"""From the outcomes to docs/QUALITY.md's table, docs/quality.json and the contact sheets."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field

import torch
from PIL import Image
from torch import Tensor

from sandbox.commands import say
from sandbox.paths import ROOT
from ziplora_core.files.writer import kohya_tensors

from .experiment import Bench, Outcome
from .sheet import Row, contact_sheet, stacked
from .subjects import CONTEXTS, JOINT_PROMPT, Pair
from .table import averaged, markdown

DOCUMENT = ROOT / "docs" / "QUALITY.md"
FIGURES = ROOT / "docs" / "quality.json"
IMAGES = ROOT / "docs" / "images"
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
STRENGTH_METHOD = "ZipLoRA"
SHORT = (
    *("content LoRA alone", "style LoRA alone", "joint training", "direct", "ZipLoRA"),
    "ZipLoRA, from the pictures",
)
"""The rows of the sheet that the README shows."""
_TABLE = re.compile(r"(?<=<!-- table -->\n).*?(?=\n<!-- end of table -->)", re.DOTALL)


@dataclass
class Results:
    """What came out, by pair and method."""

    figures: dict[str, dict[str, dict[str, float | None]]] = field(default_factory=dict)
    real: dict[str, dict[str, float]] = field(default_factory=dict)
    rows: dict[str, dict[str, Row]] = field(default_factory=dict)
    strengths: dict[str, Row] = field(default_factory=dict)

    def add(self, bench: Bench, method: str, outcome: Outcome) -> None:
        pair = bench.task.pair
        if pair.name not in self.rows:
            self.real[pair.name] = {
                "subject": bench.refs.content.real,
                "style": bench.refs.style.real,
            }
            self.rows[pair.name] = {"training pictures": _training_pictures(pair)}
        self.figures.setdefault(pair.name, {})[method] = outcome.figures.as_dict()
        drawn = outcome.pictures
        self.rows[pair.name][method] = {
            "content prompt": drawn["content"],
            "style prompt": drawn["style"],
            "joint prompt": drawn["joint"],
            **{name: drawn[name] for name in CONTEXTS},
        }
        if method == STRENGTH_METHOD:
            self.strengths[pair.name] = style_strengths(bench, outcome)

    @property
    def table(self) -> dict[str, dict[str, float | None]]:
        """Means over the pairs; the first row is what real pictures reach."""
        methods = next(iter(self.figures.values()))
        return {
            method: averaged([pair[method] for pair in self.figures.values()]) for method in methods
        }


def style_strengths(bench: Bench, outcome: Outcome) -> Row:
    """Draw the joint prompt with the style at 0 … 1 (the paper's figure of style control)."""
    assert outcome.merge.merged is not None
    parts, row = bench.task.parts, {}
    for strength in STRENGTHS:
        modules = outcome.merge.merged.modules(1.0, strength)
        model = parts.with_lora(kohya_tensors(modules))
        row[f"style {strength:g}"] = parts.draw(model, JOINT_PROMPT, 2, seed=1)
    return row


def write(results: Results, seconds: float) -> None:
    """Write the table, the figures and the sheets; print the table."""
    table = markdown(results.table)
    say(f"\n{table}\n\n{seconds / 60:.0f} minutes")
    saved = {"real": results.real, "figures": results.figures}
    FIGURES.write_text(json.dumps(saved, indent=1) + "\n")
    IMAGES.mkdir(parents=True, exist_ok=True)
    _save(short_sheet(results), "quality.png")
    for name, rows in results.rows.items():
        _save(contact_sheet(name, rows, scale=0.5), f"quality_{name.split()[0]}.png")
    strengths = contact_sheet("ZipLoRA, style strength 0 … 1", results.strengths, scale=0.75)
    _save(strengths, "quality_strength.png")
    text = DOCUMENT.read_text(encoding="utf-8")
    DOCUMENT.write_text(_TABLE.sub(lambda _: table, text), encoding="utf-8")


def short_sheet(results: Results) -> Image.Image:
    """The joint prompt only: methods down, pairs across, the sources on top."""
    rows: dict[str, dict[str, Tensor]] = {"training pictures": {}}
    for pair, by_method in results.rows.items():
        shown = by_method["training pictures"]
        rows["training pictures"][pair] = torch.cat([
            shown["content prompt"][:2], shown["style prompt"]
        ])  # fmt: skip
        for method in SHORT:
            column = {"content LoRA alone": "content prompt", "style LoRA alone": "style prompt"}
            pictures = by_method[method][column.get(method, "joint prompt")]
            rows.setdefault(method, {})[pair] = pictures[:3]
    return stacked([contact_sheet("My subject in my style, drawn by a miniature SDXL", rows)])


def _training_pictures(pair: Pair) -> Row:
    return {"content prompt": pair.content_pictures(), "style prompt": pair.style_pictures()}


def _save(sheet: Image.Image, name: str) -> None:
    sheet.quantize(256, Image.Quantize.MAXCOVERAGE).save(IMAGES / name, optimize=True)
    say(f"written: {IMAGES / name}")
