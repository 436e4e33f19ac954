"""UnZipLoRA's whole training on the tiny SDXL: determinism, resume, export, report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.sd
import folder_paths
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from sandbox import tiny
from sandbox.tiny_pack.models import UNET_CONFIG, TinySDXL
from sandbox.tiny_weights import initialise_unet
from ziplora_core.comfy_adapter.apply.unziplora import with_unziplora
from ziplora_core.comfy_adapter.model import conditioning as cond
from ziplora_core.comfy_adapter.model.memory_advice import unload_all_models
from ziplora_core.comfy_adapter.train.dreambooth_inputs import TrainingInputs
from ziplora_core.comfy_adapter.train.unziplora import UnZipLoRAResult, train_unziplora
from ziplora_core.errors import ZipLoRAError
from ziplora_core.files import read_lora
from ziplora_core.files.merge_file import merged_from_lora, merged_metadata
from ziplora_core.files.metadata import lora_metadata
from ziplora_core.files.writer import kohya_tensors, write_lora
from ziplora_core.lora.factors import LoraFactors
from ziplora_core.training.branches import Gates
from ziplora_core.training.framing import Framing
from ziplora_core.training.interface import ProgressCallbacks, TrainingRecord
from ziplora_core.training.options import TrainingOptions
from ziplora_core.unziplora.options import UnZipLoRASettings

from .. import helpers
from ..apply.test_unziplora import SIGMA, sampled
from .dreambooth_task import example
from .unziplora_task import TEXTS, closed, opened_unziplora

SIDE, STEPS = 64, 6
FRAME = Framing.drawn(SIDE, SIDE)
OPTIONS = TrainingOptions(held_out_draws=0)
SETTINGS = UnZipLoRASettings(
    *TEXTS, rank=4, steps=STEPS, content_learning_rate=1e-2, style_learning_rate=1e-2,
    weight_learning_rate=0.1, sample_times=2, importance_samples=2, resolution=SIDE,
    options=OPTIONS,
)  # fmt: skip


class CrowdedVAE:
    """A VAE that needs the whole card to decode, so that nothing else stays loaded."""

    def __init__(self) -> None:
        self.vae, self.decoded = tiny.tiny_vae(), 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.vae, name)

    def decode(self, latents: Tensor) -> Tensor:
        self.decoded += 1
        unload_all_models()
        return self.vae.decode(latents)


class Cancelled(BaseException):
    """Like ComfyUI's InterruptProcessingException, not an `Exception`."""


def inputs(**changed: Any) -> TrainingInputs:
    picture = helpers.noise(1, SIDE, SIDE, 3, seed=1).sigmoid()
    given = {"model": tiny.tiny_sdxl(), "images": [picture], "vae": tiny.tiny_vae(), **changed}
    return TrainingInputs(clip=tiny.tiny_clip(), **given)


def run(
    settings: UnZipLoRASettings, folder: Path, given: TrainingInputs | None = None, **callbacks: Any
) -> UnZipLoRAResult:
    with torch.inference_mode():  # as ComfyUI runs nodes
        return train_unziplora(given or inputs(), settings, folder, ProgressCallbacks(**callbacks))


def flat(*loras: dict[str, LoraFactors]) -> Tensor:
    return torch.cat([t.flatten() for lora in loras for f in lora.values() for t in (f.down, f.up)])


def everything(result: UnZipLoRAResult) -> Tensor:
    parts = (result.content.modules, result.style.modules, result.merged.modules())
    return flat(*map(dict, parts))


def test_train_same_seed_bit_identical_and_leaves_everything_untouched(tmp_path: Path) -> None:
    given = inputs()
    before = {key: weight.clone() for key, weight in given.model.model.state_dict().items()}
    first = run(SETTINGS, tmp_path / "a", given)
    helpers.assert_untouched(given.model, before)
    second, other = run(SETTINGS, tmp_path / "b"), run(replace(SETTINGS, seed=1), tmp_path)
    assert torch.equal(everything(first), everything(second))
    assert first.merged.metadata == second.merged.metadata and first.report[:200] in second.report
    assert not torch.equal(everything(first), everything(other))
    assert not any(path.name == "state.safetensors" for path in tmp_path.rglob("*"))


