"""Memory may run out anywhere: a run continues with less or stops with advice; nothing is lost."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import comfy.model_management
import comfy.sd
import pytest
import torch
from comfy_api.latest import io
from torch import Tensor

from card.models import CardModels
from sandbox.paths import DEVICE
from ziplora_core.comfy_adapter.model.training_model import training_model
from ziplora_core.comfy_adapter.tools.extract import extract, two_unets
from ziplora_core.errors import ZipLoRAError
from ziplora_core.files.writer import kohya_tensors
from ziplora_core.training.interface import TrainingRecord

from .counted import pretend
from .trained import assert_untouched, learned, train, weights

pytestmark = pytest.mark.skipif(DEVICE != "pretend", reason="a real card refuses where it likes")

STEPS = 3
NEVER = 2**62
PLACES = 6
"""Number of places in a run at each of which one allocation is refused."""
NAMES = (
    *("ZipLoRA Optimize, closed form", "ZipLoRA Optimize, Adam", "Train DreamBooth LoRA, prior"),
    *("Train Slider from Images", "UnZipLoRA Train"),
)


@pytest.fixture(autouse=True)
def willing_device() -> Iterator[None]:
    """Remove all limits afterwards."""
    yield
    pretend().refuse(NEVER, NEVER)
    pretend().set_limit(NEVER)


@pytest.fixture
def without_float64() -> Iterator[None]:
    """Take the device's float64 away for a while."""
    pretend().set_float64(False)
    yield
    pretend().set_float64(True)


@pytest.mark.parametrize("name", NAMES)
def test_one_allocation_that_is_refused_anywhere_loses_nothing(
    name: str, models: CardModels, tmp_path: Path
) -> None:
    device, before = pretend(), weights(models)
    device.reset()
    train(models, name, "fast", STEPS, tmp_path / "whole")
    every = device.counts()["allocations"]
    outcomes: list[str] = []
    for place in range(1, PLACES + 1):
        steps: list[int] = []
        device.reset()
        refused = every * place // (PLACES + 1)
        device.refuse(refused, refused + 1)
        try:
            result = train(
                models, name, "fast", STEPS, tmp_path / str(place),
                on_step=lambda record, steps=steps: steps.append(record.step),
            )  # fmt: skip
            outcomes.append("went on")
            assert result.record.step == (0 if "closed form" in name else STEPS)
        except ZipLoRAError as error:
            outcomes.append(f"stopped: {error}")
            assert "memory: found none left" in str(error) and "close other programs" in str(error)
            saved = list((tmp_path / str(place)).rglob("state.safetensors"))
            assert bool(saved) == bool(steps), "what was learned is to be kept"
        device.refuse(NEVER, NEVER)
        assert device.counts()["allocations"] > refused
        assert_untouched(models, before)
    assert "went on" in outcomes, outcomes


def test_card_that_is_too_small_for_fast_goes_on_with_less(
    models: CardModels, tmp_path: Path
) -> None:
    device, name = pretend(), "Train DreamBooth LoRA, prior"
    peaks = {}
    for memory in ("fast", "low"):
        device.reset()
        train(models, name, memory, STEPS, tmp_path / memory)
        peaks[memory] = device.counts()["peak"]
    assert peaks["low"] < 0.9 * peaks["fast"]
    device.set_limit((peaks["low"] + peaks["fast"]) // 2)
    result = train(models, name, "fast", STEPS, tmp_path / "limited")
    assert "went on with memory=low" in result.report and result.record.step == STEPS


def test_card_that_shrinks_keeps_the_steps_and_a_larger_one_resumes(
    models: CardModels, tmp_path: Path
) -> None:
    device, name = pretend(), "Train DreamBooth LoRA"

    def shrink(record: TrainingRecord) -> None:
        if record.step == 2:
            device.set_limit(device.counts()["used"] + 1000)

    before = weights(models)
    with pytest.raises(ZipLoRAError, match="memory: found none left at step 3, in memory=low"):
        train(models, name, "low", STEPS, tmp_path, on_step=shrink)
    assert list(tmp_path.rglob("state.safetensors")) and list(tmp_path.rglob("lora.safetensors"))
    assert_untouched(models, before)
    device.set_limit(NEVER)
    result = train(models, name, "low", STEPS, tmp_path)
    assert result.record.resumed_at == 2 and result.record.step == STEPS


def test_weights_of_a_training_are_all_on_the_card(
    models: CardModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With --novram, ComfyUI lends each layer its weights in a buffer that the next one overwrites;
    on CUDA a backward pass would read the wrong ones."""
    management = comfy.model_management
    monkeypatch.setattr(management, "vram_state", management.VRAMState.NO_VRAM)
    with training_model(models.model, {}) as opened:
        places = {p.device.type for p in opened.model.diffusion_model.parameters()}
        assert places == {opened.device.type} != {"cpu"}


def test_extract_goes_on_without_the_card(models: CardModels) -> None:
    tensors = kohya_tensors(models.pair.content.modules)
    tuned, _ = comfy.sd.load_lora_for_models(models.model, None, tensors, 1.0, 0.0)
    compared = [two_unets(tuned, models.model, "attention")]

    def extracted(refused: int) -> dict[str, Tensor]:
        """Extract; from module `refused` on, the card has no memory left."""

        def step(done: int, _total: int) -> None:
            if done == refused:
                pretend().set_limit(0)

        found = extract(compared, 8, torch.Generator().manual_seed(0), step).factors()
        pretend().set_limit(NEVER)
        return {name: factors.delta() for name, factors in found.items()}

    want, got = extracted(-1), extracted(40)
    assert len(want) == 88
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-6)


def test_plot_of_a_lora_is_drawn_without_the_card(models: CardModels, pack: ModuleType) -> None:
    node = sys.modules[f"{pack.__name__}.nodes.plots.figures"].PlotWeights
    prepared = node.PREPARE_CLASS_CLONE({"hidden_inputs": {io.Hidden.unique_id: "1"}})
    tensors = kohya_tensors(models.pair.content.modules)

    def drawn() -> Tensor:
        return prepared.EXECUTE_NORMALIZED(lora="None", lora_model=tensors, theme="dark").args[0]

    want, before = drawn(), pretend().counts()["allocations"]
    pretend().set_limit(0)
    got = drawn()
    assert pretend().counts()["allocations"] > before, "the card was not asked"
    assert torch.equal(got, want)


@pytest.mark.parametrize("name", NAMES)
def test_trainer_needs_no_float64_on_the_device(
    name: str, models: CardModels, tmp_path: Path, without_float64: None
) -> None:
    """As on Apple's cards, which have none."""
    made = learned(train(models, name, "low", STEPS, tmp_path))
    assert len(made) >= 80 and all(torch.isfinite(tensor).all() for tensor in made.values())


def test_tools_need_no_float64_on_the_device(
    models: CardModels, pack: ModuleType, without_float64: None
) -> None:
    test_extract_goes_on_without_the_card(models)
    test_plot_of_a_lora_is_drawn_without_the_card(models, pack)
