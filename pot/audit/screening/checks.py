"""Cheap checks over all segments of a run, without re-execution: which of them do not look like honest training.

A segment is suspicious where a check's score reaches its threshold:

    files      a checkpoint is lost, or is not the committed one
    shape      tensors, their types or the optimizer's groups differ between the two checkpoints
    finite     NaN or infinity among weights, moments, counters or losses
    rate       a learning rate or weight decay that is negative, infinite or no number
    counter    the optimizer's own step counters advance by another number than the segment's steps
    reach      weights moved farther than Adam can move them at these rates with these moments; or without a step
    history    Adam's two moments do not follow from those at the start, whatever the gradients were
    push       SGD with momentum: the update is longer than steps * rate * momentum buffer, here or near by
    moments    the moments at the end point elsewhere than the weights moved, more than is usual in this run
    agreement  the same over the whole run: what moments and movement have in common is no more than chance
    jump       the update is longer than its neighbours', as such and per learning rate
    line       two updates in a row have one direction, up to rounding
    loss       the mean loss changes at the checkpoint as it does nowhere near by, or is the same in all of the run

`reach` and `history` are bounds that no gradients break (`moments`); the other thresholds leave a margin to
the honest runs of `benchmarks/false_alarms.py`, which names the closest. An honest run may be flagged all the same:
whole batches at a tiny rate move on a line too.

Shows: where to look first. Does not show: that a run is honest. A forger who invents gradients and runs the optimizer
on them passes every check here; replays are for that.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal, Self

from pydantic import BaseModel, Field, model_validator

from pot.canonical import Count, Decimal, Document
from pot.recording.checking.chain import ChainResult
from pot.recording.precommit import Precommit

__all__ = ["MAX_DETAILED", "MAX_LISTED", "Check", "Fired", "Progress", "Screening", "Suspicious", "Unread", "screen"]

MAX_LISTED: Final = 1000  # suspicious segments by number, and
MAX_DETAILED: Final = 50  # with scores: a statement must stay under 64 KiB

Check = Literal[
    "files", "shape", "finite", "rate", "counter", "reach", "history", "push", "moments", "agreement", "jump", "line",
    "loss",
]  # fmt: skip
Unread = Literal["files", "model", "optimizer", "moments", "moments-too-short", "neighbours", "losses"]

_LARGEST: Final = 1e9

Progress = Callable[[str, int, int], None]


class Fired(BaseModel):
    """A check that fired, with its score and the threshold."""

    model_config = Document.model_config

    check: Check
    score: Decimal
    threshold: Decimal


class Suspicious(BaseModel):
    """A suspicious segment and why."""

    model_config = Document.model_config

    segment: Count
    checks: tuple[Fired, ...] = Field(min_length=1, max_length=13)


class Screening(Document):
    """`pot/screening/v1`. `suspicious`: numbers of segments, most suspicious first, `flagged` of them in all (the list
    may be cut); `details` of the first. `unread`: what could not be judged in some segment."""

    version: Literal["pot/screening/v1"]
    thresholds: Literal["1"]
    segments: Count
    flagged: Count
    suspicious: tuple[Count, ...] = Field(max_length=MAX_LISTED)
    details: tuple[Suspicious, ...] = Field(max_length=MAX_DETAILED)
    unread: tuple[Unread, ...]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not len(self.suspicious) <= int(self.flagged) <= int(self.segments):
            raise ValueError("flagged must lie between the segments listed and all segments")
        if len(self.suspicious) < min(int(self.flagged), MAX_LISTED):
            raise ValueError(f"suspicious must list all that are flagged, or {MAX_LISTED} of them")
        if len(set(self.suspicious)) != len(self.suspicious) or any(
            not 1 <= int(number) <= int(self.segments) for number in self.suspicious
        ):
            raise ValueError("suspicious must name segments of the run, none twice")
        if [item.segment for item in self.details] != list(self.suspicious[: len(self.details)]):
            raise ValueError("details must be those of the first suspicious segments, in their order")
        if list(self.unread) != sorted(set(self.unread)):
            raise ValueError("unread must ascend, none twice")
        return self


def screen(run_dir: Path, precommit: Precommit, chain: ChainResult, progress: Progress | None = None) -> Screening:
    """Screen all segments of a checked chain. Never raises for what the run's files hold: an anomaly is a finding.

    `precommit`: that of the chain. Hyper-parameters are read from the checkpoints here; only a replay compares them
    with the committed program's. `progress`: called with what is being done, how many segments are done, and of how
    many.
    """
    from pot.audit.screening.scoring import THRESHOLDS, scores  # numpy, which a reader of the document does not need

    found, unread = scores(run_dir, chain, progress)
    fired: dict[int, list[tuple[float, Check, float]]] = {}
    for segment, one in zip(chain.segments, found, strict=True):
        over = [(score / THRESHOLDS[check], check, score) for check, score in one.items() if score >= THRESHOLDS[check]]
        if over:
            fired[segment.index] = sorted(over, reverse=True)
    order = sorted(fired, key=lambda number: ([-strength for strength, *_ in fired[number]], number))
    details = [
        {
            "segment": str(number),
            "checks": [
                {"check": check, "score": _decimal(score), "threshold": _decimal(THRESHOLDS[check])}
                for _, check, score in fired[number]
            ],
        }
        for number in order[:MAX_DETAILED]
    ]
    value = {
        "version": "pot/screening/v1",
        "thresholds": "1",
        "segments": str(len(chain.segments)),
        "flagged": str(len(order)),
        "suspicious": [str(number) for number in order[:MAX_LISTED]],
        "details": details,
        "unread": sorted(unread),
    }
    return Screening.from_value(value, what="screening")


def _decimal(value: float) -> str:
    """Four significant digits suffice for a reader, and keep the document small."""
    return repr(float(f"{min(value, _LARGEST):.4g}"))
