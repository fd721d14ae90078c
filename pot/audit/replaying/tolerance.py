"""Tolerance: how far a replay on another machine is from the committed state, and what that distance can tell.

Spec: `specs/transcript.md`, "Tolerance". A distance is the L2 norm of (replayed - claimed) over the norm of the
segment's update (claimed - start): Adam turns noise of 1e-9 into whole steps of single weights early on, so the largest
difference says nothing. The tolerance is ten times the distance between two environments of the auditor's own and never
above 1e-2; beside it stands what the smallest forgery tried measures. Where it is not below that, it shows nothing.

A forger may stay within the tolerance at every segment and go one way all along (A15). Each residual is therefore
compared with the sum of those before it: honest residuals turn either way, so that the signs are a fair coin's, and the
norm of their sum grows with the root of their number only.

Shows: that a state lies where this machine's own noise would put it, nearer than the smallest forgery that was tried.
Does not show: that the state is what the steps give; edits below the tolerance pass. It never becomes MATCH.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import BaseModel

from pot.canonical import Count, Decimal, Document
from pot.commitments.state import TensorEntry
from pot.errors import Malformed

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "CAP", "FACTOR", "Drift", "SegmentTolerance", "Tolerance", "decimal_text", "judge_segment", "relative_distance",
    "sign_p_value", "tolerance_document",
]  # fmt: skip

FACTOR: Final = 10.0
"""The tolerance is this many times the distance between two environments of the auditor's own,"""
CAP: Final = 1e-2
"""and never above this share of the update: a learning rate that is wrong by 1 % measures as much."""
_SIGN_LEVEL: Final = Fraction(1, 100)
_CHUNK: Final = 1 << 20  # elements that are widened to doubles at a time
_GROUPS: Final = "pot.groups"  # the optimizer's settings as JSON: bytes, not numbers
_SIMPLE: Final = {
    "U8": "<u1", "I8": "<i1", "BOOL": "<u1", "U16": "<u2", "I16": "<i2", "F16": "<f2", "U32": "<u4", "I32": "<i4",
    "F32": "<f4", "U64": "<u8", "I64": "<i8", "F64": "<f8", "C64": "<f4",
}  # fmt: skip


class SegmentTolerance(BaseModel):
    """One segment: its distance from the claimed end, this machine's noise, the tolerance, and a forgery's distance.

    `within`: the distance is at most the tolerance. `usable`: the tolerance is below the forging distance; if not,
    being within it shows nothing. A distance that is not a number, or that nothing could measure, is absent.
    """

    model_config = Document.model_config

    segment: Count
    distance: Decimal | None = None
    noise: Decimal | None = None
    tolerance: Decimal
    forging: Decimal | None = None
    within: bool
    usable: bool


class Tolerance(Document):
    """`pot/tolerance/v1`: what distances say about the segments whose bits could not be compared.

    `noise_from`: the two environments. `drift`: norm of the sum of all residuals, each over its segment's update;
    `budget`: what honest residuals of that size may sum up to. `signs`: residuals that had a direction before them,
    `same`: those that go with it; `sign_p`: the probability of so many under a fair coin. `flagged`: over budget, or
    `sign_p` at most 0.01.
    """

    version: Literal["pot/tolerance/v1"]
    noise_from: str
    segments: tuple[SegmentTolerance, ...]
    drift: Decimal
    budget: Decimal
    signs: Count
    same: Count
    sign_p: Decimal
    flagged: bool


def decimal_text(value: float) -> str:
    """Three digits as a `Decimal`; for finite numbers."""
    return repr(float(f"{value:.3g}")).replace("e+", "e")


def relative_distance(
    start: Sequence[TensorEntry], claimed: Sequence[TensorEntry], replayed: Sequence[TensorEntry]
) -> float | None:
    """||replayed - claimed|| / ||claimed - start|| over all tensors, which must have the same names and shapes.

    Tensor by tensor in doubles, so that no more than a slice of one is held beside the entries. None where there is no
    such number: other tensors, NaN or infinity in them, or an update of norm 0 that does not come out again.
    Raises `Malformed` for an element type that has no numbers.
    """
    residual = update = 0.0
    if not _same_tensors(start, claimed, replayed):
        return None
    for at, to, other in _slices(start, claimed, replayed):
        residual += _square(other - to)
        update += _square(to - at)
    if not (math.isfinite(residual) and math.isfinite(update)):
        return None
    if update == 0.0:
        return 0.0 if residual == 0.0 else None
    return math.sqrt(residual / update)


