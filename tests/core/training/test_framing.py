"""Resizing and cropping, and what SDXL is told about it."""

from __future__ import annotations

import pytest
import torch

from ziplora_core.training.framing import Framing, framing, reframe


@pytest.mark.parametrize(
    ("size", "target"),
    [
        ((1024, 1024), (1024, 1024)),
        ((3000, 4000), (896, 1152)),
        ((4000, 3000), (1152, 896)),
        ((720, 1280), (768, 1344)),
        ((512, 512), (1024, 1024)),
        ((100, 1000), (512, 2048)),
        ((8, 8), (1024, 1024)),
    ],
)
def test_framing_at_1024_takes_sdxls_own_sizes(
    size: tuple[int, int], target: tuple[int, int]
) -> None:
    frame = framing(*size, 1024)
    assert frame.original == size and frame.target == target
    assert target[0] % 64 == target[1] % 64 == 0 and target[0] * target[1] <= 1024**2


@pytest.mark.parametrize("resolution", [64, 128, 512, 1000, 1024])
@pytest.mark.parametrize("size", [(8, 8), (333, 777), (2000, 50), (1023, 1025)])
def test_framing_covers_the_target_with_a_centred_crop(
    size: tuple[int, int], resolution: int
) -> None:
    frame = framing(*size, resolution)
    for side in range(2):
        assert frame.target[side] % 8 == 0
        assert 0 <= frame.crop[side] <= frame.resized[side] - frame.target[side]
        rest = frame.resized[side] - frame.target[side] - 2 * frame.crop[side]
        assert rest in (0, 1)
    scale = [frame.resized[i] / size[i] for i in range(2)]
    assert frame.resized[0] == frame.target[0] or frame.resized[1] == frame.target[1]
    assert abs(scale[0] / scale[1] - 1) < 1 / min(frame.resized) + 1e-6  # the shape is kept


@pytest.mark.parametrize("resolution", range(64, 2049, 8))
def test_framing_square_picture_stays_square(resolution: int) -> None:
    assert framing(700, 700, resolution).target == (resolution, resolution)


def test_framing_mirrored_starts_its_crop_at_the_other_side() -> None:
    frame = Framing((90, 200), (64, 143), (0, 20), (64, 96))
    assert frame.mirrored() == Framing((90, 200), (64, 143), (0, 27), (64, 96))
    assert frame.mirrored().mirrored() == frame


def test_reframe_crops_what_the_framing_says() -> None:
    ramp = torch.linspace(0, 1, 128)[None, :, None].expand(64, 128, 3)
    frame = Framing((64, 128), (64, 128), (0, 32), (64, 64))
    torch.testing.assert_close(reframe(ramp, frame), ramp[:, 32:96])
    small = reframe(ramp, Framing((64, 128), (32, 64), (0, 0), (32, 64)))
    assert small.shape == (32, 64, 3)
    torch.testing.assert_close(small[:, 8:-8], ramp[::2, ::2][:, 8:-8], atol=0.01, rtol=0)
