"""The loop's manners: exact resume, cancel, stop and keep, memory, NaN, plateaus."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from ziplora_core.errors import ZipLoRAError
from ziplora_core.files import read_lora
from ziplora_core.lora.factors import LoRA
from ziplora_core.lora.merged import MergedLoRA
from ziplora_core.training.checkpoint import CheckpointFolder
from ziplora_core.training.interface import LoopCallbacks, TrainingRecord
from ziplora_core.training.loop import train
from ziplora_core.training.options import TrainingOptions
from ziplora_core.ziplora.objective import ZipLoRAObjective

from ..ziplora.ziplora_task import NAMES, STEPS, objective


class Cancelled(BaseException):
    """As ComfyUI's InterruptProcessingException: not an Exception."""


def run(
    task: ZipLoRAObjective, folder: CheckpointFolder | None = None, **callbacks: Any
) -> TrainingRecord:
    def export(record: TrainingRecord) -> LoRA:
        modules = MergedLoRA(task.pairs, task.coefficients.detached()).modules()
        return LoRA("so far", modules, {"ss_steps": str(record.step)})

    return train(task, STEPS, task.options, LoopCallbacks(export=export, **callbacks), folder)


def test_train_lowers_the_loss_and_only_moves_coefficients() -> None:
    task = objective(similarity_weight=0.0)
    record = run(task)
    assert record.step == STEPS and record.stopped is None
    errors = [
        c + s for c, s in zip(record.history["content"], record.history["style"], strict=True)
    ]
    assert sum(errors[-5:]) < 0.8 * sum(errors[:5])
    assert all(not layer.weight.requires_grad for layer in task.model.layers.values())


def test_train_same_seed_bit_identical_other_seed_not() -> None:
    tasks = [objective(seed=s) for s in (1, 1, 2)]
    for task in tasks:
        run(task)
    flats = [task.coefficients.flat for task in tasks]
    assert torch.equal(flats[0], flats[1]) and not torch.equal(flats[0], flats[2])


@pytest.mark.parametrize("at", [1, 4, STEPS - 1])
@pytest.mark.parametrize("optimiser", ["auto", "adamw", "sgd"])
def test_train_cancelled_at_any_step_resumes_bit_identical(
    at: int, optimiser: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = TrainingOptions(optimiser=optimiser, schedule="cosine", warm_up_steps=2)
    whole = objective(options)
    history = run(whole).history

    def cancel(record: TrainingRecord) -> None:
        if record.step == at:
            raise Cancelled

    folder = CheckpointFolder(tmp_path / "run")
    with caplog.at_level(logging.INFO), pytest.raises(Cancelled):
        run(objective(options), folder, on_step=cancel)
    assert str(folder.lora_file) in caplog.text
    kept = read_lora(folder.lora_file)
    assert set(kept.modules) == set(NAMES) and kept.metadata["ss_steps"] == str(at)
    resumed = objective(options)
    record = run(resumed, folder)
    assert record.resumed_at == at and record.history == history
    assert torch.equal(resumed.coefficients.flat, whole.coefficients.flat)


def test_train_interrupted_inside_a_step_resumes_bit_identical(tmp_path: Path) -> None:
    whole = objective()
    run(whole)
    broken = objective()
    denoise, calls = broken.model.denoise, []

    def interrupted(*args: Any) -> Any:
        calls.append(1)
        if len(calls) == 6:
            raise Cancelled
        return denoise(*args)

    broken.model.denoise = interrupted
    folder = CheckpointFolder(tmp_path / "run")
    with pytest.raises(Cancelled):
        run(broken, folder)
    resumed = objective()
    assert run(resumed, folder).resumed_at == 5
    assert torch.equal(resumed.coefficients.flat, whole.coefficients.flat)


def test_train_restart_ignores_the_checkpoint(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path / "run")
    run(objective(), folder, should_stop=iter([False, False, True]).__next__)
    task = objective(TrainingOptions(resume="restart"))
    assert run(task, folder).resumed_at == 0


def test_train_damaged_checkpoint_starts_anew_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = CheckpointFolder(tmp_path / "run")
    folder.path.mkdir()
    folder.state_file.write_bytes(b"not a checkpoint")
    assert run(objective(), folder).resumed_at == 0
    assert "started anew" in caplog.text


def test_train_stop_request_keeps_what_was_learned(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path / "run")
    task = objective()
    record = run(task, folder, should_stop=iter([False] * 5 + [True]).__next__)
    assert record.step == 5 and record.stopped == "stopped after step 5 on request"
    assert float((task.coefficients.flat.detach() - 1).abs().max()) > 0.01
    assert folder.state_file.exists()


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("MPS backend out of memory")],
)
def test_train_out_of_memory_goes_on_in_low_memory_with_the_same_result(error: Exception) -> None:
    whole = objective()
    run(whole)
    task = objective()
    denoise, freed = task.model.denoise, []

    def small_card(x: torch.Tensor, *args: Any) -> torch.Tensor:
        if len(x) > 1:
            raise error
        return denoise(x, *args)

    task.model.denoise = small_card
    record = run(task, free_memory=lambda: freed.append(task.low_memory))
    assert record.step == STEPS and "memory=low" in record.notes[0] and freed == [False]
    torch.testing.assert_close(task.coefficients.flat, whole.coefficients.flat)


