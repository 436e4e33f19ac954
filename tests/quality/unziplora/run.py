"""One picture taken apart on the miniature SDXL: UnZipLoRA, a part at a time, beside others."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean

from comfy.model_patcher import ModelPatcher
from torch import Tensor

from miniworld.parts import Parts, load_parts
from miniworld.probe_files import load_probes
from miniworld.probes import Probe
from miniworld.scenes import SIDE, Scene, render
from sandbox.commands import say
from ziplora_core.comfy_adapter.apply.unziplora import with_unziplora
from ziplora_core.comfy_adapter.train.dreambooth_inputs import TrainingInputs
from ziplora_core.comfy_adapter.train.unziplora import train_unziplora
from ziplora_core.files.writer import kohya_tensors
from ziplora_core.lora.blocks import PRESETS
from ziplora_core.lora.factors import LoraFactors
from ziplora_core.lora.merged import MergedLoRA
from ziplora_core.lora.pair import pair_modules
from ziplora_core.unziplora.options import UnZipLoRASettings
from ziplora_core.unziplora.separate_prompts import recombine

from .. import cache
from ..measure import Reference, references, seen
from ..sources import LAYERS, LEARNING_RATE, OPTIONS, train
from ..subjects import JOINT_PROMPT, STYLE_WORD, SUBJECT, TEST, TUNING, Pair

SHOWN = {"tuning": TUNING[:2], "test": TEST[:2]}
"""The pictures; the content of one is recombined with the style of the other."""
STYLE_PROMPT = f"a shape in {STYLE_WORD} style"
STYLES = ("ocean plain", "candy striped", "mint dotted")
"""The content is drawn in: seen styles, which no training here has."""
SUBJECTS = ("star", "key", "house")
"""The style is put on."""
PICTURES, SEED = 4, 1
STEPS, FEW_STEPS = 300, 75
AS_PUBLISHED = UnZipLoRASettings(
    prompt=JOINT_PROMPT, content_prompt=SUBJECT, style_prompt=STYLE_PROMPT, rank=64, steps=STEPS,
    content_learning_rate=LEARNING_RATE, style_learning_rate=LEARNING_RATE, resolution=SIDE,
    memory="fast", layers=LAYERS, alone_share=0.0, options=replace(OPTIONS, held_out_draws=0),
)  # fmt: skip
"""Batch, rate and schedule are those of the DreamBooth LoRAs beside it."""
WITH_PROMPTS = replace(AS_PUBLISHED, column_separation=False)
UNZIPLORA, ALONE, PROMPTS_ALONE = "+ blocks: UnZipLoRA", "UnZipLoRA, alone {}", "prompts, alone {}"
VARIANTS = {
    "naive joint": replace(WITH_PROMPTS, content_prompt=JOINT_PROMPT, style_prompt=JOINT_PROMPT),
    "+ prompts": WITH_PROMPTS,
    "+ columns": replace(AS_PUBLISHED, block_separation=False),
    UNZIPLORA: AS_PUBLISHED,
    ALONE.format(0.25): replace(AS_PUBLISHED, alone_share=0.25),
    ALONE.format(0.5): replace(AS_PUBLISHED, alone_share=0.5),
    PROMPTS_ALONE.format(0.25): replace(WITH_PROMPTS, alone_share=0.25),
}
"""The paper's ablation, each with what the one before has; then with samples of each LoRA alone."""


CODE = cache.code(
    *(f"ziplora_core/{part}" for part in ("dreambooth", "lora", "training", "unziplora")),
    *(f"ziplora_core/comfy_adapter/{part}" for part in ("apply/unziplora.py", "model", "train")),
    *(f"tests/quality/{n}.py" for n in ("measure", "sources", "subjects", "unziplora/run")),
)
"""The code that a kept result depends on."""


@dataclass(frozen=True)
class Apart:
    """A picture taken apart: LoRAs for use alone, and for use together.

    Args:
        content, style: modules of each.
        merged: both, mergers folded in.
    """

    content: Mapping[str, LoraFactors]
    style: Mapping[str, LoraFactors]
    merged: MergedLoRA


Taking = Callable[[Parts, Pair], Apart]
Figures = dict[str, float]
Drawn = dict[str, Tensor]


def picture(pair: Pair) -> Tensor:
    """The one picture, `(1, 3, 128, 128)`: a subject and a style that the model has never seen."""
    return render(Scene(pair.subject, pair.style, radius=0.55))[None]


def unzipped(settings: UnZipLoRASettings) -> Taking:
    def take(parts: Parts, pair: Pair) -> Apart:
        inputs = TrainingInputs(parts.model, parts.clip, parts.vae, [picture(pair).movedim(1, -1)])
        with tempfile.TemporaryDirectory() as folder:
            result = train_unziplora(inputs, settings, Path(folder))
        merged = result.merged
        if settings.content_prompt == settings.prompt:  # one prompt for all, as it was trained
            merged = replace(merged, prompt_separated=False)
        return Apart(result.content.modules, result.style.modules, merged)

    return take


def two_dreambooths(steps: int) -> Taking:
    """Two LoRAs on the one picture, one at the content's prompt and one at the style's."""

    def take(parts: Parts, pair: Pair) -> Apart:
        return _plain(
            *(train(parts, picture(pair), [prompt], steps, 0) for prompt in (SUBJECT, STYLE_PROMPT))
        )

    return take


def split_by_blocks(parts: Parts, pair: Pair) -> Apart:
    """One LoRA at the joint prompt, of which B-LoRA's block pairs are taken (arXiv:2403.14572)."""
    whole = train(parts, picture(pair), [JOINT_PROMPT], STEPS, 0)
    both = MergedLoRA(pair_modules(whole, whole))
    blocks = PRESETS["b_lora"]
    return _plain(both.modules(1.0, 0.0, blocks), both.modules(0.0, 1.0, blocks))


