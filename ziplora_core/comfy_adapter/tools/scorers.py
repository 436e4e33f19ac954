"""Scores of pictures between 0, as the base model draws, and 1, as each LoRA alone draws.

A scorer says how much of the subject and of the style is in a picture. One asks the two LoRAs, the
other one image encoders; both are calibrated by the same pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from ...lora.pair import ModulePair
from ...plots.judge import LIMITS, Amounts, Gauge, Judged, calibrate_gauge, fit_amounts
from ...training.branches import Branches, Gates
from ...training.random import Stream, generator
from ..apply.lora import apply_lora
from ..apply.sweep import Sampling, draw_picture
from ..data.pictures import encode_whole
from ..model import conditioning as cond
from ..model.targets import unet_targets
from ..model.training_model import TrainingModel, training_model
from .image_encoders import describe_encoder
from .scores import ScoreInputs, score_each

FIRST, LAST = 0.35, 0.65
"""The part of the noise schedule that the draws are spread over: with less noise, the LoRAs hardly
change the prediction; with more, hardly anything of the picture is left."""
GATES = ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0))
"""Gates of content and style: the base model, and each LoRA alone."""
_SEEDS = 2**64

OnEvaluations = Callable[[int], None]


def ignore(_evaluations: int) -> None:
    """Follow nothing."""


class Scorer(Protocol):
    """Says how much of the subject and of the style is in pictures."""

    def score(
        self, pictures: Sequence[Tensor], on_evaluations: OnEvaluations = ignore
    ) -> list[Judged]:
        """Score pictures `(h, w, 3)` in 0…1, in order.

        Args:
            pictures: the pictures, drawn at the calibration's prompt and of its size.
            on_evaluations: a callback before each part, given the UNet evaluations so far; it may
                raise to cancel.
        """
        ...

    def describe(self) -> list[str]:
        """Return the report lines on the scores so far, warnings among them."""
        ...


@dataclass(frozen=True)
class CalibrationPictures:
    """Pictures that the base model, the content LoRA alone and the style LoRA alone have drawn."""

    base: Sequence[Tensor]
    content: Sequence[Tensor]
    style: Sequence[Tensor]

    @property
    def all(self) -> list[Tensor]:
        return [*self.base, *self.content, *self.style]

    def gauge(self, amounts: Sequence[Amounts], advice: str) -> Gauge:
        """Make the scales of content and style from the amounts in `all`; see `calibrate_gauge`."""
        first, second = len(self.base), len(self.base) + len(self.content)
        ends = amounts[:first], amounts[first:second], amounts[second:]
        return calibrate_gauge(*ends, advice)


def draw_calibration(
    model: Any,
    vae: Any,
    pairs: Mapping[str, ModulePair],
    sampling: Sampling,
    count: int,
    on_picture: Callable[[int], None] = ignore,
) -> CalibrationPictures:
    """Draw with the base model, then with the content LoRA alone, then with the style LoRA alone.

    They are decoded, because the pictures to judge were decoded too.

    Args:
        model: the ModelPatcher without the LoRAs, which is not changed.
        vae: the checkpoint's VAE.
        pairs: the UNet factors of both LoRAs, used as they are.
        sampling: the sampler's settings; its seed is that of the first picture of each.
        count: pictures to draw with each of the three.
        on_picture: a callback before each picture, given the number of pictures so far.
    """
    halves: tuple[dict[str, Any], ...] = (
        {},
        {name: p.content for name, p in pairs.items() if p.content is not None},
        {name: p.style for name, p in pairs.items() if p.style is not None},
    )
    drawn: list[list[Tensor]] = []
    for modules, name in zip(halves, ("", "content LoRA", "style LoRA"), strict=True):
        patched = apply_lora(modules, name, model, None)[0] if modules else model
        pictures: list[Tensor] = []
        for n in range(count):
            on_picture(len(drawn) * count + n)
            pictures.append(draw_picture(patched, vae, seeded(sampling, n)))
        drawn.append(pictures)
    return CalibrationPictures(*drawn)


def seeded(sampling: Sampling, number: int) -> Sampling:
    """Return the settings of picture `number`, whose seed is that many above the first one's."""
    return replace(sampling, seed=(sampling.seed + number) % _SEEDS)


