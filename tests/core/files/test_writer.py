"""The file writer: kohya layout, one alpha, hashes, determinism, atomic and never overwriting."""

from __future__ import annotations

import hashlib
import json
import os
import re
import resource
import struct
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import safetensors.torch
import torch

from ziplora_core.errors import ZipLoRAError
from ziplora_core.files import read_lora, writer
from ziplora_core.files.atomic import Part, write_bytes
from ziplora_core.files.compare import relative_error
from ziplora_core.files.merge_file import merged_from_lora, merged_metadata
from ziplora_core.files.metadata import (
    lora_metadata,
    pack_ranks,
    source_metadata,
    trigger_words,
    unpack_ranks,
)
from ziplora_core.files.writer import kohya_tensors, lora_bytes, write_lora
from ziplora_core.lora.factors import LoRA, LoraFactors
from ziplora_core.lora.merged import MergedLoRA
from ziplora_core.lora.pair import ModulePair

from ..lora.factors import random_factors

Q = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q"
K = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_k"
CONV = "lora_unet_input_blocks_4_0_in_layers_2"
TEXT = "lora_te1_text_model_encoder_layers_0_self_attn_q_proj"
KEY = re.compile(
    r"^lora_(unet_(input_blocks|middle_block|output_blocks|time_embed|label_emb|out)_"
    r"|te[12]_text_(model|projection)).*\.(lora_(down|up)\.weight|alpha)$"
)
ROOT = Path(__file__).resolve().parents[3]


def modules() -> dict[str, LoraFactors]:
    """Unequal ranks and alphas, a negative one, a missing one, a convolution, a text encoder."""
    return {
        Q: random_factors(4, 16, 12, alpha=1.0, seed=1),
        K: random_factors(4, 16, 12, alpha=-8.0, seed=2),
        CONV: random_factors(6, 8, 10, kernel=3, alpha=6.0, seed=3),
        TEXT: random_factors(3, 16, 16, alpha=None, seed=4),
    }


def header(data: bytes) -> dict[str, object]:
    (size,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + size])


def test_kohya_tensors_have_one_alpha_and_the_same_updates() -> None:
    tensors = kohya_tensors(modules())
    assert all(KEY.match(key) for key in tensors) and len(tensors) == 12
    alphas = {float(t) for k, t in tensors.items() if k.endswith("alpha")}
    assert alphas == {4.0}
    assert all(t.ndim == 0 and t.dtype == torch.float32
               for k, t in tensors.items() if k.endswith("alpha"))  # fmt: skip
    for name, factors in modules().items():
        down, up = tensors[f"{name}.lora_down.weight"], tensors[f"{name}.lora_up.weight"]
        got = LoraFactors(down, up, 4.0)
        torch.testing.assert_close(got.delta(), factors.delta(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("dtype", "limit"), [("fp32", 1e-6), ("fp16", 1e-3), ("bf16", 8e-3)])
def test_write_lora_reads_back_with_the_error_it_reports(
    dtype: str, limit: float, tmp_path: Path
) -> None:
    written = write_lora(tmp_path / "a.safetensors", modules(), {"ss_v2": "False"}, dtype)
    back = read_lora(written.path)
    errors = []
    for name, factors in modules().items():
        delta = factors.delta()
        errors.append(float((back.modules[name].delta() - delta).norm() / delta.norm()))
    assert max(errors) <= limit and written.error == pytest.approx(max(errors), abs=1e-6)
    assert written.sha256 == hashlib.sha256(written.path.read_bytes()).hexdigest()


def test_write_lora_bytes_do_not_depend_on_the_process(tmp_path: Path) -> None:
    program = f"""
import sys; sys.path.append({str(ROOT)!r})
import torch
from ziplora_core.files.writer import lora_bytes
from ziplora_core.lora.factors import *
import hashlib
metadata = {{f"ss_{{i}}": str(i) for i in range(30)}}
data = lora_bytes({{"{Q}": LoraFactors(torch.ones(2, 4), torch.ones(3, 2))}}, metadata)
print(hashlib.sha256(data).hexdigest())
"""
    digests = {
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        ).stdout
        for _ in range(3)
    }
    assert len(digests) == 1


