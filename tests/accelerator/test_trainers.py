"""Every trainer and solver gives the CPU's result on the device, in both memory modes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bench.engine.models import SIZES
from card.models import CardModels, open_models
from card.runs import RUNS
from sandbox.paths import DEVICE
from ziplora_core.training.interface import TrainingRecord

from .counted import COPIES, pretend
from .trained import learned, relative, train

STEPS = 4
TEXT_ENCODERS = "Train DreamBooth LoRA, prior, text encoders"


@dataclass
class Trainers:
    """The models on both devices, and each trainer's result on the CPU."""

    on_device: CardModels
    on_cpu: CardModels
    folder: Path
    references: dict[str, dict[str, Tensor]] = field(default_factory=dict)

    def reference(self, name: str) -> dict[str, Tensor]:
        if name not in self.references:
            self.references[name] = learned(train(self.on_cpu, name, "fast", STEPS, self.folder))
        return self.references[name]


@pytest.fixture(scope="module")
def trainers(tmp_path_factory: pytest.TempPathFactory) -> Trainers:
    device, cpu = (open_models(SIZES["tiny"], True, d) for d in (None, torch.device("cpu")))
    return Trainers(device, cpu, tmp_path_factory.mktemp("cpu"))


@pytest.mark.parametrize("memory", ["fast", "low"])
@pytest.mark.parametrize("name", RUNS)
def test_trainer_learns_what_it_learns_on_the_cpu_and_waits_once_a_step(
    name: str, memory: str, trainers: Trainers, tmp_path: Path
) -> None:
    marks: dict[int, dict[str, int]] = {}

    def on_step(record: TrainingRecord) -> None:
        if DEVICE == "pretend" and record.step not in marks:
            marks[record.step] = pretend().counts()

    result = train(trainers.on_device, name, memory, STEPS, tmp_path, on_step=on_step)
    got = learned(result)
    assert all(tensor.device.type == "cpu" for tensor in got.values())
    assert relative(got, trainers.reference(name)) <= 2e-3
    assert f"memory={memory}" in result.report or "closed form" in name
    assert STEPS in marks or DEVICE != "pretend" or "closed form" in name
    if STEPS in marks and name != TEXT_ENCODERS:
        waits = {kind: marks[STEPS][kind] - marks[STEPS - 1][kind] for kind in COPIES}
        assert waits["to_device"] == 0 and waits["to_host"] + waits["waits"] <= 1, waits
