"""The judge's tables: its rank correlation with the probes, its regret, what fools it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from statistics import mean

from sandbox.commands import say
from sandbox.paths import ROOT

from .conditions import STRENGTHS
from .document import put
from .judge import (
    LEVELS,
    NODE,
    JudgedPair,
    Measure,
    amounts,
    calibrated,
    error_differences,
    scores,
)
from .judge_features import FEATURES, ranks, smaller_ranks
from .stats import spearman
from .table import Row, markdown

SIDES = ("subject", "style")
ALWAYS = "1 / 1"
RANKS = {
    "cells": "strengths of all pairs",
    "pair": "strengths within a pair",
    "pictures": "single pictures of all",
    "seeds": "pictures of one strength",
}
REGRETS = {
    "regret": "mean regret",
    "worst": "worst pair",
    "best": "picks the best",
    "style": "picks more style than subject",
}
MARKS = [f"judge {table}" for table in ("ranks", "levels", "regret", "fooled", "learned")]
FIGURES = ROOT / "docs" / "quality_judge.json"


def write(
    tuning: Sequence[JudgedPair], test: Sequence[JudgedPair], attention: Sequence[JudgedPair]
) -> None:
    """Write the judge's tables into the document and its JSON, and say them.

    Args:
        attention: tuning pairs whose LoRAs change the attention alone.
    """
    asked = {"tuning pairs": tuning, "test pairs": test, "attention alone": attention}
    kinds = {
        f"{kind} ({len(usable)} of {len(pairs)})": usable
        for kind, pairs in asked.items()
        if (usable := [pair for pair in pairs if calibrated(pair)])
    }
    tables = {
        "judge ranks": (
            {
                f"{name}{side}, {kind}": row
                for kind, pairs in kinds.items()
                for name, measure in (("", amounts), ("errors: ", error_differences))
                for side, row in correlations(pairs, measure).items()
            },
            RANKS,
            "Spearman with the probes",
        ),
        "judge levels": (
            by_level(tuning),
            {side: side for side in SIDES},
            "parts of the schedule",
        ),
        "judge regret": (
            {
                f"{rule}, {kind}": row
                for kind, pairs in kinds.items()
                for rule, row in regrets(pairs, tuning).items()
            },
            REGRETS,
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
            {
                "strengths": "strengths, tuning pairs",
                "kinds": "strengths and kinds of merge, tuning pairs",
                "test": "strengths, test pairs",
            },
            "rank correlation within a pair",
        ),
    }
    for mark, (table, columns, title) in tables.items():
        text = markdown(table, columns, title)
        say(f"\n{mark}\n{text}")
        put(mark, text)
    figures = {mark: table for mark, (table, *_) in tables.items()}
    FIGURES.write_text(json.dumps(figures, indent=1) + "\n")


def correlations(judged: Sequence[JudgedPair], measure: Measure = amounts) -> dict[str, Row]:
    """Compare a measure with the probes over the direct merge's strengths, by rank."""
    found = [(pair, scores(pair, measure)) for pair in judged]
    table: dict[str, Row] = {}
    for n, side in enumerate(SIDES):
        pictures = [
            [
                list(zip(score[name][:, n].tolist(), pair.figures[name][side], strict=True))
                for name in STRENGTHS
            ]
            for pair, score in found
        ]
        cells = [[_means(cell) for cell in pair] for pair in pictures]
        table[side] = {
            "cells": _rank([cell for pair in cells for cell in pair]),
            "pair": mean(_rank(pair) for pair in cells),
            "pictures": _rank([row for pair in pictures for cell in pair for row in cell]),
            "seeds": mean(_rank(cell) for pair in pictures for cell in pair),
        }
    return table


def by_level(judged: Sequence[JudgedPair]) -> dict[str, Row]:
    """Compare every noise level alone, and several together, over the strengths within a pair."""
    choices = {f"{level:g}": (n,) for n, level in enumerate(LEVELS)} | {
        "two of the node's four": NODE[::2],
        "the node's four": NODE,
        "all six": tuple(range(len(LEVELS))),
    }
    table: dict[str, Row] = {}
    for name, levels in choices.items():
        found = correlations(judged, lambda kept, levels=levels: amounts(kept, levels))
        table[name] = {side: row["pair"] for side, row in found.items()}
    return table


def regrets(judged: Sequence[JudgedPair], tuning: Sequence[JudgedPair]) -> dict[str, Row]:
    """Compute what choosing the direct merge's strengths by each rule loses, mean over pairs.

    The best constant is chosen by those tuning pairs that share no LoRA with the pair. Of rules
    that pick one strength, it counts the pairs where it is the best, and where it is for the style.
    """
    lost: dict[str, list[float]] = {}
    picked: dict[str, list[tuple[bool, bool]]] = {}
    for pair in judged:
        sums, score = {name: pair.both(name) for name in STRENGTHS}, scores(pair)
        smaller = {name: score[name].amin(1) for name in STRENGTHS}
        single = zip(*(smaller[name].tolist() for name in STRENGTHS), strict=True)
        chosen = {
            "the judge": [max(STRENGTHS, key=lambda n, by=smaller: float(by[n].mean()))],
            "the judge, one picture each": [
                max(zip(row, STRENGTHS, strict=True))[1] for row in single
            ],
            "always 1 / 1": [ALWAYS],
            "the best constant": [best_constant(pair, tuning)],
            "chance": list(STRENGTHS),
            "the probes": [max(sums, key=lambda name: sums[name])],
        }
        for rule, names in chosen.items():
            loss = max(sums.values()) - mean(sums[name] for name in names)
            lost.setdefault(rule, []).append(loss)
            if len(names) == 1:
                how = STRENGTHS[names[0]]
                picked.setdefault(rule, []).append((loss == 0, how.style > how.content))
    counts = {
        rule: [f"{sum(column)} of {len(column)}" for column in zip(*picks, strict=True)]
        for rule, picks in picked.items()
    }
    return {
        rule: {
            "regret": f"{mean(losses):.3f}", "worst": f"{max(losses):.3f}",
            **dict(zip(("best", "style"), counts.get(rule, (None, None)), strict=True)),
        }
        for rule, losses in lost.items()
    }  # fmt: skip


def best_constant(pair: JudgedPair, tuning: Sequence[JudgedPair]) -> str:
    """Name the strengths that are best, in the mean, on the tuning pairs with other LoRAs."""
    others = [other for other in tuning if not pair.pair.shares_with(other.pair)]
    return max(STRENGTHS, key=lambda name: mean(other.both(name) for other in others))


def fooled(judged: Sequence[JudgedPair]) -> dict[str, Row]:
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


def learned(tuning: Sequence[JudgedPair], test: Sequence[JudgedPair]) -> Mapping[str, Row]:
    """Ask whether any weighing of what the judge sees tells which merge of a pair is better."""
    return {
        "unweighed: the smaller score": {
            "strengths": smaller_ranks(tuning, kinds=False),
            "kinds": smaller_ranks(tuning, kinds=True),
            "test": smaller_ranks(test, kinds=False),
        },
        **{
            name: {
                "strengths": ranks(tuning, tuning, of, kinds=False),
                "kinds": ranks(tuning, tuning, of, kinds=True),
                "test": ranks(test, tuning, of, kinds=False),
            }
            for name, of in FEATURES.items()
        },
    }


def _means(rows: Sequence[tuple[float, float]]) -> tuple[float, float]:
    ours, theirs = zip(*rows, strict=True)
    return mean(ours), mean(theirs)


def _rank(rows: Sequence[tuple[float, float]]) -> float:
    return spearman(*(list(column) for column in zip(*rows, strict=True)))
