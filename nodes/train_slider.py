"""Sliders from words, and from pictures before and after."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from comfy_api.latest import io, ui
from comfy_execution.graph_utils import ExecutionBlocker
from torch import Tensor

from ..ziplora_core.comfy_adapter.paths import checkpoint_root
from ..ziplora_core.comfy_adapter.slider_effect import Effect
from ..ziplora_core.comfy_adapter.slider_lessons import (
    Lesson,
    PairLesson,
    PicturePairs,
    SliderStudio,
    TextLesson,
)
from ..ziplora_core.comfy_adapter.slider_session import train_slider
from ..ziplora_core.files import lora_from_tensors
from ..ziplora_core.files.writer import lora_model
from ..ziplora_core.keeping import attempt, composed
from ..ziplora_core.options import (
    ACTIONS,
    TRAJECTORIES,
    PairSliderSettings,
    TextSliderSettings,
)
from ..ziplora_core.plots import grid
from ..ziplora_core.slider_presets import PRESETS
from .outputs import lora_output, loss_output, report_output
from .progress import followed, log_warnings
from .training_inputs import (
    memory_input,
    seed_input,
    slider_last_inputs,
    slider_lora_inputs,
)
from .types import OptionsType, SliderPairsType, as_image


def _outputs() -> list[Any]:
    return [
        lora_output(),
        loss_output(),
        report_output(),
        io.Image.Output("effect", tooltip="The same noise with the slider down, off and up."),
    ]


def _text(name: str, tooltip: str, default: str = "", **others: Any) -> io.String.Input:
    return io.String.Input(name, multiline=True, default=default, tooltip=tooltip, **others)


class TrainConceptSlider(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TrainConceptSlider",
            display_name="Train Concept Slider (words)",
            category="ZipLoRA/sliders",
            description="Trains a slider from words alone: from one prompt's end to the other's, "
            "without pictures (Gandikota et al. 2023).",
            search_aliases=["ziplora", "train slider", "concept sliders", "leco", "slider trainer"],
            inputs=[
                io.Model.Input("model", tooltip="An SDXL checkpoint. LoRAs on it are part of it."),
                io.Clip.Input("clip", tooltip="The checkpoint's CLIP."),
                _text(
                    "target",
                    "What the slider works on, e.g. person. Empty: everything.",
                    PRESETS["age"].target,
                ),
                _text("positive", "What more of it looks like.", PRESETS["age"].positive),
                _text("negative", "What less of it looks like.", PRESETS["age"].negative),
                _text("neutral", "Where the slider starts from. Empty: the target."),
                _text(
                    "preserve",
                    "What it must not change, a concept a line (male, female): each is put before "
                    "the prompts in turn.",
                    PRESETS["age"].preserve,
                ),
                io.Float.Input(
                    "guidance",
                    default=4.0,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    tooltip="η: how much further than the prompts the slider goes at 1.",
                ),
                io.Combo.Input(
                    "action",
                    options=list(ACTIONS),
                    default="enhance",
                    tooltip="enhance: towards the positive prompt. erase: away from it.",
                ),
                *slider_lora_inputs(2e-4, "2e-4 is the public implementation's."),
                io.Combo.Input(
                    "trajectory",
                    options=list(TRAJECTORIES),
                    default="exact",
                    tooltip="exact: a new half-drawn picture for every step, as published. reused: "
                    "eight steps share one, three times as fast.",
                ),
                seed_input("Of the slider's start, noise and order."),
                memory_input("takes one sample and one prediction at a time"),
                OptionsType.Input("options", optional=True, tooltip="From Training Options."),
                io.Vae.Input(
                    "vae",
                    optional=True,
                    tooltip="To see the effect by. Without it the colours are rough.",
                ),
                *slider_last_inputs(),
            ],
            outputs=_outputs(),
            hidden=[io.Hidden.unique_id, io.Hidden.extra_pnginfo],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        clip: Any,
        vae: Any | None = None,
        start_lora: Any | None = None,
        **widgets: Any,
    ) -> io.NodeOutput:
        settings = TextSliderSettings(**widgets)
        studio = _studio(model, clip, vae, start_lora)
        return _train(cls, studio, TextLesson(settings))


class TrainConceptSliderFromImages(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TrainConceptSliderFromImages",
            display_name="Train Concept Slider (image pairs)",
            category="ZipLoRA/sliders",
            description="Trains a slider from pictures before and after: what the pairs differ in "
            "(Gandikota et al. 2023, eq. 9).",
            search_aliases=["ziplora", "train slider", "visual slider", "before after"],
            inputs=[
                io.Model.Input("model", tooltip="An SDXL checkpoint. LoRAs on it are part of it."),
                io.Clip.Input("clip", tooltip="The checkpoint's CLIP."),
                io.Vae.Input("vae", tooltip="The checkpoint's VAE."),
                SliderPairsType.Input("pairs", tooltip="From Concept Slider Image Pairs."),
                _text("positive", "What the high pictures show; may be empty."),
                _text("neutral", "What the low pictures show; may be empty."),
                *slider_lora_inputs(
                    1e-5,
                    "1e-5 is what works with the public implementation; its 2e-4 often does not.",
                ),
                seed_input("Of the slider's start, noise and order."),
                memory_input("takes low and high pictures in turn"),
                OptionsType.Input("options", optional=True, tooltip="From Training Options."),
                *slider_last_inputs(),
            ],
            outputs=_outputs(),
            hidden=[io.Hidden.unique_id, io.Hidden.extra_pnginfo],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        clip: Any,
        vae: Any,
        pairs: Sequence[PicturePairs],
        start_lora: Any | None = None,
        **widgets: Any,
    ) -> io.NodeOutput:
        lesson = PairLesson(pairs, PairSliderSettings(**widgets))
        return _train(cls, _studio(model, clip, vae, start_lora), lesson)


def _studio(model: Any, clip: Any, vae: Any | None, start_lora: Any | None) -> SliderStudio:
    start = None
    if start_lora is not None:
        start = lora_from_tensors(start_lora, name="start_lora", bias_and_norm="refuse")
    return SliderStudio(model, clip, vae, start)


def _train(node: type[io.ComfyNode], studio: SliderStudio, lesson: Lesson) -> io.NodeOutput:
    with followed(node, lesson.settings.steps) as watch:
        result = train_slider(studio, lesson, checkpoint_root(), watch)
        notes: list[str] = []
        nothing = ExecutionBlocker(None)  # what follows it does not run, and the rest does
        effect = attempt("drawing the effect", lambda: _shown(result.effect), notes, nothing)
        report = composed(lambda: result.report, notes)
        log_warnings(node.__name__, report)
        return io.NodeOutput(
            lora_model(result.modules, result.metadata),
            {"loss": [], **result.record.history},
            report,
            nothing if effect is None else effect,
            ui=ui.PreviewText(report),
        )


def _shown(effect: Effect | None) -> Tensor | None:
    """Put the pictures of an effect side by side; None where it could not be looked at."""
    if effect is None:
        return None
    far = effect.scale
    return as_image(grid(effect.pictures, [f"{-far:g}", "0", f"{far:g}"]))


NODES = [TrainConceptSlider, TrainConceptSliderFromImages]
