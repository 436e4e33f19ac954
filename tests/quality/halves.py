"""The base model in guidance's unconditional half: merges drawn with another negative strength."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from statistics import mean

from miniworld.parts import load_parts
from miniworld.probe_files import load_probes
from sandbox.commands import say
from sandbox.paths import ROOT
from ziplora_core.comfy_adapter.apply.guidance import with_negative_strength

from . import cache, document, table
from .benchmark import train_loras
from .cache import State
from .conditions import AS_MADE, CONDITIONS, STRENGTHS, Condition
from .experiment import PICTURES, SEED, Bench, as_bytes, make_bench
from .methods import CLOSED_FORM, DIRECT, NULL_SPACE
from .subjects import Pair

CODE = cache.code("tests/quality/halves.py", "ziplora_core/comfy_adapter/apply/guidance.py")


@dataclass(frozen=True)
class Halves:
    """How strong a merge is, in both halves of guidance.

    Args:
        content, style: strengths in the positive half.
        negative: the factor on both in the unconditional half.
    """

    content: float = 1.0
    style: float = 1.0
    negative: float = 0.0

    def __str__(self) -> str:
        return f"{self.content:g} / {self.style:g}, negative {self.negative:g}"


LOWERED = Halves(0.9, 0.7)
DRAWN: dict[str, Sequence[Halves]] = {
    DIRECT: (Halves(negative=0.5), Halves(), Halves(1.0, 0.8), Halves(0.8, 0.8), LOWERED),
    NULL_SPACE: (Halves(), LOWERED),
    CLOSED_FORM: (Halves(), LOWERED),
    "ZipLoRA, joint": (Halves(), LOWERED),
}
CHANGED = ("other wording", "another scene", "DPM++ 2M Karras", "CFG 5", "30 steps")
"""Conditions that the direct merge is drawn under at `LOWERED`, too."""
COLUMNS = {
    **{column: table.COLUMNS[column] for column in ("joint subject", "joint style", "both")},
    "difference": "against *direct*",
    "best": "against *direct, best strengths*",
    "worst": "worst pair against *direct*",
    **{column: table.COLUMNS[column] for column in ("both right", "overlap")},
}
CONDITION_COLUMNS = {
    "both": f"direct, {LOWERED}",
    "difference": "against *direct*",
    "both right": "both right",
    "direct right": "direct: both right",
}
FIGURES = ROOT / "docs" / "quality_halves.json"

Cells = dict[str, State]


def write(workers: Executor, pairs: Sequence[Pair]) -> None:
    """Draw and measure everything, and write both tables and the figures."""
    document.require(["halves", "halves conditions"])
    train_loras(workers, pairs)
    found = list(workers.map(drawn, pairs))
    texts = {
        "halves": table.markdown(rows(found), COLUMNS),
        "halves conditions": table.markdown(changed(found), CONDITION_COLUMNS, "condition"),
    }
    for mark, text in texts.items():
        say(f"\n{text}")
        document.put(mark, text)
    figures = {
        pair.name: {name: document.rounded(cell, fits=False) for name, cell in cells.items()}
        for pair, cells in zip(pairs, found, strict=True)
    }
    FIGURES.write_text(json.dumps(figures, indent=1) + "\n")


def drawn(pair: Pair) -> Cells:
    """Draw a pair's merges with every choice of strengths, and the direct merge as it is."""
    bench = make_bench(load_parts(), pair, load_probes())
    cells = {DIRECT: bench.joint(DIRECT, CONDITIONS[AS_MADE])}
    strengths = [bench.joint(DIRECT, condition) for condition in STRENGTHS.values()]
    cells[table.BEST] = table.best_strengths(dict(zip(STRENGTHS, strengths, strict=True)))
    for method, choices in DRAWN.items():
        for halves in choices:
            cells[f"{method}, {halves}"] = joint(bench, method, halves, CONDITIONS[AS_MADE])
    for name in CHANGED:
        cells[f"{DIRECT}: {name}"] = bench.joint(DIRECT, CONDITIONS[name])
        cells[f"{LOWERED}: {name}"] = joint(bench, DIRECT, LOWERED, CONDITIONS[name])
    say(f"drawn by halves: {pair.name}")
    return cells


def joint(bench: Bench, method: str, halves: Halves, condition: Condition) -> State:
    """Draw and measure the joint picture under a condition, whose strengths are not used."""

    def make() -> State:
        merged = bench._merge(method)[0].merged
        assert merged is not None
        parts, modules = bench.task.parts, merged.modules(halves.content, halves.style)
        model, _ = with_negative_strength(parts.model, modules, "merge", halves.negative)
        pictures = parts.draw(
            model, condition.prompt, PICTURES, SEED, condition.steps, condition.guidance,
            condition.sampler, condition.scheduler,
        )  # fmt: skip
        return {**bench.measured(pictures), "pictures": as_bytes(pictures)}

    inputs = {**bench.inputs(method), "halves": halves, "condition": condition, "drawing": CODE}
    return cache.cached("halves", inputs, make)


def rows(found: Sequence[Cells]) -> dict[str, table.Row]:
    """Compute the joint picture's figures, and their differences from the direct merge."""
    direct, best = ([cells[name] for cells in found] for name in (DIRECT, table.BEST))
    names = [DIRECT, table.BEST, *(f"{m}, {h}" for m, choices in DRAWN.items() for h in choices)]
    made: dict[str, table.Row] = {}
    for name in names:
        ours = [cells[name] for cells in found]
        made[name] = table.joint_row(ours, None if name == DIRECT else direct)
        if name not in (DIRECT, table.BEST):
            worst = min(
                table.both(mine) - table.both(its) for mine, its in zip(ours, direct, strict=True)
            )
            made[name] |= {"best": str(table.difference(ours, best)), "worst": f"{worst:+.2f}"}
    return made


def changed(found: Sequence[Cells]) -> dict[str, table.Row]:
    """Compare both ways to draw the direct merge under changed conditions."""
    made: dict[str, table.Row] = {}
    for name in CHANGED:
        ours, direct = ([cells[f"{of}: {name}"] for cells in found] for of in (LOWERED, DIRECT))
        row = table.joint_row(ours, direct)
        right = mean(mean(cell["both right"]) for cell in direct)
        made[name] = {**row, "direct right": f"{right:.0%}"}
    return made
