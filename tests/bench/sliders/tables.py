"""Tables of both trainers' steps and the public implementation's: evaluations and time."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import count, islice
from statistics import mean

import torch

from ziplora_core.sliders.text_objective import SHARED, TextSliderObjective
from ziplora_core.training.lora_objective import LoRAObjective
from ziplora_core.training.optimisers import make_optimiser

from ..clock import BASE, Contender, Turns
from ..engine.models import SIZES
from ..table import Table
from .public import Public
from .task import Task, open_task

LATENTS = {"tiny": 16, "medium": 32, "full": 64}
"""Latent sides. SDXL's sliders train on 64 × 64, which would take medium an hour on two cores."""
ROUNDS = 3
STEPS = 25
"""Denoising steps before the sample of an exact step: the mean of 1 … 49."""
DRAWS = 20_000
EXACT, REUSED, PUBLIC = "words, exact", "words, reused", "words, public arithmetic"
PAIR, PAIR_LOW, PUBLIC_PAIR = "pairs", "pairs, memory=low", "pairs, public arithmetic"
SAME = {EXACT: PUBLIC, PAIR: PUBLIC_PAIR, PAIR_LOW: PUBLIC_PAIR}
"""The public row that computes the same as each of ours."""
TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 0.2}
COLUMNS = {"evaluations": ".2f", "units": ".2f", "per evaluation": ".2f", "of public": ".1%",
           "seconds": ".3f"}  # fmt: skip


class Step:
    """Our step, as the training loop makes it: gradient, clipping, the losses' values, update."""

    def __init__(self, task: Task, objective: LoRAObjective, low: bool = False) -> None:
        self.task, self.objective, self.low = task, objective, low
        rates = objective.learning_rates
        self.optimiser = make_optimiser(objective.optimiser, objective.parameters, rates)

    def __call__(self, step: int) -> float:
        """Make one step; return its loss."""
        self.task.opened.checkpointing = self.low
        self.optimiser.zero_grad(set_to_none=True)
        terms = self.objective.backward(step)
        torch.nn.utils.clip_grad_norm_(self.objective.parameters, 1.0)
        loss, *_ = torch.stack(list(terms.values())).tolist()
        self.optimiser.step()
        self.task.opened.checkpointing = False
        return loss


def tables(sizes: Iterable[str], rounds: int = ROUNDS) -> Iterator[Table]:
    """Measure each size; on the CPU in seconds of one thread, without other processes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for size in sizes:
            with open_task(replace(SIZES[size], latent=LATENTS[size])) as task:
                yield table(task, rounds)
    finally:
        torch.set_num_threads(threads)


def table(task: Task, rounds: int) -> Table:
    """Measure one size."""
    evaluations: dict[str, list[int]] = {}

    def counted(name: str, work: Contender) -> Contender:
        def done(n: int) -> float:
            before = task.counter.total
            loss = work(n)
            evaluations.setdefault(name, []).append(task.counter.total - before)
            return loss

        return done

    contenders = make_contenders(task)
    cpu = task.opened.device.type == "cpu"
    turns = Turns(
        {name: counted(name, work) for name, work in contenders.items()},
        time.process_time if cpu else time.perf_counter,
    )
    apart = losses_apart(turns.first, TOLERANCES[task.opened.dtype])
    turns.take(rounds)
    return _table(task, turns, {name: mean(found) for name, found in evaluations.items()}, apart)


def make_contenders(task: Task) -> dict[str, Contender]:
    """Set up all rows; a turn of a reused trajectory has all updates that share it."""
    exact, reused, pictures = task.words("exact"), task.words("reused"), task.pictures()
    step, shared, pair = Step(task, exact), Step(task, reused), Step(task, pictures)
    public = Public(task)
    samples = list(islice((n for n in count() if exact.start(n, 1)[1] == [STEPS]), 16))

    def sample(n: int) -> int:
        return samples[n % len(samples)]

    return {
        BASE: task.base,
        EXACT: lambda n: step(sample(n)),
        REUSED: lambda n: [shared(SHARED * n + place) for place in range(SHARED)],
        PUBLIC: lambda n: public.words(exact, sample(n)),
        PAIR: pair,
        PAIR_LOW: Step(task, pictures, low=True),
        PUBLIC_PAIR: partial(public.pictures, pictures),
    }


def losses_apart(first: Mapping[str, float], tolerance: float) -> float:
    """Return the largest relative difference between first losses that should be equal.

    Raises:
        AssertionError: the losses differ by more than the tolerance.
    """
    apart = max(abs(first[ours] / first[public] - 1) for ours, public in SAME.items())
    assert apart <= tolerance, first
    return apart


def expected(objective: TextSliderObjective, shared: int) -> float:
    """Return the mean evaluations of an update: 2 for each denoising step, and 5."""
    groups = DRAWS // shared
    longest = [max(objective.start(n, shared)[1]) for n in range(groups)]
    return 2 * mean(longest) / shared + 5


def _table(task: Task, turns: Turns, evaluations: Mapping[str, float], apart: float) -> Table:
    rows: dict[str, dict[str, float | None]] = {}
    public = {EXACT: PUBLIC, REUSED: PUBLIC, PUBLIC: PUBLIC}
    for name in turns.contenders:
        updates = SHARED if name == REUSED else 1
        units, beside = turns.units(name), public.get(name, PUBLIC_PAIR)
        rows[name] = {
            "evaluations": evaluations[name] / updates,
            "units": units / updates,
            "per evaluation": units / evaluations[name],
            "of public": None if name == BASE else units / updates / turns.units(beside),
            "seconds": turns.seconds(name) / updates,
        }
    assert rows[EXACT]["evaluations"] == 2 * STEPS + 5, rows
    exact, reused = (
        expected(task.words(kind), n) for kind, n in (("exact", 1), ("reused", SHARED))
    )
    return Table(
        f"A slider's step, {task.describe()}",
        COLUMNS,
        rows,
        [
            f"words, exact and public: {STEPS} denoising steps first, the mean of the 1 … 49 that "
            f"are drawn; reused: an update of the {SHARED} that share a trajectory",
            f"over {DRAWS:,} draws an exact update takes {exact:.1f} evaluations and a reused one "
            f"{reused:.1f}, × {exact / reused:.2f}",
            f"losses of ours and of the public arithmetic agree to {apart:.0e}",
            f"medians of {len(turns.taken[EXACT])} rounds of {turns.calls} steps, in turns; units: "
            "by the turn of the base right before; on the CPU one thread, by its own time",
        ],
        {"exact evaluations": exact, "reused evaluations": reused, "losses apart": apart},
    )
