"""The base model in guidance's unconditional half: merges drawn with another negative strength."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from miniworld.parts import load_parts
from miniworld.probe_files import load_probes
from sandbox.commands import say
from ziplora_core.comfy_adapter.apply.guidance import with_negative_strength

from . import cache, table
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
CONTROL = Halves(0.9, 0.7, 1.0)
"""The same strengths, as by any loader."""
DRAWN: dict[str, Sequence[Halves]] = {
    DIRECT: (CONTROL, Halves(negative=0.5), Halves(), Halves(1.0, 0.8), Halves(0.8, 0.8), LOWERED),
    NULL_SPACE: (Halves(), LOWERED),
    CLOSED_FORM: (Halves(), LOWERED),
    "ZipLoRA, joint": (Halves(), LOWERED),
}
CHANGED = ("other wording", "another scene", "DPM++ 2M Karras", "CFG 5", "30 steps")
"""Conditions that the direct merge is drawn under at `LOWERED` and `CONTROL`, too."""
Cells = dict[str, State]


def run(workers: Executor, pairs: Sequence[Pair]) -> list[Cells]:
    """Draw and measure every pair's cells."""
    train_loras(workers, pairs)
    return list(workers.map(drawn, pairs))


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
        for halves in (LOWERED, CONTROL):
            cells[f"{halves}: {name}"] = joint(bench, DIRECT, halves, CONDITIONS[name])
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
