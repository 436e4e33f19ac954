"""The pack beside other nodes and under ComfyUI's start options."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator

from sandbox.paths import ROOT, use_comfyui

use_comfyui()
sys.path.append(str(ROOT))  # last: ComfyUI has a nodes.py, the pack a nodes folder

import comfy.sd  # noqa: E402
import torch  # noqa: E402
from comfy.model_patcher import ModelPatcher  # noqa: E402
from torch import Tensor  # noqa: E402

from sandbox import tiny  # noqa: E402
from sandbox.neighbours import MERGES, NEIGHBOURS, another_lora, drawn  # noqa: E402
from ziplora_core.comfy_adapter.apply.guidance import with_negative_strength  # noqa: E402
from ziplora_core.comfy_adapter.apply.slider import with_slider  # noqa: E402
from ziplora_core.comfy_adapter.model.private_copy import refuse_patched  # noqa: E402
from ziplora_core.errors import ZipLoRAError  # noqa: E402
from ziplora_core.files import lora_from_tensors  # noqa: E402

from . import others_servers  # noqa: E402
from .promise import Promise  # noqa: E402

CLOSE = 1e-4
"""Largest difference of a latent, relative to the rms of what is wanted, that is rounding."""
FEW = ("Load LoRA", "FreeU_V2", "HyperTile", "UNetCrossAttentionMultiply")
"""The nodes of the short form."""
ACTS = 1e-3
"""Smallest difference by which a node has acted."""
SCALE = 0.8

Put = Callable[[ModelPatcher], ModelPatcher]
Compared = tuple[str, Tensor, Tensor]
"""A name, what was drawn, and what was to be drawn."""


class Bench:
    """A tiny SDXL, its prompts, and a LoRA as a slider and by ComfyUI's own loader."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        self.model, clip = tiny.tiny_sdxl(), tiny.tiny_clip()
        texts = "a sks dog in watercolor style", "blurry"
        self.prompts = [clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in texts]
        self.tensors = tiny.make_lora(self.model, clip, seed=1, rank=8, alpha=4.0)
        self.lora = lora_from_tensors(self.tensors, name="a slider")

    def slider(self, model: ModelPatcher) -> ModelPatcher:
        return with_slider(model, self.lora, SCALE)[0]

    def stock(self, model: ModelPatcher) -> ModelPatcher:
        return comfy.sd.load_lora_for_models(model, None, self.tensors, SCALE, 0.0)[0]

    def drawn(self, model: ModelPatcher, steps: int = 2) -> Tensor:
        return drawn(model, *self.prompts, steps=steps)

    def beside(self, name: str) -> Iterator[Compared]:
        """Draw with a node after the slider, and before it."""
        node, steps = NEIGHBOURS[name], 6 if "Cache" in name else 2
        plain = self.drawn(self.stock(self.model), steps)
        orders: dict[str, Callable[[Put], ModelPatcher]] = {
            "after the slider": lambda put: node(put(self.model)),
            "before the slider": lambda put: put(node(self.model)),
        }
        for order, built in orders.items():
            got, want = (self.drawn(built(put), steps) for put in (self.slider, self.stock))
            if name != "ModelSamplingDiscrete" and relative(want, plain) < ACTS:
                want = torch.full_like(want, torch.inf)  # it has not acted
            yield f"{name} {order}", got, want

    def merged(self, name: str) -> Iterator[Compared]:
        """Draw with the slider on the first, the second and both MODELs of a merge."""
        merge, other = MERGES[name], tiny.tiny_sdxl(seed=5)
        places: dict[str, Callable[[Put], ModelPatcher]] = {
            "first": lambda put: merge(put(self.model), other),
            "second": lambda put: merge(other, put(self.model)),
            "both": lambda put: merge(put(self.model), another_lora(put(another_lora(other)))),
        }
        for place, built in places.items():
            got, want = (self.drawn(built(put)) for put in (self.slider, self.stock))
            yield f"{name}, on the {place} MODEL", got, want

    def refusals(self) -> dict[str, Callable[[], object]]:
        """Actions that are to be refused by name, as they would lose a slider or train wrongly."""
        window = with_slider(self.model, self.lora, SCALE, 0.25)[0]
        halves = with_negative_strength(self.model, self.lora.modules, "merge", 0.0)[0]
        patched = {name: node(self.model) for name, node in NEIGHBOURS.items() if name in FEW[1:3]}
        return {
            "window second in a merge": lambda: window.get_key_patches("diffusion_model."),
            "merge with a negative strength": lambda: halves.get_key_patches("diffusion_model."),
            "Save Checkpoint": lambda: self.slider(self.model).state_dict_for_saving(),
            "Extract and Save Lora": lambda: window.model_state_dict("diffusion_model."),
            **{f"training on {name}": lambda m=m: refuse_patched(m) for name, m in patched.items()},
        }


