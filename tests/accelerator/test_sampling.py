"""Sampling with branches on the device equals the CPU's and stock loaders', without waits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.model_management
import comfy.sample
import comfy.sd
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from comfy_extras.nodes_model_merging import ModelMergeSimple
from torch import Tensor

from bench.engine.models import SIZES
from card.models import CardModels, open_models
from sandbox.paths import DEVICE
from ziplora_core.comfy_adapter.apply.lora import apply_lora
from ziplora_core.comfy_adapter.apply.slider import with_slider
from ziplora_core.comfy_adapter.apply.unziplora import with_unziplora
from ziplora_core.comfy_adapter.model import conditioning as cond
from ziplora_core.comfy_adapter.model.memory_advice import unload_all_models
from ziplora_core.comfy_adapter.model.pair_on_model import merge_pair, pair_on_model
from ziplora_core.comfy_adapter.model.targets import unet_targets
from ziplora_core.comfy_adapter.model.training_model import training_model
from ziplora_core.files.writer import kohya_tensors
from ziplora_core.lora.merged import MergedLoRA
from ziplora_core.lora.pair import pair_modules
from ziplora_core.merging import MergeSettings
from ziplora_core.training.branches import Branches, Gates
from ziplora_core.ziplora.closed_form import Collector

from .counted import counted

STEPS = 3
Patch = Callable[[CardModels], ModelPatcher]


@pytest.fixture(scope="module")
def models_of() -> tuple[CardModels, CardModels]:
    """The models on the device, and those on the CPU."""
    device, cpu = (open_models(SIZES["tiny"], True, d) for d in (None, torch.device("cpu")))
    return device, cpu


def prompt(models: CardModels, text: str = "a dog") -> list[list[Any]]:
    return models.clip.encode_from_tokens_scheduled(models.clip.tokenize(text))


def draw(models: CardModels, model: ModelPatcher) -> Tensor:
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    said, nothing = prompt(models), prompt(models, "")
    with torch.inference_mode():
        return comfy.sample.sample(
            model, noise, STEPS, 5.0, "euler", "normal", said, nothing, torch.zeros_like(noise),
            seed=0, disable_pbar=True,
        ).cpu()  # fmt: skip


def slider(models: CardModels) -> ModelPatcher:
    return with_slider(models.model, models.pair.content, 1.0)[0]


def windowed_slider(models: CardModels) -> ModelPatcher:
    return with_slider(models.model, models.pair.content, 1.0, 0.25)[0]


def unzipped(models: CardModels) -> ModelPatcher:
    halves = (models.pair.content.modules, models.pair.style.modules)
    merged = MergedLoRA(pair_modules(*halves), prompt_separated=True)
    return with_unziplora(models.model, merged, [prompt(models, "a"), prompt(models, "b")])[0]


def merged(models: CardModels) -> ModelPatcher:
    joined, _ = merge_pair(models.model.model, models.pair, "direct", MergeSettings())
    return apply_lora(joined.modules(), "merge", models.model, None)[0]


def merged_models(models: CardModels) -> ModelPatcher:
    """A slider on both MODELs of a merge."""
    on_both = ModelMergeSimple().merge(slider(models), slider(models), 0.4)
    return on_both[0]


def stock(models: CardModels, *loras: Any) -> ModelPatcher:
    model = models.model
    for lora in loras:
        model = comfy.sd.load_lora_for_models(model, None, kohya_tensors(lora.modules), 1, 0)[0]
    return model


def assert_close(got: Tensor, want: Tensor) -> None:
    assert float((got - want).abs().max() / want.square().mean().sqrt()) <= 1e-3


@pytest.mark.parametrize("patch", [slider, windowed_slider, unzipped, merged])
def test_picture_on_the_device_is_the_cpus(
    patch: Patch, models_of: tuple[CardModels, CardModels]
) -> None:
    got, want = (draw(models, patch(models)) for models in models_of)
    assert_close(got, want)
    assert float((want - draw(models_of[1], models_of[1].model)).abs().max()) > 0.01


@pytest.mark.parametrize("patch", [slider, windowed_slider, unzipped, merged, merged_models])
@pytest.mark.parametrize("state", ["LOW_VRAM", "NO_VRAM"])
def test_picture_is_the_same_where_comfyui_saves_memory(
    state: str,
    patch: Patch,
    models_of: tuple[CardModels, CardModels],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With --novram, the weights stay on the CPU and each layer is lent its own."""
    models, management = models_of[0], comfy.model_management
    want = draw(models, patch(models))
    unload_all_models()
    monkeypatch.setattr(management, "vram_state", management.VRAMState[state])
    got = draw(models, patch(models))
    places = {p.device.type for p in models.model.model.diffusion_model.parameters()}
    assert ("cpu" in places) is (state == "NO_VRAM")
    assert_close(got, want)
    unload_all_models()


