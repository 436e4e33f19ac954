"""One pair with its LoRAs: merge by a method, draw, measure; what is made is kept."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from miniworld.parts import Parts
from miniworld.probes import Probe
from ziplora_core.files.writer import kohya_tensors
from ziplora_core.lora.factors import LoRA
from ziplora_core.lora.pair import LoRAPair

from . import cache
from .conditions import Condition
from .measure import References, RetentionTest, overlaps, references
from .methods import EVERY_METHOD, Merge, Method, Task
from .sources import CONTENT_STEPS, LAYERS, STYLE_STEPS, content_lora, style_lora
from .subjects import CONTENT_PROMPT, JOINT_PROMPT, Pair

PICTURES = 8
"""Joint pictures of a cell."""
ALONE = 4
"""Pictures of each LoRA's own prompt."""
SEED = 1
"""The merge's and the pictures'."""
MEASURING = cache.code(
    *(f"ziplora_core/{part}" for part in ("dreambooth", "files", "lora", "merging")),
    *(f"ziplora_core/{part}" for part in ("training", "ziplora")),
    *(f"ziplora_core/comfy_adapter/{part}" for part in ("data", "model", "tools/calibration.py")),
    *(
        f"ziplora_core/comfy_adapter/train/{n}.py"
        for n in ("closed_form_on_model", "dreambooth", "dreambooth_inputs", "new_lora", "run")
    ),
    *(f"ziplora_core/comfy_adapter/train/{n}.py" for n in ("ziplora", "ziplora_inputs")),
    *(f"tests/quality/{n}.py" for n in ("experiment", "measure", "methods", "sources", "subjects")),
    *(f"tests/miniworld/{name}.py" for name in ("parts", "scenes", "shapes", "styles")),
)
"""The code that a kept figure depends on."""


@dataclass
class Bench:
    """A pair with its LoRAs trained, ready for every method."""

    task: Task
    probes: Mapping[str, Probe]
    refs: References
    _latest: tuple[str, Merge, float] | None = None

    @cached_property
    def single(self) -> list[ModelPatcher]:
        """The model with the content LoRA alone, and with the style LoRA alone."""
        loras = self.task.loras
        return [
            self.task.parts.with_lora(kohya_tensors(lora.modules))
            for lora in (loras.content, loras.style)
        ]

    @cached_property
    def retention(self) -> RetentionTest:
        return RetentionTest(self.task.parts, self.task.pair, self.refs, self.single)

    def merged(self, method: Method, seed: int) -> tuple[Merge, ModelPatcher]:
        """Merge by a method, and put the merge on the model."""
        torch.manual_seed(seed)
        merge = method(self.task, seed)
        return merge, self._on_model(merge, 1.0, 1.0)

    def draw(self, model: ModelPatcher, concept: str, seed: int) -> Tensor:
        """Draw from the prompt of the content, of the style or of both (joint)."""
        style = self.task.pair.style_prompt
        prompts = {"content": CONTENT_PROMPT, "style": style, "joint": JOINT_PROMPT}
        return self.task.parts.draw(model, prompts[concept], ALONE, seed)

    def alone(self, method: str) -> cache.State:
        """Draw and measure each LoRA's own prompt: alignments, retention, seconds of the merge."""

        def make() -> cache.State:
            merge, seconds = self.merge(method)
            model = self._on_model(merge, 1.0, 1.0)
            drawn = {name: self.draw(model, name, SEED) for name in ("content", "style")}
            return {
                "subject": self.refs.content.alignments(drawn["content"]).tolist(),
                "style": self.refs.style.alignments(drawn["style"]).tolist(),
                "retention": list(self.retention(model)),
                "seconds": seconds,
                "pictures": {name: as_bytes(pictures) for name, pictures in drawn.items()},
            }

        return cache.cached("alone", self.inputs(method), make)

    def joint(self, method: str, condition: Condition) -> cache.State:
        """Draw and measure the joint picture: both alignments, *both right*, silhouettes."""

        def make() -> cache.State:
            merge, _ = self.merge(method)
            model = self._on_model(merge, condition.content, condition.style)
            drawn = self.task.parts.draw(
                model, condition.prompt, PICTURES, SEED, condition.steps, condition.guidance,
                condition.sampler, condition.scheduler,
            )  # fmt: skip
            return {**self.measured(drawn), "pictures": as_bytes(drawn)}

        return cache.cached("joint", {**self.inputs(method), "condition": condition}, make)

    def measured(self, pictures: Tensor) -> cache.State:
        """Measure pictures of the subject in the style, each by itself."""
        pair = self.task.pair
        names = {
            "subject": pair.subject,
            "palette": pair.style.palette,
            "texture": pair.style.texture,
        }
        subject = self.refs.content.recognised(pictures, names)
        style = self.refs.style.recognised(pictures, names)
        return {
            "subject": self.refs.content.alignments(pictures).tolist(),
            "style": self.refs.style.alignments(pictures).tolist(),
            "both right": (subject & style).float().tolist(),
            "overlap": overlaps(pictures, pair.subject, pair.style).tolist(),
        }

    def merge(self, method: str) -> tuple[Merge, float]:
        """Merge, unless the latest merge was the same; returns it and its seconds."""
        if self._latest is None or self._latest[0] != method:
            torch.manual_seed(SEED)
            begun = time.monotonic()
            merge = EVERY_METHOD[method](self.task, SEED)
            self._latest = method, merge, time.monotonic() - begun
        return self._latest[1], self._latest[2]

    def _on_model(self, merge: Merge, content: float, style: float) -> ModelPatcher:
        modules = merge.modules
        if (content, style) != (1.0, 1.0):
            if merge.merged is None:
                raise ValueError("found strengths for a merge without halves, expected 1 and 1")
            modules = merge.merged.modules(content, style)
        parts = self.task.parts
        return parts.with_lora(kohya_tensors(modules)) if modules else parts.model

    def inputs(self, method: str) -> dict[str, object]:
        """Name what a method's figures depend on."""
        return {
            "pair": self.task.pair,
            "method": method,
            "code": MEASURING,
            "content": torch.cat(_weights(self.task.loras.content)),
            "style": torch.cat(_weights(self.task.loras.style)),
        }


def make_bench(
    parts: Parts,
    pair: Pair,
    probes: Mapping[str, Probe],
    steps: tuple[int, int] = (CONTENT_STEPS, STYLE_STEPS),
    seed: int = 0,
    layers: str = LAYERS,
) -> Bench:
    """Train the pair's two LoRAs, content and style, for so many steps on these layers."""
    content = content_lora(parts, pair, steps[0], seed, layers)
    task = Task(parts, pair, LoRAPair(content, style_lora(parts, pair, steps[1], seed, layers)))
    return Bench(task, probes, references(pair, probes))


def _weights(lora: LoRA) -> list[Tensor]:
    return [t.flatten() for factors in lora.modules.values() for t in (factors.down, factors.up)]


def as_bytes(pictures: Tensor) -> Tensor:
    return (pictures * 255).round().to(torch.uint8)
