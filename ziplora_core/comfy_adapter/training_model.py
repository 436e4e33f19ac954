"""A private copy of the person's MODEL with gated branches: the `Denoise` of every trainer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import comfy.model_management
import comfy.model_sampling
import torch
from comfy.ldm.modules.attention import BasicTransformerBlock, attention_pytorch
from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..branches import Branches, Gates
from ..observation import Observer
from . import conditioning as cond
from .branch_hooks import BranchHooks
from .free_memory import tried
from .private_copy import (
    compute_dtype,
    in_training,
    is_quantised,
    private_copy,
    refuse_patched,
    set_compute_dtype,
)

_INJECTION = "ziplora_training"
_ALL = 10**20
"""Bytes: more than any card has."""


class TrainingModel:
    """The frozen model, its branches, and the one way to ask it for a prediction.

    Args:
        patcher: the private ModelPatcher.
        branches: by weight key.
        dtype: it computes in.
        beside: patchers that stay loaded with it.

    `evaluations` counts the samples that went through the UNet; `on_evaluation` is told before
    each batch.
    """

    def __init__(
        self,
        patcher: Any,
        branches: Mapping[str, Branches],
        dtype: torch.dtype,
        beside: Sequence[Any] = (),
    ) -> None:
        self.patcher, self.dtype = patcher, dtype
        self.patchers = [patcher, *beside]
        self.hooks = BranchHooks(branches)
        self.sigmas: Tensor = self.sampling.sigmas.cpu()
        """σ of every timestep, rising; on the CPU, where to look one up is not to wait."""
        self.checkpointing = False
        self.one_by_one = False
        self.evaluations = 0
        self.on_evaluation: Callable[[int], None] = lambda evaluations: None

    def load(self) -> None:
        """Load it whole, with those beside it, and everything else off the card.

        With --novram, ComfyUI leaves all weights beside the card and gives each layer its own in a
        buffer that the next layer's overwrites: a backward pass would find the wrong ones there.
        """
        comfy.model_management.load_models_gpu(
            self.patchers, memory_required=_ALL, force_full_load=True
        )
        for patcher in self.patchers:
            if patcher.model.model_lowvram:
                patcher.partially_load(patcher.load_device, _ALL)

    @property
    def model(self) -> Any:
        return self.patcher.model

    @property
    def sampling(self) -> Any:
        """The MODEL's own sampling object: prediction type and noise schedule."""
        return self.patcher.get_model_object("model_sampling")

    @property
    def v_prediction(self) -> bool:
        return isinstance(self.sampling, comfy.model_sampling.V_PREDICTION)

    @property
    def cast_bytes(self) -> int:
        """What autograd keeps of weights that are cast in every layer (fp8): a copy of each."""
        weights = list(self.model.diffusion_model.parameters())
        cast = sum(w.numel() for w in weights if is_quantised(w) or w.dtype != self.dtype)
        return cast * self.dtype.itemsize

    @property
    def timesteps(self) -> int:
        return len(self.sigmas)

    @property
    def device(self) -> torch.device:
        return self.patcher.load_device

    @property
    def branches(self) -> Mapping[str, Branches]:
        """By weight key."""
        return self.hooks.branches

    @contextmanager
    def observed(self, observer: Observer) -> Iterator[None]:
        """Tell the observer what layers see; see `BranchHooks`."""
        self.hooks.observer = observer
        try:
            yield
        finally:
            self.hooks.observer = None

    def denoise(
        self,
        x: Tensor,
        sigma: Tensor,
        conditioning: Sequence[cond.Conditioning],
        gates: Gates | None,
    ) -> Tensor:
        """Predict in the model's own space (eps or v), float32, with the branches as gated.

        `apply_model` returns x0 = base + slope · prediction; the MODEL's own sampling object gives
        both, so that eps, v and zero-terminal-SNR models need no case of their own.
        """
        x, sigma = self.place(x), self.place(sigma)
        return self.prediction(x, sigma, self.denoised(x, sigma, conditioning, gates))

    def place(self, tensor: Tensor) -> Tensor:
        """Put a tensor on the device, without waiting for what is queued there where ComfyUI knows
        that to be safe."""
        non_blocking = comfy.model_management.device_supports_non_blocking(self.device)
        return tensor.to(self.device, non_blocking=non_blocking)

    def noised(self, x0: Tensor, noise: Tensor, timestep: int) -> tuple[Tensor, Tensor, Tensor]:
        """Make x_t = x0 + σ·noise; returns it, σ `()` and the prediction that would be right, all
        on the device.

        The right one solves x0 = base + slope · prediction (see `denoise`), in float64: noise for
        eps, (noise − σ·x0)/√(1+σ²) for v.
        """
        x0, sigma = x0.double(), self.sigmas[timestep]
        x = self.sampling.noise_scaling(sigma.double(), noise.double(), x0)
        right = self.prediction(x, sigma.double(), x0)
        return self.place(x.float()), self.place(sigma), self.place(right.float())

    def prediction(self, x: Tensor, sigma: Tensor, x0: Tensor) -> Tensor:
        """Find the prediction (eps or v) at `x` that means `x0`."""
        zeros = torch.zeros_like(x)
        base = self.sampling.calculate_denoised(sigma, zeros, x)
        slope = self.sampling.calculate_denoised(sigma, torch.ones_like(x), zeros)
        return (x0 - base) / slope

    def denoised(
        self,
        x: Tensor,
        sigma: Tensor,
        conditioning: Sequence[cond.Conditioning],
        gates: Gates | None,
    ) -> Tensor:
        """Predict x0, float32; samples whose prompts cannot share a batch run one by one.

        So do all from the moment on when memory has run out, unless a gradient or an observer
        needs the whole batch: then it is theirs to ask for less. Without gates the branches are
        not there at all.
        """
        first, *others = conditioning
        joined = all(first.joins(other) for other in others)
        watched = torch.is_grad_enabled() or self.hooks.observer is not None
        if joined and (watched or len(x) == 1):
            return self._apply(x, sigma, conditioning, gates)
        if joined and not self.one_by_one:
            before = self.evaluations
            together = tried(lambda: self._apply(x, sigma, conditioning, gates))
            if together is not None:
                return together
            self.evaluations, self.one_by_one = before, True
        singles = [
            self._apply(x[i : i + 1], sigma[i : i + 1], [one], gates and gates.of([i]))
            for i, one in enumerate(conditioning)
        ]
        return torch.cat(singles)

    def _apply(
        self,
        x: Tensor,
        sigma: Tensor,
        conditioning: Sequence[cond.Conditioning],
        gates: Gates | None,
    ) -> Tensor:
        self.evaluations += len(x)
        self.on_evaluation(self.evaluations)
        self.hooks.gates = gates and gates.each(lambda t: self.place(t.to(self.dtype)))
        try:
            return self.model.apply_model(
                x,
                sigma,
                **cond.batch(list(conditioning)),
                transformer_options={"optimized_attention_override": _differentiable_attention},
            )
        finally:
            self.hooks.gates = None

    def install_checkpointing(self) -> list[nn.Module]:
        """Give every block a forward that, while `checkpointing`, keeps only the block's input.

        The gates of the moment go along: the block is run again during backward, when another
        prediction may have been asked for since.
        """
        blocks: list[nn.Module] = [
            block
            for block in self.model.diffusion_model.modules()
            if isinstance(block, BasicTransformerBlock | ResBlock)
        ]
        for block in blocks:
            block.forward = self._checkpointed(block.forward)
        return blocks

    def _checkpointed(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        def run(gates: Gates | None, *args: Any, **kwargs: Any) -> Any:
            outer, self.hooks.gates = self.hooks.gates, gates
            try:
                return forward(*args, **kwargs)
            finally:
                self.hooks.gates = outer

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if not (self.checkpointing and torch.is_grad_enabled()):
                return forward(*args, **kwargs)
            return checkpoint(run, self.hooks.gates, *args, use_reentrant=False, **kwargs)

        return wrapped


@contextmanager
def training_model(
    model: Any,
    branches: Mapping[str, Branches],
    dtype: torch.dtype | None = None,
    beside: Sequence[Any] = (),
    backward: bool = True,
) -> Iterator[TrainingModel]:
    """Open a private, frozen, loaded copy of MODEL with branches on it.

    To be called outside inference mode: autograd refuses tensors made inside it. The
    person's MODEL is never touched; whatever happens inside, hooks, forwards and the copy are gone
    afterwards.

    Args:
        model: the person's ModelPatcher.
        branches: by weight key.
        dtype: compute dtype; by default `compute_dtype` of the device.
        beside: other ModelPatchers that stay loaded; everything else leaves the card.
        backward: gradients will be asked for.

    Raises:
        ZipLoRAError: injections or wrappers are on the MODEL, or it cannot be copied.
    """
    refuse_patched(model)
    patcher = private_copy(model)
    dtype = dtype or compute_dtype(patcher.load_device, backward)
    set_compute_dtype(patcher, dtype)
    opened = TrainingModel(patcher, branches, dtype, beside)
    patcher.model.requires_grad_(False)
    patcher.set_injections(_INJECTION, [opened.hooks.injection()])
    blocks = opened.install_checkpointing()
    try:
        with in_training():
            opened.load()
            for branch in branches.values():  # after the others have left the card
                branch.to(patcher.load_device, dtype)
            yield opened
    finally:
        patcher.eject_model()
        patcher.remove_injections(_INJECTION)  # it points back: the weights would wait for the gc
        for block in blocks:
            block.__dict__.pop("forward", None)
        comfy.model_management.unload_model_and_clones(patcher)


def _differentiable_attention(_function: Any, *args: Any, **kwargs: Any) -> Tensor:
    """PyTorch's attention in the place of one without a backward (flash, sage)."""
    return attention_pytorch(*args, **kwargs)
