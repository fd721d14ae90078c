"""The scores behind `checks`: each check of each segment as a number, the larger the less like training.

Checkpoints are opened one after the other, three at a time; a state that cannot be opened or measured is a finding.

Shows / does not show: see `pot.audit.screening.checks`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pot.audit.screening.checkpoints import Opened, open_checkpoint
from pot.audit.screening.checks import Check, Progress
from pot.audit.screening.movement import Movement, measure
from pot.audit.screening.outliers import disagreements, loss_jumps, shared_by_chance, spikes
from pot.errors import PotError
from pot.recording.checking.chain import ChainResult, Segment
from pot.recording.transcript import CheckpointEvent

__all__ = ["THRESHOLDS", "Scores", "scores"]

Scores = dict[Check, float]

THRESHOLDS: Final[dict[Check, float]] = {
    "files": 1.0, "shape": 1.0, "finite": 1.0, "rate": 1.0, "counter": 1.0, "reach": 1.0, "history": 1.0, "push": 3.0,
    "moments": 8.0, "agreement": 0.85, "jump": 8.0, "line": 8.0, "loss": 12.0,
}  # fmt: skip
"""Scores from which a check fires; the numbers behind `thresholds` "1"."""

_FEW: Final = 3.0  # coordinates beyond a bound that may be rounding, and
_PART: Final = 1e-4  # the part of all
_NEAR: Final = 3  # segments on each side whose momentum counts for `push`
_FIRST: Final = 0.4  # a first update has neighbours on one side only, and is often the longest
_SEVERAL: Final = 8  # losses that are all the same
_STRAIGHT: Final = 0.05  # rounding may take so much from a cosine, before it says nothing


def scores(run_dir: Path, chain: ChainResult, progress: Progress | None = None) -> tuple[list[Scores], set[str]]:
    """The score of every check that could be computed, per segment, and what could not be read somewhere."""
    movements, lost = _movements(run_dir, chain.segments, progress)
    found: list[Scores] = [{} for _ in chain.segments]
    unread = {name for movement in movements if movement is not None for name in movement.unread}
    for place, movement in enumerate(movements):
        if movement is None:
            found[place]["files"] = 1.0
            unread.add("files")
        else:
            _alone(movement, found[place])
    _beside(movements, found, unread)
    _losses(chain.segments, movements, found, unread)
    for place in lost:
        found[place]["files"] = 1.0
    return found, unread


def _movements(
    run_dir: Path, segments: Sequence[Segment], progress: Progress | None
) -> tuple[list[Movement | None], set[int]]:
    """The movement over each segment, None where it cannot be measured; and the segments with a lost checkpoint."""
    found: list[Movement | None] = []
    lost: set[int] = set()
    before: Opened | None = None
    start: Opened | None = None
    for place, segment in enumerate(segments):
        if place == 0:
            start = _opened(run_dir, segment.start_state)
        end = _opened(run_dir, segment.end_state)
        try:
            found.append(measure(before, start, end) if start is not None and end is not None else None)
        except (PotError, ArithmeticError, ValueError, MemoryError):  # a state that is no state is a finding, no crash
            found.append(None)
        if start is None or end is None:
            lost.add(place)
        before, start = start, end
        if progress is not None:
            progress("screening", place + 1, len(segments))
    return found, lost


def _opened(run_dir: Path, event: CheckpointEvent) -> Opened | None:
    try:
        return open_checkpoint(run_dir, event)
    except PotError:
        return None


def _alone(movement: Movement, found: Scores) -> None:
    """What a segment says by itself."""
    found["shape"] = float(movement.other_shapes)
    found["finite"] = float(movement.not_finite + (not math.isfinite(movement.moved)))
    found["rate"] = float(movement.bad_rates)
    found["counter"] = float(abs(movement.counted))
    if movement.checked:
        allowed = _FEW + _PART * movement.checked
        found["reach"] = movement.beyond_reach / allowed
        found["history"] = movement.beyond_history / allowed


def _straightness(movement: Movement | None) -> float | None:
    """How straight the path runs through a segment's start: minus the logarithm of 1 - cosine, rounding allowed for."""
    if movement is None or movement.cosine is None or movement.rounding > _STRAIGHT:
        return None
    return -math.log10(max(1 - movement.cosine - 1.3 * movement.rounding, 1e-16))


def _beside(movements: Sequence[Movement | None], found: list[Scores], unread: set[str]) -> None:
    """What a segment says beside its neighbours."""
    lengths = [0.0 if one is None else one.moved / one.steps for one in movements]
    rated = [
        length / one.rate if one is not None and one.rate else length
        for length, one in zip(lengths, movements, strict=True)
    ]
    for place, pair in enumerate(zip(spikes(lengths), spikes(rated), strict=True)):
        if pair[0] is not None and pair[1] is not None:
            found[place]["jump"] = min(pair[0], pair[1]) * (1 if place else _FIRST)
    if not any("jump" in one for one in found):
        unread.add("neighbours")
    for place, one in enumerate(movements):
        near = [other for other in movements[max(0, place - _NEAR) : place + _NEAR + 1] if other is not None]
        push = max((max(other.momentum, other.momentum_before) for other in near), default=0.0)
        if one is not None and push > 0:
            found[place]["push"] = one.moved / one.steps / push
    for place, movement in enumerate(movements):
        straight = _straightness(movement)
        if straight is not None:  # both segments that meet there
            found[place]["line"] = max(straight, found[place].get("line", 0.0))
            found[place - 1]["line"] = max(straight, found[place - 1].get("line", 0.0))
    agreements = [None if one is None else one.agreement for one in movements]
    for place, away in enumerate(disagreements(agreements)):
        if away is not None:
            found[place]["moments"] = away
    usual = [shared_by_chance(one.steps, one.memory) if one is not None else None for one in movements]
    pairs = [(a, b) for a, b in zip(agreements, usual, strict=True) if a is not None and b is not None]
    if len(pairs) >= 5:
        missing = 1 - sum(a for a, _ in pairs) / sum(b for _, b in pairs)
        for place, agreement in enumerate(agreements):
            if agreement is not None:
                found[place]["agreement"] = missing


def _losses(
    segments: Sequence[Segment], movements: Sequence[Movement | None], found: list[Scores], unread: set[str]
) -> None:
    losses = []
    for segment in segments:
        told = [float(step.loss) for step in segment.steps if step.loss is not None]
        losses.append(told if len(told) == len(segment.steps) else [])
    if not all(losses):
        unread.add("losses")
    for place, jump in enumerate(loss_jumps(losses)):
        if jump is not None:
            found[place]["loss"] = jump
        if not all(math.isfinite(loss) for loss in losses[place]):
            found[place]["finite"] = max(1.0, found[place].get("finite", 0.0))
    told = [loss for part in losses for loss in part]
    if len(told) >= _SEVERAL and len(set(told)) == 1:
        for place, own in enumerate(movements):
            if own is not None and own.moved > 0:
                found[place]["loss"] = THRESHOLDS["loss"]
