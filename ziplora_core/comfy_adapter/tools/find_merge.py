"""The strengths at which a merge keeps most of both, found by drawing and judging pictures."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...lora.pair import ModulePair
from ...merging.strengths import BASELINE, write_strengths
from ...plots.found import FoundMerge, FoundMerges
from ...training.interface import NO_CALLBACKS, ProgressCallbacks
from ...training.report import compose
from ..model.family import is_unet
from ..model.memory_advice import memory_advice
from .feature_scorer import FeatureScorer
from .find_inputs import FindInputs, halves_of, refuse_one_lora
from .find_search import Search, put_on, unless_cancelled
from .judge import PATCHED
from .judge_inputs import checked_pair
from .scorers import CalibrationPictures, EncoderScorer, LoRAScorer, Scorer, draw_calibration
from .scores import check_references

CALIBRATION_PICTURES = 4
"""Pictures to draw with each of the base model and the two LoRAs. All candidates are measured on
the same scale, so that its errors hardly change their order."""
DRAWS = 4
"""Noisy versions of each picture, where the LoRAs judge."""
_ADVICE = "try another seed"


@dataclass(frozen=True)
class Found:
    """The candidates, the chosen one first, and the text of the report."""

    merges: FoundMerges
    report: str


@memory_advice("Connect a smaller latent")
def find_merge(
    model: Any, vae: Any, inputs: FindInputs, callbacks: ProgressCallbacks = NO_CALLBACKS
) -> Found:
    """Find the strengths whose pictures have most of the subject and of the style; see `halve`.

    Each kind of merge is searched on its own. By the model's own features, a kind of merge can
    score high and look worse, so only image encoders choose between kinds; without them it is the
    first.

    Args:
        model: the ModelPatcher without the LoRAs, which is not changed.
        vae: the checkpoint's VAE.
        inputs: merges, candidates and settings.
        callbacks: progress; a request to stop, like the end of the time, ends the search with the
            best so far. The first picture is always drawn.

    Raises:
        ZipLoRAError: inputs that the user can correct: a merge without two halves, a budget that
            is too small, an encoder without its pictures; see also `checked_pair` and `Scorer`.
    """
    began = time.monotonic()
    for name, merged in inputs.merges.items():
        refuse_one_lora(name, merged)
    check_references(inputs.references)
    kinds, planned = list(inputs.merges), inputs.planned  # which checks the budget
    pair = halves_of(inputs.merges[kinds[0]])
    pairs = checked_pair(model, vae, pair, inputs.sampling)
    notes = [n for name in kinds for n in put_on(model, inputs, name, BASELINE)[1]]

    count = 3 * CALIBRATION_PICTURES
    calibration = draw_calibration(
        model, vae, pairs, inputs.sampling, CALIBRATION_PICTURES,
        lambda done: callbacks.on_prepare(inputs.evaluations(done), inputs.evaluations(count)),
    )  # fmt: skip
    callbacks.on_prepare(inputs.evaluations(count), inputs.evaluations(count))
    scorer = _scorer(model, vae, inputs, pairs, calibration)
    search = Search(model, vae, inputs, scorer, callbacks)
    ready = time.monotonic()
    share = (60 * inputs.minutes - (ready - began)) / len(kinds)
    searched = [search.best_first(name, ready + share * n) for n, name in enumerate(kinds, start=1)]
    searched = [rows for rows in searched if rows]
    if inputs.by_encoders:
        searched.sort(key=lambda rows: -rows[0].trial.mean)
    rows = [row for rows in searched for row in rows]
    found = FoundMerges(rows, inputs.negative_strength, inputs.sampling.seed)

    drawn = search.record.step
    if search.ended:
        search.record.stopped = f"{search.ended} after {drawn}"
        callbacks.on_step(search.record)
    plan = ", then ".join(f"{r.candidates} × {r.pictures}" for r in inputs.rounds)
    return Found(found, compose([
        *([PATCHED] if model.patches else []),
        *([_fallback(model)] if isinstance(scorer, LoRAScorer) else []),
        *(_best_line(best, others) for best, *others in searched),
        *([f"{search.ended} after {drawn} of {planned} pictures"] if search.ended else []),
        f"{drawn} pictures drawn, {plan}{' of each kind' if kinds[1:] else ''}; "
        f"seeds from {found.seed}, negative_strength {found.negative_strength:g}",
        f"UNet evaluations: about {inputs.evaluations(drawn)} for these, and "
        f"{inputs.evaluations(count)} for {count} pictures of the calibration; "
        f"{(time.monotonic() - began) / 60:.1f} minutes in all",
        *dict.fromkeys(notes),
        *_notes(inputs, kinds),
        *scorer.describe(),
    ]))  # fmt: skip


def _scorer(
    model: Any,
    vae: Any,
    inputs: FindInputs,
    pairs: Mapping[str, ModulePair],
    calibration: CalibrationPictures,
) -> Scorer:
    """Choose who judges: the image encoders, the UNet's features or, if these cannot, the LoRAs."""
    if inputs.by_encoders:
        return EncoderScorer(inputs.references, calibration, _ADVICE)
    if is_unet(model.model):
        features = FeatureScorer(model, vae, inputs.sampling, calibration, _ADVICE)
        if features.calibrate(unless_cancelled):
            return features
    return LoRAScorer(model, vae, pairs, inputs.sampling, calibration, DRAWS, _ADVICE)


def _fallback(model: Any) -> str:
    """Say why the two LoRAs judge."""
    why = (
        "at this prompt the UNet's features do not tell the LoRAs' own pictures apart"
        if is_unet(model.model)
        else "this model is no UNet, whose features would judge"
    )
    return f"WARNING: {why}, so the two LoRAs judge, which misleads more often: look at the sheet"


def _best_line(best: FoundMerge, others: list[FoundMerge]) -> str:
    """Name the best strengths of a kind, beside those of the merge as it is."""
    trial, count = best.trial, len(best.trial.scores)
    line = (
        f"{best.kind}: best at {write_strengths(trial.strengths)} (content / style), "
        f"{trial.mean:.3f}: the smaller of both scores, mean of {count} pictures"
    )
    as_it_is = [o.trial.mean for o in others if o.strengths == BASELINE]
    return line + "".join(
        f"; {write_strengths(BASELINE)} has {m:.3f} on the same" for m in as_it_is
    )


def _notes(inputs: FindInputs, kinds: list[str]) -> list[str]:
    """Say what was left out."""
    notes = []
    if kinds[1:] and not inputs.by_encoders:
        notes.append(
            f"{kinds[0]} is chosen whatever {kinds[1]} scores: the model's features cannot judge "
            "between kinds of merge. Look at both, and pick one with Choose Merge"
        )
    references = inputs.references
    if (references.clip_vision or references.dino) and not inputs.by_encoders:
        notes.append("the image encoder is not used: clip_vision and dino are needed together")
    if any(merged.text_encoder for merged in inputs.merges.values()):
        notes.append(
            "text-encoder modules are not searched: the prompts are already encoded. The merge "
            "that is found has them at its strengths"
        )
    return notes
