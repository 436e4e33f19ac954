"""Sliders in ComfyUI's model merges count as a LoRA in their place, or are refused by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.sd
import pytest
from comfy.model_patcher import ModelPatcher
from comfy_extras.nodes_lora_extract import LoraSave
from comfy_extras.nodes_model_merging import CheckpointSave, ModelMergeSimple

from sandbox import neighbours, tiny
from ziplora_core.comfy_adapter.apply.guidance import with_negative_strength
from ziplora_core.comfy_adapter.apply.slider import with_slider
from ziplora_core.comfy_adapter.apply.unziplora import with_unziplora
from ziplora_core.errors import ZipLoRAError
from ziplora_core.files import lora_from_tensors
from ziplora_core.lora.factors import LoRA
from ziplora_core.lora.merged import MergedLoRA
from ziplora_core.lora.pair import pair_modules

from .. import helpers

CLOSE = 1e-4
SCALE = 0.8


def lora() -> LoRA:
    return lora_from_tensors(helpers.lora_tensors()[0], name="smile.safetensors")


def on(model: ModelPatcher, *window: float) -> ModelPatcher:
    return with_slider(model, lora(), SCALE, *window)[0]


def stock(model: ModelPatcher) -> ModelPatcher:
    return helpers.stock(model, (helpers.lora_tensors()[0], SCALE))


Put = Callable[[ModelPatcher], ModelPatcher]
Built = Callable[[Put, neighbours.Merge, ModelPatcher, ModelPatcher], ModelPatcher]
PLACES: dict[str, Built] = {
    "first": lambda put, merge, one, two: merge(put(one), two),
    "second": lambda put, merge, one, two: merge(two, put(one)),
    "both": lambda put, merge, one, two: merge(
        put(one), neighbours.another_lora(put(neighbours.another_lora(two)))
    ),
    "merged again": lambda put, merge, one, two: merge(
        two, neighbours.another_lora(merge(put(one), put(two)))
    ),
}


@pytest.mark.parametrize(
    ("merge", "place"),
    [
        ("ModelMergeBlocks", "both"),
        *(
            pytest.param(merge, place, marks=pytest.mark.thorough)
            for merge, place in (
                *(("ModelMergeSimple", place) for place in PLACES),
                ("ModelMergeAdd and ModelMergeSubtract", "second"),
            )
        ),
    ],
)
def test_slider_counts_as_a_lora_of_the_stock_loader(
    merge: str, place: str, model: ModelPatcher, clip: comfy.sd.CLIP
) -> None:
    other, prompts = tiny.tiny_sdxl(seed=5), helpers.prompts(clip)

    def result(put: Put) -> Any:
        built = PLACES[place](put, neighbours.MERGES[merge], model, other)
        return neighbours.drawn(built, *prompts, side=8, steps=1)

    got, want = result(on), result(stock)
    assert helpers.relative(got, want) < CLOSE
    assert helpers.relative(want, result(lambda m: m)) > 0.1


def test_window_stays_on_the_first_model_of_a_merge(
    model: ModelPatcher, clip: comfy.sd.CLIP
) -> None:
    """At ratio 1 nothing of the second MODEL is left; at 0.5, half of the slider is."""
    other, prompts = tiny.tiny_sdxl(), helpers.prompts(clip)
    whole, half = (
        neighbours.drawn(
            ModelMergeSimple().merge(on(model, 0.3, 0.8), other, ratio)[0], *prompts, 8, 4
        )
        for ratio in (1.0, 0.5)
    )
    assert helpers.relative(whole, neighbours.drawn(on(model, 0.3, 0.8), *prompts, 8, 4)) < CLOSE
    less = with_slider(model, lora(), SCALE / 2, 0.3, 0.8)[0]
    assert helpers.relative(half, neighbours.drawn(less, *prompts, 8, 4)) < CLOSE


def refused(model: ModelPatcher, clip: comfy.sd.CLIP) -> dict[str, ModelPatcher]:
    """MODELs with something on them that no weight can hold, by its name in the message."""
    pairs = pair_modules(*(lora_from_tensors(t).modules for t in helpers.lora_tensors()))
    merged, own = MergedLoRA(pairs, prompt_separated=True), helpers.prompts(clip)
    return {
        "the slider smile.* from 25% to 100%": on(model, 0.25),
        "merge with another strength": with_negative_strength(model, lora().modules, "merge", 0.0)[
            0
        ],
        "Apply UnZipLoRA's LoRAs": with_unziplora(model, merged, own)[0],
    }


def test_merge_refuses_by_name_what_no_weight_can_hold(
    model: ModelPatcher, clip: comfy.sd.CLIP
) -> None:
    for name, other in refused(model, clip).items():
        with pytest.raises(ZipLoRAError, match=f"model: found {name}.*put that node after the mer"):
            ModelMergeSimple().merge(model, neighbours.another_lora(other), 0.5)
        ModelMergeSimple().merge(neighbours.another_lora(other), model, 0.5)  # the other way round


def test_files_of_weights_are_refused_instead_of_written_without_the_slider(
    model: ModelPatcher, clip: comfy.sd.CLIP
) -> None:
    sliders = {"a slider": on(model), **refused(model, clip)}
    for name, with_it in sliders.items():
        message = f"model: found {name}.*ComfyUI's own Load LoRA"
        with pytest.raises(ZipLoRAError, match=message):
            CheckpointSave().save(with_it, clip, tiny.tiny_vae(), "never")
        with pytest.raises(ZipLoRAError, match=message):
            LoraSave.execute("never", 4, "standard", False, model_diff=with_it)
