"""Random draws without a state: a resumed run draws what an uninterrupted one would have drawn."""

from __future__ import annotations

from enum import IntEnum

import torch
from torch import Tensor


class Stream(IntEnum):
    """The purposes of random draws: equal seeds draw different numbers for different purposes."""

    TRAINING = 0
    TIMESTEPS = 1
    NOISE = 2
    HELD_OUT = 7
    SAMPLE_PICTURES = 11
    CLASS_PICTURES = 13
    LORA_START = 17
    SLIDER_EFFECT = 29
    UNZIPLORA_START = 37
    IMPORTANCE = 41
    JUDGE = 43
    BLIND = 47


class Pool(IntEnum):
    """The two sets of noisy samples that ZipLoRA draws."""

    TRAINING = 0
    HELD_OUT = 1


def generator(*seed: int) -> torch.Generator:
    """Make a CPU generator for one purpose: equal numbers give equal draws, other numbers others.

    A generator that depends only on (seed, step) has no state to store: a resumed run draws the
    same numbers as one that never stopped.
    """
    mixed = 0
    for number in seed:
        mixed = (mixed * 6364136223846793005 + number + 1442695040888963407) % 2**63
    return torch.Generator().manual_seed(mixed)


def draw_timesteps(count: int, timesteps: int, rng: torch.Generator) -> Tensor:
    """Draw `count` stratified timesteps in 0…timesteps−1: one in each of `count` equal parts."""
    place = (torch.arange(count) + torch.rand(count, generator=rng)) / count
    drawn = (place[torch.randperm(count, generator=rng)] * timesteps).long()
    return drawn.clamp(max=timesteps - 1)  # float32 may round up to `timesteps`


def draw_index(seed: int, count: int, draw: int) -> int:
    """Return the sample index of a draw; an epoch visits `count` samples once, in a new order."""
    epoch, place = divmod(draw, count)
    return int(torch.randperm(count, generator=generator(seed, epoch))[place])
