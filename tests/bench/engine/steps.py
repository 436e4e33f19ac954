"""The cost of a step: ours by memory mode, and the public implementation's arithmetic."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from ziplora_core.training.noisy_samples import NoisySample

from ..clock import BASE, Contender, Turns
from ..table import Table
from .memory import MIB, peak_bytes
from .models import SIZES
from .ours import Ours
from .task import SHOWN, Task, open_task
from .transcription import Transcription

FAST, ASKED, LOW = "fast", "fast, teachers asked every step", "low"
CHECKPOINTED, PLAIN = "public arithmetic, checkpointing", "public arithmetic, none"
COLUMNS = {"seconds": ".3f", "units": ".2f", "× fast": ".2f", "peak MiB": ",.0f", "of fast": ".1%"}
FLOAT = 1e-4
"""Coefficients that differ by more are counted. A gradient that is only rounding (1e-12 where the
median is 1e-5) may have either sign, and Adam uses only the sign of a first gradient."""
TERMS = ("content", "style", "penalty")
TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 0.2}
"""Largest relative difference between terms that are mathematically equal; a prediction's error is
a difference of similar numbers with 8 bits each in bf16."""


def tables(sizes: Iterable[str], rounds: int) -> Iterator[Table]:
    """Measure each size."""
    for size in sizes:
        with open_task(SIZES[size]) as task:
            yield table(task, rounds)


def table(task: Task, rounds: int) -> Table:
    """Measure one size."""
    contenders, modes = make_contenders(task)
    turns = Turns(contenders)
    facts = losses_apart(turns.first, task)
    gradients = [ours.gradient.clone() for ours in modes.values()]
    turns.take(rounds)
    facts |= modes_apart(gradients, [ours.coefficients.clone() for ours in modes.values()])
    peaks = {
        name: peak_bytes(partial(work, turns.done), task.device)
        for name, work in contenders.items()
    }
    return _table(task, turns, peaks, facts)


def make_contenders(task: Task) -> tuple[dict[str, Contender], dict[str, Ours]]:
    """Set up all rows; return our own ones separately, too."""
    public = Transcription(task)
    pool = [task.taught(task.draw(n)) for n in range(SHOWN)]

    def cached(n: int) -> list[NoisySample]:
        return pool[n % SHOWN]

    ours = {
        FAST: Ours(task, cached),
        ASKED: Ours(task, lambda n: task.taught(task.draw(n))),
        LOW: Ours(task, cached, low=True),
    }
    others = {
        CHECKPOINTED: partial(public, checkpointing=True),
        PLAIN: partial(public, checkpointing=False),
    }
    return {BASE: task.base, **ours, **others}, ours


def losses_apart(first: Mapping[str, Mapping[str, float]], task: Task) -> dict[str, float]:
    """Return the largest relative difference between the terms of the first step.

    Raises:
        AssertionError: the terms differ by more than the tolerance.
    """
    same = (FAST, ASKED, LOW, CHECKPOINTED)  # PLAIN continues from CHECKPOINTED's step
    apart = max(abs(first[name][term] / first[FAST][term] - 1) for name in same for term in TERMS)
    assert apart <= TOLERANCES[task.opened.dtype], first
    return {"losses apart": apart}


def modes_apart(gradients: Sequence[Tensor], coefficients: Sequence[Tensor]) -> dict[str, float]:
    """Compare our rows with the first one: their first gradients and final coefficients."""
    (gradient, *others), (fast, *learned) = gradients, coefficients
    differences = [(other - fast).abs() for other in learned]
    return {
        "gradients apart": max(float((g - gradient).norm() / gradient.norm()) for g in others),
        "coefficients apart": max(float(d.max()) for d in differences),
        "coefficients beyond": max(int((d > FLOAT).sum()) for d in differences),
        "coefficients": fast.numel(),
        "coefficients moved": float((fast - 1).abs().mean()),
    }


def _table(task: Task, turns: Turns, peaks: Mapping[str, int], facts: Mapping[str, float]) -> Table:
    rows = {
        name: {
            "seconds": turns.seconds(name),
            "units": turns.units(name),
            "× fast": turns.units(name) / turns.units(FAST),
            "peak MiB": peaks[name] / MIB,
            "of fast": peaks[name] / peaks[FAST],
        }
        for name in turns.contenders
    }
    return Table(
        f"A step, {task.describe()}",
        COLUMNS,
        rows,
        [
            f"medians of {len(turns.taken[FAST])} rounds of {turns.calls} steps, in turns; units: "
            "by the turn of the base right before",
            "first step's losses (content, style, penalty): ours and the public arithmetic's agree "
            f"to {facts['losses apart']:.0e}",
            f"our three rows' first gradients agree to {facts['gradients apart']:.0e}; of their "
            f"{facts['coefficients']:,} coefficients, {facts['coefficients beyond']} are more than "
            f"{FLOAT:.0e} apart after {turns.done} steps, at most "
            f"{facts['coefficients apart']:.1e}; they have moved by "
            f"{facts['coefficients moved']:.3f} on average",
        ],
        facts,
    )
