"""Sliders and UnZipLoRA work on a MODEL with torch.compile as on any other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import comfy.sample
import comfy.sd
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from comfy_api.torch_helpers import set_torch_compile_wrapper
from comfy_extras.nodes_torch_compile import TorchCompileModel
from torch import Tensor
from torch._dynamo.utils import counters

from sandbox import tiny
from ziplora_core.comfy_adapter.apply.slider import with_slider
from ziplora_core.comfy_adapter.apply.unziplora import with_unziplora
from ziplora_core.comfy_adapter.model.private_copy import refuse_patched
from ziplora_core.errors import ZipLoRAError
from ziplora_core.files import lora_from_tensors
from ziplora_core.lora.factors import LoRA
from ziplora_core.lora.merged import MergedLoRA
from ziplora_core.lora.pair import pair_modules

from .. import helpers

BLOCK = "diffusion_model.middle_block.1.transformer_blocks.0"
"""The only compiled block; a whole UNet takes minutes."""


@pytest.fixture(autouse=True)
def nothing_compiled() -> Iterator[None]:
    """Discard all compiled code before and after each test."""
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def compiled(model: ModelPatcher) -> ModelPatcher:
    """Compile one block as the stock TorchCompileModel node does, by an eager backend."""
    clone = model.clone(disable_dynamic=True)
    set_torch_compile_wrapper(model=clone, backend="eager", keys=[BLOCK])
    return clone


def slider() -> LoRA:
    return lora_from_tensors(helpers.lora_tensors()[0], name="slider")


def drawn(model: ModelPatcher, clip: comfy.sd.CLIP, steps: int = 2) -> Tensor:
    x = helpers.noise(1, 4, 8, 8)
    prompts = helpers.encode(clip, "a dog"), helpers.encode(clip, "")
    with torch.inference_mode():
        return comfy.sample.sample(
            model, x, steps, 4.0, "euler", "normal", *prompts, torch.zeros_like(x),
            disable_pbar=True,
        )  # fmt: skip


@pytest.mark.parametrize("first", ["compile", "slider"])
def test_slider_counts_though_the_graph_was_made_without_it(
    first: str, model: ModelPatcher, clip: comfy.sd.CLIP
) -> None:
    plain = tiny.tiny_sdxl()
    want = {
        scale: drawn(with_slider(plain, slider(), scale)[0], clip) for scale in (0.0, 1.0, -1.0)
    }
    base = compiled(model)

    def with_both(scale: float) -> ModelPatcher:
        if first == "compile":
            return with_slider(base, slider(), scale)[0]
        return compiled(with_slider(model, slider(), scale)[0])

    for scale in (0.0, 1.0, 0.0, -1.0):
        torch.testing.assert_close(drawn(with_both(scale), clip), want[scale], rtol=0, atol=1e-5)
    assert counters["stats"]["unique_graphs"] > 0 and not torch.equal(want[0.0], want[1.0])


def test_slider_of_a_later_window_counts_beside_one_that_is_closed(
    model: ModelPatcher, clip: comfy.sd.CLIP
) -> None:
    def both(on: ModelPatcher) -> ModelPatcher:
        early = with_slider(on, slider(), 1.0, 0.0, 0.4)[0]
        return with_slider(early, slider(), -0.5, 0.4, 0.7)[0]

    want = drawn(both(tiny.tiny_sdxl()), clip, steps=4)
    base = compiled(model)
    drawn(base, clip)
    torch.testing.assert_close(drawn(both(base), clip, steps=4), want, rtol=0, atol=1e-5)


def test_unzipped_loras_count_though_the_graph_was_made_without_them(
    model: ModelPatcher, clip: comfy.sd.CLIP
) -> None:
    content, style = (lora_from_tensors(tensors) for tensors in helpers.lora_tensors())
    merged = MergedLoRA(pair_modules(content.modules, style.modules), prompt_separated=True)
    own = [helpers.encode(clip, text) for text in ("a cat", "a sketch")]
    want = drawn(with_unziplora(tiny.tiny_sdxl(), merged, own)[0], clip)
    base = compiled(model)
    drawn(base, clip)
    patched, lines = with_unziplora(base, merged, own)
    torch.testing.assert_close(drawn(patched, clip), want, rtol=0, atol=1e-5)
    assert "torch.compile is inactive" in "\n".join(lines)


def test_report_says_that_compiled_code_rests_only_where_there_is_some(
    model: ModelPatcher,
) -> None:
    for on, compiled_ in ((model, False), (compiled(model), True)):
        _, lines = with_slider(on, slider(), 1.0)
        assert ("torch.compile is inactive" in "\n".join(lines)) is compiled_
    _, lines = with_slider(compiled(model), slider(), 0.0)
    assert "torch.compile" not in "\n".join(lines)


def compiled_as_object(model: ModelPatcher) -> ModelPatcher:
    """Compile as some custom nodes do, by an object patch."""
    clone = model.clone()
    network: Any = clone.get_model_object("diffusion_model")
    clone.add_object_patch("diffusion_model", torch.compile(network, backend="eager"))
    return clone


def test_training_refuses_a_compiled_model_by_name(model: ModelPatcher) -> None:
    by_stock, by_object = TorchCompileModel.execute(model, "inductor")[0], compiled_as_object(model)
    for on, name in ((by_stock, "wrapper torch.compile"), (by_object, "patched diffusion_model")):
        with pytest.raises(ZipLoRAError, match=f"model: found {name}, .*Connect the MODEL from"):
            refuse_patched(on)
    assert "torch.compile is inactive" in "\n".join(with_slider(by_object, slider(), 1.0)[1])
