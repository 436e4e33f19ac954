"""The node that scores images against a style, a subject and a prompt."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui
from comfy_execution.graph_utils import ExecutionBlocker

from ...ziplora_core.comfy_adapter.data.pictures import split_pictures
from ...ziplora_core.comfy_adapter.tools.scores import ScoreInputs, score
from ...ziplora_core.plots import table
from ...ziplora_core.plots.scores import HEADING, Alignment, as_csv
from ..shared.encoder_inputs import encoder_inputs
from ..shared.outputs import report_output
from ..shared.training_inputs import unwrap_single
from ..shared.types import as_image, theme_input, theme_of


class AlignmentScores(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AlignmentScores",
            display_name="Alignment Scores",
            category="ZipLoRA/look",
            description="Measures how close generated images are to a style (CLIP-I), to a subject "
            "(DINO) and to a prompt (CLIP-T), as in the ZipLoRA paper's Table 2.",
            search_aliases=["ziplora", "clip score", "clip-i", "clip-t", "dino score", "metrics"],
            is_output_node=True,
            is_input_list=True,
            inputs=[
                io.Image.Input("images", tooltip="The generated images, as a batch or a list."),
                *encoder_inputs(
                    "for style_images and prompt. For prompt it must be ViT-bigG/14.",
                    "for subject_images.",
                ),
                io.Clip.Input(
                    "clip",
                    optional=True,
                    tooltip="The checkpoint's CLIP without LoRAs on it, for prompt.",
                ),
                io.String.Input(
                    "prompt",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="A description of the requested image in plain words, without trigger "
                    "words. Needs clip and a bigG clip_vision. Empty: not compared.",
                ),
                theme_input(),
            ],
            outputs=[
                io.Float.Output(
                    "style_alignment", tooltip="CLIP-I: mean cosine with the style images."
                ),
                io.Float.Output(
                    "subject_alignment", tooltip="DINO: mean cosine with the subject images."
                ),
                io.Float.Output("text_alignment", tooltip="CLIP-T: mean cosine with the prompt."),
                io.Image.Output("table", tooltip="The table of scores, as an image."),
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
        values = unwrap_single(single)
        theme = theme_of(values.pop("theme", "page"))
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
        scores = score(ScoreInputs(**pictures, **values))
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
    """Return the cosine, or an error that is raised only where the output is used."""
    if row is not None:
        return row.cosine
    return ExecutionBlocker(
        f"{output}: found nothing that was compared, expected {needs}. Give {needs} to Alignment "
        "Scores."
    )


NODES = [AlignmentScores]
