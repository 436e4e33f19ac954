"""The trimmed run: one pair, three seeds, and the figures it had when they were recorded."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

from torch import Tensor

from miniworld.parts import load_parts
from miniworld.probe_files import load_probes

from .experiment import Bench, make_bench
from .methods import TABLE
from .subjects import PAIRS

RECORD = Path(__file__).resolve().parent / "recorded.json"
STEPS = 250, 100
"""Training steps of the LoRAs: fewer than in the table, to stay within three minutes."""
THREADS = 1
"""Rounding depends on how many there are."""
SEEDS = (1, 2, 3)
FIGURES = (
    *("subject", "style", "joint_subject", "joint_style"),
    *("content_retention", "style_retention"),
)
SMALLER_IS_BETTER = {"content_retention", "style_retention"}
METHODS = {
    "content LoRA alone": ("subject",),
    "style LoRA alone": ("style",),
    "direct": FIGURES,
    "ZipLoRA": FIGURES,
}
"""The recorded figures of each method."""
OWN_PROMPT = {"subject": "content", "style": "style"}

Measured = dict[str, dict[str, list[float]]]
"""Each seed's figure, by method and name."""


def trimmed_bench() -> Bench:
    """Train the first pair's LoRAs."""
    return make_bench(load_parts(), PAIRS[0], load_probes(), STEPS)


def trimmed_run(bench: Bench, seeds: Sequence[int] = SEEDS) -> Measured:
    """Run the methods of the record on one pair with every seed, or some."""
    measured: Measured = {}
    for method, figures in METHODS.items():
        runs = [_figures(bench, method, figures, seed) for seed in seeds]
        measured[method] = {name: [run[name] for run in runs] for name in figures}
    return measured


def _figures(bench: Bench, method: str, names: Sequence[str], seed: int) -> dict[str, float]:
    """Measure what is recorded, and draw only what that needs."""
    _, model = bench.merged(TABLE[method], seed)
    refs = {"subject": bench.refs.content, "style": bench.refs.style}
    drawn: dict[str, Tensor] = {}

    def alignment(name: str) -> float:
        concept = "joint" if name.startswith("joint") else OWN_PROMPT[name]
        if concept not in drawn:
            drawn[concept] = bench.draw(model, concept, seed)
        return refs[name.removeprefix("joint_")].alignment(drawn[concept])

    measured = {name: alignment(name) for name in names if not name.endswith("retention")}
    if "content_retention" in names:
        retained = bench.retention(model)
        measured |= zip(("content_retention", "style_retention"), retained, strict=True)
    return measured


def keep(measured: Measured, accept: bool) -> list[str]:
    """Record the figures, unless some are worse than before and that is not accepted.

    Returns:
        what is worse.
    """
    lines = worse(measured, recorded()) if RECORD.is_file() else []
    if accept or not lines:
        RECORD.write_text(json.dumps(measured, indent=1) + "\n")
    return lines


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
            if not loss <= allowed:  # NaN is worse, too
                lines.append(f"{method}, {name}: {was:.4f} → {now:.4f}, allowed {allowed:.4f}")
    return lines


def missing(before: Measured) -> set[str]:
    """Name what has no recorded figures."""
    return {
        f"{method}, {name}"
        for method, names in METHODS.items()
        for name in names
        if name not in before.get(method, {})
    }
