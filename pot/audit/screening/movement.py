"""How the weights moved over one segment, in numbers: how far, in which direction, and whether the moments agree.

Everything is summed tensor by tensor and chunk by chunk from two checkpoints (and the one before them, for the
direction), so memory does not grow with the model. Works on PyTorch's optimizers as `pot.recording.pytorch` writes
them; of any other state source the norms and directions are measured, and no more.

Shows / does not show: see `pot.audit.screening.checks`, which judges these numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pot.audit.screening.checkpoints import Group, Opened, chunks, elements, readable, state_of, unit_roundoff
from pot.audit.screening.moments import adam_bounds, is_adam, is_momentum, sane
from pot.commitments.state import TensorEntry

__all__ = ["Movement", "measure"]

Floats = NDArray[np.float64]

_HIDDEN: Final = 0.05  # part of a movement's square that may be rounding, before its direction says nothing


@dataclass
class Movement:
    """The sums over one segment. Lengths are Euclidean norms over all trained weights."""

    steps: int
    moved: float = 0.0
    """Length of the update, W_end - W_start."""
    cosine: float | None = None
    """With the update of the segment before; None where there is none, or one of both is zero."""
    rounding: float = 0.0
    """What rounding the weights to their type alone takes from that cosine, at the most to be expected."""
    rate: float | None = None
    """The mean of the rates at both ends, of the group with the largest."""
    agreement: float | None = None
    """Cosine of -(W_end - W_start) with the direction that the moments at the end point to."""
    momentum: float = 0.0
    """Length of rate * momentum buffer at the end, for SGD with momentum."""
    momentum_before: float = 0.0
    memory: float = 0.0
    """The factor by which the first moments fade in a step."""
    checked: int = 0
    """Coordinates under Adam's bounds, and how many of them are beyond: in their reach, in their history."""
    beyond_reach: int = 0
    beyond_history: int = 0
    counted: int = 0
    """By how many steps the optimizer's counters and the transcript differ."""
    other_shapes: int = 0
    not_finite: int = 0
    bad_rates: int = 0
    unread: set[str] = field(default_factory=set)


def measure(before: Opened | None, start: Opened, end: Opened) -> Movement:
    """Measure the segment from `start` to `end`; `before`: the checkpoint before `start`, for the direction."""
    found = Movement(end.step - start.step)
    found.other_shapes = _other_shapes(start.model, end.model) + (
        _other_shapes(start.optimizer, end.optimizer, allow_new=True)
    )
    with np.errstate(all="ignore"):
        _directions(before, start, end, found)
        if end.groups is None or start.groups is None:
            found.unread.add("optimizer")
        else:
            _optimizer(start, end, found)
    return found


def _other_shapes(one: dict[str, TensorEntry], other: dict[str, TensorEntry], *, allow_new: bool = False) -> int:
    """Tensors that are in one state only, or have another shape or type; an optimizer gets its state as it steps."""
    lost = sum(
        1 for name, entry in one.items()
        if name not in other or (other[name].shape, other[name].dtype) != (entry.shape, entry.dtype)
    )  # fmt: skip
    return lost + (0 if allow_new else len(other.keys() - one.keys()))


def _trained(start: Opened, end: Opened) -> list[str]:
    """The tensors that updates move: those of the optimizer, else all reals, else all numbers.

    Without an optimizer's groups, what stayed as it was is not among them: frozen reals beside trained integers would
    stand for these.
    """
    shared = [
        name for name, entry in end.model.items()
        if name in start.model and start.model[name].shape == entry.shape and start.model[name].dtype == entry.dtype
        and readable(entry) and elements(entry)
    ]  # fmt: skip
    if end.groups is not None:
        held = {name for group in end.groups for name in group.parameters}
        return [name for name in shared if name in held]
    moved = [name for name in shared if not _same_bytes(start.model[name], end.model[name])] or shared
    return [name for name in moved if unit_roundoff(end.model[name])] or moved


def _same_bytes(one: TensorEntry, other: TensorEntry) -> bool:
    return bool(np.array_equal(np.frombuffer(one.data, np.uint8), np.frombuffer(other.data, np.uint8)))


