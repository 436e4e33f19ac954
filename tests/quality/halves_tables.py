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
from .conditions import CONDITIONS
from .halves import COMPARED, TRIED, TRIED_ON, Cells, Choices
from .methods import DIRECT
from .sheet import contact_sheet
from .subjects import Pair

COLUMNS = {
    **{column: table.COLUMNS[column] for column in ("joint subject", "joint style", "both")},
    "difference": "against *direct*",
    "best": "against *direct, best strengths*",
    "worst": "worst pair against *direct*",
    **{column: table.COLUMNS[column] for column in ("both right", "overlap")},
    "content error": "content error (worst pair)",
    "style error": "style error (worst pair)",
}
CONDITION_COLUMNS = {
    "direct": "direct",
    "direct, right": "both right",
    **{
        f"{row}{end}": title
        for row in COMPARED
        for end, title in (
            ("", row),
            (", difference", "against *direct*"),
            (", worst", "worst pair"),
            (", right", "both right"),
        )
    },
}
FIGURES = ROOT / "docs" / "quality_{}.json"

SHEET = [
    row
    for name in ("", ": other wording")
    for row in (f"{DIRECT}{name}", *(f"{method}{name}" for method in COMPARED))
]
"""The rows of the sheet: cells by name."""


def marks(kind: str) -> list[str]:
    """The names of the tables in the document: of the tuning pairs, also what was tried."""
    return [kind, f"{kind} conditions", *(["halves tries"] if kind == "halves" else [])]


def write(kind: str, pairs: Sequence[Pair], found: Sequence[Cells], choices: Choices) -> None:
    """Write both tables, the figures and the sheet, and say the tables."""
    tried = [cells for pair, cells in zip(pairs, found, strict=True) if pair in TRIED_ON]
    texts = [table.markdown(rows(found, choices), COLUMNS),
             table.markdown(changed(found), CONDITION_COLUMNS, "condition"),
             *([table.markdown(rows(tried, TRIED), COLUMNS)] if tried else [])]  # fmt: skip
    for mark, text in zip(marks(kind), texts, strict=True):
        say(f"\n{text}")
        document.put(mark, text)
    named = dict(zip((pair.name for pair in pairs), found, strict=True))
    figures = {
        pair: {name: document.rounded(cell, fits=": " not in name) for name, cell in cells.items()}
        for pair, cells in named.items()
    }
    file = FIGURES.with_name(FIGURES.name.format(kind))
    file.write_text(json.dumps(figures, indent=1) + "\n")
    shown: dict[str, dict[str, Tensor]] = {
        row: {pair: cells[row]["pictures"][:3].float() / 255 for pair, cells in named.items()}
        for row in SHEET
    }
    title = "The plain sum, and merges with the base model in the unconditional half"
    document.save(contact_sheet(title, shown, scale=0.4), f"quality_{kind}.png")


def rows(found: Sequence[Cells], choices: Choices) -> dict[str, table.Row]:
    """Compute the joint picture's figures, and their differences from the direct merge."""
    direct, best = ([cells[name] for cells in found] for name in (DIRECT, table.BEST))
    names = [DIRECT, table.BEST, *(f"{m}, {h}" for m, at in choices.items() for h in at)]
    made: dict[str, table.Row] = {}
    for name in names:
        ours = [cells[name] for cells in found]
        made[name] = table.joint_row(ours, None if name == DIRECT else direct)
        if "retention" in ours[0]:
            made[name] |= {
                f"{of} error": _errors(ours, direct, n) for n, of in enumerate(("content", "style"))
            }
        if name not in (DIRECT, table.BEST):
            made[name] |= {
                "best": str(table.difference(ours, best)), "worst": _worst(ours, direct),
            }  # fmt: skip
    return made


def changed(found: Sequence[Cells]) -> dict[str, table.Row]:
    """Compare the ways to draw under changed conditions."""
    made: dict[str, table.Row] = {}
    for name in CONDITIONS:
        direct = [cells[f"{DIRECT}: {name}"] for cells in found]
        row: dict[str, table.Value] = {
            "direct": mean(table.both(cell) for cell in direct),
            "direct, right": table.mean_of(direct, "both right"),
        }
        for method in COMPARED:
            ours = [cells[f"{method}: {name}"] for cells in found]
            row |= {
                method: mean(table.both(cell) for cell in ours),
                f"{method}, difference": str(table.difference(ours, direct)),
                f"{method}, worst": _worst(ours, direct),
                f"{method}, right": table.mean_of(ours, "both right"),
            }
        made[name] = row
    return made


def _errors(ours: Sequence[State], direct: Sequence[State], of: int) -> str:
    """Retention error as a multiple of the direct merge's: the mean, and the largest."""
    ratios = [
        mine["retention"][of] / its["retention"][of] for mine, its in zip(ours, direct, strict=True)
    ]
    return f"{mean(ratios):.2f} ({max(ratios):.2f})"


def _worst(ours: Sequence[State], theirs: Sequence[State]) -> str:
    """Difference of the pair that loses most, or gains least."""
    pairs = zip(ours, theirs, strict=True)
    return f"{min(table.both(mine) - table.both(its) for mine, its in pairs):+.2f}"
