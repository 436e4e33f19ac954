"""Training data for sliders: image pairs, and ready-made prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from comfy_api.latest import io

from ...ziplora_core.comfy_adapter.train.slider_tasks import PicturePairs, paired_pictures
from ...ziplora_core.sliders.presets import PRESETS
from ..shared.training_inputs import unwrap_single
from ..shared.types import SliderPairsType


class ConceptSliderImagePairs(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ConceptSliderImagePairs",
            display_name="Concept Slider Image Pairs",
            category="ZipLoRA/sliders",
            description="Collects pairs of before and after images: both show the same thing, with "
            "less and with more of the attribute that the slider is to change. Four to six pairs "
            "are enough.",
            search_aliases=["ziplora", "before after", "image pairs", "visual slider"],
            is_input_list=True,
            inputs=[
                io.Image.Input(
                    "low_images",
                    tooltip="The images with less of the attribute, as a batch or a list.",
                ),
                io.Image.Input(
                    "high_images",
                    tooltip="The images with more of the attribute: same number, order and sizes.",
                ),
                io.Float.Input(
                    "scale",
                    default=1.0,
                    min=0.05,
                    max=10.0,
                    step=0.05,
                    tooltip="Position of these pairs on the slider: low images at −scale, high "
                    "images at +scale.",
                ),
                SliderPairsType.Input(
                    "previous",
                    optional=True,
                    tooltip="Pairs at another scale, from another Concept Slider Image Pairs: e.g. "
                    "2 for stronger differences.",
                ),
            ],
            outputs=[
                SliderPairsType.Output(
                    "pairs",
                    tooltip="For Train Concept Slider (image pairs), or previous of the next of "
                    "these nodes.",
                )
            ],
        )

    @classmethod
    def execute(
        cls,
        low_images: list[Any],
        high_images: list[Any],
        scale: list[float],
        previous: list[Sequence[PicturePairs]] | None = None,
    ) -> io.NodeOutput:
        single = unwrap_single({"scale": scale, "previous": previous})
        before = single.get("previous", ())
        return io.NodeOutput((*before, paired_pictures(low_images, high_images, single["scale"])))


class SliderPrompts(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SliderPrompts",
            display_name="Slider Prompts (presets)",
            category="ZipLoRA/sliders",
            description="Ready-made prompts for the kinds of slider shown in the Concept Sliders "
            "paper, for Train Concept Slider (words).",
            search_aliases=["ziplora", "slider presets", "age slider", "detail slider"],
            inputs=[
                io.Combo.Input(
                    "preset",
                    options=list(PRESETS),
                    default="age",
                    tooltip="The slider to train. The help page lists all prompts.",
                )
            ],
            outputs=[
                io.String.Output(name, tooltip=f"For {name} of Train Concept Slider (words).")
                for name in ("target", "positive", "negative", "preserve")
            ],
        )

    @classmethod
    def execute(cls, preset: str) -> io.NodeOutput:
        chosen = PRESETS[preset]
        return io.NodeOutput(chosen.target, chosen.positive, chosen.negative, chosen.preserve)


NODES = [ConceptSliderImagePairs, SliderPrompts]
