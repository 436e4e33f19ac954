"""The table: what each figure is called, and how it is printed and written."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import mean

Row = Mapping[str, float | None]

COLUMNS = {
    "subject": "subject alone",
    "style": "style alone",
    "joint_subject": "subject in the joint picture",
    "joint_style": "style in the joint picture",
    "both": "sum of both",
    "prompt": "new context",
    "overlap": "silhouette overlap",
    "palette": "palette distance",
    "content_retention": "retention content",
    "style_retention": "retention style",
    "layer_cosine": "layer cosine",
    "seconds": "seconds",
    "memory": "MiB",
}
SMALLER_IS_BETTER = {"palette", "content_retention", "style_retention"}
FORMATS = {
    **dict.fromkeys(("content_retention", "style_retention", "layer_cosine"), ".4f"),
    "palette": ".3f",
    "seconds": ".1f",
    "memory": ".0f",
    **dict.fromkeys(("change", "spread", "others", "others, editing"), ".3f"),
    "change / spread": ".1f",
    **dict.fromkeys(("of editing", "another subject"), ".0%"),
}
"""How a column's figures are printed, where not with two digits."""


def averaged(rows: list[Row]) -> dict[str, float | None]:
    """Average the rows of one method over the pairs, and add the sum of both alignments."""
    columns = [column for column in COLUMNS if column != "both"]
    means = {column: _mean([row[column] for row in rows]) for column in columns}
    return {**means, "both": (means["joint_subject"] or 0) + (means["joint_style"] or 0)}


def markdown(rows: Mapping[str, Row], columns: Mapping[str, str], title: str = "method") -> str:
    """Write a table.

    Args:
        rows: figures by column, by name of the row; a row may lack some.
        columns: their headings.
        title: above the rows' names.
    """
    lines = [f"| {title} | " + " | ".join(columns.values()) + " |", "|---" * (len(columns) + 1)]
    for name, row in rows.items():
        cells = [cell(column, row.get(column)) for column in columns]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join([lines[0], f"{lines[1]}|", *lines[2:]])


def cell(column: str, value: float | None) -> str:
    return "–" if value is None else format(value, FORMATS.get(column, ".2f"))


def _mean(values: list[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return mean(present) if present else None
