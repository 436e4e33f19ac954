"""Measurement of a run on the device: seconds, bytes, FLOPs and, where counted, waits."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import comfy.model_management
import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from sandbox.paths import DEVICE
from ziplora_core.comfy_adapter.model.memory import counting_module
from ziplora_core.comfy_adapter.model.memory_advice import unload_all_models
from ziplora_core.training.interface import ProgressCallbacks, TrainingRecord

from .models import CardModels
from .runs import RUNS

GIB = 2**30


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


def _attention_backward(gradient: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_backward_flop_count(gradient, query, key, value)


_FLASH_ON_CPU = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}
"""Operations of the pretend device; PyTorch itself knows the FLOPs of cards' kernels."""


@dataclass
class Taken:
    """The measurements of one run of a trainer.

    Args:
        memory: the memory mode at the end.
        seconds: seconds of a step, the median without the first; of the whole closed form.
        peak: peak bytes beyond those in use before; None if the device does not count them.
        tflop: operations of the last step, if counted.
        waits: waits of the CPU in the last step, if the device counts them.
        expected: whether the fault is one of time or memory.
        fault: the error that ended the run, if any.
    """

    memory: str
    seconds: float | None = None
    peak: int | None = None
    tflop: float | None = None
    waits: int | None = None
    fault: str = ""
    expected: bool = True
    report: str = ""


@dataclass
class _Marks:
    """The time and the CPU's waits at the end of each step, the operations of the last one, and the
    peak before the first one, where a trainer resets the device's count."""

    device: torch.device
    steps: int
    flops: FlopCounterMode | None
    times: list[float] = field(default_factory=list)
    waited: list[int] = field(default_factory=list)
    peak: int = 0
    counting: bool = False
    until: float = math.inf

    def look(self, *_said: Any) -> None:
        """Update the peak; interrupt a run that takes too long."""
        if time.monotonic() > self.until:
            raise TooLongError
        if module := counting_module(self.device):
            self.peak = max(self.peak, module.max_memory_allocated(self.device))

    def __call__(self, record: TrainingRecord) -> None:
        if time.monotonic() > self.until:
            raise TooLongError
        if record.step != len(self.times) + 1:
            return
        synchronise(self.device)
        self.times.append(time.perf_counter())
        self.waited.append(waits())
        if self.flops and record.step == self.steps - 1:
            self.flops.__enter__()
            self.counting = True
        else:
            self.stop_counting()

    def stop_counting(self) -> None:
        """Exit the FLOP counter, if it was entered."""
        if self.flops and self.counting:
            self.flops.__exit__(None, None, None)
            self.counting = False


class TooLongError(BaseException):
    """A run is not done in time; not an `Exception`, which a session would only note."""

    def __str__(self) -> str:
        return "no time was left"


def take(
    models: CardModels,
    name: str,
    memory: str,
    steps: int,
    count_flops: bool = False,
    until: float = math.inf,
) -> Taken:
    """Run a trainer and return its measurements.

    Args:
        models: models and pictures.
        name: name of a run.
        memory: `auto`, `fast` or `low`.
        steps: steps of the training, at least two.
        until: time, by `time.monotonic`, at which the run is interrupted.
        count_flops: whether to count the operations of the last step, which takes time.
    """
    unload_all_models()
    comfy.model_management.soft_empty_cache()
    device = comfy.model_management.get_torch_device()
    flops = FlopCounterMode(display=False, custom_mapping=_FLASH_ON_CPU) if count_flops else None
    marks, taken = _Marks(device, steps, flops, until=until), Taken(memory)
    module = counting_module(device)
    if module is not None:
        module.reset_peak_memory_stats(device)
    begun = time.perf_counter()
    try:
        taken.report = _run(models, name, memory, steps, marks).report
    except (Exception, TooLongError) as error:  # noqa: BLE001 (the table says what failed)
        taken.expected = isinstance(error, TooLongError) or str(error).startswith("memory: ")
        taken.fault = f"{type(error).__name__}: {error}".splitlines()[0]
    finally:
        marks.stop_counting()
    synchronise(device)
    whole = time.perf_counter() - begun
    marks.until = math.inf
    marks.look()
    taken.peak = marks.peak if module is not None else None
    each = [b - a for a, b in zip(marks.times, marks.times[1:], strict=False)]
    taken.seconds = median(each) if each else whole
    if flops is not None and each:
        taken.tflop = flops.get_total_flops() / 1e12
    if each and waits() >= 0:
        taken.waits = marks.waited[-1] - marks.waited[-2]
    return taken


def _run(models: CardModels, name: str, memory: str, steps: int, marks: _Marks) -> Any:
    callbacks = ProgressCallbacks(on_step=marks, on_prepare=marks.look, on_status=marks.look)
    with TemporaryDirectory() as folder, torch.inference_mode():
        return RUNS[name](models, memory, steps, Path(folder), callbacks)


def synchronise(device: torch.device) -> None:
    """Wait for the device's queued work."""
    if device.type != "cpu":
        torch.get_device_module(device).synchronize()


def waits() -> int:
    """Return how often the CPU has waited for the pretend device so far; −1 on a real one."""
    if DEVICE != "pretend":
        return -1
    import torch_npu

    counts = torch_npu.device.counts()
    return counts["to_device"] + counts["to_host"] + counts["waits"]
