"""SDXL's relatives: each trainer uses them as ComfyUI's sampler does, or refuses them by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import comfy.sample
import comfy.sampler_helpers
import comfy.samplers
import comfy.sd
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from sandbox import tiny
from sandbox.relatives import KINDS, refiner_clip, tiny_relative
from ziplora_core.comfy_adapter.apply.slider import with_slider
from ziplora_core.comfy_adapter.data.caption_encoding import Conditioner
from ziplora_core.comfy_adapter.model.sampler import sample_latents
from ziplora_core.comfy_adapter.model.targets import unet_targets
from ziplora_core.comfy_adapter.model.training_model import training_model
from ziplora_core.comfy_adapter.tools.calibration import CalibrationPrompts, calibrate
from ziplora_core.comfy_adapter.tools.extract import two_unets
from ziplora_core.comfy_adapter.train.dreambooth import train_dreambooth
from ziplora_core.comfy_adapter.train.dreambooth_inputs import TrainingInputs
from ziplora_core.comfy_adapter.train.new_lora import new_lora
from ziplora_core.comfy_adapter.train.slider_tasks import (
    PictureSliderTask,
    SliderInputs,
    TextSliderTask,
    paired_pictures,
)
from ziplora_core.comfy_adapter.train.sliders import train_slider
from ziplora_core.comfy_adapter.train.unziplora import train_unziplora
from ziplora_core.comfy_adapter.train.ziplora import train_ziplora
from ziplora_core.comfy_adapter.train.ziplora_inputs import Prompt
from ziplora_core.dreambooth.options import DreamBoothSettings
from ziplora_core.errors import ZipLoRAError
from ziplora_core.files.writer import kohya_tensors
from ziplora_core.lora.factors import LoRA
from ziplora_core.lora.pair import LoRAPair
from ziplora_core.sliders.options import PairSliderSettings, TextSliderSettings
from ziplora_core.training.framing import Framing
from ziplora_core.training.options import TrainingOptions
from ziplora_core.unziplora.options import UnZipLoRASettings
from ziplora_core.ziplora.options import ZipLoRASettings

from .. import helpers
from ..train.dreambooth_task import started
from ..train.unziplora_task import TEXTS

SIDE = 64
TAKES_A_PICTURE = ("inpaint", "instruct")
"""Models whose UNet also takes the channels of a start picture."""
OPTIONS = TrainingOptions(held_out_draws=1, sample_every=0)
DREAMBOOTH = DreamBoothSettings(
    "a photo of sks dog", class_prompt="a photo of a dog", class_count=1, rank=4, steps=1,
    resolution=SIDE, layers="all", options=OPTIONS,
)  # fmt: skip
Train = Callable[[ModelPatcher, Path], Any]


def picture(seed: int = 1) -> Tensor:
    return helpers.noise(1, SIDE, SIDE, 3, seed=seed).sigmoid()


def inputs(model: ModelPatcher, clip: comfy.sd.CLIP | None = None) -> TrainingInputs:
    return TrainingInputs(model, clip or tiny.tiny_clip(), tiny.tiny_vae(), [picture()])


def loras_of(model: ModelPatcher, layers: str = "attention") -> LoRAPair:
    """Return two LoRAs of this model."""
    targets = unet_targets(model.model)
    drawn = [new_lora(model, targets, layers, DREAMBOOTH).parameters for _ in range(2)]
    return LoRAPair(*(LoRA(f"LoRA {n}", started(lora, n)) for n, lora in enumerate(drawn)))


def dreambooth(model: ModelPatcher, folder: Path) -> Any:
    return train_dreambooth(inputs(model), DREAMBOOTH, folder)


def unzip(model: ModelPatcher, folder: Path) -> Any:
    settings = UnZipLoRASettings(
        *TEXTS, rank=4, steps=4, sample_times=1, importance_samples=1, resolution=SIDE,
        images_per_validation=1, options=OPTIONS,
    )  # fmt: skip
    return train_unziplora(inputs(model), settings, folder)


def words(model: ModelPatcher, folder: Path) -> Any:
    settings = TextSliderSettings(
        target="person", positive="old person", negative="young person", resolution=SIDE, steps=1,
        options=OPTIONS,
    )  # fmt: skip
    given = SliderInputs(model, tiny.tiny_clip(), tiny.tiny_vae())
    return train_slider(given, TextSliderTask(settings), folder)


def pairs(model: ModelPatcher, folder: Path) -> Any:
    level = paired_pictures([picture(1)], [picture(2)], 1.0)
    task = PictureSliderTask([level], PairSliderSettings(resolution=SIDE, steps=1, options=OPTIONS))
    return train_slider(SliderInputs(model, tiny.tiny_clip(), tiny.tiny_vae()), task, folder)


def zip_by(solver: str) -> Train:
    def learn(model: ModelPatcher, folder: Path) -> Any:
        settings = ZipLoRASettings(
            solver=solver, steps=1, calibration_states=2, width=SIDE, height=SIDE, options=OPTIONS
        )
        content, style = helpers.prompts(tiny.tiny_clip())
        asked = [Prompt(n, c) for n, c in
                 (("content", content), ("style", style), ("joint", content))]  # fmt: skip
        return train_ziplora(model, loras_of(model), asked, settings, folder)

    return learn


def calibrated(model: ModelPatcher, folder: Path) -> Any:
    prompts = CalibrationPrompts(*helpers.prompts(tiny.tiny_clip()), width=SIDE, height=SIDE)
    return calibrate(model, loras_of(model), prompts)


TRAINERS: dict[str, Train] = {
    "dreambooth": dreambooth, "unzip": unzip, "words": words, "pairs": pairs,
    "adam": zip_by("adam"), "closed_form": zip_by("closed_form"), "calibrate": calibrated,
}  # fmt: skip


def learned(result: Any) -> Iterator[Tensor]:
    """Return all result tensors: factors, coefficients or moments."""
    if hasattr(result, "moments"):
        yield from (moments.gram for moments in result.moments.values())
        return
    for modules in (getattr(result, "modules", None), getattr(result, "merged", None)):
        found = modules.modules() if callable(getattr(modules, "modules", None)) else modules
        for factors in (found or {}).values():
            yield from (factors.down, factors.up)


@pytest.mark.parametrize("kind", TAKES_A_PICTURE)
def test_prepare_gives_an_image_model_what_the_sampler_gives_it_for_an_empty_latent(
    kind: str, clip: comfy.sd.CLIP
) -> None:
    model, prompt = tiny_relative(kind).model, helpers.encode(clip, "a dog")
    frame = Framing.drawn(128, 192)
    empty = torch.zeros(1, 4, *(side // 8 for side in frame.target))
    given = {"positive": comfy.sampler_helpers.convert_cond(prompt)}
    [converted] = comfy.samplers.process_conds(
        model, helpers.noise(*empty.shape), given, empty.device, empty, seed=0
    )["positive"]
    want = converted["model_conds"]
    [got] = Conditioner(model, lambda text: prompt, True, empty.device)([("a dog", frame)])
    assert {*got.parts} == {*want} == {"c_concat", "c_crossattn", "y"}
    for key, part in want.items():
        assert torch.equal(got.parts[key].cond, part.cond)


@pytest.mark.parametrize("kind", TAKES_A_PICTURE)
def test_pictures_in_training_equal_the_stock_samplers(kind: str, clip: comfy.sd.CLIP) -> None:
    model, steps = tiny_relative(kind), 3
    prompts = helpers.encode(clip, "a dog"), helpers.encode(clip, "")
    x = helpers.noise(1, 4, 8, 8)
    with torch.inference_mode():
        want = comfy.sample.sample(
            model, x, steps, 5.0, "euler", "normal", *prompts, torch.zeros_like(x),
            disable_pbar=True,
        )  # fmt: skip
    with training_model(model, {}) as opened:
        prompt, nothing = helpers.prepared(opened, prompts, x)
        got = opened.model.process_latent_out(
            sample_latents(opened, [prompt], [nothing], x, None, steps)
        )
    assert helpers.relative(got, want) < 1e-4


@pytest.mark.parametrize("trainer", TRAINERS)
@pytest.mark.parametrize("kind", ["inpaint", pytest.param("instruct", marks=pytest.mark.thorough)])
def test_every_trainer_works_on_a_model_that_also_takes_a_picture(
    kind: str, trainer: str, tmp_path: Path
) -> None:
    model = tiny_relative(kind)
    before = {key: weight.clone() for key, weight in model.model.state_dict().items()}
    with torch.inference_mode():  # as ComfyUI runs nodes
        found = list(learned(TRAINERS[trainer](model, tmp_path)))
    assert found and all(torch.isfinite(tensor).all() for tensor in found)
    helpers.assert_untouched(model, before)


@pytest.mark.parametrize(
    ("kind", "trainer"),
    [
        *((kind, "dreambooth") for kind in ("ssd_1b", "vega", "koala_700m", "koala_1b")),
        *(("koala_700m", trainer) for trainer in ("unzip", "words", "closed_form", "calibrate")),
    ],
)
def test_trainers_work_on_distilled_models_with_blocks_missing(
    kind: str, trainer: str, tmp_path: Path
) -> None:
    with torch.inference_mode():
        found = list(learned(TRAINERS[trainer](tiny_relative(kind), tmp_path)))
    assert found and all(torch.isfinite(tensor).all() for tensor in found)


@pytest.mark.parametrize("trainer", TRAINERS)
def test_every_trainer_refuses_the_refiner_by_name(trainer: str, tmp_path: Path) -> None:
    with (
        torch.inference_mode(),
        pytest.raises(ZipLoRAError, match=r"found the SDXL refiner, .* Connect the SDXL base"),
    ):
        TRAINERS[trainer](tiny_relative("refiner"), tmp_path)


def test_slider_of_the_refiners_own_equals_the_stock_loader_and_others_are_refused() -> None:
    """The stock loader puts such a LoRA on; of another one, it leaves out what does not fit."""
    refiner, base = tiny_relative("refiner"), tiny.tiny_sdxl()
    [own, sdxls] = (loras_of(model).content for model in (refiner, base))
    on, _ = with_slider(refiner, own, 0.7)
    stock = helpers.stock(refiner, (kohya_tensors(dict(own.modules)), 0.7))
    prompt = helpers.encode(refiner_clip(), "a dog")
    got, want, without = (drawn(model, prompt) for model in (on, stock, refiner))
    assert helpers.relative(got, want) < 1e-4 < helpers.relative(got, without)
    shared = {name: f for name, f in sdxls.modules.items() if name in own.modules}
    wider = LoRA("wider", {name: replace(f, up=f.up[1:]) for name, f in shared.items()})
    for lora, found in ((sdxls, "no such weight in"), (wider, "down .* factors of a weight .* of")):
        with pytest.raises(ZipLoRAError, match=f"{found} the SDXL refiner.* Connect the SDXL base"):
            with_slider(refiner, lora, 1.0)
    with pytest.raises(ZipLoRAError, match=r"no such weight in this SDXL model.* Pick a LoRA"):
        with_slider(base, own, 1.0)


def test_lora_of_the_first_layer_fits_only_checkpoints_that_take_as_many_channels() -> None:
    inpaint, base = tiny_relative("inpaint"), tiny.tiny_sdxl()
    for model, other, found in (
        (inpaint, base, "trained on an inpainting checkpoint, and this is one that is not"),
        (base, inpaint, "trained on one that is not for inpainting, and this is an inpainting"),
    ):
        lora = loras_of(model, "all").content
        assert "lora_unet_input_blocks_0_0" in lora.modules
        with_slider(model, lora, 1.0)
        with pytest.raises(ZipLoRAError, match=f"module lora_unet_input_blocks_0_0: .*{found}"):
            with_slider(other, lora, 1.0)


def drawn(model: ModelPatcher, prompt: Any) -> Tensor:
    """Draw with ComfyUI's sampler, without guidance."""
    x = helpers.noise(1, 4, 8, 8)
    with torch.inference_mode():
        return comfy.sample.sample(
            model, x, 2, 1.0, "euler", "normal", prompt, prompt, torch.zeros_like(x),
            disable_pbar=True,
        )  # fmt: skip


