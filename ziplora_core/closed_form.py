"""ZipLoRA's coefficients without gradients: least squares on every layer's own output."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from .branches import Branches, Gates
from .errors import problem
from .layer_moments import Moments, Solution
from .observation import ObservableModel, places, tokens
from .states import TEACHERS, Denoise, State, Teacher, batches, predict

WIDEST = 6144
"""Inputs times taps of the widest layer that is solved; wider ones keep coefficient 1."""
FIRST = 3
"""Pass 1 looks at every third state only: it has to come near, the next one looks at all."""


@dataclass(frozen=True)
class ClosedFormSettings:
    """How the coefficients are solved for.

    Args:
        passes: 1 looks at the single LoRAs only; every further one at the merge of the one before.
        ridge: how strongly the coefficients are held at 1, the direct merge, relative to the mean
            of the quadratic's diagonal for their LoRA. Trained LoRAs fit as well with 0.03 as with
            0.001, with a fourth of the largest coefficients.
        batch: states that go through the model together, twice as many with students.
        room: bytes of the device that the sums may take; those of other layers live on the CPU.
    """

    passes: int = 2
    ridge: float = 0.03
    batch: int = 2
    room: float = math.inf


@dataclass
class ClosedForm:
    """What came out.

    Args:
        columns: coefficients `(2, in)` by module.
        errors: of the layers' own outputs, first the direct merge's, 1, then after every pass what
            is left of it, on the inputs that the pass has looked at.
        notes: lines for the report.
    """

    columns: dict[str, Tensor]
    errors: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Collector:
    """Collects the moments of all layers while states go through the model.

    Args:
        branches: of the modules that are solved for, by the model's name for them.
        room: bytes of the model's device that the sums may take.
        with_student: every batch has the teachers first and the students behind them.
    """

    def __init__(
        self, branches: Mapping[str, Branches], room: float = math.inf, with_student: bool = False
    ) -> None:
        self.moments = {name: Moments(both) for name, both in branches.items()}
        self.room, self.with_student = room, with_student
        self.teacher = TEACHERS[0]
        self._seen = WeakTensorKeyDictionary()  # input → the first layer that has read it

    def observe(self, name: str, x: Tensor, out: Tensor, layer: nn.Module) -> None:
        """Count one batch; see `observation.Observer`.

        The student's layers are to give what the teacher's give: its LoRA's output, and what the
        base layer makes of the difference of their inputs.
        """
        moments = self.moments.get(name)
        if moments is None:
            return
        half = len(x) // 2 if self.with_student else len(x)
        if self.with_student:  # a maximum that stays where it is: to ask would be to wait
            moments.drift = torch.maximum(moments.drift, (x[:half] - x[half:]).abs().max().float())
        seen = tokens(x, layer)
        seen = seen * seen.shape[1] ** -0.5  # a mean over the places
        student = seen[-half:].flatten(0, 1)
        first: Moments | None = self._seen.get(x)
        if first is None or first.second is None or len(first.second) != student.shape[1]:
            moments.add_input(student, self._place(moments))
            self._seen[x] = moments
        else:  # to_q, to_k and to_v read one input
            moments.second = first.second
        y = moments.added(seen[:half].flatten(0, 1), self.teacher)
        if self.with_student:
            base = places(out)
            y += (base[:half] - base[half:]).flatten(0, 1) * base.shape[1] ** -0.5
        moments.add_target(student, y)

    def _place(self, moments: Moments) -> torch.device:
        """Where a layer's S lives: on the device as long as there is room."""
        if moments.second is not None:
            return moments.second.device
        size = 4 * moments.branches.down[0].numel() ** 2
        if size > self.room:
            return torch.device("cpu")
        self.room -= size
        return moments.linear.device


