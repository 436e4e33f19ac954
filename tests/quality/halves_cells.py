"""A merge drawn at strengths of its own in each half of guidance, measured and kept."""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import mean

from ziplora_core.comfy_adapter.apply.guidance import with_negative_strength

from . import cache
from .cache import State
from .conditions import Condition
from .experiment import PICTURES, SEED, Bench, as_bytes

CODE = cache.code("tests/quality/halves_cells.py", "ziplora_core/comfy_adapter/apply/guidance.py")


@dataclass(frozen=True)
class Halves:
    """How strong a merge is, in both halves of guidance.

    Args:
        content, style: strengths in the positive half.
        negative: the factor on both in the unconditional half.
    """

    content: float = 1.0
    style: float = 1.0
    negative: float = 0.0

    def at(self, condition: Condition) -> Halves:
        """Multiply the strengths by those of a condition."""
        return replace(
            self, content=self.content * condition.content, style=self.style * condition.style
        )

    def __str__(self) -> str:
        return f"{self.content:g} / {self.style:g}, negative {self.negative:g}"


def kept(bench: Bench, method: str) -> State:
    """Measure a merge on each LoRA's own prompt, at strength 1; see `Bench.alone`."""
    alone = bench.alone(method)
    return {"alone": [mean(alone[name]) for name in ("subject", "style")],
            "retention": alone["retention"], "seconds": alone["seconds"]}  # fmt: skip


def joint(bench: Bench, method: str, halves: Halves, condition: Condition) -> State:
    """Draw and measure the joint picture at these strengths, with a condition's other settings."""

    def make() -> State:
        merged = bench.merge(method)[0].merged
        assert merged is not None
        parts, modules = bench.task.parts, merged.modules(halves.content, halves.style)
        model, _ = with_negative_strength(parts.model, modules, "merge", halves.negative)
        pictures = parts.draw(
            model, condition.prompt, PICTURES, SEED, condition.steps, condition.guidance,
            condition.sampler, condition.scheduler,
        )  # fmt: skip
        return {**bench.measured(pictures), "pictures": as_bytes(pictures)}

    inputs = {**bench.inputs(method), "halves": halves, "condition": condition, "drawing": CODE}
    return cache.cached("halves", inputs, make)
