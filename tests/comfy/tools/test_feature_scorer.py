"""Scores by the UNet's features, on the tiny SDXL."""

from __future__ import annotations

from statistics import mean

import comfy.model_management
import comfy.sd
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete
from torch import Tensor

from sandbox import tiny
from ziplora_core.comfy_adapter.apply.sweep import Sampling
from ziplora_core.comfy_adapter.data.pictures import encode_whole
from ziplora_core.comfy_adapter.model import conditioning as cond
from ziplora_core.comfy_adapter.tools.feature_scorer import (
    STYLE_LEVEL,
    SUBJECT_LEVEL,
    FeatureScorer,
    predict_once,
)
from ziplora_core.comfy_adapter.tools.scorers import CalibrationPictures
from ziplora_core.training.random import Stream, generator

from .. import helpers
from .test_find_merge import sampling


@pytest.fixture
def how(clip: comfy.sd.CLIP) -> Sampling:
    return sampling(clip)


def pictures(shape: int, tint: float, count: int = 3) -> list[Tensor]:
    """Pictures of one shape, each a little different, with a tint."""
    drawn = torch.rand(64, 64, 1, generator=torch.Generator().manual_seed(shape))
    tints = torch.tensor([tint, 0.5, 1 - tint])
    rng = torch.Generator().manual_seed(9)
    return [
        (0.5 * drawn + 0.4 * tints + 0.1 * torch.rand(64, 64, 3, generator=rng)).clamp(0, 1)
        for _ in range(count)
    ]


CALIBRATION = CalibrationPictures(pictures(0, 0.5), pictures(1, 0.5), pictures(2, 0.9))
"""The base model, the content LoRA alone and the style LoRA alone."""


def calibrated(model: ModelPatcher, how: Sampling) -> FeatureScorer:
    scorer = FeatureScorer(model, tiny.tiny_vae(), how, CALIBRATION, "draw more")
    with torch.inference_mode():
        assert scorer.calibrate()
    return scorer


@pytest.mark.parametrize("level", [SUBJECT_LEVEL, STYLE_LEVEL])
@pytest.mark.parametrize("v_prediction", [False, True])
def test_the_unet_sees_the_noised_latent_without_a_prompt(
    model: ModelPatcher, how: Sampling, level: float, v_prediction: bool
) -> None:
    if v_prediction:
        model = ModelSamplingDiscrete().patch(model, "v_prediction", False)[0]
    picture = torch.rand(64, 64, 3, generator=torch.Generator().manual_seed(0))
    latent = encode_whole(tiny.tiny_vae(), model.model, picture)[None]
    seen: list[Tensor] = []
    block = model.model.diffusion_model.middle_block[-1]
    handle = block.register_forward_hook(lambda _m, _x, out: seen.append(out.float().clone()))
    try:
        with torch.inference_mode():
            predict_once(model, latent, level, how)
            # the same by ComfyUI's model directly
            sigmas = model.get_model_object("model_sampling").sigmas
            sigma = sigmas[round((len(sigmas) - 1) * level)][None]
            noise = torch.randn(latent.shape, generator=generator(how.seed, Stream.JUDGE, 0))
            nothing = cond.prepare(model.model, cond.zeroed(how.positive), latent)
            comfy.model_management.load_models_gpu([model], force_full_load=True)
            model.model.apply_model(
                latent + sigma * noise, sigma, **cond.batch([nothing]), transformer_options={}
            )
    finally:
        handle.remove()
    ours, wanted = seen
    assert ours.shape == wanted.shape and helpers.relative(ours, wanted) < 1e-2


def test_each_lora_alone_scores_one_in_its_own_and_none_of_the_other(
    model: ModelPatcher, how: Sampling
) -> None:
    before = {key: weight.clone() for key, weight in model.model.state_dict().items()}
    scorer = calibrated(model, how)
    with torch.inference_mode():
        content, style = (scorer.score(drawn) for drawn in (CALIBRATION.content, CALIBRATION.style))
    assert mean(p.style for p in style) == pytest.approx(1, abs=1e-4)
    assert mean(p.style for p in content) == pytest.approx(0, abs=1e-4)
    assert mean(p.subject for p in content) >= 1  # each is compared with itself, too
    assert scorer.evaluations == 2 * (9 + 6)
    assert f"with {scorer.evaluations} UNet evaluations, 2 a picture" in scorer.describe()[0]
    assert not model.model_options["transformer_options"].get("patches")
    helpers.assert_untouched(model, before)


def test_scores_are_the_same_again_in_any_company(model: ModelPatcher, how: Sampling) -> None:
    scorer = calibrated(model, how)
    with torch.inference_mode():
        together = scorer.score([*CALIBRATION.base, *CALIBRATION.style])
        alone = scorer.score(CALIBRATION.style)
    for ours, wanted in zip(together[3:], alone, strict=True):
        assert [ours.subject, ours.style] == pytest.approx([wanted.subject, wanted.style], abs=1e-4)


def test_features_that_do_not_tell_the_loras_apart_are_said(
    model: ModelPatcher, how: Sampling
) -> None:
    same = CalibrationPictures(CALIBRATION.base, CALIBRATION.content, CALIBRATION.content)
    scorer = FeatureScorer(model, tiny.tiny_vae(), how, same, "")
    with torch.inference_mode():
        assert not scorer.calibrate()


def test_a_cancelled_score_ends_at_once(model: ModelPatcher, how: Sampling) -> None:
    scorer = calibrated(model, how)

    def cancel(evaluations: int) -> None:
        if evaluations == 22:
            raise comfy.model_management.InterruptProcessingException

    with torch.inference_mode(), pytest.raises(comfy.model_management.InterruptProcessingException):
        scorer.score(CALIBRATION.style, cancel)
    assert scorer.evaluations == 22
