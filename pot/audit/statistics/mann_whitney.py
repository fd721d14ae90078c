"""Rank tests with exact probabilities: did one group of numbers come out higher than another, stratum by stratum?

Spec: `specs/hints.md`, "Rank test". Mann and Whitney's U (1947), summed over strata as van Elteren (1960) does with
equal weights. Under the null hypothesis every division of a stratum's numbers into two groups of these sizes is equally
likely; the divisions are counted, ties included, by one polynomial a stratum whose coefficients lie side by side in one
large integer. Only where that is too much work is the normal approximation used, and named.

Shows: how likely a sum at least this high is by chance. Does not show: why it is high.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Context
from decimal import Decimal as DecimalNumber
from fractions import Fraction
from typing import Final, Literal

from pot.errors import UsageError

__all__ = ["EXACT_WORK", "Method", "RankTest", "Stratum", "decimal", "mid_scores", "rank_test", "roc", "strata_by",
           "stratified_auc"]  # fmt: skip

EXACT_WORK: Final = 10**11  # bits added up: ten seconds at most; two hundred numbers never need more
_SMALLEST: Final = 1e-300  # below it a probability is told as this one

Method = Literal["exact", "normal"]
Stratum = tuple[Sequence[float], Sequence[float]]
"""The numbers of the first and of the second group."""


@dataclass(frozen=True)
class RankTest:
    """`auc`: the part of all pairs (first, second) in a stratum in which the first is higher, ties by half.

    `p`: the probability of that or a higher one by chance. `first`, `second`: numbers that had somebody to be compared
    with. Without any pair `auc` is 1/2 and `p` is 1.
    """

    auc: Fraction
    p: Fraction
    method: Method
    first: int
    second: int


@dataclass(frozen=True)
class _Ranked:
    """A stratum as doubled midranks, so that ties stay whole numbers; `first` of them are the first group's."""

    ranks: tuple[int, ...]
    first: int
    sum: int


def rank_test(strata: Sequence[Stratum], *, exact_work: int = EXACT_WORK) -> RankTest:
    """Test one-sided whether the first group is higher. Exact unless it takes more than `exact_work`.

    Raises `UsageError` for NaN.
    """
    ranked = [_rank(first, second) for first, second in strata if first and second]
    if not ranked:
        return RankTest(Fraction(1, 2), Fraction(1), "exact", 0, 0)
    exact = _work(ranked) <= exact_work
    p = _exact(ranked) if exact else _normal(ranked)
    first = sum(item.first for item in ranked)
    second = sum(len(item.ranks) for item in ranked) - first
    return RankTest(_auc(ranked), p, "exact" if exact else "normal", first, second)


def stratified_auc(strata: Sequence[Stratum]) -> Fraction | None:
    """`RankTest.auc` without a test; None where no stratum has numbers of both groups. Raises `UsageError` for NaN."""
    ranked = [_rank(first, second) for first, second in strata if first and second]
    return _auc(ranked) if ranked else None


def _auc(ranked: Sequence[_Ranked]) -> Fraction:
    above = sum(item.sum - item.first * (item.first + 1) for item in ranked)  # twice U
    return Fraction(above, 2 * sum(item.first * (len(item.ranks) - item.first) for item in ranked))


def _rank(first: Sequence[float], second: Sequence[float]) -> _Ranked:
    values = sorted([*first, *second])
    if any(value != value for value in values):
        raise UsageError("rank test: a number is NaN, which has no rank")
    doubled: dict[float, int] = {}
    at = 0
    while at < len(values):
        stop = at
        while stop < len(values) and values[stop] == values[at]:
            stop += 1
        doubled[values[at]] = at + 1 + stop
        at = stop
    return _Ranked(tuple(doubled[value] for value in values), len(first), sum(doubled[value] for value in first))


