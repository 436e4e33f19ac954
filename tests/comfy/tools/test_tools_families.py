"""Grids, the search, extraction and pruning on other families than SDXL's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import comfy.lora
import comfy.sd
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

import nodes
from sandbox.families import conditioning, latent_of, tiny_family, tiny_vae
from sandbox.tiny_pack.vision import tiny_vision
from ziplora_core.comfy_adapter.apply.pruned import with_pruned_lora
from ziplora_core.comfy_adapter.apply.sweep import Sampling, strength_grid
from ziplora_core.comfy_adapter.model.family import is_flow
from ziplora_core.comfy_adapter.model.pair_on_model import pair_on_model
from ziplora_core.comfy_adapter.model.targets import resolve_unet, unet_targets
from ziplora_core.comfy_adapter.tools.extract import extract, two_unets
from ziplora_core.comfy_adapter.tools.find_inputs import FindInputs
from ziplora_core.comfy_adapter.tools.find_merge import find_merge
from ziplora_core.comfy_adapter.tools.scorers import (
    CalibrationPictures,
    LoRAScorer,
    judged_timesteps,
)
from ziplora_core.comfy_adapter.tools.scores import ScoreInputs
from ziplora_core.files import lora_from_tensors
from ziplora_core.files.writer import kohya_tensors
from ziplora_core.lora.merged import MergedLoRA
from ziplora_core.merging.strengths import parse_strengths
from ziplora_core.plots.judge import Gauge, Scale
from ziplora_core.training.random import Stream, generator

from ..family_models import (
    SIDE,
    StateDict,
    every_family,
    far,
    make_pair,
    predict,
    predict_at,
    stock,
)


@pytest.fixture
def drawn(family: str) -> tuple[ModelPatcher, MergedLoRA, list[StateDict], Sampling]:
    """A family's model, the plain sum of two LoRAs, their tensors, and how pictures are drawn."""
    model = tiny_family(family)
    pair, tensors = make_pair(model, size=0.9)  # so that the encoders see what each has learned
    unet, _ = pair_on_model(pair, model.model)
    how = Sampling(
        positive=conditioning(family, 1), negative=conditioning(family, 2),
        latent={"samples": torch.zeros_like(latent_of(model))}, seed=3, steps=2,
        cfg=1.0 if is_flow(model.model) else 2.0, sampler_name="euler", scheduler="simple",
    )  # fmt: skip
    return model, MergedLoRA(unet, metadata={"ziplora.method": "direct"}), tensors, how


@every_family
def test_grid_draws_what_the_stock_nodes_draw(family: str, drawn: Any) -> None:
    model, merged, tensors, how = drawn
    vae = tiny_vae(family)
    with torch.inference_mode():
        pictures = strength_grid(model, vae, merged, ([0.0, 1.0], [0.0, 1.0]), how)
        corners = [
            [stock_picture(stock(model, *loras), vae, how) for loras in row]
            for row in (((), tensors[:1]), (tensors[1:], tensors))
        ]
    assert pictures.shape == (2, 2, SIDE, SIDE, 3)
    for row, wanted in zip(pictures, corners, strict=True):
        for got, want in zip(row, wanted, strict=True):
            assert far(got, want) < 2e-3
    assert far(pictures[1, 1], pictures[0, 0]) > 1e-2


def stock_picture(model: ModelPatcher, vae: comfy.sd.VAE, how: Sampling) -> Tensor:
    settings = (how.sampler_name, how.scheduler, how.positive, how.negative, how.latent)
    (latent,) = nodes.KSampler().sample(model, how.seed, how.steps, how.cfg, *settings)
    return nodes.VAEDecode().decode(vae, latent)[0][0]


@every_family
def test_search_by_encoders_gives_the_best_of_all_strengths(family: str, drawn: Any) -> None:
    model, merged, tensors, how = drawn
    vae, strengths = tiny_vae(family), parse_strengths("0.3/1, 1/0.3, 0.6/0.6")
    encoders = {"clip_vision": tiny_vision("clip_vision"), "dino": tiny_vision("dinov2")}
    with torch.inference_mode():
        subject, style = (
            [stock_picture(stock(model, t), vae, replace(how, seed=seed)) for seed in range(3, 7)]
            for t in tensors
        )
        references = ScoreInputs((), subject_images=subject, style_images=style, **encoders)
        inputs = FindInputs(
            {"merged": merged}, strengths=strengths, pictures=8, sampling=how, references=references
        )
        result = find_merge(model, vae, inputs)
    rows = result.merges.rows
    assert {row.strengths for row in rows} == {*strengths}
    assert rows[0].trial.mean == max(row.trial.mean for row in rows if len(row.trial.scores) > 1)
    assert "judged by image encoders" in result.report


