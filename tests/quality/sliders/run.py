"""Train every slider and measure it, a slider at a time and process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from miniworld.gauge import load_gauge
from miniworld.parts import Parts, load_parts
from miniworld.probe_files import load_probes
from sandbox.commands import say
from ziplora_core.lora.factors import LoRA

from .. import cache
from .attributes import ATTRIBUTES, BRIGHTNESS, PROMPTS, Attribute
from .measure import SCALES, Instruments, between_seeds, draw, others, rises, value
from .training import WORDS, from_pictures, from_words

ABLATION_PROMPT = "a shape in ocean plain style"
"""Leaves the subject open: what a dark picture shows is then often a crescent."""
ABLATED = replace(WORDS, steps=120, learning_rate=2.4e-4)
"""Fewer and larger steps than the sliders of the first table have: there are eight of these."""
RANKS = (1, 4, 16, 64)
"""The last is two thirds of the width of most modules."""


CODE = cache.code(
    *(f"ziplora_core/{part}" for part in ("lora", "sliders", "training")),
    *(f"ziplora_core/comfy_adapter/{part}" for part in ("apply/slider.py", "model", "train")),
    *(f"tests/quality/sliders/{n}.py" for n in ("attributes", "measure", "run", "training")),
    *("tests/quality/stats.py", "tests/miniworld/gauge.py"),
    "tests/miniworld/weights/gauge.safetensors",
)
"""The code that a kept slider depends on."""


@dataclass(frozen=True)
class Moved:
    """The effect of one slider.

    Args:
        figures: by column.
        pictures: two of the sixteen at every scale, `(scale, 2, 3, h, w)`.
    """

    attribute: str
    figures: dict[str, float]
    pictures: Tensor


def instruments() -> Instruments:
    return Instruments(load_probes(), load_gauge())


def run(workers: Executor) -> tuple[dict[str, Moved], dict[str, dict[str, float]]]:
    """Run everything; returns the sliders, and the rows of the ablation."""
    jobs: dict[str, tuple[Callable[..., LoRA], Attribute]] = {
        **{f"{a.name}, words": (from_words, a) for a in ATTRIBUTES if a.words},
        **{f"{a.name}, pictures": (from_pictures, a) for a in ATTRIBUTES},
    }
    sliders = {name: workers.submit(measured, name, *job) for name, job in jobs.items()}
    rows = {"prompt editing": workers.submit(edited_openly)} | {
        f"rank {rank}, {'preserve' if preserve else 'nothing preserved'}": workers.submit(
            ablated, rank, preserve
        )
        for preserve in (True, False)
        for rank in RANKS
    }
    return (
        {name: future.result() for name, future in sliders.items()},
        {name: future.result() for name, future in rows.items()},
    )


def measured(name: str, train: Callable[[Parts, Attribute], LoRA], attribute: Attribute) -> Moved:
    """Train one slider, draw nine scales of sixteen pictures, and measure them; it is kept."""
    inputs = {"slider": name, "code": CODE}
    kept = cache.cached("sliders", inputs, lambda: _measured(name, train, attribute))
    return Moved(attribute.name, kept["figures"], kept["pictures"])


def _measured(
    name: str, train: Callable[[Parts, Attribute], LoRA], attribute: Attribute
) -> cache.State:
    parts, see = load_parts(), instruments()
    lora = train(parts, attribute)
    drawn = torch.stack([draw(parts, lora, scale) for scale in SCALES])
    values = value(attribute.name, drawn)
    change = float((values[-1] - values[0]).mean())
    spread = between_seeds(values[len(SCALES) // 2])
    apart = see.apart(drawn[0], drawn[-1])
    edited = None if attribute.words is None else see.apart(*edit(parts, attribute, PROMPTS))
    figures = {
        "spearman": rises(SCALES, values),
        "change": change,
        "spread": spread,
        "change / spread": change / spread,
        "others": others(apart, attribute.name),
        "another subject": see.share_changed(drawn[0], drawn[-1]),
        **{f"moved {factor}": value for factor, value in apart.items()},
    }
    if edited is not None:
        figures["others, editing"] = others(edited, attribute.name)
        figures["of editing"] = figures["others"] / figures["others, editing"]
        figures |= {f"edited {factor}": value for factor, value in edited.items()}
    say(f"{name}: { ({k: round(v, 3) for k, v in figures.items()}) }")
    return {"figures": figures, "pictures": drawn[:, :: len(drawn[0]) // 2].clone()}


def edit(parts: Parts, attribute: Attribute, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Draw both ends of an attribute by saying so, from the same noises."""
    ends = zip(*map(attribute.edited, prompts), strict=True)
    less, more = (draw(parts, None, 0.0, said) for said in ends)
    return less, more


def edited_openly() -> dict[str, float]:
    """Measure what saying *very dark* and *very bright* does where the subject is left open."""
    return _interference(*edit(load_parts(), BRIGHTNESS, [ABLATION_PROMPT] * len(PROMPTS)))


def ablated(rank: int, preserve: bool) -> dict[str, float]:
    """Train the slider of brightness from words at a rank, and measure what comes with it."""

    def make() -> cache.State:
        parts = load_parts()
        preserved = WORDS.preserve if preserve else ""
        lora = from_words(parts, BRIGHTNESS, replace(ABLATED, rank=rank, preserve=preserved))
        prompts = [ABLATION_PROMPT] * len(PROMPTS)
        return _interference(*(draw(parts, lora, scale, prompts) for scale in (-2.0, 2.0)))

    inputs = {"rank": rank, "preserve": preserve, "code": CODE}
    figures = cache.cached("sliders", inputs, make)
    say(f"rank {rank}, preserve {preserve}: { ({k: round(v, 3) for k, v in figures.items()}) }")
    return figures


def _interference(less: Tensor, more: Tensor) -> dict[str, float]:
    see, name = instruments(), BRIGHTNESS.name
    change = float((value(name, more) - value(name, less)).mean())
    return {
        "change": change,
        "others": others(see.apart(less, more), name),
        "another subject": see.share_changed(less, more),
    }
