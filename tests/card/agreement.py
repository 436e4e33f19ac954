"""How far a device's numbers are from the CPU's, from stock nodes' and from their second run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import comfy.model_management
import comfy.sample
import comfy.sd
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from bench.engine.models import SIZES
from bench.table import Table
from ziplora_core.branches import Branches, Gates
from ziplora_core.comfy_adapter import conditioning as cond
from ziplora_core.comfy_adapter.apply import apply_lora
from ziplora_core.comfy_adapter.concept_slider import with_slider
from ziplora_core.comfy_adapter.pairs import merge_pair, pair_on_model
from ziplora_core.comfy_adapter.targets import unet_targets
from ziplora_core.comfy_adapter.training_model import training_model
from ziplora_core.files.writer import kohya_tensors
from ziplora_core.merge_methods import MergeSettings
from ziplora_core.trainable import Watch

from .runs import CONTENT, RUNS
from .studio import Studio, open_studio

SIGMAS = (0.5, 2.0, 10.0)
TWICE = ("ZipLoRA Optimize, closed form", "ZipLoRA Optimize, Adam")
STEPS = 10


def tables(studio: Studio) -> Iterator[Table]:
    """Measure all three.

    Args:
        studio: the full-size models, for what is held against stock nodes.
    """
    yield _with_the_cpu()
    yield _with_stock_nodes(studio)
    yield _with_itself()


def relative(got: Tensor, want: Tensor) -> float:
    """Rms of the difference beside the rms of what is wanted."""
    got, want = (t.detach().float().cpu() for t in (got, want))
    return float((got - want).square().mean().sqrt() / want.square().mean().sqrt())


def _with_the_cpu() -> Table:
    """Predict with both LoRAs on the tiny model: the device in each dtype, the CPU in fp32."""
    device, cpu = comfy.model_management.get_torch_device(), torch.device("cpu")
    studios = {place: open_studio(SIZES["tiny"], True, place) for place in (device, cpu)}
    want = _predicted(studios[cpu], torch.float32)
    rows: dict[str, dict[str, float | None]] = {}
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        error = relative(_predicted(studios[device], dtype), want)
        rows[str(dtype).removeprefix("torch.")] = {"error": error}
    notes = [
        "tiny model with two LoRAs beside its layers, three noise levels; rms of the difference"
    ]
    return Table("Predictions beside the CPU's in float32", {"error": ".1e"}, rows, notes)


@torch.no_grad()
def _predicted(studio: Studio, dtype: torch.dtype) -> Tensor:
    pairs, _ = pair_on_model(studio.pair, studio.model.model)
    keys = unet_targets(studio.model.model)
    branches = {keys[name]: Branches(pair.factors) for name, pair in pairs.items()}
    x, prompt = _noise(studio), _prompt(studio)
    found = []
    with torch.inference_mode(False), training_model(studio.model, branches, dtype) as opened:
        prepared = cond.prepare(opened.model, prompt, x.to(opened.device))
        for sigma in SIGMAS:
            noisy = x * (1 + sigma**2) ** 0.5
            found.append(opened.denoise(noisy, torch.tensor([sigma]), [prepared], Gates()))
        return torch.cat(found).float().cpu()


def _with_stock_nodes(studio: Studio) -> Table:
    """Hold merge and slider against ComfyUI's own LoRA loader, in the dtype the model has."""
    content, style = (
        kohya_tensors(lora.modules) for lora in (studio.pair.content, studio.pair.style)
    )
    base = _stock(studio)
    chained = _stock(studio, content, style)
    merged, _ = merge_pair(studio.model.model, studio.pair, "direct", MergeSettings())
    applied, _ = apply_lora(merged.modules(), "merge", studio.model, None)
    alone = _stock(studio, content)
    slider, _ = with_slider(studio.model, studio.pair.content, 1.0)
    rows = {
        "direct merge, two chained loaders": _beside(_shown(studio, applied), chained, base),
        "slider at 1, one loader": _beside(_shown(studio, slider), alone, base),
    }
    dtype = str(studio.model.model.get_dtype_inference()).removeprefix("torch.")
    notes = [f"{studio.scale.name} model in {dtype}; `change` is what the LoRAs change at all"]
    columns = {"error": ".1e", "change": ".1e"}
    return Table("Latents of two steps beside those of stock nodes", columns, rows, notes)


def _beside(got: Tensor, want: Tensor, base: Tensor) -> dict[str, float | None]:
    return {"error": relative(got, want), "change": relative(want, base)}


def _stock(studio: Studio, *loras: dict[str, Tensor]) -> Tensor:
    model = studio.model
    for tensors in loras:
        model, _ = comfy.sd.load_lora_for_models(model, None, tensors, 1.0, 0.0)
    return _shown(studio, model)


@torch.inference_mode()
def _shown(studio: Studio, model: ModelPatcher) -> Tensor:
    """Draw two steps by ComfyUI's own sampler."""
    noise, prompt = _noise(studio), _prompt(studio)
    return comfy.sample.sample(
        model, noise, 2, 5.0, "euler", "normal", prompt, prompt, torch.zeros_like(noise), seed=0,
        disable_pbar=True,
    )  # fmt: skip


def _with_itself() -> Table:
    """Run twice with one seed on the tiny model."""
    rows: dict[str, dict[str, float | None]] = {}
    for name in TWICE:
        first, second = _coefficients(name), _coefficients(name)
        spread = (first - second).abs()
        rows[name] = {"largest": float(spread.max()), "error": relative(second, first)}
    notes = [f"tiny model, {STEPS} steps or states; merger coefficients are near 1"]
    columns = {"largest": ".1e", "error": ".1e"}
    return Table("Two runs with one seed", columns, rows, notes)


def _coefficients(name: str) -> Tensor:
    studio = open_studio(SIZES["tiny"], True)
    with TemporaryDirectory() as folder, torch.inference_mode():
        result = RUNS[name](studio, "fast", STEPS, Path(folder), Watch())
    return torch.cat([m.flatten() for m in result.merged.coefficients.values()])


def _noise(studio: Studio) -> Tensor:
    side = studio.scale.latent
    return torch.randn(1, 4, side, side, generator=torch.Generator().manual_seed(0))


def _prompt(studio: Studio) -> list[list[object]]:
    with torch.inference_mode(False):
        encoded = studio.clip.encode_from_tokens_scheduled(studio.clip.tokenize(CONTENT))
    return [[context.clone(), extras] for context, extras in encoded]
