"""A training that has ended stays in its checkpoint until a node has saved its whole result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import folder_paths
import pytest
import safetensors
import torch
from torch import Tensor

from .training_nodes import EACH, STEPS, Trained, Trainer, pack_module

DTYPE = {"dtype": "fp32"}


def execute(module: str, node_id: str, **inputs: Any) -> Any:
    return getattr(pack_module(f"nodes.{module}"), node_id).execute(**inputs)


def save(lora: Any, prefix: str = "mine") -> Path:
    """Save with Save Trained LoRA; return the file."""
    output = execute("files.save", "SaveTrainedLoRA", lora=lora, filename_prefix=prefix, **DTYPE)
    return Path(folder_paths.get_output_directory(), "loras", output.args[0])


def equal(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


def save_merge(found: Trained, rank: int = 0) -> None:
    merged = found.output.args[0]
    execute(
        "files.save", "SaveMergedLoRA", merged=merged, filename_prefix="merge", rank=rank, **DTYPE
    )


@pytest.mark.parametrize("trainer", EACH, indirect=True)
def test_state_stays_until_everything_is_saved_and_no_file_says_where_it_was(
    trainer: Trainer,
) -> None:
    found = trainer.run(saved=False)
    (kept,) = trainer.checkpoints()
    place = f"checkpoints/{kept.name}"
    assert f"state kept until it is saved or exported: {place}" in found.report
    assert (kept / "state.safetensors").exists()
    again = trainer.run(saved=False)
    assert f"resumed at {STEPS}" in again.report and place in again.report
    run = pack_module("ziplora_core.training.registry").find("7")
    assert run.snapshot()["points"]["step"] == [1, 2]  # the page shows them again
    for lora in again.loras:
        assert trainer.checkpoints() == [kept]
        with safetensors.safe_open(save(lora), "pt") as file:
            assert not any(kept.name in text for text in file.metadata().values())
    assert trainer.checkpoints() == []
    save(found.loras[0])  # from the cache, when the state is gone


@pytest.mark.parametrize("trainer", ["closed_form"], indirect=True)
def test_solution_of_the_closed_form_stays_until_it_is_saved_and_is_not_solved_again(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = trainer.run(saved=False)
    (kept,) = trainer.checkpoints()
    solve = trainer.session.solve_on_model
    monkeypatch.delattr(trainer.session, "solve_on_model")
    again = trainer.run(saved=False)
    monkeypatch.setattr(trainer.session, "solve_on_model", solve, raising=False)
    first = next(line for line in again.report.splitlines() if not line.startswith("WARNING"))
    assert first == f"Already learned: the merge was taken from {kept.name}"
    assert all(map(equal, found.loras, again.loras))
    run = pack_module("ziplora_core.training.registry").find("7")
    assert len(run.errors) == 2  # the page shows them again
    data = bytearray((kept / "state.safetensors").read_bytes())
    data[-40] ^= 1
    (kept / "state.safetensors").write_bytes(data)
    anew = trainer.run(saved=False)
    assert anew.report.startswith(f"WARNING: the checkpoint {kept.name}/state.safetensors was not")
    assert all(map(equal, found.loras, anew.loras))
    save_merge(anew)
    assert trainer.checkpoints() == []


@pytest.mark.parametrize("trainer", ["merge", "unzip"], indirect=True)
def test_merge_counts_when_it_is_saved_exactly_and_not_at_a_lower_rank(trainer: Trainer) -> None:
    found = trainer.run(saved=False)
    save_merge(found, rank=1)
    assert len(trainer.checkpoints()) == 1
    save_merge(found)
    assert trainer.checkpoints() == []


@pytest.mark.parametrize("trainer", ["dreambooth"], indirect=True)
def test_smaller_lora_does_not_count_and_an_exported_one_does(trainer: Trainer) -> None:
    (lora,) = trainer.run(saved=False).loras
    settings = {"rank": 1, "method": "rank", "threshold": 0.9}
    save(execute("merging.resize_extract", "ResizeLoRA", lora=lora, **settings).args[0])
    assert len(trainer.checkpoints()) == 1
    execute("files.convert", "ExportLoRA", lora=lora, filename_prefix="out", format="peft", **DTYPE)
    assert trainer.checkpoints() == []


@pytest.mark.parametrize("trainer", ["dreambooth"], indirect=True)
def test_save_that_fails_leaves_the_state(trainer: Trainer) -> None:
    found = trainer.run(saved=False)
    loras = Path(folder_paths.get_output_directory(), "loras")
    loras.write_text("in the way")  # as a full disk: nothing can be written there
    with pytest.raises(pack_module("ziplora_core.errors").ZipLoRAError):
        save(found.loras[0])
    assert len(trainer.checkpoints()) == 1
    loras.unlink()
    assert save(found.loras[0]).exists() and trainer.checkpoints() == []


@pytest.mark.parametrize("trainer", ["dreambooth"], indirect=True)
def test_damaged_state_is_named_on_top_of_the_report_and_the_training_starts_anew(
    trainer: Trainer,
) -> None:
    whole = trainer.run(saved=False)
    (kept,) = trainer.checkpoints()
    state = kept / "state.safetensors"
    data = bytearray(state.read_bytes())
    data[-1000] ^= 1
    state.write_bytes(data)
    again = trainer.run(saved=False)
    assert again.report.startswith(
        f"WARNING: the checkpoint {kept.name}/state.safetensors was not resumed: it is damaged"
    )
    assert "resumed at" not in again.report and (kept / "state.set_aside").exists()
    assert all(map(equal, whole.loras, again.loras))
