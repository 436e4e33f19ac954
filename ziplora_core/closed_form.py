"""ZipLoRA's coefficients without gradients: least squares on every layer's own output."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from einops import reduce
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from .branches import Branches, Gates
from .observation import ObservableModel, places, tokens
from .pairing import ModulePair
from .states import Denoise, State, Teacher, batches, predict

WIDEST = 6144
"""Inputs times taps of the widest layer that is solved; wider ones keep coefficient 1."""


@dataclass(frozen=True)
class ClosedFormSettings:
    """How the coefficients are solved for.

    Args:
        passes: 1 looks at the single LoRAs only; every further one at the merge of the one before.
        ridge: how strongly the coefficients are held at 1, the direct merge, relative to the mean
            of the quadratic's diagonal. Trained LoRAs fit as well with 0.03 as with 0.001, with a
            fourth of the largest coefficients.
        batch: states that go through the model together.
        room: bytes of the device that the sums may take; those of other layers live on the CPU.
    """

    passes: int = 2
    ridge: float = 0.03
    batch: int = 2
    room: float = math.inf


class Moments:
    """What one layer has to do, as a quadratic in its coefficients.

    For input x of a token and target y, the merged LoRA adds Σ_a delta_a (m_a ⊙ x), so

        Σ_x ‖Σ_a delta_a (m_a ⊙ x) − y‖² = mᵀ H m − 2 bᵀ m + const
        H_ab = S ⊙ K_ab,   S = Σ x xᵀ,   K_ab = delta_aᵀ delta_b = down_aᵀ (up_aᵀ up_b) down_b
        b_a = Σ x ⊙ (delta_aᵀ y)

    It is convex in m = (m_c, m_s). With the single LoRAs' own inputs and y = delta_k x, k the one
    whose turn it is, this is the sum of both output errors, S = S_c + S_s. Of a convolution, x is
    the patch `(in · taps)`; a coefficient counts for all taps of its channel, so their entries of
    H and b are summed.

    Args:
        pair: the factors.
        device: where the layer computes.
    """

    def __init__(self, pair: ModulePair, device: torch.device) -> None:
        assert pair.content is not None and pair.style is not None
        halves = (pair.content, pair.style)
        self.width = pair.content.down.shape[1]
        self.downs = [f.down.flatten(1).to(device) for f in halves]  # (rank, in · taps)
        self.ups = [(f.scale * f.up).flatten(1).to(device) for f in halves]  # (out, rank)
        self.second: Tensor | None = None  # S, shared by layers that read the same input
        self.linear = torch.zeros(2, self.width, device=device)  # b

    def added(self, x: Tensor, gates: Sequence[float]) -> Tensor:
        """Compute what the LoRAs of a teacher add for tokens `(n, in · taps)`: `(n, out)`."""
        parts = zip(gates, self.downs, self.ups, strict=True)
        return sum(gate * ((x @ down.T) @ up.T) for gate, down, up in parts if gate)  # pyright: ignore

    def add_input(self, x: Tensor, device: torch.device) -> None:
        """Count the tokens `(n, in · taps)` in S, which lives on `device`."""
        second = (x.T @ x).to(device)
        self.second = second if self.second is None else self.second.add_(second)

    def add_target(self, x: Tensor, y: Tensor) -> None:
        """Count the targets `(n, out)` of tokens `(n, in · taps)`."""
        for branch, (down, up) in enumerate(zip(self.downs, self.ups, strict=True)):
            products = (down * ((y @ up).T @ x)).sum(0)
            self.linear[branch] += products.view(self.width, -1).sum(1)

    def solve(self, ridge: float) -> Tensor | None:
        """Minimise the quadratic + ridge · mean(diag H) · ‖m − 1‖².

        Returns:
            m `(2, in)`, float32; None for a layer that never ran, saw what is not finite, or
            whose H cannot be factored.
        """
        if self.second is None:
            return None
        hessian, right = self._hessian(), self.linear.double().flatten()
        weight = ridge * hessian.diagonal().mean()
        if not (weight > 0 and hessian.isfinite().all() and right.isfinite().all()):
            return None
        hessian.diagonal().add_(weight)
        factor, fault = torch.linalg.cholesky_ex(hessian)
        if fault:
            return None
        return torch.cholesky_solve((right + weight)[:, None], factor).view(2, -1).float()

    def _hessian(self) -> Tensor:
        """H `(2 in, 2 in)`, float64."""
        assert self.second is not None
        n, downs, ups = self.width, *([p.double() for p in ps] for ps in (self.downs, self.ups))
        second = self.second.to(downs[0])
        hessian = second.new_empty(2, n, 2, n)
        for a, b in ((0, 0), (0, 1), (1, 1)):
            block = (downs[a].T @ (ups[a].T @ ups[b]) @ downs[b]).mul_(second)
            if len(block) > n:
                block = reduce(block, "(a s) (b t) -> a b", "sum", a=n, b=n)
            hessian[a, :, b] = block
            hessian[b, :, a] = block.T
        return hessian.view(2 * n, 2 * n)


class Calibration:
    """Collects the moments of all layers while states go through the model.

    Args:
        pairs: the modules that are solved for, by the model's name for them.
        device: where the model computes.
        room: bytes of it that the sums may take.
        with_student: every batch has the teachers first and the students behind them.
    """

    def __init__(
        self,
        pairs: Mapping[str, ModulePair],
        device: torch.device,
        room: float = math.inf,
        with_student: bool = False,
    ) -> None:
        self.moments = {name: Moments(pair, device) for name, pair in pairs.items()}
        self.room, self.with_student = room, with_student
        self.teacher: Teacher = (1.0, 0.0)
        self._seen = WeakTensorKeyDictionary()  # input → the first layer that has read it

    def observe(self, name: str, x: Tensor, out: Tensor, layer: nn.Module) -> None:
        """Count one batch; see `observation.Observer`.

        The student's layers are to give what the teacher's give: its LoRA's output, and what the
        base layer makes of the difference of their inputs. Where both read the same, as keys and
        values of a prompt do, there is nothing new to learn from the student.
        """
        moments = self.moments.get(name)
        if moments is None:
            return
        half = len(x) // 2 if self.with_student else len(x)
        if self.with_student and torch.equal(x[:half], x[half:]):
            del self.moments[name]
            return
        seen = tokens(x, layer)
        student = seen[-half:].flatten(0, 1)
        first: Moments | None = self._seen.get(x)
        if first is None:  # to_q, to_k and to_v read one input
            moments.add_input(student, self._place(moments))
            self._seen[x] = moments
        else:
            moments.second = first.second
        y = moments.added(seen[:half].flatten(0, 1), self.teacher)
        if self.with_student:
            base = places(out)
            y += (base[:half] - base[half:]).flatten(0, 1)
        moments.add_target(student, y)

    def _place(self, moments: Moments) -> torch.device:
        """Where a layer's S lives: on the device as long as there is room."""
        if moments.second is not None:
            return moments.second.device
        size = 4 * moments.downs[0].shape[1] ** 2
        if size > self.room:
            return torch.device("cpu")
        self.room -= size
        return moments.linear.device