@pytest.mark.parametrize("at", [1, 5])
def test_train_without_memory_for_an_update_goes_on_with_less_or_stops_with_advice(
    at: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The first update allocates the optimiser's state; later ones are not taken twice."""
    whole, calls, update = objective(), [], torch.optim.Adam.step
    run(whole)

    def short_of_memory(self: torch.optim.Adam, *args: Any) -> Any:
        calls.append(1)
        if len(calls) == at:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return update(self, *args)

    monkeypatch.setattr(torch.optim.Adam, "step", short_of_memory)
    task, folder = objective(), CheckpointFolder(tmp_path / "run")
    if at == 1:
        record = run(task, folder)
        assert record.step == STEPS and "memory=low" in record.notes[0]
        torch.testing.assert_close(task.coefficients.flat, whole.coefficients.flat)
        return
    with pytest.raises(ZipLoRAError, match=f"memory: found none left at step {at}"):
        run(task, folder)
    assert (folder.path / "state.safetensors").exists()


@pytest.mark.parametrize("every", [0, 2])
def test_train_failing_within_an_update_resumes_from_before_it_or_says_that_it_cannot(
    every: int, tmp_path: Path
) -> None:
    """Some parameters are of the next step by then, so there is no exact state of this one."""
    whole, updates = objective(), []
    run(whole)

    def fails(*_args: Any) -> None:
        updates.append(1)
        if len(updates) == 6:
            raise RuntimeError("CUDA error: unspecified launch failure")

    folder = CheckpointFolder(tmp_path / "run")
    broken = objective(TrainingOptions(checkpoint_every=every))
    hook = register_optimizer_step_post_hook(fails)
    try:
        with pytest.raises(RuntimeError, match="unspecified"):
            run(broken, folder)
    finally:
        hook.remove()
    assert folder.lora_file.exists()
    resumed = objective()
    record = run(resumed, folder)
    said = [note for note in record.notes if "the update of step 6 failed halfway" in note]
    if every:
        assert record.resumed_at in (2, 4)
        assert torch.equal(resumed.coefficients.flat, whole.coefficients.flat)
    else:
        assert record.resumed_at == 5 and said and said[0].startswith("WARNING")


def test_train_without_memory_after_the_first_update_takes_it_once() -> None:
    whole, updates = objective(), []
    run(whole)

    def short_of_memory(*_args: Any) -> None:
        updates.append(1)
        if len(updates) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")

    task = objective()
    hook = register_optimizer_step_post_hook(short_of_memory)
    try:
        record = run(task)
    finally:
        hook.remove()
    assert record.step == STEPS and "memory=low" in record.notes[0]
    torch.testing.assert_close(task.coefficients.flat, whole.coefficients.flat)


def test_checkpoint_without_memory_on_the_computer_costs_nothing_else(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(*_args: Any) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9")

    monkeypatch.setattr(CheckpointFolder, "save", full)
    asked: list[int] = []
    record = run(
        objective(), CheckpointFolder(tmp_path / "run"),
        should_stop=lambda: asked.append(1) or len(asked) > 3,
    )  # fmt: skip
    assert record.step == 3 and "no checkpoint at step 3" in record.notes[0]


def test_train_resumed_after_running_out_of_memory_stays_in_low_memory_bit_identical(
    tmp_path: Path,
) -> None:
    def small_card(task: ZipLoRAObjective) -> ZipLoRAObjective:
        denoise, calls = task.model.denoise, []

        def short_of_memory(x: torch.Tensor, *args: Any) -> torch.Tensor:
            calls.append(1)
            if len(calls) == 4:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return denoise(x, *args)

        task.model.denoise = short_of_memory
        return task

    def cancel(record: TrainingRecord) -> None:
        if record.step == 6:
            raise Cancelled

    whole, folder = small_card(objective()), CheckpointFolder(tmp_path / "run")
    run(whole)
    with pytest.raises(Cancelled):
        run(small_card(objective()), folder, on_step=cancel)
    resumed = objective()
    record = run(resumed, folder)
    assert resumed.low_memory and "memory=low" in record.notes[0]
    assert torch.equal(resumed.coefficients.flat, whole.coefficients.flat)


def test_train_cancelled_at_the_end_keeps_all_steps(tmp_path: Path) -> None:
    def cancel(_record: TrainingRecord) -> None:
        raise Cancelled

    folder = CheckpointFolder(tmp_path / "run")
    with pytest.raises(Cancelled):
        run(objective(), folder, on_end=cancel)
    assert run(objective(), folder).resumed_at == STEPS


def test_train_failing_after_the_last_step_keeps_all_steps(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path / "run")
    record = run(objective(TrainingOptions(checkpoint_every=0)), folder)
    assert record.step == STEPS and folder.state_file.exists()  # until the result is out
    before = folder.state_file.stat().st_mtime_ns
    assert run(objective(), folder).resumed_at == STEPS
    assert folder.state_file.stat().st_mtime_ns == before  # not written again


def test_train_rolled_back_and_cancelled_at_the_end_comes_back_rolled_back(tmp_path: Path) -> None:
    def explodes(task: ZipLoRAObjective) -> ZipLoRAObjective:
        denoise, calls = task.model.denoise, []

        def denoised(*args: Any) -> torch.Tensor:
            calls.append(1)
            return denoise(*args) * (float("nan") if len(calls) == 12 else 1.0)

        task.model.denoise = denoised
        return task

    def cancel(_record: TrainingRecord) -> None:
        raise Cancelled

    folder, task = CheckpointFolder(tmp_path / "run"), explodes(objective())
    with pytest.raises(Cancelled):
        run(task, folder, on_end=cancel)
    resumed = objective()
    record = run(resumed, folder)
    assert record.failed and record.resumed_at == record.step == 10
    assert "this is the state of step 10" in (record.stopped or "")
    assert torch.equal(resumed.coefficients.flat, task.coefficients.flat)


@pytest.mark.parametrize("broken", ["save", "save_lora"])
def test_train_cut_short_says_why_even_where_it_cannot_be_kept(
    broken: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fails(*_args: Any) -> None:
        raise RuntimeError("CUDA error: unspecified launch failure")

    def cancel(record: TrainingRecord) -> None:
        if record.step == 2:
            raise Cancelled

    monkeypatch.setattr(CheckpointFolder, broken, fails)
    with pytest.raises(Cancelled):
        run(objective(), CheckpointFolder(tmp_path / "run"), on_step=cancel)
    assert "unspecified launch failure" in caplog.text


def test_train_without_memory_for_a_checkpoint_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_args: Any) -> None:
        raise MemoryError("a gigabyte")

    monkeypatch.setattr(CheckpointFolder, "save", fails)
    options = TrainingOptions(checkpoint_every=STEPS - 1)
    record = run(objective(options), CheckpointFolder(tmp_path / "run"))
    assert record.notes[0] == f"no checkpoint at step {STEPS - 1}: a gigabyte"
    assert record.step == STEPS


def test_train_checkpoint_of_another_program_is_set_aside(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path / "run")
    folder.path.mkdir()
    torch.save({"weights": 1}, folder.state_file)
    assert run(objective(), folder).resumed_at == 0
    assert (folder.path / "state.set_aside").exists()


def test_train_out_of_memory_in_low_memory_is_an_error_that_says_what_to_do() -> None:
    task = objective()
    task.save_memory()

    def no_memory(*args: Any) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    task.model.denoise = no_memory
    with pytest.raises(ZipLoRAError, match=r"none left at step 1, in memory=low.*smaller latents"):
        run(task)


def test_train_not_finite_returns_the_last_good_state() -> None:
    task = objective()
    denoise, seen = task.model.denoise, []

    def explodes(*args: Any) -> torch.Tensor:
        seen.append(task.coefficients.flat.detach().clone())
        return denoise(*args) * (float("nan") if len(seen) == 12 else 1.0)

    task.model.denoise = explodes
    record = run(task)
    assert record.failed and record.step == 10 == len(record.history["loss"])
    assert "not finite at step 12: this is the state of step 10" in (record.stopped or "")
    assert torch.equal(task.coefficients.flat, seen[10])


def test_train_not_finite_before_there_is_a_good_state_is_an_error() -> None:
    task = objective()
    denoise = task.model.denoise
    task.model.denoise = lambda *inputs: denoise(*inputs) * float("inf")
    with pytest.raises(ZipLoRAError, match=r"training: found the loss was not finite at step 1,"):
        run(task)


def test_train_not_finite_at_once_returns_a_start_that_counts() -> None:
    task = objective()
    denoise, start = task.model.denoise, task.coefficients.flat.detach().clone()
    task.model.denoise = lambda *inputs: denoise(*inputs) * float("inf")
    record = run(task, start_counts=True)
    assert record.step == 0 and record.failed and "lower the learning rate" in str(record.stopped)
    assert torch.equal(task.coefficients.flat.detach(), start)


def test_train_diverging_returns_the_state_before_it_and_names_the_cause() -> None:
    task = objective()
    denoise, seen = task.model.denoise, []

    def grows(*args: Any) -> torch.Tensor:
        seen.append(task.coefficients.flat.detach().clone())
        return denoise(*args) * (100.0 if len(seen) > 23 else 1.0)

    task.model.denoise = grows
    record = train(task, 40, task.options, LoopCallbacks(export=dict))
    assert record.failed and record.step == 10
    assert "diverged by step 30" in (record.stopped or "")
    assert "lower the learning rate" in (record.stopped or "")
    assert torch.equal(task.coefficients.flat, seen[10])


def test_train_full_disk_goes_on_and_reports_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    folder = CheckpointFolder(tmp_path / "file" / "run")  # mkdir fails: not a directory
    record = run(objective(TrainingOptions(checkpoint_every=4)), folder)
    assert record.step == STEPS
    assert [note.split(":")[0] for note in record.notes] == [
        "no checkpoint at step 4",
        "no checkpoint at step 8",
        f"no checkpoint at step {STEPS}",
    ]


def test_train_stops_when_the_coefficients_are_orthogonal() -> None:
    task = objective()
    with torch.no_grad():
        for column in task.coefficients.by_module().values():
            column[0, :2] = column[1, 2:] = 0.0
    task.settings = replace(task.settings, learning_rate=0.0)
    record = train(task, STEPS, task.options, LoopCallbacks(export=dict))
    assert record.step == 10 and "orthogonal" in (record.stopped or "")
    task = objective(replace(TrainingOptions(), early_stop=False))
    assert run(task).stopped is None
