"""Memory that runs out anywhere: a run goes on with less or stops with advice; nothing is lost."""

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

from bench.engine.models import SIZES
from card.studio import Studio, open_studio
from sandbox.paths import DEVICE
from ziplora_core.comfy_adapter import slider_effect
from ziplora_core.comfy_adapter.extract import extract, two_unets
from ziplora_core.comfy_adapter.training_model import training_model
from ziplora_core.errors import ZipLoRAError
from ziplora_core.files.writer import kohya_tensors
from ziplora_core.trainable import TrainingRecord

from .counted import pretend
from .trained import assert_untouched, train, weights

pytestmark = pytest.mark.skipif(DEVICE != "pretend", reason="a real card refuses where it likes")

STEPS = 3
NEVER = 2**62
PLACES = 6
"""How many places of a run are tried: one allocation is refused at each."""
NAMES = (
    *("ZipLoRA Optimize, closed form", "ZipLoRA Optimize, Adam", "Train DreamBooth LoRA, prior"),
    *("Train Slider from Images", "UnZipLoRA Train"),
)


@pytest.fixture(scope="module")
def studio() -> Studio:
    return open_studio(SIZES["tiny"], drawn=True)


@pytest.fixture(autouse=True)
def willing_device(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Undo every limit afterwards."""
    monkeypatch.setattr(slider_effect, "STEPS", 3)
    yield
    pretend().refuse(NEVER, NEVER)
    pretend().set_limit(NEVER)


@pytest.mark.parametrize("name", NAMES)
def test_one_allocation_that_is_refused_anywhere_loses_nothing(
    name: str, studio: Studio, tmp_path: Path
) -> None:
    device, before = pretend(), weights(studio)
    device.reset()
    train(studio, name, "fast", STEPS, tmp_path / "whole")
    every = device.counts()["allocations"]
    outcomes: list[str] = []
    for place in range(1, PLACES + 1):
        steps: list[int] = []
        device.reset()
        refused = every * place // (PLACES + 1)
        device.refuse(refused, refused + 1)
        try:
            result = train(
                studio, name, "fast", STEPS, tmp_path / str(place),
                on_step=lambda record, steps=steps: steps.append(record.step),
            )  # fmt: skip
            outcomes.append("went on")
            assert result.record.step == (0 if "closed form" in name else STEPS)
        except ZipLoRAError as error:
            outcomes.append(f"stopped: {error}")
            assert "memory: found none left" in str(error) and "close other programs" in str(error)
            saved = list((tmp_path / str(place)).rglob("state.pt"))
            assert bool(saved) == bool(steps), "what was learned is to be kept"
        device.refuse(NEVER, NEVER)
        assert device.counts()["allocations"] > refused
        assert_untouched(studio, before)
    assert "went on" in outcomes, outcomes


def test_card_that_is_too_small_for_fast_goes_on_with_less(studio: Studio, tmp_path: Path) -> None:
    device, name = pretend(), "Train DreamBooth LoRA, prior"
    peaks = {}
    for memory in ("fast", "low"):
        device.reset()
        train(studio, name, memory, STEPS, tmp_path / memory)
        peaks[memory] = device.counts()["peak"]
    assert peaks["low"] < 0.9 * peaks["fast"]
    device.set_limit((peaks["low"] + peaks["fast"]) // 2)
    result = train(studio, name, "fast", STEPS, tmp_path / "limited")
    assert "went on with memory=low" in result.report and result.record.step == STEPS


def test_card_that_shrinks_keeps_the_steps_and_a_larger_one_resumes(
    studio: Studio, tmp_path: Path
) -> None:
    device, name = pretend(), "Train DreamBooth LoRA"

    def shrink(record: TrainingRecord) -> None:
        if record.step == 2:
            device.set_limit(device.counts()["used"] + 1000)

    before = weights(studio)
    with pytest.raises(ZipLoRAError, match="memory: found none left at step 3, in memory=low"):
        train(studio, name, "low", STEPS, tmp_path, on_step=shrink)
    assert list(tmp_path.rglob("state.pt")) and list(tmp_path.rglob("lora.safetensors"))
    assert_untouched(studio, before)
    device.set_limit(NEVER)
    result = train(studio, name, "low", STEPS, tmp_path)
    assert result.record.resumed_at == 2 and result.record.step == STEPS


def test_weights_of_a_training_are_all_on_the_card(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with --novram, where ComfyUI lends each layer its weights in a buffer that the next one
    overwrites: on CUDA a backward pass would find the wrong ones."""
    management = comfy.model_management
    monkeypatch.setattr(management, "vram_state", management.VRAMState.NO_VRAM)
    with training_model(studio.model, {}) as opened:
        places = {p.device.type for p in opened.model.diffusion_model.parameters()}
        assert places == {opened.device.type} != {"cpu"}


def test_extract_goes_on_without_the_card(studio: Studio) -> None:
    tensors = kohya_tensors(studio.pair.content.modules)
    tuned, _ = comfy.sd.load_lora_for_models(studio.model, None, tensors, 1.0, 0.0)
    compared = [two_unets(tuned, studio.model, "attention")]

    def extracted(refused: int) -> dict[str, Tensor]:
        """Extract; from a module on the card has nothing left."""

        def step(done: int, _total: int) -> None:
            if done == refused:
                pretend().set_limit(0)

        found = extract(compared, 8, torch.Generator().manual_seed(0), step).factors()
        pretend().set_limit(NEVER)
        return {name: factors.delta() for name, factors in found.items()}

    want, got = extracted(-1), extracted(40)
    assert len(want) == 88
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-6)


def test_plot_of_a_lora_is_drawn_without_the_card(studio: Studio, pack: ModuleType) -> None:
    node = sys.modules[f"{pack.__name__}.nodes.figures"].PlotWeights
    prepared = node.PREPARE_CLASS_CLONE({"hidden_inputs": {io.Hidden.unique_id: "1"}})
    tensors = kohya_tensors(studio.pair.content.modules)

    def drawn() -> Tensor:
        return prepared.EXECUTE_NORMALIZED(lora="None", lora_model=tensors, theme="dark").args[0]

    want, before = drawn(), pretend().counts()["allocations"]
    pretend().set_limit(0)
    got = drawn()
    assert pretend().counts()["allocations"] > before, "the card was not asked"
    assert torch.equal(got, want)
