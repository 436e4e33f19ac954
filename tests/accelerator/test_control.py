"""Cancel, resume and stop on the device work as on the CPU, and leave the MODEL unchanged."""

from __future__ import annotations

from pathlib import Path

import comfy.model_management
import pytest

from card.models import CardModels
from sandbox.paths import DEVICE
from ziplora_core.training.interface import TrainingRecord

from .trained import assert_untouched, learned, relative, train, weights

STEPS = 4
NAMES = (
    *("ZipLoRA Optimize, Adam", "Train DreamBooth LoRA, prior, text encoders"),
    *("Train Concept Slider, reused", "UnZipLoRA Train"),
)


@pytest.mark.parametrize("name", NAMES)
def test_training_cancelled_and_queued_again_learns_what_it_would_have(
    name: str, models: CardModels, tmp_path: Path
) -> None:
    want = learned(train(models, name, "low", STEPS, tmp_path / "whole"))
    before = weights(models)

    def cancel(record: TrainingRecord) -> None:
        if record.step == 2:
            raise comfy.model_management.InterruptProcessingException

    with pytest.raises(comfy.model_management.InterruptProcessingException):
        train(models, name, "low", STEPS, tmp_path / "cut", on_step=cancel)
    assert list((tmp_path / "cut").rglob("state.safetensors"))
    assert list((tmp_path / "cut").rglob("*.safetensors"))
    assert_untouched(models, before)

    result = train(models, name, "low", STEPS, tmp_path / "cut")
    assert result.record.resumed_at == 2 and result.record.step == STEPS
    assert relative(learned(result), want) <= (1e-6 if DEVICE == "pretend" else 2e-3)


def test_training_stopped_keeps_what_was_learned(models: CardModels, tmp_path: Path) -> None:
    steps: list[int] = []
    result = train(
        models, "Train DreamBooth LoRA", "low", STEPS, tmp_path,
        on_step=lambda record: steps.append(record.step), should_stop=lambda: len(steps) == 2,
    )  # fmt: skip
    assert result.record.stopped == "stopped after step 2 on request"
    assert any(t.any() for t in learned(result).values())
