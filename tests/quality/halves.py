"""The base model in guidance's unconditional half: merges drawn with another negative strength."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor

from miniworld.parts import load_parts
from miniworld.probe_files import load_probes
from sandbox.commands import say

from . import table
from .benchmark import train_loras
from .cache import State
from .conditions import AS_MADE, CONDITIONS, STRENGTHS
from .experiment import make_bench
from .halves_cells import Halves, joint, kept
from .methods import (
    ADAM_TAUGHT,
    CLOSED_FORM,
    DIRECT,
    NULL_SPACE,
    TAUGHT,
    TAUGHT_TABLE,
)
from .subjects import TUNING, Pair

LOWERED = Halves(0.9, 0.7)
CONTROL = Halves(0.9, 0.7, 1.0)
"""The same strengths, as by any loader."""
Choices = Mapping[str, Sequence[Halves]]
DRAWN: Choices = {
    DIRECT: (CONTROL, Halves(negative=0.5), Halves(), Halves(1.0, 0.8), Halves(0.8, 0.8), LOWERED),
    NULL_SPACE: (Halves(), LOWERED),
    CLOSED_FORM: (Halves(), LOWERED),
    "ZipLoRA, joint": (Halves(), LOWERED),
    TAUGHT: (Halves(),),
    ADAM_TAUGHT: (Halves(),),
}
TRIED: Choices = {method: (Halves(),) for method in TAUGHT_TABLE}
"""Merges to draw on `TRIED_ON`, too: variants of what ZipLoRA is taught."""
TRIED_ON = TUNING[:2]
TESTED: Choices = {
    DIRECT: (CONTROL, Halves(), LOWERED),
    NULL_SPACE: (LOWERED,),
    TAUGHT: (Halves(),),
    ADAM_TAUGHT: (Halves(),),
}
"""Merges to draw on the test pairs: those that tuning pairs have chosen, and their rivals."""
COMPARED: dict[str, tuple[str, Halves]] = {
    f"{DIRECT}, {LOWERED}": (DIRECT, LOWERED),
    f"{TAUGHT}, {Halves()}": (TAUGHT, Halves()),
}
"""Merges to draw under every condition, beside the direct merge by any loader."""
Cells = dict[str, State]


def run(workers: Executor, pairs: Sequence[Pair], choices: Choices = DRAWN) -> list[Cells]:
    """Draw and measure every pair's cells."""
    train_loras(workers, pairs)
    each = [{**choices, **TRIED} if pair in TRIED_ON else choices for pair in pairs]
    return list(workers.map(drawn, pairs, each))


def drawn(pair: Pair, choices: Choices) -> Cells:
    """Draw a pair's merges with every choice of strengths, and the direct merge as it is."""
    bench = make_bench(load_parts(), pair, load_probes())
    cells = {DIRECT: bench.joint(DIRECT, CONDITIONS[AS_MADE]) | kept(bench, DIRECT)}
    strengths = [bench.joint(DIRECT, condition) for condition in STRENGTHS.values()]
    cells[table.BEST] = table.best_strengths(dict(zip(STRENGTHS, strengths, strict=True)))
    for name, condition in CONDITIONS.items():
        cells[f"{DIRECT}: {name}"] = bench.joint(DIRECT, condition)
    for method, of_method in choices.items():  # a merge is made once for all its pictures
        for halves in of_method:
            cell = joint(bench, method, halves, CONDITIONS[AS_MADE])
            errors = kept(bench, method) if halves == Halves() else {}
            cells[f"{method}, {halves}"] = {**cell, **errors}
        for row in COMPARED:
            if COMPARED[row][0] == method:
                for name, condition in CONDITIONS.items():
                    at = COMPARED[row][1].at(condition)
                    cells[f"{row}: {name}"] = joint(bench, method, at, condition)
    say(f"drawn by halves: {pair.name}")
    return cells
