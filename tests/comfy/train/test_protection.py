"""Nothing is lost after the last step: after any failure there, the LoRA is returned or kept."""

from __future__ import annotations

import logging
import re
from typing import Any

import comfy.model_management
import pytest
import torch
from comfy_execution.graph_utils import ExecutionBlocker
from torch import Tensor

from .training_nodes import EACH, STEPS, Trainer, pack_module

ALL = (*EACH, "closed_form")
SLIDERS = ("words", "pictures")
NAMES = {"dreambooth": "dreambooth", "words": "slider", "pictures": "slider", "unzip": "unziplora",
         "merge": "ziplora", "closed_form": "ziplora"}  # fmt: skip


class FaultError(RuntimeError):
    """The injected error."""


def failing(*_args: Any, **_kwargs: Any) -> Any:
    raise FaultError("out of order")


def out_of_memory(*_args: Any, **_kwargs: Any) -> Any:
    raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB")


def cancelled(*_args: Any, **_kwargs: Any) -> Any:
    raise comfy.model_management.InterruptProcessingException


def assert_out(trainer: Trainer, what: str, reason: str, caplog: Any, **changed: Any) -> Any:
    """Assert that the LoRA is returned, report and log name the failure, and nothing is left."""
    with caplog.at_level(logging.WARNING):
        found = trainer.run(**changed)
    assert found.loras and all(t.isfinite().all() for lora in found.loras for t in lora.values())
    said = f"WARNING: {what} failed ({reason})."
    assert found.report.startswith(said)
    assert "see the log" in found.report.splitlines()[0]
    (logged,) = (r for r in caplog.records if r.exc_info and f"{what} failed" in r.getMessage())
    assert reason.split(":")[0] in str(logged.exc_info)
    assert said in "".join(r.getMessage() for r in caplog.records if not r.exc_info)
    assert trainer.checkpoints() == []
    return found


everyone = pytest.mark.parametrize("trainer", ALL, indirect=True)
with_steps = pytest.mark.parametrize("trainer", EACH, indirect=True)