@every_family
def test_judges_amounts_are_those_of_stock_predictions_and_torchs_least_squares(
    family: str, drawn: Any
) -> None:
    model, merged, tensors, how = drawn
    picture = torch.rand(SIDE, SIDE, 3, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        vae = tiny_vae(family)
        scorer = LoRAScorer(model, vae, merged.pairs, how, CalibrationPictures([], [], []), 2, "")
        scorer.gauge = Gauge(Scale([0.0], [1.0]), Scale([0.0], [1.0]))
        (found,) = scorer.score([picture])
        wanted = stock_amounts(model, tensors, vae, picture, how)
    assert [found.subject, found.style] == pytest.approx(wanted, rel=1e-3, abs=1e-3)


def stock_amounts(
    model: ModelPatcher, tensors: list[StateDict], vae: comfy.sd.VAE, picture: Tensor, how: Sampling
) -> list[float]:
    """Fit the amounts in a picture by torch's least squares, from ComfyUI's own patched models."""
    sampling = model.get_model_object("model_sampling")
    x0 = model.model.process_latent_in(vae.encode(picture[None]))
    columns, targets = [], []
    for n, timestep in enumerate(judged_timesteps(2, len(sampling.sigmas))):
        noise = torch.randn(x0.shape[1:], generator=generator(how.seed, Stream.JUDGE, n))[None]
        sigma = sampling.sigmas[timestep]
        x = sampling.noise_scaling(sigma, noise, x0)
        ours = 1 - sigma if is_flow(model.model) else 1.0
        base, *own = (
            (x - ours * predict_at(unet, how.positive, x, sigma[None])) / sigma
            for unet in (model, *(stock(model, lora) for lora in tensors))
        )
        targets.append((noise - base).flatten())
        columns.append(torch.stack([(p - base).flatten() for p in own], dim=1))
    a, b = torch.cat(columns).double(), torch.cat(targets).double()
    return torch.linalg.lstsq(a, b[:, None]).solution[:, 0].tolist()


@every_family
def test_lora_extracted_from_a_model_with_it_is_that_lora(family: str, drawn: Any) -> None:
    model, _, tensors, _ = drawn
    generator = torch.Generator().manual_seed(0)
    parts = [two_unets(stock(model, tensors[0]), model, "all")]
    with torch.inference_mode():
        found = extract(parts, 4, generator, lambda done, total: None)
    lora = resolve_unet(lora_from_tensors(tensors[0]), model.model)
    assert found.modules.keys() == lora.keys()
    for name, part in found.modules.items():
        assert far(part.factors.delta(), lora[name].delta()) < 1e-4, name
    again = kohya_tensors({name: part.factors for name, part in found.modules.items()})
    assert (
        far(predict(stock(model, again), family), predict(stock(model, tensors[0]), family)) < 1e-3
    )


@every_family
def test_pruned_lora_keeps_the_largest_entries_of_each_weight(family: str, drawn: Any) -> None:
    model, _, tensors, _ = drawn
    lora = lora_from_tensors(tensors[0])
    targets, weights = unet_targets(model.model), model.model.state_dict()
    whole, part = (with_pruned_lora(model, lora, share, 1.0)[0] for share in (0.0, 0.75))
    assert far(predict(whole, family), predict(stock(model, tensors[0]), family)) < 1e-3
    for name, factors in resolve_unet(lora, model.model).items():
        key = targets[name]
        got = comfy.lora.calculate_weight(part.patches[key], weights[key].clone(), key)
        kept = (got - weights[key]).abs() > 0
        want = factors.delta().abs()
        assert kept.float().mean() == pytest.approx(0.25, abs=0.02)
        assert want[kept].min() >= want[~kept].max() - 1e-6