def test_lora_bytes_hashes_are_over_the_tensors_of_the_file() -> None:
    big = {Q: LoraFactors(torch.randn(300, 600), torch.randn(600, 300))}
    extra = lora_bytes(big, {"ss_v2": "False", "ziplora.note": "x" * 50})
    plain = lora_bytes(big, {"ss_v2": "False"})
    for data in (extra, plain):
        said = header(data)["__metadata__"]
        assert isinstance(said, dict)
        (size,) = struct.unpack("<Q", data[:8])
        digest = hashlib.sha256(data[8 + size :]).hexdigest()
        assert said["sshs_model_hash"] == digest
        assert said["modelspec.hash_sha256"] == f"0x{digest}"
    tensors = kohya_tensors(big)
    reference = safetensors.torch.save(tensors, {"ss_v2": "False"})
    legacy = hashlib.sha256(reference[0x100000:0x110000]).hexdigest()[:8]
    assert {header(d)["__metadata__"]["sshs_legacy_hash"] for d in (extra, plain)} == {legacy}


def test_lora_bytes_header_is_what_every_reader_wants() -> None:
    metadata = lora_metadata(modules(), title="t", description="d")
    data = lora_bytes(modules(), metadata)
    assert data[8:10] == b'{"' and struct.unpack("<Q", data[:8])[0] < 2**20
    said = header(data)["__metadata__"]
    assert isinstance(said, dict) and all(isinstance(v, str) for v in said.values())
    assert said["ss_base_model_version"].startswith("sdxl")
    assert said["ss_network_dim"] == "Dynamic" and said["ss_network_alpha"] == "4"
    assert json.loads(said["ss_network_args"]) == {"conv_dim": "6", "conv_alpha": "4"}
    assert "lora_adapter_metadata" not in said
    loaded = safetensors.torch.load(data)
    assert set(loaded) == set(kohya_tensors(modules()))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_lora_bytes_not_finite_is_refused_by_key(bad: float) -> None:
    factors = random_factors(2)
    factors.up[0, 0] = bad
    with pytest.raises(ZipLoRAError, match=rf"{Q}.lora_up.weight: found NaN or infinity"):
        lora_bytes({Q: factors}, {})


def test_lora_bytes_overflow_of_half_precision_is_refused_with_advice() -> None:
    factors = LoraFactors(torch.ones(1, 2), torch.full((2, 1), 1e6))
    with pytest.raises(ZipLoRAError, match=r"in torch.float16.*fp32 or bf16"):
        lora_bytes({Q: factors}, {}, torch.float16)


@pytest.mark.parametrize("size", [1e-5, 1e-7])
@pytest.mark.parametrize("of_up", [True, False])
def test_write_lora_of_a_layer_that_has_hardly_learned_keeps_its_digits(
    size: float, of_up: bool, tmp_path: Path
) -> None:
    plain = random_factors(4, 40, 30)
    down, up = plain.down * (1 if of_up else size), plain.up * (size if of_up else 1)
    modules = {Q: LoraFactors(down, up)}
    written = write_lora(tmp_path / "x.safetensors", modules, {}, "fp16")
    assert written.error < 2e-3
    got = read_lora(written.path).modules[Q]
    torch.testing.assert_close(got.delta(), modules[Q].delta(), rtol=2e-2, atol=1e-3 * size)


@pytest.mark.parametrize("kernel", [0, 3])
@pytest.mark.parametrize("of_up", [True, False, None])
def test_write_lora_with_one_half_outside_half_precision_keeps_an_ordinary_update(
    of_up: bool | None, kernel: int, tmp_path: Path
) -> None:
    """In the third case every other rank has its large numbers in the other half."""
    plain = random_factors(4, 40, 30, kernel)
    large = torch.full((4,), 1e7) if of_up is not None else torch.tensor([1e7, 1e-7, 1e7, 1e-7])
    large = large if of_up is not False else 1 / large
    factors = LoraFactors(
        plain.down / large.view(-1, *(1,) * (plain.down.ndim - 1)),
        plain.up * large.view(1, -1, *(1,) * (plain.up.ndim - 2)),
    )
    written = write_lora(tmp_path / "x.safetensors", {Q: factors}, {}, "fp16")
    stored = safetensors.torch.load_file(written.path)
    up, down = (stored[f"{Q}.lora_{half}.weight"].flatten(1) for half in ("up", "down"))
    got = (up.double() @ down.double()).reshape(plain.delta().shape).float()
    assert up.dtype == torch.float16
    torch.testing.assert_close(got, plain.delta(), rtol=1e-2, atol=1e-2)


