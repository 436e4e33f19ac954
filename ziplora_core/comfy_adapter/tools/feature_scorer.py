"""Scores of pictures by the UNet's own features, without an image encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import comfy.sample
import comfy.samplers
import torch
from torch import Tensor

from ...merging.picture_features import likeness, style_axis
from ...plots.judge import Amounts, Gauge, Judged, Scale
from ...training.random import Stream, generator
from ..apply.sweep import Sampling
from ..data.pictures import encode_whole
from ..model import conditioning as cond
from .scorers import CalibrationPictures, OnEvaluations, ignore, scales

SUBJECT_LEVEL, STYLE_LEVEL = 0.3, 0.15
"""The parts of the noise schedule at which subject and style are read: chosen by the strengths of
the benchmark's tuning pairs (docs/QUALITY.md)."""
LIMITS = (
    "a weak judge: it sees how subject and style change with the strengths, but not how to weigh "
    "one against the other. Look at the sheet, and take what you prefer with Choose Merge"
)


class FeatureScorer:
    """Scores pictures by the features behind the UNet's middle block; see `Scorer`.

    Every picture's latent gets the same noise. The checkpoint without the LoRAs looks at it with
    the zeroed prompt. The subject is likeness to the pictures of the content LoRA alone, the style
    how far a picture is on the axis from those to the pictures of the style LoRA alone.

    Args:
        model: the ModelPatcher without the LoRAs, which is not changed.
        vae: the checkpoint's VAE.
        sampling: the sampler's settings, of which prompt and seed are used.
        calibration: pictures that base model and LoRAs have drawn, at least two of each.
        advice: what to do about a calibration that overlaps.
    """

    def __init__(
        self,
        model: Any,
        vae: Any,
        sampling: Sampling,
        calibration: CalibrationPictures,
        advice: str,
    ) -> None:
        self.model, self.vae, self.sampling = model, vae, sampling
        self.calibration, self.advice = calibration, advice
        self.gauge: Gauge | None = None
        self.evaluations = 0

    def calibrate(self, on_evaluations: OnEvaluations = ignore) -> bool:
        """Take the references, and set the scales: 0 as the other LoRA's pictures, 1 as its own.

        Returns:
            whether each LoRA's own pictures have more of it than the other's. Otherwise there are
            no scores: at this prompt, the features do not tell them apart.
        """
        base, content, style = (
            self._features(drawn, on_evaluations)
            for drawn in (self.calibration.base, self.calibration.content, self.calibration.style)
        )
        self._references = content[0]
        self._axis = style_axis(style[1], [content[1], base[1]])
        subjects = (_of_other_seeds(likeness(drawn[0], content[0])) for drawn in (style, content))
        styles = (self._axis.amounts(drawn[1]).tolist() for drawn in (content, style))
        self.gauge = Gauge(
            Scale(*subjects, others="style LoRA's"), Scale(*styles, others="content LoRA's")
        )
        return all(scale.one > scale.zero for scale in (self.gauge.content, self.gauge.style))

    def score(
        self, pictures: Sequence[Tensor], on_evaluations: OnEvaluations = ignore
    ) -> list[Judged]:
        """Score pictures, see `Scorer`, after `calibrate`."""
        assert self.gauge is not None
        return [
            self.gauge.judge(a) for a in self._amounts(*self._features(pictures, on_evaluations))
        ]

    def describe(self) -> list[str]:
        """Describe who judges, and the scales."""
        who = f"judged by the UNet's features with {self.evaluations} UNet evaluations, 2 a picture"
        return [who, *scales(self.gauge, self.advice), LIMITS]

    def _amounts(self, subject: Tensor, style: Tensor) -> list[Amounts]:
        """Measure pictures by their features at the two levels."""
        contents = likeness(subject, self._references).mean(1).tolist()
        return [
            Amounts(*both)
            for both in zip(contents, self._axis.amounts(style).tolist(), strict=True)
        ]

    def _features(
        self, pictures: Sequence[Tensor], on_evaluations: OnEvaluations
    ) -> tuple[Tensor, Tensor]:
        """Read the features of pictures, `(n, c, h, w)` for the subject and for the style."""
        seen: list[Tensor] = []

        def see(values: dict[str, Any]) -> dict[str, Any]:
            seen.append(values["h"][:1].float().cpu())
            return values

        watched = self.model.clone()
        watched.set_model_middle_block_after_patch(see)
        latents = []
        for picture in pictures:
            on_evaluations(self.evaluations)
            latents.append(encode_whole(self.vae, watched.model, picture)[None])
        read: list[list[Tensor]] = []
        for level in (SUBJECT_LEVEL, STYLE_LEVEL):
            read.append([])
            for latent in latents:
                on_evaluations(self.evaluations)
                seen.clear()
                predict_once(watched, latent, level, self.sampling)
                read[-1].append(seen[0])  # a patched guidance may call more than once
                self.evaluations += 1
        return torch.cat(read[0]), torch.cat(read[1])


def _of_other_seeds(likenesses: Tensor) -> list[float]:
    """Average each row without its diagonal: pictures of one seed are alike whoever draws them."""
    others = likenesses.sum(1) - likenesses.diagonal()
    return (others / (len(likenesses) - 1)).tolist()


def predict_once(model: Any, latent: Tensor, level: float, how: Sampling) -> None:
    """Let the model predict a noised latent `(1, c, h, w)` by ComfyUI's sampling, without a prompt.

    Args:
        model: the ModelPatcher.
        latent: the latent in the model's own scale.
        level: the part of the noise schedule.
        how: its `positive` is zeroed, its seed is that of the noise.
    """
    nothing = cond.zeroed(how.positive)
    sigma = model.get_model_object("model_sampling").percent_to_sigma(1 - level)
    noise = torch.randn(latent.shape, generator=generator(how.seed, Stream.JUDGE, 0))

    def once(denoiser: Any, x: Tensor, sigmas: Tensor, extra_args: Any, **_: Any) -> Tensor:
        denoiser(x, sigmas[:1].expand(len(x)), **extra_args)
        return x

    comfy.sample.sample_custom(
        model, noise, 1.0, comfy.samplers.KSAMPLER(once), torch.tensor([sigma, 0.0]), nothing,
        nothing, model.model.process_latent_out(latent), disable_pbar=True, seed=how.seed,
    )  # fmt: skip
