"""Pictures of the tiny SDXL judged by two random LoRAs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import comfy.model_base
import comfy.model_management
import comfy.sd
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from sandbox import tiny
from sandbox.tiny_pack.vision import tiny_vision
from ziplora_core.comfy_adapter.apply.sweep import Sampling, draw_picture
from ziplora_core.comfy_adapter.model.memory_advice import unload_all_models
from ziplora_core.comfy_adapter.tools.judge import (
    PATCHED,
    JudgeInputs,
    Judgement,
    judge,
)
from ziplora_core.comfy_adapter.tools.scorers import judged_timesteps
from ziplora_core.comfy_adapter.tools.scores import ScoreInputs, score, score_each
from ziplora_core.errors import ZipLoRAError
from ziplora_core.lora.factors import LoRA
from ziplora_core.training.random import Stream, generator

from .. import helpers

SIDE = 64
PROMPT = "a sks dog in watercolor style"


def sampling(clip: comfy.sd.CLIP, **settings: Any) -> Sampling:
    return Sampling(
        **{
            "positive": helpers.encode(clip, PROMPT), "negative": helpers.encode(clip, "blurry"),
            "latent": None, "seed": 0, "steps": 3, "cfg": 2.0, "sampler_name": "euler",
            "scheduler": "normal", **settings,
        }
    )  # fmt: skip


def drawn(model: ModelPatcher, how: Sampling, seeds: Sequence[int], side: int = SIDE) -> list[Any]:
    """Draw with the base model, and with each LoRA alone, by ComfyUI's own loader."""
    empty = {"samples": torch.zeros(1, 4, side // 8, side // 8)}
    with torch.inference_mode():
        return [
            [
                draw_picture(patched, tiny.tiny_vae(), replace(how, seed=s, latent=empty))
                for s in seeds
            ]
            for patched in (
                model,
                *(helpers.stock(model, (t, 1.0)) for t in helpers.lora_tensors()),
            )
        ]


def predicted_noise(unet: ModelPatcher, x: Tensor, sigma: float, how: Sampling) -> Tensor:
    own = tiny.predict(unet, x, sigma, how.positive)
    if unet.model.model_type == comfy.model_base.ModelType.EPS:
        return own
    return (x * sigma / (sigma**2 + 1) ** 0.5 + own) / (sigma**2 + 1) ** 0.5  # of v


def judged(
    model: ModelPatcher, pictures: Sequence[Tensor], how: Sampling, **more: Any
) -> Judgement:
    settings = {"pair": helpers.lora_pair(), "calibration_pictures": 2, "draws": 2, **more}
    on_part = settings.pop("on_part", lambda done, total: None)
    inputs = JudgeInputs(pictures, sampling=how, **settings)
    with torch.inference_mode():
        return judge(model, tiny.tiny_vae(), inputs, on_part)


def test_calibration_pictures_score_zero_and_one(model: ModelPatcher, clip: comfy.sd.CLIP) -> None:
    before = {key: weight.clone() for key, weight in model.model.state_dict().items()}
    how = sampling(clip, seed=2**64 - 1)  # the second seed is 0
    base, content, style = drawn(model, how, (2**64 - 1, 0))
    pictures = [*base, *content, *style]
    kept = [p.clone() for p in pictures]
    parts: list[tuple[int, int]] = []
    result = judged(model, pictures, how, on_part=lambda *part: parts.append(part))
    subject, of_style = (
        [getattr(p, name) for p in result.pictures] for name in ("subject", "style")
    )
    for scores, zero, one in (
        (subject, slice(0, 2), slice(2, 4)),
        (of_style, slice(0, 2), slice(4, 6)),
    ):
        assert sum(scores[zero]) / 2 == pytest.approx(0, abs=1e-5)
        assert sum(scores[one]) / 2 == pytest.approx(1, abs=1e-5)
    assert result.evaluations == 3 * 2 * (6 + 6)
    total = 6 * 3 * 2 + result.evaluations
    assert parts[-1] == (total, total) and parts == sorted(parts) and parts[0][0] == 0
    assert not model.patches
    unload_all_models()  # a MODEL shares its weights with patched clones
    helpers.assert_untouched(model, before)
    assert all(torch.equal(p, old) for p, old in zip(pictures, kept, strict=True))
    assert "2 draws a picture; UNet evaluations: 6 a picture, 72 in all" in result.report
    assert "never of quality" in result.report and "strengths are not used" not in result.report


@pytest.mark.thorough
def test_held_out_pictures_of_each_lora_score_above_the_bases(
    model: ModelPatcher, clip: comfy.sd.CLIP
) -> None:
    how = sampling(clip, seed=1, steps=4)
    base, content, style = drawn(model, how, (100, 101), side=128)
    scores = judged(model, [*base, *content, *style], how, draws=4).pictures
    subject = [sum(p.subject for p in scores[i : i + 2]) / 2 for i in (0, 2, 4)]
    of_style = [sum(p.style for p in scores[i : i + 2]) / 2 for i in (0, 2, 4)]
    assert subject[1] > max(subject[0], subject[2]) + 0.2
    assert of_style[2] > max(of_style[0], of_style[1]) + 0.2


def stock_amounts(unets: Sequence[ModelPatcher], picture: Tensor, how: Sampling) -> Tensor:
    """Fit the amounts in a picture by torch's least squares, from ComfyUI's own patched models."""
    sigmas = unets[0].get_model_object("model_sampling").sigmas
    columns, targets = [], []
    with torch.inference_mode():
        x0 = unets[0].model.process_latent_in(tiny.tiny_vae().encode(picture[None]))
        for n, timestep in enumerate(judged_timesteps(2, len(sigmas))):
            noise = torch.randn(x0.shape[1:], generator=generator(how.seed, Stream.JUDGE, n))
            sigma = float(sigmas[timestep])
            base, *own = (predicted_noise(u, x0 + sigma * noise, sigma, how) for u in unets)
            targets.append((noise - base).flatten())
            columns.append(torch.stack([(p - base).flatten() for p in own], dim=1))
        a, b = torch.cat(columns).double(), torch.cat(targets).double()
        return torch.linalg.lstsq(a, b[:, None]).solution[:, 0]


@pytest.mark.parametrize("prediction", ["eps", pytest.param("v", marks=pytest.mark.thorough)])
def test_scores_are_those_of_stock_predictions_and_torchs_least_squares(
    prediction: tiny.Prediction, clip: comfy.sd.CLIP
) -> None:
    model, how = tiny.tiny_sdxl(prediction), sampling(clip, seed=3)
    unets = [model, *(helpers.stock(model, (t, 1.0)) for t in helpers.lora_tensors())]
    base, content, style = (
        torch.stack([stock_amounts(unets, p, how) for p in pictures]).mean(0)
        for pictures in drawn(model, how, (3, 4))
    )
    one = torch.stack([content[0], style[1]])
    picture = torch.rand(SIDE, SIDE, 3, generator=torch.Generator().manual_seed(0))
    wanted = (stock_amounts(unets, picture, how) - base) / (one - base)
    judgement = judged(model, [picture], how)
    gauge = judgement.gauge
    assert [gauge.content.zero, gauge.style.zero] == pytest.approx(base.tolist(), abs=1e-4)
    assert [gauge.content.one, gauge.style.one] == pytest.approx(one.tolist(), abs=1e-4)
    (found,) = judgement.pictures
    assert [found.subject, found.style] == pytest.approx(wanted.tolist(), abs=1e-3)


@pytest.mark.thorough
def test_judging_is_bit_identical_and_depends_on_the_seed(
    model: ModelPatcher, clip: comfy.sd.CLIP
) -> None:
    pictures = drawn(model, sampling(clip), (7,))[1]
    first, second, other = (
        judged(
            model, pictures, sampling(clip, seed=seed), pair=helpers.lora_pair(content_strength=0.4)
        )
        for seed in (0, 0, 3)
    )
    assert first == second and first.pictures != other.pictures
    assert "each LoRA judges at strength 1" in first.report
    whole = judged(model, pictures, sampling(clip))
    assert whole.pictures == first.pictures


@pytest.mark.thorough
def test_loras_on_the_model_are_named(model: ModelPatcher, clip: comfy.sd.CLIP) -> None:
    how = sampling(clip)
    pictures = drawn(model, how, (7,))[0]
    assert PATCHED not in judged(model, pictures, how).report
    other = helpers.stock(model, (helpers.lora_tensors()[0], 0.2))
    report = judged(other, pictures, how).report
    assert report.startswith(PATCHED)


def test_cancel_leaves_the_model_clean(model: ModelPatcher, clip: comfy.sd.CLIP) -> None:
    before = {key: weight.clone() for key, weight in model.model.state_dict().items()}
    pictures = drawn(model, sampling(clip), (7,))[0]

    def cancel(done: int, total: int) -> None:
        if done > 0.8 * total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        judged(model, pictures, sampling(clip), on_part=cancel)
    unload_all_models()
    helpers.assert_untouched(model, before)


def test_draws_are_spread_over_the_middle_of_the_schedule() -> None:
    assert judged_timesteps(4, 1000) == [350, 450, 549, 649]
    assert judged_timesteps(1, 1000) == [500]


def grey(height: int, width: int) -> Tensor:
    return torch.full((height, width, 3), 0.5)


def zeroed(lora: LoRA) -> LoRA:
    modules = {name: replace(f, up=f.up * 0) for name, f in lora.modules.items()}
    return replace(lora, modules=modules)


def test_bad_input_is_refused_by_name(model: ModelPatcher, clip: comfy.sd.CLIP) -> None:
    both, one = helpers.lora_pair(), [grey(SIDE, SIDE)]
    (_, factors), *_ = both.style.modules.items()
    text_only = replace(both.style, modules={"lora_te1_text_model_x": factors})
    long_way = replace(both.content, modules=scaled_up(both.content))
    cases: list[tuple[dict[str, Any], str]] = [
        ({"pictures": []}, "images: found no pictures"),
        (
            {"pictures": [grey(64, 64), grey(64, 72)]},
            "images: found 64 × 64, 72 × 64 pixels, expected pictures of one size whose sides are "
            "multiples of 8. Judge the images of each size on their own.",
        ),
        ({"pictures": [grey(64, 60)]}, "multiples of 8. Crop or scale the images to multiples"),
        ({"positive": []}, "positive: found 0 entries"),
        ({"positive": None}, "positive: found 0 entries"),
        ({"negative": []}, "negative: found no prompt"),
        (
            {"pair": replace(both, content=zeroed(both.content))},
            "pair: found content.safetensors, whose updates are",
        ),
        ({"pair": replace(both, style=text_only)}, "style.safetensors: found no UNet modules"),
        (
            {"pair": replace(both, style=both.content)},
            "pair: found the same LoRA twice (content.safetensors and",
        ),
        ({"pair": replace(both, style=long_way)}, "pair: found two LoRAs that change the"),
    ]
    for given, words in cases:
        more = dict(given)
        prompts = {k: more.pop(k) for k in ("positive", "negative") if k in more}
        pictures = more.pop("pictures", one)
        with pytest.raises(ZipLoRAError) as error:
            judged(model, pictures, sampling(clip, steps=1, **prompts), **more)
        assert words in str(error.value)


def scaled_up(lora: LoRA) -> dict[str, Any]:
    """The same updates in other factors."""
    return {n: replace(f, up=f.up * 2, down=f.down / 2) for n, f in lora.modules.items()}


def test_scores_of_each_picture_have_the_mean_of_alignment_scores() -> None:
    shown = [torch.rand(32, 32, 3, generator=torch.Generator().manual_seed(n)) for n in range(5)]
    encoders = {"clip_vision": tiny_vision("clip_vision"), "dino": tiny_vision("dinov2")}
    compared = ScoreInputs(shown[:2], shown[2:4], shown[4:], **encoders)
    together, each = score(compared), score_each(compared)
    assert together.style and together.subject
    assert sum(each["CLIP-I"]) / 2 == pytest.approx(together.style.cosine)
    assert sum(each["DINOv2"]) / 2 == pytest.approx(together.subject.cosine)
    assert score_each(ScoreInputs(shown)) == {}
    for given, words in (
        ({"clip_vision": encoders["clip_vision"]}, "style_images: found nothing, with clip_vision"),
        ({"subject_images": shown}, "dino: found nothing, with subject_images given"),
    ):
        with pytest.raises(ZipLoRAError) as error:
            score_each(ScoreInputs(shown, **given))
        assert words in str(error.value)
