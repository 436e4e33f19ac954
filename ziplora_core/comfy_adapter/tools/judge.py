"""Pictures judged by the LoRAs of a pair: how much of each is in them, without an image encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ...lora.pair import LoRAPair
from ...plots.judge import LIMITS, Gauge, Judged, mean
from ...training.report import compose
from ..apply.sweep import Sampling
from ..model.family import latent_shape
from ..model.memory_advice import memory_advice
from .judge_inputs import check_sizes, checked_pair
from .scorers import GATES, LoRAScorer, draw_calibration

_ADVICE = "raise calibration_pictures or draws"
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
        return len(GATES) * self.calibration_pictures

    @property
    def drawing_evaluations(self) -> int:
        """The UNet evaluations of the calibration's sampling, by a sampler with one a step."""
        halves = 1 if self.sampling.cfg == 1 else 2
        return self.drawings * self.sampling.steps * halves

    @property
    def judging_evaluations(self) -> int:
        """The UNet evaluations that judge the pictures and those of the calibration."""
        return len(GATES) * self.draws * (len(self.pictures) + self.drawings)


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
    """Say how much of each LoRA is in every picture; see `LoRAScorer`.

    Pictures that the base model and each LoRA alone draw, from the sampler's seed upwards, give
    the scale.

    Args:
        model: the ModelPatcher without the LoRAs, which is not changed.
        vae: the checkpoint's VAE.
        inputs: pictures, LoRAs and settings.
        on_part: a callback before each part and at the end, given (done, total) UNet evaluations.

    Raises:
        ZipLoRAError: inputs that the user can correct; see `checked_pair`, `fit_amounts` and
            `calibrate_gauge`.
    """
    check_sizes(inputs.pictures, model.model.latent_format.spacial_downscale_ratio)
    pairs = checked_pair(model, vae, inputs.pair, inputs.sampling)
    total = inputs.drawing_evaluations + inputs.judging_evaluations
    before, count = inputs.drawing_evaluations, inputs.calibration_pictures
    height, width, _ = inputs.pictures[0].shape
    empty = torch.zeros(1, *latent_shape(model.model, height, width))
    how = replace(inputs.sampling, latent={"samples": empty})
    calibration = draw_calibration(
        model, vae, pairs, how, count,
        lambda done: on_part(done * before // inputs.drawings, total),
    )  # fmt: skip
    scorer = LoRAScorer(model, vae, pairs, how, calibration, inputs.draws, _ADVICE)
    judged = scorer.score(inputs.pictures, lambda done: on_part(before + done, total))
    on_part(total, total)
    assert scorer.gauge is not None
    report = _report(judged, scorer.gauge, inputs, scorer.evaluations, bool(model.patches))
    return Judgement(judged, scorer.gauge, scorer.evaluations, report)


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
        f"{len(GATES) * inputs.draws} a picture, {evaluations} in all with the calibration's "
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
