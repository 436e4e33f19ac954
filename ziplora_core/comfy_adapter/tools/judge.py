"""Pictures judged by the LoRAs of a pair: how much of each is in them, without an image encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ...lora.pair import LoRAPair, ModulePair
from ...plots.judge import LIMITS, Amounts, Gauge, Judged, calibrate_gauge, fit_amounts, mean
from ...training.branches import Branches, Gates
from ...training.framing import latent_size
from ...training.random import Stream, generator
from ...training.report import compose
from ..apply.lora import apply_lora
from ..apply.sweep import Sampling, draw_picture
from ..data.pictures import encode_whole
from ..model import conditioning as cond
from ..model.memory_advice import memory_advice
from ..model.targets import unet_targets
from ..model.training_model import TrainingModel, training_model
from .judge_inputs import checked_pair

_FIRST, _LAST = 0.35, 0.65
"""The part of the noise schedule that the draws are spread over: with less noise, the LoRAs hardly
change the prediction; with more, hardly anything of the picture is left."""
_GATES = ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0))
"""Gates of content and style: the base model, and each LoRA alone."""
_SEEDS = 2**64
PATCHED = (
    "WARNING: model has weight patches on it (LoRAs, or a model merge), so 0 is what it draws with "
    "them: connect the checkpoint itself, unless they belong to every picture"
)

OnPart = Callable[[int, int], None]


@dataclass(frozen=True)
class JudgeInputs:
    """The pictures to judge, the LoRAs that judge them and how to calibrate.

    Args:
        pictures: pictures `(h, w, 3)` of one size, in 0…1.
        pair: the two LoRAs, used at strength 1 whatever the pair's strengths.
        sampling: the sampler's settings; `positive` is the joint prompt. Its latent is replaced by
            an empty one of the pictures' size.
        calibration_pictures: pictures to draw with each of the base model and the two LoRAs.
        draws: noisy versions of each picture.
    """

    pictures: Sequence[Tensor]
    pair: LoRAPair
    sampling: Sampling
    calibration_pictures: int = 4
    draws: int = 4

    @property
    def drawings(self) -> int:
        """The number of pictures that the calibration draws."""
        return len(_GATES) * self.calibration_pictures

    @property
    def drawing_evaluations(self) -> int:
        """The UNet evaluations of the calibration's sampling, by a sampler with one a step."""
        halves = 1 if self.sampling.cfg == 1 else 2
        return self.drawings * self.sampling.steps * halves

    @property
    def judging_evaluations(self) -> int:
        """The UNet evaluations that judge the pictures and those of the calibration."""
        return len(_GATES) * self.draws * (len(self.pictures) + self.drawings)


@dataclass(frozen=True)
class Judgement:
    """The scores of the pictures, in order.

    Args:
        pictures: scores; 0 as the base model draws, 1 as that LoRA alone draws.
        gauge: the calibration.
        evaluations: number of UNet evaluations that judged pictures, of the calibration too.
        report: text of the report.
    """

    pictures: Sequence[Judged]
    gauge: Gauge
    evaluations: int
    report: str


@memory_advice("Connect smaller pictures")
def judge(
    model: Any, vae: Any, inputs: JudgeInputs, on_part: OnPart = lambda done, total: None
) -> Judgement:
    """Say how much of each LoRA is in every picture.

    Every picture's latent gets the same noise at the same timesteps. The base model and the model
    with each LoRA alone predict that noise at the joint prompt, without guidance; see
    `fit_amounts`. Pictures that these three draw, from the sampler's seed upwards, give the scale.

    Args:
        model: the ModelPatcher without the LoRAs, which is not changed.
        vae: the checkpoint's VAE.
        inputs: pictures, LoRAs and settings.
        on_part: a callback before each part and at the end, given (done, total) UNet evaluations.

    Raises:
        ZipLoRAError: inputs that the user can correct; see `checked_pair`, `fit_amounts` and
            `calibrate_gauge`.
    """
    pairs = checked_pair(model, vae, inputs.pictures, inputs.pair, inputs.sampling)
    total = inputs.drawing_evaluations + inputs.judging_evaluations
    drawn = _calibration_pictures(model, vae, inputs, pairs, lambda done: on_part(done, total))
    latents = []
    for picture in [*drawn, *inputs.pictures]:
        on_part(inputs.drawing_evaluations, total)
        latents.append(encode_whole(vae, model.model, picture))
    with torch.inference_mode(False), torch.no_grad():
        keys = unet_targets(model.model)
        branches = {keys[name]: Branches(p.factors) for name, p in pairs.items()}
        with training_model(model, branches, backward=False) as opened:
            before = inputs.drawing_evaluations
            opened.on_evaluation = lambda done: on_part(before + done - len(_GATES), total)
            amounts = _measure(opened, [x0.clone() for x0 in latents], inputs)
    on_part(total, total)
    count = inputs.calibration_pictures
    base, content, style = (amounts[i * count : (i + 1) * count] for i in range(len(_GATES)))
    gauge = calibrate_gauge(base, content, style)
    judged = [gauge.judge(a) for a in amounts[inputs.drawings :]]
    report = _report(judged, gauge, inputs, opened.evaluations, bool(model.patches))
    return Judgement(judged, gauge, opened.evaluations, report)


