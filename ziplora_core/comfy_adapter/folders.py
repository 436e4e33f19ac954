"""Paths of files that are read and written, all of them in ComfyUI's own folders."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

import folder_paths

from ..errors import ZipLoRAError, problem
from ..files.metadata import lora_metadata
from ..files.writer import WrittenFile, write_lora
from ..lora.factors import LoraFactors

_TRIES = 20
_NUMBERED = "_00001_.safetensors"
"""The end of a saved file's name, after its prefix."""
_NAME_BYTES = 255
"""The longest name of most file systems."""


def listed(name: str, options: Sequence[str]) -> str | None:
    r"""Find a name in a list of files or folders, whichever separator either is written with.

    A workflow that was saved on Windows has `sub\file`, the list on Linux `sub/file`.

    Returns:
        the entry of the list, or None.
    """
    if name in options:
        return name
    slashed = _slashed(name)
    return next((option for option in options if _slashed(option) == slashed), None)


def find_lora(name: str) -> Path | None:
    """Return the path of a file in ComfyUI's `loras` folders, or None; see `listed`."""
    full_path = folder_paths.get_full_path
    found = full_path("loras", name) or full_path("loras", _slashed(name))
    return None if found is None else Path(found)


def lora_path(name: str) -> Path:
    """Return the path of a file in ComfyUI's `loras` folders.

    Raises:
        ZipLoRAError: the file does not exist (any more).
    """
    found = find_lora(name)
    if found is None:
        raise _not_there(name, "file in ComfyUI's loras folders")
    return found


def listed_lora(name: str) -> Path:
    """Return the path of a LoRA file that the pickers list, for requests, which may ask for any.

    Raises:
        ZipLoRAError: it is not listed.
    """
    found = listed(name, folder_paths.get_filename_list("loras"))
    if found is None:
        raise _not_there(name, "file in ComfyUI's loras folders")
    return lora_path(found)


def input_subfolders() -> list[str]:
    """List the folders inside ComfyUI's input folder, with `/`, also those that are links.

    A link to a folder that contains it is not followed, and unreadable folders are left out.
    """
    found: list[str] = []

    def look_into(folder: Path, name: str, around: frozenset[Path]) -> None:
        try:
            with os.scandir(folder) as entries:
                inside = sorted(entry.name for entry in entries)
        except OSError:
            return
        around |= {folder.resolve()}
        for below in inside:
            if _is_folder_outside(folder / below, around):
                found.append(f"{name}{below}")
                look_into(folder / below, f"{name}{below}/", around)

    look_into(Path(folder_paths.get_input_directory()), "", frozenset())
    return sorted(found)


def _is_folder_outside(path: Path, around: frozenset[Path]) -> bool:
    """Tell whether this is a folder that can be read, and none of those around it."""
    try:
        return path.is_dir() and path.resolve() not in around
    except (OSError, RuntimeError):  # a link to itself, or into a folder without permission
        return False


def listed_subfolder(name: str) -> Path:
    """Return the path of a folder that the picker lists; requests and links may ask for any.

    It is what `listed` finds in `input_subfolders`, without a walk through all folders.

    Raises:
        ZipLoRAError: it is not listed.
    """
    found = _subfolder(name) or _subfolder(_slashed(name))
    if found is None:
        raise _not_there(name, "folder in ComfyUI's input folder")
    return found


def _subfolder(name: str) -> Path | None:
    folder, around = Path(folder_paths.get_input_directory()), frozenset[Path]()
    for part in name.split("/"):
        around |= {folder.resolve()}
        folder /= part
        if part == ".." or folder.name != part or not _is_folder_outside(folder, around):
            return None
    return folder


def _not_there(name: str, what: str) -> ZipLoRAError:
    return problem(
        name,
        found=f"no such {what}",
        expected="the one that was picked",
        advice="Press R to refresh the lists and pick one that is there.",
    )


def work_root() -> Path:
    """Return the folder of checkpoints and class pictures, outside all LoRA folders."""
    return Path(folder_paths.get_output_directory()) / "ziplora"


def checkpoint_root() -> Path:
    """Return the folder of all training checkpoints."""
    return work_root() / "checkpoints"


