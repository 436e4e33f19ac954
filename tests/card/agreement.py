"""Agreement of a device's numbers with the CPU's, with stock nodes' and with a second run."""

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
from ziplora_core.comfy_adapter.apply.lora import apply_lora
from ziplora_core.comfy_adapter.apply.slider import with_slider
from ziplora_core.comfy_adapter.model import conditioning as cond
from ziplora_core.comfy_adapter.model.pair_on_model import merge_pair, pair_on_model
from ziplora_core.comfy_adapter.model.targets import unet_targets
from ziplora_core.comfy_adapter.model.training_model import training_model
from ziplora_core.files.writer import kohya_tensors
from ziplora_core.merging import MergeSettings
from ziplora_core.training.branches import Branches, Gates
from ziplora_core.training.interface import ProgressCallbacks

from .models import CardModels, open_models
from .runs import CONTENT, RUNS

SIGMAS = (0.5, 2.0, 10.0)
TWICE = ("ZipLoRA Optimize, closed form", "ZipLoRA Optimize, Adam")
STEPS = 10


def tables(models: CardModels) -> Iterator[Table]:
    """Measure all three agreements.

    Args:
        models: the full-size models, for the comparison with stock nodes.
    """
    yield _with_the_cpu()
    yield _with_stock_nodes(models)
    yield _with_itself()


def relative(got: Tensor, want: Tensor) -> float:
    """Return the rms of the difference, relative to the rms of `want`."""
    got, want = (t.detach().float().cpu() for t in (got, want))
    return float((got - want).square().mean().sqrt() / want.square().mean().sqrt())


def _with_the_cpu() -> Table:
    """Compare predictions with both LoRAs on the tiny model: each dtype with the CPU's fp32."""
    device, cpu = comfy.model_management.get_torch_device(), torch.device("cpu")
    models_of = {place: open_models(SIZES["tiny"], True, place) for place in (device, cpu)}
    want = _predicted(models_of[cpu], torch.float32)
    rows: dict[str, dict[str, float | None]] = {}
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        error = relative(_predicted(models_of[device], dtype), want)
        rows[str(dtype).removeprefix("torch.")] = {"error": error}
    notes = [
        "tiny model with two LoRAs beside its layers, three noise levels; rms of the difference"
    ]
    return Table("Predictions beside the CPU's in float32", {"error": ".1e"}, rows, notes)


@torch.no_grad()
def _predicted(models: CardModels, dtype: torch.dtype) -> Tensor:
    pairs, _ = pair_on_model(models.pair, models.model.model)
    keys = unet_targets(models.model.model)
    branches = {keys[name]: Branches(pair.factors) for name, pair in pairs.items()}
    x, prompt = _noise(models), _prompt(models)
    found = []
    with torch.inference_mode(False), training_model(models.model, branches, dtype) as opened:
        prepared = cond.prepare(opened.model, prompt, x.to(opened.device))
        for sigma in SIGMAS:
            noisy = x * (1 + sigma**2) ** 0.5
            found.append(opened.denoise(noisy, torch.tensor([sigma]), [prepared], Gates()))
        return torch.cat(found).float().cpu()


def _with_stock_nodes(models: CardModels) -> Table:
    """Compare merge and slider with ComfyUI's own LoRA loader, in the model's dtype."""
    content, style = (
        kohya_tensors(lora.modules) for lora in (models.pair.content, models.pair.style)
    )
    base = _stock(models)
    chained = _stock(models, content, style)
    merged, _ = merge_pair(models.model.model, models.pair, "direct", MergeSettings())
    applied, _ = apply_lora(merged.modules(), "merge", models.model, None)
    alone = _stock(models, content)
    slider, _ = with_slider(models.model, models.pair.content, 1.0)
    rows = {
        "direct merge, two chained loaders": _beside(_shown(models, applied), chained, base),
        "slider at 1, one loader": _beside(_shown(models, slider), alone, base),
    }
    dtype = str(models.model.model.get_dtype_inference()).removeprefix("torch.")
    notes = [f"{models.scale.name} model in {dtype}; `change` is what the LoRAs change at all"]
    columns = {"error": ".1e", "change": ".1e"}
    return Table("Latents of two steps beside those of stock nodes", columns, rows, notes)


def _beside(got: Tensor, want: Tensor, base: Tensor) -> dict[str, float | None]:
    return {"error": relative(got, want), "change": relative(want, base)}


def _stock(models: CardModels, *loras: dict[str, Tensor]) -> Tensor:
    model = models.model
    for tensors in loras:
        model, _ = comfy.sd.load_lora_for_models(model, None, tensors, 1.0, 0.0)
    return _shown(models, model)


@torch.inference_mode()
def _shown(models: CardModels, model: ModelPatcher) -> Tensor:
    """Draw two steps with ComfyUI's own sampler."""
    noise, prompt = _noise(models), _prompt(models)
    return comfy.sample.sample(
        model, noise, 2, 5.0, "euler", "normal", prompt, prompt, torch.zeros_like(noise), seed=0,
        disable_pbar=True,
    )  # fmt: skip


def _with_itself() -> Table:
    """Compare two runs with one seed on the tiny model."""
    rows: dict[str, dict[str, float | None]] = {}
    for name in TWICE:
        first, second = _coefficients(name), _coefficients(name)
        spread = (first - second).abs()
        rows[name] = {"largest": float(spread.max()), "error": relative(second, first)}
    notes = [f"tiny model, {STEPS} steps or states; merger coefficients are near 1"]
    columns = {"largest": ".1e", "error": ".1e"}
    return Table("Two runs with one seed", columns, rows, notes)


def _coefficients(name: str) -> Tensor:
    models = open_models(SIZES["tiny"], True)
    with TemporaryDirectory() as folder, torch.inference_mode():
        result = RUNS[name](models, "fast", STEPS, Path(folder), ProgressCallbacks())
    return torch.cat([m.flatten() for m in result.merged.coefficients.values()])


def _noise(models: CardModels) -> Tensor:
    side = models.scale.latent
    return torch.randn(1, 4, side, side, generator=torch.Generator().manual_seed(0))


def _prompt(models: CardModels) -> list[list[object]]:
    with torch.inference_mode(False):
        encoded = models.clip.encode_from_tokens_scheduled(models.clip.tokenize(CONTENT))
    return [[context.clone(), extras] for context, extras in encoded]
