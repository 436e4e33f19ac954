"""Nodes that put sliders on a model and compare their scales."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from ...ziplora_core.comfy_adapter.apply.slider import check_window, with_slider
from ...ziplora_core.comfy_adapter.apply.sweep import Sampling, Swept, parse_scales, sweep
from ...ziplora_core.sliders.metadata import slider_use
from ..shared.before_run import UNLINKED, checked, unless_linked
from ..shared.lora_inputs import (
    NONE,
    check_either,
    file_fingerprint,
    lora_file_input,
    picked_files,
    read_either,
)
from ..shared.outputs import grid_outputs
from ..shared.progress import log_warnings
from ..shared.sampling_inputs import as_grid, drawing_inputs, progress_callback, sampling_inputs
from ..shared.types import theme_input

_AS_THE_FIRST = -1.0
"""The value that stands for the first slider's percent."""


def _percent_input(name: str, default: float, what: str) -> io.Float.Input:
    return io.Float.Input(
        f"{name}_percent", default=default, min=0.0, max=1.0, step=0.001, tooltip=what
    )


def _window_inputs() -> list[Any]:
    return [
        _percent_input(
            "start",
            0.25,
            "When the slider starts to act, as a share of the sampling; 0 is from the first step "
            "on. A later start keeps more of the image; the paper uses 0.15 to 0.25, and 0.5 for "
            "real photographs.",
        ),
        _percent_input("end", 1.0, "When the slider stops acting, as a share of the sampling."),
    ]


def _second_window_inputs() -> list[Any]:
    return [
        io.Float.Input(
            f"second_{name}_percent",
            default=_AS_THE_FIRST,
            min=_AS_THE_FIRST,
            max=1.0,
            step=0.001,
            optional=True,
            advanced=True,
            tooltip=f"When the second slider {verb}; −1 takes the value of the first slider.",
        )
        for name, verb in (("start", "starts to act"), ("end", "stops acting"))
    ]


class ConceptSlider(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ConceptSlider",
            display_name="Concept Slider",
            category="ZipLoRA/sliders",
            description="Puts a slider on the model: any LoRA, at a scale from −10 to 10, during a "
            "part of the sampling. Chain several of these nodes to use several sliders.",
            search_aliases=["ziplora", "slider", "lora slider", "concept sliders", "lora schedule"],
            inputs=[
                io.Model.Input(
                    "model", tooltip="The checkpoint, or the output of another Concept Slider."
                ),
                lora_file_input(
                    "slider", "The slider's file. Choose None when slider_model is connected."
                ),
                io.Float.Input(
                    "scale",
                    default=1.0,
                    min=-10.0,
                    max=10.0,
                    step=0.05,
                    tooltip="How far to move the slider. Negative values go in the opposite "
                    "direction; 0 turns it off and costs nothing.",
                ),
                *_window_inputs(),
                io.LoraModel.Input(
                    "slider_model",
                    optional=True,
                    tooltip="A slider straight from a training node, in place of a file.",
                ),
            ],
            outputs=[io.Model.Output("MODEL", tooltip="The model with the slider on it.")],
        )

    @classmethod
    def validate_inputs(
        cls,
        slider: str | None = None,
        start_percent: float | None = None,
        end_percent: float | None = None,
        slider_model: object = UNLINKED,
    ) -> bool | str:
        return checked(
            lambda: picked_files(slider=slider),
            check_either("slider", slider, slider_model),
            unless_linked(check_window, start_percent, end_percent),
        )

    @classmethod
    def fingerprint_inputs(cls, slider: str = NONE, **_others: Any) -> object:
        return file_fingerprint(slider)

    @classmethod
    def execute(
        cls,
        model: Any,
        slider: str,
        scale: float,
        start_percent: float,
        end_percent: float,
        slider_model: Any | None = None,
    ) -> io.NodeOutput:
        lora = read_either("slider", slider, slider_model)
        patched, lines = with_slider(model, lora, scale, start_percent, end_percent)
        report = "\n".join([*lines, *lora.notes])
        log_warnings("ConceptSlider", report)
        use = slider_use(lora.metadata)
        trained = [] if use is None else [[use.low, use.high]]
        shown = ui.PreviewText(report).as_dict() | {"ziplora_slider_range": trained}
        return io.NodeOutput(patched, ui=shown)