def check_prefix(prefix: str, folder: str = "loras") -> None:
    """Refuse a file name prefix that points outside its subfolder of the output folder.

    Raises:
        ZipLoRAError: the prefix is empty, absolute, contains `..`, leads through a link out of the
            folder, or has a part that is too long for the file system.
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
    _refuse_long(_slashed(prefix))
    _refuse_link(_slashed(prefix), folder)


def _refuse_link(prefix: str, folder: str) -> None:
    """Refuse a prefix whose folder is a link out of `folder`: ComfyUI saves nowhere else."""
    root = Path(folder_paths.get_output_directory()) / folder
    inside = PurePosixPath(prefix).parent
    place = (root / inside).resolve()
    if not place.is_relative_to(root.resolve()):
        raise problem(
            "filename_prefix",
            found=f"{inside}, a link to {place}",
            expected=f"a folder that is inside output/{folder}",
            advice=f"Choose another folder, or make output/{folder} itself the link.",
        )


def _refuse_long(prefix: str) -> None:
    """Refuse a prefix with a part that is too long for a name on the output folder's disk."""
    *folders, stem = PurePosixPath(prefix).parts
    for part, ending in [*((name, "") for name in folders), (stem, _NUMBERED)]:
        size, limit = _name_size(part), _name_limit() - len(ending)
        if size > limit:
            rest = f" and {len(ending)} more for the number and ending" if ending else ""
            raise problem(
                f"filename_prefix, its part {part[:12]}…{part[-12:]}",
                found=f"a name of {len(part)} letters, {size} bytes{rest}",
                expected=f"at most {limit} bytes, as a name on this disk has {limit + len(ending)}",
                advice=f"Shorten this part by {size - limit} bytes or more: a letter of English is "
                "one byte, others are two to four.",
            )


def _name_size(name: str) -> int:
    """Return the length of a file name as the system counts it."""
    return len(name.encode("utf-16-le")) // 2 if os.name == "nt" else len(os.fsencode(name))


def _name_limit() -> int:
    """Return the longest name in the output folder; encrypted folders allow less than others."""
    try:
        limit = os.pathconf(folder_paths.get_output_directory(), "PC_NAME_MAX")
    except (AttributeError, OSError, ValueError):  # Windows, or a folder that is still to be made
        return _NAME_BYTES
    return limit if limit > 0 else _NAME_BYTES


def _slashed(name: str) -> str:
    """Write a path with `/`."""
    return name.replace("\\", "/")


def save_lora(
    modules: Mapping[str, LoraFactors],
    prefix: str,
    dtype: str,
    description: str,
    extra: Mapping[str, str],
    plain: bool = False,
) -> tuple[str, WrittenFile]:
    """Save under `output/loras`, which ComfyUI searches; see `save_numbered`.

    Returns:
        the name as LoRA loaders list it, and the written file.

    Raises:
        ZipLoRAError: the prefix is invalid, a value is not finite, or the folder is not writable.
    """

    def write(base: Path) -> WrittenFile:
        metadata = lora_metadata(modules, title=base.name, description=description, extra=extra)
        return write_lora(Path(f"{base}.safetensors"), modules, metadata, dtype)

    written = save_numbered(prefix, "loras", write, plain)
    root = Path(folder_paths.get_output_directory()) / "loras"
    return str(written.path.relative_to(root)), written


def save_numbered(
    prefix: str, folder: str, write: Callable[[Path], WrittenFile], plain: bool = False
) -> WrittenFile:
    """Write into a subfolder of ComfyUI's output folder, with the next free number.

    Args:
        prefix: file name prefix in that subfolder.
        folder: `loras`, or a name that no loader searches.
        write: function that writes to a path without suffix, and raises FileExistsError if the
            file exists.
        plain: whether to leave the number out where the name is free without.

    Raises:
        ZipLoRAError: the prefix is invalid, or no free number was found; `write` may raise others.
    """
    check_prefix(prefix, folder)
    prefix = _slashed(prefix)
    root = Path(folder_paths.get_output_directory()) / folder
    for number in range(_TRIES):
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
            return write(Path(place) / (f"{stem}_{counter:05}_" if number or not plain else stem))
        except FileExistsError:
            continue  # another run has taken the name
    raise ZipLoRAError(f"filename_prefix {prefix!r}: no free number found in {_TRIES} tries.")
