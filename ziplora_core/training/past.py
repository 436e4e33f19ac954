"""The list of what is kept between trainings, and its deletion by choice."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import problem
from .kept import RUNNING, Kept, look, remove
from .limits import Limits, in_bytes
from .records import RECORDS, RecordFolder

TRAININGS, CLASS_PICTURES = "checkpoints", "class_pictures"
"""Folders in the pack's work folder, which have folders of one kind each."""
DELETE = {
    "nothing": (),
    "named": (),
    "saved": ("nothing to resume", "saved"),
    "finished": ("nothing to resume", "saved", "finished, not saved"),
    "unfinished": ("unfinished",),
    "class pictures": (),
    "temporary files": (),
    "everything": ("nothing to resume", "saved", "unfinished", "finished, not saved"),
}
"""What can be chosen for deletion, with the states of the trainings that it covers."""


@dataclass(frozen=True)
class Past:
    """Everything that is kept, the last used one first."""

    trainings: list[Kept]
    class_pictures: list[Kept]
    records: list[Kept]


def past(root: Path) -> Past:
    """Look into the pack's work folder."""
    return Past(look(root / TRAININGS), look(root / CLASS_PICTURES), look(root / RECORDS))


def delete(root: Path, choice: str, names: str) -> list[str]:
    """Delete what was chosen, and report what is gone and what is not.

    Args:
        root: the pack's work folder; nothing outside is touched.
        choice: one of DELETE.
        names: with `named`, folder names as they are listed, one a line or with commas between.

    Raises:
        ZipLoRAError: a name is not in the list; nothing is deleted then.
    """
    kept = past(root)
    if choice == "named":
        chosen = _named([*kept.trainings, *kept.class_pictures, *kept.records], names)
    else:
        states = (*DELETE[choice], RUNNING)
        chosen = [k for k in kept.trainings if k.state in states and DELETE[choice]]
        going = {k.path.name for k in chosen}
        everything = choice == "everything"
        chosen += [k for k in kept.records if everything or k.path.name in going]
        if choice == "class pictures" or everything:
            chosen += kept.class_pictures
    return _deleted(chosen)


def _deleted(chosen: Sequence[Kept]) -> list[str]:
    gone = [k for k in chosen if not k.in_use and remove(k)]
    lines = [f"deleted: {_names(gone)}, {in_bytes(sum(k.bytes for k in gone))}"] if gone else []
    if running := [k for k in chosen if k.in_use]:
        lines.append(f"not deleted, as a training uses it: {_names(running)}")
    if left := [k for k in chosen if k not in gone and not k.in_use]:
        lines.append(f"WARNING: could not be deleted: {_names(left)}")
    return lines


def _named(kept: Sequence[Kept], names: str) -> list[Kept]:
    known = {k.path.name for k in kept}
    asked = [name.strip() for name in names.replace(",", "\n").splitlines() if name.strip()]
    unknown = [name for name in asked if name not in known]
    if unknown or not asked:
        raise problem(
            "folders",
            found=f"{', '.join(unknown) or 'no name'}",
            expected="names of the list, one a line",
            advice="Set delete to nothing and queue, then copy names from the report.",
        )
    return [k for name in dict.fromkeys(asked) for k in kept if k.path.name == name]


def _names(kept: Sequence[Kept]) -> str:
    return ", ".join(dict.fromkeys(k.path.name for k in kept))


def table(root: Path) -> list[str]:
    """List everything that is kept, with the limits."""
    kept, lines = past(root), []
    known = {k.path.name for k in kept.trainings}
    for found, name, one, several in (
        (kept.trainings, TRAININGS, "training", "trainings"),
        (kept.class_pictures, CLASS_PICTURES, "set of class pictures", "sets of class pictures"),
        (kept.records, RECORDS, "record of a training", "records of trainings"),
    ):
        size = in_bytes(sum(k.bytes for k in found))
        limits = Limits.read(root / name)
        lines.append(
            f"{len(found)} {one if len(found) == 1 else several}, {size}; limits: {limits}"
        )
        for k in found:
            if name != RECORDS or k.path.name not in known:
                lines += _row(k)
    return lines


def _row(kept: Kept) -> list[str]:
    about = kept.about
    first = [kept.path.name]
    if about and about.method:
        first.append(about.method)
    if about and about.steps:
        first.append(f"step {about.step} of {about.steps}")
    if about or kept.in_use:
        first.append(kept.state)
    first += [in_bytes(kept.bytes), _ago(time.time() - kept.used)]
    lines = [f"  {', '.join(first)}"]
    record = None if about else RecordFolder(kept.path).read()
    if title := about.title if about else record["title"] if record else "":
        lines.append(f"    {' '.join(title.split())}")
    if about and about.saved:
        lines.append(f"    in {', '.join(about.saved)}")
    return lines


def _ago(seconds: float) -> str:
    for unit, name in ((24 * 3600, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * unit:
            return f"used {seconds / unit:.0f} {name} ago"
    return "used just now"
