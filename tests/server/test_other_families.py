"""Other families than SDXL's through the live server, from ComfyUI's own loaders.

Their text encoders are small ones of ComfyUI's own classes.
"""

from __future__ import annotations

import re

import pytest
from torch import Tensor

from sandbox.overrides import OVERRIDES
from sandbox.server import ComfyServer, Result

from .dreambooth.test_train import plain, save, train
from .graph import Graph, Link, assert_close, report, saved_latent, saved_path, succeeded
from .sliders.test_sliders import text_slider
from .test_workflows import FAMILY_VALUES, Json, nodes, prompt_of


@pytest.mark.parametrize("workflow", FAMILY_VALUES)
def test_workflow_saves_a_merge_that_the_stock_loader_draws_alike(
    workflow: str, server: ComfyServer
) -> None:
    prompt = prompt_of(workflow, server, OVERRIDES)
    ((apply, applied),) = nodes(prompt, "ApplyMergedLoRA").items()
    ((sampler, sampling),) = nodes(prompt, "KSampler").items()
    applied["negative_strength"], sampling["seed"] = 1.0, 3  # as loaders of files have it
    saved = {"samples": [sampler, 0], "filename_prefix": workflow}
    prompt["drawn"] = {"class_type": "SaveLatent", "inputs": saved}
    ours = run(server, prompt)
    (optimised,), (saver,) = nodes(prompt, "ZipLoRAOptimize"), nodes(prompt, "SaveMergedLoRA")
    assert "error on noise not learned from" in report(ours, optimised)

    drawn = {"ours": saved_latent(server, ours, "drawn")}
    loaded = {"model": applied["model"], "clip": applied["clip"], "strength_clip": 1.0}
    loaded["lora_name"] = str(saved_path(ours, saver).relative_to(server.output / "loras"))
    for name, strength in (("stock", 1.0), ("base", 0.0)):
        inputs = {**loaded, "strength_model": strength}
        prompt[apply] = {"class_type": "LoraLoader", "inputs": inputs}
        drawn[name] = saved_latent(server, run(server, prompt, partial=["drawn"]), "drawn")
    assert_close(drawn["ours"], drawn["stock"], 1e-3)
    with pytest.raises(AssertionError):
        assert_close(drawn["base"], drawn["stock"], 1e-2)


def run(server: ComfyServer, prompt: Json, **options: list[str]) -> Result:
    result = server.run(prompt, **options)
    assert result.status == "success", result.error
    return result


class FamilyGraph(Graph):
    """A prompt that begins with the loaders of a family's workflow."""

    def __init__(self, server: ComfyServer, workflow: str) -> None:
        shipped = prompt_of(workflow, server)
        (applied,), (decoded,) = (
            nodes(shipped, kind).values() for kind in ("ApplyMergedLoRA", "VAEDecode")
        )
        self.prompt = {
            key: node
            for key, node in shipped.items()
            if node["class_type"].startswith(("UNET", "VAEL", "Sandbox", "ModelSampling"))
        }
        self.model, self.clip, self.vae = applied["model"], applied["clip"], decoded["vae"]

    def draw(self, model: Link, name: str) -> str:
        size = {"width": 64, "height": 64, "batch_size": 1}
        latent = self.out(
            "KSampler", model=model, seed=3, steps=4, cfg=1.0, sampler_name="euler",
            scheduler="simple", denoise=1.0,
            latent_image=self.out("EmptySD3LatentImage", **size),
            positive=self.text("a photo of sks dog"), negative=self.text(""),
        )  # fmt: skip
        return self.node("SaveLatent", samples=latent, filename_prefix=name)


@pytest.mark.parametrize(
    ("workflow", "kind"),
    [
        ("24 Z-Image merge", "subject"),
        ("25 Qwen-Image merge", "slider"),
        pytest.param("24 Z-Image merge", "slider", marks=pytest.mark.thorough),
        pytest.param("25 Qwen-Image merge", "subject", marks=pytest.mark.thorough),
        pytest.param("26 FLUX.1 merge", "subject", marks=pytest.mark.thorough),
        pytest.param("26 FLUX.1 merge", "slider", marks=pytest.mark.thorough),
    ],
)
def test_trained_lora_is_a_file_that_the_stock_loader_draws_with(
    workflow: str, kind: str, server: ComfyServer
) -> None:
    graph = FamilyGraph(server, workflow)
    trained = text_slider(graph) if kind == "slider" else train(graph, plain(graph))
    saver = save(graph, trained, f"families/{kind}")
    result = succeeded(server, graph)
    assert re.search(r"(3 of 3|8 of 8) steps", report(result, trained))
    file = saved_path(result, saver).relative_to(server.output / "loras")
    unread = server.log().count("lora key not loaded")
    before, after = draw_with(server, workflow, str(file))
    assert server.log().count("lora key not loaded") == unread
    assert float((after - before).abs().max()) > 1e-3


def draw_with(server: ComfyServer, workflow: str, lora: str) -> tuple[Tensor, Tensor]:
    """Draw without and with a LoRA in ComfyUI's own loader."""
    graph = FamilyGraph(server, workflow)
    loaded = graph.out("LoraLoaderModelOnly", model=graph.model, lora_name=lora, strength_model=1.0)
    drawn = [graph.draw(graph.model, "base"), graph.draw(loaded, "lora")]
    result = succeeded(server, graph)
    before, after = (saved_latent(server, result, node) for node in drawn)
    return before, after
