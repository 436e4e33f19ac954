"""Images shown on a node, which the node can do without."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import folder_paths
import torch
from comfy_api.latest import io, ui
from server import PromptServer
from torch import Tensor

logger = logging.getLogger(__name__)

_NAMES = "ComfyUI_temp_*"
"""The names of ComfyUI's previews."""


def preview(node: type[io.ComfyNode], *images: Tensor) -> tuple[list[Any], str]:
    """Write batches of images `(b, h, w, 3)` to ComfyUI's temporary folder, for the page.

    A full disk does not fail the node: the images are its outputs, and the nodes after it can use
    them.

    Args:
        node: needs the hidden input `unique_id`.
        images: the batches.

    Returns:
        The files as ComfyUI lists them, and "". Or no files, and a warning, which is also logged
        and shown on the node.
    """
    temporary = Path(folder_paths.get_temp_directory())
    before = {*temporary.glob(_NAMES)}
    try:
        return list(ui.PreviewImage(torch.cat(images), cls=node).values), ""
    except OSError as error:
        for half in {*temporary.glob(_NAMES)} - before:
            half.unlink(missing_ok=True)
        warning = (
            f"WARNING: the image is not shown here: {error.strerror or error} in ComfyUI's temp "
            "folder. Nothing was written; the node's outputs are complete. Free some space and "
            "queue again after a change to see it."
        )
        logger.warning("%s: %s", node.__name__, warning)
        PromptServer.instance.send_progress_text(warning, str(node.hidden.unique_id))
        return [], warning
