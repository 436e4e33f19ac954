"""Nodes that find the strengths of a merge by drawing and judging, and that let a person choose."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from ...ziplora_core.comfy_adapter.apply.sweep import Sampling
from ...ziplora_core.comfy_adapter.data.pictures import split_pictures
from ...ziplora_core.comfy_adapter.tools.find_inputs import FindInputs
from ...ziplora_core.comfy_adapter.tools.find_merge import find_merge
from ...ziplora_core.comfy_adapter.tools.scores import ScoreInputs
from ...ziplora_core.merging.strengths import parse_strengths
from ...ziplora_core.plots.found import FoundMerges, found_rows, sheet, small
from ...ziplora_core.plots.tables import csv_text
from ..shared.before_run import checked, unless_linked
from ..shared.encoder_inputs import encoder_inputs
from ..shared.outputs import merged_output, report_output
from ..shared.preview import preview
from ..shared.progress import followed, log_warnings
from ..shared.sampling_inputs import drawing_inputs, negative_strength_input, sampling_inputs
from ..shared.training_inputs import unwrap_single
from ..shared.types import FoundMergesType, MergedLoRAType, as_image

_DEFAULT = "1/1, 0.9/0.7, 0.8/0.8, 1/0.8, 0.8/1, 0.7/0.7, 1/0.6, 1.2/0.8"


class FindMerge(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FindMerge",
            display_name="Find the Merge",
            category="ZipLoRA/merge",
            description="Tries a merge at several content and style strengths, as one does by "
            "hand: draws a few images with each, judges how much of subject and style is in them, "
            "drops the weaker half and draws more with the rest. Gives the merge at the best "
            "strengths, which by the judge's measure is never less than 1 and 1. Without image "
            "encoders the judge is weak: look at the sheet, and take another one by a click with "
            "Choose Merge.",
            search_aliases=["ziplora", "best strengths", "auto strength", "tune merge", "search"],
            is_input_list=True,
            inputs=[
                io.Model.Input("model", tooltip="The checkpoint, without the merge on it."),
                MergedLoRAType.Input(
                    "merged",
                    tooltip="The merge to search, from ZipLoRA Optimize or Merge LoRAs. It must "
                    "still have a content part and a style part.",
                ),
                *drawing_inputs(),
                io.String.Input(
                    "strengths",
                    default=_DEFAULT,
                    multiline=True,
                    tooltip="The pairs to try: content strength / style strength, with commas "
                    "between the pairs. 1/1 is always tried.",
                ),
                io.Int.Input(
                    "pictures",
                    default=32,
                    min=1,
                    max=10000,
                    tooltip="The most images to draw for all pairs together; twelve more set "
                    "the scale. With other_merged, each kind of merge gets half.",
                ),
                io.Float.Input(
                    "minutes",
                    default=0.0,
                    min=0.0,
                    max=10000.0,
                    step=0.5,
                    tooltip="After this time, the search ends with the best so far. 0: no limit.",
                ),
                *sampling_inputs("Seed of the first image of each pair, and of the judging noise."),
                negative_strength_input(
                    ", as in "
                    "Apply Merged LoRA: 0 lets CFG lead towards subject and style. Connect the "
                    "output of this name to Apply Merged LoRA.", optional=False
                ),
                MergedLoRAType.Input(
                    "other_merged",
                    optional=True,
                    tooltip="Another kind of merge of the same LoRAs, to search and show beside. "
                    "It is chosen only if both image encoders are connected and score it higher.",
                ),
                *encoder_inputs(
                    "which then judges the style. Needs style_images, and dino with "
                    "subject_images.",
                    "which then judges the subject. Needs subject_images, and clip_vision with "
                    "style_images.",
                ),
            ],
            outputs=[
                merged_output(),
                io.Float.Output(
                    "negative_strength",
                    tooltip="The one of the input, for negative_strength of Apply Merged LoRA.",
                ),
                FoundMergesType.Output("found", tooltip="All that was tried, for Choose Merge."),
                io.Image.Output(
                    "sheet", tooltip="The images of all pairs with their scores, the best first."
                ),
                io.String.Output("csv", tooltip="The scores as text, for a spreadsheet."),
                report_output(),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.extra_pnginfo, io.Hidden.prompt],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, strengths: list[str | None] | None = None) -> bool | str:
        return checked(*(unless_linked(parse_strengths, text) for text in strengths or ()))

    @classmethod
    def execute(
        cls,
        style_images: list[Any] | None = None,
        subject_images: list[Any] | None = None,
        **single: Any,
    ) -> io.NodeOutput:
        values = unwrap_single(single)
        model, vae, strengths = (values.pop(name) for name in ("model", "vae", "strengths"))
        merges = {n: values.pop(n) for n in ("merged", "other_merged") if values.get(n) is not None}
        encoders = {name: values.pop(name, None) for name in ("clip_vision", "dino")}
        settings = {n: values.pop(n) for n in ("pictures", "minutes", "negative_strength")}
        references = {
            name: split_pictures(given, name)
            for name, given in (("style_images", style_images), ("subject_images", subject_images))
            if given is not None
        }
        inputs = FindInputs(
            merges,
            parse_strengths(strengths),
            Sampling(**values),
            **settings,
            references=ScoreInputs((), **references, **encoders),
        )
        with followed(cls, inputs.planned, saves=False) as callbacks:
            found = find_merge(model, vae, inputs, callbacks)
            log_warnings("FindMerge", found.report)
            rows = found.merges
            return io.NodeOutput(
                rows.rows[0].merged, rows.negative_strength, rows, as_image(sheet(rows)),
                csv_text(found_rows(rows)), found.report, ui=ui.PreviewText(found.report),
            )  # fmt: skip


class ChooseMerge(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ChooseMerge",
            display_name="Choose Merge",
            category="ZipLoRA/merge",
            description="Shows an image of every pair of strengths that Find the Merge tried. "
            "Click one to take it. Choosing again runs only this node and those after it.",
            search_aliases=["ziplora", "pick merge", "select merge", "choose strengths"],
            is_output_node=True,
            inputs=[
                FoundMergesType.Input("found", tooltip="From Find the Merge."),
                io.Int.Input(
                    "choice",
                    default=0,
                    min=0,
                    max=10000,
                    tooltip="The row of the sheet to take; 0 is the one that Find the Merge chose. "
                    "A click on an image sets it.",
                ),
                io.Boolean.Input(
                    "blind",
                    default=False,
                    optional=True,
                    tooltip="Shows the images in another order, without strengths and scores, so "
                    "that you judge before you know.",
                ),
            ],
            outputs=[
                merged_output(),
                io.Float.Output(
                    "negative_strength",
                    tooltip="The one it was drawn with, for negative_strength of Apply Merged "
                    "LoRA.",
                ),
                io.Image.Output("images", tooltip="Its first images, up to four."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, found: FoundMerges, choice: int, blind: bool = False) -> io.NodeOutput:
        chosen = found.chosen(choice)
        shown = _shown(cls, found, blind)
        return io.NodeOutput(chosen.merged, found.negative_strength, chosen.images(), ui=shown)


def _shown(node: type[io.ComfyNode], found: FoundMerges, blind: bool) -> dict[str, Any]:
    """Save the first image of every row for js/merge_sheet.js; return what it shows, in order."""
    order = found.shuffled() if blind else range(1, len(found.rows) + 1)
    labels = found.labels()
    images = [small(found.rows[number - 1].images()[:1]) for number in order]
    files, warning = preview(node, *images)
    if warning:
        return ui.PreviewText(warning).as_dict()
    rows = [
        {"number": number, "label": "" if blind else labels[number - 1], **file}
        for number, file in zip(order, files, strict=True)
    ]
    return {"ziplora_merge_sheet": [{"blind": blind, "rows": rows}]}


NODES = [FindMerge, ChooseMerge]
