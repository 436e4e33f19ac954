"""A search's pictures: drawn one by one, scored round by round, and shown while it runs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import comfy.model_management
import torch
from torch import Tensor

from ...merging.strengths import BASELINE, Strengths, write_strengths
from ...merging.successive_halving import Trial, Wish, halve
from ...plots.found import FoundMerge
from ...plots.judge import Judged
from ...training.interface import ProgressCallbacks, TrainingRecord
from ..apply.guidance import with_merge
from ..apply.sweep import draw_picture
from .find_inputs import FindInputs
from .scorers import Scorer, seeded

SHOWN = 4
"""Most pictures of a candidate that are kept, and most candidates that are shown while it runs."""
_NAME = "merged LoRA"


def put_on(
    model: Any, inputs: FindInputs, kind: str, strengths: Strengths
) -> tuple[Any, list[str]]:
    """Put a candidate on a clone of MODEL; return the clone and report lines about it.

    Args:
        model: the ModelPatcher, which is not changed.
        inputs: the merges and the negative strength.
        kind: the name of the merge.
        strengths: of content and style. Only the UNet part is used: the prompts are encoded.

    Raises:
        ZipLoRAError: a module has no place in this UNet.
    """
    merged = inputs.merges[kind]
    modules = {n: f for n, f in merged.modules(*strengths).items() if n in merged.pairs}
    return with_merge(model, modules, _NAME, inputs.negative_strength)


class Search:
    """Draws and scores the candidates of one kind of merge after the other.

    Args:
        model: the ModelPatcher without the LoRAs, which is not changed.
        vae: the checkpoint's VAE.
        inputs: merges, candidates and settings.
        scorer: scores the pictures.
        callbacks: progress, and the request to stop.

    `record` counts the pictures of all kinds; `ended` says why the search ended early, if it did.
    """

    def __init__(
        self, model: Any, vae: Any, inputs: FindInputs, scorer: Scorer, callbacks: ProgressCallbacks
    ) -> None:
        self.model, self.vae, self.inputs = model, vae, inputs
        self.scorer, self.callbacks = scorer, callbacks
        self.record = TrainingRecord()
        self.ended = ""

    def best_first(self, kind: str, end: float) -> list[FoundMerge]:
        """Search one kind; return the candidates that got pictures: the best, the others by score.

        Args:
            kind: the name of the merge.
            end: when its time is over, by `time.monotonic`, if the time is limited.
        """
        kept: dict[Strengths, list[Tensor]] = {s: [] for s in self.inputs.strengths}

        def evaluate(wishes: Sequence[Wish]) -> list[Judged]:
            pictures: list[Tensor] = []
            for wish in wishes:
                if self._is_over(end):
                    break
                patched, _ = put_on(self.model, self.inputs, kind, wish.strengths)
                how = seeded(self.inputs.sampling, wish.number)
                pictures.append(draw_picture(patched, self.vae, how))
                if wish.number < SHOWN:
                    kept[wish.strengths].append((255 * pictures[-1]).round().byte())
                self.record.step += 1
                self.callbacks.on_step(self.record)
            return self.scorer.score(pictures, unless_cancelled) if pictures else []

        def show(trials: Sequence[Trial[Judged]]) -> None:
            drawn = [trial for trial in trials if trial.scores]
            if drawn:
                best = [trial.strengths for trial in drawn[:SHOWN]]
                pictures = [kept[strengths][0].float() / 255 for strengths in best]
                named = [*map(write_strengths, best)]
                self.callbacks.on_samples(self.record.step, pictures, named)
                self.callbacks.on_status(_so_far(kind, drawn))

        trials = halve(self.inputs.strengths, self.inputs.budget, evaluate, show)
        merged = self.inputs.merges[kind]
        rows = [
            FoundMerge(
                kind, t, merged.at(*t.strengths), torch.stack(kept[t.strengths][: len(t.scores)])
            )
            for t in trials
            if t.scores
        ]
        return rows[:1] + sorted(rows[1:], key=lambda row: -row.trial.mean)

    def _is_over(self, end: float) -> bool:
        """Whether the search is to end now; the first picture is always drawn."""
        if not self.record.step:
            return False
        if self.callbacks.should_stop():
            self.record.asked_to_stop = True
            self.ended = "stopped"
            return True
        if self.inputs.minutes and time.monotonic() >= end:
            self.ended = "the time was over"
            return True
        return False


def unless_cancelled(_evaluations: int) -> None:
    """Raise if the user has cancelled."""
    comfy.model_management.throw_exception_if_processing_interrupted()


def _so_far(kind: str, ranked: Sequence[Trial[Judged]]) -> str:
    """Name the best candidate so far, and the merge as it is."""
    best, *others = ranked
    said = [best, *(trial for trial in others if trial.strengths == BASELINE)]
    scores = ", ".join(f"{write_strengths(t.strengths)}: {t.mean:.2f}" for t in said)
    return f"{kind}, best first: {scores}"
