"""One method on one pair: merge, draw, measure."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType

import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from miniworld.parts import Parts
from miniworld.probes import Probe
from ziplora_core.files.writer import kohya_tensors
from ziplora_core.lora.pair import LoRAPair

from .measure import (
    References,
    RetentionTest,
    mean_layer_cosine,
    overlap,
    palette_distance,
    references,
    seen,
)
from .methods import Merge, Method, Task
from .sources import CONTENT_STEPS, STYLE_STEPS, content_lora, style_lora
from .subjects import CONTENT_PROMPT, CONTEXTS, JOINT_PROMPT, Pair, context_prompt

PICTURES = 4
"""Drawn of each prompt; two of each context."""


@dataclass(frozen=True)
class Figures:
    """One row of the table; see `table.COLUMNS` for what each figure says."""

    subject: float
    style: float
    joint_subject: float
    joint_style: float
    prompt: float
    overlap: float
    palette: float
    content_retention: float
    style_retention: float
    layer_cosine: float | None
    seconds: float
    memory: float

    def as_dict(self) -> dict[str, float | None]:
        return asdict(self)


@dataclass(frozen=True)
class Outcome:
    figures: Figures
    pictures: Mapping[str, Tensor]
    merge: Merge


@dataclass
class Bench:
    """A pair with its LoRAs trained, ready for every method."""

    task: Task
    probes: Mapping[str, Probe]
    refs: References
    retention: RetentionTest = field(init=False)

    def __post_init__(self) -> None:
        loras = self.task.loras
        single = [
            self.task.parts.with_lora(kohya_tensors(lora.modules))
            for lora in (loras.content, loras.style)
        ]
        self.retention = RetentionTest(self.task.parts, self.task.pair, self.refs, single)

    def merged(self, method: Method, seed: int) -> tuple[Merge, ModelPatcher]:
        """Merge by a method, and put the merge on the model."""
        torch.manual_seed(seed)
        merge, parts = method(self.task, seed), self.task.parts
        if not merge.modules:
            return merge, parts.model
        return merge, parts.with_lora(kohya_tensors(merge.modules))

    def draw(self, model: ModelPatcher, concept: str, seed: int) -> Tensor:
        """Draw from the prompt of the content, of the style or of both (joint)."""
        style = self.task.pair.style_prompt
        prompts = {"content": CONTENT_PROMPT, "style": style, "joint": JOINT_PROMPT}
        return self.task.parts.draw(model, prompts[concept], PICTURES, seed)

    def run(self, method: Method, seed: int) -> Outcome:
        """Merge by a method and measure; the seed is the merge's and the pictures'."""
        with Cost() as cost:
            merge, model = self.merged(method, seed)
        parts, pair = self.task.parts, self.task.pair
        drawn = {name: self.draw(model, name, seed) for name in ("content", "style", "joint")}
        for context in CONTEXTS:
            drawn[context] = parts.draw(model, context_prompt(context), PICTURES // 2, seed)
        content, style = self.retention(model)
        recontextualised = [
            seen(self.probes["subject"], factor, context, drawn[context])
            for context, factor in CONTEXTS.items()
        ]
        figures = Figures(
            subject=self.refs.content.alignment(drawn["content"]),
            style=self.refs.style.alignment(drawn["style"]),
            joint_subject=self.refs.content.alignment(drawn["joint"]),
            joint_style=self.refs.style.alignment(drawn["joint"]),
            prompt=sum(recontextualised) / len(recontextualised),
            overlap=overlap(drawn["joint"], pair),
            palette=palette_distance(drawn["joint"], pair),
            content_retention=content,
            style_retention=style,
            layer_cosine=mean_layer_cosine(merge.merged) if merge.merged else None,
            seconds=cost.seconds,
            memory=cost.memory,
        )
        return Outcome(figures, drawn, merge)


def make_bench(
    parts: Parts,
    pair: Pair,
    probes: Mapping[str, Probe],
    steps: tuple[int, int] = (CONTENT_STEPS, STYLE_STEPS),
) -> Bench:
    """Train the pair's two LoRAs, content and style, for so many steps."""
    content, style = content_lora(parts, pair, steps[0]), style_lora(parts, pair, steps[1])
    return Bench(Task(parts, pair, LoRAPair(content, style)), probes, references(pair, probes))


class Cost:
    """Seconds of a block, and by how many MiB the process grew in it at most."""

    seconds = 0.0
    memory = 0.0

    def __enter__(self) -> Cost:
        self._begun, self._before, self._peak = time.monotonic(), _resident(), _resident()
        self._done = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.seconds = time.monotonic() - self._begun
        self._done.set()
        self._watcher.join()
        self.memory = max(self._peak - self._before, 0) / 2**20

    def _watch(self) -> None:
        while not self._done.wait(0.02):
            self._peak = max(self._peak, _resident())


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096
