"""Numbers that are wired in, below what their widgets allow."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ziplora_core.dreambooth.options import DreamBoothSettings
from ziplora_core.errors import ZipLoRAError
from ziplora_core.sliders.options import PairSliderSettings, TextSliderSettings
from ziplora_core.training.options import TrainingOptions
from ziplora_core.training.validation import refuse_below_minimum
from ziplora_core.unziplora.options import UnZipLoRASettings

SETTINGS = [
    DreamBoothSettings("a dog"),
    UnZipLoRASettings("a dog in ink", "a dog", "ink"),
    TextSliderSettings(),
    PairSliderSettings(),
]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: type(s).__name__)
def test_number_below_its_least_is_named(settings: DreamBoothSettings) -> None:
    refuse_below_minimum(settings)
    for name, value in (("steps", 0), ("rank", 0), ("resolution", 32), ("rank", float("nan"))):
        with pytest.raises(ZipLoRAError, match=f"{name}: found {value}, expected"):
            refuse_below_minimum(replace(settings, **{name: value}))
    with pytest.raises(ZipLoRAError, match="batch: found 0, expected 1 or more"):
        refuse_below_minimum(replace(settings, options=TrainingOptions(batch=0)))


def test_numbers_of_one_trainer_alone_are_named_too() -> None:
    with pytest.raises(ZipLoRAError, match=r"range: found 0, expected 0\.05 or more"):
        refuse_below_minimum(TextSliderSettings(range=0.0))
    with pytest.raises(ZipLoRAError, match="importance_samples: found 0, expected 1 or more"):
        refuse_below_minimum(replace(SETTINGS[1], importance_samples=0))
