"""What an optimizer's own arithmetic allows between two of its states: bounds that no gradients can break.

Adam (Kingma and Ba 2015, algorithm 1) keeps m <- b1 m + (1 - b1) g and v <- b2 v + (1 - b2) g^2 and moves a weight by
rate * m' / (sqrt(v') + eps), m' = m / (1 - b1^t), v' = v / (1 - b2^t). For k steps between two states this gives, for
each coordinate and whatever the gradients were:

    (1)  v_end >= b2^k v_start, and G := (v_end - b2^k v_start) / (1 - b2) = sum of b2^(k-j) g_j^2;
    (2)  |m_end - b1^k m_start| <= (1 - b1) sqrt(G sum of (b1^2 / b2)^i, i < k), by Cauchy and Schwarz;
    (3)  |w_end - w_start| <= rate * min(from all of history, from this segment). From history: |m'| <= c_t sqrt(v'),
         c_t = (1 - b1) / sqrt(1 - b2) sqrt(sum of (b1^2 / b2)^i, i < t) sqrt(1 - b2^t) / (1 - b1^t). From the segment:
         sum |m_t| <= |m_start| b1 / (1 - b1) + sum |g_j|, sum |g_j| <= sqrt(k b2^(1-k) G), and v_t >= b2^k v_start.

Rounding is allowed for generously, so a coordinate that breaks a bound was not made by these updates.

Shows: that weights, moments and rates of two checkpoints cannot belong together.
Does not show: that they do; whoever invents gradients and runs the optimizer on them keeps every bound.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pot.audit.screening.checkpoints import Group

__all__ = ["AdamBounds", "adam_bounds", "is_adam", "is_momentum", "sane"]

Floats = NDArray[np.float64]

_TINY: Final = 1e-18  # below it squares are lost in float32's denormal numbers
_MAX_COUNTER: Final = 1 << 40
_MAX_LISTED: Final = 4096  # steps for which a bound is evaluated one by one; it is smooth, so beyond it some suffice


def is_adam(start: Group, end: Group) -> bool:
    """Whether PyTorch's Adam or AdamW with betas that do not move: NAdam, RAdam and others have no `amsgrad`."""
    return (
        "amsgrad" in end.keys and "max_momentum" not in end.keys and start.betas == end.betas
        and 0 <= end.betas[0] < 1 and 1e-3 < end.betas[1] < 1
    )  # fmt: skip


def is_momentum(group: Group) -> bool:
    """Whether PyTorch's SGD with momentum; Muon has a momentum buffer too, but no `dampening`."""
    return "dampening" in group.keys and group.momentum > 0


def sane(group: Group) -> bool:
    """Whether rate and weight decay are finite and not negative (A18: ascent by a negative rate)."""
    return all(math.isfinite(value) and value >= 0 for value in (group.rate, group.peak, group.decay))


@dataclass(frozen=True)
class AdamBounds:
    """The constants of the bounds for one parameter over one segment of `steps` of its own steps."""

    steps: int
    beta1: float
    kept1: float  # b1^k
    kept2: float  # b2^k
    spread: float  # sum of (b1^2 / b2)^i, i < k
    beta2: float
    largest: float  # sum of c_t over the segment
    corrected: float  # the largest sqrt(1 - b2^t) / (1 - b1^t)

    def history_broken(self, m0: Floats, v0: Floats, m1: Floats, v1: Floats, roundoff: float) -> int:
        """Coordinates whose moments break (1) or (2). `roundoff`: of the moments' element type."""
        slack = 4 * self.steps * roundoff + 1e-6
        fallen = v1 < self.kept2 * v0 * (1 - slack) - _TINY**2
        fresh = np.maximum(v1 - self.kept2 * v0, 0) + slack * np.maximum(v0, v1)
        limit = (1 - self.beta1) * np.sqrt(self.spread * fresh / (1 - self.beta2))
        turned = np.abs(m1 - self.kept1 * m0) - slack * np.maximum(np.abs(m0), np.abs(m1)) > limit * (1 + slack) + _TINY
        return int(np.count_nonzero(fallen | turned))

    def reach(self, m0: Floats, v0: Floats, v1: Floats, roundoff: float) -> Floats:
        """The bound (3) on each coordinate's movement, for a rate of 1."""
        slack = 4 * self.steps * roundoff + 1e-6
        fresh = (np.maximum(v1 - self.kept2 * v0, 0) + slack * np.maximum(v0, v1)) / (1 - self.beta2)
        gradients = np.sqrt(self.steps * fresh / self.kept2) if self.kept2 > 1e-30 else np.full_like(v0, np.inf)
        carried = np.abs(m0) * self.beta1 / (1 - self.beta1)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            own = self.corrected * (carried + gradients) / np.sqrt(self.kept2 * v0)
        return np.minimum(np.where(v0 > _TINY, own, np.inf), self.largest) * 1.001


def adam_bounds(group: Group, before: int, after: int) -> AdamBounds | None:
    """The constants for a parameter whose step counter went from `before` to `after`; None where nothing is bounded."""
    steps = after - before
    if not 0 < steps <= after <= _MAX_COUNTER:
        return None
    beta1, beta2 = group.betas
    ratio = beta1 * beta1 / beta2
    listed = np.unique(np.linspace(before + 1, after, min(steps, _MAX_LISTED)).round())
    with np.errstate(over="ignore"):
        past = listed if ratio == 1 else (ratio**listed - 1) / (ratio - 1)
        corrected = np.sqrt(1 - beta2**listed) / (1 - beta1**listed)
        largest = steps * float(np.mean((1 - beta1) / math.sqrt(1 - beta2) * np.sqrt(past) * corrected))
    if steps > _MAX_LISTED:
        largest *= 1.05
    spread = steps if ratio == 1 else (ratio ** min(steps, 100_000) - 1) / (ratio - 1)
    return AdamBounds(steps, beta1, beta1**steps, beta2**steps, float(spread), beta2, largest, float(corrected.max()))