def test_write_lora_that_rounds_to_nothing_is_refused_and_removed(tmp_path: Path) -> None:
    factors = LoraFactors(torch.full((1, 4), 1e-9), torch.full((4, 1), 1e-9))
    with pytest.raises(ZipLoRAError, match=r"found a relative error of .*Save with dtype fp32"):
        write_lora(tmp_path / "a.safetensors", {Q: factors}, {}, "fp16")
    assert os.listdir(tmp_path) == []
    assert write_lora(tmp_path / "a.safetensors", {Q: factors}, {}, "fp32").error < 1e-6


def off_by(share: float, path: Path, *parts: Part, **kwargs: bool) -> None:
    """Write a file whose first down factor lost a share of its last number."""
    header, *body = parts
    place = next(i for i, part in enumerate(body) if len(part) > 4)
    numbers = torch.frombuffer(bytearray(body[place]), dtype=torch.float16).clone()
    numbers[-1] *= 1 - share
    body[place] = memoryview(numbers.view(torch.uint8).numpy())
    write_bytes(path, header, *body, **kwargs)


@pytest.mark.parametrize(
    ("share", "found"), [(0.5, r"module .*found a relative error of"), (float("nan"), "found NaN")]
)
def test_write_lora_file_that_reads_back_otherwise_is_refused_and_removed(
    share: float, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "write_bytes", partial(off_by, share))
    with pytest.raises(ZipLoRAError, match=found):
        write_lora(tmp_path / "a.safetensors", modules(), {}, "fp16")
    assert os.listdir(tmp_path) == []
    monkeypatch.setattr(writer, "write_bytes", partial(off_by, 1e-3))
    assert write_lora(tmp_path / "a.safetensors", modules(), {}, "fp16").path.exists()


def test_file_parts_are_laid_out_as_safetensors_lays_them() -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        tensors = kohya_tensors(modules(), dtype)
        data = lora_bytes(modules(), {"ss_v2": "False"}, dtype)
        said = header(data)["__metadata__"]
        body = 8 + struct.unpack("<Q", data[:8])[0]
        reference = safetensors.torch.save(tensors, said)  # type: ignore[arg-type]
        assert data[body:] == reference[8 + struct.unpack("<Q", reference[:8])[0] :]
        assert header(data) == header(reference)


def test_lora_bytes_unknown_module_name_is_refused() -> None:
    with pytest.raises(ZipLoRAError, match="module lora_unet_down_blocks_0_a: found a name"):
        lora_bytes({"lora_unet_down_blocks_0_a": random_factors(2)}, {})


def test_write_bytes_never_overwrites_and_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_bytes(path, b"first")
    with pytest.raises(FileExistsError):
        write_bytes(path, b"second")
    assert path.read_bytes() == b"first" and os.listdir(tmp_path) == ["a"]
    write_bytes(path, b"third", replace=True)
    assert path.read_bytes() == b"third" and os.listdir(tmp_path) == ["a"]


