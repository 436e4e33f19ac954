"""Requests and graphs that no page sends: a clear answer, and the server goes on serving."""

from __future__ import annotations

import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

import pytest
import safetensors.torch
import torch

from sandbox.server import ComfyServer, PromptRejected

from .graph import SUBJECT, Graph, report, succeeded

Q = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q"
DEEP = b"[" * 100_000 + b"]" * 100_000


def status(server: ComfyServer, path: str, body: bytes | None = None, kind: str = "") -> int:
    """Send bytes as they are; return the status of the answer."""
    headers = {"Content-Type": kind or "application/json"}
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}{path}", body, headers)
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def other_bases(server: ComfyServer, start: str = "0") -> dict[str, str]:
    """Ask for the files of other base models from a place of the list to its end, as the page."""
    others: dict[str, str] = {}
    place: str | None = start
    while place is not None:
        said = server.get(f"/ziplora/loras?start={place}")
        others |= said["others"]
        place = said["next"]
    return others


OTHERS = {
    f"my_{name}_{kind}.safetensors": base
    for name, base in (
        *(("flux", "FLUX.1"), ("qwen_image", "Qwen-Image")),
        ("z_image", "Z-Image or Lumina 2"),
    )
    for kind in ("subject", "style")
}
"""The sandbox's own."""
BODIES: dict[str, tuple[bytes, str]] = {
    "deep": (DEEP, ""),
    "deep id": (b'{"node_id": ' + DEEP[:900] + DEEP[-900:] + b"}", ""),
    "list as id": (b'{"node_id": [1]}', ""),
    "no text": (b"\xff\xfe", "application/json; charset=utf-8"),
    "list": (b"[1]", ""),
    "no JSON": (b"{", ""),
}


@pytest.mark.parametrize("path", ["/ziplora/stop", "/ziplora/save"])
@pytest.mark.parametrize(("body", "kind"), BODIES.values(), ids=BODIES)
def test_post_of_anything_else_is_a_bad_request(
    path: str, body: bytes, kind: str, server: ComfyServer
) -> None:
    assert status(server, path, body, kind) == 400


@pytest.mark.parametrize("kind", ["application/json; charset=nonsense", "a/b" + ";" * 8000])
def test_content_type_is_not_read(kind: str, server: ComfyServer) -> None:
    """Its parsing takes a second where it is long, and says nothing that JSON does not."""
    assert status(server, "/ziplora/stop", b"{}", kind) == 404  # nothing runs


def test_get_of_a_number_of_any_length_is_not_found(server: ComfyServer) -> None:
    for digits in (1, 12, 5000):
        assert status(server, f"/ziplora/training/3/samples/{'9' * digits}") == 404


@pytest.mark.parametrize(
    "name", ["..", "..%2Frecords", "%2e%2e", "0" * 16 + "-" + "0" * 7, "A" * 16 + "-" + "0" * 8]
)
@pytest.mark.parametrize("part", ["", "/samples/1", "/history.csv", "/events", "/request"])
def test_past_training_with_any_other_name_is_not_found(
    name: str, part: str, server: ComfyServer
) -> None:
    assert status(server, f"/ziplora/past/{name}{part}") == 404


def test_past_training_that_is_damaged_is_listed_without_its_losses(server: ComfyServer) -> None:
    for number, text in enumerate((b"", DEEP, b"[1]", b'{"points": {"step": [NaN]}}')):
        name = f"{number:016x}-ffffffff"
        folder = server.output / "ziplora" / "records" / name
        folder.mkdir(parents=True)
        for file in ("record.json", "request.json"):
            (folder / file).write_bytes(text)
        try:
            assert server.get(f"/ziplora/past/{name}")["recorded"] is False
            for part in ("history.csv", "events", f"samples/{'9' * 12}"):
                assert status(server, f"/ziplora/past/{name}/{part}") == 404
            assert status(server, f"/ziplora/past/{name}/continue", b"x" * 1000) == 404
            assert status(server, "/ziplora/past") == 200
        finally:
            shutil.rmtree(folder)


