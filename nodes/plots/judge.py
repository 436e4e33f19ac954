"""The node that says how much of each LoRA of a pair is in a picture."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from ...ziplora_core.comfy_adapter.apply.sweep import Sampling
from ...ziplora_core.comfy_adapter.data.pictures import split_pictures
from ...ziplora_core.comfy_adapter.tools.judge import JudgeInputs, judge
from ...ziplora_core.comfy_adapter.tools.scores import ScoreInputs, score_each
from ...ziplora_core.plots import table
from ...ziplora_core.plots.judge import judged_rows, mean
from ...ziplora_core.plots.tables import csv_text
from ..shared.encoder_inputs import encoder_inputs
from ..shared.outputs import report_output
from ..shared.progress import log_warnings
from ..shared.sampling_inputs import progress_callback, sampling_inputs
from ..shared.training_inputs import unwrap_single
from ..shared.types import as_image, pair_input, theme_input, theme_of


class JudgePictures(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="JudgePictures",
            display_name="Judge Pictures",
            category="ZipLoRA/look",
            description="Says how much of the subject LoRA and of the style LoRA is in each image, "
            "by asking the two LoRAs: 0 is what the checkpoint draws, 1 what that LoRA alone "
            "draws, colours and place included. Use it to see how the amounts "
            "change over the strengths of one merge, not to choose between strengths, seeds or "
            "kinds of merge, and never as a measure of quality: a broken image can score high.",
            search_aliases=["ziplora", "lora strength", "how much lora", "score", "metrics"],
            is_output_node=True,
            is_input_list=True,
            inputs=[
                io.Model.Input("model", tooltip="The checkpoint, without the two LoRAs on it."),
                pair_input(),
                io.Vae.Input("vae", tooltip="The checkpoint's VAE."),
                io.Image.Input(
                    "images",
                    tooltip="The images to judge, as a batch or a list, all of one size. They "
                    "should be drawn at the same prompt with several strengths of one merge.",
                ),
                io.Conditioning.Input(
                    "positive",
                    tooltip="The encoded prompt the images were drawn at, with the trigger words "
                    "of both LoRAs.",
                ),
                io.Conditioning.Input(
                    "negative",
                    tooltip="The encoded negative prompt of the images, for the calibration.",
                ),
                *sampling_inputs("Seed of the first calibration image, and of the judging noise."),
                io.Int.Input(
                    "calibration_pictures",
                    default=4,
                    min=1,
                    max=64,
                    tooltip="Images to draw with the checkpoint, with the subject LoRA alone and "
                    "with the style LoRA alone: this many of each. They set the scores 0 and 1.",
                ),
                io.Int.Input(
                    "draws",
                    default=4,
                    min=1,
                    max=64,
                    tooltip="Noisy versions of every image, each predicted three times. More make "
                    "steadier scores and take more time.",
                ),
                *encoder_inputs(
                    "for a column with each image's CLIP-I. Needs style_images.",
                    "for a column with each image's DINO score. Needs subject_images.",
                ),
                theme_input(),
            ],
            outputs=[
                io.Float.Output("subject", tooltip="Mean subject score of the images."),
                io.Float.Output("style", tooltip="Mean style score of the images."),
                io.Image.Output("table", tooltip="The scores of every image, as an image."),
                io.String.Output("csv", tooltip="The scores as text, for a spreadsheet."),
                report_output(),
            ],
            hidden=[io.Hidden.unique_id],
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
        model, vae = values.pop("model"), values.pop("vae")
        encoders = {name: values.pop(name, None) for name in ("clip_vision", "dino")}
        pair, count, draws = (
            values.pop(name) for name in ("pair", "calibration_pictures", "draws")
        )
        pictures = split_pictures(images, "images")
        references = {
            name: split_pictures(given, name)
            for name, given in (("style_images", style_images), ("subject_images", subject_images))
            if given is not None
        }
        beside = score_each(ScoreInputs(pictures, **references, **encoders))
        how = Sampling(latent=None, **values)
        judged = judge(
            model, vae, JudgeInputs(pictures, pair, how, count, draws), progress_callback(cls)
        )
        log_warnings("JudgePictures", judged.report)
        rows = judged_rows(judged.pictures, beside)
        csv = csv_text(judged_rows(judged.pictures, beside, digits=7))
        return io.NodeOutput(
            mean([p.subject for p in judged.pictures]), mean([p.style for p in judged.pictures]),
            as_image(table(rows, theme=theme)), csv, judged.report,
            ui=ui.PreviewText(judged.report),
        )  # fmt: skip


NODES = [JudgePictures]
