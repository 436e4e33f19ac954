"""Write the results into docs/QUALITY.md's tables, docs/quality*.json and the contact sheets."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from statistics import mean, stdev

import torch
from PIL import Image
from torch import Tensor

from sandbox import places
from sandbox.commands import say
from sandbox.paths import ROOT
from sandbox.places import replaced

from .benchmark import CHANGED, SEEDED, PairResult
from .cache import State
from .conditions import AS_MADE
from .methods import CLOSED_FORM, DIRECT
from .sheet import contact_sheet
from .table import COLUMNS, Row, both, condition_rows, markdown, rows

DOCUMENT = ROOT / "docs" / "QUALITY.md"
IMAGES = ROOT / "docs" / "images"
SHEET = {
    "content LoRA alone": "content",
    "style LoRA alone": "style",
    "joint training": AS_MADE,
    DIRECT: AS_MADE,
    CLOSED_FORM: AS_MADE,
}
"""The rows of the short sheet, and which pictures each shows."""


def write(results: Sequence[PairResult], kind: str, seconds: float) -> None:
    """Write tables, figures and sheets of the tuning or of the test pairs, and say the tables."""
    first = [result for result in results if result.seed == 0]
    texts = {
        kind: markdown(rows(first), COLUMNS),
        f"{kind} conditions": markdown(
            condition_rows(first, CHANGED), _condition_columns(CHANGED), "condition"
        ),
    }
    if len(first) < len(results):
        texts[f"{kind} seeds"] = markdown(seed_rows(results), SEED_COLUMNS, "pair")
    for mark, text in texts.items():
        say(f"\n{mark}\n{text}")
        put(mark, text)
    say(f"\n{seconds / 60:.0f} minutes")
    saved = {f"{r.pair.name}, seed {r.seed}": _figures(r) for r in results}
    path = ROOT / "docs" / f"quality_{kind}.json"
    path.write_text(json.dumps(saved, indent=1) + "\n")
    save(short_sheet(first), f"quality_{kind}.png")
    save(full_sheet(first), f"quality_{kind}_all.png")


SEED_COLUMNS = {name: f"{name}: sum of both by the LoRAs' seed" for name in SEEDED} | {
    f"{name}, spread": f"{name}: standard deviation" for name in SEEDED
}


def seed_rows(results: Sequence[PairResult]) -> dict[str, Row]:
    """Compute how far another training of the LoRAs moves the joint picture."""
    named: dict[str, list[PairResult]] = {}
    for result in results:
        named.setdefault(result.pair.name, []).append(result)
    table: dict[str, Row] = {}
    for name, same in named.items():
        if len(same) == 1:
            continue
        sums = {m: [both(result.joint[m][AS_MADE]) for result in same] for m in SEEDED}
        table[name] = {
            **{m: ", ".join(format(value, ".2f") for value in sums[m]) for m in SEEDED},
            **{f"{m}, spread": stdev(sums[m]) for m in SEEDED},
        }
    return table


def _condition_columns(methods: Sequence[str]) -> dict[str, str]:
    columns = {}
    for method in methods:
        columns[method] = method
        if method != DIRECT:
            columns[f"{method}, difference"] = "against *direct*"
        columns[f"{method}, right"] = "both right"
    return columns


def _figures(result: PairResult) -> dict[str, object]:
    return {
        "real": result.real,
        "alone": {name: rounded(cell) for name, cell in result.alone.items()},
        "joint": {
            name: {
                condition: rounded(cell, fits=condition == AS_MADE)
                for condition, cell in cells.items()
            }
            for name, cells in result.joint.items()
        },
        "strengths": {name: rounded(cell) for name, cell in result.strengths.items()},
    }


def rounded(cell: State, fits: bool = True) -> dict[str, float | list[float]]:
    """Keep a cell's figures, each the mean over its pictures; silhouettes fit one scene only."""
    left_out = ("pictures",) if fits else ("pictures", "overlap")
    return {
        name: [round(v, 5) for v in value]
        if name in ("retention", "alone")
        else round(mean(value) if isinstance(value, list) else value, 4)
        for name, value in cell.items()
        if name not in left_out
    }


def put(mark: str, body: str) -> None:
    """Put a table between its two marks in the document."""
    text = replaced(DOCUMENT.read_text(encoding="utf-8"), mark, body, DOCUMENT.name)
    DOCUMENT.write_text(text, encoding="utf-8")


def require(marks: Sequence[str]) -> None:
    """Stop before a long run if the document has no place for one of its tables."""
    places.require(DOCUMENT.read_text(encoding="utf-8"), marks, DOCUMENT.name)


def short_sheet(results: Sequence[PairResult]) -> Image.Image:
    """Methods down, pairs across, two pictures of each."""
    shown: dict[str, dict[str, Tensor]] = {"training pictures": {}}
    for result in results:
        pair, name = result.pair, result.pair.name
        training = torch.cat([pair.content_pictures()[:1], pair.style_pictures()])
        shown["training pictures"][name] = training
        for method, pictures in SHEET.items():
            if method in result.joint:
                shown.setdefault(method, {})[name] = _pictures(result, method, pictures)[:2]
    return contact_sheet("My subject in my style, drawn by a miniature SDXL", shown, scale=0.6)


def full_sheet(results: Sequence[PairResult]) -> Image.Image:
    """Every method's joint pictures, three of each pair, in 256 colours."""
    shown: Mapping[str, Mapping[str, Tensor]] = {
        method: {r.pair.name: _pictures(r, method, AS_MADE)[:3] for r in results}
        for method in results[0].joint
    }
    sheet = contact_sheet("The joint picture by every method", shown, scale=0.4)
    return sheet.quantize(256, dither=Image.Dither.NONE)  # a third of the size


def _pictures(result: PairResult, method: str, which: str) -> Tensor:
    cell = result.joint[method][which] if which == AS_MADE else result.alone[method]
    pictures = cell["pictures"] if which == AS_MADE else cell["pictures"][which]
    return pictures.float() / 255


def save(sheet: Image.Image, name: str) -> None:
    sheet.save(IMAGES / name, optimize=True)
    say(f"written: {IMAGES / name}")
