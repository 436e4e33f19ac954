"""A slider's training step equals the public implementation's with its timestep corrected."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

import comfy.sd
import comfy.supported_models
import comfy.utils
import pytest
import torch
import torch.nn.functional as F
from comfy.model_patcher import ModelPatcher
from diffusers import UNet2DConditionModel
from torch import Tensor

from sandbox import tiny
from sandbox.diffusers_reference import diffusers_unet, noise_scheduler
from sandbox.slider_reference import (
    LoRANetwork,
    PromptEmbeds,
    Settings,
    chosen_modules,
    text_slider_loss,
)
from ziplora_core.comfy_adapter.data.caption_encoding import Conditioner, encode_captions
from ziplora_core.comfy_adapter.model.targets import unet_targets
from ziplora_core.comfy_adapter.model.training_model import TrainingModel, training_model
from ziplora_core.comfy_adapter.train.new_lora import new_lora
from ziplora_core.comfy_adapter.train.slider_tasks import TextSliderTask
from ziplora_core.dreambooth.objective import View
from ziplora_core.lora.layers import choose_layers
from ziplora_core.sliders.options import PairSliderSettings, SliderSettings, TextSliderSettings
from ziplora_core.sliders.picture_objective import PairSliderObjective, PicturePair
from ziplora_core.sliders.text_objective import (
    SHARED,
    concepts,
    denoising_sigmas,
    partly_denoised,
)
from ziplora_core.training.framing import Framing
from ziplora_core.training.lora_parameters import LearnedLoRA
from ziplora_core.training.options import TrainingOptions

from .. import helpers
from .dreambooth_task import split, started

SIDE = 128
AGE = TextSliderSettings(
    target="person", positive="very old person", negative="very young person",
    preserve="male\nfemale", resolution=SIDE, rank=4, alpha=2.0,
)  # fmt: skip


@contextmanager
def opened_lora(
    model: ModelPatcher, settings: SliderSettings
) -> Iterator[tuple[TrainingModel, LearnedLoRA]]:
    """Open the model with a slider in mid-training on it."""
    targets = unet_targets(model.model)
    lora = new_lora(model, targets, settings.layers, settings)
    started(lora.parameters)
    with training_model(model, lora.by_weight(targets)) as opened:
        yield opened, lora


def embeds(encoded: Any) -> PromptEmbeds:
    [[context, extras]] = encoded
    return PromptEmbeds(context.clone(), extras["pooled_output"].clone())


def assert_same_gradients(lora: LearnedLoRA, network: LoRANetwork, loss: Tensor) -> None:
    assert lora.parameters.flat.grad is not None
    ours = split(lora.parameters, lora.parameters.flat.grad)
    theirs = [p for part in (network.down, network.up) for p in part.values()]
    found = iter(torch.autograd.grad(loss, theirs))
    wanted = {name: [next(found)] for name in network.down}
    for name in network.up:
        wanted[name].append(next(found))
    # The tiny model's norms cancel some layers' outputs: their gradients are only rounding.
    rounding = 1e-6 * torch.cat([g.flatten() for pair in wanted.values() for g in pair]).norm()
    for name, pair in ours.items():
        for got, want in zip(pair, wanted[name], strict=True):
            assert (got - want).norm() < 1e-3 * want.norm() + rounding, name


@pytest.mark.parametrize(
    "layers", ["noxattn", pytest.param("full", marks=pytest.mark.thorough), "xattn_strict"]
)
@pytest.mark.parametrize("action", ["enhance", "erase"])
def test_text_step_equals_the_public_one(layers: str, action: str, clip: comfy.sd.CLIP) -> None:
    model = tiny.tiny_sdxl()
    settings = replace(AGE, layers=layers, action=action, seed=3)
    task = TextSliderTask(settings)
    encoded = encode_captions(clip, ["", *task.texts], model.model)
    with opened_lora(model, settings) as (opened, lora):
        conditioner = Conditioner(opened.model, encoded.__getitem__, True, opened.device)
        task = task.objective(opened, lora, conditioner)
        terms = task.backward(0)
        concept, (steps,), noise = task.start(0, 1)
        number = next(n for n, c in enumerate(task.concepts) if c is concept)
        counted = opened.evaluations
        factors = lora.parameters.detached()
    shown = concepts(settings)[number]
    texts = {name: embeds(encoded[text]) for name, text in asdict(shown).items()}
    unet = diffusers_unet(model).requires_grad_(False)
    network = LoRANetwork(unet, factors)
    prompt = Settings(
        texts["target"], texts["positive"], texts["negative"], texts["neutral"], action, 4.0, SIDE
    )
    want = text_slider_loss(unet, network, prompt, steps, noise[None])
    torch.testing.assert_close(terms["loss"], want.detach(), rtol=1e-4, atol=0)
    assert_same_gradients(lora, network, want)
    assert counted == 2 * steps + 4  # and a backward pass, which counts as the fifth


@pytest.mark.thorough
def test_reused_trajectory_gives_the_latents_of_exact_ones(clip: comfy.sd.CLIP) -> None:
    model = tiny.tiny_sdxl()
    settings = replace(AGE, trajectory="reused")
    task = TextSliderTask(settings)
    encoded = encode_captions(clip, ["", *task.texts], model.model)
    with opened_lora(model, settings) as (opened, lora):
        conditioner = Conditioner(opened.model, encoded.__getitem__, True, opened.device)
        task = task.objective(opened, lora, conditioner)
        task.fold()
        drawn = [task.draw(update) for update in range(SHARED)]
        shared = opened.evaluations
        concept, steps, noise = task.start(0, SHARED)
        for (x, sigma, shown), k in zip(drawn, steps, strict=True):
            (alone,) = partly_denoised(opened, [concept], [[k]], noise[None])
            torch.testing.assert_close(x, alone, rtol=1e-4, atol=1e-4)
            assert sigma == denoising_sigmas(opened.sigmas)[k] and shown == [concept]
    assert shared == 2 * max(steps)


def test_image_step_equals_two_passes_with_accumulated_gradients(clip: comfy.sd.CLIP) -> None:
    model = tiny.tiny_sdxl()
    settings = PairSliderSettings(
        rank=4, alpha=2.0, resolution=SIDE, positive="old", neutral="young"
    )
    frame = Framing.drawn(SIDE, SIDE)
    std = torch.full((4, SIDE // 8, SIDE // 8), 0.1)
    pair = PicturePair(
        View(helpers.noise(4, 16, 16, seed=1), std, frame),
        View(helpers.noise(4, 16, 16, seed=2), 2 * std, frame), 2.0,
    )  # fmt: skip
    encoded = encode_captions(clip, ["old", "young"], model.model)
    with opened_lora(model, settings) as (opened, lora):
        conditioner = Conditioner(opened.model, encoded.__getitem__, True, opened.device)
        drawn = []
        noised = opened.noised

        def recorded(x0: Tensor, noise: Tensor, timestep: int) -> tuple[Tensor, Tensor, Tensor]:
            drawn.append((x0, noise, timestep))
            return noised(x0, noise, timestep)

        opened.noised = recorded
        task = PairSliderObjective(opened, lora, [pair], conditioner, settings)
        terms = task.backward(0)
        gradient = lora.parameters.flat.grad
        assert gradient is not None and opened.evaluations == 2
        low = gradient.clone()
        lora.parameters.flat.grad = None
        opened.checkpointing = True  # the two in turn
        task.backward(0)
        torch.testing.assert_close(lora.parameters.flat.grad, low, rtol=1e-3, atol=1e-6)
        factors = lora.parameters.detached()
    unet = diffusers_unet(model).requires_grad_(False)
    network, scheduler = LoRANetwork(unet, factors), noise_scheduler()
    assert torch.equal(drawn[0][1], drawn[1][1]) and drawn[0][2] == drawn[1][2]
    total = torch.zeros(())
    for (x0, noise, timestep), multiplier, text in zip(
        drawn[:2], (-2.0, 2.0), ("young", "old"), strict=True
    ):
        prompt, t = embeds(encoded[text]), torch.tensor([timestep])
        noisy = scheduler.add_noise(x0[None].float(), noise[None], t)
        with network.at(multiplier):
            predicted = unet(
                noisy, t, prompt.context,
                added_cond_kwargs={
                    "text_embeds": prompt.pooled,
                    "time_ids": torch.tensor([[SIDE, SIDE, 0, 0, SIDE, SIDE]]),
                },
            ).sample  # fmt: skip
        total = total + F.mse_loss(predicted, noise[None])
    torch.testing.assert_close(terms["loss"], total.detach(), rtol=1e-4, atol=0)
    assert_same_gradients(lora, network, total)


def test_pairs_of_one_size_share_a_batch_whatever_the_order(clip: comfy.sd.CLIP) -> None:
    """One pass of four pairs is four passes of one, and two batches: one for each size."""
    model = tiny.tiny_sdxl()
    encoded = encode_captions(clip, ["old", "young"], model.model)
    pairs = []
    for n, width in enumerate((8, 12, 8, 12)):
        frame, std = Framing.drawn(64, 8 * width), torch.full((4, 8, width), 0.1)
        low, high = (View(helpers.noise(4, 8, width, seed=2 * n + m), std, frame) for m in (0, 1))
        pairs.append(PicturePair(low, high, 1.0 + n % 2))
    found, batches = [], []
    for options in (TrainingOptions(batch=4), TrainingOptions(accumulation=4)):
        settings = PairSliderSettings(positive="old", neutral="young", options=options)
        with opened_lora(model, settings) as (opened, lora):
            conditioner = Conditioner(opened.model, encoded.__getitem__, True, opened.device)
            task = PairSliderObjective(opened, lora, pairs, conditioner, settings)
            seen: list[int] = []
            opened.on_evaluation = seen.append
            terms = task.backward(0)
            found.append((terms["loss"], lora.parameters.flat.grad))
            batches.append(seen)
    assert batches == [[4, 8], [2, 4, 6, 8]]
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-4, atol=0)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("layers", "method", "count"),
    [
        ("noxattn", "noxattn", 346),
        ("xattn", "xattn", 280),
        ("full", "full", 626),
        ("selfattn", "selfattn", 280),
        ("xattn_strict", "xattn-strict", 210),
    ],
)
def test_layers_on_sdxl_are_those_of_the_public_implementation(
    layers: str, method: str, count: int
) -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            block_out_channels=(320, 640, 1280),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 2, 10),
            attention_head_dim=(5, 10, 20),
            cross_attention_dim=2048,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=2816,
        )
    config = {
        **comfy.supported_models.SDXL.unet_config, "num_res_blocks": [2, 2, 2],
        "channel_mult": [1, 2, 4], "transformer_depth_middle": 10,
        "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10], "in_channels": 4,
    }  # fmt: skip
    sgm = comfy.utils.unet_to_diffusers(config)
    shapes = {name: tuple(p.shape) for name, p in unet.named_parameters()}
    names = {
        path: "lora_unet_" + sgm[path].removesuffix(".weight").replace(".", "_")
        for path, shape in shapes.items()
        if path.endswith(".weight") and len(shape) > 1
    }
    ours = choose_layers(layers, [(names[path], len(shapes[path]) - 2) for path in names])
    theirs = [names[f"{module}.weight"] for module in chosen_modules(unet, method)]
    assert sorted(ours) == sorted(theirs) and len(ours) == count
