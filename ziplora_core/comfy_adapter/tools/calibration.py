"""Calibration of merges: the layers' inputs while each LoRA draws at its own prompt."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import problem
from ...lora.pair import LoRAPair
from ...merging.rank_moments import RankCalibration, RankMoments
from ...training.activations import ActivationRecorder
from ...training.branches import Gates
from ...training.interface import NO_CALLBACKS, ProgressCallbacks
from ...training.noisy_samples import TEACHERS, Teacher
from ...training.random import generator
from ..model import conditioning as cond
from ..model.bases import refuse_refiner
from ..model.family import guided_halves
from ..model.memory_advice import memory_advice
from ..model.pair_on_model import pair_on_model
from ..model.private_copy import refuse_patched
from ..model.sampler import sample_latents
from ..model.targets import unet_targets
from ..model.training_model import TrainingModel, training_model

STEPS = 8
"""Noise levels per prompt, those of one trajectory."""
_NAMES = ("content_conditioning", "style_conditioning", "joint_conditioning")


@dataclass(frozen=True)
class CalibrationPrompts:
    """The prompts and pictures to calibrate a merge on.

    Args:
        content, style: the CONDITIONING of each LoRA's own prompt.
        joint: the CONDITIONING of a prompt for both together, or None.
        seed: the seed of the starting noise, which all prompts share.
        width, height: the size of the pictures in pixels.
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

    def connected(self) -> bool:
        """Return whether prompts are connected.

        Raises:
            ZipLoRAError: only some of the prompts are connected.
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
    """The moments by module, and a report line."""

    moments: Mapping[str, RankMoments]
    report: str


@memory_advice("Lower width and height")
def calibrate(
    model: Any,
    pair: LoRAPair,
    prompts: CalibrationPrompts,
    callbacks: ProgressCallbacks = NO_CALLBACKS,
) -> Calibration:
    """Draw a short trajectory with each LoRA alone, and with both at the joint prompt.

    Each trajectory is Euler, 8 steps, with the model's guidance against the zeroed prompt (see
    `family.guidance`). The layers' inputs are recorded on the way, from the conditional half alone,
    so that nothing is evaluated twice. The model is a private copy.

    Args:
        model: the ModelPatcher, which is not changed.
        pair: the two LoRAs, at the pair's strengths.
        prompts: the prompts; those of content and style are connected.
        callbacks: the callbacks, given the number of UNet evaluations; they may raise to cancel.

    Raises:
        ZipLoRAError: inputs that the user can correct.
    """
    started = time.perf_counter()
    refuse_patched(model)
    refuse_refiner(model.model)
    given = [(i, c) for i, c in enumerate(prompts.conditionings) if c is not None]
    for concept, conditioning in given:
        cond.check(conditioning, _NAMES[concept], model.model)
    with torch.inference_mode(False), torch.no_grad():
        pairs, _ = pair_on_model(pair, model.model)
        keys = unet_targets(model.model)
        calibration = RankCalibration({keys[name]: p for name, p in pairs.items()})
        with training_model(model, calibration.branches, backward=False) as opened:
            halves = guided_halves(opened.model)
            total = halves * STEPS * len(given)
            opened.on_evaluation = lambda done: callbacks.on_prepare(done, total)
            with opened.recording(_of_the_prompt(calibration, halves)):
                for concept, conditioning in given:
                    calibration.concept = concept
                    _draw(opened, conditioning, TEACHERS[concept], prompts)
    samples = " + ".join(str(STEPS) for _ in given)
    return Calibration(
        {name: calibration.moments[keys[name]] for name in pairs},
        f"calibrated on {samples} samples in {time.perf_counter() - started:.1f} s; "
        f"UNet evaluations: {opened.evaluations} samples"
        + (
            ""
            if prompts.joint
            else "; no joint prompt: not calibrated for prompts that ask for both"
        ),
    )


def _draw(
    opened: TrainingModel, conditioning: Any, teacher: Teacher, size: CalibrationPrompts
) -> None:
    """Draw one picture with a teacher."""
    shape = opened.latent_shape(size.height, size.width)
    noise = torch.randn((1, *shape), generator=generator(size.seed)).to(opened.device)
    prompt, nothing = (
        [cond.prepare(opened.model, c, noise)] for c in (conditioning, cond.zeroed(conditioning))
    )
    gates = Gates(torch.tensor([teacher]), learned=False)
    sample_latents(opened, prompt, nothing, noise, gates, STEPS)


def _of_the_prompt(calibration: RankCalibration, halves: int) -> ActivationRecorder:
    """Make a recorder that leaves out the unconditional half of every batch."""

    def record(name: str, x: Tensor, out: Tensor, layer: nn.Module) -> None:
        positive = len(x) // halves  # of a layer that sees a sample in pieces, several
        calibration.record(name, x[:positive], out[:positive], layer)

    return record