def _calibration_pictures(
    model: Any,
    vae: Any,
    inputs: JudgeInputs,
    pairs: dict[str, ModulePair],
    on_evaluations: Callable[[int], None],
) -> list[Tensor]:
    """Draw with the base model, then with the content LoRA alone, then with the style LoRA alone.

    They are decoded, because the pictures to judge were decoded too.
    """
    how = inputs.sampling
    height, width = latent_size(*inputs.pictures[0].shape[:2])
    channels = model.model.latent_format.latent_channels
    empty = {"samples": torch.zeros(1, channels, height, width)}
    halves: tuple[dict[str, Any], ...] = (
        {},
        {name: p.content for name, p in pairs.items() if p.content is not None},
        {name: p.style for name, p in pairs.items() if p.style is not None},
    )
    drawn: list[Tensor] = []
    for modules, name in zip(halves, ("", "content LoRA", "style LoRA"), strict=True):
        patched = apply_lora(modules, name, model, None)[0] if modules else model
        for n in range(inputs.calibration_pictures):
            on_evaluations(len(drawn) * inputs.drawing_evaluations // inputs.drawings)
            own = replace(how, latent=empty, seed=(how.seed + n) % _SEEDS)
            drawn.append(draw_picture(patched, vae, own))
    return drawn


def _measure(
    opened: TrainingModel, latents: Sequence[Tensor], inputs: JudgeInputs
) -> list[Amounts]:
    """Fit the amounts of content and style in each latent `(c, h, w)`."""
    prompt = cond.prepare(opened.model, inputs.sampling.positive, opened.place(latents[0][None]))
    seed, shape = inputs.sampling.seed, latents[0].shape
    noises = [
        torch.randn(shape, generator=generator(seed, Stream.JUDGE, n)) for n in range(inputs.draws)
    ]
    timesteps = judged_timesteps(inputs.draws, opened.timesteps)
    gates = Gates(torch.tensor(_GATES), learned=False)
    amounts = []
    for x0 in latents:
        predictions = []
        for noise, timestep in zip(noises, timesteps, strict=True):
            x, sigma, _ = opened.noised(x0, noise, timestep)
            batch = x.expand(len(_GATES), *x.shape)  # (gate, c, h, w)
            denoised = opened.denoised(
                batch, sigma.expand(len(_GATES)), [prompt] * len(_GATES), gates
            )
            predictions.append(((batch - denoised) / sigma).cpu())  # as noise, for v models too
        amounts.append(fit_amounts(torch.stack(noises), *torch.stack(predictions, dim=1)))
    return amounts


def judged_timesteps(draws: int, timesteps: int) -> list[int]:
    """Spread `draws` timesteps evenly over the middle of a schedule of `timesteps`."""
    step = (_LAST - _FIRST) / max(draws - 1, 1)
    first = _FIRST if draws > 1 else (_FIRST + _LAST) / 2
    return [round((first + n * step) * (timesteps - 1)) for n in range(draws)]


def _report(
    judged: Sequence[Judged], gauge: Gauge, inputs: JudgeInputs, evaluations: int, patched: bool
) -> str:
    """Describe the means, the calibration, the costs, and what the scores do not say."""
    pair, count, how = inputs.pair, inputs.calibration_pictures, inputs.sampling
    height, width = inputs.pictures[0].shape[:2]
    lines = [
        *([PATCHED] if patched else []),
        *gauge.warnings(),
        f"subject: {mean([p.subject for p in judged]):.3f}, "
        f"style: {mean([p.style for p in judged]):.3f}, "
        f"the smaller of both: {mean([p.smaller for p in judged]):.3f}; "
        f"mean of {len(judged)} pictures of {width} × {height}",
        f"calibration: {count} pictures each of the base model, of {pair.content.name} alone and "
        f"of {pair.style.name} alone, at strength 1 and the same prompt, seeds from {how.seed}",
        f"  content: {gauge.content.describe()}",
        f"  style: {gauge.style.describe()}",
        f"{inputs.draws} draws a picture; UNet evaluations: "
        f"{len(_GATES) * inputs.draws} a picture, {evaluations} in all with the calibration's "
        f"{inputs.drawings} pictures; drawing those took about {inputs.drawing_evaluations} more",
    ]
    if (pair.content_strength, pair.style_strength) != (1, 1):
        lines.append("the pair's strengths are not used: each LoRA judges at strength 1")
    if pair.content.text_encoder() or pair.style.text_encoder():
        lines.append(
            "text-encoder modules are not used: the prompt is already encoded; if its CLIP has "
            "them, the base model's pictures are drawn with them, too"
        )
    return compose([*lines, LIMITS])
