"""Out-of-memory errors of any backend: the run continues with less memory, or gives advice."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.sd
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from sandbox import tiny
from ziplora_core.comfy_adapter.model.memory_advice import memory_advice, unload_all_models
from ziplora_core.comfy_adapter.model.training_model import training_model
from ziplora_core.comfy_adapter.tools.calibration import CalibrationPrompts, calibrate
from ziplora_core.comfy_adapter.tools.extract import extract, two_unets
from ziplora_core.comfy_adapter.train.dreambooth import DreamBoothResult, train_dreambooth
from ziplora_core.comfy_adapter.train.dreambooth_inputs import TrainingInputs
from ziplora_core.dreambooth.options import DreamBoothSettings
from ziplora_core.errors import ZipLoRAError
from ziplora_core.training.branches import Gates
from ziplora_core.training.interface import ProgressCallbacks
from ziplora_core.training.options import TrainingOptions
from ziplora_core.training.out_of_memory import is_out_of_memory

from .. import helpers

SIDE = 64
SETTINGS = DreamBoothSettings(
    "a photo of sks dog", rank=4, steps=2, resolution=SIDE,
    options=TrainingOptions(sample_every=0, held_out_draws=0),
)  # fmt: skip
WITH_CLASS = replace(SETTINGS, class_prompt="a photo of a dog", class_count=1)


def no_memory() -> RuntimeError:
    """Return an out-of-memory error that ComfyUI's own check does not recognise."""
    return RuntimeError("MPS backend out of memory (MPS allocated: 17.5 GB, max allowed: 18.1 GB)")


class Once:
    """Runs out of memory at the first call with this size."""

    def __init__(self, samples: int = 0) -> None:
        self.samples, self.last, self.times = samples, 0, 0

    def __call__(self, done: int, _total: int = 0) -> None:
        asked, self.last = done - self.last, done
        if not self.times and asked >= self.samples:
            self.times, self.last = 1, done - asked
            raise no_memory()


def inputs(**changed: Any) -> TrainingInputs:
    picture = helpers.noise(1, SIDE, SIDE, 3, seed=1).sigmoid()
    given = {"model": tiny.tiny_sdxl(), "vae": tiny.tiny_vae(), **changed}
    return TrainingInputs(clip=tiny.tiny_clip(), images=[picture], **given)


def run(
    folder: Path,
    settings: DreamBoothSettings = SETTINGS,
    given: TrainingInputs | None = None,
    **callbacks: Any,
) -> DreamBoothResult:
    with torch.inference_mode():
        return train_dreambooth(given or inputs(), settings, folder, ProgressCallbacks(**callbacks))


def coded(code: int) -> Exception:
    error = torch.AcceleratorError("CUDA error")
    error.error_code = code  # pyright: ignore[reportAttributeAccessIssue]
    return error


