"""Hostile files: refused by name, before they cost memory or time."""

from __future__ import annotations

import _codecs
import io
import pickle
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ziplora_core.errors import LONGEST, ZipLoRAError, problem, refuse_unknown
from ziplora_core.files import lora_from_tensors, read_lora
from ziplora_core.files.limits import Limits
from ziplora_core.files.merge_file import merged_from_lora
from ziplora_core.files.metadata import trigger_words
from ziplora_core.files.unziplora_mergers import read_mergers
from ziplora_core.lora.factors import LoRA

from . import hostile
from .hostile import DOTTED, Q, lora, save_safetensors

SECONDS = 5


@pytest.fixture(autouse=True)
def answered_in_time() -> object:
    """Fail a test whose work, on this processor alone, takes longer than a person may wait."""
    before = time.process_time()
    yield
    assert time.process_time() - before < SECONDS


@pytest.mark.parametrize(("build", "found"), hostile.TENSORS.values(), ids=hostile.TENSORS)
def test_read_lora_growth_is_found_before_anything_is_multiplied(
    build: Callable[[], dict[str, Tensor]], found: str, tmp_path: Path
) -> None:
    with pytest.raises(ZipLoRAError, match=f"^a.safetensors.*: found {found}"):
        read_lora(save_safetensors(tmp_path / "a.safetensors", build()))


def test_read_lora_product_beside_a_model_keeps_to_its_widths(tmp_path: Path) -> None:
    path = save_safetensors(tmp_path / "a.safetensors", hostile.lokr(80, 80))
    assert read_lora(path).modules[Q].down.shape == (1, 6400)
    with pytest.raises(ZipLoRAError, match="expected at most 5120 features"):
        read_lora(path, targets={"x": (640, 640)})


def test_limits_of_a_model_are_its_widest_layer_and_its_weights() -> None:
    shapes = [(320, 4, 3, 3), (10240, 1280), (1280, 2560, 3, 3), (1280,)]
    assert Limits.of(shapes).widest == 23040
    numbers = 320 * 36 + 10240 * 1280 + 1280 * 23040
    assert Limits.of(shapes).model_bytes == 2 * numbers


PICKLES: dict[str, tuple[Callable[[], dict[str, Tensor]], str]] = {
    "expanded": (hostile.expanded, r"tensors of 400.0 MB in a file of \d"),
    "shared": (hostile.shared, r"tensors of 2.0 GB in a file of 1.\d MB"),
    "meta": (hostile.meta, "a tensor that is quantised, sparse"),
    "nested": (hostile.nested, "a tensor that is quantised, sparse"),
    "quantised": (hostile.quantised, "a tensor that is quantised, sparse"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("build", "found"), PICKLES.values(), ids=PICKLES)
def test_read_lora_tensors_without_numbers_of_their_own_are_refused(
    build: Callable[[], dict[str, Tensor]], found: str, tmp_path: Path
) -> None:
    torch.save(build(), tmp_path / "a.pt")
    with pytest.raises(ZipLoRAError, match=f"^a.pt.*: found {found}"):
        read_lora(tmp_path / "a.pt")


@pytest.mark.parametrize(
    ("save", "found"),
    [
        (hostile.save_deflated, "a compressed archive"),
        (hostile.save_overlapping, r"an archive of \d+ bytes with 1\d{9} bytes in it"),
    ],
)
def test_read_lora_archive_larger_than_its_file_is_refused(
    save: Callable[[Path], None], found: str, tmp_path: Path
) -> None:
    save(tmp_path / "a.pt")
    with pytest.raises(ZipLoRAError, match=f"^a.pt: found {found}"):
        read_lora(tmp_path / "a.pt")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("content", "found"),
    [
        (hostile.Growing(bytearray, 1 << 40), "a call of '__builtin__ bytearray'"),
        (hostile.Growing(_codecs.encode, b"ab", "hex"), "a call of '_codecs encode'"),
        (hostile.colliding(50), "whole numbers that are no sizes"),
    ],
    ids=["bytearray", "codec", "collisions"],
)
def test_read_lora_pickle_that_grows_is_refused_before_it_is_loaded(
    content: object, found: str, zipped: bool, tmp_path: Path
) -> None:
    torch.save({"x": content}, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ZipLoRAError, match=f"^a.pt: found {found}"):
        read_lora(tmp_path / "a.pt")


