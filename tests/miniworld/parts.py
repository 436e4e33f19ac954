"""The miniature SDXL in this process, loaded by ComfyUI's own loader, and drawing with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.sample
import comfy.sd
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

import sandbox.tiny_pack  # noqa: F401  ComfyUI recognises the model after this
from sandbox.paths import BASE

from .checkpoint import CHECKPOINT, ready_checkpoint
from .scenes import SIDE

STEPS = 16
GUIDANCE = 3.0


@dataclass(frozen=True)
class Parts:
    """MODEL, CLIP and VAE of the checkpoint."""

    model: ModelPatcher
    clip: comfy.sd.CLIP
    vae: comfy.sd.VAE

    @torch.inference_mode()
    def encode(self, prompt: str) -> list[list[Any]]:
        return self.clip.encode_from_tokens_scheduled(self.clip.tokenize(prompt))

    def with_lora(self, lora: Mapping[str, Tensor], strength: float = 1.0) -> ModelPatcher:
        """Patch a clone with ComfyUI's own LoRA loader."""
        return comfy.sd.load_lora_for_models(self.model, None, dict(lora), strength, 0.0)[0]

    @torch.inference_mode()
    def draw(
        self,
        model: ModelPatcher,
        prompt: str,
        count: int,
        seed: int,
        steps: int = STEPS,
        guidance: float = GUIDANCE,
        sampler: str = "euler",
        scheduler: str = "normal",
    ) -> Tensor:
        """Draw `(count, 3, 128, 128)` in [0, 1] with the stock sampler."""
        empty = torch.zeros(count, model.model.latent_format.latent_channels, SIDE // 8, SIDE // 8)
        noise = comfy.sample.prepare_noise(empty, seed)
        latents = comfy.sample.sample(
            model, noise, steps, guidance, sampler, scheduler, self.encode(prompt),
            self.encode(""), empty, disable_pbar=True, seed=seed,
        )  # fmt: skip
        return self.vae.decode(latents).movedim(-1, 1).clamp(0, 1).clone()


def load_parts(path: Path | None = None) -> Parts:
    """Load the checkpoint, written first where it is missing or damaged.

    Raises:
        MiniWorldError: the file in the repository that it is written from is missing or damaged.
    """
    path = path or ready_checkpoint(BASE / "models" / "checkpoints" / CHECKPOINT)
    model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(str(path))
    return Parts(model, clip, vae)
