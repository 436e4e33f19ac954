"""Tables for the terminal, the document and the JSON beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Figure = float | None


@dataclass(frozen=True)
class Table:
    """What was measured.

    Args:
        title: what of, with sizes.
        columns: how each figure is printed: a format, by name.
        rows: figures by name of the row, then of the column; None where there is none.
        notes: how it was measured, and single figures.
        facts: single figures, for the JSON.
    """

    title: str
    columns: Mapping[str, str]
    rows: Mapping[str, Mapping[str, Figure]]
    notes: Sequence[str] = ()
    facts: Mapping[str, float] = field(default_factory=dict)

    def text(self) -> str:
        """Write it as Markdown that can be read in a terminal, too."""
        lines = [
            ["", *self.columns],
            *(
                [name, *(_cell(row.get(column), form) for column, form in self.columns.items())]
                for name, row in self.rows.items()
            ),
        ]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        rules = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
        rows = [_line(cells, widths) for cells in (lines[0], rules, *lines[1:])]
        return "\n".join([f"### {self.title}", "", *rows, "", *(f"- {n}" for n in self.notes)])

    def figures(self) -> dict[str, Any]:
        return {"rows": self.rows, **({"facts": self.facts} if self.facts else {})}


def _cell(value: Figure, form: str) -> str:
    return "–" if value is None else format(value, form)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = zip(cells, widths, strict=True)
    padded = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
    return "| " + " | ".join(padded) + " |"
