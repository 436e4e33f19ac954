"""The tables: what each figure is called, how it is computed from cells, and how it is printed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean

from .benchmark import PairResult
from .cache import State
from .conditions import AS_MADE
from .methods import DIRECT
from .stats import Interval, paired_difference

Value = float | str | None
Row = Mapping[str, Value]

COLUMNS = {
    "subject": "subject alone",
    "style": "style alone",
    "joint subject": "subject in the joint picture",
    "joint style": "style in the joint picture",
    "both": "sum of both",
    "difference": "against *direct*",
    "both right": "both right",
    "overlap": "silhouette",
    "content error": "content error",
    "style error": "style error",
    "seconds": "seconds",
}
BEST = f"{DIRECT}, best strengths"
JOINT = "joint training"
"""No merge: its time is that of a training, which may have been kept."""
PER_PICTURE = ("subject", "style", "both right", "overlap")
FORMATS = {
    "seconds": ".1f",
    **dict.fromkeys(("change", "spread", "others", "others, editing"), ".3f"),
    "change / spread": ".1f",
    **dict.fromkeys(("of editing", "another subject", "both right"), ".0%"),
}
"""How a column's figures are printed, where not with two digits."""


def rows(results: Sequence[PairResult]) -> dict[str, Row]:
    """Compute the table of methods, one row each, means over the pairs."""
    table: dict[str, Row] = {}
    direct = [result.joint[DIRECT][AS_MADE] for result in results]
    for method in results[0].joint:
        joint = [result.joint[method][AS_MADE] for result in results]
        alone = [result.alone[method] for result in results]
        table[method] = {
            "subject": mean_of(alone, "subject"),
            "style": mean_of(alone, "style"),
            **joint_row(joint, direct if method != DIRECT else None),
            "content error": _error(results, method, 0),
            "style error": _error(results, method, 1),
            "seconds": None if method == JOINT else mean(cell["seconds"] for cell in alone),
        }
        if method == DIRECT and all(result.strengths for result in results):
            best = [best_strengths(result.strengths) for result in results]
            table[BEST] = joint_row(best, direct)
    return table


def best_strengths(cells: Mapping[str, State]) -> State:
    """Give half of the pictures at the strengths that are best by the other half, and vice versa.

    The pictures that choose are not the pictures that count: the best of several noisy means would
    be too good.
    """
    count = len(next(iter(cells.values()))["subject"])
    parts = (range(0, count, 2), range(1, count, 2))
    chosen: State = {name: [0.0] * count for name in PER_PICTURE}
    for counted, choosing in (parts, parts[::-1]):
        best = max(cells.values(), key=lambda cell, by=choosing: both(cell, by))
        for name in PER_PICTURE:
            for n in counted:
                chosen[name][n] = best[name][n]
    return chosen


def condition_rows(results: Sequence[PairResult], methods: Sequence[str]) -> dict[str, Row]:
    """Compute the table of changed conditions: the sum of both, and against the direct merge's."""
    table: dict[str, Row] = {}
    for condition in results[0].joint[DIRECT]:
        row: dict[str, Value] = {}
        direct = [result.joint[DIRECT][condition] for result in results]
        for method in methods:
            cells = [result.joint[method][condition] for result in results]
            row[method] = mean(both(cell) for cell in cells)
            row[f"{method}, right"] = mean_of(cells, "both right")
            if method != DIRECT:
                row[f"{method}, difference"] = str(difference(cells, direct))
        table[condition] = row
    return table


def both(cell: State, pictures: Sequence[int] | None = None) -> float:
    """Sum a cell's two mean alignments, of all or some pictures; real ones have nearly 2."""
    chosen = range(len(cell["subject"])) if pictures is None else pictures
    return mean(cell["subject"][n] + cell["style"][n] for n in chosen)


def difference(cells: Sequence[State], others: Sequence[State]) -> Interval:
    """Estimate the difference in the sum of both, over pairs and pictures."""
    ours, theirs = (
        [[a + b for a, b in zip(cell["subject"], cell["style"], strict=True)] for cell in side]
        for side in (cells, others)
    )
    return paired_difference(ours, theirs)


def joint_row(cells: Sequence[State], direct: Sequence[State] | None) -> dict[str, Value]:
    """Compute the figures of the joint picture, and the difference from the direct merge."""
    return {
        "joint subject": mean_of(cells, "subject"),
        "joint style": mean_of(cells, "style"),
        "both": mean(both(cell) for cell in cells),
        "difference": str(difference(cells, direct)) if direct else None,
        "both right": mean_of(cells, "both right"),
        "overlap": mean_of(cells, "overlap"),
    }


def _error(results: Sequence[PairResult], method: str, of: int) -> float:
    """Retention error as a multiple of the direct merge's, the mean over the pairs."""
    return mean(
        result.alone[method]["retention"][of] / result.alone[DIRECT]["retention"][of]
        for result in results
    )


def mean_of(cells: Sequence[State], name: str) -> float:
    """Compute the mean of a figure over all pictures."""
    return mean(mean(cell[name]) for cell in cells)


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


def cell(column: str, value: Value) -> str:
    if value is None or isinstance(value, str):
        return value or "–"
    last = column.rpartition(", ")[2]
    return format(value, FORMATS.get(column, ".0%" if last == "right" else ".2f"))
