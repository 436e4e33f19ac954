"""The node that loads training images from a folder."""

from __future__ import annotations

from contextlib import suppress

from comfy_api.latest import io, ui

from ...ziplora_core.comfy_adapter.data.picture_file import parse_colour
from ...ziplora_core.comfy_adapter.data.picture_folder import folder_fingerprint, read_pictures
from ...ziplora_core.comfy_adapter.folders import input_subfolders, listed_subfolder
from ...ziplora_core.errors import ZipLoRAError
from ..shared.before_run import checked, unless_linked
from ..shared.outputs import report_output
from ..shared.picked import picked_names
from ..shared.progress import log_warnings


class LoadTrainingImages(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoadTrainingImages",
            display_name="Load Training Images (folder)",
            category="ZipLoRA/train",
            description="Reads all images of a folder in ComfyUI's input folder, each in its own "
            "size, and their captions from text files of the same name or from a table.",
            search_aliases=["ziplora", "load folder", "dataset", "captions", "training images"],
            inputs=[
                io.Combo.Input(
                    "folder",
                    options=input_subfolders(),
                    tooltip="A folder in ComfyUI's input folder. Press R after adding one.",
                ),
                io.Color.Input(
                    "background",
                    default="#ffffff",
                    optional=True,
                    tooltip="The colour under transparent parts of images.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    "images", is_output_list=True, tooltip="A list of images, each in its own size."
                ),
                io.String.Output(
                    "captions",
                    is_output_list=True,
                    tooltip="One caption per image; a caption may be empty.",
                ),
                report_output(),
            ],
        )

    @classmethod
    def validate_inputs(
        cls, folder: str | None = None, background: str | None = None
    ) -> bool | str:
        return checked(lambda: _picked(folder), unless_linked(parse_colour, background))

    @classmethod
    def fingerprint_inputs(cls, folder: str = "", background: str = "") -> list[object]:
        return folder_fingerprint(listed_subfolder(folder))

    @classmethod
    def execute(cls, folder: str, background: str = "#ffffff") -> io.NodeOutput:
        read = read_pictures(listed_subfolder(folder), background)
        log_warnings("LoadTrainingImages", read.report)
        captions = read.captions or [""] * len(read.pictures)
        return io.NodeOutput(read.pictures, captions, read.report, ui=ui.PreviewText(read.report))


def _picked(folder: str | None) -> bool | str:
    """Check the folder; the input folder is walked through only for the advice on one not there."""
    if folder is None:
        return True
    with suppress(ZipLoRAError):
        listed_subfolder(str(folder))
        return True
    return picked_names(input_subfolders(), "ComfyUI's input folder", {"folder": folder})


NODES = [LoadTrainingImages]
