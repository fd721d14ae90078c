"""Hints: what a memorization test or a canary test found, small enough to stand in a signed audit result.

Spec: `specs/hints.md`. A hint names what was tested (transcript, segments, where the compared records came from, the
nonce that drew them), the counts, the rank test's result, and a status in cautious words:

- `consistent`: what was found would be rare (probability at most `ALPHA`) had the records not been trained on;
- `no-sign`: it would be nothing unusual (probability above `UNUSUAL`), and there were enough records to see more;
- `undecided`: anything else.

Shows: what the auditor's own loss function gave on the committed states. Does not show: that training happened. A hint
never lifts a level and never refuses a certificate; replays do.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, Field, StringConstraints, model_validator

from pot.audit.statistics.mann_whitney import Method, RankTest, decimal
from pot.canonical import Count, Document, Hex32

__all__ = ["ALPHA", "MAX_HINT_BYTES", "MAX_RANKS", "MAX_ROC", "MAX_SEGMENTS", "MIN_COMPARED",
           "MIN_SUSPECTED", "UNUSUAL",
           "CanaryFindings", "Hint", "MemorizationFindings", "RocPoint", "SegmentFinding", "Share",
           "Status", "judge", "overall"]  # fmt: skip

MAX_HINT_BYTES: Final = 8 << 10  # several stand in one statement of 64 KiB
MAX_SEGMENTS: Final = 16
MAX_ROC: Final = 32
MAX_RANKS: Final = 64
MIN_COMPARED: Final = 20  # with fewer records on a side "no sign" would only say that nothing could have been seen
MIN_SUSPECTED: Final = 200  # of the best of all segments, by its probability times their number, less is seen
ALPHA: Final = Fraction(1, 100)
UNUSUAL: Final = Fraction(1, 10)

Status = Literal["consistent", "undecided", "no-sign"]
Share = Annotated[str, StringConstraints(pattern=r"\A(0|1|0\.[0-9]{1,20}|[1-9](\.[0-9]{1,20})?e-[0-9]{1,3})\z")]
"""A number from 0 to 1 as a decimal string, short enough that no reader is kept busy."""

_Rank = Annotated[str, StringConstraints(pattern=r"\A[1-9][0-9]{0,8}(\.5)?\z")]
_View = Annotated[str, StringConstraints(min_length=1, max_length=64)]


def overall(question: Literal["claimed", "suspected"], statuses: Sequence[Status]) -> Status:
    """The status of a hint: of a claim for every segment the worst, of a question that one segment answers the best."""
    order: tuple[Status, ...] = ("no-sign", "undecided", "consistent")
    ranks = [order.index(status) for status in statuses]
    return order[min(ranks) if question == "claimed" else max(ranks)]


def judge(test: RankTest, tries: int = 1, fewest: int = MIN_COMPARED) -> Status:
    """The status of a rank test that was the best of `tries`: its probability counts that often (Bonferroni).

    `fewest`: numbers that each group must have for "no-sign".
    """
    p = Fraction(decimal(test.p)) * tries  # as it is told, so that a reader comes to the same
    return _status(p, min(test.first, test.second) >= fewest)


def _status(p: Fraction, enough: bool) -> Status:
    if p <= ALPHA:
        return "consistent"
    return "no-sign" if p > UNUSUAL and enough else "undecided"


class RocPoint(BaseModel):
    """One threshold on the scores: the part of compared (`false`) and of claimed (`true`) records above it."""

    model_config = Document.model_config

    false: Share
    true: Share


class SegmentFinding(BaseModel):
    """One segment: the claimed (or suspected) records against the control records, in strata of like loss at its start.

    `auc`: the part of pairs in which the claimed record's loss fell more, `raw_auc`: the same without strata. `steps`:
    claimed steps that were judged one by one, `silent`: those of them whose records fell no more than the control's.
    """

    model_config = Document.model_config

    segment: Count
    first: Count
    last: Count
    claimed: Count
    control: Count
    strata: Count
    auc: Share
    raw_auc: Share
    p: Share
    method: Method
    steps: Count | None = None
    silent: Count | None = None
    status: Status

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if int(self.first) > int(self.last):
            raise ValueError("a segment's first step lies behind its last")
        if (self.steps is None) != (self.silent is None) or int(self.silent or "0") > int(self.steps or "0"):
            raise ValueError("steps and silent stand together, and no more steps are silent than were judged")
        return self


class MemorizationFindings(Document):
    """The memorization test of a run. `tested`: how many segments were; `segments` holds all, or the most telling.

    `question`: whether the claimed records were trained on where the transcript says, or suspected ones anywhere.
    `control`: what they are compared with: a held-out pool (its ordered root; `overlap`: how many of its records were
    left out because the run committed to them), or committed records that no step had taken yet.
    """

    precommit_sha256: Hex32
    transcript_sha256: Hex32
    question: Literal["claimed", "suspected"]
    control: Literal["held-out", "unseen"]
    nonce: Hex32
    view: _View
    pool_records: Count | None = None
    pool_root_blake3: Hex32 | None = None
    overlap: Count | None = None
    suspected_root_blake3: Hex32 | None = None
    evaluate_sha256: Hex32 | None = None
    tested: Count
    mean_auc: Share
    segments: Annotated[tuple[SegmentFinding, ...], Field(min_length=1, max_length=MAX_SEGMENTS)]
    roc: Annotated[tuple[RocPoint, ...], Field(max_length=MAX_ROC)]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        pool = (self.pool_records, self.pool_root_blake3, self.overlap)
        if any((value is None) != (self.control == "unseen") for value in pool):
            raise ValueError("a pool is named with the control held-out, and only there")
        if (self.suspected_root_blake3 is None) != (self.question == "claimed"):
            raise ValueError("suspected records are named where they were asked for, and only there")
        if int(self.tested) < len(self.segments):
            raise ValueError("more segments are listed than were tested")
        tries = int(self.tested) if self.question == "suspected" else 1
        for item in self.segments:
            if item.status == "consistent" and Fraction(item.p) * tries > ALPHA:
                raise ValueError(f"segment {item.segment}: a probability of {item.p} is not consistent")
        return self


class CanaryFindings(Document):
    """The canary test of a run's last state: where the planted ones stand among the candidates, by loss.

    `ranks`: the planted ones' ranks from 1, lowest loss first; left out where there are more than `MAX_RANKS`.
    """

    registration_sha256: Hex32
    precommit_sha256: Hex32
    transcript_sha256: Hex32
    step: Count
    candidates: Count
    planted: Count
    auc: Share
    p: Share
    method: Method
    ranks: Annotated[tuple[_Rank, ...], Field(max_length=MAX_RANKS)] | None = None
    evaluate_sha256: Hex32 | None = None
    roc: Annotated[tuple[RocPoint, ...], Field(max_length=MAX_ROC)]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not 0 < int(self.planted) < int(self.candidates):
            raise ValueError("planted must be at least one and fewer than the candidates")
        return self


class Hint(Document):
    """`pot/hint/v1`. Exactly the findings of its `kind` are there."""

    version: Literal["pot/hint/v1"]
    kind: Literal["memorization", "canaries"]
    status: Status
    memorization: MemorizationFindings | None = None
    canaries: CanaryFindings | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.memorization is not None, self.canaries is not None) != (
            self.kind == "memorization",
            self.kind == "canaries",
        ):
            raise ValueError("a hint holds the findings of its kind, and no others")
        if self.status != self._found():
            raise ValueError(f"status is {self.status}, the findings say {self._found()}")
        size = len(self.to_bytes())
        if size > MAX_HINT_BYTES:
            raise ValueError(f"a hint of {size} bytes is over the limit of {MAX_HINT_BYTES}")
        return self

    def _found(self) -> Status:
        if self.memorization is not None:
            return overall(self.memorization.question, [item.status for item in self.memorization.segments])
        return _status(Fraction(self.canaries.p), True) if self.canaries is not None else "undecided"

    @property
    def transcript_sha256(self) -> str:
        """The transcript that was tested."""
        findings = self.memorization or self.canaries
        return findings.transcript_sha256 if findings is not None else ""

    @property
    def precommit_sha256(self) -> str:
        """The pre-commitment of the run that was tested."""
        findings = self.memorization or self.canaries
        return findings.precommit_sha256 if findings is not None else ""