def solve_coefficients(
    model: ObservableModel,
    pairs: Mapping[str, ModulePair],
    trained: Sequence[str],
    states: Sequence[tuple[Teacher, Sequence[State]]],
    settings: ClosedFormSettings,
    device: torch.device,
) -> tuple[dict[str, Tensor], list[str]]:
    """Solve for the coefficients `(2, in)` of the trained modules, in a few passes.

    Pass 1 takes every layer's input from the teachers. From pass 2 on it is the merge's own input,
    so that a layer makes good what those before it got wrong.

    Args:
        model: with the pairs' branches on it.
        pairs: all modules, by the model's name for them.
        trained: those that get coefficients.
        states: of each teacher: the gates of content and style, and its states; no targets are
            needed.
        device: where the model computes.

    Returns:
        the coefficients, and lines for the report.
    """
    solvable = [n for n in trained if pairs[n].one.down[0].numel() <= WIDEST]
    columns = {n: torch.ones(2, pairs[n].one.down.shape[1], device=device) for n in trained}
    unsolved: set[str] = set()
    for turn in range(settings.passes):
        student = turn > 0
        shown = {n: pairs[n] for n in solvable}
        calibration = Calibration(shown, device, settings.room, student)
        with model.observed(_teacher_and_student(pairs, columns), calibration.observe):
            for teacher, of_teacher in states:
                calibration.teacher = teacher
                for batch in batches(of_teacher, settings.batch):
                    _forward(model.denoise, batch, teacher, student)
        for name, moments in calibration.moments.items():
            solved = moments.solve(settings.ridge)
            if solved is None:
                unsolved.add(name)
            else:
                columns[name] = solved
    return columns, _notes(len(trained) - len(solvable), sorted(unsolved))


def _teacher_and_student(
    pairs: Mapping[str, ModulePair], columns: Mapping[str, Tensor]
) -> dict[str, Branches]:
    """Four branches a layer: content and style with coefficient 1, and as they are merged."""
    branches = {name: Branches((*pair.factors, *pair.factors)) for name, pair in pairs.items()}
    for name, column in columns.items():
        branches[name].fold(torch.cat([torch.ones_like(column), column]))
    return branches


@torch.no_grad()
def _forward(denoise: Denoise, batch: list[State], teacher: Teacher, with_student: bool) -> None:
    """Send teachers, and students behind them, through the model."""
    rows = torch.tensor([[*teacher, 0.0, 0.0]]).expand(len(batch), -1)
    if with_student:
        students = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(len(batch), -1)
        rows, batch = torch.cat([rows, students]), [*batch, *batch]
    predict(denoise, batch, Gates(rows))


def _notes(too_wide: int, unsolved: Sequence[str]) -> list[str]:
    """Say which layers the closed form has left alone."""
    notes = []
    if too_wide:
        notes.append(
            f"{too_wide} convolutions are too wide for the closed form: they keep coefficient 1"
        )
    if unsolved:
        notes.append(
            f"WARNING: {len(unsolved)} layers saw nothing, or numbers that are not finite, and "
            f"keep their coefficients, e.g. {unsolved[0]}"
        )
    return notes