def test_extract_refuses_an_inpainting_model_beside_an_ordinary_one_and_two_refiners() -> None:
    with pytest.raises(ZipLoRAError, match=r"input_blocks\.0\.0\.weight .* two models of one arch"):
        two_unets(tiny_relative("inpaint"), tiny.tiny_sdxl(), "all")
    refiner = tiny_relative("refiner")
    with pytest.raises(ZipLoRAError, match=r"found the SDXL refiner, .* Connect the SDXL base"):
        two_unets(refiner, refiner, "all")


@pytest.mark.parametrize("text_encoder", [False, True])
def test_dreambooth_refuses_the_refiners_clip(text_encoder: bool, tmp_path: Path) -> None:
    clip = refiner_clip()
    settings = replace(DREAMBOOTH, train_text_encoder=text_encoder)
    with (
        torch.inference_mode(),
        pytest.raises(ZipLoRAError, match=r"^clip: found the CLIP of the SDXL refiner"),
    ):
        train_dreambooth(inputs(tiny.tiny_sdxl(), clip), settings, tmp_path)


def test_every_relative_is_what_comfyui_takes_it_for() -> None:
    for kind, (configuration, _) in KINDS.items():
        model = tiny_relative(kind).model
        assert isinstance(model.model_config, configuration)
        assert bool(model.concat_keys) == (kind == "inpaint")