class SliderSweep(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SliderSweep",
            display_name="Slider Sweep",
            category="ZipLoRA/sliders",
            description="Generates the same image at several scales of one slider, or of two, and "
            "puts the results into one labelled grid.",
            search_aliases=["ziplora", "slider grid", "xy plot", "lora strength grid"],
            inputs=[
                io.Model.Input("model", tooltip="The checkpoint, without the slider on it."),
                *drawing_inputs(),
                lora_file_input(
                    "slider", "The slider's file. Choose None when slider_model is connected."
                ),
                io.String.Input(
                    "scales",
                    default="-2, -1, 0, 1, 2",
                    tooltip="Scales of the first slider, separated by commas, one column each.",
                ),
                *_window_inputs(),
                *sampling_inputs(),
                lora_file_input(
                    "second_slider",
                    "A second slider, for the rows. Choose None for a single row, or when "
                    "second_slider_model is connected.",
                    optional=True,
                ),
                io.String.Input(
                    "second_scales",
                    default="-2, 0, 2",
                    optional=True,
                    tooltip="Scales of the second slider, separated by commas, one row each.",
                ),
                io.LoraModel.Input(
                    "slider_model",
                    optional=True,
                    tooltip="A slider straight from a training node, in place of the first file.",
                ),
                io.LoraModel.Input(
                    "second_slider_model",
                    optional=True,
                    tooltip="A slider straight from a training node, in place of the second file.",
                ),
                *_second_window_inputs(),
                theme_input(),
            ],
            outputs=grid_outputs(),
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(
        cls,
        slider: str | None = None,
        scales: str | None = None,
        start_percent: float | None = None,
        end_percent: float | None = None,
        second_slider: str | None = None,
        slider_model: object = UNLINKED,
    ) -> bool | str:
        return checked(
            lambda: picked_files(slider=slider, second_slider=second_slider),
            check_either("slider", slider, slider_model),
            unless_linked(lambda text: parse_scales(text, "scales"), scales),
            unless_linked(check_window, start_percent, end_percent),
        )

    @classmethod
    def fingerprint_inputs(
        cls, slider: str = NONE, second_slider: str = NONE, **_others: Any
    ) -> list[object]:
        return [file_fingerprint(slider), file_fingerprint(second_slider)]

    @classmethod
    def execute(
        cls,
        model: Any,
        positive: Any,
        negative: Any,
        latent: Any,
        vae: Any,
        slider: str,
        scales: str,
        start_percent: float,
        end_percent: float,
        seed: int,
        steps: int,
        cfg: float,
        sampler_name: str,
        scheduler: str,
        second_slider: str = NONE,
        second_scales: str = "",
        slider_model: Any | None = None,
        second_slider_model: Any | None = None,
        second_start_percent: float = _AS_THE_FIRST,
        second_end_percent: float = _AS_THE_FIRST,
        theme: str = "page",
    ) -> io.NodeOutput:
        first = read_either("slider", slider, slider_model)
        sliders = [Swept(first, parse_scales(scales, "scales"), start_percent, end_percent)]
        if second_slider != NONE or second_slider_model is not None:
            second = read_either("second_slider", second_slider, second_slider_model)
            start = start_percent if second_start_percent < 0 else second_start_percent
            end = end_percent if second_end_percent < 0 else second_end_percent
            sliders.append(Swept(second, parse_scales(second_scales, "second_scales"), start, end))
        sampling = Sampling(positive, negative, latent, seed, steps, cfg, sampler_name, scheduler)
        pictures = sweep(model, vae, sliders, sampling, progress_callback(cls))
        axes = [(s.slider.name.removesuffix(".safetensors"), s.scales) for s in sliders]
        return as_grid(pictures, theme, *axes)


NODES = [ConceptSlider, SliderSweep]
