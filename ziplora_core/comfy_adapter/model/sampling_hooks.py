"""Branches on a MODEL that is sampled, and what ComfyUI's model merges make of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from typing import Any

import comfy.model_management
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import CallbacksMP
from comfy.weight_adapter.lora import LoRAAdapter

from ...errors import ZipLoRAError, problem
from ...training.branches import Branches
from .branch_hooks import BranchHooks, refuse_several_devices


class SamplingHooks(BranchHooks):
    """Hooks for sampling, with branches in the model's compute dtype on its device while loaded.

    ComfyUI removes and adds injections several times in a run, so the branches stay on the device
    until it detaches the model.

    A node after the branches may multiply a weight (model merges, UNetCrossAttentionMultiply), as
    the `strength_model` of a patch. It then multiplies the branches, too, as it would a LoRA's
    patch:

        y = p (W0 + ΔW) x + …        p is the product of the later patches' factors

    Args:
        branches: branches by weight key.
        beside: what they are, where no weight can hold them; empty if a LoRA's patch does.
    """

    def __init__(self, branches: Mapping[str, Branches], beside: str = "") -> None:
        super().__init__(branches)
        self._own, self._place, self.beside = branches, None, beside
        self._before: dict[str, int] = {}  # patches that were there before the branches

    def put_on(self, patcher: Any, key: str) -> None:
        """Add the hooks to a clone of a MODEL, under a key of their own."""
        self._before = {name: len(patcher.patches.get(name, ())) for name in self._own}
        patcher.set_injections(key, [self.injection()])
        patcher.set_attachments(key, self)
        patcher.add_callback_with_key(CallbacksMP.ON_DETACH, key, self._unloaded)
        patcher.__class__ = _branched(type(patcher))

    def among(self, patches: Mapping[str, Any]) -> dict[str, Any]:
        """Return the patches of weights with the branches among them, as a LoRA's patches.

        Args:
            patches: by weight key, the weight and then its patches, as `get_key_patches` has them.
        """
        found = dict(patches)
        for name in self._own.keys() & found.keys():
            branch, at = self._own[name], 1 + self._before[name]
            factors = (branch.up, branch.down, None, None, None, None)
            patch = (1.0, LoRAAdapter(set(), factors), 1.0, None, None)
            found[name] = [*found[name][:at], patch, *found[name][at:]]
        return found

    def _inject(self, patcher: Any) -> None:
        refuse_several_devices(patcher)
        shares = {name: self._share(patcher, name) for name in self._own}
        place = patcher.load_device, patcher.model.get_dtype_inference(), shares
        if place != self._place:
            non_blocking = comfy.model_management.device_supports_non_blocking(place[0])
            self.branches = {
                name: b.times(shares[name]).on(*place[:2], non_blocking)
                for name, b in self._own.items()
            }
            self._place = place
        super()._inject(patcher)

    def _share(self, patcher: Any, name: str) -> float:
        """Return the product of the factors of the patches that came after the branches."""
        return math.prod(patch[2] for patch in patcher.patches.get(name, ())[self._before[name] :])

    def _unloaded(self, *_: Any) -> None:
        if not self._put_on:  # otherwise another patcher with them is still loaded
            self.branches, self._place = self._own, None


class _Branched(ModelPatcher):
    """What a ModelPatcher does otherwise if there are branches on it.

    ComfyUI's merges take the weights and weight patches of their second MODEL and nothing else, and
    its savers take the weights: branches would be lost without a word.
    """

    def get_key_patches(self, filter_prefix: str | None = None) -> dict[str, Any]:
        """Return the weights and their patches, for a merge with the branches among them.

        Raises:
            ZipLoRAError: no weight can hold the branches.
        """
        patches = super().get_key_patches(filter_prefix)
        if filter_prefix is None:  # ComfyUI's own look at them, while it samples
            return patches
        for hooks in reversed(_hooks(self)):  # the last first, as each changes the places after it
            if hooks.beside:
                raise _refused(
                    hooks.beside,
                    "A merge takes weights alone from this MODEL: put that node after the merge.",
                )
            patches = hooks.among(patches)
        return patches

    def model_state_dict(self, filter_prefix: str | None = None) -> dict[str, Any]:
        """Return the weights; refuse to where they are taken out (Extract and Save Lora)."""
        if filter_prefix is not None:
            self._refuse_saving()
        return super().model_state_dict(filter_prefix)

    def state_dict_for_saving(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Refuse to be saved as a checkpoint."""
        self._refuse_saving()
        return super().state_dict_for_saving(*args, **kwargs)

    def _refuse_saving(self) -> None:
        for hooks in _hooks(self):
            raise _refused(
                hooks.beside or "a slider",
                "A file has weights alone: save the MODEL without that node, or put the LoRA on it "
                "with ComfyUI's own Load LoRA.",
            )


def _hooks(patcher: ModelPatcher) -> list[SamplingHooks]:
    """Return the branches on a MODEL, in the order in which they were put on."""
    attached: Mapping[str, Any] = patcher.attachments
    return [hooks for hooks in attached.values() if isinstance(hooks, SamplingHooks)]


def _refused(beside: str, advice: str) -> ZipLoRAError:
    return problem(
        "model",
        found=f"{beside} on it, beside its weights",
        expected="a MODEL whose weights hold all that is on it",
        advice=advice,
    )


@cache
def _branched(kind: type[ModelPatcher]) -> type[ModelPatcher]:
    """Return the subclass for MODELs with branches of a ModelPatcher's class."""
    if issubclass(kind, _Branched):
        return kind
    if kind is ModelPatcher:
        return _Branched
    return type(kind.__name__, (_Branched, kind), {})