class Drift:
    """The residuals of several segments, taken in order: do they go one way? Holds one copy of the model's elements."""

    def __init__(self) -> None:
        self._sum: list[NDArray[Any]] = []
        self.signs = 0
        self.same = 0
        self._square_of_tolerances = 0.0

    def add(
        self,
        start: Sequence[TensorEntry],
        claimed: Sequence[TensorEntry],
        replayed: Sequence[TensorEntry],
        tolerance: float,
    ) -> None:
        """Take the residual of one more segment, over the norm of its update."""
        if not _same_tensors(start, claimed, replayed):
            return
        update = math.sqrt(sum(_square(to - at) for at, to, _ in _slices(start, claimed, replayed)))
        if not math.isfinite(update) or update == 0.0:
            return
        # single precision: a copy of the model, not two; every product below is summed in doubles
        residuals = [((other - to) / update).astype("f4") for _, to, other in _slices(start, claimed, replayed)]
        if not all(math.isfinite(_square(part)) for part in residuals):
            return
        self._square_of_tolerances += tolerance**2
        if not self._sum:
            self._sum = residuals
            return
        along = sum(float(part @ total.astype("f8")) for part, total in zip(residuals, self._sum, strict=True))
        if along != 0.0:  # a residual of zero goes no way
            self.signs += 1
            self.same += along > 0.0
        for part, total in zip(residuals, self._sum, strict=True):
            total += part

    @property
    def drift(self) -> float:
        """The norm of the sum."""
        return math.sqrt(sum(_square(total) for total in self._sum))

    @property
    def budget(self) -> float:
        """What residuals of no common direction, each as large as its tolerance, sum up to."""
        return math.sqrt(self._square_of_tolerances)


def sign_p_value(same: int, signs: int) -> Fraction:
    """The probability of at least `same` heads in `signs` throws of a fair coin, exactly (binomial)."""
    return Fraction(sum(math.comb(signs, heads) for heads in range(same, signs + 1)), 2**signs)


def judge_segment(segment: int, distance: float | None, noise: float | None, forging: float | None) -> SegmentTolerance:
    """The tolerance that the noise allows, and whether the distance is within it and means anything."""
    tolerance = min(FACTOR * noise, CAP) if noise is not None else 0.0
    return SegmentTolerance(
        segment=str(segment),
        distance=None if distance is None else decimal_text(distance),
        noise=None if noise is None else decimal_text(noise),
        tolerance=decimal_text(tolerance),
        forging=None if forging is None else decimal_text(forging),
        within=distance is not None and distance <= tolerance,
        usable=forging is not None and tolerance < forging,
    )


def tolerance_document(noise_from: str, segments: Sequence[SegmentTolerance], drift: Drift) -> Tolerance:
    """The document over all segments that were measured."""
    probability = sign_p_value(drift.same, drift.signs)
    return Tolerance(
        version="pot/tolerance/v1",
        noise_from=noise_from,
        segments=tuple(segments),
        drift=decimal_text(drift.drift),
        budget=decimal_text(drift.budget),
        signs=str(drift.signs),
        same=str(drift.same),
        sign_p=decimal_text(float(probability)),
        flagged=drift.drift > drift.budget or (drift.signs > 0 and probability <= _SIGN_LEVEL),
    )


def _same_tensors(*states: Sequence[TensorEntry]) -> bool:
    kinds = [[(entry.name, entry.dtype, entry.shape) for entry in _numbers(state)] for state in states]
    return all(kind == kinds[0] for kind in kinds)


def _numbers(state: Sequence[TensorEntry]) -> list[TensorEntry]:
    return sorted((entry for entry in state if entry.name != _GROUPS), key=lambda entry: entry.name)


def _slices(*states: Sequence[TensorEntry]) -> Iterator[tuple[NDArray[Any], ...]]:
    for entries in zip(*(_numbers(state) for state in states), strict=True):
        raws = [_raw(entry) for entry in entries]
        for at in range(0, len(raws[0]), _CHUNK):
            yield tuple(_doubles(raw[at : at + _CHUNK], entry.dtype) for raw, entry in zip(raws, entries, strict=True))


def _raw(entry: TensorEntry) -> NDArray[Any]:
    import numpy as np

    kind = {"BF16": "<u2", "F8_E4M3": "<u1", "F8_E5M2": "<u1"}.get(entry.dtype) or _SIMPLE.get(entry.dtype)
    if kind is None:
        raise Malformed(f"tensor {entry.name[:64]!r}: distances of {entry.dtype} are not defined")
    return np.frombuffer(entry.data, dtype=np.dtype(kind))


def _doubles(raw: NDArray[Any], dtype: str) -> NDArray[Any]:
    import numpy as np

    if dtype == "BF16":  # the upper half of a float32
        return (raw.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    if dtype == "F8_E5M2":  # the upper half of a float16
        return (raw.astype(np.uint16) << 8).view(np.float16).astype(np.float64)
    if dtype == "F8_E4M3":
        table: NDArray[Any] = np.array([_e4m3(code) for code in range(256)])
        decoded: NDArray[Any] = table[raw]
        return decoded
    wide: NDArray[Any] = raw.astype(np.float64)
    return wide


def _e4m3(code: int) -> float:
    """OCP 8-bit floating point, E4M3: no infinities, S.1111.111 is NaN, exponent bias 7."""
    exponent, fraction, sign = code >> 3 & 15, code & 7, -1.0 if code & 128 else 1.0
    if exponent == 15 and fraction == 7:
        return math.nan
    return sign * (fraction / 8 * 2.0**-6 if exponent == 0 else (1 + fraction / 8) * 2.0 ** (exponent - 7))


def _square(part: NDArray[Any]) -> float:
    wide = part.astype("f8", copy=False)
    return float(wide @ wide)
