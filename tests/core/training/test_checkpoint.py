"""Checkpoints: the inputs that tell one run's from another's."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ziplora_core.dreambooth.options import DreamBoothSettings
from ziplora_core.sliders.options import PairSliderSettings, TextSliderSettings
from ziplora_core.training.checkpoint import CheckpointFolder
from ziplora_core.training.options import TrainingOptions
from ziplora_core.training.resume_key import (
    WITHOUT_EFFECT,
    Inputs,
    digest,
    picture_digest,
    sampled,
    settings_that_count,
)
from ziplora_core.training.saved_state import SavedState
from ziplora_core.unziplora.options import UnZipLoRASettings
from ziplora_core.ziplora.options import ZipLoRASettings

STATE = SavedState([torch.zeros(3)], {}, {"loss": [1.0]}, step=1, steps=2)


def kept(root: Path, inputs: Inputs) -> CheckpointFolder:
    folder = CheckpointFolder.of(inputs, root)
    folder.save(STATE)
    return folder


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_digest_changes_with_any_tensor() -> None:
    base = digest({"a": torch.ones(2)})
    assert base == digest({"a": torch.ones(2)})
    others = [
        digest({"a": torch.zeros(2)}),
        digest({"b": torch.ones(2)}),
        digest({"a": torch.ones(2, 1)}),
        digest({"a": torch.ones(2).half()}),
    ]
    assert len({base, *others}) == 5


def test_sampled_takes_few_values_of_many_columns() -> None:
    taken = sampled(torch.arange(640 * 640.0))
    assert 50 < taken.numel() < 130
    assert len(set((taken % 640).tolist())) > 40


def test_picture_digest_sees_eight_bits_and_no_more() -> None:
    picture = torch.arange(48.0).reshape(4, 4, 3) / 255
    assert picture_digest(picture) == picture_digest(picture + 0.3 / 255)
    assert picture_digest(picture) != picture_digest(picture + 1 / 255)
    assert picture_digest(picture) != picture_digest(picture.reshape(2, 8, 3))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_folder_is_found_with_weights_in_another_dtype_and_not_with_others(
    dtype: torch.dtype, tmp_path: Path
) -> None:
    weight = 0.03 * random(4096)
    folder = kept(tmp_path, Inputs({}, {"w": weight}))
    assert folder.path == CheckpointFolder.of(Inputs({}, {"w": weight.to(dtype)}), tmp_path).path
    tuned = weight + 1e-4 * random(4096, seed=1) * 0.03
    for other in ({"w": tuned}, {"v": weight}, {"w": weight[1:]}, {"w": weight, "v": weight}, {}):
        assert not CheckpointFolder.of(Inputs({}, other), tmp_path).state_file.exists()
    assert not CheckpointFolder.of(Inputs({"a": 1}, {"w": weight}), tmp_path).state_file.exists()


@pytest.mark.parametrize(("kind", "rounding"), [("prompts", 0.002), ("latents", 0.01)])
def test_folder_is_found_with_computed_numbers_that_are_rounded(
    kind: str, rounding: float, tmp_path: Path
) -> None:
    made = random(1, 77, 256)
    folder = kept(tmp_path, Inputs({}, **{kind: {"x": made}}))
    nearly = made * (1 + rounding * random(1, 77, 256, seed=1))
    assert CheckpointFolder.of(Inputs({}, **{kind: {"x": nearly}}), tmp_path).path == folder.path
    one_row = made.clone()
    one_row[:, 40] *= 1.1
    for other in (one_row, made[:, :40], random(1, 77, 256, seed=2)):
        found = CheckpointFolder.of(Inputs({}, **{kind: {"x": other}}), tmp_path)
        assert not found.state_file.exists() and found.path.name[:16] == folder.path.name[:16]


def test_folders_of_equal_settings_stay_apart_and_each_is_found_again(tmp_path: Path) -> None:
    inputs = [Inputs({}, prompts={"x": random(1, 7, 8, seed=n)}) for n in range(3)]
    folders = [kept(tmp_path, own) for own in inputs]
    assert len({folder.path for folder in folders}) == 3
    assert [CheckpointFolder.of(own, tmp_path).path for own in inputs] == [f.path for f in folders]


def test_folder_that_does_not_say_what_it_is_of_is_left_alone(tmp_path: Path) -> None:
    folder = kept(tmp_path, Inputs({}, {"w": torch.ones(3)}))
    near = Inputs({}, {"w": torch.ones(3) * 1.001})
    assert CheckpointFolder.of(near, tmp_path).path == folder.path
    (folder.path / "inputs.numbers").write_bytes(b"damaged")
    assert CheckpointFolder.of(near, tmp_path).path != folder.path


@pytest.mark.parametrize(
    "settings",
    [
        ZipLoRASettings(), DreamBoothSettings("a"), UnZipLoRASettings("a", "b", "c"),
        TextSliderSettings(), PairSliderSettings(),
    ],
    ids=lambda settings: type(settings).__name__,
)  # fmt: skip
def test_counted_has_one_rule_for_all_trainers(settings: Any) -> None:
    said = settings_that_count(settings)
    assert set(said) - {"method"} == {f.name for f in fields(settings)} - WITHOUT_EFFECT
    assert set(said["options"]) == {f.name for f in fields(TrainingOptions)} - WITHOUT_EFFECT
    assert said["seed"] == settings.seed != settings_that_count(replace(settings, seed=7))["seed"]
    assert "early_stop" in settings_that_count(settings, stops_early=True)["options"]


def test_without_effect_names_settings_that_there_are() -> None:
    kinds = (
        TrainingOptions, ZipLoRASettings, DreamBoothSettings, UnZipLoRASettings, TextSliderSettings
    )  # fmt: skip
    assert {field.name for kind in kinds for field in fields(kind)} >= WITHOUT_EFFECT


def test_folder_is_kept_where_one_prompt_is_connected_twice(tmp_path: Path) -> None:
    same = random(2, 8)
    inputs = Inputs({"seed": 0}, prompts={"content": same, "style": same})
    folder = kept(tmp_path, inputs)
    assert CheckpointFolder.of(inputs, tmp_path).path == folder.path and folder.state_file.exists()
