"""`GET /ziplora/slider`: how far a slider goes, or a sentence that says why that is not known."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest
import safetensors.torch
import torch

from sandbox.server import ComfyServer

SAYS_NOTHING = "The file does not say how far it was trained to be moved."


def asked(server: ComfyServer, name: str) -> dict[str, object]:
    """Ask for a file; the server's log stays free of tracebacks."""
    before = len(server.log())
    answer = server.get(f"/ziplora/slider?{urlencode({'name': name})}")
    said = server.log()[before:]
    assert "Traceback" not in said and "Error handling request" not in said, said
    return answer


@pytest.fixture
def file(server: ComfyServer) -> Iterator[Path]:
    path = server.models / "loras" / "a_slider.safetensors"
    yield path
    path.unlink()


def slider(said: str | None) -> bytes:
    """A LoRA file that says this of its range."""
    tensors = {"lora_unet_middle_block_1_proj_in.alpha": torch.ones(())}
    return safetensors.torch.save(tensors, None if said is None else {"ziplora.slider": said})


def test_range_of_a_slider_is_what_its_file_says(server: ComfyServer, file: Path) -> None:
    file.write_bytes(slider('{"range": [-3, 2.5], "start_percent": 0.25}'))
    assert asked(server, file.name) == {"range": [-3.0, 2.5], "start_percent": 0.25}


@pytest.mark.parametrize(
    "said",
    [
        None,
        "",
        "{",
        "null",
        "[" * 100_000,
        '{"range": [-2, 2]}',
        '{"range": 2, "start_percent": 0}',
        '{"range": [-2, 0, 2], "start_percent": 0}',
        '{"range": [null, 2], "start_percent": 0}',
        '{"range": [2, 2], "start_percent": 0}',
        '{"range": [2, -2], "start_percent": 0}',
        '{"range": [NaN, 2], "start_percent": 0}',
        '{"range": [-2, 1e999], "start_percent": 0}',
        f'{{"range": [-2, 1{"0" * 400}], "start_percent": 0}}',
        '{"range": [-2, 2], "start_percent": NaN}',
    ],
    ids=lambda said: repr(said)[:40],
)
def test_file_that_says_nothing_of_use_has_no_range(
    said: str | None, server: ComfyServer, file: Path
) -> None:
    file.write_bytes(slider(said))
    assert asked(server, file.name) == {"range": None, "why": SAYS_NOTHING}


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (slider(None)[:-1], "3 bytes of data"),
        (slider(None)[:20], "it is cut off"),
        (b"<html></html>", "a web page"),
        (b"", "an empty file"),
    ],
    ids=["short", "cut", "page", "empty"],
)
def test_broken_file_is_named_with_what_is_wrong_with_it(
    data: bytes, found: str, server: ComfyServer, file: Path
) -> None:
    file.write_bytes(data)
    said = asked(server, file.name)
    assert said["range"] is None and str(said["why"]).startswith(file.name)
    assert found in str(said["why"]) and "Download the file again" in str(said["why"])


@pytest.mark.parametrize("name", ["", "None", "a_slider.pt", "a folder/", "x\0"])
def test_name_of_no_safetensors_file_has_no_range(name: str, server: ComfyServer) -> None:
    assert asked(server, name) == {"range": None, "why": SAYS_NOTHING}


@pytest.mark.parametrize(
    "name",
    [
        "gone.safetensors",
        ".safetensors",
        "../checkpoints/sd_xl_base_1.0.safetensors",
        "/etc/passwd.safetensors",
        "x\0.safetensors",
        f"{'x' * 5000}.safetensors",
    ],
    ids=lambda name: repr(name)[:40],
)
def test_name_of_no_file_in_the_loras_folders_is_said(name: str, server: ComfyServer) -> None:
    said = asked(server, name)
    assert said["range"] is None
    assert "no such file in ComfyUI's loras folders" in str(said["why"])
