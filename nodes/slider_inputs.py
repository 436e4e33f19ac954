"""What sliders are trained from: picture pairs, and prompts that are known to work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from comfy_api.latest import io

from ..ziplora_core.comfy_adapter.slider_lessons import PicturePairs, paired_pictures
from ..ziplora_core.slider_presets import PRESETS
from .training_inputs import one_of_each
from .types import SliderPairsType


class ConceptSliderImagePairs(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ConceptSliderImagePairs",
            display_name="Concept Slider Image Pairs",
            category="ZipLoRA/sliders",
            description="Pictures before and after: the same things with less and with more of "
            "what the slider is to change. Four to six pairs are enough.",
            search_aliases=["ziplora", "before after", "image pairs", "visual slider"],
            is_input_list=True,
            inputs=[
                io.Image.Input("low_images", tooltip="With less of it; a batch or a list."),
                io.Image.Input("high_images", tooltip="The same with more, in the same order."),
                io.Float.Input(
                    "scale",
                    default=1.0,
                    min=0.05,
                    max=10.0,
                    step=0.05,
                    tooltip="Where on the slider these are: low at −scale, high at +scale.",
                ),
                SliderPairsType.Input(
                    "previous",
                    optional=True,
                    tooltip="Pairs at another scale, e.g. 2 for stronger ones.",
                ),
            ],
            outputs=[
                SliderPairsType.Output("pairs", tooltip="For the training, or the next pairs.")
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
        single = one_of_each({"scale": scale, "previous": previous})
        before = single.get("previous", ())
        return io.NodeOutput((*before, paired_pictures(low_images, high_images, single["scale"])))


class SliderPrompts(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SliderPrompts",
            display_name="Slider Prompts (presets)",
            category="ZipLoRA/sliders",
            description="Prompts for the kinds of slider that the paper shows, to connect to Train "
            "Concept Slider.",
            search_aliases=["ziplora", "slider presets", "age slider", "detail slider"],
            inputs=[
                io.Combo.Input(
                    "preset",
                    options=list(PRESETS),
                    default="age",
                    tooltip="Which slider to train; the help page shows all prompts.",
                )
            ],
            outputs=[
                io.String.Output(name, tooltip=f"For the training's {name}.")
                for name in ("target", "positive", "negative", "preserve")
            ],
        )

    @classmethod
    def execute(cls, preset: str) -> io.NodeOutput:
        chosen = PRESETS[preset]
        return io.NodeOutput(chosen.target, chosen.positive, chosen.negative, chosen.preserve)


NODES = [ConceptSliderImagePairs, SliderPrompts]
