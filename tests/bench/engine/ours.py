"""Our step, as the training loop makes it."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ziplora_core.coefficients import MergerCoefficients
from ziplora_core.optimisers import make_optimiser
from ziplora_core.options import ZipSettings
from ziplora_core.states import State
from ziplora_core.zip_objective import ZipObjective

from .task import Task

Targets = Callable[[int], list[State]]
"""Content's and style's n-th state, with their teachers' targets."""


class Ours:
    """ZipObjective.backward, clipping, the losses' values, and the optimiser.

    Args:
        task: what it trains on.
        targets: from the pool, or by asking the teachers at every step.
        low: memory=low instead of fast.
    """

    def __init__(self, task: Task, targets: Targets, low: bool = False) -> None:
        self.task, self.targets, self.low = task, targets, low
        widths = {name: branches.width for name, branches in task.branches.items()}
        self.objective = ZipObjective(
            model=task.opened,
            branches=task.branches,
            coefficients=MergerCoefficients(widths, task.device),
            pairs=task.pairs,
            states=([], []),
            settings=ZipSettings(),
        )
        rates = self.objective.learning_rates
        self.optimiser = make_optimiser("adam", self.objective.parameters, rates)

    def __call__(self, n: int) -> dict[str, float]:
        """Make the n-th step; returns the terms of its loss."""
        self.task.opened.checkpointing = self.low
        content, style = self.targets(n)
        self.objective.states = ([content], [style])
        self.optimiser.zero_grad(set_to_none=True)
        terms = self.objective.backward(n)
        torch.nn.utils.clip_grad_norm_(self.objective.parameters, 1.0)
        values = torch.stack(list(terms.values())).tolist()
        self.optimiser.step()
        self.task.opened.checkpointing = False
        return dict(zip(terms, values, strict=True))

    @property
    def gradient(self) -> torch.Tensor:
        """The last step's, clipped."""
        assert self.objective.coefficients.flat.grad is not None
        return self.objective.coefficients.flat.grad

    @property
    def coefficients(self) -> torch.Tensor:
        return self.objective.coefficients.flat.detach()