def test_slider_and_direct_merge_equal_stock_loaders(
    models_of: tuple[CardModels, CardModels],
) -> None:
    models, pair = models_of[0], models_of[0].pair
    assert_close(draw(models, slider(models)), draw(models, stock(models, pair.content)))
    both = stock(models, pair.content, pair.style)
    assert_close(draw(models, merged(models)), draw(models, both))


def test_slider_and_direct_merge_equal_stock_loaders_in_half_precision(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In float16, as ComfyUI loads SDXL on a card: to within a few of its steps of 2^-11."""
    monkeypatch.setattr(comfy.model_management, "FORCE_FP32", False)
    models = open_models(SIZES["tiny"], True)
    assert models.model.model.diffusion_model.dtype == torch.float16
    pair = models.pair
    both = stock(models, pair.content, pair.style)
    for got, want in ((slider(models), stock(models, pair.content)), (merged(models), both)):
        drawn, wanted = draw(models, got), draw(models, want)
        error = (drawn - wanted).square().mean().sqrt() / wanted.square().mean().sqrt()
        assert float(error) <= 16 * 2.0**-11


@pytest.mark.skipif(DEVICE != "pretend", reason="only the pretend device counts")
@pytest.mark.parametrize("patch", [slider, windowed_slider, unzipped])
def test_branches_add_no_wait_to_sampling(
    patch: Patch, models_of: tuple[CardModels, CardModels]
) -> None:
    models = models_of[0]
    waits = []
    for model in (models.model, patch(models)):
        draw(models, model)  # loads
        with counted() as counts:
            draw(models, model)
        waits.append((counts.waits, counts.places))
    (bare, _), (patched, places) = waits
    assert patched <= bare, places


@pytest.mark.skipif(DEVICE != "pretend", reason="only the pretend device counts")
@pytest.mark.parametrize("student", [False, True])
def test_forward_of_the_closed_form_waits_for_nothing(
    student: bool, models_of: tuple[CardModels, CardModels]
) -> None:
    models = models_of[0]
    pairs, _ = pair_on_model(models.pair, models.model.model)
    keys = unet_targets(models.model.model)
    branches = {keys[name]: Branches(pair.factors) for name, pair in pairs.items()}
    with torch.no_grad(), training_model(models.model, branches) as opened:
        x = opened.place(torch.randn(2, 4, 16, 16))
        prepared = [cond.prepare(opened.model, prompt(models), x[:1])] * 2
        sigma, rows = opened.place(torch.ones(2)), torch.ones(2, 2)
        collector = Collector(opened.branches, with_student=student)
        for branch in branches.values():
            branch.fold(torch.ones(2, branch.width))
        gates = Gates(rows, teachers=1)
        with opened.recording(collector.record):
            opened.denoise(x, sigma, prepared, gates)
            with counted() as counts:
                opened.denoise(x, sigma, prepared, gates)
    assert counts.waits == 0, counts.places
    assert counts.by_kind["to_device_async"] <= 4, counts.by_kind
