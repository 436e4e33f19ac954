"""Paths of files that are read and written, all of them in ComfyUI's own folders."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath

import folder_paths

from ..errors import ZipLoRAError, problem
from ..files.metadata import lora_metadata
from ..files.writer import WrittenFile, write_lora
from ..lora.factors import LoraFactors

_TRIES = 20


def lora_path(name: str) -> Path:
    """Return the path of a file in ComfyUI's `loras` folders.

    Raises:
        ZipLoRAError: the file does not exist (any more).
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


def work_root() -> Path:
    """Return the folder of checkpoints and class pictures, outside all LoRA folders."""
    return Path(folder_paths.get_output_directory()) / "ziplora"


def checkpoint_root() -> Path:
    """Return the folder of all training checkpoints."""
    return work_root() / "checkpoints"


def check_prefix(prefix: str, folder: str = "loras") -> None:
    """Refuse a file name prefix that points outside its subfolder of the output folder.

    Raises:
        ZipLoRAError: the prefix is empty, absolute, or contains `..`.
    """
    paths = (PurePosixPath(prefix), PureWindowsPath(prefix))
    outside = any(p.is_absolute() or p.drive or p.root or ".." in p.parts for p in paths)
    if outside or not paths[0].name or "\0" in prefix:
        raise problem(
            "filename_prefix",
            found=repr(prefix),
            expected=f"a name inside output/{folder}, e.g. my_merge or merges/my_merge",
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
        the name as LoRA loaders list it, and the written file.

    Raises:
        ZipLoRAError: the prefix is invalid, a value is not finite, or the folder is not writable.
    """

    def write(base: Path) -> WrittenFile:
        metadata = lora_metadata(modules, title=base.name, description=description, extra=extra)
        return write_lora(Path(f"{base}.safetensors"), modules, metadata, dtype)

    written = save_numbered(prefix, "loras", write)
    root = Path(folder_paths.get_output_directory()) / "loras"
    return str(written.path.relative_to(root)), written


def save_numbered(prefix: str, folder: str, write: Callable[[Path], WrittenFile]) -> WrittenFile:
    """Write into a subfolder of ComfyUI's output folder, with the next free number.

    Args:
        prefix: file name prefix in that subfolder.
        folder: `loras`, or a name that no loader searches.
        write: function that writes to a path without suffix, and raises FileExistsError if the
            file exists.

    Raises:
        ZipLoRAError: the prefix is invalid, or no free number was found; `write` may raise others.
    """
    check_prefix(prefix, folder)
    root = Path(folder_paths.get_output_directory()) / folder
    for _ in range(_TRIES):
        try:
            place, stem, counter, *_rest = folder_paths.get_save_image_path(prefix, str(root))
        except OSError as error:
            raise problem(
                f"filename_prefix {prefix!r}",
                found=f"{error.strerror}: {error.filename}",
                expected=f"a folder inside output/{folder} that can be created",
                advice="Choose another name: nothing is lost, the result is cached.",
            ) from error
        try:
            return write(Path(place) / f"{stem}_{counter:05}_")
        except FileExistsError:
            continue  # another run has taken the number
    raise ZipLoRAError(f"filename_prefix {prefix!r}: no free number found in {_TRIES} tries.")
