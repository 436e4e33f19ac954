"""ZipLoRA's coefficients without gradients: least squares on every layer's own output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .branches import Branches, Gates
from .observation import ObservableModel, places, tokens
from .pairing import ModulePair
from .states import Denoise, State, batches, predict

WIDEST = 6144
"""Inputs times taps of the widest layer that is solved; wider ones keep coefficient 1."""


@dataclass(frozen=True)
class ClosedFormSettings:
    """How the coefficients are solved for.

    Args:
        passes: 1 looks at the single LoRAs only; every further one at the merge of the one before.
        ridge: how strongly a pass is held at the coefficients before it, relative to the mean of
            the quadratic's diagonal.
        batch: states that go through the model together.
    """

    passes: int = 2
    ridge: float = 1e-3
    batch: int = 2


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
        device: where the sums live.
    """

    def __init__(self, pair: ModulePair, device: torch.device) -> None:
        assert pair.content is not None and pair.style is not None
        halves = (pair.content, pair.style)
        self.width = pair.content.down.shape[1]
        self.downs = [f.down.flatten(1).to(device) for f in halves]  # (rank, in · taps)
        self.ups = [(f.scale * f.up).flatten(1).to(device) for f in halves]  # (out, rank)
        self.second: Tensor | None = None  # S, shared by layers that read the same input
        self.linear = torch.zeros(2, self.width, device=device)  # b

    def delta(self, branch: int, x: Tensor) -> Tensor:
        """Compute what one LoRA adds for tokens `(n, in · taps)`: `(n, out)`."""
        return (x @ self.downs[branch].T) @ self.ups[branch].T

    def add_target(self, x: Tensor, y: Tensor) -> None:
        """Count the targets `(n, out)` of tokens `(n, in · taps)`."""
        for branch, (down, up) in enumerate(zip(self.downs, self.ups, strict=True)):
            products = (down * ((y @ up).T @ x)).sum(0)
            self.linear[branch] += products.view(self.width, -1).sum(1)

    def solve(self, before: Tensor, ridge: float) -> Tensor | None:
        """Minimise the quadratic + ridge · mean(diag H) · ‖m − before‖².

        Args:
            before: `(2, in)`.

        Returns:
            m `(2, in)`, float32; None for a layer that never ran, or saw what is not finite.
        """
        if self.second is None:
            return None
        hessian = self._hessian()
        right = self.linear.double().flatten()
        weight = ridge * hessian.diagonal().mean()
        if not (weight > 0 and torch.isfinite(hessian).all() and torch.isfinite(right).all()):
            return None
        hessian.diagonal().add_(weight)
        right += weight * before.to(right).flatten()
        solved = torch.cholesky_solve(right[:, None], torch.linalg.cholesky(hessian))
        return solved.view(2, -1).float()

    def _hessian(self) -> Tensor:
        """H `(2 in, 2 in)`, float64."""
        assert self.second is not None
        second, n = self.second.double(), self.width
        downs, ups = ([part.double() for part in parts] for parts in (self.downs, self.ups))
        hessian = second.new_empty(2 * n, 2 * n)
        for a, b in ((0, 0), (0, 1), (1, 1)):
            block = downs[a].T @ (ups[a].T @ ups[b]) @ downs[b] * second
            block = block.view(n, -1, n, block.shape[1] // n).sum((1, 3))
            hessian[a * n : (a + 1) * n, b * n : (b + 1) * n] = block
            hessian[b * n : (b + 1) * n, a * n : (a + 1) * n] = block.T
        return hessian


class Calibration:
    """Collects the moments of all layers while states go through the model.

    Args:
        pairs: the modules that are solved for, by the model's name for them.
        device: where the sums live.
    """

    def __init__(self, pairs: Mapping[str, ModulePair], device: torch.device) -> None:
        self.moments = {name: Moments(pair, device) for name, pair in pairs.items()}
        self.concept, self.with_student = 0, False
        self._last: tuple[Tensor, Moments] | None = None

    def observe(self, name: str, x: Tensor, out: Tensor, layer: nn.Module) -> None:
        """Count one batch: teachers first and, after the first pass, students behind them.

        The student's layers are to give what the teacher's give: its LoRA's output, and what the
        base layer makes of the difference of their inputs.
        """
        moments = self.moments.get(name)
        if moments is None:
            return
        half = len(x) // 2 if self.with_student else len(x)
        seen = tokens(x, layer)
        student = seen[-half:].flatten(0, 1)
        if self._last is None or self._last[0] is not x:  # to_q, to_k and to_v read one input
            second = student.T @ student
            moments.second = second if moments.second is None else moments.second.add_(second)
            self._last = (x, moments)
        else:
            moments.second = self._last[1].second
        y = moments.delta(self.concept, seen[:half].flatten(0, 1))
        if self.with_student:
            base = places(out)
            y += (base[:half] - base[half:]).flatten(0, 1)
        moments.add_target(student, y)

    def forget_input(self) -> None:
        self._last = None


def solve_coefficients(
    model: ObservableModel,
    pairs: Mapping[str, ModulePair],
    trained: Sequence[str],
    states: Sequence[Sequence[State]],
    settings: ClosedFormSettings,
    device: torch.device,
) -> tuple[dict[str, Tensor], list[str]]:
    """Solve for the coefficients `(2, in)` of the trained modules, in a few passes.

    Pass 1 takes every layer's input from the single LoRAs. From pass 2 on it is the merge's own
    input, so that a layer makes good what those before it got wrong; each pass is held at the
    coefficients of the one before.

    Args:
        model: with the pairs' branches on it.
        pairs: all modules, by the model's name for them.
        trained: those that get coefficients.
        states: content's and style's; no targets are needed.
        device: where the sums live.

    Returns:
        the coefficients, and lines for the report.
    """
    solvable = [n for n in trained if pairs[n].one.down[0].numel() <= WIDEST]
    columns = {n: torch.ones(2, pairs[n].one.down.shape[1], device=device) for n in trained}
    notes: set[str] = set()
    if len(solvable) < len(trained):
        notes.add(
            f"{len(trained) - len(solvable)} convolutions are too wide for the closed form: they "
            "keep coefficient 1"
        )
    for turn in range(settings.passes):
        calibration = Calibration({n: pairs[n] for n in solvable}, device)
        calibration.with_student = turn > 0
        branches = {n: Branches((*p.factors, *p.factors)) for n, p in pairs.items()}
        for name, column in columns.items():
            branches[name].fold(torch.cat([torch.ones_like(column), column]))
        with model.observed(branches, calibration.observe), torch.no_grad():
            for concept, of_concept in enumerate(states):
                calibration.concept = concept
                for batch in batches(of_concept, settings.batch):
                    _forward(model.denoise, batch, concept, calibration.with_student)
                    calibration.forget_input()
        failed = 0
        for name, moments in calibration.moments.items():
            solved = moments.solve(columns[name], settings.ridge)
            if solved is None:
                failed += 1
            else:
                columns[name] = solved
        if failed:
            notes.add(
                f"{failed} layers saw nothing, or numbers that are not finite: they keep their "
                "coefficients"
            )
    return columns, sorted(notes)


def _forward(denoise: Denoise, batch: list[State], concept: int, with_student: bool) -> None:
    """Send teachers, and students behind them, through the model."""
    teacher = F.one_hot(torch.tensor(concept), 4).float().expand(len(batch), -1)
    student = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(len(batch), -1)
    rows = torch.cat([teacher, student]) if with_student else teacher
    predict(denoise, [*batch, *batch] if with_student else batch, Gates(rows))
