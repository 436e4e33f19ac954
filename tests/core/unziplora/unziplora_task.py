"""UnZipLoRA's objective on a toy model with a cross-attention, for its tests and the loop's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ziplora_core.dreambooth.objective import TrainingExample, View
from ziplora_core.training.branches import Branches, Gates
from ziplora_core.training.framing import Framing
from ziplora_core.training.options import TrainingOptions
from ziplora_core.unziplora.feature_masks import FeatureMasks, owners
from ziplora_core.unziplora.objective import UnZipLoRAObjective
from ziplora_core.unziplora.options import UnZipLoRASettings
from ziplora_core.unziplora.parameters import UnZipLoRAParameters

WIDTH, TOKENS, STEPS = 20, 3, 12
BLOCKS = ("input_blocks_4_1", "middle_block_1", *(f"output_blocks_{n}_1" for n in range(6)))
LAYERS = ("attn1_to_q", "attn2_to_k")
NAMES = [f"lora_unet_{b}_transformer_blocks_0_{layer}" for b in BLOCKS for layer in LAYERS]
TEXTS = {name: n for n, name in enumerate(("", "joint", "content", "style", "class"))}
FRAME = Framing.drawn(8, 16)


def text(name: str) -> Tensor:
    """The toy's encoding of a prompt, `(token, width)`; no two have anything in common."""
    return torch.randn(TOKENS, WIDTH, generator=torch.Generator().manual_seed(TEXTS[name]))


class PromptToy:
    """Layers in a row, each second one of which reads the prompt: h' = tanh(q(h) + mean_t k(c))."""

    dtype = torch.float32
    v_prediction = flow = False

    def __init__(self, branches: Mapping[str, Branches]) -> None:
        rng = torch.Generator().manual_seed(7)
        self.branches, self.checkpointing, self.calls = branches, False, 0
        self.layers = {name: nn.Linear(WIDTH, WIDTH, bias=False) for name in branches}
        for layer in self.layers.values():
            weight = torch.randn(WIDTH, WIDTH, generator=rng) / WIDTH**0.5
            layer.weight = nn.Parameter(weight, requires_grad=False)

    def draw_timestep(self, rng: torch.Generator) -> int:
        return int(torch.randint(100, (), generator=rng))

    def denoise(
        self, x: Tensor, sigma: Tensor, conditioning: Sequence[Tensor], gates: Gates | None
    ) -> Tensor:
        self.calls += 1
        h = x.flatten(2).mT / (1 + sigma[:, None, None] ** 2) ** 0.5  # (b, pixel, width)
        context = torch.stack(list(conditioning))

        def through(name: str, given: Tensor) -> Tensor:
            layer = self.layers[name]
            out = layer(given)
            return out if gates is None else out + self.branches[name].delta(given, gates, layer)

        for query, key in zip(NAMES[::2], NAMES[1::2], strict=True):
            h = torch.tanh(through(query, h) + through(key, context).mean(1, keepdim=True))
        return h.mT.reshape(x.shape)

    def noised(self, x0: Tensor, noise: Tensor, timestep: int) -> tuple[Tensor, Tensor, Tensor]:
        sigma = torch.tensor(0.05 * (timestep + 1))
        return x0 + sigma * noise, sigma, noise


def example(caption: str = "joint", value: float = 1.0) -> TrainingExample:
    mean = torch.full((WIDTH, 1, 2), value)
    return TrainingExample((View(mean, torch.zeros_like(mean), FRAME),), caption)


def objective(
    options: TrainingOptions | None = None,
    content: str = "content",
    style: str = "style",
    classes: Sequence[TrainingExample] = (),
    **settings: Any,
) -> UnZipLoRAObjective:
    settings = {
        "rank": 4, "steps": STEPS, "content_learning_rate": 1e-2, "style_learning_rate": 1e-2,
        "weight_learning_rate": 0.05, "column_ratio": 0.1, "importance_samples": 2,
        "alone_share": 0.0, **settings,
    }  # fmt: skip
    chosen = UnZipLoRASettings(
        "joint", content, style, options=options or TrainingOptions(), **settings
    )
    learned = UnZipLoRAParameters(
        {name: (WIDTH, WIDTH) for name in NAMES}, chosen.rank, chosen.seed
    )
    owned = owners(NAMES) if chosen.block_separation else {}
    prompts = {name: torch.stack([text(name)] * 2) for name in ("", "class", content, style)}
    prompts["joint"] = torch.stack([text(content), text(style)])
    return UnZipLoRAObjective(
        model=PromptToy(learned.branches),
        learned=learned,
        masks=FeatureMasks(learned.heights, owned, "cpu"),
        instances=[example()],
        classes=classes,
        conditioner=lambda requests: [text(caption) for caption, _ in requests],
        prompts=prompts,
        settings=chosen,
    )
