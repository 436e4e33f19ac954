"""DreamBooth training on the tiny SDXL: its LoRA, resume, prior preservation, bad input."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.sample
import comfy.sd
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from sandbox import tiny
from ziplora_core.comfy_adapter.data.caption_encoding import match_captions
from ziplora_core.comfy_adapter.train.dreambooth import DreamBoothResult, train_dreambooth
from ziplora_core.comfy_adapter.train.dreambooth_inputs import TrainingInputs
from ziplora_core.dreambooth.objective import DreamBoothObjective
from ziplora_core.dreambooth.options import DreamBoothSettings
from ziplora_core.errors import ZipLoRAError
from ziplora_core.files.writer import kohya_tensors
from ziplora_core.lora.factors import LoraFactors, is_unet
from ziplora_core.training.interface import ProgressCallbacks, TrainingRecord
from ziplora_core.training.options import TrainingOptions
from ziplora_core.training.random import Stream

from .. import helpers

OPTIONS = TrainingOptions(sample_every=0, held_out_draws=0)
SETTINGS = DreamBoothSettings(
    "a photo of sks dog", rank=4, alpha=4.0, steps=6, learning_rate=1e-3, resolution=64,
    class_count=2, options=OPTIONS,
)  # fmt: skip
CLASS_PROMPT = "a photo of a dog"


class Cancelled(BaseException):
    """Like ComfyUI's InterruptProcessingException, not an `Exception`."""


def pictures(*sizes: tuple[int, int], seed: int = 0) -> list[Tensor]:
    """Return smooth random pictures `(1, h, w, 3)` with eight coloured patches per side."""
    coarse = [helpers.noise(1, 3, 8, 8, seed=seed + n).sigmoid() for n in range(len(sizes))]
    return [
        torch.nn.functional.interpolate(c, size).movedim(1, -1)
        for c, size in zip(coarse, sizes, strict=True)
    ]


def inputs(images: Sequence[Tensor] | None = None, **others: Any) -> TrainingInputs:
    shown = pictures((64, 64), (80, 120)) if images is None else images
    return TrainingInputs(tiny.tiny_sdxl(), tiny.tiny_clip(), tiny.tiny_vae(), shown, **others)


def run(
    settings: DreamBoothSettings,
    folder: Path,
    given: TrainingInputs | None = None,
    **callbacks: Any,
) -> DreamBoothResult:
    with torch.inference_mode():  # as ComfyUI runs nodes
        return train_dreambooth(given or inputs(), settings, folder, ProgressCallbacks(**callbacks))


def equal(left: Iterable[LoraFactors], right: Iterable[LoraFactors]) -> bool:
    return all(
        torch.equal(a.down, b.down) and torch.equal(a.up, b.up)
        for a, b in zip(left, right, strict=True)
    )


def drift(result: DreamBoothResult, model: ModelPatcher, clip: comfy.sd.CLIP, prompt: str) -> float:
    """Return the LoRA's change of predictions on a prompt, with the stock loader."""
    tuned, _ = comfy.sd.load_lora_for_models(model, None, kohya_tensors(result.modules), 1.0, 0.0)
    conditioning = helpers.encode(clip, prompt)
    found = []
    for sigma in tiny.SIGMAS:
        x = (1 + sigma**2) ** 0.5 * helpers.noise(4, 4, 8, 8, seed=9)
        with torch.inference_mode():
            base, moved = (tiny.predict(m, x, sigma, conditioning) for m in (model, tuned))
        found.append(float((moved - base).square().mean() / base.square().mean()))
    return sum(found)


def test_train_lowers_the_loss_on_fixed_noise_and_leaves_everything_untouched(
    tmp_path: Path,
) -> None:
    given = inputs()
    before = [
        {key: weight.clone() for key, weight in part.state_dict().items()}
        for part in (given.model.model, given.clip.cond_stage_model, given.vae.first_stage_model)
    ]
    options = TrainingOptions(batch=2, sample_every=0)
    settings = replace(SETTINGS, steps=60, learning_rate=3e-3, options=options)
    result = run(settings, tmp_path, given)
    loss = float(result.report.split("(× ")[1].split(")")[0])
    assert loss < 0.95
    assert result.record.step == 60 and "WARNING" not in result.report
    helpers.assert_untouched(given.model, before[0])
    for part, weights in zip(
        (given.clip.cond_stage_model, given.vae.first_stage_model), before[1:], strict=True
    ):
        assert all(torch.equal(part.state_dict()[key], weight) for key, weight in weights.items())
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in part.modules())
    assert not (tmp_path / "checkpoints").exists() or not list((tmp_path / "checkpoints").iterdir())


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"train_text_encoder": True, "class_prompt": CLASS_PROMPT, "mirror": True},
        pytest.param(
            {"options": replace(OPTIONS, batch=2, accumulation=2, caption_dropout=0.5)},
            marks=pytest.mark.thorough,
        ),
    ],
    ids=["plain", "text encoder, prior, mirror", "batch, accumulation, dropout"],
)
def test_train_resumed_equals_never_stopped_bit_for_bit(
    changed: dict[str, Any], tmp_path: Path
) -> None:
    settings = replace(SETTINGS, **changed)
    whole = run(settings, tmp_path / "whole")

    def cancel(record: TrainingRecord) -> None:
        if record.step == 3:
            raise Cancelled

    with pytest.raises(Cancelled):
        run(settings, tmp_path / "cut", on_step=cancel)
    resumed = run(settings, tmp_path / "cut")
    assert resumed.record.resumed_at == 3
    assert resumed.record.history == whole.record.history
    assert equal(resumed.modules.values(), whole.modules.values())