@pytest.mark.parametrize("at", [1, 2, 4])
def test_train_cancelled_around_a_choice_of_features_goes_on_as_if_never_stopped(
    at: int, tmp_path: Path
) -> None:
    """Feature masks are opened after steps 1 and 4, and chosen in steps 2 and 5."""
    whole = run(SETTINGS, tmp_path / "whole")

    def cancel(record: TrainingRecord) -> None:
        if record.step == at:
            raise Cancelled

    with pytest.raises(Cancelled):
        run(SETTINGS, tmp_path / "cut", on_step=cancel)
    (kept,) = (tmp_path / "cut").iterdir()
    loras = {name: read_lora(kept / f"{name}.safetensors") for name in ("lora", "content", "style")}
    assert {lora.modules["lora_unet_middle_block_1_transformer_blocks_0_attn1_to_q"].rank
            for lora in loras.values()} == {8, 4}  # fmt: skip
    assert {n: lora.metadata["ziplora.part"] for n, lora in loras.items()} == {
        "lora": "merged", "content": "content", "style": "style",
    }  # fmt: skip
    assert merged_from_lora(loras["lora"]).prompt_separated
    resumed = run(SETTINGS, tmp_path / "cut")
    assert resumed.record.resumed_at == at and resumed.record.history == whole.record.history
    assert torch.equal(everything(resumed), everything(whole))


def test_train_memory_modes_agree(tmp_path: Path) -> None:
    """The masks are given, as features of nearly equal importance may change their order."""
    settings = replace(SETTINGS, column_separation=False)
    fast, low = (run(replace(settings, memory=m), tmp_path / m) for m in ("fast", "low"))
    assert "memory=fast" in fast.report and "memory=low" in low.report
    torch.testing.assert_close(everything(low), everything(fast), rtol=1e-2, atol=2e-3)


def test_report_and_files_say_what_came_out(tmp_path: Path) -> None:
    settings = replace(SETTINGS, options=replace(OPTIONS, held_out_draws=2))
    result = run(settings, tmp_path)
    report = result.report
    assert "WARNING" not in report
    assert "UnZipLoRA of 1 picture: 1 of 64 × 64" in report
    assert "content and style LoRA of rank 4 each, 88 layers (attention)" in report
    assert (
        "feature masks: content 20.3% and style 20.3% of the output features of 40 layers" in report
    )
    assert "blocks: content has all of 16 layers, style 20.3% of their features" in report
    assert "blocks: style has all of 32 layers, content 20.3% of their features" in report
    assert "features that are in both: mean of content" in report
    assert "loss on fixed noise, without → with" in report and "penalty" in report
    metadata = result.style.metadata
    assert metadata["modelspec.trigger_phrase"] == TEXTS[2] and metadata["ziplora.part"] == "style"
    assert json.loads(result.merged.metadata["ziplora.settings"])["content_prompt"] == TEXTS[1]
    assert metadata["ss_learning_rate"] == "0.01" and str(tmp_path) not in str(metadata)


