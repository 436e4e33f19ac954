"""The cost of the closed form, compared with a hundred gradient steps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ziplora_core.comfy_adapter.train.ziplora_samples import POOL
from ziplora_core.training.noisy_samples import TEACHERS
from ziplora_core.ziplora.closed_form import ClosedFormSettings, solve_coefficients

from ..clock import BASE, Turns, seconds
from ..table import Table
from .models import SIZES
from .ours import Ours
from .task import SHOWN, Task, open_task

STATES = (8, 25)
PASSES = 2
STEPS = 100
SAMPLED = 2
"""Rounds of gradient steps before, between and after; a hundred steps would take too long."""
COLUMNS = {"seconds": ".1f", "units": ",.0f", "of 100 steps": ".1%", "with targets": ".1%"}
STEP, ASKING = "a step", "a state's targets"


def tables(sizes: Iterable[str]) -> Iterator[Table]:
    """Measure each size."""
    for size in sizes:
        with open_task(SIZES[size]) as task:
            yield table(task)


def table(task: Task) -> Table:
    """Measure one size."""
    pool = [task.taught(task.draw(n)) for n in range(SHOWN)]
    step = Ours(task, lambda n: pool[n % SHOWN])
    turns = Turns({BASE: task.base, STEP: step, ASKING: lambda n: task.taught(task.draw(n))})
    turns.take(SAMPLED)
    solved = {}
    for count in STATES:
        solved[count] = seconds(lambda count=count: solve(task, count))
        turns.take(SAMPLED)
    return _table(task, turns, solved)


def solve(task: Task, count: int) -> None:
    """Solve for the coefficients from `count` states of each concept."""
    keys = [task.keys[name] for name in task.pairs]
    few = [of_concept[:count] for of_concept in task.states]
    states = list(zip(TEACHERS, few, strict=False))
    settings = ClosedFormSettings(passes=PASSES)
    done = solve_coefficients(task.opened, keys, states, settings)
    assert not any(note.startswith("WARNING") for note in done.notes), done.notes


def _table(task: Task, turns: Turns, solved: dict[int, float]) -> Table:
    unit = turns.seconds(BASE) / 2
    steps, asking = STEPS * turns.seconds(STEP), POOL * turns.seconds(ASKING)
    spent = {
        f"{STEPS} steps": steps,
        f"{POOL} + {POOL} teacher targets": asking,
        **{f"closed form, {n} + {n} states": spent for n, spent in solved.items()},
    }
    rows = {
        name: {
            "seconds": spent,
            "units": spent / unit,
            "of 100 steps": spent / steps,
            "with targets": spent / (steps + asking),
        }
        for name, spent in spent.items()
    }
    rounds = len(turns.taken[STEP])
    notes = [
        f"{PASSES} passes; memory=fast; {STEPS} steps are {STEPS} times the median of "
        f"{rounds * turns.calls}, taken before, between and after",
        "steps need their teachers' targets first, the closed form needs none: `with targets` is "
        "beside both together",
    ]
    return Table(f"Closed form, {task.describe()}", COLUMNS, rows, notes)
