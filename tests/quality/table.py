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
DIGITS = {"content_retention": 4, "style_retention": 4, "palette": 3, "layer_cosine": 4}
DIGITS |= {"seconds": 1, "memory": 0}


def averaged(rows: list[Row]) -> dict[str, float | None]:
    """Average the rows of one method over the pairs, and add the sum of both alignments."""
    columns = [column for column in COLUMNS if column != "both"]
    means = {column: _mean([row[column] for row in rows]) for column in columns}
    return {**means, "both": (means["joint_subject"] or 0) + (means["joint_style"] or 0)}


def markdown(rows: Mapping[str, Row]) -> str:
    """Write the table."""
    lines = [
        "| method | " + " | ".join(COLUMNS.values()) + " |",
        "|---" * (len(COLUMNS) + 1) + "|",
    ]
    for name, row in rows.items():
        cells = [cell(column, row[column]) for column in COLUMNS]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cell(column: str, value: float | None) -> str:
    return "–" if value is None else f"{value:.{DIGITS.get(column, 2)}f}"


def _mean(values: list[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return mean(present) if present else None
