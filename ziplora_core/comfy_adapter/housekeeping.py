"""Removal of what killed processes have left in the folders where the pack writes."""

from __future__ import annotations

import logging
from pathlib import Path

import folder_paths

from ..files.temporary import Removed, remove_abandoned
from .folders import work_root

logger = logging.getLogger(__name__)


def remove_temporary_files() -> Removed:
    """Remove the temporary files of ended processes from output/loras and output/ziplora."""
    loras = Path(folder_paths.get_output_directory()) / "loras"
    found = [remove_abandoned(root) for root in (loras, work_root())]
    removed = Removed(sum(r.count for r in found), sum(r.bytes for r in found))
    if removed.count:
        logger.info(
            "ZipLoRA: removed %d temporary files of runs that were killed, %.1f MB",
            removed.count, removed.bytes / 1e6,
        )  # fmt: skip
    return removed
