"""Lay out ComfyUI base directories, which determine the models and packs that a server sees."""

from __future__ import annotations

import shutil
from pathlib import Path

from .paths import BASE, COMFYUI, DEFAULT_SANDBOX, ROOT

PACKS = {"ziplora": ROOT, "ziplora_sandbox_models": ROOT / "tests" / "sandbox" / "tiny_pack"}
FOLDERS = ("models/checkpoints", "models/loras", "custom_nodes", "input", "output", "user")


def link_base(base: Path) -> None:
    """Make the folders of a base directory and link this checkout into its custom_nodes."""
    for folder in FOLDERS:
        (base / folder).mkdir(parents=True, exist_ok=True)
    for name, target in PACKS.items():
        _link(base / "custom_nodes" / name, target)


def link_for_type_checker(place: Path = COMFYUI, name: str = "ComfyUI") -> None:
    """Link a place elsewhere into .sandbox/, the folder that the type checkers' settings name."""
    usual = DEFAULT_SANDBOX / name
    if usual != place and not (usual.exists() and not usual.is_symlink()):
        usual.parent.mkdir(exist_ok=True)
        _link(usual, place)


def fresh_base(parent: Path) -> Path:
    """Make a base directory for one server, with linked models and packs and an empty output.

    Pictures are copied, because ComfyUI refuses an input outside its input folder.
    """
    base = parent / "base"
    link_base(base)
    for model in (BASE / "models").rglob("*"):
        copy = base / model.relative_to(BASE)
        if model.is_dir():
            copy.mkdir(parents=True, exist_ok=True)
        else:
            _link(copy, model)
    shutil.copytree(BASE / "input", base / "input", dirs_exist_ok=True)
    return base


def _link(link: Path, target: Path) -> None:
    if link.is_symlink():
        if link.readlink() == target:
            return
        link.unlink()
    link.symlink_to(target)
