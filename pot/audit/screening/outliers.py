"""Which numbers of a series stick out beside their neighbours: updates, losses, and how well moments agree with both.

Scores count robust deviations: differences in units of 1.4826 medians of absolute deviations, which a few forged values
do not move. A score is None where there are too few neighbours to compare with.

Shows: that a segment is unlike those around it. Does not show: why; an honest run may jump too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import numpy as np

__all__ = ["disagreements", "loss_jumps", "shared_by_chance", "spikes"]

_SIDE: Final = 3  # neighbours on each side
_FEW: Final = 5  # values below which a series has no usual spread
_TENTH: Final = 1.2816  # standard deviations below which a tenth of normal values lie
_MAX_LOSSES: Final = 10  # losses that are averaged on each side of a checkpoint


def _spread(values: Sequence[float], floor: float) -> float:
    """The robust standard deviation, not below `floor`."""
    array = np.asarray(values)
    return max(1.4826 * float(np.median(np.abs(array - np.median(array)))), floor)


def spikes(lengths: Sequence[float], floor: float = 0.2) -> list[float | None]:
    """How far the logarithm of each positive length lies above its neighbours on both sides (above the higher side).

    A last value is compared with those before it, a first one with those after it. None for zero and for short series.
    """
    logs = [math.log(length) if 0 < length < math.inf else None for length in lengths]
    known = [value for value in logs if value is not None]
    if len(known) < _FEW:
        return [None] * len(logs)
    steps = [abs(b - a) for a, b in pairwise(known)]
    spread = max(float(np.median(steps)), floor)
    found: list[float | None] = []
    for place, value in enumerate(logs):
        left = [other for other in logs[max(0, place - _SIDE) : place] if other is not None]
        right = [other for other in logs[place + 1 : place + 1 + _SIDE] if other is not None]
        sides = [float(np.median(side)) for side in (left, right) if side]
        found.append(None if value is None or not sides else (value - max(sides)) / spread)
    return found


def loss_jumps(losses: Sequence[Sequence[float]]) -> list[float | None]:
    """For each segment: how much more the mean loss changes across its last checkpoint than just before and just after.

    The unit is the usual change near by, or that at the checkpoints near by: a program may tell a loss that it computes
    every so many steps. `losses`: those of each segment's steps. None for the last segment, and where segments are
    shorter than four steps.
    """
    found: list[float | None] = [None] * len(losses)
    for place in range(len(losses) - 1):
        width = min(_MAX_LOSSES, len(losses[place]) // 2, len(losses[place + 1]) // 2)
        first = max(0, place - _SIDE)
        parts = losses[first : place + 2 + _SIDE]
        near = np.asarray([value for part in parts for value in part], dtype=np.float64)
        if width < 2 or len(near) < 4 * width + _FEW or not np.isfinite(near).all():
            continue
        sums = np.cumsum([0.0, *near])
        means = (sums[width:] - sums[:-width]) / width
        changes = means[width:] - means[:-width]  # changes[at]: across the place after the loss at + width - 1
        changes = np.abs(changes - np.median(changes))
        ends = np.cumsum([len(part) for part in parts])[:-1] - width
        at = int(ends[place - first])
        beside = max(float(changes[at - width]), float(changes[at + width]))
        others = [float(changes[end]) for end in ends if end != at and 0 <= end < len(changes)]
        floor = 1e-9 + 0.01 * float(np.mean(np.abs(near)))
        usual = max(1.4826 * float(np.median(changes)), float(np.median(others)) if others else 0.0, floor)
        found[place] = (float(changes[at]) - beside) / usual
    return found


def disagreements(agreements: Sequence[float | None], floor: float = 0.1) -> list[float | None]:
    """How far each cosine between moments and movement lies below what is usual in the run.

    Honest cosines have a longer tail below than above, so the spread is that of the lowest tenth, where it is larger.
    """
    known = [value for value in agreements if value is not None]
    if len(known) < _FEW:
        return [None] * len(agreements)
    usual = float(np.median(known))
    spread = max(_spread(known, floor), (usual - float(np.quantile(known, 0.1))) / _TENTH)
    return [None if value is None else (usual - value) / spread for value in agreements]


def shared_by_chance(steps: int, memory: float) -> float | None:
    """Cosine that first moments and movement have over `steps` steps of gradients that are nothing but noise.

    With gradients g_j the movement is sum of g_j (1 - b^(n - j + 1)) and the moments are sum of b^(n - j) g_j, so even
    noise leaves both something in common; gradients that lead somewhere leave more. b: `memory`. None for no memory.
    """
    if not 0 < memory < 1 or steps < 1:
        return None
    kept = memory ** np.arange(min(steps, 100_000), dtype=np.float64)
    reached = 1 - memory * kept
    squares = float(reached @ reached) + max(0, steps - len(kept))
    return float(kept @ reached) / math.sqrt(float(kept @ kept) * squares)
