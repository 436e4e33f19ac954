"""The one training loop of the pack. It knows nothing of files' formats, of ComfyUI or of a UI."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .checkpoint import CheckpointFolder
from .errors import problem
from .keeping import attempt
from .optimisers import learning_rate_factor, make_optimiser
from .options import TrainingOptions
from .out_of_memory import unless_out_of_memory
from .trainable import Hooks, Trainable, TrainingRecord

logger = logging.getLogger(__name__)

_WINDOW = 10
"""Steps between two looks at how the loss goes."""
_PAUSE = 20
"""Times what the last checkpoint took: one of SDXL at rank 64 has a gigabyte."""


def train(
    task: Trainable,
    steps: int,
    options: TrainingOptions,
    hooks: Hooks,
    checkpoints: CheckpointFolder | None = None,
) -> TrainingRecord:
    """Run `steps` updates of `task.parameters`, with the manners every trainer shares.

    Cancel and any other exception write a checkpoint and the LoRA so far before they go on up;
    a stop request returns what was learned; a checkpoint of the same inputs is resumed, with the
    same result as if it had never stopped; memory that runs out switches to memory=low once;
    a loss that diverges or is not finite ends the run at the last good state. After the last step
    there is a checkpoint, too: whatever is made of the steps may fail.

    Raises:
        ZipLoRAError: it goes wrong before there is a good state, or memory runs out in memory=low.
    """
    loop = _Loop(task, steps, options, hooks, checkpoints)
    if options.resume == "auto":
        loop.resume()
    try:
        record = loop.run()
        loop.checkpoint()
        hooks.on_end(record)
        return record
    except BaseException:
        loop.keep()
        raise


def diverged(losses: Sequence[float]) -> str | None:
    """Say so when the last ten losses are five times the first ten, and worse than predicting
    nothing (1 in eps or v); None when they are not."""
    first, last = (sum(part) / _WINDOW for part in (losses[:_WINDOW], losses[-_WINDOW:]))
    return f"from {first:.3g} to {last:.3g}" if last > max(1.0, 5 * first) else None


@dataclass(frozen=True)
class _Good:
    """The state at a step after which the loss was still sane."""

    step: int
    parameters: list[Tensor]
    carried: Mapping[str, Tensor]


class _Loop:
    def __init__(
        self,
        task: Trainable,
        steps: int,
        options: TrainingOptions,
        hooks: Hooks,
        checkpoints: CheckpointFolder | None,
    ) -> None:
        self.task, self.steps = task, steps
        self.options, self.hooks, self.checkpoints = options, hooks, checkpoints
        name = task.optimiser if options.optimiser == "auto" else options.optimiser
        self.optimiser = make_optimiser(
            name, task.parameters, task.learning_rates, task.weight_decay
        )
        self.record = TrainingRecord()
        self.planned_low = task.low_memory
        self.good = [self._copy()]
        self.next_checkpoint = 0.0
        self.written: tuple[int, bool] | None = None  # the checkpoint's step, and whether it failed

    def run(self) -> TrainingRecord:
        started = time.perf_counter() - self.record.seconds
        while self.record.step < self.steps and self.record.stopped is None:
            if self.hooks.should_stop():
                self.record.stopped = f"stopped at {self.record.step} as asked"
                self.record.asked_to_stop = True
                self.checkpoint()
                break
            self._step()
            self.record.seconds = time.perf_counter() - started
            self.hooks.on_step(self.record)
            every = self.options.checkpoint_every
            if every and self.record.step % every == 0 and self.record.step < self.steps:
                self._checkpoint_in_time()
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
        self.optimiser.step()
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
        self.optimiser.zero_grad(set_to_none=True)
        self.hooks.free_memory()
        if not self.task.save_memory():
            raise problem(
                "memory",
                found=f"none left at step {step + 1}, in memory=low",
                expected="enough for one sample with checkpointed blocks",
                advice="Use smaller latents (a lower resolution) or a smaller batch, close "
                "other programs, or start ComfyUI with --reserve-vram.",
            )
        self.record.notes.append(f"memory ran out at step {step + 1}: went on with memory=low")
        return self._backward(step)

    def _roll_back(self, reason: str, good: _Good) -> None:
        """End the run at an earlier state, before things went wrong."""
        self.record.step = good.step
        if good.step == 0 and not self.hooks.start_counts:
            raise problem(
                "training",
                found=reason,
                expected="a loss that falls",
                advice="Lower the learning rate. If it is not the cause: the LoRAs and pictures "
                "that go in are to work on this checkpoint, strengths near 1.",
            )
        with torch.no_grad():
            for parameter, value in zip(self.task.parameters, good.parameters, strict=True):
                parameter.copy_(value)
        self.task.carry(good.carried)
        self.record.history = {n: v[: good.step] for n, v in self.record.history.items()}
        self.record.failed = True
        self.record.stopped = (
            f"{reason}: this is the state of step {good.step}; lower the learning rate"
        )

    def resume(self) -> None:
        """Take up a checkpoint of the same inputs, if there is one."""
        state = self.checkpoints.load() if self.checkpoints else None
        if state is None:
            return
        with torch.no_grad():
            for parameter, saved in zip(self.task.parameters, state["parameters"], strict=True):
                parameter.copy_(saved)
        self.optimiser.load_state_dict(state["optimiser"])
        self.task.carry(state["carried"])
        self.record.step = self.record.resumed_at = state["step"]
        self.record.history = state["history"]
        self.record.seconds = state["seconds"]
        self.record.notes = state["notes"]
        if state["low_memory"]:
            self.task.save_memory()
        self.good = [self._copy()]
        self.written = (state["step"], bool(state["failed"]))
        if state["failed"]:
            self.record.failed, self.record.stopped = True, state["failed"]
        elif self.options.early_stop:
            self.record.stopped = self.task.finished(self.record.history)
        logger.info("ZipLoRA: resumed at step %d from %s", state["step"], self.checkpoints)

    def keep(self) -> None:
        """Write a checkpoint and the LoRA so far, and say where they are.

        Nothing in here takes the place of what has cut the run short.
        """
        folder, notes = self.checkpoints, self.record.notes
        if folder is None:
            return
        if not attempt("writing the checkpoint", self.checkpoint, notes, False):
            folder.say_kept()  # an earlier one
            return
        attempt("writing the LoRA so far", lambda: self._save_loras(folder), notes, None)
        written = folder.lora_file if folder.lora_file.exists() else "none"
        logger.info(
            "ZipLoRA: step %d kept in %s; queue the same inputs to go on. LoRA so far: %s",
            self.record.step, folder.path, written,
        )  # fmt: skip

    def _save_loras(self, folder: CheckpointFolder) -> None:
        loras = {"lora": self.hooks.export(self.record), **self.hooks.parts(self.record)}
        for name, lora in loras.items():
            folder.save_lora(lora, name)

    def _checkpoint_in_time(self) -> None:
        """Write a checkpoint, unless writing them would take more than a twentieth of the time."""
        started = time.perf_counter()
        if started >= self.next_checkpoint and self.checkpoint():
            ended = time.perf_counter()
            self.next_checkpoint = ended + _PAUSE * (ended - started)

    def checkpoint(self) -> bool:
        """Write a checkpoint, unless it is there; returns whether there is one of this step.

        A disk or a memory that is full never costs the run: it is said and goes on.
        """
        if self.checkpoints is None or self.record.step == 0:
            return False
        now = (self.record.step, self.record.failed)
        if self.written == now:
            return True
        state = {
            "parameters": [p.detach().cpu() for p in self.task.parameters],
            "optimiser": self.optimiser.state_dict(),
            "carried": dict(self.task.carried),
            "step": self.record.step,
            "history": self.record.history,
            "seconds": self.record.seconds,
            "notes": self.record.notes,
            "low_memory": self.task.low_memory and not self.planned_low,  # as memory ran out
            "failed": self.record.stopped if self.record.failed else "",
        }
        try:
            self.checkpoints.save(state)
        except (OSError, MemoryError) as error:
            self.record.notes.append(f"no checkpoint at step {self.record.step}: {error}")
            logger.warning("ZipLoRA: %s", self.record.notes[-1])
            return False
        self.written = now
        return True

    def _copy(self) -> _Good:
        """Copy the parameters to the CPU: they may be hundreds of megabytes."""
        copied = [p.detach().to("cpu", copy=True) for p in self.task.parameters]
        return _Good(self.record.step, copied, dict(self.task.carried))
