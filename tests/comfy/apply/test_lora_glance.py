"""The page is told of the files in the pickers, and of no other file."""

from __future__ import annotations

import os
from pathlib import Path

import folder_paths
import pytest
import safetensors.torch
import torch
from PIL import Image

from ziplora_core.comfy_adapter.apply import lora_glance as module
from ziplora_core.comfy_adapter.apply.lora_glance import lora_glance, lora_preview, other_bases

SD1 = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"


@pytest.fixture
def loras(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder as ComfyUI's only one for LoRAs."""
    folder = tmp_path / "loras"
    folder.mkdir()
    known = {"loras": ([str(folder)], {".safetensors", ".pt"})}
    monkeypatch.setattr(folder_paths, "folder_names_and_paths", known)
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    return folder


def write(path: Path, width: int = 768) -> Path:
    tensors = {
        f"{SD1}.lora_down.weight": torch.zeros(2, width),
        f"{SD1}.lora_up.weight": torch.zeros(320, 2),
    }
    safetensors.torch.save_file(tensors, path)
    return path


@pytest.mark.parametrize("ending", [".png", ".preview.png", ".jpg", ".webp"])
def test_preview_beside_a_file_is_a_small_jpeg_that_follows_it(ending: str, loras: Path) -> None:
    path = write(loras / "a.b.safetensors")
    assert lora_glance(path.name)["preview"] is None is lora_preview(path.name)
    picture = loras / f"a.b{ending}"
    Image.new("RGBA" if ending.endswith(("png", "webp")) else "RGB", (2000, 1000)).save(picture)
    before = lora_glance(path.name)["preview"]
    jpeg = lora_preview(path.name)
    assert before and jpeg and jpeg[:2] == b"\xff\xd8" and len(jpeg) < 50_000
    Image.new("RGB", (10, 20)).save(picture)
    assert lora_glance(path.name)["preview"] not in (before, None)


def test_preview_that_is_damaged_or_a_link_out_of_the_folder_is_not_shown(loras: Path) -> None:
    path = write(loras / "a.safetensors")
    (loras / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    assert lora_glance(path.name)["preview"] is None is lora_preview(path.name)
    (loras / "a.png").unlink()
    secret = loras.parent / "secret.png"
    Image.new("RGB", (10, 10)).save(secret)
    (loras / "a.png").symlink_to(secret)
    assert lora_glance(path.name)["preview"] is None is lora_preview(path.name)


def test_glance_follows_a_file_that_is_replaced_and_says_why_one_cannot_be_read(
    loras: Path,
) -> None:
    path = write(loras / "a.safetensors")
    said = lora_glance(path.name)
    assert (said["base"], said["problem"]) == ("Stable Diffusion 1.x", "")
    assert said["size"] == path.stat().st_size
    write(path, 2048)
    assert lora_glance(path.name)["base"] == "SDXL"
    path.write_bytes(b"<html>")
    assert "a web page" in lora_glance(path.name)["problem"]


def test_pickle_shows_its_size_and_is_not_opened(loras: Path) -> None:
    path = loras / "a.pt"
    path.write_bytes(b"\x80\x04never read")
    said = lora_glance(path.name)
    assert (said["size"], said["problem"]) == (12, "") and "base" not in said


def test_names_lead_only_to_files_of_the_list(loras: Path) -> None:
    write(loras.parent / "outside.safetensors")
    (loras / "notes.txt").write_text("mine")
    os.mkfifo(loras / "pipe.safetensors")
    for name in ("../outside.safetensors", str(loras.parent / "outside.safetensors"), "notes.txt",
                 "pipe.safetensors", "\0", "x" * 5000, ""):  # fmt: skip
        assert "no such file" in lora_glance(name)["problem"]
        assert lora_preview(name) is None


def test_other_bases_go_on_where_the_time_was_over(
    loras: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(3):
        write(loras / f"{n}.safetensors")
    base = "Stable Diffusion 1.x"
    monkeypatch.setattr(module, "_BUDGET", -1.0)
    assert other_bases() == {"others": {"0.safetensors": base}, "next": 1}
    assert other_bases(1) == {"others": {"1.safetensors": base}, "next": 2}
    assert other_bases(2) == {"others": {"2.safetensors": base}, "next": None}
    assert other_bases(3) == other_bases(10**9) == {"others": {}, "next": None}
    monkeypatch.setattr(module, "_BUDGET", 60.0)
    assert len(other_bases()["others"]) == 3 and other_bases()["next"] is None


def test_other_bases_are_those_of_the_list(loras: Path) -> None:
    write(loras / "other.safetensors")
    write(loras / "fits.safetensors", 2048)
    (loras / "broken.safetensors").write_bytes(b"<html>")
    expected = {"others": {"other.safetensors": "Stable Diffusion 1.x"}, "next": None}
    assert other_bases() == expected == other_bases()