def solve_coefficients(
    model: ObservableModel,
    trained: Sequence[str],
    states: Sequence[tuple[Teacher, Sequence[State]]],
    settings: ClosedFormSettings,
    on_layer: Callable[[], None] = lambda: None,
    should_stop: Callable[[], bool] = lambda: False,
    on_pass: Callable[[Sequence[float]], None] = lambda errors: None,
) -> ClosedForm:
    """Solve for the coefficients `(2, in)` of the trained modules, in a few passes.

    Pass 1 takes every layer's input from the teachers. From pass 2 on it is the merge's own input,
    so that a layer makes good what those before it got wrong. A layer whose input the merge does
    not change, as the prompt for keys and values, has its solution from pass 1.

    Args:
        model: with the pairs' branches on it; what is solved for is folded into them.
        trained: the modules that get coefficients, by the model's name for them; both LoRAs have
            them.
        states: of each teacher; no targets are needed.
        on_layer: called before each layer is solved; may raise to cancel.
        should_stop: asked before every further pass: stop and keep.
        on_pass: given, after each pass, what is left of the layers' errors by those so far.

    Raises:
        ZipLoRAError: no layer at all could be solved.
    """
    branches = {name: model.branches[name] for name in trained}
    solvable = {name: b for name, b in branches.items() if b.down[0].numel() <= WIDEST}
    done = ClosedForm(
        {name: torch.ones(2, b.width, device=b.down.device) for name, b in branches.items()}
    )
    solutions: dict[str, Solution] = {}
    lost: set[str] = set()
    for turn in range(settings.passes):
        student = turn > 0
        if student and should_stop():
            done.notes.append(f"stopped after pass {turn} as asked")
            break
        collector = Collector(solvable, settings.room, student)
        shown = states if student or settings.passes == 1 else _thinned(states)
        if student:
            for name, columns in done.columns.items():
                branches[name].fold(columns)
        with model.observed(collector.observe):
            for collector.teacher, of_teacher in shown:
                for batch in batches(of_teacher, settings.batch):
                    _forward(model.denoise, batch, collector.teacher, student)
        drifts = torch.stack([moments.drift for moments in collector.moments.values()]).tolist()
        for (name, moments), drift in zip(collector.moments.items(), drifts, strict=True):
            on_layer()
            if student and drift == 0:
                continue
            solution = moments.solve(settings.ridge)
            if solution is not None:
                solutions[name], done.columns[name] = solution, solution.columns
            elif name in solutions:
                lost.add(name)
        if solutions:
            error = sum(s.error for s in solutions.values())
            direct = sum(s.direct for s in solutions.values())
            done.errors = [1.0, *done.errors[1:], error / direct if direct > 0 else 1.0]
            on_pass(done.errors)
    if not solutions:
        raise problem(
            "solver=closed_form",
            found="no layer that saw finite numbers and adds something to them",
            expected="two LoRAs that work on this checkpoint",
            advice="Try each LoRA alone with the ordinary Load LoRA node, at the pair's strength.",
        )
    too_wide, unsolved = len(trained) - len(solvable), solvable.keys() - solutions.keys()
    done.notes += _notes(too_wide, sorted(unsolved), sorted(lost))
    return done


def closed_form_evaluations(states: int, passes: int) -> int:
    """How many samples go through the UNet for so many states of one teacher."""
    first = states if passes == 1 else -(-states // FIRST)
    return first + 2 * states * (passes - 1)


def _thinned(
    states: Sequence[tuple[Teacher, Sequence[State]]],
) -> list[tuple[Teacher, Sequence[State]]]:
    return [(teacher, of_teacher[::FIRST]) for teacher, of_teacher in states]


@torch.no_grad()
def _forward(denoise: Denoise, batch: list[State], teacher: Teacher, with_student: bool) -> None:
    """Send teachers, and students behind them, through the model."""
    teachers = len(batch)
    rows = torch.tensor([teacher]).expand(teachers, -1)
    if with_student:
        rows, batch = torch.cat([rows, torch.ones_like(rows)]), [*batch, *batch]
    predict(denoise, batch, Gates(rows, with_student, teachers=teachers))


def _notes(too_wide: int, unsolved: Sequence[str], lost: Sequence[str]) -> list[str]:
    """Say which layers the closed form has left alone."""
    notes = []
    if too_wide:
        notes.append(f"{too_wide} layers are too wide for the closed form: they keep coefficient 1")
    if lost:
        notes.append(
            f"WARNING: with the merge of an earlier pass {len(lost)} layers saw numbers that are "
            f"not finite: they keep that pass's coefficients, e.g. {lost[0]}"
        )
    if unsolved:
        notes.append(
            f"WARNING: {len(unsolved)} layers saw or add nothing, or saw numbers that are not "
            f"finite: they keep coefficient 1, e.g. {unsolved[0]}"
        )
    return notes
