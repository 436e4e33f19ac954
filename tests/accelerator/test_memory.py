"""Memory that runs out anywhere: a run goes on with less or stops with advice; nothing is lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.engine.models import SIZES
from card.runs import RUNS
from card.studio import Studio, open_studio
from sandbox.paths import DEVICE
from ziplora_core.comfy_adapter import slider_effect
from ziplora_core.errors import ZipLoRAError
from ziplora_core.trainable import TrainingRecord, Watch

from .counted import pretend

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


def train(studio: Studio, name: str, memory: str, folder: Path, **watch: Any) -> Any:
    with torch.inference_mode():
        return RUNS[name](studio, memory, STEPS, folder, Watch(**watch))


def weights(studio: Studio) -> list[torch.Tensor]:
    return [p.detach().cpu().clone() for p in studio.model.model.diffusion_model.parameters()]


def assert_untouched(studio: Studio, before: list[torch.Tensor]) -> None:
    network = studio.model.model.diffusion_model
    after = [p.detach().cpu() for p in network.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))
    assert not any(m._forward_hooks or "forward" in m.__dict__ for m in network.modules())


@pytest.mark.parametrize("name", NAMES)
def test_one_allocation_that_is_refused_anywhere_loses_nothing(
    name: str, studio: Studio, tmp_path: Path
) -> None:
    device, before = pretend(), weights(studio)
    device.reset()
    train(studio, name, "fast", tmp_path / "whole")
    every = device.counts()["allocations"]
    outcomes: list[str] = []
    for place in range(1, PLACES + 1):
        steps: list[int] = []
        device.reset()
        refused = every * place // (PLACES + 1)
        device.refuse(refused, refused + 1)
        try:
            result = train(
                studio, name, "fast", tmp_path / str(place),
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
        train(studio, name, memory, tmp_path / memory)
        peaks[memory] = device.counts()["peak"]
    assert peaks["low"] < 0.9 * peaks["fast"]
    device.set_limit((peaks["low"] + peaks["fast"]) // 2)
    result = train(studio, name, "fast", tmp_path / "limited")
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
        train(studio, name, "low", tmp_path, on_step=shrink)
    assert list(tmp_path.rglob("state.pt")) and list(tmp_path.rglob("lora.safetensors"))
    assert_untouched(studio, before)
    device.set_limit(NEVER)
    result = train(studio, name, "low", tmp_path)
    assert result.record.resumed_at == 2 and result.record.step == STEPS
