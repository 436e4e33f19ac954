"""The warnings of ZipLoRA Optimize's report."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ziplora_core.lora.factors import LoRA
from ziplora_core.lora.merged import MergedLoRA
from ziplora_core.lora.pair import LoRAPair, ModulePair
from ziplora_core.training.interface import TrainingRecord
from ziplora_core.ziplora.options import ZipLoRASettings
from ziplora_core.ziplora.report import (
    Retention,
    coefficient_warnings,
    retention_warnings,
    ziplora_report,
)

from ..lora.factors import random_factors

NAMES = ("lora_unet_input_blocks_4_1_a", "lora_unet_input_blocks_4_1_b")
ADAM = ZipLoRASettings(solver="adam")


def merged(*optimised: str) -> MergedLoRA:
    pairs = {
        name: ModulePair(random_factors(2, 8, 8, seed=n), random_factors(3, 8, 8, seed=9 + n))
        for n, name in enumerate(NAMES)
    }
    return MergedLoRA(pairs, {name: torch.full((2, 8), 1.2) for name in optimised})


def report(
    joint: bool = True, settings: ZipLoRASettings = ADAM, *optimised: str,
    after: Retention = Retention(0.5, 0.5, 0.1),  # noqa: B008 (it cannot be changed)
) -> str:  # fmt: skip
    halves = (LoRA("a subject", {}), LoRA("a style", {}))
    retention = (Retention(1.0, 1.0, 0.1), after)
    return ziplora_report(
        merged(*(optimised or NAMES)), LoRAPair(*halves), TrainingRecord(step=100), settings,
        retention, [], joint,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("after", "says"), [
        (Retention(0.5, 0.9), "better for both"),
        (Retention(1.1, 1.2), "worse for both"),
        (Retention(0.995, 1.005), "the same for both"),
        (Retention(0.5, 1.2), "content better, style worse"),
    ],
)  # fmt: skip
def test_a_report_says_for_whom_the_merge_is_better(after: Retention, says: str) -> None:
    assert f"direct merge → ZipLoRA: {says}\n" in report(after=after)


def test_an_open_joint_prompt_is_a_warning() -> None:
    assert "WARNING: joint_conditioning is open" in report(joint=False)
    assert "WARNING" not in report(joint=True)


def test_modules_that_the_layer_choice_leaves_out_are_counted_with_their_norm() -> None:
    squares = [
        sum(float(f.delta().square().sum()) for f in pair.factors if f)
        for pair in merged().pairs.values()
    ]
    said = report(True, ADAM, NAMES[0])
    share = squares[1] / sum(squares)
    assert "layers=attention leaves 1 modules that both LoRAs have as in the direct merge" in said
    assert f"{share:.0%} of the LoRAs' squared norm; layers=all learns these, too" in said
    assert "layers=attention leaves" not in report()


def test_the_joint_error_names_the_strengths_it_is_against() -> None:
    settings = replace(ADAM, joint_content=0.8, joint_style=0.6)
    assert "at the joint prompt, against both LoRAs at 0.8 and 0.6: 0.10000" in report(
        True, settings
    )


@pytest.mark.parametrize(
    ("settings", "advice"), [
        (ADAM, "Set solver=closed_form, or lower joint_weight."),
        (replace(ADAM, similarity_weight=0.01), "solver=closed_form, or lower similarity_weight."),
        (ZipLoRASettings(), "Bring the pair's strengths closer together, or lower joint_weight."),
    ],
)  # fmt: skip
def test_a_half_that_is_kept_worse_than_by_the_sum_names_the_remedy(
    settings: ZipLoRASettings, advice: str
) -> None:
    before = Retention(1.0, 1.0)
    (said,) = retention_warnings(before, Retention(0.4, 1.1), settings)
    assert "the style is preserved worse than in the direct merge (× 1.10)" in said
    assert advice in said
    assert retention_warnings(before, Retention(0.4, 1.01), settings) == []


def test_coefficients_beyond_the_measured_range_are_a_warning() -> None:
    moved = {"a": torch.tensor([[1.0, 2.4], [0.8, 0.9]])}
    assert coefficient_warnings(moved, ADAM) == []
    far = {"a": torch.tensor([[1.0, 2.4], [-7.0, 0.9]])}
    (said,) = coefficient_warnings(far, ADAM)
    assert "coefficients reach 7.0" in said and "Lower steps" in said


def test_the_published_settings_are_the_papers_whatever_the_widgets_say() -> None:
    asked = ZipLoRASettings(
        solver="adam_as_published", steps=7, learning_rate=1.0, similarity="dot_sum",
        similarity_weight=5.0, layers="all", seed=3,
    )  # fmt: skip
    used = asked.resolved()
    assert (used.gradient_steps, used.closed_form_samples, used.learning_rate) == (100, 0, 0.01)
    assert (used.similarity, used.similarity_weight, used.layers) == ("cosine", 0.01, "attention")
    assert used.seed == 3 and used.negative_strength == 1 and ADAM.resolved() == ADAM
    assert "joint_conditioning is open" not in report(False, used)
    assert "negative_strength 1, as for any LoRA loader" in report(False, used)
