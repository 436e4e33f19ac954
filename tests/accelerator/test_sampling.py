"""Sampling with branches on the device: equal to the CPU's and to stock loaders, without a wait."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.sample
import comfy.sd
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from bench.engine.models import SIZES
from card.studio import Studio, open_studio
from sandbox.paths import DEVICE
from ziplora_core.branches import Branches, Gates
from ziplora_core.closed_form import Collector
from ziplora_core.comfy_adapter import conditioning as cond
from ziplora_core.comfy_adapter.apply import apply_lora
from ziplora_core.comfy_adapter.concept_slider import with_slider
from ziplora_core.comfy_adapter.pairs import merge_pair, pair_on_model
from ziplora_core.comfy_adapter.targets import unet_targets
from ziplora_core.comfy_adapter.training_model import training_model
from ziplora_core.comfy_adapter.unzip_apply import with_own_prompts
from ziplora_core.files.writer import kohya_tensors
from ziplora_core.merge import MergedLoRA
from ziplora_core.merge_methods import MergeSettings
from ziplora_core.pairing import pair_modules

from .counted import counted

STEPS = 3
Patch = Callable[[Studio], ModelPatcher]


@pytest.fixture(scope="module")
def studios() -> tuple[Studio, Studio]:
    """Open one studio on the device, and one on the CPU."""
    device, cpu = (open_studio(SIZES["tiny"], True, d) for d in (None, torch.device("cpu")))
    return device, cpu


def prompt(studio: Studio, text: str = "a dog") -> list[list[Any]]:
    return studio.clip.encode_from_tokens_scheduled(studio.clip.tokenize(text))


def draw(studio: Studio, model: ModelPatcher) -> Tensor:
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    said, nothing = prompt(studio), prompt(studio, "")
    with torch.inference_mode():
        return comfy.sample.sample(
            model, noise, STEPS, 5.0, "euler", "normal", said, nothing, torch.zeros_like(noise),
            seed=0, disable_pbar=True,
        ).cpu()  # fmt: skip


def slider(studio: Studio) -> ModelPatcher:
    return with_slider(studio.model, studio.pair.content, 1.0)[0]


def windowed_slider(studio: Studio) -> ModelPatcher:
    return with_slider(studio.model, studio.pair.content, 1.0, 0.25)[0]


def unzipped(studio: Studio) -> ModelPatcher:
    halves = (studio.pair.content.modules, studio.pair.style.modules)
    merged = MergedLoRA(pair_modules(*halves), prompt_separated=True)
    return with_own_prompts(studio.model, merged, [prompt(studio, "a"), prompt(studio, "b")])[0]


def merged(studio: Studio) -> ModelPatcher:
    joined, _ = merge_pair(studio.model.model, studio.pair, "direct", MergeSettings())
    return apply_lora(joined.modules(), "merge", studio.model, None)[0]


def stock(studio: Studio, *loras: Any) -> ModelPatcher:
    model = studio.model
    for lora in loras:
        model = comfy.sd.load_lora_for_models(model, None, kohya_tensors(lora.modules), 1, 0)[0]
    return model


def assert_close(got: Tensor, want: Tensor) -> None:
    assert float((got - want).abs().max() / want.square().mean().sqrt()) <= 1e-3


@pytest.mark.parametrize("patch", [slider, windowed_slider, unzipped, merged])
def test_picture_on_the_device_is_the_cpus(patch: Patch, studios: tuple[Studio, Studio]) -> None:
    got, want = (draw(studio, patch(studio)) for studio in studios)
    assert_close(got, want)
    assert float((want - draw(studios[1], studios[1].model)).abs().max()) > 0.01


def test_slider_and_direct_merge_equal_stock_loaders(studios: tuple[Studio, Studio]) -> None:
    studio, pair = studios[0], studios[0].pair
    assert_close(draw(studio, slider(studio)), draw(studio, stock(studio, pair.content)))
    both = stock(studio, pair.content, pair.style)
    assert_close(draw(studio, merged(studio)), draw(studio, both))


@pytest.mark.skipif(DEVICE != "pretend", reason="only the pretend device counts")
@pytest.mark.parametrize("patch", [slider, windowed_slider, unzipped])
def test_branches_add_no_wait_to_sampling(patch: Patch, studios: tuple[Studio, Studio]) -> None:
    studio = studios[0]
    waits = []
    for model in (studio.model, patch(studio)):
        draw(studio, model)  # loads
        with counted() as counts:
            draw(studio, model)
        waits.append((counts.waits, counts.places))
    (bare, _), (patched, places) = waits
    assert patched <= bare, places


@pytest.mark.skipif(DEVICE != "pretend", reason="only the pretend device counts")
@pytest.mark.parametrize("student", [False, True])
def test_forward_of_the_closed_form_waits_for_nothing(
    student: bool, studios: tuple[Studio, Studio]
) -> None:
    studio = studios[0]
    pairs, _ = pair_on_model(studio.pair, studio.model.model)
    keys = unet_targets(studio.model.model)
    branches = {keys[name]: Branches(pair.factors) for name, pair in pairs.items()}
    with torch.no_grad(), training_model(studio.model, branches) as opened:
        x = opened.place(torch.randn(2, 4, 16, 16))
        prepared = [cond.prepare(opened.model, prompt(studio), x[:1])] * 2
        sigma, rows = opened.place(torch.ones(2)), torch.ones(2, 2)
        collector = Collector(opened.branches, with_student=student)
        for branch in branches.values():
            branch.fold(torch.ones(2, branch.width))
        gates = Gates(rows, teachers=1)
        with opened.observed(collector.observe):
            opened.denoise(x, sigma, prepared, gates)
            with counted() as counts:
                opened.denoise(x, sigma, prepared, gates)
    assert counts.waits == 0, counts.places
    assert counts.by_kind["to_device_async"] <= 4, counts.by_kind
