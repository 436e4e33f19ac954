"""What the layers see while each LoRA draws at its own prompt: for merges that look at it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ..branches import Gates
from ..errors import problem
from ..observation import Observer
from ..pairing import LoRAPair
from ..rank_moments import RankCalibration, RankMoments
from ..states import TEACHERS, Teacher, generator
from ..trainable import Watch
from . import conditioning as cond
from .euler import draw_latents
from .free_memory import memory_advice
from .pairs import pair_on_model, refuse_other_than_sdxl
from .private_copy import refuse_patched
from .targets import unet_targets
from .training_model import TrainingModel, training_model

STEPS = 8
"""Noise levels that each prompt is looked at on: of a trajectory of its own."""
_NAMES = ("content_conditioning", "style_conditioning", "joint_conditioning")
_UNWATCHED = Watch()


@dataclass(frozen=True)
class CalibrationPrompts:
    """What is drawn to calibrate a merge.

    Args:
        content, style: each LoRA's own prompt, a CONDITIONING.
        joint: a prompt of both together, or None.
        seed: of the starting noise, which all share.
        width, height: of the pictures, in pixels.
    """

    content: Any | None = None
    style: Any | None = None
    joint: Any | None = None
    seed: int = 0
    width: int = 1024
    height: int = 1024

    @property
    def conditionings(self) -> tuple[Any | None, ...]:
        return self.content, self.style, self.joint

    @property
    def evaluations(self) -> int:
        """How many samples go through the UNet."""
        return 2 * STEPS * sum(c is not None for c in self.conditionings)

    def connected(self) -> bool:
        """Whether there is anything to calibrate on.

        Raises:
            ZipLoRAError: some of it is missing.
        """
        if all(c is None for c in self.conditionings):
            return False
        missing = [n for n, c in zip(_NAMES[:2], self.conditionings, strict=False) if c is None]
        if missing:
            raise problem(
                " and ".join(missing),
                found="nothing connected",
                expected="both LoRAs' own prompts, or none at all",
                advice="Connect CLIP Text Encode with the prompt that LoRA was trained on.",
            )
        return True


@dataclass(frozen=True)
class Calibration:
    """Moments by module, and what they cost."""

    moments: Mapping[str, RankMoments]
    report: str


@memory_advice("Lower width and height")
def calibrate(
    model: Any, pair: LoRAPair, prompts: CalibrationPrompts, watch: Watch = _UNWATCHED
) -> Calibration:
    """Let each LoRA alone, and both together at the joint prompt, draw a short trajectory.

    Euler, 8 steps, guidance 5 against the zeroed prompt; the layers' inputs are counted on the way,
    of the prompt's half alone, so that nothing is evaluated twice. All on a private copy.

    Args:
        model: the person's ModelPatcher; it is not changed.
        pair: the two LoRAs, at the pair's strengths.
        prompts: content's and style's, connected.
        watch: told of the UNet evaluations; may raise to cancel.

    Raises:
        ZipLoRAError: anything about the inputs that a person can put right.
    """
    started = time.perf_counter()
    refuse_patched(model)
    refuse_other_than_sdxl(model.model)
    given = [(i, c) for i, c in enumerate(prompts.conditionings) if c is not None]
    for concept, conditioning in given:
        cond.check(conditioning, _NAMES[concept], model.model)
    with torch.inference_mode(False), torch.no_grad():
        pairs, _ = pair_on_model(pair, model.model)
        keys = unet_targets(model.model)
        counted = RankCalibration({keys[name]: p for name, p in pairs.items()})
        with training_model(model, counted.branches, backward=False) as opened:
            opened.on_evaluation = lambda done: watch.on_prepare(done, prompts.evaluations)
            with opened.observed(_of_the_prompt(counted)):
                for concept, conditioning in given:
                    counted.concept = concept
                    _draw(opened, conditioning, TEACHERS[concept], prompts)
    states = " + ".join(str(STEPS) for _ in given)
    return Calibration(
        {name: counted.moments[keys[name]] for name in pairs},
        f"calibrated on {states} states in {time.perf_counter() - started:.1f} s; "
        f"UNet evaluations: {opened.evaluations} samples"
        + ("" if prompts.joint else "; no joint prompt holds the merge where both are asked for"),
    )


def _draw(
    opened: TrainingModel, conditioning: Any, teacher: Teacher, size: CalibrationPrompts
) -> None:
    """Let a teacher draw one picture."""
    channels = opened.model.latent_format.latent_channels
    shape = (1, channels, size.height // 8, size.width // 8)
    noise = torch.randn(shape, generator=generator(size.seed)).to(opened.device)
    prompt, nothing = (
        [cond.prepare(opened.model, c, noise)] for c in (conditioning, cond.zeroed(conditioning))
    )
    gates = Gates(torch.tensor([teacher]), learned=False)
    draw_latents(opened, prompt, nothing, noise, gates, STEPS)


def _of_the_prompt(counted: RankCalibration) -> Observer:
    """Leave out the unconditional half of every batch."""
    return lambda name, x, out, layer: counted.observe(name, x[:1], out[:1], layer)
