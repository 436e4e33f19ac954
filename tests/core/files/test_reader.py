"""Files from disk: PyTorch pickles, missing and unreadable files, and what a LoRA remembers."""

from __future__ import annotations

import hashlib
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from ziplora_core.errors import ZipLoRAError
from ziplora_core.files import lora_from_tensors, read_lora
from ziplora_core.lora.factors import LoRA

STEM = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q"


def tensors() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        f"{STEM}.lora_down.weight": torch.randn(4, 640, generator=generator),
        f"{STEM}.lora_up.weight": torch.randn(640, 4, generator=generator),
        f"{STEM}.alpha": torch.tensor(2.0),
    }


def check(lora: LoRA) -> None:
    factors = lora.modules[STEM]
    assert torch.equal(factors.down, tensors()[f"{STEM}.lora_down.weight"])
    assert torch.equal(factors.up, tensors()[f"{STEM}.lora_up.weight"])
    assert factors.alpha == 2.0


def test_read_lora_remembers_name_metadata_and_hash(tmp_path: Path) -> None:
    path = tmp_path / "my style.safetensors"
    safetensors.torch.save_file(tensors(), path, {"ss_network_dim": "4"})
    lora = read_lora(str(path))
    check(lora)
    assert lora.name == "my style.safetensors"
    assert lora.metadata == {"ss_network_dim": "4"}
    assert lora.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_lora_from_tensors_has_no_hash(tmp_path: Path) -> None:
    given = tensors()
    lora = lora_from_tensors(given, {"ss_network_dim": "4"}, name="trained")
    check(lora)
    assert given.keys() == tensors().keys()
    assert (lora.name, lora.sha256, lora.metadata) == ("trained", "", {"ss_network_dim": "4"})


WRAPPINGS: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "flat": lambda content: content,
    "state_dict": lambda content: {"state_dict": content, "epoch": 3, "optimizer": [1]},
    "nested once": lambda content: {"lora": content},
}


@pytest.mark.parametrize("wrap", WRAPPINGS.values(), ids=WRAPPINGS)
@pytest.mark.parametrize("suffix", [".pt", ".PT", ".pth", ".ckpt", ".bin"])
def test_read_lora_pickle_of_tensors_reads(
    tmp_path: Path, wrap: Callable[[dict[str, Tensor]], Any], suffix: str
) -> None:
    path = tmp_path / f"slider{suffix}"
    torch.save(wrap(tensors()), path)
    lora = read_lora(path)
    check(lora)
    assert lora.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


class Payload:
    """A pickle that would create a file when it is loaded."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_read_lora_pickle_with_code_is_refused_and_not_run(tmp_path: Path) -> None:
    target = tmp_path / "ran"
    torch.save({**tensors(), "x": Payload(target)}, tmp_path / "zip.pt")
    (tmp_path / "plain.ckpt").write_bytes(pickle.dumps(Payload(target)))
    for name in ("zip.pt", "plain.ckpt"):
        message = f"{name}: found an unreadable PyTorch file, or one that contains code"
        with pytest.raises(ZipLoRAError, match=message):
            read_lora(tmp_path / name)
    assert not target.exists()


NO_TENSORS: dict[str, tuple[Any, str]] = {
    "list": ([torch.ones(2), torch.ones(2)], "key unet:0:up: found a LoRA of the cloneofsimo"),
    "tensor": (torch.ones(2), "found a Tensor"),
    "text": ({f"{STEM}.alpha": "2"}, f"key {STEM}.alpha: found a str"),
    "number as key": ({7: torch.ones(2), 8: torch.ones(2)}, "key 7: found a Tensor"),
    "deeper": ({"a": {"b": {"c": torch.ones(2)}}, "d": torch.ones(1)}, "key a: found a dict"),
    "sparse": ({"x.alpha": torch.eye(2).to_sparse(), "y": 1}, "key x.alpha: found a tensor that"),
    "embedding": (
        {"string_to_token": {"*": 265}, "string_to_param": {"*": torch.ones(1, 768)}},
        "found a textual inversion embedding",
    ),
    "checkpoint": (
        {"state_dict": {"first_stage_model.x.weight": torch.ones(1)}},
        "found a checkpoint",
    ),
}


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
@pytest.mark.parametrize(("content", "message"), NO_TENSORS.values(), ids=NO_TENSORS)
def test_read_lora_pickle_of_anything_else_is_refused(
    tmp_path: Path, content: Any, message: str
) -> None:
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(ZipLoRAError, match=f"^a.pt.*{message}"):
        read_lora(tmp_path / "a.pt")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("zipped", [True, False])
def test_read_lora_damaged_pickle_never_escapes_with_another_error(
    tmp_path: Path, zipped: bool
) -> None:
    path = tmp_path / "a.pt"
    torch.save({"a": torch.ones(3)}, path, _use_new_zipfile_serialization=zipped)
    content = path.read_bytes()
    draw = random.Random(0)
    for _ in range(150):
        damaged = bytearray(content[: draw.choice((len(content), draw.randrange(len(content))))])
        for _ in range(min(len(damaged), draw.randint(1, 6))):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        path.write_bytes(damaged)
        with pytest.raises(ZipLoRAError):  # the key "a" is no LoRA's either
            read_lora(path)


def test_read_lora_damaged_safetensors_never_escapes_with_another_error(tmp_path: Path) -> None:
    content = safetensors.torch.save(tensors())
    path = tmp_path / "a.safetensors"
    draw = random.Random(0)
    for _ in range(300):
        damaged = bytearray(content[: draw.choice((len(content), draw.randrange(len(content))))])
        for _ in range(min(len(damaged), draw.randint(1, 4))):
            damaged[draw.randrange(min(len(damaged), 400))] = draw.randrange(256)
        path.write_bytes(damaged)
        try:
            lora = read_lora(path)
        except ZipLoRAError as error:
            assert str(error).startswith("a.safetensors")
        else:  # a letter of a name, or a digit of a number, may change unnoticed
            assert len(lora.modules) == 1


def test_read_lora_missing_file_is_named(tmp_path: Path) -> None:
    for name in ("gone.safetensors", "gone.pt"):
        with pytest.raises(ZipLoRAError, match=f"{name}: found No such file or directory"):
            read_lora(tmp_path / name)


@pytest.mark.parametrize("name", ["style.safetensors", "peft_output"])
def test_read_lora_folder_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(ZipLoRAError, match=f"{name}: found a folder"):
        read_lora(tmp_path / name)


def test_read_lora_file_without_permission_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_args: object, **_kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "a.safetensors").write_bytes(b"x")
    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(ZipLoRAError, match=r"a.safetensors: found Permission denied"):
        read_lora(tmp_path / "a.safetensors")


@pytest.mark.parametrize("name", ["a.txt", "a", "a.pkl", "a.gguf"])
def test_read_lora_other_kind_of_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ZipLoRAError, match=f"^{name}: found a file ending"):
        read_lora(tmp_path / name)


def test_read_lora_empty_pickle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(b"")
    with pytest.raises(ZipLoRAError, match="found an empty file"):
        read_lora(tmp_path / "a.pt")


@pytest.mark.parametrize("content", [None, [], "lora", {"a": 1}])
def test_lora_from_tensors_anything_but_tensors_is_refused(content: Any) -> None:
    with pytest.raises(ZipLoRAError, match=r"^LORA_MODEL"):
        lora_from_tensors(content)


def test_lora_from_tensors_nothing_is_refused() -> None:
    with pytest.raises(ZipLoRAError, match="0 tensors, none of them a LoRA's"):
        lora_from_tensors({})
