"""Tables for the terminal, the document and the JSON file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Figure = float | None


@dataclass(frozen=True)
class Table:
    """A table of measurements.

    Args:
        title: name of the measurement, with sizes.
        columns: format of each figure by column name.
        rows: figures by row name, then column name; None where there is none.
        notes: lines on the method, and single figures.
        facts: single figures for the JSON file.
    """

    title: str
    columns: Mapping[str, str]
    rows: Mapping[str, Mapping[str, Figure]]
    notes: Sequence[str] = ()
    facts: Mapping[str, float] = field(default_factory=dict)

    def text(self) -> str:
        """Return the table as Markdown that is also readable in a terminal."""
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