@everyone
def test_report_that_fails_costs_nothing_else(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(trainer.session, f"{NAMES[trainer.name]}_report", failing)
    assert_out(trainer, "writing the report", "FaultError: out of order", caplog)


@everyone
def test_metadata_that_fails_costs_nothing_else(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(trainer.session, f"{NAMES[trainer.name]}_metadata", failing)
    kind = "merge" if NAMES[trainer.name] == "ziplora" else "training"
    files = "files" if trainer.name == "unzip" else "file"
    found = assert_out(
        trainer, f"describing the {kind} for the {files}", "FaultError: out of order", caplog
    )
    assert (
        "modules" in found.report or "UnZipLoRA of" in found.report
    )  # the rest of the metadata is there


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("trainer", ["dreambooth", "unzip", "merge", "closed_form"], indirect=True)
def test_measurement_without_memory_costs_nothing_else(
    when: str,
    trainer: Trainer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    calls: list[int] = []
    merges = NAMES[trainer.name] == "ziplora"
    owner, name = (
        (pack_module("ziplora_core.comfy_adapter.train.held_out"), "_measured")
        if merges
        else (pack_module("ziplora_core.dreambooth.objective").PictureObjective, "held_out")
    )
    real = getattr(owner, name)

    def measured(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        turn = "before" if len(calls) == 1 else "after"
        return out_of_memory() if turn == when else real(*args, **kwargs)

    monkeypatch.setattr(owner, name, measured)
    what = f"measuring the loss {when} the training"
    if merges:
        what = {"before": "measuring the direct merge", "after": "measuring the merge"}[when]
    reason = "OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB"
    found = assert_out(trainer, what, reason, caplog)
    assert "loss on fixed noise" not in found.report and "retention" not in found.report
    assert len(calls) == 2


SAMPLING = {"dreambooth": "draw_samples", "words": "look_at_effect", "pictures": "look_at_effect",
            "unzip": "sample_latents"}  # fmt: skip


def sampling(trainer: Trainer, every: int = 1) -> dict[str, Any]:
    """Return the inputs that ask for sample pictures."""
    if trainer.name == "unzip":
        return {"images_per_validation": True, "validation_steps": every}
    return {"options": {"sample_every": every}}


@pytest.mark.parametrize("trainer", SAMPLING, indirect=True)
def test_sample_pictures_that_fail_cost_nothing_else(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real, calls = getattr(trainer.session, SAMPLING[trainer.name]), []

    def fails_once(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return out_of_memory() if len(calls) == 1 else real(*args, **kwargs)

    plain = trainer.run(**sampling(trainer))
    monkeypatch.setattr(trainer.session, SAMPLING[trainer.name], fails_once)
    reason = "OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB"
    found = assert_out(trainer, "drawing the sample pictures", reason, caplog, **sampling(trainer))
    assert len(calls) > 1  # the last pictures are drawn again
    assert all(map(equal, plain.loras, found.loras))


@pytest.mark.parametrize("trainer", SAMPLING, indirect=True)
def test_vae_that_fails_and_leaves_the_model_unloaded_costs_only_the_pictures(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A VAE takes the model's place on the card, and then runs out of memory."""
    plain = trainer.run(**sampling(trainer))

    def crowded(*_args: Any) -> Any:
        comfy.model_management.unload_all_models()
        out_of_memory()

    vae = pack_module("ziplora_core.comfy_adapter.data.samples")
    real, calls = vae.decoded, []

    def fails_once(*args: Any) -> Any:
        calls.append(1)
        return crowded() if len(calls) == 1 else real(*args)

    for name in ("data.samples", "train.slider_effect", "train.unziplora"):
        monkeypatch.setattr(
            pack_module(f"ziplora_core.comfy_adapter.{name}"), "decoded", fails_once
        )
    reason = "OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB"
    found = assert_out(trainer, "drawing the sample pictures", reason, caplog, **sampling(trainer))
    assert all(map(equal, plain.loras, found.loras))


@pytest.mark.parametrize("trainer", SAMPLING, indirect=True)
def test_last_pictures_that_fail_cost_nothing_else(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(trainer.session, SAMPLING[trainer.name], out_of_memory)
    reason = "OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB"
    only_at_the_end = sampling(trainer, every=STEPS)
    found = assert_out(trainer, "evaluating the result", reason, caplog, **only_at_the_end)
    if trainer.name in SLIDERS:
        blocked = found.output.args[3]
        assert isinstance(blocked, ExecutionBlocker) and blocked.message is None


@pytest.mark.parametrize("trainer", SLIDERS, indirect=True)
def test_picture_of_the_effect_that_fails_costs_nothing_else(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(trainer.node, "grid", failing)
    found = assert_out(trainer, "drawing the effect", "FaultError: out of order", caplog)
    assert isinstance(found.output.args[3], ExecutionBlocker)
    assert "effect on" in found.report


@pytest.mark.parametrize("trainer", ["merge", "closed_form"], indirect=True)
def test_map_of_the_merge_that_fails_costs_nothing_else(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(trainer.node, "merge_map", failing)
    found = assert_out(trainer, "drawing the map of the merge", "FaultError: out of order", caplog)
    assert set(found.output.ui) == {"text"}


@pytest.mark.parametrize("trainer", ["dreambooth", "words"], indirect=True)
def test_preview_that_fails_costs_nothing_else(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pack_module("nodes.shared.progress"), "side_by_side", failing)
    shown = "showing the training on the page"
    assert_out(trainer, shown, "FaultError: out of order", caplog, **sampling(trainer))


@everyone
def test_messages_that_fail_cost_nothing_else(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pack_module("nodes.shared.progress"), "used_memory", failing)
    assert_out(trainer, "showing the training on the page", "FaultError: out of order", caplog)


@pytest.mark.parametrize("trainer", ["unzip"], indirect=True)
def test_saving_on_the_way_that_fails_costs_nothing_else(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Save now uses the same code in every trainer."""
    save_now = pack_module("ziplora_core.comfy_adapter.train.save_now")
    monkeypatch.setattr(save_now, "save_lora", failing)
    assert_out(
        trainer, "saving the LoRA so far", "FaultError: out of order", caplog,
        saves_per_validation=True,
    )  # fmt: skip


@pytest.mark.parametrize("trainer", ["merge"], indirect=True)
def test_save_now_that_fails_costs_nothing_else(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = pack_module("ziplora_core.training.run_history").Run
    monkeypatch.setattr(run, "take_save", lambda self: True)
    save_now = pack_module("ziplora_core.comfy_adapter.train.save_now")
    monkeypatch.setattr(save_now, "save_lora", failing)
    assert_out(trainer, "saving the LoRA so far", "FaultError: out of order", caplog)
    told = [r.status for r in pack_module("ziplora_core.training.registry").known()]
    assert re.fullmatch(r"WARNING: not saved\. Step \d+: the log says why\.", told[-1])


@pytest.mark.parametrize("trainer", ["dreambooth"], indirect=True)
def test_memory_in_use_that_cannot_be_read_costs_nothing_else(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    peak = pack_module("ziplora_core.comfy_adapter.model.memory").PeakMemory
    monkeypatch.setattr(peak, "look", failing)
    assert_out(trainer, "reading the memory in use", "FaultError: out of order", caplog)


def equal(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return all(torch.equal(t, right[key]) for key, t in left.items())


EXPORT = {
    "dreambooth": ("training.lora_objective.LoRAObjective", "factors"),
    "words": ("training.lora_objective.LoRAObjective", "factors"),
    "pictures": ("training.lora_objective.LoRAObjective", "factors"),
    "unzip": ("unziplora.objective.UnZipLoRAObjective", "parts"),
    "merge": ("lora.coefficients.MergerCoefficients", "detached"),
}


@pytest.mark.parametrize("where", ["session", "node"])
@with_steps
def test_export_that_fails_leaves_the_checkpoint_and_queueing_again_takes_it_from_the_end(
    where: str,
    trainer: Trainer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    plain = trainer.run()
    with monkeypatch.context() as broken:
        if where == "node":
            broken.setattr(trainer.node, "lora_model", failing)
        else:
            owner, name = EXPORT[trainer.name]
            module, kind = owner.rsplit(".", 1)
            broken.setattr(getattr(pack_module(f"ziplora_core.{module}"), kind), name, failing)
        with caplog.at_level(logging.ERROR), pytest.raises(FaultError, match="out of order"):
            trainer.run()
    (kept,) = trainer.checkpoints()
    assert (kept / "state.safetensors").exists()
    assert f"the training state is kept in {kept}; queue the same inputs to go on" in caplog.text
    again = trainer.run()
    assert f"{STEPS} of {STEPS} steps" in again.report
    assert f"resumed at {STEPS}" in again.report and trainer.checkpoints() == []
    assert all(map(equal, plain.loras, again.loras))


@with_steps
def test_checkpoint_is_there_until_the_output_is_made(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    real = trainer.node.lora_model

    def watched(*args: Any) -> Any:
        seen.append(
            [(kept / "state.safetensors").exists() for kept in trainer.checkpoints()] == [True]
        )
        return real(*args)

    monkeypatch.setattr(trainer.node, "lora_model", watched)
    assert trainer.run().loras
    assert seen and all(seen) and trainer.checkpoints() == []


@with_steps
def test_cancel_after_the_last_step_is_no_failure_and_keeps_the_steps(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        if trainer.name in SLIDERS:
            broken.setattr(trainer.session, "look_at_effect", cancelled)
        elif trainer.name == "merge":
            held_out = pack_module("ziplora_core.comfy_adapter.train.held_out")
            real, calls = held_out._measured, []

            def measure(*args: Any) -> Any:
                calls.append(1)
                return real(*args) if len(calls) == 1 else cancelled()

            broken.setattr(held_out, "_measured", measure)
        else:
            objective = pack_module("ziplora_core.dreambooth.objective").PictureObjective
            own, seen = objective.held_out, []

            def held(*args: Any, **kwargs: Any) -> Any:
                seen.append(1)
                return own(*args, **kwargs) if len(seen) == 1 else cancelled()

            broken.setattr(objective, "held_out", held)
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            trainer.run()
    (kept,) = trainer.checkpoints()
    assert {"state.safetensors", "lora.safetensors"} <= {path.name for path in kept.iterdir()}
    assert f"resumed at {STEPS}" in trainer.run().report


@with_steps
def test_failure_of_the_last_message_never_hides_why_a_training_has_failed(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    class CauseError(RuntimeError):
        pass

    def backward(*_args: Any) -> Any:
        raise CauseError("the card fell out")

    objectives = {
        "dreambooth": "dreambooth.objective.PictureObjective",
        "unzip": "unziplora.objective.UnZipLoRAObjective",
        "words": "sliders.text_objective.TextSliderObjective",
        "pictures": "sliders.picture_objective.PairSliderObjective",
        "merge": "ziplora.objective.ZipLoRAObjective",
    }  # fmt: skip
    module, kind = objectives[trainer.name].rsplit(".", 1)
    monkeypatch.setattr(getattr(pack_module(f"ziplora_core.{module}"), kind), "backward", backward)
    monkeypatch.setattr(pack_module("nodes.shared.progress").TrainingProgress, "tell", failing)
    with pytest.raises(CauseError, match="the card fell out"):
        trainer.run()
    assert pack_module("ziplora_core.training.registry").find("7").state == "failed"
