"""One training step equals diffusers' and PEFT's on the same weights, pictures and noise."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import comfy.sd
import pytest
import torch
from torch import Tensor

from sandbox import tiny
from sandbox.diffusers_reference import diffusers_unet, reference_step
from ziplora_core.dreambooth.objective import TrainingExample
from ziplora_core.dreambooth.options import DreamBoothSettings
from ziplora_core.training.framing import Framing
from ziplora_core.training.options import TrainingOptions

from .dreambooth_task import CAPTIONS, Opened, example, opened_task, split

FRAMES = (
    Framing((128, 128), (128, 128), (0, 0), (128, 128)),
    Framing((900, 700), (165, 128), (18, 0), (128, 128)),
    Framing((333, 999), (128, 384), (0, 128), (128, 128)),
)
WIDE = Framing((300, 520), (96, 168), (0, 0), (96, 168))


def settings(batch: int = 2, accumulation: int = 1, gamma: float = 0.0) -> DreamBoothSettings:
    options = TrainingOptions(batch=batch, accumulation=accumulation, min_snr_gamma=gamma)
    return DreamBoothSettings(CAPTIONS[0], rank=4, alpha=2.0, prior_weight=0.7, options=options)


def pictures() -> list[TrainingExample]:
    """Three pictures of one latent size, cropped from pictures of other sizes."""
    return [example(n, FRAMES[n], CAPTIONS[n % 2]) for n in range(3)]


def class_pictures() -> list[TrainingExample]:
    return [example(10 + n, FRAMES[0], CAPTIONS[2]) for n in range(2)]


def reference(
    opened: Opened, unet: Any, shown: list[tuple[str, Framing]], **loss: Any
) -> tuple[Tensor, dict[str, tuple[Tensor, Tensor]]]:
    """Compute diffusers' loss and gradients of the objective's draws."""
    latents, noise = (torch.stack([d[i] for d in opened.drawn]).float() for i in (0, 1))
    encoded = [opened.encoded[caption][0] for caption, _ in shown]
    context = torch.cat([c.clone() for c, _ in encoded])
    pooled = torch.cat([extras["pooled_output"].clone() for _, extras in encoded])
    time_ids = torch.tensor([[*f.original, *f.crop, *f.target] for _, f in shown])
    timesteps = torch.tensor([timestep for *_, timestep in opened.drawn])
    factors = opened.task.lora.parameters.detached()
    return reference_step(
        unet, factors, latents, noise, timesteps, context, pooled, time_ids, **loss
    )


def assert_equal_step(opened: Opened, loss: Tensor, want: Tensor, gradients: Any) -> None:
    torch.testing.assert_close(loss, want, rtol=2e-5, atol=0)
    for name, pair in opened.gradients().items():
        for got, expected in zip(pair, gradients[name], strict=True):
            assert float((got - expected).norm() / expected.norm()) < 2e-4, name


@pytest.mark.parametrize("prediction", ["eps", "v"])
@pytest.mark.parametrize("prior", [False, True], ids=["instances", "with prior"])
def test_step_with_true_sizes_equals_diffusers_and_peft(
    prediction: tiny.Prediction, prior: bool, clip: comfy.sd.CLIP
) -> None:
    model = tiny.tiny_sdxl(prediction)
    classes = class_pictures() if prior else []
    with opened_task(model, clip, settings(), pictures(), classes) as opened:
        terms = opened.task.backward(0)
        draws = opened.task._draws(0)
        opened.drawn = opened.drawn[: len(draws)]
        shown = [(draw.caption, draw.frame) for draw in draws]
        want, gradients = reference(
            opened, diffusers_unet(model), shown, v_prediction=prediction == "v",
            prior_weight=0.7 if prior else None,
        )  # fmt: skip
        assert_equal_step(opened, terms["loss"], want, gradients)
    assert len({frame for _, frame in shown}) > 1 and len(terms) == (3 if prior else 2)


@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_step_with_min_snr_equals_diffusers(
    prediction: tiny.Prediction, clip: comfy.sd.CLIP
) -> None:
    model = tiny.tiny_sdxl(prediction)
    with opened_task(model, clip, settings(gamma=5.0), pictures()) as opened:
        terms = opened.task.backward(0)
        shown = [(draw.caption, draw.frame) for draw in opened.task._draws(0)]
        opened.drawn = opened.drawn[:2]
        want, gradients = reference(
            opened, diffusers_unet(model), shown, v_prediction=prediction == "v", min_snr_gamma=5.0
        )
        assert_equal_step(opened, terms["loss"], want, gradients)


@pytest.mark.parametrize("mixed", [False, True], ids=["one size", "two sizes"])
@pytest.mark.parametrize("low", [False, True], ids=["fast", "low"])
def test_batch_of_two_equals_the_mean_of_two_single_steps_and_accumulation(
    mixed: bool, low: bool, clip: comfy.sd.CLIP
) -> None:
    shown = pictures()
    if mixed:
        shown[1] = example(1, WIDE, CAPTIONS[1])
    found = []
    for chosen, steps in ((settings(2), 1), (settings(1), 2), (settings(1, 2), 1)):
        model = tiny.tiny_sdxl()
        with opened_task(model, clip, chosen, shown, class_pictures()) as opened:
            opened.task.model.checkpointing = low
            losses = [float(opened.task.backward(step)["loss"]) for step in range(steps)]
            grad = opened.task.lora.parameters.flat.grad
            assert grad is not None
            found.append((sum(losses) / steps, grad / steps))
    for loss, grad in found[1:]:
        assert loss == pytest.approx(found[0][0], rel=1e-5)
        assert float((grad - found[0][1]).norm() / grad.norm()) < 1e-4


def test_text_encoder_gradient_equals_the_finite_difference(clip: comfy.sd.CLIP) -> None:
    """Through both encoders and the UNet, along the gradient itself."""
    model, shown = tiny.tiny_sdxl(), pictures()
    chosen = replace(settings(), train_text_encoder=True)
    with opened_task(model, clip, chosen, shown) as opened:
        task = opened.task
        assert task.text_lora is not None
        text = task.text_lora.parameters
        task.backward(0)
        grad = text.flat.grad
        assert grad is not None
        by_module = split(text, grad)
        unused = {name for name, (down, _) in by_module.items() if not down.any()}
        assert all(name.startswith("lora_te1_") and "layers_2_" in name for name in unused)
        direction = grad / grad.norm()

        def loss(step: float) -> float:
            with torch.no_grad():
                text.flat += step * direction
                task.fold()
                found = float(task._errors(task._draws(0)).mean())
                text.flat -= step * direction
            return found

        slope = (loss(0.05) - loss(-0.05)) / 0.1
        assert slope == pytest.approx(float(grad.norm()), rel=2e-2)