def test_read_lora_alpha_that_modules_share_is_no_growth(tmp_path: Path) -> None:
    alpha = torch.tensor(1.0)
    names = [hostile.numbered(n) for n in range(4)]
    torch.save({f"{name}{key[len(Q) :]}": tensor for name in names for key, tensor in
                {**lora(), f"{Q}.alpha": alpha}.items()}, tmp_path / "a.pt")  # fmt: skip
    assert len(read_lora(tmp_path / "a.pt").modules) == 4


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("part", ["up", "down"])
def test_read_lora_numbered_scalar_is_refused(part: str, suffix: str, tmp_path: Path) -> None:
    tensors = {"unet:0:up": torch.ones(8, 1), "unet:0:down": torch.ones(1, 768)}
    tensors[f"unet:0:{part}"] = torch.tensor(1.0)
    path = tmp_path / f"a{suffix}"
    torch.save(tensors, path) if suffix == ".pt" else save_safetensors(path, tensors)
    for targets in (None, {"x": (8, 768)}):
        with pytest.raises(ZipLoRAError, match=f"^a{suffix}"):
            read_lora(path, targets=targets)


def test_read_lora_numbered_text_encoder_of_scalars_is_refused(tmp_path: Path) -> None:
    scalar = torch.tensor(1.0)
    tensors = {f"text_encoder:{i}:{half}": scalar for i in range(4) for half in ("up", "down")}
    path = save_safetensors(tmp_path / "a.safetensors", {k: t.clone() for k, t in tensors.items()})
    with pytest.raises(ZipLoRAError, match="four square linears"):
        read_lora(path, targets={"x": (8, 768)})


DEEP = "[" * 100_000 + "]" * 100_000
TAGS = ['{"a":{"x":1e999}}', '{"a":[1]}', DEEP, '{"a":{"x":{}}}', "[[1]]", '{"a":{"x":NaN}}', "1"]


@pytest.mark.parametrize("text", TAGS)
def test_trigger_words_of_odd_tags_are_none_or_the_tag(text: str) -> None:
    assert trigger_words({"ss_tag_frequency": text}) in ([], ["x"])


RANKS = (
    '{"default":[1e999,1],"others":{}}',
    '{"default":[-1,2],"others":{}}',
    '{"default":[0.5,0.5],"others":{}}',
    '{"default":[NaN,1],"others":{}}',
    '{"default":[true,0],"others":{}}',
    '{"default":[1],"others":{}}',
    DEEP,
)


@pytest.mark.parametrize(
    ("key", "text"),
    [
        *(("ziplora.ranks", text) for text in RANKS),
        ("ziplora.separable", DEEP),
        ("ziplora.prompt_separated", DEEP),
    ],
)
def test_merged_from_lora_odd_ranks_are_refused(key: str, text: str) -> None:
    good = {"ziplora.ranks": '{"default":[1,0],"others":{}}', "ziplora.separable": "true"}
    read = lora_from_tensors(lora(), {**good, key: text})
    with pytest.raises(ZipLoRAError, match="no record of content and style ranks"):
        merged_from_lora(read)


MERGERS: dict[str, object] = {
    "no text": {None: torch.ones(8)},
    "number": {7: torch.ones(8)},
    "list": [torch.ones(8)],
    "meta": {f"unet.{DOTTED}.lora.merge_content": torch.ones(8, device="meta")},
    "whole numbers": {f"unet.{DOTTED}.lora.merge_content": torch.ones(8, dtype=torch.int64)},
    "complex": {f"unet.{DOTTED}.lora.merge_content": torch.ones(8, dtype=torch.complex64)},
    "text": {f"unet.{DOTTED}.lora.merge_content": "x"},
}


@pytest.mark.parametrize("content", MERGERS.values(), ids=MERGERS)
def test_read_mergers_of_anything_else_are_refused(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "m.pth")
    with pytest.raises(ZipLoRAError, match=r"^m.pth: found .*Pick the …_merger_content"):
        read_mergers(tmp_path / "m.pth", "content", lora_from_tensors(lora()))


def test_read_mergers_of_a_lora_are_read(tmp_path: Path) -> None:
    torch.save({f"unet.{DOTTED}.lora.merge_content": torch.ones(8).half()}, tmp_path / "m.pth")
    read: LoRA = lora_from_tensors(lora())
    assert torch.equal(read_mergers(tmp_path / "m.pth", "content", read)[Q], torch.ones(8))


def test_read_lora_pickle_of_raw_bytes_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO(pickle.dumps({"a": 1}, protocol=0))
    (tmp_path / "a.pt").write_bytes(buffer.getvalue())
    with pytest.raises(ZipLoRAError, match=r"^a.pt"):
        read_lora(tmp_path / "a.pt")


def test_problem_of_a_long_key_is_cut() -> None:
    text = str(problem("a" * 3_000_000, found="b" * 3_000_000, expected="c", advice="D."))
    assert len(text) < 3 * LONGEST
    assert "2999000 letters left out" in text and text.endswith("b, expected c. D.")


@pytest.mark.parametrize("value", ["KOHYA", "", None, 3])
def test_refuse_unknown_names_the_options(value: object) -> None:
    refuse_unknown("format", "peft", ("kohya", "peft"))
    with pytest.raises(ZipLoRAError, match=r"^format: found .*, expected one of kohya, peft"):
        refuse_unknown("format", value, ("kohya", "peft"))
