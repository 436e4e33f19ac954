"""The world's subjects: silhouettes as signed distances, negative inside.

Every shape is about two units wide and centred; x points right and y down.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Shape = Callable[[Tensor, Tensor], Tensor]
Point = tuple[float, float]


def disc(x: Tensor, y: Tensor, cx: float = 0.0, cy: float = 0.0, radius: float = 1.0) -> Tensor:
    return ((x - cx).square() + (y - cy).square()).sqrt() - radius


def ellipse(x: Tensor, y: Tensor, cx: float, cy: float, rx: float, ry: float) -> Tensor:
    """Distance in the units of the smaller radius; exact enough for an edge."""
    return (((x - cx) / rx).square() + ((y - cy) / ry).square()).sqrt().sub(1) * min(rx, ry)


def box(x: Tensor, y: Tensor, left: float, top: float, right: float, bottom: float) -> Tensor:
    return torch.maximum(
        (x - (left + right) / 2).abs() - (right - left) / 2,
        (y - (top + bottom) / 2).abs() - (bottom - top) / 2,
    )


def polygon(x: Tensor, y: Tensor, corners: Sequence[Point]) -> Tensor:
    """Signed distance to a closed polygon, convex or not."""
    nearest = torch.full_like(x, math.inf)
    inside = torch.zeros_like(x, dtype=torch.bool)
    for (ax, ay), (bx, by) in zip(corners, (*corners[1:], corners[0]), strict=True):
        ex, ey = bx - ax, by - ay
        along = (((x - ax) * ex + (y - ay) * ey) / (ex * ex + ey * ey)).clamp(0, 1)
        nearest = torch.minimum(
            nearest, (x - ax - along * ex).square() + (y - ay - along * ey).square()
        )
        crosses = (y >= min(ay, by)) & (y < max(ay, by))
        if by != ay:
            inside ^= crosses & (x < ax + (y - ay) * ex / ey)
    return torch.where(inside, -nearest.sqrt(), nearest.sqrt())


def union(*parts: Tensor) -> Tensor:
    return torch.stack(parts).amin(0)


def without(body: Tensor, *holes: Tensor) -> Tensor:
    """The body less the holes."""
    return torch.maximum(body, -union(*holes))


def _regular(corners: int, radius: float = 1.0, inner: float | None = None) -> list[Point]:
    """Corners of a regular polygon, or of a star when `inner` is given, one pointing up."""
    radii = [radius] if inner is None else [radius, inner]
    count = corners * len(radii)
    angles = [2 * math.pi * i / count for i in range(count)]
    return [
        (radii[i % len(radii)] * math.sin(a), -radii[i % len(radii)] * math.cos(a))
        for i, a in enumerate(angles)
    ]


def _heart(x: Tensor, y: Tensor) -> Tensor:
    lobes = union(disc(x, y, -0.48, -0.35, 0.52), disc(x, y, 0.48, -0.35, 0.52))
    tip = polygon(x, y, [(-0.93, -0.12), (0.0, -0.45), (0.93, -0.12), (0.0, 0.98)])
    return union(lobes, tip)


def _flower(x: Tensor, y: Tensor) -> Tensor:
    turns = (2 * math.pi * i / 5 for i in range(5))
    petals = [disc(x, y, 0.58 * math.sin(a), -0.58 * math.cos(a), 0.42) for a in turns]
    return without(union(*petals, disc(x, y, radius=0.5)), disc(x, y, radius=0.2))


def _house(x: Tensor, y: Tensor) -> Tensor:
    roof = polygon(x, y, [(-1.0, -0.1), (0.0, -1.0), (1.0, -0.1)])
    return without(union(roof, box(x, y, -0.75, -0.15, 0.75, 0.9)), box(x, y, -0.2, 0.25, 0.2, 1.0))


def _tree(x: Tensor, y: Tensor) -> Tensor:
    crown = union(disc(x, y, 0.0, -0.4, 0.6), disc(x, y, -0.4, 0.0, 0.45), disc(x, y, 0.4, 0, 0.45))
    return union(crown, box(x, y, -0.16, 0.3, 0.16, 1.0))


def _boat(x: Tensor, y: Tensor) -> Tensor:
    hull = polygon(x, y, [(-1.0, 0.3), (1.0, 0.3), (0.6, 0.85), (-0.6, 0.85)])
    return union(
        hull,
        polygon(x, y, [(-0.08, -0.95), (-0.08, 0.15), (-0.8, 0.15)]),
        polygon(x, y, [(0.08, -0.95), (0.75, 0.15), (0.08, 0.15)]),
    )


def _cup(x: Tensor, y: Tensor) -> Tensor:
    handle = without(disc(x, y, 0.55, 0.0, 0.45), disc(x, y, 0.55, 0.0, 0.22))
    return union(polygon(x, y, [(-0.9, -0.75), (0.5, -0.75), (0.35, 0.8), (-0.75, 0.8)]), handle)


def _key(x: Tensor, y: Tensor) -> Tensor:
    bow = without(disc(x, y, 0.0, -0.55, 0.45), disc(x, y, 0.0, -0.55, 0.18))
    teeth = (box(x, y, 0.0, 0.45, 0.45, 0.62), box(x, y, 0.0, 0.78, 0.45, 0.98))
    return union(bow, box(x, y, -0.13, -0.2, 0.13, 1.0), *teeth)


def _cat(x: Tensor, y: Tensor) -> Tensor:
    """A head with two ears and two eyes."""
    ears = [polygon(x, y, [(s * 0.92, -0.98), (s * 0.1, -0.45), (s * 0.92, 0.1)]) for s in (-1, 1)]
    eyes = [ellipse(x, y, s * 0.38, 0.1, 0.16, 0.22) for s in (-1, 1)]
    return without(union(ellipse(x, y, 0.0, 0.2, 0.95, 0.72), *ears), *eyes)


def _fish(x: Tensor, y: Tensor) -> Tensor:
    """Looks left, with an eye and a tail fin."""
    tail = polygon(x, y, [(0.35, 0.0), (1.0, -0.6), (1.0, 0.6)])
    return without(union(ellipse(x, y, -0.25, 0.0, 0.75, 0.52), tail), disc(x, y, -0.6, -0.1, 0.15))


def _mushroom(x: Tensor, y: Tensor) -> Tensor:
    cap = torch.maximum(ellipse(x, y, 0.0, 0.05, 1.0, 0.95), y - 0.05)
    spots = (disc(x, y, -0.4, -0.3, 0.17), disc(x, y, 0.3, -0.45, 0.17))
    return union(without(cap, *spots), box(x, y, -0.27, 0.0, 0.27, 0.95))


def _rocket(x: Tensor, y: Tensor) -> Tensor:
    body = union(ellipse(x, y, 0.0, -0.3, 0.42, 0.7), box(x, y, -0.42, -0.3, 0.42, 0.55))
    fins = [polygon(x, y, [(s * 0.4, 0.0), (s * 0.9, 0.95), (s * 0.25, 0.55)]) for s in (-1, 1)]
    return without(union(body, *fins), disc(x, y, 0.0, -0.3, 0.2))


def _rabbit(x: Tensor, y: Tensor) -> Tensor:
    """A head with two long ears and two eyes."""
    ears = [ellipse(x, y, s * 0.36, -0.5, 0.22, 0.5) for s in (-1, 1)]
    eyes = [disc(x, y, s * 0.3, 0.3, 0.13) for s in (-1, 1)]
    return without(union(ellipse(x, y, 0.0, 0.38, 0.72, 0.6), *ears), *eyes)


def _umbrella(x: Tensor, y: Tensor) -> Tensor:
    """A canopy scalloped below, a stick and a hook to the left."""
    canopy = torch.maximum(disc(x, y, 0.0, 0.0, 1.0), y - 0.05)
    scallops = [disc(x, y, cx, 0.1, 0.3) for cx in (-0.64, 0.0, 0.64)]
    hook = torch.maximum(
        without(disc(x, y, -0.2, 0.72, 0.32), disc(x, y, -0.2, 0.72, 0.1)), 0.7 - y
    )
    return union(without(canopy, *scallops), box(x, y, -0.12, -0.3, 0.12, 0.72), hook)


def _ghost(x: Tensor, y: Tensor) -> Tensor:
    """A sheet with a ragged hem and two eyes."""
    body = union(disc(x, y, 0.0, -0.25, 0.72), box(x, y, -0.72, -0.25, 0.72, 0.9))
    rags = [polygon(x, y, [(s - 0.22, 1.0), (s, 0.5), (s + 0.22, 1.0)]) for s in (-0.36, 0.36)]
    eyes = [ellipse(x, y, s * 0.28, -0.25, 0.14, 0.2) for s in (-1, 1)]
    return without(body, *rags, *eyes)


def _butterfly(x: Tensor, y: Tensor) -> Tensor:
    upper = [ellipse(x, y, s * 0.55, -0.36, 0.46, 0.5) for s in (-1, 1)]
    lower = [ellipse(x, y, s * 0.42, 0.46, 0.34, 0.4) for s in (-1, 1)]
    spots = [disc(x, y, s * 0.6, -0.4, 0.17) for s in (-1, 1)]
    return union(without(union(*upper, *lower), *spots), ellipse(x, y, 0.0, 0.05, 0.15, 0.8))


def _whale(x: Tensor, y: Tensor) -> Tensor:
    """Looks left, its fluke up in the air."""
    body = torch.maximum(ellipse(x, y, -0.2, 0.25, 0.8, 0.65), -y - 0.15)
    tail = polygon(x, y, [(0.3, 0.5), (0.66, -0.35), (0.88, -0.3), (0.6, 0.5)])
    fluke = polygon(x, y, [(0.76, -0.2), (0.36, -0.75), (0.76, -0.55), (1.1, -0.8)])
    return without(union(body, tail, fluke), disc(x, y, -0.6, 0.2, 0.14))


def _truck(x: Tensor, y: Tensor) -> Tensor:
    """Drives to the right."""
    load, cab = box(x, y, -1.0, -0.6, 0.25, 0.4), box(x, y, 0.35, -0.2, 0.98, 0.4)
    wheels = [disc(x, y, cx, 0.5, 0.26) for cx in (-0.6, 0.6)]
    window = box(x, y, 0.55, -0.05, 0.85, 0.15)
    return union(without(union(load, cab, box(x, y, -1, 0.2, 0.98, 0.4)), window), *wheels)


def _crown(x: Tensor, y: Tensor) -> Tensor:
    points = [(-0.85, 0.7), (-1.0, -0.55), (-0.45, 0.05), (0.0, -0.8)]
    corners = [*points, *((-px, py) for px, py in reversed(points[:3]))]
    tips = [disc(x, y, cx, cy, 0.16) for cx, cy in ((-0.95, -0.6), (0.0, -0.84), (0.95, -0.6))]
    jewels = [disc(x, y, cx, 0.4, 0.13) for cx in (-0.45, 0.0, 0.45)]
    return without(union(polygon(x, y, corners), *tips), *jewels)


def _apple(x: Tensor, y: Tensor) -> Tensor:
    """Bitten on the right, with a stalk and a leaf."""
    body = union(*(ellipse(x, y, s * 0.34, 0.2, 0.56, 0.72) for s in (-1, 1)))
    leaf = ellipse(x, y, 0.34, -0.8, 0.32, 0.16)
    stalk = polygon(x, y, [(-0.1, -0.3), (-0.02, -0.95), (0.14, -0.95), (0.1, -0.3)])
    return union(without(body, disc(x, y, 0.95, 0.05, 0.36)), leaf, stalk)


def _fixed(corners: Sequence[Point]) -> Shape:
    return lambda x, y: polygon(x, y, corners)


SEEN: dict[str, Shape] = {
    "circle": disc,
    "square": lambda x, y: box(x, y, -0.85, -0.85, 0.85, 0.85),
    "triangle": _fixed([(0.0, -0.95), (0.98, 0.8), (-0.98, 0.8)]),
    "diamond": _fixed([(0.0, -1.0), (0.7, 0.0), (0.0, 1.0), (-0.7, 0.0)]),
    "star": _fixed(_regular(5, 1.05, 0.45)),
    "ring": lambda x, y: without(disc(x, y), disc(x, y, radius=0.55)),
    "cross": lambda x, y: union(
        box(x, y, -0.33, -0.95, 0.33, 0.95), box(x, y, -0.95, -0.33, 0.95, 0.33)
    ),
    "heart": _heart,
    "crescent": lambda x, y: without(disc(x, y), disc(x, y, 0.45, -0.1, 0.8)),
    "arrow": _fixed(
        [
            (1.0, 0.0),
            (0.1, -0.85),
            (0.1, -0.35),
            (-0.95, -0.35),
            (-0.95, 0.35),
            (0.1, 0.35),
            (0.1, 0.85),
        ]
    ),
    "drop": lambda x, y: union(
        disc(x, y, 0.0, 0.35, 0.62), polygon(x, y, [(-0.58, 0.15), (0.0, -1.0), (0.58, 0.15)])
    ),
    "bolt": _fixed(
        [
            (0.2, -1.0),
            (-0.65, 0.15),
            (-0.05, 0.15),
            (-0.25, 1.0),
            (0.65, -0.25),
            (0.05, -0.25),
            (0.5, -1.0),
        ]
    ),
    "flower": _flower,
    "house": _house,
    "tree": _tree,
    "boat": _boat,
    "cup": _cup,
    "key": _key,
    "hourglass": _fixed(
        [(-0.75, -0.95), (0.75, -0.95), (0.12, 0.0), (0.75, 0.95), (-0.75, 0.95), (-0.12, 0.0)]
    ),
}
HELD_OUT: dict[str, Shape] = {
    "cat": _cat,
    "fish": _fish,
    "mushroom": _mushroom,
    "rocket": _rocket,
    "rabbit": _rabbit,
    "umbrella": _umbrella,
    "ghost": _ghost,
    "butterfly": _butterfly,
    "whale": _whale,
    "truck": _truck,
    "crown": _crown,
    "apple": _apple,
}
"""Never drawn for the base model; a content LoRA has to learn them."""

SHAPES = {**SEEN, **HELD_OUT}
