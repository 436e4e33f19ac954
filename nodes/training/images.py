"""The node that loads training images from a folder."""

from __future__ import annotations

from pathlib import Path

import folder_paths
from comfy_api.latest import io, ui

from ...ziplora_core.comfy_adapter.data.picture_folder import files_of, read_pictures
from ..shared.outputs import report_output
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
                    options=folder_paths.get_input_subfolders(),
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
    def fingerprint_inputs(cls, folder: str = "", background: str = "") -> list[object]:
        files = [path for path in files_of(_folder(folder)) if path.is_file()]
        stats = [(path.name, path.stat()) for path in files]
        return [[name, stat.st_mtime_ns, stat.st_size] for name, stat in stats]

    @classmethod
    def execute(cls, folder: str, background: str = "#ffffff") -> io.NodeOutput:
        read = read_pictures(_folder(folder), background)
        log_warnings("LoadTrainingImages", read.report)
        captions = read.captions or [""] * len(read.pictures)
        return io.NodeOutput(read.pictures, captions, read.report, ui=ui.PreviewText(read.report))


def _folder(name: str) -> Path:
    return Path(folder_paths.get_input_directory()) / name


NODES = [LoadTrainingImages]
