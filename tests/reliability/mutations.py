"""Damaged checkpoints of small trainings: how many are resumed, and with which numbers."""

from __future__ import annotations

import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.core.sliders import test_objectives as slider_task
from tests.core.unziplora import unziplora_task
from tests.core.ziplora import ziplora_task
from ziplora_core.errors import ZipLoRAError
from ziplora_core.lora.factors import LoRA
from ziplora_core.training.checkpoint import CheckpointFolder
from ziplora_core.training.interface import LoopCallbacks, TrainingRecord, TrainingTask
from ziplora_core.training.loop import train
from ziplora_core.training.optimisers import make_optimiser
from ziplora_core.training.options import TrainingOptions
from ziplora_core.training.run_checkpoints import RunCheckpoints

from .damage import KINDS
from .promise import Promise

STEPS, AT = 12, (4, 12)
"""The steps of a training, and those of whose checkpoints copies are damaged: the first can go on,
the last has ended."""
TASKS: dict[str, Callable[[], TrainingTask]] = {
    "ZipLoRA": ziplora_task.objective,
    "UnZipLoRA": unziplora_task.objective,
    "slider": lambda: slider_task.task(TrainingOptions(batch=2), trajectory="reused"),
}


@dataclass(frozen=True)
class Seen:
    """What came of one damaged file.

    Args:
        kind: name of the damage.
        outcome: `set aside`, `the same numbers`, `other numbers`, `not named`, `left behind`, or
            an error.
        seconds: time that reading it took.
    """

    kind: str
    outcome: str
    seconds: float


def measured(count: int, folder: Path) -> list[Promise]:
    """Damage `count` checkpoints.

    Args:
        count: number of damaged files.
        folder: an empty folder to work in.
    """
    seen = list(damaged(count, folder))
    sound = ("set aside", "the same numbers")
    broken = [f"{s.kind}: {s.outcome}" for s in seen if s.outcome not in sound]
    counts = Counter(s.outcome for s in seen)
    figures = ", ".join(f"{n:,} {outcome}" for outcome, n in counts.most_common())
    text = (
        "A checkpoint that is damaged, of another training or of another version is named in log "
        "and report, set aside and not resumed."
    )
    slowest = max(s.seconds for s in seen)
    return [
        Promise(
            text, len(seen), len(seen) - len(broken),
            f"{len(KINDS)} kinds; {figures}; slowest {1000 * slowest:.0f} ms", broken,
        )
    ]  # fmt: skip


def damaged(count: int, folder: Path) -> Iterator[Seen]:
    """Damage checkpoints of every training in turn, and try to resume each."""
    rng = random.Random(0)
    sources = [
        (make, _checkpoint(make, at, folder / f"{name}_{at}"))
        for name, make in TASKS.items()
        for at in AT
    ]
    for number in range(count):
        make, source = sources[number % len(sources)]
        damage = KINDS[number // len(sources) % len(KINDS)]
        place = CheckpointFolder(folder / "damaged" / source.path.name)
        place.path.mkdir(parents=True)
        data = damage(source.state_file.read_bytes(), rng)
        place.state_file.write_bytes(data)
        started = time.perf_counter()
        try:
            outcome = _outcome(make, source, place)
        except Exception as error:  # noqa: BLE001 - this is what is counted
            typed = "typed" if isinstance(error, ZipLoRAError) else "untyped"
            outcome = f"{typed} error {type(error).__name__}: {error}"
        yield Seen(damage.__name__, outcome, time.perf_counter() - started)
        shutil.rmtree(place.path)


def _checkpoint(make: Callable[[], TrainingTask], at: int, path: Path) -> CheckpointFolder:
    """Train for some steps, and return the folder of the checkpoint."""
    folder, task, asked = CheckpointFolder(path), make(), iter(range(at + 1))
    callbacks = LoopCallbacks(export=_nothing, should_stop=lambda: next(asked) == at)
    train(task, STEPS, TrainingOptions(), callbacks, folder)
    assert _opened(make, folder)[1]
    return folder


def _outcome(
    make: Callable[[], TrainingTask], source: CheckpointFolder, place: CheckpointFolder
) -> str:
    before = _state(_run_of(make, place))
    found, resumed = _opened(make, place)
    if resumed:
        true, _ = _opened(make, source)
        return "the same numbers" if _same(_state(found), _state(true)) else "other numbers"
    if not _same(_state(found), before):
        return "started anew with other numbers"
    (note,) = found.record.notes
    if not note.startswith(f"WARNING: the checkpoint {place.path.name}/state.safetensors was not"):
        return f"not named: {note}"
    kept = sorted(file.name for file in place.path.iterdir())
    return "set aside" if kept == ["state.set_aside"] else f"left behind: {kept}"


def _run_of(make: Callable[[], TrainingTask], folder: CheckpointFolder) -> RunCheckpoints:
    task = make()
    optimiser = make_optimiser(
        task.optimiser, task.parameters, task.learning_rates, task.weight_decay
    )
    return RunCheckpoints(
        folder, task, optimiser, TrainingRecord(), STEPS, LoopCallbacks(export=_nothing)
    )


def _opened(
    make: Callable[[], TrainingTask], folder: CheckpointFolder
) -> tuple[RunCheckpoints, bool]:
    run = _run_of(make, folder)
    return run, run.resume()


def _state(run: RunCheckpoints) -> dict[str, Any]:
    """Collect every number that the following steps depend on, and the record."""
    record = run.record
    said = (record.step, record.history, record.stopped, record.failed, record.seconds)
    return {
        "record": (*said, run.task.low_memory),
        **{f"parameter {n}": p.detach() for n, p in enumerate(run.task.parameters)},
        **{f"extra {name}": tensor for name, tensor in run.task.extra_state.items()},
        **{
            f"optimiser {n} {name}": value
            for n, state in run.optimiser.state_dict()["state"].items()
            for name, value in state.items()
        },
    }


def _same(one: dict[str, Any], two: dict[str, Any]) -> bool:
    def equal(a: Any, b: Any) -> bool:
        if not isinstance(a, Tensor):
            return a == b
        return a.dtype == b.dtype and torch.equal(a, b)

    return one.keys() == two.keys() and all(equal(one[name], two[name]) for name in one)


def _nothing(record: TrainingRecord) -> LoRA:
    """Export no LoRA."""
    return LoRA("none", {})
