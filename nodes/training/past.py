"""The node that lists what past trainings have left on the disk, and deletes it by choice."""

from __future__ import annotations

import time
from typing import Any

from comfy_api.latest import io, ui

from ...ziplora_core.comfy_adapter.folders import work_root
from ...ziplora_core.comfy_adapter.housekeeping import remove_temporary_files
from ...ziplora_core.training.limits import (
    Limits,
    in_bytes,
    make_room,
    refuse_negative,
    removed_lines,
)
from ...ziplora_core.training.past import CLASS_PICTURES, DELETE, TRAININGS, delete, table
from ...ziplora_core.training.records import RECORDS
from ..shared.outputs import report_output
from ..shared.progress import log_warnings

_DEFAULT = Limits()


class PastTrainings(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PastTrainings",
            display_name="Past Trainings",
            category="ZipLoRA/train",
            description="Lists the training states and class images that are kept in "
            "output/ziplora, deletes those you choose, and sets how much may be kept. LoRA files "
            "are never deleted.",
            search_aliases=["ziplora", "checkpoints", "disk space", "clean up", "resume"],
            is_output_node=True,
            not_idempotent=True,
            inputs=[
                io.Combo.Input(
                    "delete",
                    options=list(DELETE),
                    default="nothing",
                    tooltip="nothing only lists. named: the folders written in folders. saved: "
                    "trainings whose LoRA is in a file. finished: also those whose LoRA is not in "
                    "a file yet. unfinished: those that could go on. class pictures: they are "
                    "drawn again when needed. temporary files: those of programs that were killed; "
                    "every start removes them, too. A training that runs is never deleted.",
                ),
                io.String.Input(
                    "folders",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="With delete=named: names from the list, one a line.",
                ),
                io.Boolean.Input(
                    "change_limits",
                    default=False,
                    optional=True,
                    tooltip="On: the three limits below are remembered for this output folder, for "
                    "trainings, their records and class images, and what is beyond them is deleted "
                    "now. Off: they are left as they are.",
                ),
                io.Int.Input(
                    "most_folders",
                    default=_DEFAULT.number,
                    min=0,
                    max=100000,
                    optional=True,
                    tooltip="Most trainings, records of them, and sets of class images; 0 for no "
                    "limit.",
                ),
                io.Float.Input(
                    "most_days",
                    default=_DEFAULT.days,
                    min=0.0,
                    max=36500.0,
                    step=1.0,
                    optional=True,
                    tooltip="Days after its last use for which anything is kept; 0 for no limit.",
                ),
                io.Float.Input(
                    "most_gigabytes",
                    default=_DEFAULT.gigabytes,
                    min=0.0,
                    max=100000.0,
                    step=1.0,
                    optional=True,
                    tooltip="Most gigabytes of trainings, and of class images; 0 for no limit. A "
                    "training of SDXL at rank 64 takes about 1.",
                ),
            ],
            outputs=[report_output()],
        )

    @classmethod
    def fingerprint_inputs(cls, **_inputs: Any) -> float:
        return time.time()  # the list is made anew in every run

    @classmethod
    def execute(
        cls,
        delete: str,
        folders: str = "",
        change_limits: bool = False,
        most_folders: int = _DEFAULT.number,
        most_days: float = _DEFAULT.days,
        most_gigabytes: float = _DEFAULT.gigabytes,
    ) -> io.NodeOutput:
        lines = _deleted(delete, folders)
        if change_limits:
            limits = Limits(most_folders, most_days, most_gigabytes)
            refuse_negative(limits)
            lines.append(f"limits from now on: {limits}")
            for root in (work_root() / name for name in (TRAININGS, CLASS_PICTURES, RECORDS)):
                limits.write(root)
                lines += removed_lines(make_room(root))
        report = "\n".join([*lines, *table(work_root())])
        log_warnings("PastTrainings", report)
        return io.NodeOutput(report, ui=ui.PreviewText(report))


def _deleted(choice: str, folders: str) -> list[str]:
    """Delete what was chosen; return the lines about it."""
    lines = delete(work_root(), choice, folders)
    if choice in ("temporary files", "everything"):
        removed = remove_temporary_files()
        lines.append(f"temporary files deleted: {removed.count}, {in_bytes(removed.bytes)}")
    if choice != "nothing" and not lines:
        lines.append(f"deleted: nothing is kept that is {choice}")
    return lines


NODES = [PastTrainings]