@pytest.mark.thorough
def test_train_same_seed_same_lora_other_seed_not(tmp_path: Path) -> None:
    first, second = (run(SETTINGS, tmp_path / name) for name in "ab")
    other = run(replace(SETTINGS, seed=1), tmp_path)
    assert equal(first.modules.values(), second.modules.values())
    assert first.metadata == second.metadata
    assert not equal(first.modules.values(), other.modules.values())


@pytest.mark.thorough
def test_train_samples_are_shown_and_change_nothing(tmp_path: Path) -> None:
    seen: list[tuple[int, Sequence[Tensor]]] = []
    named: list[Sequence[str]] = []
    order: list[str] = []
    plain = run(SETTINGS, tmp_path)
    options = replace(OPTIONS, sample_every=2, sample_prompts="a dog\n\n a cat ")
    given = run(
        replace(SETTINGS, options=options),
        tmp_path,
        on_samples=lambda step, pictures, captions: (
            seen.append((step, pictures)),
            named.append(captions),
            order.append("samples"),
        ),
        on_step=lambda record: order.append("step"),
    )
    assert [step for step, _ in seen] == [2, 4, 6]
    assert named == [["a dog", "a cat"]] * 3
    assert order[-2:] == ["samples", "step"]  # the last picture shows the last samples
    assert all([tuple(p.shape) for p in shown] == [(64, 64, 3)] * 2 for _, shown in seen)
    assert not torch.equal(seen[0][1][0], seen[-1][1][0])
    assert equal(plain.modules.values(), given.modules.values())


