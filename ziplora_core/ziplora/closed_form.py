"""The closed form of ZipLoRA's coefficients: ridge least squares on each layer's output."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from ..errors import problem
from ..training.activations import RecordableModel, places, tokens
from ..training.branches import Branches, Gates
from ..training.noisy_samples import TEACHERS, Denoise, NoisySample, Teacher, batches, predict
from .layer_least_squares import UNBOUNDED, Bounds, Moments, Solution

MAX_INPUT_WIDTH = 6144
"""Largest in · taps of a layer that is solved; wider layers keep coefficient 1."""
FIRST_PASS_STRIDE = 3
"""Pass 1 uses every third sample only: it needs a rough solution, the next pass uses all."""
BOUNDS: Bounds = (0.0, 2.0)
"""The least and the largest coefficient. Without them, trained LoRAs get coefficients of a hundred
and more, which fit the samples and fail on other prompts."""
BY_PASS = "error by pass (direct merge: 1)"
"""Name of `ClosedForm.errors` in a loss output."""


@dataclass(frozen=True)
class ClosedFormSettings:
    """The settings of the closed form.

    Args:
        passes: the number of passes. The first uses the layer inputs of the single LoRAs, each
            further one those of the merge from the pass before.
        ridge: the weight that holds the coefficients at 1, the direct merge, relative to the mean
            of H's diagonal for their LoRA. Trained LoRAs fit as well with 0.03 as with 0.001, and
            their largest coefficients are a fourth as large.
        batch: the number of samples per UNet call, twice as many with students.
        budget: the bytes on the device that the sums S may take; further ones stay on the CPU.
        weights: the weights of the teachers' errors, in the teachers' order.
        bounds: the least and the largest coefficient.
    """

    passes: int = 2
    ridge: float = 0.03
    batch: int = 2
    budget: float = math.inf
    weights: Sequence[float] = (1.0, 1.0, 1.0)
    bounds: Bounds = UNBOUNDED


@dataclass
class ClosedForm:
    """The solved coefficients and their errors.

    Args:
        columns: the coefficients `(2, in)` by module.
        passes: the number of passes that were made.
        error: the error of the layers' own outputs relative to the direct merge's, both on the
            inputs of the last pass. Passes have different inputs, so it is not comparable between
            them.
        errors: the error of the model's predictions relative to the direct merge's, on the same
            held-out samples: 1, then one per pass; NaN where it could not be measured, empty
            without held-out samples.
        notes: lines for the report.
    """

    columns: dict[str, Tensor]
    passes: int = 0
    error: float = 1.0
    errors: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Collector:
    """A recorder that collects the moments of all layers while samples go through the model.

    Args:
        branches: the branches of the modules to solve for, by the model's name for them.
        budget: the bytes on the model's device that the sums S may take.
        with_student: whether each batch holds the teachers, followed by as many students.
    """

    def __init__(
        self, branches: Mapping[str, Branches], budget: float = math.inf, with_student: bool = False
    ) -> None:
        self.moments = {name: Moments(both) for name, both in branches.items()}
        self.budget, self.with_student = budget, with_student
        self.teacher, self.weight = TEACHERS[0], 1.0
        self._seen = WeakTensorKeyDictionary()  # input → the first layer that has read it

    def record(self, name: str, x: Tensor, out: Tensor, layer: nn.Module) -> None:
        """Add one batch to a layer's moments; see `ActivationRecorder`.

        With students, the target of a layer is the teacher's whole output:
        y = delta_k x_teacher + W0 (x_teacher − x_student).
        """
        moments = self.moments.get(name)
        if moments is None:
            return
        half = len(x) // 2 if self.with_student else len(x)
        if self.with_student:  # it stays on the device: reading it would synchronise
            moments.drift = torch.maximum(moments.drift, (x[:half] - x[half:]).abs().max().float())
        seen = tokens(x, layer)
        root = (self.weight / seen.shape[1]) ** 0.5  # makes sums over positions weighted means
        seen = seen * root
        student = seen[-half:].flatten(0, 1)
        first: Moments | None = self._seen.get(x)
        if first is None or first.second is None or len(first.second) != student.shape[1]:
            moments.add_input(student, self._place(moments))
            self._seen[x] = moments
        else:  # to_q, to_k and to_v read one input
            moments.second = first.second
        y = moments.added(seen[:half].flatten(0, 1), self.teacher)
        if self.with_student:
            base = places(out, layer)
            y += (base[:half] - base[half:]).flatten(0, 1) * root
        moments.add_target(student, y)

    def _place(self, moments: Moments) -> torch.device:
        """Choose the device of a layer's S: the model's own as long as the budget lasts."""
        if moments.second is not None:
            return moments.second.device
        size = 4 * moments.branches.down[0].numel() ** 2
        if size > self.budget:
            return torch.device("cpu")
        self.budget -= size
        return moments.linear.device


def solve_coefficients(
    model: RecordableModel,
    trained: Sequence[str],
    samples: Sequence[tuple[Teacher, Sequence[NoisySample]]],
    settings: ClosedFormSettings,
    on_layer: Callable[[], None] = lambda: None,
    should_stop: Callable[[], bool] = lambda: False,
    on_pass: Callable[[], None] = lambda: None,
) -> ClosedForm:
    """Solve for the coefficients `(2, in)` of the trained modules in a few passes.

    Pass 1 takes each layer's input from the teachers. From pass 2 on it is the input within the
    merge, so that a layer also corrects the errors of the layers before it. A layer whose input the
    merge does not change (keys and values, which read the prompt) keeps its solution from pass 1.

    Args:
        model: a model with the pairs' branches on it; after each pass the coefficients so far are
            folded into them.
        trained: the modules that get coefficients, by the model's name; both LoRAs have them.
        samples: the noisy samples of each teacher; they need no targets.
        on_layer: a callback before each layer is solved; it may raise to cancel.
        should_stop: a check before each further pass; True ends with the coefficients so far.
        on_pass: a callback after each pass that has solved a layer.

    Raises:
        ZipLoRAError: no layer could be solved.
    """
    branches = {name: model.branches[name] for name in trained}
    solvable = {name: b for name, b in branches.items() if b.down[0].numel() <= MAX_INPUT_WIDTH}
    done = ClosedForm(
        {name: torch.ones(2, b.width, device=b.down.device) for name, b in branches.items()}
    )
    solutions: dict[str, Solution] = {}
    lost: set[str] = set()
    for turn in range(settings.passes):
        student = turn > 0
        if student and should_stop():
            done.notes.append(f"stopped after pass {turn} on request")
            break
        collector = Collector(solvable, settings.budget, student)
        shown = samples if student or settings.passes == 1 else _thinned(samples)
        with model.recording(collector.record):
            for (collector.teacher, of_teacher), collector.weight in zip(
                shown, settings.weights, strict=False
            ):
                for batch in batches(of_teacher, settings.batch):
                    _forward(model.denoise, batch, collector.teacher, student)
        drifts = torch.stack([moments.drift for moments in collector.moments.values()]).tolist()
        for (name, moments), drift in zip(collector.moments.items(), drifts, strict=True):
            on_layer()
            if student and drift == 0:
                continue
            solution = moments.solve(settings.ridge, settings.bounds)
            if solution is not None:
                solutions[name], done.columns[name] = solution, solution.columns
            elif name in solutions:
                lost.add(name)
        if solutions:
            error = sum(s.error for s in solutions.values())
            direct = sum(s.direct for s in solutions.values())
            done.passes = turn + 1
            done.error = error / direct if direct > 0 else 1.0
            for name, columns in done.columns.items():
                branches[name].fold(columns)
            on_pass()
    if not solutions:
        raise problem(
            "solver=closed_form",
            found="no layer with finite inputs and a non-zero update",
            expected="two LoRAs that work on this checkpoint",
            advice="Try each LoRA alone with the ordinary Load LoRA node, at the pair's strength.",
        )
    too_wide, unsolved = len(trained) - len(solvable), solvable.keys() - solutions.keys()
    done.notes += _notes(too_wide, sorted(unsolved), sorted(lost))
    return done


def closed_form_evaluations(samples: int, passes: int) -> int:
    """Count the samples that go through the UNet for `samples` noisy samples of one teacher."""
    first = samples if passes == 1 else -(-samples // FIRST_PASS_STRIDE)
    return first + 2 * samples * (passes - 1)


def _thinned(
    samples: Sequence[tuple[Teacher, Sequence[NoisySample]]],
) -> list[tuple[Teacher, Sequence[NoisySample]]]:
    return [(teacher, of_teacher[::FIRST_PASS_STRIDE]) for teacher, of_teacher in samples]


@torch.no_grad()
def _forward(
    denoise: Denoise, batch: list[NoisySample], teacher: Teacher, with_student: bool
) -> None:
    """Run the model on a batch of teachers, followed by its students if there are any."""
    teachers = len(batch)
    rows = torch.tensor([teacher]).expand(teachers, -1)
    if with_student:
        rows, batch = torch.cat([rows, torch.ones_like(rows)]), [*batch, *batch]
    predict(denoise, batch, Gates(rows, with_student, teachers=teachers))


def _notes(too_wide: int, unsolved: Sequence[str], lost: Sequence[str]) -> list[str]:
    """List the layers that the last pass has not solved."""
    notes = []
    if too_wide:
        notes.append(f"{too_wide} layers are too wide for the closed form: they keep coefficient 1")
    if lost:
        notes.append(
            f"WARNING: {len(lost)} layers had non-finite inputs with the merge of an earlier pass: "
            f"they keep that pass's coefficients, e.g. {lost[0]}"
        )
    if unsolved:
        notes.append(
            f"WARNING: {len(unsolved)} layers had no inputs, a zero update or non-finite numbers: "
            f"they keep coefficient 1, e.g. {unsolved[0]}"
        )
    return notes
