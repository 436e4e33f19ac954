"""Saves on a disk with any amount of space left, from none to just enough."""

from __future__ import annotations

import errno
import random
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import safetensors.torch
import torch

from sandbox.small_disk import SmallDisk, can_mount, small_disk
from ziplora_core.errors import ZipLoRAError
from ziplora_core.files.export import export_lora
from ziplora_core.files.writer import write_lora
from ziplora_core.lora.factors import LoraFactors
from ziplora_core.training.about import About, write_about
from ziplora_core.training.checkpoint import CheckpointFolder
from ziplora_core.training.limits import Limits
from ziplora_core.training.saved_state import SavedState

from .promise import Promise

MODULE = "lora_unet_middle_block_1_transformer_blocks_0_attn2_to_q"
PATHS = {MODULE: "mid_block.attentions.0.transformer_blocks.0.attn2.to_q"}
SGM = {MODULE: "middle_block.1.transformer_blocks.0.attn2.to_q"}
LARGEST = 600_000
"""More than any of the files takes."""
Save = Callable[[Path], object]


def measured(saves: int, place: Path, rng: random.Random) -> list[Promise]:
    """Save with random space left, then again with room.

    Args:
        saves: number of saves.
        place: where the disk is mounted.
        rng: source of the space left.
    """
    if not can_mount():
        return []  # without root or sudo there is no small disk, and no row
    names = [*_saves()]
    said, room, refused = [], [], 0
    with small_disk(place, 8) as disk:
        for n in range(saves):
            name, save = names[n % len(names)], _saves()[names[n % len(names)]]
            wrong, failed = _save_on_a_full_disk(disk, save, rng.randrange(LARGEST))
            refused += failed
            said += [f"save {n}, {name}: {'; '.join(wrong)}"] * bool(wrong)
            disk.make_room()
            if failed:
                try:
                    save(place)
                except (OSError, ZipLoRAError) as error:
                    room.append(f"{name}: {error}")
            for path in place.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    figures = f"{', '.join(names)}; {refused} did not fit"
    text = "A save that does not fit says so and leaves nothing"
    again = "The same save succeeds once there is room"
    return [
        Promise(text, saves, saves - len(said), figures, said),
        Promise(again, refused, refused - len(room), "", room),
    ]


def _saves() -> Mapping[str, Save]:
    rng = torch.Generator().manual_seed(0)
    modules = {
        MODULE: LoraFactors(
            torch.randn(64, 640, generator=rng), torch.randn(640, 64, generator=rng)
        )
    }

    def exported(spelling: str) -> Save:
        paths = SGM if spelling == "comfy" else PATHS
        end = {"peft": "", "sliders": ".pt"}.get(spelling, ".safetensors")
        return lambda place: export_lora(place / f"a{end}", modules, paths, spelling, {}, "fp32")

    def checkpoint(place: Path) -> None:
        state = SavedState([torch.ones(100_000)], {}, {"loss": [1.0]}, 1, 2)
        CheckpointFolder(place / "checkpoint").save(state)

    return {
        "LoRA": lambda place: write_lora(place / "a.safetensors", modules, {}, "fp32"),
        **{spelling: exported(spelling) for spelling in ("comfy", "peft", "diffusers", "sliders")},
        "checkpoint": checkpoint,
        "note": lambda place: write_about(place, About(title="x" * 300_000)),
        "limits": lambda place: Limits().write(place),
    }


def _save_on_a_full_disk(disk: SmallDisk, save: Save, leave: int) -> tuple[list[str], bool]:
    """Save with some bytes left; return what is wrong, and whether it was refused."""
    before = disk.names()
    disk.fill(leave)
    try:
        save(disk.path)
    except ZipLoRAError as error:
        wrong = [] if "No space left on device" in str(error) else [f"said {error}"]
    except OSError as error:
        wrong = [] if error.errno == errno.ENOSPC else [f"raised {error!r}"]
    else:
        return [f"left {n}" for n in disk.names() if n.endswith(".tmp")], False
    left = [name for name in disk.names() if name not in before]
    return [*wrong, *(f"left {n}" for n in left if not _is_whole_checkpoint(disk.path / n))], True


def _is_whole_checkpoint(path: Path) -> bool:
    """Tell whether this is a whole state, whose note alone did not fit."""
    if path.name != CheckpointFolder(path.parent).state_file.name:
        return False
    return bool(safetensors.torch.load_file(path))
