"""Where files are read and written: ComfyUI's own folders, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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


def work_root() -> Path:
    """The folder of checkpoints and class pictures, outside every LoRA path."""
    return Path(folder_paths.get_output_directory()) / "ziplora"


def checkpoint_root() -> Path:
    """The folder of all training checkpoints."""
    return work_root() / "checkpoints"


def check_prefix(prefix: str, folder: str = "loras") -> None:
    """Refuse a file name prefix that would leave its folder of the output folder.

    Raises:
        ZipLoRAError: empty, absolute, or with `..` in it.
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
        the name as LoRA loaders list it, and what was written.

    Raises:
        ZipLoRAError: bad prefix, not finite, or not writable.
    """

    def write(base: Path) -> WrittenFile:
        metadata = lora_metadata(modules, title=base.name, description=description, extra=extra)
        return write_lora(Path(f"{base}.safetensors"), modules, metadata, dtype)

    written = save_numbered(prefix, "loras", write)
    root = Path(folder_paths.get_output_directory()) / "loras"
    return str(written.path.relative_to(root)), written


def save_numbered(prefix: str, folder: str, write: Callable[[Path], WrittenFile]) -> WrittenFile:
    """Write under a folder of ComfyUI's output folder, with the next free number.

    Args:
        prefix: name below that folder.
        folder: `loras`, or one that no loader searches.
        write: called with the path without its suffix; raises FileExistsError where it is taken.

    Raises:
        ZipLoRAError: bad prefix, or what `write` raises.
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
                expected=f"a folder inside output/{folder} that can be made",
                advice="Choose another name: nothing is lost, the result is cached.",
            ) from error
        try:
            return write(Path(place) / f"{stem}_{counter:05}_")
        except FileExistsError:
            continue  # another run took the number in between
    raise ZipLoRAError(f"filename_prefix {prefix!r}: no free number found in {_TRIES} tries.")
