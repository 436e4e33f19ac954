"""LoRAs as one pair of factors per module, independent of the file format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from .origin import Origin

UNET_PREFIX, NATIVE_PREFIX = "lora_unet_", "diffusion_model."
"""Prefixes of the diffusion model's module names, by kohya's rules (`lora_unet_layers_0_attention`)
and as the network itself names them (`diffusion_model.layers.0.attention`). All others belong to a
text encoder."""


def is_unet(name: str) -> bool:
    """Return whether a module name belongs to the diffusion model."""
    return name.startswith((UNET_PREFIX, NATIVE_PREFIX))


def kohya_name(name: str) -> str:
    """Return a module's name by kohya's rules, `lora_unet_layers_0_attention`."""
    native = name.removeprefix(NATIVE_PREFIX)
    return name if native == name else UNET_PREFIX + native.replace(".", "_")


def inside_unet(name: str) -> str:
    """Return a module's name without the network's, `layers_0_attention`."""
    return kohya_name(name).removeprefix(UNET_PREFIX)


@dataclass(frozen=True)
class LoraFactors:
    """The low-rank update of one linear or convolution (Hu et al. 2021, arXiv:2106.09685, eq. 3).

        delta = scale · up @ down,    scale = alpha / rank   (1 when the file has no alpha)

    Args:
        down: `(rank, in, *k)`, float32; `*k` is the kernel of a convolution, empty for a linear.
        up: `(out, rank, *1)`, float32.
        alpha: the alpha from the file, or None.
    """

    down: Tensor
    up: Tensor
    alpha: float | None = None

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    @property
    def scale(self) -> float:
        return 1.0 if self.alpha is None else self.alpha / self.rank

    def delta(self) -> Tensor:
        """Compute the dense update `(out, in, *k)`; only for one layer at a time."""
        product = self.up.flatten(1) @ self.down.flatten(1)
        return self.scale * product.reshape(self.up.shape[0], *self.down.shape[1:])


@dataclass(frozen=True)
class LoRA:
    """A LoRA, read from a file or a LORA_MODEL and normalised.

    Args:
        name: file name, for messages and metadata.
        modules: factors by kohya module name. UNet names start with `lora_unet_`, followed by the
            file's own block names (`lora_unet_input_blocks_…` or `lora_unet_down_blocks_…`); text
            encoder names are `lora_te1_text_model_…` and `lora_te2_text_model_…`.
        metadata: the file's own `__metadata__`.
        formats: the key formats and parametrisations found, for the report, e.g. `("PEFT",)`.
        notes: report lines on parts that were converted, folded or left out.
        sha256: SHA-256 of the whole file in hex, empty for a LORA_MODEL.
        base: the base model guessed from keys and shapes, e.g. `SDXL`; empty when unknown.
    """

    name: str
    modules: Mapping[str, LoraFactors]
    metadata: Mapping[str, str] = field(default_factory=dict)
    formats: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    sha256: str = ""
    base: str = ""

    def unet(self) -> dict[str, LoraFactors]:
        """Return the diffusion model's modules."""
        return {name: f for name, f in self.modules.items() if is_unet(name)}

    def text_encoder(self) -> dict[str, LoraFactors]:
        """Return the text encoders' modules."""
        return {name: f for name, f in self.modules.items() if not is_unet(name)}


class LoraModel(dict[str, Tensor]):
    """A LORA_MODEL (ComfyUI's own type: tensors by key) with metadata.

    Args:
        tensors: the tensors, by the keys of a file.
        metadata: strings for a file's header; Save Trained LoRA writes them.
        origin: the training that it is the result of.
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        metadata: Mapping[str, str],
        origin: Origin | None = None,
    ) -> None:
        super().__init__(tensors)
        self.metadata, self.origin = dict(metadata), origin
