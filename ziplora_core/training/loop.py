"""The training loop of all trainers, independent of file formats, ComfyUI and the UI."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import problem
from .checkpoint import CheckpointFolder
from .interface import LoopCallbacks, TrainingRecord, TrainingTask
from .optimisers import learning_rate_factor, make_optimiser
from .options import TrainingOptions
from .out_of_memory import unless_out_of_memory
from .run_checkpoints import RunCheckpoints

_WINDOW = 10
"""Steps between two checks for divergence, and steps whose losses a check averages."""


def train(
    task: TrainingTask,
    steps: int,
    options: TrainingOptions,
    callbacks: LoopCallbacks,
    checkpoints: CheckpointFolder | None = None,
) -> TrainingRecord:
    """Run `steps` updates of `task.parameters`, with the behaviour that all trainers share.

    - A cancel or any other exception writes a checkpoint and the current LoRA, then propagates.
    - A stop request ends the run and keeps its result.
    - A checkpoint of the same inputs is resumed, with the result of a run without interruption.
    - When memory runs out, the run switches to memory=low, once.
    - A loss that diverges or is not finite ends the run at the last good state.
    - After the last step there is a checkpoint, too, since later parts of the run may fail.

    Raises:
        ZipLoRAError: the loss fails before there is a good state, or memory runs out in memory=low.
    """
    loop = _Loop(task, steps, options, callbacks, checkpoints)
    if options.resume == "auto":
        loop.resume()
    callbacks.on_start(loop.record)
    try:
        record = loop.run()
        loop.checkpoints.write()
        callbacks.on_end(record)
        return record
    except BaseException:
        loop.checkpoints.keep()
        raise


def diverged(losses: Sequence[float]) -> str | None:
    """Return a description of the rise if the losses have diverged, else None.

    Diverged: the mean of the last ten losses exceeds five times that of the first ten, and 1, the
    error of predicting zero in eps or v.
    """
    first, last = (sum(part) / _WINDOW for part in (losses[:_WINDOW], losses[-_WINDOW:]))
    return f"from {first:.3g} to {last:.3g}" if last > max(1.0, 5 * first) else None


@dataclass(frozen=True)
class _Good:
    """The parameters and extra state at a step where the loss had not diverged."""

    step: int
    parameters: list[Tensor]
    extra_state: Mapping[str, Tensor]


class _Loop:
    def __init__(
        self,
        task: TrainingTask,
        steps: int,
        options: TrainingOptions,
        callbacks: LoopCallbacks,
        checkpoints: CheckpointFolder | None,
    ) -> None:
        self.task, self.steps = task, steps
        self.options, self.callbacks = options, callbacks
        name = task.optimiser if options.optimiser == "auto" else options.optimiser
        self.optimiser = make_optimiser(
            name, task.parameters, task.learning_rates, task.weight_decay
        )
        self.record = TrainingRecord()
        self.good = [self._copy()]
        self.checkpoints = RunCheckpoints(
            checkpoints, task, self.optimiser, self.record, steps, callbacks
        )

    def run(self) -> TrainingRecord:
        """Run the remaining steps, until the last one or an early end."""
        started = time.perf_counter() - self.record.seconds
        while self.record.step < self.steps and self.record.stopped is None:
            if self.callbacks.should_stop():
                self.record.stopped = f"stopped after step {self.record.step} on request"
                self.record.asked_to_stop = True
                self.checkpoints.write()
                break
            self._step()
            self.record.seconds = time.perf_counter() - started
            self.callbacks.on_step(self.record)
            every = self.options.checkpoint_every
            if every and self.record.step % every == 0 and self.record.step < self.steps:
                self.checkpoints.write_in_time()
        return self.record

    def _step(self) -> None:
        step = self.record.step
        for group in self.optimiser.param_groups:
            group["lr"] = group["base"] * learning_rate_factor(
                step, self.steps, self.options.schedule, self.options.warm_up_steps
            )
        self.optimiser.zero_grad(set_to_none=True)
        terms = self._backward(step)
        norm = torch.nn.utils.clip_grad_norm_(
            self.task.parameters, self.options.gradient_clip or math.inf
        )
        *values, norm = torch.stack([*terms.values(), norm.to(terms["loss"])]).tolist()
        if not all(map(math.isfinite, [*values, norm])):
            self._roll_back(f"the loss was not finite at step {step + 1}", self.good[-1])
            return
        if not self._update(step):
            return
        self.task.after_step()
        for name, value in zip(terms, values, strict=True):
            self.record.history.setdefault(name, []).append(value)
        self.record.step += 1
        if self.record.step % _WINDOW == 0:
            if rise := diverged(self.record.history["loss"]):
                self._roll_back(f"the loss has diverged by step {step + 1} ({rise})", self.good[0])
                return
            self.good = [self.good[-1], self._copy()]
        if self.options.early_stop:
            self.record.stopped = self.task.finished(self.record.history)

    def _backward(self, step: int) -> Mapping[str, Tensor]:
        terms = unless_out_of_memory(lambda: self.task.backward(step))
        if terms is not None:
            return terms
        self._go_on_with_less(step)
        return self._backward(step)

    def _update(self, step: int) -> bool:
        """Update the parameters; return False when the step is to be done again, with less memory.

        The first update allocates the optimiser's state; whatever it has changed is taken back.
        """
        first = not self.optimiser.state
        self.checkpoints.begin_update()
        if unless_out_of_memory(lambda: (self.optimiser.step(),)) is not None:
            self.checkpoints.end_update()
            return True
        if first:
            self.optimiser.state.clear()
            self._restore(self.good[-1])
            self.checkpoints.end_update()
        self._go_on_with_less(step, again=first)
        return False

    def _go_on_with_less(self, step: int, again: bool = True) -> None:
        """Free memory and switch to low memory; raise when neither is left or `again` is False."""
        self.optimiser.zero_grad(set_to_none=True)
        self.callbacks.free_memory()
        if not again or not self.task.save_memory():
            raise problem(
                "memory",
                found=f"none left at step {step + 1}"
                + (", in memory=low" if self.task.low_memory else ""),
                expected="enough for one sample with checkpointed blocks",
                advice="Use smaller latents (a lower resolution) or a smaller batch, close "
                "other programs, or start ComfyUI with --reserve-vram.",
            )
        self.record.notes.append(f"memory ran out at step {step + 1}: went on with memory=low")

    def _roll_back(self, reason: str, good: _Good) -> None:
        """End the run at an earlier state, from before the failure."""
        self.record.step = good.step
        if good.step == 0 and not self.callbacks.start_counts:
            raise problem(
                "training",
                found=reason,
                expected="a loss that falls",
                advice="Lower the learning rate. If that does not help, check that the LoRAs and "
                "pictures fit this checkpoint, and keep strengths near 1.",
            )
        self._restore(good)
        self.task.load_extra_state(good.extra_state)
        self.record.history = {n: v[: good.step] for n, v in self.record.history.items()}
        self.record.failed = True
        self.record.stopped = (
            f"{reason}: this is the state of step {good.step}; lower the learning rate"
        )

    def _restore(self, good: _Good) -> None:
        """Copy the parameters back."""
        with torch.no_grad():
            for parameter, value in zip(self.task.parameters, good.parameters, strict=True):
                parameter.copy_(value)

    def resume(self) -> None:
        """Continue from a checkpoint of the same inputs, if there is one."""
        if self.checkpoints.resume():
            self.good = [self._copy()]

    def _copy(self) -> _Good:
        """Copy the parameters to the CPU, as they may have hundreds of megabytes."""
        copied = [p.detach().to("cpu", copy=True) for p in self.task.parameters]
        return _Good(self.record.step, copied, dict(self.task.extra_state))
