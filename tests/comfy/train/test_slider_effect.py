"""A slider's effect on pictures: its measurement, and that it is drawn as in later use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import comfy.sample
import pytest
import torch
from torch import Tensor

from sandbox import tiny
from ziplora_core.comfy_adapter.apply.slider import with_slider
from ziplora_core.comfy_adapter.data.caption_encoding import Conditioner
from ziplora_core.comfy_adapter.data.samples import decoded, draw_samples
from ziplora_core.comfy_adapter.model.targets import resolve_unet, unet_targets
from ziplora_core.comfy_adapter.model.training_model import TrainingModel, training_model
from ziplora_core.comfy_adapter.train.slider_effect import STEPS, Effect, look_at_effect
from ziplora_core.files import lora_from_tensors
from ziplora_core.sliders.options import TextSliderSettings
from ziplora_core.training.branches import Branches, Gates
from ziplora_core.training.framing import Framing
from ziplora_core.training.random import Stream, generator

from .. import helpers

SIDE = 64
FRAME = Framing.drawn(SIDE, SIDE)
SETTINGS = TextSliderSettings(range=1.5, start_percent=0.3, seed=5)
PROMPT = "a photo of sks dog"


@contextmanager
def opened_slider() -> Iterator[tuple[TrainingModel, list[Any]]]:
    """Open a model with the style LoRA as its slider; yield it with a prompt and the empty one."""
    model, clip = tiny.tiny_sdxl(), tiny.tiny_clip()
    lora = lora_from_tensors(helpers.lora_tensors()[1], name="style")
    targets = unet_targets(model.model)
    branches = {targets[n]: Branches([f]) for n, f in resolve_unet(lora, model.model).items()}
    encoded = {text: helpers.encode(clip, text) for text in (PROMPT, "")}
    with torch.inference_mode(False), training_model(model, branches) as opened:
        conditioner = Conditioner(opened.model, encoded.__getitem__, True, opened.device)
        yield opened, conditioner([(PROMPT, FRAME), ("", FRAME)])


def look(opened: TrainingModel, prompts: list[Any], count: int = 1, vae: Any = None) -> Effect:
    with torch.no_grad():
        return look_at_effect(opened, prompts, FRAME, count, vae, PROMPT, SETTINGS)


def test_change_is_measured_by_what_another_seed_changes() -> None:
    pictures = torch.zeros(2, 3, 4, 4, 3)
    pictures[1] += 0.4  # the seeds differ by 0.4
    pictures[:, 0] -= 0.05
    pictures[:, 2] += 0.15
    effect = Effect(pictures, 2.0, "a dog", 0.25)
    assert effect.change == pytest.approx(0.2) and effect.spread == pytest.approx(0.4)
    assert effect.relative == pytest.approx(0.5)
    assert effect.line() == (
        "effect: from −2 to 2, active from 25% of the sampling on, pictures of 'a dog' change by "
        "50% of what another seed changes"
    )
    alone = Effect(pictures[:1], 2.0, "a dog", 0.25)
    assert alone.line() == "effect on 'a dog': shown, not measured (held_out_draws is 0)"
    still = Effect(pictures[:, 1:2].expand(2, 3, 4, 4, 3), 2.0, "", 0.25)
    assert still.relative == 0
    assert "WARNING: this slider does nothing yet" in still.line()
    assert "pictures of the empty prompt change by 0.0%" in still.line()


@torch.inference_mode()
def drawn_with(scale: float) -> Tensor:
    """Draw as a user does, with Concept Slider and KSampler, from the effect's noise."""
    model, clip = tiny.tiny_sdxl(), tiny.tiny_clip()
    lora = lora_from_tensors(helpers.lora_tensors()[1], name="style")
    patched, _ = with_slider(model, lora, scale, SETTINGS.start_percent)
    noise = torch.randn(1, 4, 8, 8, generator=generator(SETTINGS.seed, Stream.SLIDER_EFFECT, 0))
    latent = comfy.sample.sample(
        patched, noise, STEPS, 5.0, "euler", "normal", helpers.encode(clip, PROMPT),
        helpers.encode(clip, ""), torch.zeros(1, 4, 8, 8), disable_pbar=True, seed=0,
    )  # fmt: skip
    return tiny.tiny_vae().decode(latent)[0].clamp(0, 1)


def test_left_middle_and_right_are_the_slider_down_off_and_up() -> None:
    with opened_slider() as (opened, prompts):
        (strip,) = look(opened, prompts, vae=tiny.tiny_vae()).pictures
    for picture, scale in zip(strip, (-1.5, 0.0, 1.5), strict=True):
        torch.testing.assert_close(picture, drawn_with(scale), rtol=0, atol=5e-3)
    assert (strip[0] - strip[2]).abs().mean() > 0.02


@pytest.mark.thorough
def test_low_memory_draws_the_three_in_turn_and_none_left_every_sample() -> None:
    found, batches = [], []
    for low, fails in ((False, False), (True, False), (False, True)):
        with opened_slider() as (opened, prompts):
            opened.checkpointing, seen = low, [0]

            def note(done: int, seen: list[int] = seen, fails: bool = fails) -> None:
                seen.append(done)
                if fails and done - seen[-2] == 6:
                    seen.append(seen[-2])  # evaluations that failed are not counted
                    raise RuntimeError("MPS backend out of memory")

            opened.on_evaluation = note
            found.append(look(opened, prompts).pictures)
            batches.append({b - a for a, b in pairwise(seen)})
    assert batches == [{6}, {2}, {6, -6, 1}]
    for pictures in found[1:]:
        torch.testing.assert_close(pictures, found[0], rtol=0, atol=1e-3)


def test_vae_is_asked_when_all_is_drawn() -> None:
    """It may unload the model, so nothing is drawn after it until the model is loaded again."""
    with opened_slider() as (opened, prompts):

        class Told:
            def __init__(self) -> None:
                self.vae, self.evaluations = tiny.tiny_vae(), []

            def decode(self, latents: Tensor) -> Tensor:
                self.evaluations.append(opened.evaluations)
                return self.vae.decode(latents)

        vae = Told()
        look(opened, prompts, 2, vae)
        assert vae.evaluations == [2 * 6 * STEPS] * 2
        with torch.no_grad():
            opened.hooks.gates = Gates()
            draw_samples(opened, [*prompts, prompts[1]], FRAME, 0, vae)
        assert vae.evaluations[2:] == [2 * 6 * STEPS + 2 * 2 * STEPS] * 2
        assert len(decoded(opened, [torch.zeros(2, 4, 8, 8)], None)[0]) == 2