def _directions(before: Opened | None, start: Opened, end: Opened, found: Movement) -> None:
    squares = earlier = dot = rounding = 0.0
    names = _trained(start, end)
    if not names:
        found.unread.add("model")
    for name in names:
        entries = [start.model[name], end.model[name]]
        old = before.model.get(name) if before is not None else None
        if old is not None and (old.shape, old.dtype) == (entries[0].shape, entries[0].dtype):
            entries.append(old)
        roundoff = unit_roundoff(entries[0])
        for parts in chunks(*entries):
            update = parts[1] - parts[0]
            finite = np.isfinite(update)
            if not finite.all():
                found.not_finite += int(update.size - np.count_nonzero(finite))
                update = np.where(finite, update, 0.0)
            squares += float(update @ update)
            if len(parts) == 3:
                last = np.where(np.isfinite(parts[0] - parts[2]), parts[0] - parts[2], 0.0)
                dot += float(update @ last)
                earlier += float(last @ last)
                size = np.where(finite, parts[1], 0.0)
                rounding += float(size @ size) * roundoff * roundoff / 3  # a uniform error of half a unit each
    found.moved = math.sqrt(squares) if math.isfinite(squares) else math.inf
    if 0 < squares < math.inf and 0 < earlier < math.inf:
        found.cosine = dot / math.sqrt(squares) / math.sqrt(earlier)
        found.rounding = 3 * rounding / math.sqrt(squares * earlier)


def _optimizer(start: Opened, end: Opened, found: Movement) -> None:
    ones, twos = start.groups or (), end.groups or ()
    found.bad_rates = sum(not sane(group) for group in (*ones, *twos))
    if [group.parameters for group in ones] != [group.parameters for group in twos]:
        found.other_shapes += 1
        return
    if found.bad_rates or not ones:
        return
    found.rate = max((one.rate + two.rate) / 2 for one, two in zip(ones, twos, strict=True))
    sums = _Sums()
    for one, two in zip(ones, twos, strict=True):
        for name in two.parameters:
            weights = start.model.get(name), end.model.get(name)
            if weights[0] is None or weights[1] is None or not _alike(weights[0], weights[1]):
                continue
            parameter = _Parameter(name, one, two, (weights[0], weights[1]), start, end)
            if is_momentum(two):
                _momentum(parameter, sums, found)
            elif "betas" in two.keys:
                _adaptive(parameter, sums, found)
    if sums.ahead:
        counted = max(sums.ahead) - found.steps if min(sums.ahead) >= 0 else min(sums.ahead)
        found.counted = 0 if end.scaled and -found.steps <= counted < 0 else counted
    found.momentum, found.momentum_before = math.sqrt(sums.buffer), math.sqrt(sums.buffer_before)
    found.not_finite += not math.isfinite(found.momentum + found.momentum_before)
    found.agreement = sums.cosine(found)
    if found.agreement is None:
        found.unread.add("moments")


def _alike(one: TensorEntry, other: TensorEntry) -> bool:
    return (one.shape, one.dtype) == (other.shape, other.dtype) and readable(one) and elements(one) > 0


@dataclass(frozen=True)
class _Parameter:
    name: str
    one: Group
    two: Group
    weights: tuple[TensorEntry, TensorEntry]
    start: Opened
    end: Opened

    @property
    def rate(self) -> float:
        return max(self.one.rate, self.two.rate)

    def state(self, opened: Opened, key: str) -> TensorEntry | None:
        """A tensor of its optimizer state, with a number for each weight."""
        entry = state_of(opened, self.name, key)
        return entry if entry is not None and entry.shape == self.weights[0].shape else None

    def counter(self, opened: Opened) -> int | None:
        """Its own step counter; 0 before its first step, None where it is no whole number."""
        entry = opened.optimizer.get(f"state.{self.name}/step")
        if entry is None:
            return 0
        if not readable(entry) or elements(entry) != 1:
            return None
        value = float(next(chunks(entry))[0][0])
        return int(value) if abs(value) < 2**53 and value == int(value) else None

    def moved(self) -> tuple[int, int]:
        """How many weights it has, and how many of them moved."""
        return elements(self.weights[0]), sum(int(np.count_nonzero(a != b)) for a, b in chunks(*self.weights))


