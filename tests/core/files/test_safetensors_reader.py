"""The safetensors container: every damaged file fails with our message before a tensor is read."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from ziplora_core.errors import ZipLoRAError
from ziplora_core.files import read_lora, safetensors_reader

DOWN, UP = "lora_unet_a.lora_down.weight", "lora_unet_a.lora_up.weight"


def entry(begin: int, end: int, shape: Any = (2, 3), dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


GOOD = {DOWN: entry(0, 24), UP: entry(24, 48, (3, 2))}
DATA = b"\0\0\x80\x3f" * 12


def packed(fields: dict[str, Any] | str, data: bytes = DATA, length: int | None = None) -> bytes:
    """Put a header and data together; `length` overrides the length the file claims."""
    text = (fields if isinstance(fields, str) else json.dumps(fields)).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def read(tmp_path: Path, content: bytes) -> Any:
    path = tmp_path / "style.safetensors"
    path.write_bytes(content)
    return read_lora(path)


BROKEN = {
    "empty": (b"", "found an empty file"),
    "short": (b"1234567", "does not begin with a safetensors header"),
    "no_header": (struct.pack("<Q", 0), "does not begin with a safetensors header"),
    "zip": (b"PK\x03\x04\x14\0\0\0\x08\x08" * 9, "a zip archive, probably a PyTorch file renamed"),
    "pickle": (b"\x80\x02}q\0(X\x01\0\0\0a" * 9, "a Python pickle"),
    "web_page": (b"<!DOCTYPE html><html>", "a web page"),
    "lfs_pointer": (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
    "leading_blank": (packed(" " + json.dumps(GOOD)), "JSON header beginning with {"),
    "array": (packed("[]"), "JSON header beginning with {"),
    "huge_header": (packed(GOOD, length=33 << 20), "a header of 34603008 bytes"),
    "header_beyond_file": (packed(GOOD, b"", 4000), "it is cut off"),
    "bad_json": (packed('{"a": '), "a damaged header"),
    "bad_utf8": (struct.pack("<Q", 3) + b"{\xff}" + DATA, "a damaged header"),
    "half_a_character": (packed('{"\\ud800": 1}'), "a damaged header"),
    "deep_json": (packed('{"a":' + "[" * 100_000), "a damaged header"),
    "no_tensors": (packed({}, b""), "0 tensors"),
    "only_metadata": (packed({"__metadata__": {"a": "b"}}, b""), "0 tensors"),
    "numbers_in_metadata": (packed({**GOOD, "__metadata__": {"a": 1}}), "__metadata__"),
    "not_an_entry": (packed({**GOOD, DOWN: 7}), f"key {DOWN}: found no valid shape"),
    "no_offsets": (packed({DOWN: {"dtype": "F32", "shape": [2, 3]}}), "no valid shape or data_off"),
    "negative": (packed({DOWN: entry(0, 24, (-2, -3))}), "no valid shape"),
    "fractional": (packed({DOWN: entry(0, 24, (2.0, 3))}), "no valid shape"),
    "too_many_axes": (packed({DOWN: entry(0, 4, [1] * 70)}), "no valid shape"),
    "overflow": (packed({DOWN: entry(0, 24, (2**62, 2**62))}), "found 24 bytes, expected 850705"),
    "endless_number": (packed({DOWN: entry(0, 24, (10**4000,))}), "no valid shape"),
    "lying_size": (packed({**GOOD, UP: entry(24, 44, (3, 2))}), f"key {UP}: found 20 bytes"),
    "late_start": (packed({DOWN: entry(4, 28)}), "data at byte 4, expected data at byte 0"),
    "hole": (packed({DOWN: entry(0, 24), UP: entry(28, 52)}), "data at byte 28"),
    "overlap": (packed({DOWN: entry(0, 24), UP: entry(20, 44)}), "data at byte 20"),
    "shared": (packed({DOWN: entry(0, 24), UP: entry(0, 24)}), "data at byte 0"),
    "truncated": (packed(GOOD, DATA[:40]), "found 40 bytes of data, expected 48"),
    "trailing": (packed(GOOD, DATA + b"x"), "found 49 bytes of data, expected 48"),
    "twice": (packed(json.dumps(GOOD)[:-1] + f',"{UP}":0}}'), f"the name {UP} occurs twice"),
    "complex": (packed({DOWN: entry(0, 48, dtype="C64")}), "the number type C64"),
    "four_bits": (packed({DOWN: entry(0, 3, dtype="F4")}, b"123"), "the number type F4"),
    "no_type": (packed({DOWN: entry(0, 48, dtype=[1])}), r"the number type \[1\]"),
    "whole_numbers": (
        packed({**GOOD, UP: entry(24, 48, (3, 2), "I32")}),
        "numbers of type torch.i",
    ),
    "empty_tensor": (
        packed({**GOOD, DOWN: entry(0, 0, (0, 3)), UP: entry(0, 48, (3, 4))}),
        "empty",
    ),
}


@pytest.mark.parametrize(("content", "message"), BROKEN.values(), ids=BROKEN)
def test_read_lora_damaged_container_names_what_is_wrong(
    tmp_path: Path, content: bytes, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_tensor(*_args: object, **_kwargs: object) -> None:
        raise AssertionError("a tensor was built")

    monkeypatch.setattr(safetensors_reader.torch, "frombuffer", no_tensor)
    with pytest.raises(ZipLoRAError, match=message) as raised:
        read(tmp_path, content)
    assert str(raised.value).startswith("style.safetensors")


def test_read_lora_too_many_tensors_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(safetensors_reader, "MAX_TENSORS", 1)
    with pytest.raises(ZipLoRAError, match="found 2 tensors, expected 1 to 1 tensors"):
        read(tmp_path, packed(GOOD))


def test_read_lora_too_large_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(safetensors_reader, "MAX_FILE_BYTES", 100)
    with pytest.raises(ZipLoRAError, match="a file of 2"):
        read(tmp_path, packed(GOOD))


def test_read_lora_harmless_oddities_are_accepted(tmp_path: Path) -> None:
    """No padding, a null for metadata, fields of other programs, another order, unaligned data."""
    swapped = {UP: {**entry(25, 49, (3, 2)), "note": 1}, "__metadata__": None}
    extra = {
        "_aux.step": entry(24, 25, (), "U8"),
        DOWN: entry(0, 24),
        "_aux.none": entry(0, 0, [0]),
    }
    lora = read(tmp_path, packed({**swapped, **extra}, DATA[:24] + b"\7" + DATA[24:]))
    factors = lora.modules["lora_unet_a"]
    assert torch.equal(factors.down, torch.ones(2, 3)) and torch.equal(factors.up, torch.ones(3, 2))
    assert "2 tensors left out: _aux.none, _aux.step" in lora.notes


@pytest.mark.parametrize(
    "dtype", ["float64", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"]
)
def test_read_lora_every_float_type_becomes_float32(tmp_path: Path, dtype: str) -> None:
    values = torch.tensor([[1.0, -0.5, 2.0], [0.25, 3.0, -1.5]])
    tensors = {DOWN: values.to(getattr(torch, dtype)), UP: values.T.contiguous()}
    content = safetensors.torch.save(tensors, {"ss_v2": "False"})
    lora = read(tmp_path, content)
    assert torch.equal(lora.modules["lora_unet_a"].down, values)
    assert lora.modules["lora_unet_a"].down.dtype == torch.float32
    assert lora.metadata == {"ss_v2": "False"}
    assert lora.sha256 == hashlib.sha256(content).hexdigest()


def test_read_lora_leaves_the_file_as_it_was_and_free_to_replace(tmp_path: Path) -> None:
    content = packed(GOOD)
    lora = read(tmp_path, content)
    path = tmp_path / "style.safetensors"
    assert path.read_bytes() == content
    path.write_bytes(b"x")  # a mapped file would change the factors, or crash
    assert lora.modules["lora_unet_a"].up.sum() == 6
    path.unlink()
