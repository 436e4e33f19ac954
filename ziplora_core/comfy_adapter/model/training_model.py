"""A private copy of the user's MODEL with gated branches, which all trainers train with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import comfy.model_management
import torch
from comfy.ldm.modules.attention import attention_pytorch
from torch import Tensor

from ...errors import problem
from ...training.activations import ActivationRecorder
from ...training.branches import Branches, Gates, lengthened
from . import conditioning as cond
from .block_checkpointing import checkpointed_blocks
from .branch_hooks import BranchHooks
from .family import family_of
from .in_place import norms_on_copies
from .memory_advice import run_or_free_memory
from .noise_schedule import NoiseSchedule
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
"""A number of bytes above the memory of any card."""


class TrainingModel(NoiseSchedule):
    """The frozen model with its branches, and the predictions it makes.

    Args:
        patcher: the private ModelPatcher.
        branches: branches by weight key.
        dtype: compute dtype.
        keep_loaded: patchers that stay loaded with it.

    `evaluations` counts the samples that went through the UNet; `on_evaluation` is called with that
    count before each batch.
    """

    def __init__(
        self,
        patcher: Any,
        branches: Mapping[str, Branches],
        dtype: torch.dtype,
        keep_loaded: Sequence[Any] = (),
    ) -> None:
        super().__init__(patcher)
        self.dtype = dtype
        self.patchers = [patcher, *keep_loaded]
        self.hooks = BranchHooks(branches)
        self.checkpointing = False
        self.one_by_one = False
        self.evaluations = 0
        self.on_evaluation: Callable[[int], None] = lambda evaluations: None

    def load(self) -> None:
        """Load the model and `keep_loaded` as a whole, and unload everything else.

        With --novram, ComfyUI keeps all weights off the card and lends each layer its weights in a
        buffer that the next layer overwrites; a backward pass would read the wrong ones there.
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
    def cast_bytes(self) -> int:
        """The bytes that autograd keeps as copies of weights that are cast in every layer (fp8)."""
        weights = list(self.model.diffusion_model.parameters())
        cast = sum(w.numel() for w in weights if is_quantised(w) or w.dtype != self.dtype)
        return cast * self.dtype.itemsize

    @property
    def branches(self) -> Mapping[str, Branches]:
        """The branches by weight key."""
        return self.hooks.branches

    @contextmanager
    def recording(self, recorder: ActivationRecorder) -> Iterator[None]:
        """Record activations while in this context; see `BranchHooks`."""
        self.hooks.recorder = recorder
        try:
            yield
        finally:
            self.hooks.recorder = None

    def denoise(
        self,
        x: Tensor,
        sigma: Tensor,
        conditioning: Sequence[cond.Conditioning],
        gates: Gates | None,
    ) -> Tensor:
        """Compute the model's prediction (eps, v or velocity) with the gated branches, float32.

        Args:
            x: noisy latents `(b, c, [1,] h, w)`.
            sigma: noise levels `(b,)`.
            conditioning: one conditioning per sample.
            gates: gates of the branches; None to predict without them.
        """
        x, sigma = self.place(x), self.place(sigma)
        return self.prediction(x, sigma, self.denoised(x, sigma, conditioning, gates))

    @property
    def notes(self) -> list[str]:
        """Say for the report whether memory ran out, which changes the rounding."""
        return ["memory ran out: samples went one by one from then on"] if self.one_by_one else []

    def denoised(
        self,
        x: Tensor,
        sigma: Tensor,
        conditioning: Sequence[cond.Conditioning],
        gates: Gates | None,
    ) -> Tensor:
        """Predict x0, float32; samples whose prompts cannot share a batch run one by one.

        After memory has run out once, all samples run one by one, unless gradients or an activation
        recorder need the whole batch; their callers handle the error. Without gates, branches are
        not computed.
        """
        first, *others = conditioning
        joined = all(first.joins(other) for other in others)
        watched = torch.is_grad_enabled() or self.hooks.recorder is not None
        if joined and (watched or len(x) == 1):
            return self._apply(x, sigma, conditioning, gates)
        if joined and not self.one_by_one:
            before = self.evaluations
            together = run_or_free_memory(lambda: self._apply(x, sigma, conditioning, gates))
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
        parts = cond.batch(list(conditioning))
        parts["c_crossattn"] = lengthened(parts["c_crossattn"], gates and gates.prompts)
        try:
            return self.model.apply_model(
                x,
                sigma,
                **parts,
                transformer_options={"optimized_attention_override": _differentiable_attention},
            )
        finally:
            self.hooks.gates = None


@contextmanager
def training_model(
    model: Any,
    branches: Mapping[str, Branches],
    dtype: torch.dtype | None = None,
    keep_loaded: Sequence[Any] = (),
    backward: bool = True,
) -> Iterator[TrainingModel]:
    """Open a private, frozen, loaded copy of a MODEL with branches on it.

    Call it outside inference mode, as autograd refuses tensors made inside it. The user's MODEL is
    never changed. Hooks, replaced forwards and the copy are removed on exit, also after an error.

    Args:
        model: the user's ModelPatcher.
        branches: branches by weight key.
        dtype: compute dtype; by default `compute_dtype` of the device.
        keep_loaded: other ModelPatchers to load; all models not named are unloaded.
        backward: whether there will be backward passes.

    Raises:
        ZipLoRAError: there are injections or wrappers on the MODEL, it cannot be copied, or a
            backward pass was asked of a layer that has none.
    """
    refuse_patched(model)
    patcher = private_copy(model)
    dtype = dtype or compute_dtype(patcher.load_device, backward)
    set_compute_dtype(patcher, dtype)
    opened = TrainingModel(patcher, branches, dtype, keep_loaded)
    patcher.model.requires_grad_(False)
    patcher.set_injections(_INJECTION, [opened.hooks.injection()])
    try:
        network = patcher.model.diffusion_model
        with (
            in_training(),
            norms_on_copies(network),
            checkpointed_blocks(network, opened.hooks, lambda: opened.checkpointing),
        ):
            opened.load()
            for branch in branches.values():  # after other models were unloaded
                branch.to(patcher.load_device, dtype)
            yield opened
    except RuntimeError as error:
        if "autograd formula" not in str(error):
            raise
        family = family_of(patcher.model).name
        raise problem(
            "model",
            found=f"{family}, some of whose layers have no backward pass in this ComfyUI",
            expected="a model that can be trained",
            advice="Merging needs no backward pass: choose solver=closed_form, or Merge LoRAs.",
        ) from error
    finally:
        patcher.eject_model()
        patcher.remove_injections(_INJECTION)  # else a reference cycle keeps the weights
        comfy.model_management.unload_model_and_clones(patcher)


def _differentiable_attention(_function: Any, *args: Any, **kwargs: Any) -> Tensor:
    """Use PyTorch's attention in place of one without a backward pass (flash, sage)."""
    return attention_pytorch(*args, **kwargs)