def test_write_lora_full_disk_says_so_and_leaves_nothing_behind(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(ZipLoRAError, match=r"File too large while writing.*Free some space"):
            write_lora(tmp_path / "a.safetensors", modules(), {}, "fp16")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(tmp_path) == []
    assert write_lora(tmp_path / "a.safetensors", modules(), {}, "fp16").path.exists()


def merged() -> MergedLoRA:
    return MergedLoRA(
        pairs={
            Q: ModulePair(random_factors(4, 16, 12, seed=1), random_factors(3, 16, 12, seed=2)),
            K: ModulePair(random_factors(4, 16, 12, seed=3), None),
            CONV: ModulePair(None, random_factors(2, 8, 10, kernel=3, seed=4)),
        },
        coefficients={Q: torch.randn(2, 16, generator=torch.Generator().manual_seed(5))},
        text_encoder={TEXT: ModulePair(random_factors(3, 16, 16, seed=6), None)},
    )


def test_merged_file_gives_both_halves_back(tmp_path: Path) -> None:
    merge = merged()
    write_lora(tmp_path / "m.safetensors", merge.modules(), merged_metadata(merge), "fp32")
    back = merged_from_lora(read_lora(tmp_path / "m.safetensors"))
    assert back.separable and not back.prompt_separated
    assert set(back.pairs) == {Q, K, CONV} and set(back.text_encoder) == {TEXT}
    for strengths in ((1.0, 1.0), (1.0, 0.0), (0.0, 1.0), (0.3, -2.0)):
        want, got = merge.modules(*strengths), back.modules(*strengths)
        assert set(want) == set(got)
        for name in want:
            assert relative_error(got[name], want[name]) < 1e-6


def test_merged_file_saved_again_still_says_where_it_came_from(tmp_path: Path) -> None:
    source = {"modelspec.merged_from": "a, b", "modelspec.prediction_type": "v",
              "ss_base_model_version": "sdxl_x", "ziplora.method": "ziplora"}  # fmt: skip
    merge = replace(merged(), metadata=source)
    write_lora(tmp_path / "m.safetensors", merge.modules(), merged_metadata(merge), "fp32")
    again = merged_metadata(merged_from_lora(read_lora(tmp_path / "m.safetensors")))
    assert source.items() <= again.items()


def test_merged_from_lora_of_an_ordinary_file_is_refused(tmp_path: Path) -> None:
    write_lora(tmp_path / "m.safetensors", modules(), {}, "fp16")
    with pytest.raises(ZipLoRAError, match=r"m.safetensors: found no record.*Load LoRA"):
        merged_from_lora(read_lora(tmp_path / "m.safetensors"))


def test_merged_from_lora_ranks_that_do_not_fit_are_refused() -> None:
    lora = LoRA("m", {Q: random_factors(4)}, {"ziplora.ranks": '{"default": [1, 1], "others": {}}',
                                              "ziplora.separable": "true"})  # fmt: skip
    with pytest.raises(ZipLoRAError, match="no record of content and style ranks"):
        merged_from_lora(lora)


def test_pack_ranks_round_trip_says_the_common_pair_once() -> None:
    ranks = {"a": (4, 3), "b": (4, 3), "c": (4, 0)}
    assert unpack_ranks(pack_ranks(ranks), ["a", "b", "c"]) == ranks
    assert pack_ranks(ranks).count("4, 3") == 1


def test_source_metadata_names_sources_without_paths() -> None:
    tags = {"ss_base_model_version": "sdxl_base_v1-0",
            "ss_tag_frequency": '{"1_dog": {"sks dog": 4, "grass": 1}}'}  # fmt: skip
    named = {"modelspec.trigger_phrase": "ink style", "modelspec.title": "Ink"}
    content = LoRA("dog.safetensors", {}, tags, sha256="ab")
    style = LoRA("ink.safetensors", {}, named, sha256="cd")
    said = source_metadata(content, style)
    assert said["ss_base_model_version"] == "sdxl_base_v1-0"
    assert said["modelspec.merged_from"] == "dog.safetensors, Ink"
    assert said["modelspec.trigger_phrase"] == "sks dog, grass, ink style"
    assert json.loads(said["ziplora.style"]) == {"name": "ink.safetensors", "sha256": "cd"}


@pytest.mark.parametrize("text", ["not json", "[]", '{"a": 3}', '{"a": {"x": "y"}}', "null"])
def test_trigger_words_of_odd_metadata_are_none(text: str) -> None:
    assert trigger_words({"ss_tag_frequency": text}) == []


def test_lora_bytes_update_beyond_fp16_is_refused_and_fits_bf16() -> None:
    modules = {Q: LoraFactors(torch.full((1, 4), 300.0), torch.full((4, 1), 300.0))}
    with pytest.raises(ZipLoRAError, match=rf"{Q}: found NaN or infinity in torch.float16"):
        lora_bytes(modules, {}, torch.float16)
    assert lora_bytes(modules, {}, torch.bfloat16)


def test_lora_bytes_update_whose_parts_cancel_fits_fp16() -> None:
    down = torch.tensor([[300.0], [300.0]])
    modules = {Q: LoraFactors(down, torch.tensor([[300.0, -300.0]]))}
    assert lora_bytes(modules, {}, torch.float16)