@pytest.mark.parametrize(
    ("error", "out"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (torch.AcceleratorError("CUDA error: out of memory"), True),
        (coded(2), True),
        (coded(710), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_comfyui_takes_for_out_of_memory_so_do_we(error: Exception, out: bool) -> None:
    assert comfy.model_management.is_oom(error) is out is is_out_of_memory(error)


def test_advice_takes_the_place_of_the_error_and_leaves_nothing_loaded(model: ModelPatcher) -> None:
    comfy.model_management.load_models_gpu([model])
    said = r"memory: found none left \(MPS backend.*Lower it, close"
    with pytest.raises(ZipLoRAError, match=said), memory_advice("Lower it"):
        raise no_memory()
    assert not comfy.model_management.current_loaded_models
    with pytest.raises(RuntimeError, match="mat1"), memory_advice("Lower it"):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")


def test_prediction_goes_on_one_by_one_and_stays_so(
    model: ModelPatcher, clip: comfy.sd.CLIP
) -> None:
    x, sigma, asked = helpers.noise(2, 4, 8, 8), torch.ones(2), []
    gates = Gates(torch.tensor([[1.0, 0.0], [0.5, 1.0]]))
    with training_model(model, helpers.branches_of(model, helpers.lora_pair())) as opened:
        prompts = helpers.prepared(opened, helpers.prompts(clip), x)
        with torch.no_grad():
            want = opened.denoise(x, sigma, prompts, gates)
        opened.evaluations, fails = 0, Once(samples=2)

        def note(done: int) -> None:
            asked.append(done)
            fails(done)

        opened.on_evaluation = note
        with pytest.raises(RuntimeError, match="MPS"):  # the trainer handles it: memory=low
            opened.denoise(x, sigma, prompts, gates)
        assert asked == [2]
        opened.evaluations, fails.times, fails.last = 0, 0, 0
        with torch.no_grad():
            got = [opened.denoise(x, sigma, prompts, gates) for _ in range(2)]
    assert asked == [2, 2, 1, 2, 3, 4] and opened.evaluations == 4
    assert opened.notes == ["memory ran out: samples went one by one from then on"]
    for prediction in got:
        assert helpers.relative(prediction, want) < 1e-4


def test_class_pictures_are_drawn_with_less_memory(tmp_path: Path) -> None:
    whole, short = run(tmp_path / "a", WITH_CLASS), Once(samples=2)
    again = run(tmp_path / "b", WITH_CLASS, on_prepare=short)
    assert short.times == 1 and again.record.step == SETTINGS.steps
    for name, factors in whole.modules.items():
        torch.testing.assert_close(again.modules[name].down, factors.down, rtol=1e-2, atol=1e-3)


class FullVAE:
    """A VAE that runs out of memory with an error that ComfyUI does not retry in tiles."""

    def __init__(self) -> None:
        self.vae = tiny.tiny_vae()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.vae, name)

    def encode(self, pixels: Tensor) -> Tensor:
        raise no_memory()


def test_vae_without_memory_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ZipLoRAError, match=r"memory: found none left.*Lower the resolution"):
        run(tmp_path, given=inputs(vae=FullVAE()))


def test_memory_that_runs_out_between_the_steps_keeps_them(tmp_path: Path) -> None:
    asked: list[int] = []

    def run_out() -> bool:
        asked.append(1)
        if len(asked) == 2:  # before the second step
            raise no_memory()
        return False

    with pytest.raises(ZipLoRAError, match=r"memory: found none left.*Lower the resolution"):
        run(tmp_path, should_stop=run_out)
    (kept,) = (tmp_path / "checkpoints").iterdir()
    assert {path.name for path in kept.iterdir()} >= {"state.safetensors", "lora.safetensors"}
    assert run(tmp_path).record.resumed_at == 1


def test_calibration_without_memory_says_what_to_do(
    model: ModelPatcher, clip: comfy.sd.CLIP
) -> None:
    before = {key: weight.clone() for key, weight in model.model.state_dict().items()}
    prompts = CalibrationPrompts(*helpers.prompts(clip), width=SIDE, height=SIDE)
    with torch.inference_mode(), pytest.raises(ZipLoRAError, match="Lower width and height, close"):
        calibrate(model, helpers.lora_pair(), prompts, ProgressCallbacks(on_prepare=Once()))
    helpers.assert_untouched(model, before)


def extracted(tuned: ModelPatcher, hook: Callable[[Tensor], Tensor] | None = None) -> Any:
    """Extract a LoRA of rank 4 from a model with another seed's first convolution."""
    base = tiny.tiny_sdxl()
    key = "diffusion_model.input_blocks.0.0.weight"
    tuned.patches[key] = [(1.0, ("diff", (torch.ones(32, 4, 3, 3),)), 1.0, None, hook)]
    parts = [two_unets(tuned, base, "all")]
    return extract(parts, 4, torch.Generator(), lambda done, total: None)


def test_extract_goes_on_where_the_card_has_no_memory_left() -> None:
    fails = Once()

    def once(weight: Tensor) -> Tensor:
        fails(1)
        return weight

    whole, again = extracted(tiny.tiny_sdxl()), extracted(tiny.tiny_sdxl(), once)
    assert fails.times == 1 and len(again.modules) == len(whole.modules) == 1
    for name, factors in whole.factors().items():
        assert torch.equal(again.factors()[name].delta(), factors.delta())


def test_models_that_die_while_others_are_unloaded_are_no_error(model: ModelPatcher) -> None:
    dying = tiny.tiny_sdxl()
    comfy.model_management.load_models_gpu([model, dying])
    dying.model.itself = dying.model  # only the garbage collection frees it
    del dying
    thresholds = gc.get_threshold()
    gc.set_threshold(1)
    try:
        unload_all_models()
    finally:
        gc.set_threshold(*thresholds)
    assert gc.isenabled() and not comfy.model_management.current_loaded_models
