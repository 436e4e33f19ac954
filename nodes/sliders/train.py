"""The nodes that train sliders from prompts, and from image pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from comfy_api.latest import io, ui
from comfy_execution.graph_utils import ExecutionBlocker
from torch import Tensor

from ...ziplora_core.comfy_adapter.folders import checkpoint_root
from ...ziplora_core.comfy_adapter.train.slider_effect import Effect
from ...ziplora_core.comfy_adapter.train.slider_tasks import (
    PicturePairs,
    PictureSliderTask,
    SliderInputs,
    SliderTask,
    TextSliderTask,
    refuse_equal_prompts,
)
from ...ziplora_core.comfy_adapter.train.sliders import train_slider
from ...ziplora_core.files import lora_from_tensors
from ...ziplora_core.files.writer import lora_model
from ...ziplora_core.plots import grid
from ...ziplora_core.sliders.options import (
    ACTIONS,
    TRAJECTORIES,
    PairSliderSettings,
    TextSliderSettings,
)
from ...ziplora_core.sliders.presets import PRESETS
from ...ziplora_core.training.protection import attempt, composed
from ..shared.before_run import checked, unless_linked
from ..shared.outputs import lora_output, loss_output, report_output
from ..shared.progress import followed, log_warnings
from ..shared.queued import Trainer
from ..shared.training_inputs import (
    checkpoint_inputs,
    memory_input,
    seed_input,
    slider_last_inputs,
    slider_lora_inputs,
)
from ..shared.types import OptionsType, SliderPairsType, as_image


def _outputs() -> list[Any]:
    return [
        lora_output(),
        loss_output(),
        report_output(),
        io.Image.Output(
            "effect", tooltip="Images from the same noise with the slider down, off and up."
        ),
    ]


def _text(name: str, tooltip: str, default: str = "", **others: Any) -> io.String.Input:
    return io.String.Input(name, multiline=True, default=default, tooltip=tooltip, **others)


class TrainConceptSlider(Trainer):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TrainConceptSlider",
            display_name="Train Concept Slider (words)",
            category="ZipLoRA/sliders",
            description="Trains a slider from prompts alone, without images: towards the positive "
            "prompt and away from the negative one (Gandikota et al. 2023).",
            search_aliases=["ziplora", "train slider", "concept sliders", "leco", "slider trainer"],
            inputs=[
                *checkpoint_inputs(vae=False),
                _text(
                    "target",
                    "The subject that the slider acts on, e.g. person. Empty: everything.",
                    PRESETS["age"].target,
                ),
                _text(
                    "positive",
                    "A prompt that describes more of the attribute.",
                    PRESETS["age"].positive,
                ),
                _text(
                    "negative",
                    "A prompt that describes less of the attribute.",
                    PRESETS["age"].negative,
                ),
                _text(
                    "neutral",
                    "The prompt the slider starts from. Empty: the target.",
                    advanced=True,
                ),
                _text(
                    "preserve",
                    "Concepts that the slider must not change, one per line (male, female). Each "
                    "step puts one of them in front of all prompts.",
                    PRESETS["age"].preserve,
                ),
                io.Float.Input(
                    "guidance",
                    advanced=True,
                    default=4.0,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    tooltip="η: at scale 1, the prediction for the target shifts by guidance × "
                    "(positive − negative).",
                ),
                io.Combo.Input(
                    "action",
                    advanced=True,
                    options=list(ACTIONS),
                    default="enhance",
                    tooltip="enhance: moves towards the positive prompt. erase: moves away from "
                    "it.",
                ),
                *slider_lora_inputs(2e-4, "The public implementation uses 2e-4."),
                io.Combo.Input(
                    "trajectory",
                    advanced=True,
                    options=list(TRAJECTORIES),
                    default="exact",
                    tooltip="exact: denoises a new image part of the way for every step, as "
                    "published. reused: eight steps share one partly denoised image; three times "
                    "as fast.",
                ),
                seed_input("Seed of the initial values, the noise and the order of samples."),
                memory_input("computes one sample and one prediction at a time"),
                OptionsType.Input("options", optional=True, tooltip="From Training Options."),
                io.Vae.Input(
                    "vae",
                    optional=True,
                    tooltip="Decodes the images that show the effect. Without it, their colours "
                    "are rough.",
                ),
                *slider_last_inputs(),
            ],
            outputs=_outputs(),
            hidden=[io.Hidden.unique_id, io.Hidden.extra_pnginfo, io.Hidden.prompt],
        )

    @classmethod
    def validate_inputs(
        cls, target: str | None = None, positive: str | None = None, negative: str | None = None
    ) -> bool | str:
        return checked(unless_linked(refuse_equal_prompts, target, positive, negative))

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
        inputs = _inputs(model, clip, vae, start_lora)
        return _train(cls, inputs, TextSliderTask(settings))


class TrainConceptSliderFromImages(Trainer):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TrainConceptSliderFromImages",
            display_name="Train Concept Slider (image pairs)",
            category="ZipLoRA/sliders",
            description="Trains a slider from image pairs: the slider learns the difference "
            "between the low and the high images (Gandikota et al. 2023, eq. 9).",
            search_aliases=["ziplora", "train slider", "visual slider", "before after"],
            inputs=[
                *checkpoint_inputs(),
                SliderPairsType.Input("pairs", tooltip="From Concept Slider Image Pairs."),
                _text("positive", "A prompt for the high images; may be empty."),
                _text("neutral", "A prompt for the low images; may be empty."),
                *slider_lora_inputs(
                    1e-5,
                    "1e-5 works with the public implementation; its 2e-4 often fails.",
                ),
                seed_input("Seed of the initial values, the noise and the order of samples."),
                memory_input("processes low and high images in turn"),
                OptionsType.Input("options", optional=True, tooltip="From Training Options."),
                *slider_last_inputs(),
            ],
            outputs=_outputs(),
            hidden=[io.Hidden.unique_id, io.Hidden.extra_pnginfo, io.Hidden.prompt],
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
        task = PictureSliderTask(pairs, PairSliderSettings(**widgets))
        return _train(cls, _inputs(model, clip, vae, start_lora), task)


def _inputs(model: Any, clip: Any, vae: Any | None, start_lora: Any | None) -> SliderInputs:
    start = None
    if start_lora is not None:
        start = lora_from_tensors(start_lora, name="start_lora", bias_and_norm="refuse")
    return SliderInputs(model, clip, vae, start)


def _train(node: type[io.ComfyNode], inputs: SliderInputs, task: SliderTask) -> io.NodeOutput:
    with followed(node, task.settings.steps) as callbacks:
        result = train_slider(inputs, task, checkpoint_root(), callbacks)
        notes: list[str] = []
        nothing = ExecutionBlocker(None)  # blocks only the nodes connected to the effect
        effect = attempt("drawing the effect", lambda: _shown(result.effect), notes, nothing)
        report = composed(lambda: result.report, notes)
        log_warnings(node.__name__, report)
        return io.NodeOutput(
            lora_model(result.modules, result.metadata, result.record.origin),
            {"loss": [], **result.record.history},
            report,
            nothing if effect is None else effect,
            ui=ui.PreviewText(report),
        )


def _shown(effect: Effect | None) -> Tensor | None:
    """Put the images of an effect side by side; None if no effect could be drawn."""
    if effect is None:
        return None
    far = effect.scale
    return as_image(grid(effect.pictures, [f"{-far:g}", "0", f"{far:g}"]))


NODES = [TrainConceptSlider, TrainConceptSliderFromImages]
