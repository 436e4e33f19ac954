"""What a run takes of the device: seconds, bytes, products, and waits where they are counted."""

from __future__ import annotations

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
from ziplora_core.comfy_adapter.memory import counting_module
from ziplora_core.trainable import TrainingRecord, Watch

from .runs import RUNS
from .studio import Studio

GIB = 2**30


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


def _attention_backward(gradient: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_backward_flop_count(gradient, query, key, value)


_FLASH_ON_CPU = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}
"""What the pretend device calls; PyTorch knows what the kernels of cards compute."""


@dataclass
class Taken:
    """What one run of a trainer took.

    Args:
        memory: the mode it ended in.
        seconds: of a step, the median without the first; of the closed form, of the whole node.
        peak: bytes of the device, beside what was there before; None where nobody counts.
        tflop: of the last step, if that was to be counted.
        waits: of the last step, where the device counts them.
        fault: what it stopped with, if it did.
    """

    memory: str
    seconds: float | None = None
    peak: int | None = None
    tflop: float | None = None
    waits: int | None = None
    fault: str = ""
    report: str = ""


@dataclass
class _Marks:
    """When each step was done, how often the CPU had waited by then, what the last one computed,
    and the most bytes before the first: a trainer counts its own from there."""

    device: torch.device
    steps: int
    flops: FlopCounterMode | None
    times: list[float] = field(default_factory=list)
    waited: list[int] = field(default_factory=list)
    peak: int = 0
    counting: bool = False

    def look(self, *_said: Any) -> None:
        """Take note of the most bytes so far."""
        if module := counting_module(self.device):
            self.peak = max(self.peak, module.max_memory_allocated(self.device))

    def __call__(self, record: TrainingRecord) -> None:
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
        """Leave the counter, if it was entered."""
        if self.flops and self.counting:
            self.flops.__exit__(None, None, None)
            self.counting = False


def take(studio: Studio, name: str, memory: str, steps: int, count_flops: bool = False) -> Taken:
    """Run a trainer, and say what it took.

    Args:
        studio: models and pictures.
        name: of a run.
        memory: `auto`, `fast` or `low`.
        steps: of the training; two of them, at least, are looked at.
        count_flops: count the multiplications and additions of the last step, which takes time.
    """
    comfy.model_management.unload_all_models()
    comfy.model_management.soft_empty_cache()
    device = comfy.model_management.get_torch_device()
    flops = FlopCounterMode(display=False, custom_mapping=_FLASH_ON_CPU) if count_flops else None
    marks, taken = _Marks(device, steps, flops), Taken(memory)
    module = counting_module(device)
    if module is not None:
        module.reset_peak_memory_stats(device)
    begun = time.perf_counter()
    try:
        taken.report = _run(studio, name, memory, steps, marks).report
    except Exception as error:  # noqa: BLE001 (the table says what did not work)
        taken.fault = f"{type(error).__name__}: {error}".splitlines()[0]
    finally:
        marks.stop_counting()
    synchronise(device)
    whole = time.perf_counter() - begun
    marks.look()
    taken.peak = marks.peak if module is not None else None
    each = [b - a for a, b in zip(marks.times, marks.times[1:], strict=False)]
    taken.seconds = median(each) if each else whole
    if flops is not None and each:
        taken.tflop = flops.get_total_flops() / 1e12
    if each and waits() >= 0:
        taken.waits = marks.waited[-1] - marks.waited[-2]
    return taken


def _run(studio: Studio, name: str, memory: str, steps: int, marks: _Marks) -> Any:
    watch = Watch(on_step=marks, on_prepare=marks.look, on_status=marks.look)
    with TemporaryDirectory() as folder, torch.inference_mode():
        return RUNS[name](studio, memory, steps, Path(folder), watch)


def synchronise(device: torch.device) -> None:
    """Wait until the device has done all it was told."""
    if device.type != "cpu":
        torch.get_device_module(device).synchronize()


def waits() -> int:
    """How often the CPU has waited for the pretend device so far; −1 on a real one."""
    if DEVICE != "pretend":
        return -1
    import torch_npu

    counts = torch_npu.device.counts()
    return counts["to_device"] + counts["to_host"] + counts["waits"]