def relative(got: Tensor, want: Tensor) -> float:
    """Return the largest difference, relative to the rms of `want`."""
    return float((got - want).abs().max() / want.square().mean().sqrt())


def _promise(text: str, compared: Iterable[Compared]) -> Promise:
    found = {name: relative(got, want) for name, got, want in compared}
    broken = [f"{name}: {value:.1e}" for name, value in found.items() if not value < CLOSE]
    figures = f"largest difference {max(found.values()):.1e} of the latent's rms"
    return Promise(text, len(found), len(found) - len(broken), figures, broken)


def _refused(actions: dict[str, Callable[[], object]]) -> Promise:
    broken = []
    for name, action in actions.items():
        try:
            action()
            broken.append(f"{name}: not refused")
        except ZipLoRAError:
            continue
    return Promise(
        "What cannot be kept is refused by name, and never lost without a word",
        len(actions), len(actions) - len(broken), "", broken,
    )  # fmt: skip


def _on_fp8(bench: Bench) -> Promise:
    """Compare a slider on fp8 weights with the same weights in float32 and a LoRA on them."""
    quantised, exact = (_with_fp8_values(dtype) for dtype in (torch.float8_e4m3fn, torch.float32))
    want, base = bench.drawn(bench.stock(exact)), bench.drawn(exact)

    def missed(model: ModelPatcher) -> float:
        got = bench.drawn(model)
        return float(((got - want).square().mean() / (want - base).square().mean()).sqrt())

    ours, stock = missed(bench.slider(quantised)), missed(bench.stock(quantised))
    return Promise(
        "On fp8 weights a slider has the effect that a LoRA has in float32", 1, int(ours < CLOSE),
        f"the slider misses {ours:.1e} of the effect; ComfyUI's loader, which rounds the patched "
        f"weight to fp8, {stock:.2f}",
        [] if ours < CLOSE else [f"{ours:.1e} of the effect"],
    )  # fmt: skip


def _with_fp8_values(dtype: torch.dtype) -> ModelPatcher:
    """Make a tiny SDXL with weights of fp8 values, held in `dtype`; it computes in float32."""
    config = tiny.TinySDXL(tiny.UNET_CONFIG)
    config.set_inference_dtype(dtype, None if dtype == torch.float32 else torch.float32)
    cpu = torch.device("cpu")
    model = config.get_model({}, device=cpu)
    weights = tiny.tiny_sdxl().model.diffusion_model.state_dict()
    rounded = {key: w.to(torch.float8_e4m3fn).to(dtype) for key, w in weights.items()}
    model.diffusion_model.load_state_dict(rounded)
    return ModelPatcher(model, cpu, cpu)


def measure(short: bool) -> list[Promise]:
    """Draw with every stock node beside a slider, in every merge, and on servers with options."""
    bench = Bench()
    names, merges = (FEW, [*MERGES][:1]) if short else (NEIGHBOURS, MERGES)
    promises = [
        _promise(
            "A slider beside a stock node counts as ComfyUI's own LoRA loader in its place",
            (each for name in names for each in bench.beside(name)),
        ),
        _promise(
            "A slider in a model merge counts as ComfyUI's own LoRA loader in its place",
            (each for name in merges for each in bench.merged(name)),
        ),
        _refused(bench.refusals()),
        _on_fp8(bench),
    ]
    return promises if short else [*promises, *others_servers.measure()]
