"""The trimmed run: one pair, three seeds, and the figures it had when they were recorded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from statistics import mean, stdev

from .experiment import Bench, Figures
from .methods import TABLE
from .table import SMALLER_IS_BETTER

RECORD = Path(__file__).resolve().parent / "recorded.json"
PAIR = 0
"""The number of the pair that is run."""
SEEDS = (1, 2, 3)
FIGURES = (
    *("subject", "style", "joint_subject", "joint_style"),
    *("content_retention", "style_retention"),
)
METHODS = {
    "content LoRA alone": ("subject",),
    "style LoRA alone": ("style",),
    "direct": FIGURES,
    "ZipLoRA": FIGURES,
}
"""What is recorded of each method."""

Measured = dict[str, dict[str, list[float]]]
"""Each seed's figure, by method and name."""


def trimmed_run(bench: Bench) -> Measured:
    """Run the methods of the record on one pair with every seed."""
    measured: Measured = {}
    for method, figures in METHODS.items():
        runs = [bench.run(TABLE[method], seed).figures.as_dict() for seed in SEEDS]
        measured[method] = {name: [_number(run[name]) for run in runs] for name in figures}
    return measured


def record(measured: Measured) -> None:
    RECORD.write_text(json.dumps(measured, indent=1) + "\n")


def recorded() -> Measured:
    return json.loads(RECORD.read_text())


def worse(measured: Measured, before: Measured) -> list[str]:
    """Name the figures that are worse than recorded by more than max(3 σ, 10 %)."""
    lines = []
    for method, figures in before.items():
        for name, values in figures.items():
            was, now = mean(values), mean(measured[method][name])
            allowed = max(3 * stdev(values), 0.1 * abs(was))
            loss = now - was if name in SMALLER_IS_BETTER else was - now
            if loss > allowed:
                lines.append(f"{method}, {name}: {was:.4f} → {now:.4f}, allowed {allowed:.4f}")
    return lines


def missing(before: Mapping[str, object]) -> set[str]:
    """Name the methods that have no recorded figures."""
    return set(METHODS) - set(before)


def _number(value: float | None) -> float:
    assert value is not None
    return value


assert set(FIGURES) <= set(Figures.__dataclass_fields__)
