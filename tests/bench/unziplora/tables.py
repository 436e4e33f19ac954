"""Tables of UnZipLoRA's step and of one with dense updates: time, and bytes autograd keeps."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sandbox.unziplora_reference import UnZipLoRALinear
from ziplora_core.lora.layers import reads_prompt
from ziplora_core.training.noisy_samples import predict
from ziplora_core.training.optimisers import make_optimiser

from ..clock import BASE, Turns
from ..engine.memory import MIB, saved_bytes
from ..engine.models import SIZES
from ..table import Table
from .task import Task, open_task

OURS, LOW, DENSE = "UnZipLoRA", "UnZipLoRA, memory=low", "dense updates"
CLOSED = 10
"""A step with only chosen features, as nearly all steps are."""
ROUNDS = 3
COLUMNS = {"units": ".2f", "of dense": ".1%", "kept MiB": ",.1f", "kept, of dense": ".1%",
           "seconds": ".3f"}  # fmt: skip


class Step:
    """Our step, as the training loop makes it: gradient, clipping, the losses' values, update."""

    def __init__(self, task: Task, low: bool = False) -> None:
        self.task, self.low = task, low
        objective = task.objective
        rates = objective.learning_rates
        self.optimiser = make_optimiser("adamw", objective.parameters, rates)

    def __call__(self, n: int) -> float:
        """Make one step; return its loss."""
        objective, self.task.opened.checkpointing = self.task.objective, self.low
        self.optimiser.zero_grad(set_to_none=True)
        terms = objective.backward(CLOSED + n)
        torch.nn.utils.clip_grad_norm_(objective.parameters, 1.0)
        loss, *_ = torch.stack(list(terms.values())).tolist()
        self.optimiser.step()
        objective.after_step()
        self.task.opened.checkpointing = False
        return loss


class DenseStep:
    """The public implementation's step on the same model, with dense updates of layers."""

    def __init__(self, task: Task) -> None:
        self.task, self.linears = task, task.dense()
        self.leaves = [
            leaf for of in self.linears.values() for leaf in (*of.down, *of.up, *of.merge)
        ]  # fmt: skip
        self.optimiser = torch.optim.AdamW(self.leaves, lr=0.0, weight_decay=1e-4)

    def predict(self) -> Tensor:
        with added(self.task, self._of_linears()):
            return predict(self.task.opened.denoise, [self.task.state], None)

    def _of_linears(self) -> dict[str, Callable[[Tensor], Tensor]]:
        content, style = self.task.contexts[:, None]

        def of(name: str, linear: UnZipLoRALinear) -> Callable[[Tensor], Tensor]:
            return lambda h: linear.forward(*((content, style) if reads_prompt(name) else (h, h)))

        return {name: of(name, linear) for name, linear in self.linears.items()}

    def __call__(self, _n: int) -> float:
        self.optimiser.zero_grad(set_to_none=True)
        assert self.task.state.target is not None
        error = F.mse_loss(self.predict()[0], self.task.state.target)
        penalty = torch.stack([linear.orthogonality() for linear in self.linears.values()]).mean()
        (error + 0.5 * penalty).backward()
        torch.nn.utils.clip_grad_norm_(self.leaves, 1.0)
        self.optimiser.step()
        return float(error.detach())


@contextmanager
def added(task: Task, to: Mapping[str, Callable[[Tensor], Tensor]]) -> Iterator[None]:
    """Add tensors to the outputs of layers, in place of the pack's branches."""
    modules, handles = dict(task.opened.model.named_modules()), []
    for name, of in to.items():

        def hook(_m: Any, inputs: Any, out: Tensor, of: Any = of) -> Tensor:
            return out + of(inputs[0])

        layer = modules[task.keys[name].removesuffix(".weight")]
        handles.append(layer.register_forward_hook(hook))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def kept_by_loras(task: Task, dense: DenseStep) -> dict[str, int]:
    """Count the bytes that autograd keeps for our LoRAs and for dense ones.

    The bytes that frozen layers keep anyway are subtracted. They are measured with a zero that
    requires a gradient, added to the same outputs.
    """
    zero = torch.zeros((), device=task.opened.device, requires_grad=True)

    def frozen() -> Tensor:
        with added(task, dict.fromkeys(task.keys, lambda h: zero)):
            return predict(task.opened.denoise, [task.state], None)

    objective = task.objective

    def ours() -> Tensor:
        objective.fold()
        gates = objective.gates([objective._draws(0)[0]])
        return predict(task.opened.denoise, [task.state], gates)

    weights = list(task.opened.model.diffusion_model.parameters())
    leaves = [*weights, *objective.parameters, *dense.leaves, task.contexts, zero]
    without = saved_bytes(frozen, leaves)
    return {
        OURS: saved_bytes(ours, leaves) - without,
        DENSE: saved_bytes(dense.predict, leaves) - without,
    }


def tables(sizes: Iterable[str], rounds: int = ROUNDS) -> Iterator[Table]:
    """Measure each size; on the CPU in seconds of one thread, without other processes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for size in sizes:
            with open_task(SIZES[size]) as task:
                yield table(task, rounds)
    finally:
        torch.set_num_threads(threads)


def table(task: Task, rounds: int) -> Table:
    """Measure one size."""
    dense = DenseStep(task)
    cpu = task.opened.device.type == "cpu"
    turns = Turns(
        {BASE: task.base, OURS: Step(task), LOW: Step(task, low=True), DENSE: dense},
        time.process_time if cpu else time.perf_counter,
    )
    turns.take(rounds)
    kept = kept_by_loras(task, dense)
    rows: dict[str, dict[str, float | None]] = {
        name: {
            "units": turns.units(name),
            "of dense": turns.units(name) / turns.units(DENSE),
            "kept MiB": kept[name] / MIB if name in kept else None,
            "kept, of dense": kept[name] / kept[DENSE] if name in kept else None,
            "seconds": turns.seconds(name),
        }
        for name in turns.contenders
    }
    return Table(
        f"A step of UnZipLoRA, {task.describe()}",
        COLUMNS,
        rows,
        [
            "kept: what autograd keeps of both LoRAs' path for the backward pass, beyond what the "
            "frozen layers keep anyway",
            f"medians of {len(turns.taken[OURS])} rounds of {turns.calls} steps, in turns; units: "
            "by the turn of the base right before; on the CPU one thread, by its own time",
        ],
        {"kept by ours": kept[OURS], "kept by dense": kept[DENSE]},
    )
