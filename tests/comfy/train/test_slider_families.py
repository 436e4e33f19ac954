"""Sliders trained on models of other families, from words and from pairs of pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sandbox import tiny
from sandbox.families import FAMILIES, tiny_family, tiny_vae
from ziplora_core.comfy_adapter.model.family import family_of
from ziplora_core.comfy_adapter.train.slider_tasks import (
    PictureSliderTask,
    SliderInputs,
    TextSliderTask,
    paired_pictures,
)
from ziplora_core.comfy_adapter.train.sliders import SliderResult, train_slider
from ziplora_core.errors import ZipLoRAError
from ziplora_core.files.writer import kohya_tensors
from ziplora_core.sliders.options import PairSliderSettings, SliderSettings, TextSliderSettings
from ziplora_core.training.options import TrainingOptions

from .. import helpers
from ..family_models import stock

SIDE = 64
OPTIONS = TrainingOptions(sample_every=0, held_out_draws=0)
WORDS = TextSliderSettings(
    target="person", positive="old person", negative="young person", resolution=SIDE, steps=3,
    learning_rate=1e-2, alpha=4.0, trajectory="reused", options=OPTIONS,
)  # fmt: skip
PICTURES = PairSliderSettings(
    resolution=SIDE, steps=3, learning_rate=1e-2, alpha=4.0, options=OPTIONS
)


def train(family: str, settings: SliderSettings, folder: Path) -> SliderResult:
    if isinstance(settings, TextSliderSettings):
        task = TextSliderTask(settings)
    else:
        assert isinstance(settings, PairSliderSettings)
        low, high = (helpers.noise(1, SIDE, SIDE, 3, seed=n).clamp(0, 1) for n in (1, 2))
        task = PictureSliderTask([paired_pictures([low], [high], 1.0)], settings)
    inputs = SliderInputs(tiny_family(family), tiny.tiny_clip(), tiny_vae(family))
    with torch.inference_mode():  # as in a node
        return train_slider(inputs, task, folder)


@pytest.mark.parametrize("settings", [WORDS, PICTURES], ids=["words", "pictures"])
@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "Anima"])
@pytest.mark.usefixtures("short_effect")
def test_slider_is_trained_shown_and_a_lora_of_the_family(
    family: str, settings: SliderSettings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    slider = train(family, settings, tmp_path)
    model = tiny_family(family)
    assert slider.effect is not None and slider.effect.pictures[0].shape[-1] == 3
    moved = [bool(factors.up.any()) for factors in slider.modules.values()]
    assert sum(moved) > 0.8 * len(moved)  # what a last block writes of the prompt, nobody reads
    assert len(stock(model, kohya_tensors(slider.modules)).patches) == len(slider.modules)
    assert "not loaded" not in caplog.text
    assert slider.metadata["modelspec.architecture"].startswith(family_of(model.model).architecture)


def test_layers_that_a_model_does_not_have_are_named(tmp_path: Path) -> None:
    with pytest.raises(ZipLoRAError, match=r"layers=xattn: found no such layers .* attention_ff"):
        train("FLUX.1", replace(WORDS, layers="xattn"), tmp_path)