def _span(item: _Ranked) -> tuple[tuple[int, ...], int, int, int]:
    """Ranks above the lowest in their largest common unit, that unit, the smaller group's size, the highest sum."""
    low = item.ranks[0]
    unit = math.gcd(*(rank - low for rank in item.ranks)) or 1
    steps = tuple((rank - low) // unit for rank in item.ranks)
    small = min(item.first, len(steps) - item.first)
    return steps, unit, small, sum(steps[len(steps) - small :])


def _width(ranked: Sequence[_Ranked]) -> int:
    """Bits that hold the number of all divisions."""
    return math.prod(math.comb(len(item.ranks), item.first) for item in ranked).bit_length() + 1


def _work(ranked: Sequence[_Ranked]) -> int:
    width, work = _width(ranked), 0
    for item in ranked:
        steps, _, small, top = _span(item)
        additions = small * (1 + top.bit_length()) if _untied(steps) else len(steps) * small // 2
        work += additions * (top + 1) * width
    return work


def _untied(steps: Sequence[int]) -> bool:
    return all(step == at for at, step in enumerate(steps))


def _counts_untied(size: int, chosen: int, width: int) -> int:
    """`_counts` of 0 .. size-1: the Gaussian binomial, a product of (1 - q^(size-chosen+i)) / (1 - q^i), q = 2^width.

    All of it modulo a power of two above the last coefficient, where dividing by 1 - q^i is multiplying by (1 + q^i)
    (1 + q^2i) (1 + q^4i) and so on.
    """
    bits = (chosen * (size - chosen) + 1) * width
    mask, value = (1 << bits) - 1, 1
    for i in range(1, chosen + 1):
        value = (value - (value << ((size - chosen + i) * width))) & mask
        shift = i * width
        while shift < bits:
            value = (value + (value << shift)) & mask
            shift *= 2
    return value << (chosen * (chosen - 1) // 2 * width)


def _counts(steps: Sequence[int], chosen: int, width: int) -> int:
    """How many choices of `chosen` of `steps` have each sum: the count of sum s stands at bit s * `width`."""
    rows = [1] + [0] * chosen  # rows[k]: for k chosen
    for number, step in enumerate(steps, 1):
        for k in range(min(chosen, number), 0, -1):
            if rows[k - 1]:
                rows[k] += rows[k - 1] << (step * width)
    return rows[chosen]


def _exact(ranked: Sequence[_Ranked]) -> Fraction:
    """The part of all divisions whose summed ranks are at least the observed ones.

    The smaller group is counted. Where that is the second one, its ranks are turned over: the lower its own sum, the
    higher that of the first.
    """
    width = _width(ranked)
    spans = [_span(item) for item in ranked]
    common = math.gcd(*(unit for _, unit, _, _ in spans))
    product, reached = 1, 0
    for item, (steps, unit, small, _) in zip(ranked, spans, strict=True):
        found = (item.sum - item.first * item.ranks[0]) // unit
        if small != item.first:
            found += small * steps[-1] - sum(steps)
            steps = tuple(steps[-1] - step for step in reversed(steps))
        wide = unit // common * width
        product *= _counts_untied(len(steps), small, wide) if _untied(steps) else _counts(steps, small, wide)
        reached += found * (unit // common)
    total = math.prod(math.comb(len(item.ranks), item.first) for item in ranked)
    return Fraction(_sum_of_digits(product >> (reached * width), width), total)


def _sum_of_digits(value: int, width: int) -> int:
    """The sum of a number's digits in base 2^width, each below it, as their sum is: folded in halves."""
    digits = -(-value.bit_length() // width)
    while digits > 1:
        half = digits // 2
        value = (value >> (half * width)) + (value & ((1 << (half * width)) - 1))
        digits -= half
    return value


def _normal(ranked: Sequence[_Ranked]) -> Fraction:
    """With the exact mean and variance of the sum under ties, and a continuity correction of half a rank."""
    mean = variance = 0.0
    for item in ranked:
        size = len(item.ranks)
        middle = sum(item.ranks) / size
        spread = sum((rank - middle) ** 2 for rank in item.ranks) / (size - 1)
        mean += item.first * middle
        variance += item.first * (size - item.first) / size * spread
    if not variance:
        return Fraction(1)
    observed = sum(item.sum for item in ranked)
    return Fraction(math.erfc((observed - 1 - mean) / math.sqrt(2 * variance)) / 2)


def strata_by(keys: Sequence[float], size: int) -> list[float]:
    """Upper bounds (exclusive) that cut `keys` into strata of about `size`: equal keys stay together. Never empty.

    The last bound is infinity; `bisect_right(bounds, key)` is a key's stratum.
    """
    ordered = sorted(keys)
    count = max(1, len(ordered) // size)
    cuts = [ordered[at * len(ordered) // count] for at in range(1, count)]
    return [*sorted(set(cuts)), math.inf]


def mid_scores(strata: Sequence[Stratum]) -> tuple[list[float], list[float]]:
    """Each number's midrank within its stratum as a part of it, in (0, 1): comparable across strata and tests."""
    scores: tuple[list[float], list[float]] = ([], [])
    for stratum in strata:
        if stratum[0] and stratum[1]:
            values = sorted([*stratum[0], *stratum[1]])
            for group, numbers in zip(scores, stratum, strict=True):
                group += [_midrank(values, value) / (len(values) + 1) for value in numbers]
    return scores


def _midrank(values: Sequence[float], value: float) -> float:
    return (bisect_left(values, value) + 1 + bisect_right(values, value)) / 2


def roc(first: Sequence[float], second: Sequence[float], points: int) -> list[tuple[float, float]]:
    """(false positive rate, true positive rate) at `points` thresholds at most, from (0, 0) to (1, 1).

    The thresholds are those nearest to evenly spaced false positive rates. Empty where a group is empty.
    """
    if not first or not second:
        return []
    ups, downs = sorted(first), sorted(second)
    curve = [(0.0, 0.0)]
    for threshold in sorted({*ups, *downs}, reverse=True):
        true = 1 - bisect_left(ups, threshold) / len(ups)
        false = 1 - bisect_left(downs, threshold) / len(downs)
        curve.append((false, true))
    if len(curve) <= points:
        return curve
    picked = [curve[0]]
    for at in range(1, points - 1):
        best = curve[bisect_right(curve, (at / (points - 1), 1.0)) - 1]
        if best != picked[-1]:
            picked.append(best)
    return [*picked, curve[-1]]


def decimal(value: Fraction | float) -> str:
    """A number from 0 to 1 with six digits, rounded up: a probability is never told as less than it is."""
    exact = Fraction(value)
    context = Context(prec=6, rounding=ROUND_CEILING)
    rounded = context.divide(DecimalNumber(exact.numerator), DecimalNumber(exact.denominator))
    number = max(float(rounded), _SMALLEST) if exact else 0.0
    return repr(number).removesuffix(".0")
