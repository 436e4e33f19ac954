"""Names are found in lists of the other system, on every system."""

from __future__ import annotations

from pathlib import Path

import folder_paths
import pytest

from ziplora_core.comfy_adapter.folders import (
    find_lora,
    input_subfolders,
    listed,
    listed_subfolder,
)
from ziplora_core.errors import ZipLoRAError

NAMES = ("a.safetensors", "sub/b.safetensors", "sub/deep er/c.safetensors")


@pytest.mark.parametrize("own", "/\\")
@pytest.mark.parametrize("theirs", "/\\")
def test_listed_finds_every_name_however_both_are_written(own: str, theirs: str) -> None:
    options = [name.replace("/", own) for name in NAMES]
    for name, option in zip(NAMES, options, strict=True):
        assert listed(name.replace("/", theirs), options) == option
    assert listed("b.safetensors", options) is None is listed("", options)


def test_listed_prefers_the_name_as_it_is() -> None:
    assert listed("a\\b", ["a/b", "a\\b"]) == "a\\b"


def test_find_lora_stays_inside_the_loras_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = tmp_path / "loras"
    (inside / "sub").mkdir(parents=True)
    for path in (inside / "sub" / "b.safetensors", tmp_path / "outside.safetensors"):
        path.touch()
    known = {"loras": ([str(inside)], {".safetensors"})}
    monkeypatch.setattr(folder_paths, "folder_names_and_paths", known)
    assert find_lora("sub\\b.safetensors") == inside / "sub" / "b.safetensors"
    for name in ("..\\outside.safetensors", "../outside.safetensors", "sub\\c.safetensors"):
        assert find_lora(name) is None


def test_links_to_nothing_or_to_themselves_leave_the_other_folders_in_the_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dog" / "more").mkdir(parents=True)
    for link, target in (("itself", "itself"), ("nothing", "gone"), ("dog/up", "..")):
        (tmp_path / link).symlink_to(target)
    monkeypatch.setattr(folder_paths, "get_input_directory", lambda: str(tmp_path))
    assert input_subfolders() == ["dog", "dog/more"]
    for name in ("dog", "dog/more", "dog\\more"):
        assert listed_subfolder(name) == tmp_path / name.replace("\\", "/")


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "dog/..", "../input", "./dog", "dog/", "/", "//dog", "dog//more", "dog/up",
     "dog/up/dog", "itself", "nothing", "a.png", "cat", "dog\0", "\ud800"],
)  # fmt: skip
def test_folder_that_is_not_listed_is_not_found_however_it_is_written(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "input"
    (place / "dog" / "more").mkdir(parents=True)
    (place / "a.png").touch()
    for link, target in (("itself", "itself"), ("nothing", "gone"), ("dog/up", "..")):
        (place / link).symlink_to(target)
    monkeypatch.setattr(folder_paths, "get_input_directory", lambda: str(place))
    for tried in (name, str(place / "dog"), name and f"{place}/{name}"):
        with pytest.raises(ZipLoRAError, match="no such folder"):
            listed_subfolder(tried)
