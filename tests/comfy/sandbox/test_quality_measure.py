"""The benchmark's measurements of pictures drawn by code, whose contents are known."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch

from miniworld.parts import load_parts
from miniworld.probe_files import load_probes
from miniworld.scenes import Scene, render
from quality.experiment import Bench, as_bytes
from quality.judge import real_pictures
from quality.measure import overlaps, references
from quality.methods import Task
from quality.subjects import PAIRS, TUNING, Pair
from ziplora_core.lora.factors import LoRA
from ziplora_core.lora.pair import LoRAPair

Measured = Mapping[str, Mapping[str, Mapping[str, list[float]]]]
"""By pair, by what the pictures show, by column: a figure a picture."""


@pytest.fixture(scope="module")
def measured() -> Measured:
    """Measure real pictures of every tuning pair."""
    parts, probes, nothing = load_parts(), load_probes(), LoRAPair(LoRA("a", {}), LoRA("b", {}))

    def of(pair: Pair) -> Mapping[str, Mapping[str, list[float]]]:
        bench = Bench(Task(parts, pair, nothing), probes, references(pair, probes))
        return {
            name: bench.measured(as_bytes(pictures).float() / 255)
            for name, pictures in real_pictures(pair).items()
        }

    return {pair.name: of(pair) for pair in TUNING}


@pytest.mark.thorough
def test_both_right_is_said_of_the_subject_in_the_style_alone(measured: Measured) -> None:
    for pair, shown in measured.items():
        right = {name: sum(found["both right"]) / 4 for name, found in shown.items()}
        assert right.pop("real: subject in style") == 1, pair
        assert len(right) == 3 and not any(right.values()), (pair, right)


def test_alignment_tells_the_subject_and_the_style_apart(measured: Measured) -> None:
    with_subject = {"real: subject in style", "real: subject in another style"}
    with_style = {"real: subject in style", "real: another subject in style"}
    for pair, shown in measured.items():
        for column, having in (("subject", with_subject), ("style", with_style)):
            least = min(min(shown[name][column]) for name in having)
            most = max(max(found[column]) for name, found in shown.items() if name not in having)
            assert least > most + 0.3, (pair, column, least, most)


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.name)
def test_silhouettes_of_real_pictures_overlap_and_of_others_do_not(pair: Pair) -> None:
    places = ((0.56, 0.06), (0.53, 0.1))  # the first is tried as it is, the second lies between
    real = torch.stack([
        render(Scene(pair.subject, pair.style, radius=radius, shift=(shift, 0.0)))
        for radius, shift in places
    ])  # fmt: skip
    other = render(Scene("cross", pair.style, radius=0.6))[None]
    exact, near = overlaps(real, pair.subject, pair.style)
    (wrong,) = overlaps(other, pair.subject, pair.style)
    assert exact > 0.95 and near > 0.75 and wrong < near - 0.15, (exact, near, wrong)