class LoRAScorer:
    """Scores pictures by the two LoRAs themselves, without an image encoder; see `fit_amounts`.

    Every picture's latent gets the same noise at the same timesteps. The base model and the model
    with each LoRA alone predict that noise at the joint prompt, without guidance.

    Args:
        model: the ModelPatcher without the LoRAs, which is not changed.
        vae: the checkpoint's VAE.
        pairs: the UNet factors of both LoRAs, used as they are.
        sampling: `positive` is the joint prompt, and the seed that of the noise.
        calibration: the pictures at the ends of the scales. They are measured together with the
            first pictures that are scored.
        draws: noisy versions of each picture.
        advice: what else to try when the calibration fails, after “write it there, or”.

    `gauge` holds the scales after the first scores; `evaluations` counts the samples that went
    through the UNet.
    """

    def __init__(
        self,
        model: Any,
        vae: Any,
        pairs: Mapping[str, ModulePair],
        sampling: Sampling,
        calibration: CalibrationPictures,
        draws: int,
        advice: str,
    ) -> None:
        self.model, self.vae, self.pairs, self.sampling = model, vae, pairs, sampling
        self.calibration, self.draws, self.advice = calibration, draws, advice
        self.gauge: Gauge | None = None
        self.evaluations = 0

    def score(
        self, pictures: Sequence[Tensor], on_evaluations: OnEvaluations = ignore
    ) -> list[Judged]:
        """Score pictures, see `Scorer`.

        Raises:
            ZipLoRAError: see `fit_amounts`, and for the first pictures `calibrate_gauge`.
        """
        ends = [] if self.gauge else self.calibration.all
        latents = []
        for picture in [*ends, *pictures]:
            on_evaluations(self.evaluations)
            latents.append(encode_whole(self.vae, self.model.model, picture))
        with torch.inference_mode(False), torch.no_grad():
            keys = unet_targets(self.model.model)
            branches = {keys[name]: Branches(p.factors) for name, p in self.pairs.items()}
            with training_model(self.model, branches, backward=False) as opened:
                before = self.evaluations - len(GATES)
                opened.on_evaluation = lambda done: on_evaluations(before + done)
                amounts = self._measure(opened, [x0.clone() for x0 in latents])
        self.evaluations += opened.evaluations
        if self.gauge is None:
            self.gauge = self.calibration.gauge(amounts[: len(ends)], self.advice)
        return [self.gauge.judge(a) for a in amounts[len(ends) :]]

    def describe(self) -> list[str]:
        """Describe who judges, the scales and the costs."""
        who = (
            f"judged by the two LoRAs with {self.evaluations} UNet evaluations, "
            f"{len(GATES) * self.draws} a picture"
        )
        return [who, *scales(self.gauge, self.advice), LIMITS]

    def _measure(self, opened: TrainingModel, latents: Sequence[Tensor]) -> list[Amounts]:
        """Fit the amounts of content and style in each latent `(c, [1,] h, w)`."""
        prompt = cond.prepare(opened.model, self.sampling.positive, opened.place(latents[0][None]))
        seed, shape = self.sampling.seed, latents[0].shape
        noises = [
            torch.randn(shape, generator=generator(seed, Stream.JUDGE, n))
            for n in range(self.draws)
        ]
        timesteps = judged_timesteps(self.draws, opened.timesteps)
        gates = Gates(torch.tensor(GATES), learned=False)
        amounts = []
        for x0 in latents:
            predictions = []
            for noise, timestep in zip(noises, timesteps, strict=True):
                x, sigma, _ = opened.noised(x0, noise, timestep)
                batch = x.expand(len(GATES), *x.shape)  # (gate, c, [1,] h, w)
                denoised = opened.denoised(
                    batch, sigma.expand(len(GATES)), [prompt] * len(GATES), gates
                )
                predictions.append(opened.noise_of(batch, sigma, denoised).cpu())
            amounts.append(fit_amounts(torch.stack(noises), *torch.stack(predictions, dim=1)))
        return amounts


def judged_timesteps(draws: int, timesteps: int) -> list[int]:
    """Spread `draws` timesteps evenly over the middle of a schedule of `timesteps`."""
    step = (LAST - FIRST) / max(draws - 1, 1)
    first = FIRST if draws > 1 else (FIRST + LAST) / 2
    return [round((first + n * step) * (timesteps - 1)) for n in range(draws)]


class EncoderScorer:
    """Scores pictures by their alignment with reference pictures: DINO and CLIP-I.

    Cosines of two encoders are on different scales, so that the smaller one would always be of the
    same encoder. The calibration's pictures put both on one scale.

    Args:
        references: both encoders with their reference pictures; its `images` are not used.
        calibration, advice: see `LoRAScorer`.
    """

    def __init__(
        self, references: ScoreInputs, calibration: CalibrationPictures, advice: str
    ) -> None:
        self.references, self.calibration, self.advice = references, calibration, advice
        self.gauge: Gauge | None = None

    def score(
        self, pictures: Sequence[Tensor], on_evaluations: OnEvaluations = ignore
    ) -> list[Judged]:
        """Score pictures, see `Scorer`.

        Raises:
            ZipLoRAError: see `score_each`, and for the first pictures `calibrate_gauge`.
        """
        on_evaluations(0)
        ends = [] if self.gauge else self.calibration.all
        style, subject = score_each(replace(self.references, images=[*ends, *pictures])).values()
        amounts = [Amounts(*both) for both in zip(subject, style, strict=True)]
        if self.gauge is None:
            self.gauge = self.calibration.gauge(amounts[: len(ends)], self.advice)
        return [self.gauge.judge(a) for a in amounts[len(ends) :]]

    def describe(self) -> list[str]:
        """Describe who judges, and the scales."""
        subject, style = (
            describe_encoder(e) for e in (self.references.dino, self.references.clip_vision)
        )
        who = f"judged by image encoders: subject by {subject}, style by {style}"
        return [who, *scales(self.gauge, self.advice)]


def scales(gauge: Gauge | None, advice: str) -> list[str]:
    if gauge is None:
        return []
    ends = [f"  content: {gauge.content.describe()}", f"  style: {gauge.style.describe()}"]
    return [*gauge.warnings(advice), *ends]