def test_get_of_a_slider_with_any_name_says_why(server: ComfyServer) -> None:
    for name in ("%00.safetensors", "..%2F..%2Fx.safetensors", f"{'x' * 3000}.safetensors", ""):
        assert status(server, f"/ziplora/slider?name={name}") == 200


def test_get_of_a_file_or_folder_with_any_name_says_why_and_shows_no_picture(
    server: ComfyServer,
) -> None:
    (server.base / "secret.safetensors").write_bytes(b"mine")
    for name in ("%00", "..%2F..%2Fsecret.safetensors", "..", "/etc/passwd", "x" * 3000, ""):
        for path in ("lora", "folder"):
            said = server.get(f"/ziplora/{path}?name={name}")
            assert "no such f" in said["problem"], said
        assert status(server, f"/ziplora/lora/preview?name={name}") == 404
        for picture in ("example.png", "..%2Fexample.png", "%00", ""):
            asked = f"/ziplora/folder/picture?name={name}&picture={picture}"
            assert status(server, asked) == 404
    for path in ("lora", "folder", "folder/picture", "lora/preview"):
        assert status(server, f"/ziplora/{path}") in (200, 404)
    for start in ("", "-1", "x", "9" * 3000, "%00", "1.5"):
        assert other_bases(server, start) == OTHERS


def test_lora_of_any_header_is_shown_or_refused_and_soon(server: ComfyServer) -> None:
    """Deep and wide JSON, a header that lies about its length, and keys that are slow to sort."""
    loras = server.models / "loras"
    wide = b'{"__metadata__": {"ss_tag_frequency": "' + b"[" * 200_000 + b'"}, "a": {"dtype": "F16"'
    wide += b', "shape": [1], "data_offsets": [0, 2]}}'
    headers = {
        "deep": b'{"a": ' + DEEP + b"}",
        "wide": wide,
        "long key": b'{"' + b"down_blocks_" * 100_000 + b'": {"dtype": "F16", "shape": [1], '
        b'"data_offsets": [0, 2]}}',
    }
    paths = []
    for name, header in headers.items():
        path = loras / f"header of {name}.safetensors"
        path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0")
        paths.append(path)
    paths.append(loras / "lying.safetensors")
    paths[-1].write_bytes((1 << 62).to_bytes(8, "little") + b"{")
    try:
        for path in paths:
            begun = time.monotonic()
            said = server.get(f"/ziplora/lora?name={urllib.parse.quote(path.name)}")
            assert time.monotonic() - begun < 5
            assert said["problem"] or said["words"] == []
        assert other_bases(server) == OTHERS
    finally:
        for path in paths:
            path.unlink()


def test_export_format_that_does_not_exist_is_refused_before_the_run(server: ComfyServer) -> None:
    graph = Graph()
    loaded = graph.node("LoadMergedLoRA", merged_lora=SUBJECT)
    graph.node("ExportLoRA", lora=[loaded, 1], filename_prefix="x", format="KOHYA", dtype="fp16")
    with pytest.raises(PromptRejected) as refused:
        server.run(graph.prompt)
    assert "format: found 'KOHYA', expected one of kohya, comfy, peft" in str(refused.value.body)


def test_lora_with_huge_numbers_and_odd_tags_is_read_with_a_warning(server: ComfyServer) -> None:
    path = server.models / "loras" / "huge.safetensors"
    tensors: dict[str, Any] = {
        f"{Q}.lora_down.weight": torch.full((1, 64), 1e9),
        f"{Q}.lora_up.weight": torch.ones(64, 1),
    }
    metadata = {"ss_tag_frequency": '{"a":{"x":1e999}}'}
    path.write_bytes(safetensors.torch.save(tensors, metadata))
    server.object_info()
    try:
        graph = Graph()
        pair = graph.pair(style=path.name)
        graph.save(graph.direct(pair), "huge", dtype="fp32")
        assert "far larger than the weights it is added to" in report(
            succeeded(server, graph), pair
        )
    finally:
        path.unlink()
