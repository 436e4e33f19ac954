"""The warnings of UnZipLoRA's report."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from ziplora_core.dreambooth.report import Trained
from ziplora_core.training.interface import TrainingRecord
from ziplora_core.unziplora.metadata import unziplora_metadata
from ziplora_core.unziplora.report import UnZipLoRATrained, unziplora_report

from .unziplora_task import STEPS, objective


def unzipped(
    mergers: float = 1.0, steps: int = STEPS, **settings: Any
) -> tuple[UnZipLoRATrained, Any]:
    """A result in which something was chosen, with these mergers where both have a feature."""
    task = objective(steps=12, **settings)
    for step in range(2):
        task.backward(step)
    history = {"loss": [1.0] * steps, "instance": [1.0] * steps, "penalty": [0.0] * steps}
    trained = Trained(
        record=TrainingRecord(history if steps else {}, steps), memory=(), low_memory=False,
        evaluations=0, v_prediction=False, flow=False, dtype=torch.float32, checkpoint="",
        examples=task.instances, class_examples=[], class_images_connected=True,
    )  # fmt: skip
    m = task.learned.mergers.flat.detach().clone()
    m[task.masks.overlap] = mergers
    return UnZipLoRATrained(trained, task.masks, m), task.settings


def test_report_of_a_sound_run_has_no_warning() -> None:
    report = unziplora_report(*unzipped(0.7))
    assert "WARNING" not in report
    assert (
        "feature masks: content 10.0% and style 10.0% of the output features of 4 layers" in report
    )
    assert "mergers of 24 features that are in both: mean of content 0.70, style 0.70" in report


def test_report_warns_of_mergers_that_both_went_to_nothing() -> None:
    report = unziplora_report(*unzipped(0.05))
    assert report.startswith("WARNING: on 100% of the features that both LoRAs have")
    assert "mergers=disjoint" in report.splitlines()[0]


def test_report_warns_of_a_share_that_cannot_be_had() -> None:
    report = unziplora_report(*unzipped(column_ratio=0.3))
    assert report.startswith("WARNING: column_ratio × sample_times is 90%")


def test_report_warns_of_equal_prompts_and_of_no_step() -> None:
    result, settings = unzipped(steps=0)
    report = unziplora_report(result, replace(settings, style_prompt=" CONTENT "))
    assert "WARNING: nothing was learned" in report and "the same words" in report


def test_report_warns_of_each_lora_that_was_not_learned() -> None:
    result, settings = unzipped()
    for name in ("content", "style"):
        report = unziplora_report(result, replace(settings, **{f"{name}_learning_rate": 0.0}))
        assert report.startswith(f"WARNING: {name}_learning_rate is 0: the {name} LoRA is the")
        assert report.count("WARNING") == 1


def test_report_says_why_no_class_was_rehearsed() -> None:
    result, settings = unzipped()
    settings = replace(settings, class_prompt="a cat")
    assert "class_prompt, but no class_images" in unziplora_report(result, settings)
    report = unziplora_report(result, replace(settings, prior_weight=0.0))
    assert "no prior preservation: prior_weight is 0" in report and "class_images" not in report


def test_report_says_which_separation_was_left_out() -> None:
    result, settings = unzipped()
    report = unziplora_report(result, replace(settings, column_separation=False))
    assert "all output features, and no blocks of their own" in report
    assert "no feature masks (column_separation is off): both LoRAs have" in report
    nobody, settings = unzipped(block_separation=False)
    assert "blocks:" not in unziplora_report(nobody, settings)


def test_metadata_of_each_part_has_its_own_prompt_and_rate() -> None:
    result, settings = unzipped()
    settings = replace(settings, style_learning_rate=2e-5)
    content, style, merged = (
        unziplora_metadata(result.trained, settings, part)
        for part in ("content", "style", "merged")
    )
    phrases = [m["modelspec.trigger_phrase"] for m in (content, style, merged)]
    assert phrases == ["content", "style", "joint"]
    assert (content["ss_unet_lr"], style["ss_unet_lr"]) == ("0.01", "2e-05")
    assert all(m["ziplora.method"] == "unziplora" for m in (content, style, merged))
