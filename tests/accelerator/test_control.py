"""Cancel, resume, stop and keep on the device: as on the CPU, and the MODEL as it was."""

from __future__ import annotations

from pathlib import Path

import comfy.model_management
import pytest
import torch

from bench.engine.models import SIZES
from card.studio import Studio, open_studio
from ziplora_core.comfy_adapter import slider_effect
from ziplora_core.trainable import TrainingRecord

from .trained import assert_untouched, learned, train, weights

STEPS = 4
NAMES = (
    *("ZipLoRA Optimize, Adam", "Train DreamBooth LoRA, prior, text encoders"),
    *("Train Concept Slider, reused", "UnZipLoRA Train"),
)


@pytest.fixture(scope="module")
def studio() -> Studio:
    return open_studio(SIZES["tiny"], drawn=True)


@pytest.fixture(autouse=True)
def short_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slider_effect, "STEPS", 2)


@pytest.mark.parametrize("name", NAMES)
def test_training_cancelled_and_queued_again_learns_what_it_would_have(
    name: str, studio: Studio, tmp_path: Path
) -> None:
    want = learned(train(studio, name, "low", STEPS, tmp_path / "whole"))
    before = weights(studio)

    def cancel(record: TrainingRecord) -> None:
        if record.step == 2:
            raise comfy.model_management.InterruptProcessingException

    with pytest.raises(comfy.model_management.InterruptProcessingException):
        train(studio, name, "low", STEPS, tmp_path / "cut", on_step=cancel)
    assert list((tmp_path / "cut").rglob("state.pt"))
    assert list((tmp_path / "cut").rglob("*.safetensors"))
    assert_untouched(studio, before)

    result = train(studio, name, "low", STEPS, tmp_path / "cut")
    assert result.record.resumed_at == 2 and result.record.step == STEPS
    torch.testing.assert_close(learned(result), want, rtol=1e-4, atol=1e-6)


def test_training_stopped_keeps_what_was_learned(studio: Studio, tmp_path: Path) -> None:
    steps: list[int] = []
    result = train(
        studio, "Train DreamBooth LoRA", "low", STEPS, tmp_path,
        on_step=lambda record: steps.append(record.step), should_stop=lambda: len(steps) == 2,
    )  # fmt: skip
    assert result.record.stopped == "stopped at 2 as asked"
    assert any(t.any() for t in learned(result).values())
