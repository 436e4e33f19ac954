"""The node that loads training images from a folder."""

from __future__ import annotations

from comfy_api.latest import io, ui

from ...ziplora_core.comfy_adapter.data.picture_folder import (
    caption_file,
    picture_files,
    read_pictures,
)
from ...ziplora_core.comfy_adapter.folders import input_subfolder, input_subfolders
from ..shared.outputs import report_output
from ..shared.picked import picked_names


class LoadTrainingImages(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoadTrainingImages",
            display_name="Load Training Images (folder)",
            category="ZipLoRA/train",
            description="Reads all images of a folder in ComfyUI's input folder, each in its own "
            "size, and their captions from .txt files of the same name.",
            search_aliases=["ziplora", "load folder", "dataset", "captions", "training images"],
            inputs=[
                io.Combo.Input(
                    "folder",
                    options=input_subfolders(),
                    tooltip="A folder in ComfyUI's input folder. Press R after adding one.",
                )
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
    def validate_inputs(cls, folder: str | None = None) -> bool | str:
        return picked_names(input_subfolders(), "ComfyUI's input folder", {"folder": folder})

    @classmethod
    def fingerprint_inputs(cls, folder: str = "") -> list[object]:
        files = picture_files(input_subfolder(folder))
        beside = [path for f in files if (path := caption_file(f)).exists()]
        stats = [(path.name, path.stat()) for path in (*files, *beside)]
        return [[name, stat.st_mtime_ns, stat.st_size] for name, stat in stats]

    @classmethod
    def execute(cls, folder: str) -> io.NodeOutput:
        read = read_pictures(input_subfolder(folder))
        sizes = sorted({f"{p.shape[2]} × {p.shape[1]}" for p in read.pictures})
        count = "1 picture" if len(read.pictures) == 1 else f"{len(read.pictures)} pictures"
        captions = "one caption each" if read.captions else "no captions: the prompt is used"
        report = f"{count} of {', '.join(sizes)}\n{captions}"
        captions = read.captions or [""] * len(read.pictures)
        return io.NodeOutput(read.pictures, captions, report, ui=ui.PreviewText(report))


NODES = [LoadTrainingImages]
