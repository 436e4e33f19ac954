"""The archive that the ComfyUI Registry takes, made as its program makes it."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pathspec

from .paths import ROOT

IGNORED = (".gitignore", ".comfyignore")


def files() -> list[Path]:
    """List the files of the archive, relative to the pack."""
    lines = [line for name in IGNORED for line in (ROOT / name).read_text().splitlines()]
    left_out = pathspec.GitIgnoreSpec.from_lines([*lines, ".git", ".git/"])
    found: list[Path] = []
    for top in ROOT.iterdir():
        if not left_out.match_file(f"{top.name}/" if top.is_dir() else top.name):
            found += top.rglob("*") if top.is_dir() else [top]
    paths = [path.relative_to(ROOT) for path in found if path.is_file()]
    return sorted(path for path in paths if not left_out.match_file(path))


def write_archive(path: Path) -> None:
    """Write the archive."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in files():
            archive.write(ROOT / file, file)