def _plain(content: Mapping[str, LoraFactors], style: Mapping[str, LoraFactors]) -> Apart:
    return Apart(content, style, MergedLoRA(pair_modules(content, style)))


DREAMBOOTHS = "two DreamBooth LoRAs"
METHODS: dict[str, Taking] = {
    **{name: unzipped(settings) for name, settings in VARIANTS.items()},
    DREAMBOOTHS: two_dreambooths(STEPS),
    f"{DREAMBOOTHS}, {FEW_STEPS} steps": two_dreambooths(FEW_STEPS),
    "one LoRA, B-LoRA's blocks": split_by_blocks,
}
ROWS = {
    "tuning": tuple(METHODS),
    "test": (UNZIPLORA, ALONE.format(0.5), PROMPTS_ALONE.format(0.25), DREAMBOOTHS),
}
"""The methods for each kind of picture."""


Result = tuple[Figures, Drawn]


def run(workers: Executor) -> dict[str, dict[str, dict[str, Result]]]:
    """Run every method on every picture; by kind of picture, method and pair."""
    asked = [(kind, name) for kind, names in ROWS.items() for name in names]
    found = dict(zip(asked, workers.map(by_method, *zip(*asked, strict=True)), strict=True))
    return {kind: {name: found[kind, name] for name in names} for kind, names in ROWS.items()}


def by_method(kind: str, name: str) -> dict[str, Result]:
    """Take every picture of a kind apart by one method, and measure; the result is kept."""
    pairs = SHOWN[kind]

    def make() -> cache.State:
        apart = [METHODS[name](load_parts(), pair) for pair in pairs]
        return {
            pair.name: list(measure(name, (pair, pairs[1 - n]), (apart[n], apart[1 - n])))
            for n, pair in enumerate(pairs)
        }

    kept = cache.cached("unziplora", {"method": name, "pictures": kind, "code": CODE}, make)
    return {pair: (figures, drawn) for pair, (figures, drawn) in kept.items()}


def measure(
    name: str, pairs: tuple[Pair, Pair], apart: tuple[Apart, Apart]
) -> tuple[Figures, Drawn]:
    """Draw with each half alone, with both, and with another picture's style; see what it shows.

    Args:
        name: the method.
        pairs: the subject and style of the picture, and of the other one.
        apart: both pictures taken apart.
    """
    parts, probes, (pair, another) = load_parts(), load_probes(), pairs
    drawn = draw(parts, *apart)
    own, its = references(pair, probes), references(another, probes)
    figures = {
        "content": own.content.alignment(drawn["content"]),
        "content, other styles": mean(
            own.content.alignment(drawn[f"content in {style}"]) for style in STYLES
        ),
        "those styles": mean(_asked(probes, drawn[f"content in {s}"], s) for s in STYLES),
        "style": own.style.alignment(drawn["style"]),
        "style, other subjects": mean(
            own.style.alignment(drawn[f"{subject} in style"]) for subject in SUBJECTS
        ),
        "those subjects": mean(
            seen(probes["subject"], "subject", subject, drawn[f"{subject} in style"])
            for subject in SUBJECTS
        ),
        **_both("together", own.content, own.style, drawn["together"]),
        **_both("recombined", own.content, its.style, drawn["recombined"]),
    }
    say(f"{pair.name}, {name}: { ({k: round(v, 3) for k, v in figures.items()}) }")
    return figures, drawn


def draw(parts: Parts, apart: Apart, other: Apart) -> Drawn:
    """Draw everything that is measured, four pictures each."""
    content = parts.with_lora(kohya_tensors(apart.content))
    style = parts.with_lora(kohya_tensors(apart.style))
    asked = {
        "content": (content, SUBJECT),
        **{f"content in {s}": (content, f"{SUBJECT} in {s} style") for s in STYLES},
        "style": (style, STYLE_PROMPT),
        **{f"{s} in style": (style, f"a {s} in {STYLE_WORD} style") for s in SUBJECTS},
        "together": (_together(parts, apart.merged), JOINT_PROMPT),
        "recombined": (_together(parts, _recombined(apart, other)), JOINT_PROMPT),
    }
    return {
        name: parts.draw(model, prompt, PICTURES, SEED) for name, (model, prompt) in asked.items()
    }


def _recombined(apart: Apart, other: Apart) -> MergedLoRA:
    if apart.merged.prompt_separated:
        return recombine(apart.merged, other.merged)
    return MergedLoRA(pair_modules(apart.content, other.style))


def _together(parts: Parts, merged: MergedLoRA) -> ModelPatcher:
    """Put both halves on the model: with a prompt each, or added."""
    if not merged.prompt_separated:
        return parts.with_lora(kohya_tensors(merged.modules()))
    prompts = [parts.encode(SUBJECT), parts.encode(STYLE_PROMPT)]
    return with_unziplora(parts.model, merged, prompts)[0]


def _asked(probes: Mapping[str, Probe], pictures: Tensor, style: str) -> float:
    """How surely palette and texture are the ones asked for."""
    palette, texture = style.split()
    probe = probes["style"]
    return mean(
        [seen(probe, "palette", palette, pictures), seen(probe, "texture", texture, pictures)]
    )


def _both(name: str, content: Reference, style: Reference, pictures: Tensor) -> Figures:
    found = content.alignment(pictures), style.alignment(pictures)
    return {f"{name}, subject": found[0], f"{name}, style": found[1]}