def test_merged_lora_is_saved_as_one_standard_file_and_comes_back(tmp_path: Path) -> None:
    merged = run(SETTINGS, tmp_path / "run").merged
    assert merged.prompt_separated and merged.separable
    extra = merged_metadata(merged)
    metadata = lora_metadata(merged.modules(), title="t", description="d", extra=extra)
    written = write_lora(tmp_path / "m.safetensors", merged.modules(), metadata, "fp32")
    back = merged_from_lora(read_lora(written.path))
    assert back.prompt_separated and back.separable
    assert back.metadata["ziplora.settings"] == merged.metadata["ziplora.settings"]
    for name, pair in merged.pairs.items():
        for ours, theirs in zip(pair.factors, back.pairs[name].factors, strict=True):
            assert ours is not None and theirs is not None
            torch.testing.assert_close(theirs.delta(), ours.delta(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("part", ["content", "style", "merged"])
def test_exported_lora_in_the_stock_loader_equals_the_hooks(
    part: str, clip: comfy.sd.CLIP, caplog: pytest.LogCaptureFixture
) -> None:
    """Both LoRAs together are added plainly, all at the joint prompt."""
    model, x = tiny.tiny_sdxl(), 3 * helpers.noise(1, 4, 8, 8)
    shown = example(0, FRAME, TEXTS[0])
    with opened_unziplora(model, clip, SETTINGS, [shown]) as (task, encoded, _):
        closed(task)
        (shown,) = task.conditioner([(TEXTS[0], FRAME)])
        values = {"content": [1.0, 0.0], "style": [0.0, 1.0], "merged": [1.0, 1.0]}[part]
        with torch.no_grad():
            task.fold(mergers=part == "merged")
            hooked = task.model.denoise(
                x, torch.tensor([3.0]), [shown], Gates(torch.tensor([values]))
            )
        modules = task.factors() if part == "merged" else task.parts()[part]
    stock = helpers.stock(model, (kohya_tensors(modules), 1.0))
    assert "not loaded" not in caplog.text and len(stock.patches) == len(modules) == 88
    with torch.inference_mode():
        got = tiny.predict(stock, x, 3.0, encoded[TEXTS[0]])
        base = tiny.predict(model, x, 3.0, encoded[TEXTS[0]])
    assert helpers.relative(got, hooked) < 1e-4 < helpers.relative(got, base)


def test_equal_prompts_equal_the_summed_plain_loras_and_zero_prompts_leave_keys_and_values_alone(
    clip: comfy.sd.CLIP,
) -> None:
    model, x, sigma = tiny.tiny_sdxl(), 3 * helpers.noise(1, 4, 8, 8), torch.tensor([3.0])
    with opened_unziplora(model, clip, SETTINGS, [example(0, FRAME, TEXTS[0])]) as (
        task, encoded, _,
    ):  # fmt: skip
        closed(task)
        (shown,) = task.conditioner([(TEXTS[0], FRAME)])
        joint = cond.own_prompts([encoded[TEXTS[0]]] * 2, encoded[TEXTS[0]])[None]

        def asked(prompts: Tensor | None) -> Tensor:
            return task.model.denoise(x, sigma, [shown], Gates(prompts=prompts))

        with torch.no_grad():
            task.fold()
            same, plain, zero = asked(joint), asked(None), asked(torch.zeros_like(joint))
            own = asked(task.prompts[TEXTS[0]][None])
            for name, branches in task.learned.branches.items():
                if branches.reads_prompt:
                    branches.up = torch.zeros_like(branches.up)
                assert branches.reads_prompt == name.endswith(("attn2_to_k", "attn2_to_v"))
            without = asked(joint)
    torch.testing.assert_close(same, plain)
    torch.testing.assert_close(zero, without)
    assert helpers.relative(own, plain) > 1e-3 < helpers.relative(without, plain)


@pytest.mark.thorough
def test_validation_shows_joint_content_and_style_and_changes_nothing(tmp_path: Path) -> None:
    seen: list[tuple[int, Sequence[Tensor]]] = []
    plain = run(SETTINGS, tmp_path)
    settings = replace(
        SETTINGS, images_per_validation=True, saves_per_validation=True, validation_steps=4,
        options=replace(OPTIONS, sample_prompts=f"{TEXTS[0]} on a table\n"),
    )  # fmt: skip
    named: list[Sequence[str]] = []
    shown = run(
        settings, tmp_path, on_samples=lambda step, p, c: (seen.append((step, p)), named.append(c))
    )
    assert [step for step, _ in seen] == [4, STEPS]
    assert [*map(tuple, named)] == [("joint", "content", "style")] * 2
    assert all([tuple(p.shape) for p in strip] == [(SIDE, SIDE, 3)] * 3 for _, strip in seen)
    assert len({float(p.sum()) for p in seen[-1][1]}) == 3
    assert torch.equal(everything(plain), everything(shown))
    saved = Path(folder_paths.get_output_directory()) / "loras"
    names = sorted(path.name for path in saved.rglob("*.safetensors"))
    stem = TEXTS[0].replace(" ", "_")
    assert names == [f"{stem}_{part}_00004.safetensors" for part in ("content", "style")]
    for path, prompt in zip(sorted(saved.rglob("*.safetensors")), TEXTS[1:], strict=True):
        metadata = read_lora(path).metadata
        assert metadata["modelspec.trigger_phrase"] == prompt
        assert json.loads(metadata["ziplora.settings"])["steps"] == STEPS


@pytest.mark.thorough
def test_validation_pictures_are_decoded_when_all_are_drawn(tmp_path: Path) -> None:
    """The VAE may take the model's place, and the next drawing would lack the branches."""
    settings = replace(SETTINGS, images_per_validation=True, validation_steps=4)
    strips: dict[bool, list[Tensor]] = {True: [], False: []}
    crowded = CrowdedVAE()
    results = [
        run(settings, tmp_path / str(n), inputs(vae=vae) if vae else None,
            on_samples=lambda _, p, c, vae=vae: strips[bool(vae)].extend(p))
        for n, vae in enumerate((None, crowded))
    ]  # fmt: skip
    assert crowded.decoded == 6 and len(strips[True]) == len(strips[False]) == 6
    assert all(map(torch.equal, strips[True], strips[False]))
    assert torch.equal(everything(results[0]), everything(results[1]))


@pytest.mark.thorough
@pytest.mark.parametrize("pieces", [(3, 1, 2), (3, 2, 2), (1, 2, 1)])
def test_prompts_of_different_lengths_are_learned_drawn_and_applied_alike(
    pieces: tuple[int, int, int], clip: comfy.sd.CLIP, tmp_path: Path
) -> None:
    """Apply UnZipLoRA, held against ComfyUI's own sampler elsewhere, predicts the same."""
    texts = tuple(f"{text} {'cat ' * 75 * (n - 1)}" for text, n in zip(TEXTS, pieces, strict=True))
    names = ("prompt", "content_prompt", "style_prompt")
    settings = replace(
        SETTINGS, images_per_validation=True, validation_steps=4,
        **dict(zip(names, texts, strict=True)),
    )  # fmt: skip
    seen: list[Tensor] = []
    result = run(settings, tmp_path, on_samples=lambda _, drawn, c: seen.extend(drawn))
    assert result.record.step == STEPS and len(seen) == 6
    model, x = tiny.tiny_sdxl(), SIGMA * helpers.noise(1, 4, 8, 8)
    with opened_unziplora(model, clip, settings, [example(0, FRAME, texts[0])]) as (
        task, encoded, _,
    ):  # fmt: skip
        assert [encoded[text][0][0].shape[1] // 77 for text in texts] == list(pieces)
        closed(task)
        (shown,) = task.conditioner([(texts[0], FRAME)])
        with torch.no_grad():
            task.fold()
            own = Gates(prompts=task.prompts[texts[0]][None])
            trained = task.model.denoised(x, torch.tensor([SIGMA]), [shown], own)
        merged = task.merged()
    joint, *given = (encoded[text] for text in texts)
    applied, _ = with_unziplora(model, merged, given)
    assert helpers.relative(sampled(applied, joint, joint, cfg=1.0), trained) < 1e-4


def test_prompt_too_long_for_its_negative_is_drawn_with_its_own_ones(
    clip: comfy.sd.CLIP,
) -> None:
    """ComfyUI does not batch a prompt of five chunks with one of one: each half runs alone."""
    long = " ".join(["many words of a long prompt about a cat"] * 38)
    settings, x = replace(SETTINGS, prompt=long), 3 * helpers.noise(2, 4, 8, 8)
    sigma = torch.tensor([3.0, 3.0])
    with opened_unziplora(tiny.tiny_sdxl(), clip, settings, [example(0, FRAME, long)]) as (
        task, encoded, _,
    ):  # fmt: skip
        closed(task)
        encoded[""] = helpers.encode(clip, "")
        joint, nothing = task.conditioner([(long, FRAME), ("", FRAME)])
        assert encoded[long][0][0].shape[1] >= 5 * 77 and not joint.joins(nothing)
        own = Gates(prompts=task.prompts[long][None])
        zero = Gates(prompts=torch.zeros(1, 2, 77, task.prompts[long].shape[-1]))
        with torch.no_grad():
            task.fold()
            both = task.model.denoised(x, sigma, [joint, nothing], own.for_guidance(1))
            for n, (shown, gates) in enumerate(((joint, own), (nothing, zero))):
                alone = task.model.denoised(x[n : n + 1], sigma[:1], [shown], gates)
                torch.testing.assert_close(both[n : n + 1], alone)


def test_class_pictures_and_several_pictures_are_learned_too(tmp_path: Path) -> None:
    sizes = ((64, 64), (48, 96))
    images = [helpers.noise(1, *size, 3, seed=n).sigmoid() for n, size in enumerate(sizes)]
    given = inputs(images=images, class_images=[images[0]])
    report = run(replace(SETTINGS, class_prompt="a cat"), tmp_path, given).report
    assert "UnZipLoRA of 2 pictures: 1 of 64 × 64" in report and "prior " in report
    assert "prior preservation: 1 class pictures, given" in report
    alone = run(replace(SETTINGS, class_prompt="a cat"), tmp_path)
    assert "no prior preservation: class_prompt, but no class_images" in alone.report


def test_model_without_sdxls_blocks_leaves_block_separation_out(tmp_path: Path) -> None:
    config = TinySDXL({**UNET_CONFIG, "transformer_depth_output": [0, 0, 0, 1, 1, 1, 0, 1, 1]})
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model({}, device=torch.device("cpu"))
    initialise_unet(model.diffusion_model, tiny.PASS_THROUGH["eps"], 0)
    cpu = torch.device("cpu")
    patcher = ModelPatcher(model, load_device=cpu, offload_device=cpu)
    result = run(SETTINGS, tmp_path, inputs(model=patcher))
    assert "block separation left out: this model lacks some of output_blocks.0.1" in result.report
    assert "no feature is in both LoRAs" in result.report
    assert len(result.content.modules) == len(result.style.modules) == 80


def test_layers_beyond_attention_are_separated_too(tmp_path: Path) -> None:
    """Convolutions have masks, too; ownership of a block covers only its transformers."""
    result = run(replace(SETTINGS, layers="extended"), tmp_path)
    kernels = {f.down.ndim for f in result.content.modules.values()}
    assert kernels == {2, 4} and "(extended)" in result.report
    assert "style has all of 40 layers, content 20." in result.report


def test_same_prompts_are_warned_of_before_the_training_and_learned_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    said: list[str] = []
    settings = replace(SETTINGS, style_prompt=" A monadikos  cat")
    report = run(settings, tmp_path, on_status=said.append).report
    assert report.startswith("WARNING: content_prompt and style_prompt are the same")
    warning = report.splitlines()[0]
    assert said[0] == f"{warning}\nencoding pictures and prompts"
    assert all(text.startswith(f"{warning}\n") for text in said)
    assert warning.removeprefix("WARNING: ") in caplog.messages


@pytest.mark.parametrize(
    ("given", "changed", "message"),
    [
        ({}, {"prompt": " "}, "prompt: found nothing, expected a prompt for both"),
        ({}, {"content_prompt": ""}, "content_prompt: found nothing, .* without the style"),
        ({}, {"style_prompt": "\n"}, "style_prompt: found nothing, .* without the subject's name"),
        ({}, {"column_ratio": 0.0}, "column_ratio: found 0"),
        ({}, {"column_ratio": 1.5}, "column_ratio: found 1.5"),
        ({}, {"sample_times": 7}, "sample_times: found 7 in 6 steps"),
        ({}, {"rank": 200}, "rank: found 200, above the width"),
        ({"images": []}, {}, "image: found none"),
        ({"images": [torch.zeros(1, 7, 64, 3)]}, {}, "picture 1 of 64 × 7 pixels.* 8 × 8"),
        ({"class_images": [torch.zeros(1, 64, 64, 3)]}, {}, "class_prompt: found nothing"),
    ],
)
def test_bad_input_says_what_to_do(
    given: dict[str, Any], changed: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ZipLoRAError, match=message):
        run(replace(SETTINGS, **changed), tmp_path, inputs(**given))