@dataclass
class _Sums:
    dot: float = 0.0
    updates: float = 0.0
    pointed: float = 0.0
    rounding: float = 0.0
    buffer: float = 0.0
    buffer_before: float = 0.0
    ahead: list[int] = field(default_factory=list)

    def add(self, update: Floats, pointed: Floats, weights: Floats, roundoff: float) -> None:
        good = np.isfinite(update) & np.isfinite(pointed) & np.isfinite(weights)
        update, pointed, weights = (np.where(good, part, 0.0) for part in (update, pointed, weights))
        self.dot -= float(update @ pointed)
        self.updates += float(update @ update)
        self.pointed += float(pointed @ pointed)
        self.rounding += float(weights @ weights) * roundoff * roundoff / 3

    def cosine(self, found: Movement) -> float | None:
        """Of movement against moments; 0 for moments that are all zero, None where rounding hides the movement."""
        if not 0 < self.updates < math.inf or not self.pointed < math.inf:
            return None
        if self.rounding * max(1, found.steps) > _HIDDEN * self.updates:
            return None
        return self.dot / math.sqrt(self.updates) / math.sqrt(self.pointed) if self.pointed > 0 else 0.0


def _momentum(own: _Parameter, sums: _Sums, found: Movement) -> None:
    buffer, before = own.state(own.end, "momentum_buffer"), own.state(own.start, "momentum_buffer")
    found.memory = own.two.momentum
    if buffer is None:  # it is there from a parameter's first update on
        count, moved = own.moved()
        found.checked, found.beyond_reach = found.checked + count, found.beyond_reach + moved
        return
    roundoff = unit_roundoff(own.weights[0])
    for w0, w1, buffered in chunks(*own.weights, buffer):
        found.not_finite += int(np.count_nonzero(~np.isfinite(buffered)))
        pushed = np.where(np.isfinite(buffered), buffered * own.rate, 0.0)
        sums.buffer += float(pushed @ pushed)
        sums.add(w1 - w0, pushed, w1, roundoff)
    if before is not None:
        for (buffered,) in chunks(before):
            pushed = np.where(np.isfinite(buffered), buffered * own.rate, 0.0)
            sums.buffer_before += float(pushed @ pushed)


def _adaptive(own: _Parameter, sums: _Sums, found: Movement) -> None:
    first, last = own.counter(own.start), own.counter(own.end)
    if first is None or last is None:
        found.not_finite += 1
        return
    known = is_adam(own.one, own.two)
    if known or first or last:
        sums.ahead.append(last - first)
    if known and first == last:  # a parameter without a gradient is passed over, and its decay with it
        count, moved = own.moved()
        found.checked, found.beyond_reach = found.checked + count, found.beyond_reach + moved
        return
    m1, v1 = own.state(own.end, "exp_avg"), own.state(own.end, "exp_avg_sq")
    if m1 is None or v1 is None:
        return
    found.memory = own.two.betas[0]
    bounds = adam_bounds(own.two, first, last) if known else None
    roundoff = max(unit_roundoff(m1), unit_roundoff(v1))
    if bounds is not None and 8 * bounds.steps * roundoff > 0.5:  # short types forget what the bounds need
        bounds = None
        found.unread.add("moments-too-short")
    m0, v0 = own.state(own.start, "exp_avg"), own.state(own.start, "exp_avg_sq")
    entries = [*own.weights, m1, v1] + ([m0, v0] if m0 is not None and v0 is not None else [])
    top = max(own.one.peak, own.two.peak) if own.end.scheduled else own.rate
    shrink = own.two.decay * (last - first) * (own.one.rate + own.two.rate) / 2 if own.two.decoupled else 0.0
    short = unit_roundoff(own.weights[1])
    for w0, w1, m, v, *past in chunks(*entries):
        found.not_finite += int(np.count_nonzero(~(np.isfinite(m) & np.isfinite(v))))
        update = w1 - w0
        sums.add(update + shrink * w0, own.rate * m / (np.sqrt(np.abs(v)) + max(own.two.eps, 1e-30)), w1, short)
        if bounds is None:
            continue
        old_m, old_v = past if past else (np.zeros_like(m), np.zeros_like(v))
        size = np.maximum(np.abs(w0), np.abs(w1))
        limit = top * bounds.reach(old_m, old_v, v, roundoff) + bounds.steps * (top * own.two.decay + 2 * short) * size
        found.checked += update.size
        found.beyond_reach += int(np.count_nonzero(~(np.abs(update) <= limit + 1e-30)))
        found.beyond_history += bounds.history_broken(old_m, old_v, m, v, roundoff)
