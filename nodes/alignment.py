"""The node that measures pictures against a style, a subject and a prompt."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui
from comfy_execution.graph_utils import ExecutionBlocker

from ..ziplora_core.alignment import HEADING, Alignment, as_csv
from ..ziplora_core.comfy_adapter.alignment_scores import Compared, score
from ..ziplora_core.comfy_adapter.pictures import split_pictures
from ..ziplora_core.plots import THEMES, table
from .outputs import report_output
from .training_inputs import one_of_each
from .types import as_image, theme_input


class AlignmentScores(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AlignmentScores",
            display_name="Alignment Scores",
            category="ZipLoRA/look",
            description="Measures how near pictures are to a style (CLIP-I), to a subject (DINO) "
            "and to a prompt (CLIP-T), as in the ZipLoRA paper's Table 2.",
            search_aliases=["ziplora", "clip score", "clip-i", "clip-t", "dino score", "metrics"],
            is_output_node=True,
            is_input_list=True,
            inputs=[
                io.Image.Input("images", tooltip="What was drawn; a batch or a list."),
                io.ClipVision.Input(
                    "clip_vision",
                    optional=True,
                    tooltip="A CLIP vision model, for style and text. For text it has to be "
                    "ViT-bigG/14.",
                ),
                io.Image.Input(
                    "style_images", optional=True, tooltip="Pictures in the style; needs "
                    "clip_vision.",
                ),
                io.ClipVision.Input(
                    "dino", optional=True, tooltip="A DINOv2 model, from Load CLIP Vision."
                ),
                io.Image.Input(
                    "subject_images", optional=True, tooltip="Pictures of the subject; needs dino."
                ),
                io.Clip.Input(
                    "clip",
                    optional=True,
                    tooltip="The checkpoint's CLIP, without LoRAs on it; for prompt.",
                ),
                io.String.Input(
                    "prompt",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="What was asked for, in plain words; needs clip and a bigG "
                    "clip_vision. Empty: not compared.",
                ),
                theme_input(),
            ],
            outputs=[
                io.Float.Output("style_alignment", tooltip="CLIP-I, mean cosine with the style's."),
                io.Float.Output(
                    "subject_alignment", tooltip="DINO, mean cosine with the subject's."
                ),
                io.Float.Output("text_alignment", tooltip="CLIP-T, mean cosine with the prompt."),
                io.Image.Output("table", tooltip="The scores as a picture."),
                io.String.Output("csv", tooltip="The scores as text, for a spreadsheet."),
                report_output(),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls,
        images: list[Any],
        style_images: list[Any] | None = None,
        subject_images: list[Any] | None = None,
        **single: Any,
    ) -> io.NodeOutput:
        values = one_of_each(single)
        theme = THEMES[values.pop("theme", "dark")]
        values["prompt"] = values.get("prompt", "").strip()
        pictures = {
            name: split_pictures(given, name)
            for name, given in (
                ("images", images),
                ("style_images", style_images),
                ("subject_images", subject_images),
            )
            if given is not None
        }
        scores = score(Compared(**pictures, **values))
        drawn = table([HEADING, *(row.cells() for row in scores.rows)], theme=theme)
        lines = [
            f"{row.metric}: {row.cosine:.4f}, mean of {row.pairs} pairs, {row.encoder}"
            for row in scores.rows
        ]
        report = "\n".join([*lines, *scores.notes])
        return io.NodeOutput(
            _value(scores.style, "style_alignment", "style_images"),
            _value(scores.subject, "subject_alignment", "subject_images"),
            _value(scores.text, "text_alignment", "prompt"),
            as_image(drawn), as_csv(scores.rows), report, ui=ui.PreviewText(report),
        )  # fmt: skip


def _value(row: Alignment | None, output: str, needs: str) -> float | ExecutionBlocker:
    """Give the cosine, or an error that shows only where the output is used."""
    if row is not None:
        return row.cosine
    return ExecutionBlocker(
        f"{output}: found nothing that was compared, expected {needs}. Give {needs} to Alignment "
        "Scores."
    )


NODES = [AlignmentScores]
