"""The tables and the sheet of merges with the base model in guidance's unconditional half."""

from __future__ import annotations

import json
from collections.abc import Sequence
from statistics import mean

from torch import Tensor

from sandbox.commands import say
from sandbox.paths import ROOT

from . import document, table
from .cache import State
from .halves import CHANGED, CONTROL, DRAWN, LOWERED, Cells
from .methods import DIRECT, NULL_SPACE
from .sheet import contact_sheet
from .subjects import Pair

COLUMNS = {
    **{column: table.COLUMNS[column] for column in ("joint subject", "joint style", "both")},
    "difference": "against *direct*",
    "best": "against *direct, best strengths*",
    "worst": "worst pair against *direct*",
    **{column: table.COLUMNS[column] for column in ("both right", "overlap")},
}
CONDITION_COLUMNS = {
    "both": f"direct, {LOWERED}",
    "difference": "against *direct*",
    "worst": "worst pair against *direct*",
    "both right": "both right",
    "direct, right": "direct: both right",
    "control": f"direct, {CONTROL}",
    "control, right": "both right",
}
MARKS = ("halves", "halves conditions")
FIGURES = ROOT / "docs" / "quality_halves.json"

SHEET = {
    DIRECT: DIRECT,
    f"direct, {LOWERED}": f"{DIRECT}, {LOWERED}",
    f"null_space, {LOWERED}": f"{NULL_SPACE}, {LOWERED}",
    "direct: other wording": f"{DIRECT}: other wording",
    f"direct, {LOWERED}: other wording": f"{LOWERED}: other wording",
}
"""The rows of the sheet, and the cell of each."""


def write(pairs: Sequence[Pair], found: Sequence[Cells]) -> None:
    """Write both tables, the figures and the sheet, and say the tables."""
    texts = (table.markdown(rows(found), COLUMNS),
             table.markdown(changed(found), CONDITION_COLUMNS, "condition"))  # fmt: skip
    for mark, text in zip(MARKS, texts, strict=True):
        say(f"\n{text}")
        document.put(mark, text)
    named = dict(zip((pair.name for pair in pairs), found, strict=True))
    figures = {
        pair: {name: document.rounded(cell, fits=": " not in name) for name, cell in cells.items()}
        for pair, cells in named.items()
    }
    FIGURES.write_text(json.dumps(figures, indent=1) + "\n")
    shown: dict[str, dict[str, Tensor]] = {
        row: {pair: cells[cell]["pictures"][:3].float() / 255 for pair, cells in named.items()}
        for row, cell in SHEET.items()
    }
    title = "The plain sum, and with the base model in the unconditional half"
    document.save(contact_sheet(title, shown, scale=0.4), "quality_halves.png")


def rows(found: Sequence[Cells]) -> dict[str, table.Row]:
    """Compute the joint picture's figures, and their differences from the direct merge."""
    direct, best = ([cells[name] for cells in found] for name in (DIRECT, table.BEST))
    names = [DIRECT, table.BEST, *(f"{m}, {h}" for m, choices in DRAWN.items() for h in choices)]
    made: dict[str, table.Row] = {}
    for name in names:
        ours = [cells[name] for cells in found]
        made[name] = table.joint_row(ours, None if name == DIRECT else direct)
        if name not in (DIRECT, table.BEST):
            made[name] |= {
                "best": str(table.difference(ours, best)), "worst": _worst(ours, direct),
            }  # fmt: skip
    return made


def changed(found: Sequence[Cells]) -> dict[str, table.Row]:
    """Compare the ways to draw the direct merge under changed conditions."""
    made: dict[str, table.Row] = {}
    for name in CHANGED:
        ours, control, direct = (
            [cells[f"{of}: {name}"] for cells in found] for of in (LOWERED, CONTROL, DIRECT)
        )
        made[name] = {
            **table.joint_row(ours, direct),
            "worst": _worst(ours, direct),
            "direct, right": table.mean_of(direct, "both right"),
            "control": mean(table.both(cell) for cell in control),
            "control, right": table.mean_of(control, "both right"),
        }
    return made


def _worst(ours: Sequence[State], theirs: Sequence[State]) -> str:
    """Difference of the pair that loses most, or gains least."""
    pairs = zip(ours, theirs, strict=True)
    return f"{min(table.both(mine) - table.both(its) for mine, its in pairs):+.2f}"
