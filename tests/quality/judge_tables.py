"""The judge's tables: its rank correlation with the probes, its regret, what fools it."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

import torch
from torch import Tensor

from sandbox.commands import say

from .conditions import STRENGTHS
from .document import put
from .judge import COMPOSED, LEVELS, MERGES, NODE, Judged, chosen, scores, spearman
from .table import Row, markdown

SIDES = ("subject", "style")
CHANCE, ALWAYS = "chance", "1 / 1"
COLUMNS = {
    "cells": "over cells",
    "pair": "within a pair",
    "pictures": "single pictures",
}


def write(tuning: Sequence[Judged], test: Sequence[Judged]) -> None:
    """Write the judge's tables into the document, and say them."""
    tables = {
        "judge ranks": (
            {
                f"{side}, {kind} pairs": row
                for kind, pairs in (("tuning", tuning), ("test", test))
                for side, row in correlations(pairs).items()
            },
            COLUMNS,
            "Spearman with the probes",
        ),
        "judge levels": (by_level(tuning), {side: side for side in SIDES}, "part of the schedule"),
        "judge regret": (
            {
                f"{rule}, {kind} pairs": row
                for kind, pairs in (("tuning", tuning), ("test", test))
                for rule, row in regrets(pairs).items()
            },
            {"regret": "mean regret", "worst": "worst pair"},
            "rule",
        ),
        "judge fooled": (
            fooled(tuning),
            {
                **{f"judge, {side}": f"judge: {side}" for side in SIDES},
                **{side: f"probe: {side}" for side in SIDES},
                "both right": "both right",
            },
            "pictures",
        ),
        "judge learned": (
            learned(tuning, test),
            {"tuning": "tuning pairs", "test": "test pairs"},
            "what is weighed",
        ),
    }
    for mark, (table, columns, title) in tables.items():
        text = markdown(table, columns, title)
        say(f"\n{mark}\n{text}")
        put(mark, text)


def correlations(judged: Sequence[Judged], levels: Sequence[int] = NODE) -> dict[str, Row]:
    """Compare the judge with the probes over the direct merge's strengths, by rank."""
    of = [scores(pair, levels) for pair in judged]
    table: dict[str, Row] = {}
    for n, side in enumerate(SIDES):
        cells = [
            [
                (float(found[name][:, n].mean()), mean(pair.figures[name][side]))
                for name in STRENGTHS
            ]
            for pair, found in zip(judged, of, strict=True)
        ]
        pictures = [
            row
            for pair, found in zip(judged, of, strict=True)
            for name in STRENGTHS
            for row in zip(found[name][:, n].tolist(), pair.figures[name][side], strict=True)
        ]
        table[side] = {
            "cells": _rank([row for pair in cells for row in pair]),
            "pair": mean(_rank(pair) for pair in cells),
            "pictures": _rank(pictures),
        }
    return table


def by_level(judged: Sequence[Judged]) -> dict[str, Row]:
    """Compare every noise level alone, and the node's four together, over cells."""
    choices = {f"{level:g}": [n] for n, level in enumerate(LEVELS)}
    choices["the node's four"] = list(NODE)
    return {
        name: {side: row["cells"] for side, row in correlations(judged, levels).items()}
        for name, levels in choices.items()
    }


def regrets(judged: Sequence[Judged]) -> dict[str, Row]:
    """Compute what choosing the direct merge's strengths by each rule loses, mean over pairs."""
    sums = [{n: _sum(pair, n) for n in STRENGTHS} for pair in judged]
    found = [
        {n: float(score[n].mean(0).amin()) for n in STRENGTHS}
        for score in (scores(pair) for pair in judged)
    ]
    constant = max(STRENGTHS, key=lambda name: mean(pair[name] for pair in sums))
    rules = {
        "the judge: the larger smaller score": [chosen(*p) for p in zip(sums, found, strict=True)],
        "always 1 / 1": [max(pair.values()) - pair[ALWAYS] for pair in sums],
        f"the best constant, {constant}": [max(p.values()) - p[constant] for p in sums],
        CHANCE: [max(pair.values()) - mean(pair.values()) for pair in sums],
    }
    return {
        name: {"regret": f"{mean(v):.3f}", "worst": f"{max(v):.3f}"} for name, v in rules.items()
    }


def fooled(judged: Sequence[Judged]) -> dict[str, Row]:
    """Set scores beside what the probes say, for pictures that are no strengths of one merge."""
    of = [scores(pair) for pair in judged]
    names = [name for name in judged[0].products if name not in STRENGTHS or name == ALWAYS]
    return {
        ("direct" if name == ALWAYS else name): {
            **{
                f"judge, {side}": mean(float(found[name][:, n].mean()) for found in of)
                for n, side in enumerate(SIDES)
            },
            **{side: mean(mean(pair.figures[name][side]) for pair in judged) for side in SIDES},
            "both right": mean(mean(pair.figures[name]["both right"]) for pair in judged),
        }
        for name in names
    }


def learned(tuning: Sequence[Judged], test: Sequence[Judged]) -> dict[str, Row]:
    """Fit the sum of both by ridge regression on what each level says, on tuning pairs.

    Every figure is standardised within its pair, over the strengths and the kinds of merge; so the
    question is which picture of a pair is better, whatever merged it.
    """
    table: dict[str, Row] = {}
    for name, of in FEATURES.items():
        x, y = (torch.cat(part) for part in zip(*(_standard(p, of) for p in tuning), strict=True))
        weights = torch.linalg.solve(x.T @ x + len(x) * 0.1 * torch.eye(x.shape[1]), x.T @ y)
        table[name] = {
            kind: mean(
                spearman((a @ weights).tolist(), b.tolist())
                for a, b in (_standard(pair, of) for pair in pairs)
            )
            for kind, pairs in (("tuning", tuning), ("test", test))
            if pairs
        }
    return table


def _own(kept: Tensor) -> Tensor:
    """Both amounts at each level."""
    solved = torch.linalg.solve(kept[..., :2, :2].double(), kept[..., :2, 2].double())
    return solved.flatten(1)


def _likelihood(kept: Tensor) -> Tensor:
    """The base model's error at each level: its likelihood's terms (Ho et al. 2020, eq. 14)."""
    return kept[..., 2, 2].double().log()


FEATURES = {
    "amounts": _own,
    "the base's own likelihood": _likelihood,
    "both": lambda kept: torch.cat([_own(kept), _likelihood(kept)], 1),
}


def _standard(pair: Judged, of: object) -> tuple[Tensor, Tensor]:
    assert callable(of)
    compared = [n for n in (*STRENGTHS, *MERGES, COMPOSED) if n in pair.products]
    x = torch.cat([of(pair.products[name]) for name in compared])
    y = torch.tensor(
        [
            a + b
            for name in compared
            for a, b in zip(pair.figures[name]["subject"], pair.figures[name]["style"], strict=True)
        ],
        dtype=torch.float64,
    )
    return (x - x.mean(0)) / (x.std(0) + 1e-6), (y - y.mean()) / (y.std() + 1e-6)


def _rank(rows: Sequence[tuple[float, float]]) -> float:
    return spearman(*(list(column) for column in zip(*rows, strict=True)))


def _sum(pair: Judged, name: str) -> float:
    return mean(pair.figures[name]["subject"]) + mean(pair.figures[name]["style"])
