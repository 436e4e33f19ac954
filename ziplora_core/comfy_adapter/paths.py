"""Where files are read and written: ComfyUI's own folders, and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath

import folder_paths

from ..errors import ZipLoRAError, problem
from ..files.metadata import lora_metadata
from ..files.writer import WrittenFile, write_lora
from ..lora import LoraFactors

_TRIES = 20


def lora_path(name: str) -> Path:
    """Find a file of ComfyUI's `loras` folders.

    Raises:
        ZipLoRAError: it is not there (any more).
    """
    found = folder_paths.get_full_path("loras", name)
    if found is None:
        raise problem(
            name,
            found="no such file in ComfyUI's loras folders",
            expected="the file that was picked",
            advice="Press R to refresh the lists and pick a file that is there.",
        )
    return Path(found)


def checkpoint_root() -> Path:
    """The folder of all training checkpoints, outside every LoRA path."""
    return Path(folder_paths.get_output_directory()) / "ziplora" / "checkpoints"


def check_prefix(prefix: str) -> None:
    """Refuse a file name prefix that would leave `output/loras`.

    Raises:
        ZipLoRAError: empty, absolute, or with `..` in it.
    """
    paths = (PurePosixPath(prefix), PureWindowsPath(prefix))
    outside = any(p.is_absolute() or p.drive or p.root or ".." in p.parts for p in paths)
    if outside or not paths[0].name or "\0" in prefix:
        raise problem(
            "filename_prefix",
            found=repr(prefix),
            expected="a name inside output/loras, e.g. my_merge or merges/my_merge",
            advice="Remove '..' and any leading '/' or drive letter.",
        )


def save_lora(
    modules: Mapping[str, LoraFactors],
    prefix: str,
    dtype: str,
    description: str,
    extra: Mapping[str, str],
) -> tuple[str, WrittenFile]:
    """Save under `output/loras`, which ComfyUI searches, with the next free number.

    Returns:
        the name as LoRA loaders list it, and what was written.

    Raises:
        ZipLoRAError: bad prefix, not finite, or not writable.
    """
    check_prefix(prefix)
    root = Path(folder_paths.get_output_directory()) / "loras"
    for _ in range(_TRIES):
        try:
            folder, stem, counter, *_rest = folder_paths.get_save_image_path(prefix, str(root))
        except OSError as error:
            raise problem(
                f"filename_prefix {prefix!r}",
                found=f"{error.strerror}: {error.filename}",
                expected="a folder inside output/loras that can be made",
                advice="Choose another name: nothing is lost, the result is cached.",
            ) from error
        title = f"{stem}_{counter:05}_"
        metadata = lora_metadata(modules, title=title, description=description, extra=extra)
        path = Path(folder) / f"{title}.safetensors"
        try:
            written = write_lora(path, modules, metadata, dtype)
        except FileExistsError:
            continue  # another run took the number in between
        return str(path.relative_to(root)), written
    raise ZipLoRAError(f"filename_prefix {prefix!r}: no free number found in {_TRIES} tries.")
