"""Run a training of the world: a line every hundred steps, a checkpoint every few minutes."""

from __future__ import annotations

import json
import math
import pickle
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sandbox.commands import say
from sandbox.paths import SANDBOX

from .muon import Muon

FOLDER = SANDBOX / "miniworld"
CHECKPOINT_SECONDS = 180.0
LOG_EVERY = 100
MUON = 3.5
"""Muon's learning rate as a multiple of AdamW's."""

Line = dict[str, float]


@dataclass(frozen=True)
class Schedule:
    """The learning rate: up in a line, then down half a cosine.

    Without restarts: Loshchilov & Hutter 2017, arXiv:1608.03983, eq. 5.
    """

    steps: int
    highest: float
    last: float
    warm_up: int = 200

    def rate(self, step: int) -> float:
        """Compute the learning rate of a step."""
        if step < self.warm_up:
            return self.highest * (step + 1) / self.warm_up
        done = (step - self.warm_up) / max(self.steps - self.warm_up, 1)
        return self.last + (self.highest - self.last) * (1 + math.cos(math.pi * done)) / 2


def run(training: Training, schedule: Schedule, name: str, folder: Path = FOLDER) -> list[Line]:
    """Train to the end of the schedule, from the checkpoint in the folder if there is one.

    Args:
        name: of the checkpoint, and in what is said.

    Returns:
        the log: step, mean loss since the line before, seconds a step.
    """
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / f"{name}.pt"
    log = _resume(training, checkpoint)
    losses: list[float] = []
    begun = saved = time.monotonic()
    while training.step < schedule.steps:
        losses.append(training.advance(schedule.rate(training.step)))
        now = time.monotonic()
        if training.step % LOG_EVERY == 0 or training.step == schedule.steps:
            line = _line(training.step, losses, now - begun)
            log.append(line)
            say(" ".join([name, *(f"{key} {value}" for key, value in line.items())]))
            losses, begun = [], now
        if now - saved > CHECKPOINT_SECONDS or training.step == schedule.steps:
            _save(checkpoint, {**training.state(), "log": json.dumps(log)})
            saved = now
    return log


class Averaged:
    """AdamW, Muon for some matrices, and a moving average of what they train, which is saved.

    Args:
        parameters: all that is trained.
        matrices: those of them that Muon trains.
    """

    def __init__(
        self, parameters: list[nn.Parameter], decay: float, matrices: Sequence[nn.Parameter] = ()
    ) -> None:
        self.parameters, self.decay = parameters, decay
        self.averages = [p.detach().clone() for p in parameters]
        chosen = {id(p) for p in matrices}
        rest = [p for p in parameters if id(p) not in chosen]
        self.adam = torch.optim.AdamW(rest, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
        self.muon = Muon(matrices) if matrices else None

    def step(self, learning_rate: float, step: int) -> None:
        """Clip the gradient to norm 1, take a step and follow it with the average."""
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.adam.param_groups[0]["lr"] = learning_rate
        self.adam.step()
        if self.muon:
            self.muon.param_groups[0]["lr"] = MUON * learning_rate
            self.muon.step()
        for parameter in self.parameters:
            parameter.grad = None
        keep = min(self.decay, (2 + step) / (11 + step))
        torch._foreach_lerp_(self.averages, self.parameters, 1 - keep)

    def state(self) -> dict[str, Any]:
        return {
            "parameters": [p.detach() for p in self.parameters],
            "averages": self.averages,
            "adam": self.adam.state_dict(),
            "muon": self.muon and self.muon.state_dict(),
        }

    @torch.no_grad()
    def restore(self, state: dict[str, Any]) -> None:
        for mine, saved in (
            (self.parameters, state["parameters"]),
            (self.averages, state["averages"]),
        ):
            for tensor, value in zip(mine, saved, strict=True):
                tensor.copy_(value)
        self.adam.load_state_dict(state["adam"])
        if self.muon:
            self.muon.load_state_dict(state["muon"])

    def of(self, module: nn.Module) -> dict[str, Tensor]:
        """Give a module's state with the averages in place of what was trained."""
        averages = {id(p): a for p, a in zip(self.parameters, self.averages, strict=True)}
        state = {name: averages.get(id(p), p.detach()) for name, p in module.named_parameters()}
        return {**dict(module.named_buffers()), **state}


class Training:
    """A loss and what follows it down; its draws depend on the seed and the step only."""

    step = 0
    averaged: Averaged

    def loss(self) -> Tensor:
        """Compute the loss of the current step."""
        raise NotImplementedError

    def advance(self, learning_rate: float) -> float:
        """Take one step and give its loss."""
        loss = self.loss()
        loss.backward()
        self.averaged.step(learning_rate, self.step)
        self.step += 1
        return loss.item()

    def state(self) -> dict[str, Any]:
        return {"step": self.step, **self.averaged.state()}

    def restore(self, state: dict[str, Any]) -> None:
        self.step = state["step"]
        self.averaged.restore(state)


def _resume(training: Training, checkpoint: Path) -> list[Line]:
    if not checkpoint.is_file():
        return []
    try:
        state = torch.load(checkpoint, weights_only=True)
        training.restore(state)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, KeyError, ValueError) as error:
        raise SystemExit(
            f"{checkpoint}: cannot be read, or is of another model ({type(error).__name__}). "
            "Delete it to begin anew."
        ) from error
    say(f"{checkpoint.stem}: resuming at step {training.step}")
    return json.loads(state["log"])


def _line(step: int, losses: list[float], seconds: float) -> Line:
    mean = sum(losses) / len(losses)
    return {"step": step, "loss": round(mean, 5), "seconds": round(seconds / len(losses), 3)}


def _save(path: Path, state: dict[str, Any]) -> None:
    part = path.with_suffix(".part")
    torch.save(state, part)
    part.replace(path)