@pytest.mark.parametrize("layers", ["attention", "extended", "all"])
def test_trained_lora_loads_in_the_stock_loader_and_gives_the_hooks_output(
    layers: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The first loss of a further training with the LoRA on the MODEL is the trained one's last."""
    settings = replace(
        SETTINGS, layers=layers, train_text_encoder=True, learning_rate=1e-2,
        text_encoder_learning_rate=1e-2, options=replace(OPTIONS, held_out_draws=6),
    )  # fmt: skip
    given = inputs()
    result = run(settings, tmp_path, given)
    tensors = kohya_tensors(result.modules)
    model, clip = comfy.sd.load_lora_for_models(given.model, given.clip, tensors, 1.0, 1.0)
    assert "not loaded" not in caplog.text
    patched = len(model.patches) + len(clip.patcher.patches)
    assert patched == len(result.modules)
    assert sum(map(is_unet, result.modules)) < patched  # text encoders, too
    again = run(replace(settings, steps=1), tmp_path, replace(given, model=model, clip=clip))
    trained, untrained = (
        float(r.report.split("with the LoRA: ")[1].split(" ")[i])
        for r, i in ((result, 2), (again, 0))
    )
    before = float(result.report.split("with the LoRA: ")[1].split(" ")[0])
    assert trained == pytest.approx(untrained, rel=1e-4)
    assert abs(trained - before) > 1e-3 * before


@pytest.mark.thorough
def test_prior_preservation_lowers_the_drift_on_the_class_prompt(
    model: ModelPatcher, clip: comfy.sd.CLIP, tmp_path: Path
) -> None:
    """The LoRA it is compared with has learned no more of the pictures."""
    options = replace(OPTIONS, batch=2, held_out_draws=24)
    settings = replace(SETTINGS, steps=50, learning_rate=3e-3, class_count=4, options=options)
    alone = run(replace(settings, steps=22), tmp_path)
    rehearsed = run(replace(settings, class_prompt=CLASS_PROMPT), tmp_path)
    losses = [float(r.report.split("(× ")[1].split(")")[0]) for r in (alone, rehearsed)]
    drifts = [drift(r, model, clip, CLASS_PROMPT) for r in (alone, rehearsed)]
    assert losses[1] < losses[0] < 0.9 and drifts[1] < 0.8 * drifts[0]
    assert "prior preservation: 4 class pictures, drawn by this model" in rehearsed.report


@pytest.mark.thorough
def test_class_pictures_equal_the_stock_samplers_and_are_kept(tmp_path: Path) -> None:
    given, shapes = inputs(), []
    settings = replace(SETTINGS, steps=1, class_prompt=CLASS_PROMPT)

    def prepare(done: int, total: int) -> None:
        shapes.append((done, total))

    run(settings, tmp_path, given, on_prepare=prepare)
    assert shapes[-1] == (100, 100)
    files = sorted((tmp_path / "class_pictures").rglob("*.safetensors"))
    assert [file.name for file in files] == ["0000.safetensors", "0001.safetensors"]

    from safetensors.torch import load_file

    from ziplora_core.training.random import generator

    noise = torch.randn(1, 4, 8, 8, generator=generator(settings.seed, Stream.CLASS_PICTURES, 1))
    positive, negative = (helpers.encode(given.clip, text) for text in (CLASS_PROMPT, ""))
    with torch.inference_mode():
        stock = comfy.sample.sample(
            given.model, noise, 25, 5.0, "euler", "normal", positive, negative,
            torch.zeros(1, 4, 8, 8), disable_pbar=True, seed=0,
        )  # fmt: skip
    got = given.model.model.process_latent_out(load_file(files[1])["latent"])
    assert helpers.relative(got, stock[0]) < 1e-3

    files[0].write_bytes(b"damaged")
    kept = files[1].stat().st_mtime_ns
    shapes.clear()
    run(settings, tmp_path, given, on_prepare=prepare)
    assert shapes[-1] == (50, 50) and files[1].stat().st_mtime_ns == kept
    assert load_file(files[0])["latent"].shape == (4, 8, 8)


def test_train_memory_modes_agree(tmp_path: Path) -> None:
    changed = replace(SETTINGS, class_prompt=CLASS_PROMPT, train_text_encoder=True)
    fast, low = (run(replace(changed, memory=m), tmp_path / m) for m in ("fast", "low"))
    assert "memory=fast" in fast.report and "memory=low" in low.report
    for name, factors in fast.modules.items():
        torch.testing.assert_close(factors.up, low.modules[name].up, rtol=1e-3, atol=1e-5)


def test_train_pictures_of_different_sizes_report_their_frames(tmp_path: Path) -> None:
    result = run(SETTINGS, tmp_path)
    assert "LoRA of 2 pictures: 1 of 64 × 64, 1 of 80 × 48" in result.report
    assert "88 UNet modules, rank 4, alpha 4" in result.report


def test_train_batch_of_pictures_counts_each(tmp_path: Path) -> None:
    batch = torch.cat(pictures((64, 64), (64, 64), (64, 64)))
    assert "LoRA of 3 pictures" in run(SETTINGS, tmp_path, inputs([batch])).report


def test_train_captions_take_the_place_of_the_prompt(tmp_path: Path) -> None:
    metadata = run(SETTINGS, tmp_path, inputs(captions=["sks dog in the sun\n", " "])).metadata
    assert '"a photo of sks dog": 1' in metadata["ss_tag_frequency"]
    assert '"sks dog in the sun": 1' in metadata["ss_tag_frequency"]


@pytest.mark.parametrize(
    ("captions", "pictures", "matched"),
    [
        ([], 2, ["sks", "sks"]),
        ([""], 2, ["sks", "sks"]),
        (["a\nb\n\n"], 2, ["a", "b"]),
        (["a\n\n"], 2, ["a", "sks"]),
        (["a cat\nin sks style\n"], 1, ["a cat in sks style"]),
        (["a", " b "], 2, ["a", "b"]),
        (["a\nb", ""], 2, ["a b", "sks"]),
    ],
)
def test_captions_match_their_pictures(
    captions: list[str], pictures: int, matched: list[str]
) -> None:
    assert match_captions(captions, " sks ", pictures) == matched


def test_train_large_alpha_and_enlarged_pictures_are_reported(tmp_path: Path) -> None:
    small = inputs(pictures((16, 16), (64, 64)))
    report = run(replace(SETTINGS, alpha=64.0, steps=1), tmp_path, small).report
    assert report.startswith("WARNING: alpha 64 at rank 4 scales the LoRA by 16:")
    assert "2 of 64 × 64 (1 of them enlarged)" in report


def test_train_stopped_while_class_pictures_are_drawn_is_an_error_that_keeps_them(
    tmp_path: Path,
) -> None:
    settings = replace(SETTINGS, class_prompt=CLASS_PROMPT, class_count=3)
    answers = iter([False, True])
    with pytest.raises(ZipLoRAError, match="a stop before the first step, after 1 of 3 class"):
        run(settings, tmp_path, should_stop=lambda: next(answers))
    assert len(list((tmp_path / "class_pictures").rglob("*.safetensors"))) == 1


def test_train_on_two_models_that_differ_in_a_column_share_no_class_pictures(
    tmp_path: Path,
) -> None:
    settings = replace(SETTINGS, steps=1, class_prompt=CLASS_PROMPT, class_count=1)
    lora = {key: tensor.clone() for key, tensor in helpers.lora_tensors()[0].items()}
    for key, tensor in lora.items():
        if key.endswith("lora_down.weight"):
            tensor[:, 0] = 0
    given = inputs()
    run(settings, tmp_path, given)
    run(settings, tmp_path, replace(given, model=helpers.stock(given.model, (lora, 1.0))))
    assert len(list((tmp_path / "class_pictures").iterdir())) == 2


def test_train_rank_above_some_widths_gives_those_their_width(tmp_path: Path) -> None:
    result = run(replace(SETTINGS, layers="all", rank=16, alpha=8.0), tmp_path)
    narrow = {name: f for name, f in result.modules.items() if f.rank < 16}
    assert set(f.rank for f in narrow.values()) == {4}
    assert all(f.scale == 0.5 for f in result.modules.values())
    assert f"{len(narrow)} modules are narrower than rank 16" in result.report


def test_train_diverging_learning_rate_is_stopped_and_named(tmp_path: Path) -> None:
    settings = replace(SETTINGS, steps=200, learning_rate=100.0)
    with pytest.raises(ZipLoRAError, match=r"training: found the loss .*Lower the learning rate"):
        run(settings, tmp_path)


def test_train_that_breaks_down_returns_the_last_good_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which learning rate breaks down after a good state, and not before, depends on rounding."""
    backward = DreamBoothObjective.backward

    def breaking(task: DreamBoothObjective, step: int) -> dict[str, Tensor]:
        terms = backward(task, step)
        return terms if step < 12 else {name: term * torch.inf for name, term in terms.items()}

    monkeypatch.setattr(DreamBoothObjective, "backward", breaking)
    result = run(replace(SETTINGS, steps=20), tmp_path)
    assert result.report.startswith("WARNING: the loss was not finite at step 13")
    assert result.record.failed and result.record.step == 10
    assert all(torch.isfinite(f.up).all() for f in result.modules.values())


@pytest.mark.parametrize(
    ("given", "changed", "message"),
    [
        ({"images": []}, {}, "images: found none, expected colour pictures"),
        ({"images": pictures((7, 64))}, {}, "picture 1 of 64 × 7 pixels.*at least 8 × 8"),
        ({"images": [torch.full((1, 64, 64, 3), torch.nan)]}, {}, "NaN or infinity in picture 1"),
        ({"captions": ["one", "two", "three"]}, {}, "captions: found 3 for 2 pictures"),
        ({"captions": ["a\nb\nc"]}, {}, "captions: found 3 for 2 pictures"),
        ({"captions": ["a"]}, {}, "captions: found 1 for 2 pictures"),
        ({}, {"prompt": "  "}, "prompt: found nothing"),
        ({"class_images": pictures((64, 64))}, {}, "class_prompt: found nothing, but class_images"),
        (
            {},
            {"prompt": "a (sks:1.2) dog", "train_text_encoder": True},
            r"caption 'a \(sks:1.2\) dog': found weighted words",
        ),
        ({}, {"rank": 200}, r"rank: found 200, above the width of 88 of 88 layers.*: 64\)"),
    ],
)
def test_train_bad_input_says_what_to_do(
    given: dict[str, Any], changed: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ZipLoRAError, match=message):
        run(replace(SETTINGS, **changed), tmp_path, inputs(**given))


def test_train_on_an_fp8_base_leaves_it_fp8(tmp_path: Path) -> None:
    model = tiny.tiny_sdxl(dtype=torch.float16)  # whose layers ComfyUI makes casting ones
    model.model.diffusion_model.to(torch.float8_e4m3fn)
    model.cached_patcher_init = None
    given = replace(inputs(), model=model)
    seen: set[torch.dtype] = set()

    def look(record: TrainingRecord) -> None:
        for loaded in comfy.model_management.current_loaded_models:
            unet = getattr(loaded.model.model, "diffusion_model", None)
            if unet is not None:
                seen.update(p.dtype for p in unet.parameters())

    result = run(SETTINGS, tmp_path, given, on_step=look)
    assert seen == {torch.float8_e4m3fn}
    assert all(torch.isfinite(f.up).all() and f.up.any() for f in result.modules.values())
