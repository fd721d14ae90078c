"""How losses fell over a segment: claimed records against control records of like loss at its start.

Spec: `specs/hints.md`, "Memorization test". Strata keep a record that any training makes easier from counting as one
that was trained on: it is compared with records that were as hard at the start.

Shows / does not show: see `pot.audit.statistics.memorization`, which finds the records and their losses.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from pot.audit.statistics.hints import MAX_ROC, MIN_COMPARED, Status, judge
from pot.audit.statistics.mann_whitney import (
    RankTest,
    Stratum,
    decimal,
    mid_scores,
    rank_test,
    roc,
    strata_by,
    stratified_auc,
)
from pot.errors import UsageError

__all__ = ["STRATUM", "Comparison", "compare", "curve"]

STRATUM: Final = 16  # records in a stratum: fine enough for like losses, enough of both groups
_SILENT: Final = 8  # one silent step in so many is bad luck, more are not


@dataclass(frozen=True)
class Comparison:
    """Claimed against control records over one segment. `scores`: their ranks within strata, both groups.

    `steps`: claimed steps judged alone, `silent`: those whose records fell no more than the control's. None: none was.
    """

    test: RankTest
    raw_auc: Fraction
    strata: int
    scores: tuple[list[float], list[float]]
    steps: int | None = None
    silent: int | None = None

    def status(self, tries: int = 1, fewest: int = MIN_COMPARED) -> Status:
        """As `judge`; where more than one step in eight is silent, the rest may hide what was skipped."""
        found = judge(self.test, tries, fewest)
        if found == "consistent" and self.silent is not None and self.silent > max(1, (self.steps or 0) // _SILENT):
            return "undecided"
        return found


def compare(
    claimed: Sequence[tuple[float, float]],
    control: Sequence[tuple[float, float]],
    steps: Sequence[int] | None = None,
    *,
    stratum: int = STRATUM,
) -> Comparison:
    """Compare how losses fell. Pairs are (loss at the segment's start, at its end); higher rank = fell more.

    `steps`: for each claimed record a step to judge it with, 0 for none. `stratum`: records in one stratum; 0 compares
    all with all. Raises `UsageError` where a group is empty.
    """
    if not claimed or not control:
        raise UsageError("memorization: there is no record to compare")
    starts = [before for before, _ in (*claimed, *control)]
    bounds = strata_by(starts, stratum) if stratum else [math.inf]
    ours = [(bisect_right(bounds, before), before - after) for before, after in claimed]
    theirs = [(bisect_right(bounds, before), before - after) for before, after in control]
    strata = _strata(ours, theirs, len(bounds))
    raw = stratified_auc([([fell for _, fell in ours], [fell for _, fell in theirs])])
    aucs = []
    for step in sorted({at for at in steps or () if at}):
        alone = [item for item, at in zip(ours, steps or (), strict=True) if at == step]
        auc = stratified_auc(_strata(alone, theirs, len(bounds)))
        aucs += [] if auc is None else [auc]
    return Comparison(
        rank_test(strata),
        raw if raw is not None else Fraction(1, 2),
        sum(1 for first, second in strata if first and second),
        mid_scores(strata),
        len(aucs) if aucs else None,
        sum(auc <= Fraction(1, 2) for auc in aucs) if aucs else None,
    )


def _strata(ours: Sequence[tuple[int, float]], theirs: Sequence[tuple[int, float]], count: int) -> list[Stratum]:
    strata: list[tuple[list[float], list[float]]] = [([], []) for _ in range(count)]
    for group, items in enumerate((ours, theirs)):
        for place, fell in items:
            strata[min(place, count - 1)][group].append(fell)
    return [(first, second) for first, second in strata]


def curve(comparisons: Sequence[Comparison]) -> list[dict[str, str]]:
    """The ROC over all comparisons' records, as a hint tells it."""
    first = [score for item in comparisons for score in item.scores[0]]
    second = [score for item in comparisons for score in item.scores[1]]
    return [{"false": decimal(false), "true": decimal(true)} for false, true in roc(first, second, MAX_ROC)]
