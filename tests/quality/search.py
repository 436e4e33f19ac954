"""Find the Merge held against the probes: what its budget buys on the direct merge."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from statistics import mean

import torch

from miniworld.parts import GUIDANCE, STEPS, Parts, load_parts
from miniworld.probe_files import load_probes
from sandbox.commands import say
from sandbox.paths import ROOT
from ziplora_core.comfy_adapter.apply.sweep import Sampling
from ziplora_core.comfy_adapter.tools.feature_scorer import FeatureScorer
from ziplora_core.comfy_adapter.tools.find_merge import CALIBRATION_PICTURES
from ziplora_core.comfy_adapter.tools.scorers import CalibrationPictures
from ziplora_core.merging.strengths import BASELINE, Strengths, parse_strengths
from ziplora_core.merging.successive_halving import Trial, Wish, halve, plan
from ziplora_core.plots.judge import Judged

from . import cache, document, table
from .benchmark import train_loras
from .cache import State
from .conditions import AS_MADE, CONDITIONS
from .experiment import SEED, make_bench
from .halves_cells import Halves, joint
from .methods import DIRECT
from .subjects import JOINT_PROMPT, Pair

CANDIDATES = parse_strengths("1/1, 0.9/0.7, 0.8/0.8, 1/0.8, 0.8/1, 0.7/0.7, 1/0.6, 1.2/0.8")
"""The node's default."""
BUDGETS = (8, 16, 32)
"""Most pictures; of 32, the last two pairs of strengths get eight each, as many as a cell has."""
NEGATIVE = 0.0
"""The node's default."""
LOWERED: Strengths = (0.9, 0.7)
ENDS = ("base model", "content LoRA alone", "style LoRA alone")
SCORING = cache.code(
    "tests/quality/search.py",
    *(f"ziplora_core/comfy_adapter/tools/{name}.py" for name in ("feature_scorer", "scorers")),
    "ziplora_core/comfy_adapter/data/pictures.py",
    *(f"ziplora_core/{name}.py" for name in ("merging/picture_features", "plots/judge")),
)
FIGURES = ROOT / "docs" / "quality_search.json"
COLUMNS = {
    "pictures": "pictures",
    "evaluations": "UNet evaluations",
    "both": "sum of both",
    "over one": "against 1 / 1",
    "over lowered": "against 0.9 / 0.7",
    "worst": "worst pair against 1 / 1",
    "best": "picks the best",
    "both right": "both right",
}


@dataclass(frozen=True)
class Searched:
    """One pair: what the probes say of each candidate, and the scores of each of its pictures."""

    pair: Pair
    cells: dict[Strengths, State]
    scores: dict[Strengths, list[Judged]]

    def found(self, budget: int) -> Strengths:
        """The strengths that the node would choose with this budget."""

        def evaluate(wishes: Sequence[Wish]) -> list[Judged]:
            return [self.scores[wish.strengths][wish.number] for wish in wishes]

        trials: list[Trial[Judged]] = halve(CANDIDATES, budget, evaluate)
        return trials[0].strengths


def run(workers: Executor, pairs: Sequence[Pair]) -> list[Searched]:
    """Draw and score every pair's candidates."""
    train_loras(workers, pairs)
    return list(workers.map(search_pair, pairs))


def search_pair(pair: Pair) -> Searched:
    """Draw and score a pair's candidates."""
    bench = make_bench(load_parts(), pair, load_probes())
    ends = [bench.joint(name, CONDITIONS[AS_MADE])["pictures"] for name in ENDS]
    cells = {
        (c, s): joint(bench, DIRECT, Halves(c, s, NEGATIVE), CONDITIONS[AS_MADE])
        for c, s in CANDIDATES
    }
    shown = {str(strengths): cell["pictures"] for strengths, cell in cells.items()}
    inputs = {f"end {n}": drawn for n, drawn in enumerate(ends)} | shown | {"code": SCORING}
    kept = cache.cached("search", inputs, lambda: _score(bench.task.parts, ends, shown))
    say(f"searched: {pair.name}")
    return Searched(pair, cells, {at: [Judged(*both) for both in kept[str(at)]] for at in cells})


@torch.inference_mode()
def _score(parts: Parts, ends: Sequence[torch.Tensor], shown: State) -> State:
    """Score pictures with the node's own scorer: (subject, style) of each, by candidate."""
    how = Sampling(
        parts.encode(JOINT_PROMPT), parts.encode(""), None, SEED, STEPS, GUIDANCE, "euler", "normal"
    )
    calibration = CalibrationPictures(*(_pictures(e)[:CALIBRATION_PICTURES] for e in ends))
    scorer = FeatureScorer(parts.model, parts.vae, how, calibration, "draw more")
    assert scorer.calibrate()
    return {
        name: [[p.subject, p.style] for p in scorer.score(_pictures(drawn))]
        for name, drawn in shown.items()
    }


def _pictures(drawn: torch.Tensor) -> list[torch.Tensor]:
    return list(drawn.float().movedim(1, -1) / 255)


def write(found: dict[str, list[Searched]]) -> None:
    """Write the table and the figures of tuning and test pairs."""
    document.require(["search"])
    rows: dict[str, table.Row] = {}
    figures = {}
    for kind, searched in found.items():
        for budget in BUDGETS:
            chosen = [s.found(budget) for s in searched]
            rows[f"{kind} pairs: found, {budget} pictures"] = _row(searched, chosen, budget)
            figures[f"{kind}, {budget}"] = {
                s.pair.name: list(at) for s, at in zip(searched, chosen, strict=True)
            }
        for constant in (BASELINE, LOWERED):
            rows[f"{kind} pairs: always {constant[0]:g} / {constant[1]:g}"] = _row(
                searched, [constant] * len(searched)
            )
        best = [max(s.cells, key=lambda at, s=s: table.both(s.cells[at])) for s in searched]
        rows[f"{kind} pairs: the probes"] = _row(searched, best)
    text = table.markdown(rows, COLUMNS, "rule")
    say(f"\n{text}")
    document.put("search", text)
    FIGURES.write_text(json.dumps(figures, indent=1) + "\n")


def _row(
    searched: Sequence[Searched], chosen: Sequence[Strengths], budget: int | None = None
) -> table.Row:
    """Compute what the probes say of the chosen strengths, of all eight pictures each."""
    cells = [s.cells[at] for s, at in zip(searched, chosen, strict=True)]
    one, lowered = ([s.cells[at] for s in searched] for at in (BASELINE, LOWERED))
    gains = [table.both(a) - table.both(b) for a, b in zip(cells, one, strict=True)]
    best = sum(
        table.both(cell) == max(map(table.both, s.cells.values()))
        for s, cell in zip(searched, cells, strict=True)
    )
    drawn = sum(this.total for this in plan(len(CANDIDATES), budget)) if budget else None
    return {
        "pictures": None if drawn is None else str(drawn),
        "evaluations": None if drawn is None else str(_evaluations(drawn)),
        "both": mean(map(table.both, cells)),
        "over one": str(table.difference(cells, one)),
        "over lowered": str(table.difference(cells, lowered)),
        "worst": f"{min(gains):+.2f}",
        "best": f"{best} of {len(searched)}",
        "both right": table.mean_of(cells, "both right"),
    }


def _evaluations(pictures: int) -> int:
    """Count the UNet evaluations of a search: sampling with guidance, and two looks at each."""
    whole = pictures + len(ENDS) * CALIBRATION_PICTURES
    return whole * (2 * STEPS + 2)
